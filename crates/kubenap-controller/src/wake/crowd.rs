//! Room for connections: bounded in total, fair between doors or peers, the newest of the greediest sent away first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::door::DoorKey;

/// Everybody who is being served, by door or, where no door is known, by peer.
#[derive(Debug)]
pub(crate) struct Crowd<K: Ord = DoorKey> {
    limit: usize,
    overflow: usize,
    inside: Mutex<Inside<K>>,
}

/// A place in the crowd; given back on drop.
#[derive(Debug)]
pub(crate) struct Slot<K: Ord = DoorKey> {
    crowd: Arc<Crowd<K>>,
    door: Arc<K>,
    number: u64,
    shed: CancellationToken,
    settled: AtomicBool,
}

#[derive(Debug)]
struct Inside<K> {
    /// Everybody, also those already told to go.
    count: usize,
    next: u64,
    /// Those who may be sent away, by door and age. Doors without anybody are not in here.
    waiting: BTreeMap<Arc<K>, BTreeMap<u64, CancellationToken>>,
    /// How many may not be sent away any more, by door.
    settled: BTreeMap<Arc<K>, usize>,
}

impl<K: Ord> Crowd<K> {
    pub(crate) fn new(limit: usize, overflow: usize) -> Arc<Self> {
        let inside = Inside { count: 0, next: 0, waiting: BTreeMap::new(), settled: BTreeMap::new() };
        Arc::new(Self { limit, overflow, inside: Mutex::new(inside) })
    }

    /// A place for one more at `door`; nothing if it would itself be the one to send away.
    pub(crate) fn enter(self: &Arc<Self>, door: &Arc<K>) -> Option<Slot<K>> {
        let mut inside = self.lock();
        // Those who are passed stay as long as they like; one door's must not take everybody's place.
        if inside.settled.get(door).is_some_and(|count| *count >= self.limit.div_ceil(2)) {
            return None;
        }
        if inside.count >= self.limit && !inside.make_room(door, self.limit + self.overflow) {
            return None;
        }
        inside.count += 1;
        let number = inside.next;
        inside.next += 1;
        let shed = CancellationToken::new();
        inside.waiting.entry(Arc::clone(door)).or_default().insert(number, shed.clone());
        let settled = AtomicBool::new(false);
        Some(Slot { crowd: Arc::clone(self), door: Arc::clone(door), number, shed, settled })
    }

    fn lock(&self) -> MutexGuard<'_, Inside<K>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.lock().count
    }
}

impl<K: Ord> Inside<K> {
    /// Sends the newest of the greediest door away, unless that is the newcomer.
    fn make_room(&mut self, newcomer: &Arc<K>, hard_limit: usize) -> bool {
        if self.count >= hard_limit {
            return false;
        }
        let own = self.waiting.get(newcomer).map_or(0, BTreeMap::len);
        let Some((greediest, share)) = self.waiting.iter_mut().max_by_key(|(_, waiting)| waiting.len())
        else {
            return false;
        };
        if own + 1 >= share.len() {
            return false;
        }
        let Some((_, shed)) = share.pop_last() else { return false };
        shed.cancel();
        if share.is_empty() {
            let empty = Arc::clone(greediest);
            self.waiting.remove(&empty);
        }
        true
    }

    fn forget(&mut self, door: &Arc<K>, number: u64) {
        if let Some(share) = self.waiting.get_mut(door) {
            share.remove(&number);
            if share.is_empty() {
                self.waiting.remove(door);
            }
        }
    }
}

impl<K: Ord> Slot<K> {
    /// Cancelled when this one has to make room for somebody else.
    pub(crate) fn shed(&self) -> &CancellationToken {
        &self.shed
    }

    /// From here on it cannot be sent away: it is being passed, and would lose what it began.
    pub(crate) fn settle(&self) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            let mut inside = self.crowd.lock();
            inside.forget(&self.door, self.number);
            *inside.settled.entry(Arc::clone(&self.door)).or_default() += 1;
        }
    }
}

impl<K: Ord> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut inside = self.crowd.lock();
        inside.forget(&self.door, self.number);
        if self.settled.load(Ordering::Relaxed)
            && let Some(count) = inside.settled.get_mut(&self.door)
        {
            *count -= 1;
            if *count == 0 {
                inside.settled.remove(&self.door);
            }
        }
        inside.count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(name: &str) -> Arc<DoorKey> {
        Arc::new(DoorKey { namespace: "shop".into(), service: name.into(), port: 80 })
    }

    #[test]
    fn a_modest_door_takes_its_place_from_the_newest_of_the_greediest() {
        let crowd = Crowd::new(4, 10);
        let (greedy, modest) = (door("greedy"), door("modest"));
        let held: Vec<_> = (0..4).filter_map(|_| crowd.enter(&greedy)).collect();
        assert_eq!(held.len(), 4);
        let newcomer = crowd.enter(&modest);
        assert!(newcomer.is_some());
        assert_eq!(
            held.iter().map(|s| s.shed().is_cancelled()).collect::<Vec<_>>(),
            [false, false, false, true]
        );
        assert!(crowd.enter(&greedy).is_none(), "the greediest door cannot push out others");
        drop((held, newcomer));
        assert_eq!(crowd.count(), 0);
    }

    #[test]
    fn who_is_being_passed_is_not_sent_away() {
        let crowd = Crowd::new(2, 10);
        let (greedy, modest) = (door("greedy"), door("modest"));
        let held: Vec<_> = (0..2).filter_map(|_| crowd.enter(&greedy)).collect();
        held.iter().for_each(Slot::settle);
        assert!(crowd.enter(&modest).is_none());
        assert!(held.iter().all(|slot| !slot.shed().is_cancelled()));
    }

    #[test]
    fn the_overflow_is_bounded_too() {
        let crowd = Crowd::new(10, 2);
        let greedy = door("greedy");
        let held: Vec<_> = (0..10).filter_map(|_| crowd.enter(&greedy)).collect();
        let modest: Vec<_> = (0..5).map(|n| crowd.enter(&door(&format!("modest{n}")))).collect();
        assert_eq!(modest.iter().filter(|slot| slot.is_some()).count(), 2);
        assert_eq!(crowd.count(), 12);
        drop(held);
    }

    #[test]
    fn those_who_are_passed_at_one_door_never_take_all_places() {
        let crowd = Crowd::new(4, 2);
        let (greedy, modest) = (door("greedy"), door("modest"));
        let mut passed = Vec::new();
        while let Some(slot) = crowd.enter(&greedy) {
            slot.settle();
            passed.push(slot);
        }
        assert_eq!(passed.len(), 2);
        let held: Vec<_> = (0..2).filter_map(|_| crowd.enter(&modest)).collect();
        assert_eq!(held.len(), 2);
        drop(passed);
        assert!(crowd.enter(&greedy).is_some(), "places that were given back are free");
    }
}
