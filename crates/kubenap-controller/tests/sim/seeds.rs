//! Random mixes of people, faults and time; the same seed is the same run.
#![expect(clippy::unwrap_used, reason = "a run that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a seed that is run alone tells what it does")]

use std::time::Duration;

use jiff::SignedDuration;
use kubenap_controller::nap::by_hand::Progress;
use kubenap_sandbox::{Effect, Fault};
use serde_json::json;

use crate::report::{Counts, Job, same};
use crate::sim::{APP, COUNT, Sim};
use crate::source::Mood;

/// A night in which nobody asks, and no member runs.
const NIGHT: Duration = Duration::from_hours(12);
/// Every so many seeds one member runs through the night; that takes a hundred times as long.
const STAYS: u64 = 500;
/// A stretch in which members run and nothing happens.
const QUIET: Duration = Duration::from_secs(30);

/// Chance that can be repeated (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// Something that a person or the world does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Ask,
    Wait,
    Scale(u64),
    Undo,
    Unlabel,
    Rollout,
    Wish(&'static str),
    Garbage,
    Crash,
    Leave,
    Join { skew: i64 },
    Apart(u64),
    Away(u64),
    Source(Mood),
    Fault(Effect, &'static str),
}

fn act(dice: &mut Dice, sim: &Sim) -> Act {
    let seconds = 1 + dice.roll(20);
    match dice.roll(30) {
        0..=4 => Act::Ask,
        5..=6 => Act::Wait,
        7 => Act::Scale(1 + dice.roll(4)),
        8 => Act::Undo,
        9 => Act::Unlabel,
        10 => Act::Rollout,
        11 => Act::Wish(["nap", "forceNap", "wake"][usize::try_from(dice.roll(3)).unwrap()]),
        12 => Act::Garbage,
        13..=14 => Act::Crash,
        15 => Act::Leave,
        16..=17 => Act::Join { skew: [0, 0, -5, 5][usize::try_from(dice.roll(4)).unwrap()] },
        18 => Act::Apart(seconds),
        19 => Act::Away(seconds),
        20..=24 => Act::Source(match dice.roll(5) {
            0 => Mood::Down,
            1 => Mood::Empty,
            2 => Mood::Busy,
            3 => Mood::Stuck(sim.world.now()),
            _ => Mood::Fine,
        }),
        _ => {
            let effects = [
                Effect::Conflict,
                Effect::FailBefore(500),
                Effect::FailAfter(500),
                Effect::FailBefore(504),
                Effect::FailAfter(504),
                Effect::TooManyRequests(1),
                Effect::Delay(Duration::from_secs(7)),
                Effect::RepeatEvent,
                Effect::DelayEvent(Duration::from_secs(5)),
                Effect::Gone,
                Effect::Silent,
            ];
            let kinds = ["deployments", "endpointslices", "pods", "leases"];
            let effect = effects[usize::try_from(dice.roll(effects.len() as u64)).unwrap()];
            Act::Fault(effect, kinds[usize::try_from(dice.roll(4)).unwrap()])
        }
    }
}

/// Does it; `wanted` is the count that the owner asked for last.
async fn perform(sim: &Sim, act: Act, dice: &mut Dice, wanted: &mut u64) {
    let world = &sim.world;
    let one = |dice: &mut Dice| {
        let living = sim.living();
        let at = dice.roll(living.len().max(1) as u64);
        living.get(usize::try_from(at).unwrap()).copied()
    };
    match act {
        Act::Ask => drop(sim.ask()),
        Act::Wait => world.pass(10).await,
        Act::Scale(count) => {
            *wanted = count;
            world.edit("deployments", APP, |app| app["spec"]["replicas"] = count.into());
        }
        // With no slice there is nothing left to know the sleep by.
        Act::Undo if !world.slices(APP).is_empty() || world.replicas(APP) > 0 => {
            world.edit("deployments", APP, |app| {
                app["metadata"]["annotations"] = json!({"kubenap/idleAfter": "10s"});
            });
        }
        Act::Undo => {}
        Act::Unlabel => {
            world.edit("deployments", APP, |app| app["metadata"]["labels"] = json!({}));
            world.pass(dice.roll(10)).await;
            world.edit("deployments", APP, |app| {
                app["metadata"]["labels"] = json!({"kubenap/enabled": "true"});
            });
        }
        Act::Rollout => world.edit("deployments", APP, |app| {
            app["spec"]["template"]["metadata"]["annotations"] =
                json!({"restartedAt": world.now().to_string()});
        }),
        Act::Wish(wish) => world.annotate(APP, "wish", wish),
        Act::Garbage => {
            world.annotate(APP, "idleAfter", "\u{0}soon, maybe");
            world.pass(dice.roll(20)).await;
            world.annotate(APP, "idleAfter", "10s");
        }
        Act::Crash => one(dice).into_iter().for_each(|nth| sim.crash(nth)),
        Act::Leave => {
            if let Some(nth) = one(dice) {
                sim.leave(nth).await;
            }
        }
        Act::Join { skew } => {
            if let Some(nth) = (1..=3).find(|nth| !sim.living().contains(nth)) {
                sim.join(nth, SignedDuration::from_mins(skew)).await;
            }
        }
        Act::Apart(seconds) => {
            if let Some(nth) = one(dice) {
                sim.apart(nth, true);
                world.pass(seconds).await;
                sim.apart(nth, false);
            }
        }
        Act::Away(seconds) => {
            world.sandbox.faults().freeze();
            world.pass(seconds).await;
            world.sandbox.faults().thaw();
        }
        Act::Source(mood) => sim.mood(mood),
        Act::Fault(effect, kind) => {
            let fault = Fault::new(effect).resource(kind).after(dice.roll(3)).times(1 + dice.roll(3));
            world.sandbox.faults().inject(fault);
        }
    }
}

/// The run of a seed; gives its API history. `told`: says what it does.
async fn run(seed: u64, told: bool) -> (String, Counts) {
    let mut dice = Dice(seed);
    let sim = Sim::new(&[]).await;
    let world = &sim.world;
    let mut wanted = u64::from(COUNT);
    for nth in 1..=u8::try_from(1 + dice.roll(3)).unwrap() {
        sim.join(nth, SignedDuration::ZERO).await;
    }
    let mut skewed = false;
    let acts = 6 + dice.roll(8);
    for _ in 0..acts {
        let next = act(&mut dice, &sim);
        skewed |= matches!(next, Act::Join { skew } if skew != 0);
        if told {
            println!("{:?} {next:?}", world.elapsed());
        }
        perform(&sim, next, &mut dice, &mut wanted).await;
        tokio::time::sleep(Duration::from_millis(200 + dice.roll(8_000))).await;
    }
    // Faults end; people and sources are well again.
    world.sandbox.faults().clear();
    sim.mood(Mood::Fine);
    if sim.living().is_empty() {
        sim.join(1, SignedDuration::ZERO).await;
    }
    // What a member held when it died its client waits for up to five minutes.
    sim.until("every request has ended", 320, || sim.all_answered()).await;
    // A moment that a member wrote whose clock is ahead keeps the app awake for as long, and on a clock that is late
    // for twice as long.
    sim.asleep(wanted, if skewed { 780 } else { 120 }).await;
    sim.until("all who live stand in", 60, || sim.all_stand_in()).await;
    // The watches that were told to fall silent have ended by then.
    tokio::time::sleep(Duration::from_secs(50)).await;
    let from = world.now();
    tokio::time::sleep(QUIET).await;
    sim.still.borrow_mut().push((from, world.now()));
    let members = sim.living();
    let stays = seed.is_multiple_of(STAYS);
    for nth in members.iter().skip(usize::from(stays)) {
        sim.crash(*nth);
    }
    tokio::time::sleep(NIGHT).await;
    if !stays {
        sim.join(members[0], SignedDuration::ZERO).await;
    }
    sim.until("it stands in again", 60, || sim.all_stand_in()).await;
    assert_eq!(sim.ask().await.unwrap(), 200, "seed {seed}\n{}", world.show());
    let over = || world.phase(APP) == "awake" && sim.is_awake(wanted) && world.slices(APP).is_empty();
    sim.until("awake", 60, over).await;
    if seed.is_multiple_of(4) {
        sim.crash(members[0]);
        assert_eq!(sim.restore().await, Progress::Done);
        let notes = world.deployment(APP)["metadata"]["annotations"].clone();
        let left: Vec<_> =
            notes.as_object().unwrap().keys().filter(|key| *key != "kubenap/idleAfter").cloned().collect();
        assert!(left.iter().all(|key| !key.starts_with("kubenap/")), "I22: {left:?}");
    }
    if told {
        println!("{:?} {:?}", world.elapsed(), world.sandbox.requests());
    }
    let checks = sim.judge();
    let outages = sim.truth.lock().unwrap().outages;
    let counts = Counts::from([
        ("seeds", 1),
        ("checks", checks),
        ("source outages and lies", outages),
        ("requests", sim.history().requests.len() as u64),
        ("simulated seconds", world.elapsed().as_secs()),
        ("of them with no member running", if stays { 0 } else { NIGHT.as_secs() }),
    ]);
    (sim.history_text(), counts)
}

/// The run of one seed.
pub(crate) fn job(seed: u64, told: bool) -> Job<()> {
    Job::new(format!("seed {seed}"), move || async move { ((), run(seed, told).await.1) })
}

/// The first so many seeds.
pub(crate) fn jobs(seeds: u64) -> Vec<Job<()>> {
    (1..=seeds).map(|seed| job(seed, false)).collect()
}

/// Some seeds twice.
pub(crate) fn twice() -> Vec<Job<()>> {
    (1..=20)
        .map(|seed| same(format!("seed {seed}, twice"), "seeds run twice", move || run(seed, false)))
        .collect()
}
