//! The whole graph of states: the shortest way to a broken promise, and the states from which nothing good can follow.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use stateright::Model;

use crate::environment::Action;
use crate::protocol::Protocol;
use crate::world::{Answering, World};

/// What was found in the graph.
pub(crate) struct Graph {
    /// How many states there are.
    pub(crate) states: usize,
    /// In how many of them only a dead member's address is left.
    pub(crate) only_the_dead: usize,
    /// In how many of them the app sleeps, and all is well.
    pub(crate) asleep: usize,
    /// In how many of them it is awake after a nap, and all is well.
    pub(crate) woken: usize,
    /// How many of them are stuck.
    pub(crate) stuck: usize,
    /// A shortest way to a state that breaks a promise or is stuck, and what is wrong with it.
    pub(crate) fault: Option<Fault>,
}

/// Something that must not be, and how it comes about.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The promise.
    pub(crate) promise: &'static str,
    /// What happens, in order.
    pub(crate) way: Vec<Action>,
    /// What is so in the end.
    pub(crate) world: World,
}

/// The promise of recovery: from every state a good one can be reached without any more luck, good or bad.
pub(crate) const NEVER_STUCK: &str = "never stuck";

/// Explores everything, forwards from the start and then backwards from the good states, along steps of progress only.
/// Stops at the first broken promise.
pub(crate) fn explore(protocol: &Protocol) -> Graph {
    let mut found = Found::default();
    for world in protocol.init_states() {
        found.place(world, None);
    }
    let promises = protocol.properties();
    let mut next = 0;
    let mut actions = Vec::new();
    let mut broken = None;
    while next < found.worlds.len() {
        if let Some(promise) = promises.iter().find(|it| !(it.condition)(protocol, &found.worlds[next])) {
            broken = Some((promise.name, next));
            break;
        }
        actions.clear();
        protocol.actions(&found.worlds[next], &mut actions);
        for action in &actions {
            let Some(world) = protocol.next_state(&found.worlds[next], *action) else { continue };
            let progress = action.is_progress(&found.worlds[next]);
            let place = found.place(world, Some((next, *action)));
            if progress {
                found.back[place].extend(u32::try_from(next));
            }
        }
        next += 1;
    }
    let good: Vec<_> = found.worlds.iter().map(|world| protocol.is_good(world)).collect();
    let stuck = if broken.is_some() { Vec::new() } else { found.stuck(&good) };
    let fault = broken.or_else(|| Some((NEVER_STUCK, *stuck.first()?)));
    let only_dead = |world: &&World| {
        (0..protocol.services).any(|service| protocol.answering(world, service) == Answering::OnlyTheDead)
    };
    let well = |asleep: bool| {
        let worlds = found.worlds.iter().zip(&good);
        worlds
            .filter(|(world, good)| **good && world.is_after_a_nap() && (world.replicas == 0) == asleep)
            .count()
    };
    Graph {
        states: found.worlds.len(),
        only_the_dead: found.worlds.iter().filter(only_dead).count(),
        asleep: well(true),
        woken: well(false),
        stuck: stuck.len(),
        fault: fault.map(|(promise, place)| Fault {
            promise,
            way: found.way(place),
            world: found.worlds[place].clone(),
        }),
    }
}

#[derive(Default)]
struct Found {
    known: BTreeMap<u64, usize>,
    worlds: Vec<World>,
    from: Vec<Option<(usize, Action)>>,
    back: Vec<Vec<u32>>,
}

impl Found {
    fn place(&mut self, world: World, from: Option<(usize, Action)>) -> usize {
        // States are known by a hash of 64 bits, as stateright's own checker does.
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        *self.known.entry(hasher.finish()).or_insert_with(|| {
            self.worlds.push(world);
            self.from.push(from);
            self.back.push(Vec::new());
            self.worlds.len() - 1
        })
    }

    fn stuck(&self, good: &[bool]) -> Vec<usize> {
        let mut reaches = good.to_vec();
        let mut queue: VecDeque<_> = (0..good.len()).filter(|place| good[*place]).collect();
        while let Some(place) = queue.pop_front() {
            for before in &self.back[place] {
                let before = *before as usize;
                if !reaches[before] {
                    reaches[before] = true;
                    queue.push_back(before);
                }
            }
        }
        (0..good.len()).filter(|place| !reaches[*place]).collect()
    }

    fn way(&self, mut place: usize) -> Vec<Action> {
        let mut way = Vec::new();
        while let Some((before, action)) = self.from[place] {
            way.push(action);
            place = before;
        }
        way.reverse();
        way
    }
}
