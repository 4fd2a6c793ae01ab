//! Which wake ports an app gets: those it has, as long as nobody else has them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use kubenap_core::seen::{PortKey, ServiceSeen, WakePorts};

/// One port for each Service port. None: not enough are free.
///
/// `kept` are ports that the app, or an app that shares its Services, was given before; `taken` those of everybody
/// else; `free` asks whether one can be bound here, and is asked only of ports that nobody has.
pub fn allot(
    services: &[ServiceSeen],
    kept: &BTreeMap<PortKey, u16>,
    taken: &BTreeSet<u16>,
    range: &RangeInclusive<u16>,
    free: impl Fn(&PortKey, u16) -> bool,
) -> Option<WakePorts> {
    let mut given = BTreeMap::new();
    let mut used = taken.clone();
    let keys = services
        .iter()
        .flat_map(|service| service.ports.iter().map(|port| (service.name.clone(), port.number)));
    for key in keys {
        let usable = |port: &u16| range.contains(port) && !used.contains(port) && free(&key, *port);
        let port = kept.get(&key).copied().filter(usable);
        // A port that a sister Service port keeps is not to be given away here.
        let others: BTreeSet<u16> =
            kept.iter().filter(|(other, _)| **other != key).map(|(_, port)| *port).collect();
        let port = port.or_else(|| range.clone().find(|port| !others.contains(port) && usable(port)))?;
        used.insert(port);
        given.insert(key, port);
    }
    Some(WakePorts(given))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubenap_core::seen::ServicePort;

    fn service(name: &str, ports: &[u16]) -> ServiceSeen {
        let port = |number: &u16| ServicePort { number: *number, ..ServicePort::default() };
        ServiceSeen { name: name.into(), ports: ports.iter().map(port).collect(), ..ServiceSeen::default() }
    }

    fn kept(name: &str, number: u16, port: u16) -> BTreeMap<PortKey, u16> {
        [((name.to_owned(), number), port)].into()
    }

    #[test]
    fn a_port_is_kept_from_nap_to_nap() {
        let ports =
            allot(&[service("web", &[80])], &kept("web", 80, 16003), &[].into(), &(16000..=16009), |_, _| {
                true
            });
        assert_eq!(ports.unwrap().text(), "web:80=16003");
    }

    #[test]
    fn a_port_that_somebody_else_has_is_not_given_twice() {
        let taken = [16000, 16003].into();
        let ports =
            allot(&[service("web", &[80])], &kept("web", 80, 16003), &taken, &(16000..=16009), |_, _| true);
        assert_eq!(ports.unwrap().text(), "web:80=16001");
    }

    #[test]
    fn a_busy_port_is_skipped_and_none_left_refuses() {
        let services = [service("web", &[80, 90])];
        let ports = allot(&services, &BTreeMap::new(), &[].into(), &(16000..=16002), |_, port| port != 16000);
        assert_eq!(ports.unwrap().text(), "web:80=16001,web:90=16002");
        assert_eq!(allot(&services, &BTreeMap::new(), &[].into(), &(16000..=16000), |_, _| true), None);
    }
}
