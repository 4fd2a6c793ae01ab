//! Addresses of pods and Services: numbers only, or loopback addresses of which no other sandbox has any.
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};

/// Gives addresses out, and one again only after all others have had their turn.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Held open, so that two sandboxes on one machine never share a block of 254 addresses.
    claims: Vec<(u8, UdpSocket)>,
    sockets: bool,
    pods: Pool,
    services: Pool,
}

#[derive(Debug, Default)]
struct Pool {
    taken: BTreeSet<Ipv4Addr>,
    next: u32,
}

/// Outside of the range that the kernel itself gives out.
const CLAIM_PORT: u16 = 61_999;

impl Addresses {
    pub(crate) fn new(sockets: bool) -> Self {
        Self { claims: Vec::new(), sockets, pods: Pool::default(), services: Pool::default() }
    }

    /// A free address for a pod; none if all are taken.
    pub(crate) fn pod(&mut self) -> Option<Ipv4Addr> {
        self.take(|addresses| (&mut addresses.pods, [10, 244], [127, 10]))
    }

    /// A free address for a Service; none if all are taken.
    pub(crate) fn service(&mut self) -> Option<Ipv4Addr> {
        self.take(|addresses| (&mut addresses.services, [10, 96], [127, 12]))
    }

    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.pods.taken.remove(&address);
        self.services.taken.remove(&address);
    }

    fn take(&mut self, which: impl Fn(&mut Self) -> (&mut Pool, [u8; 2], [u8; 2])) -> Option<Ipv4Addr> {
        let blocks: Vec<u8> = match self.sockets {
            true if self.claims.is_empty() => self.claim()?,
            true => self.blocks(),
            false => (0..=255).collect(),
        };
        let sockets = self.sockets;
        let (pool, numbers, loopback) = which(self);
        let prefix = if sockets { loopback } else { numbers };
        if let Some(address) = pool.next_free(prefix, &blocks) {
            return Some(address);
        }
        if !sockets {
            return None;
        }
        let blocks = self.claim()?;
        which(self).0.next_free(prefix, &blocks)
    }

    fn blocks(&self) -> Vec<u8> {
        self.claims.iter().map(|(block, _)| *block).collect()
    }

    /// One more block, in pods' and in Services' addresses alike.
    fn claim(&mut self) -> Option<Vec<u8>> {
        let first = std::process::id().to_le_bytes()[0];
        let claimed = (0..=255_u8).find_map(|offset| {
            let block = first.wrapping_add(offset);
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 10, block, 0), CLAIM_PORT)).ok()?;
            Some((block, socket))
        })?;
        self.claims.push(claimed);
        Some(self.blocks())
    }
}

impl Pool {
    fn next_free(&mut self, prefix: [u8; 2], blocks: &[u8]) -> Option<Ipv4Addr> {
        let count = u32::try_from(blocks.len()).ok()? * 254;
        for _ in 0..count {
            let place = self.next % count;
            self.next = self.next.wrapping_add(1);
            let block = *blocks.get(usize::try_from(place / 254).ok()?)?;
            let last = u8::try_from(place % 254 + 1).ok()?;
            let address = Ipv4Addr::new(prefix[0], prefix[1], block, last);
            if self.taken.insert(address) {
                return Some(address);
            }
        }
        None
    }
}
