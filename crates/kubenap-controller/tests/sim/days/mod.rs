//! Days in which members are at work: the real decisions and writes, on a model of the cluster that costs microseconds.
//!
//! A day of the whole controller costs seconds, nearly all of it for the renewal of Leases. Here only `decide`, `writes`
//! and what they rest on are real; what a member remembers, Kubernetes' controllers and the API server are a model.
#![expect(clippy::print_stdout, reason = "a story that is told alone tells what it does")]

mod cluster;
mod member;
mod story;
mod kubernetes;
mod acts;
mod checks;
mod laws;
mod bite;

use acts::{Act, DAY};
pub(crate) use bite::Bent;
use member::{Millis, span};
use story::Story;

use crate::report::{Counts, Job};

/// How many days a story has.
const DAYS: u64 = 10;

/// A story of some days and what it counted; `told`: says what it does.
fn tell(seed: u64, days: u64, bent: Bent, told: bool) -> Result<Counts, String> {
    let mut story = Story::new(seed, bent, told);
    for day in 0..days {
        story.plan_day();
        story.until((day + 1) * DAY);
    }
    story.perform(Act::Evening);
    story.until(days * DAY + DAY / 4);
    story.opt_out();
    story.until(days * DAY + DAY / 3);
    story.untouched();
    let ledger = &story.ledger;
    if let Some(first) = ledger.broken.first() {
        return Err(format!("{first}\n{:?}\n{}", story.situation(), story.show()));
    }
    Ok(Counts::from([
        ("days of decisions", days),
        ("days of decisions, checks", ledger.checks),
        ("days of decisions, nights slept through", ledger.nights),
        ("days of decisions, faults", ledger.faults),
        ("days of decisions, naps", ledger.naps),
        ("days of decisions, naps called off", ledger.cancelled),
        ("days of decisions, requests", ledger.requests),
        ("days of decisions, turns", ledger.turns),
        ("days of decisions, wakes", ledger.wakes),
        ("days of decisions, writes", ledger.writes),
    ]))
}

/// One story of ten days.
pub(crate) fn job(seed: u64, told: bool) -> Job<()> {
    Job::new(format!("story {seed}"), move || async move {
        match tell(seed, DAYS, Bent::No, told) {
            Ok(counts) => ((), counts),
            Err(why) => panic!("{why}"),
        }
    })
}

/// As many as have so many days in all.
pub(crate) fn jobs(days: u64) -> Vec<Job<()>> {
    (1..=days.div_ceil(DAYS)).map(|seed| job(seed, false)).collect()
}

/// Every precaution whose loss no law noticed within some stories.
pub(crate) fn bite() -> Vec<(String, String)> {
    let unnoticed = |bent: &Bent| (1..=8).all(|seed| tell(seed, 3, *bent, false).is_ok());
    let all = Bent::ALL.into_iter().filter(unnoticed);
    all.map(|bent| (format!("days with {bent:?}"), "not noticed".to_owned())).collect()
}

fn say(now: Millis, what: &str) {
    println!("{:?} {what}", span(now));
}
