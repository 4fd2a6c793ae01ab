//! Days on which an app cannot start, or on which somebody else keeps scaling it up.

use kubenap_core::seen::Trouble;

use crate::world::{Day, time};
use crate::{
    ASLEEP, DROWSY, Row, nothing, other_substitutes, other_withdraws, path_proved, pods_ready, request,
};
use crate::{answered, scaled_to_zero, settled, tell, wish_nap, wish_wake};

#[test]
fn an_app_that_cannot_start_says_so_and_its_replicas_stay_wanted_until_it_heals() {
    tell(&[
        &DROWSY,
        &ASLEEP,
        &[
            (700, request, "up 1, to 2", "asked"),
            (701, no_image, "stay", "cannot-start"),
            (790, nothing, "stay", "cannot-start"),
            (900, nothing, "stay", "cannot-start"),
            (5000, nothing, "stay", "cannot-start"),
            (5001, heals, "stay", "pods-coming"),
            (5002, pods_ready, "mark", "pods-ready"),
        ],
    ]);
}

#[test]
fn what_is_not_ready_when_the_time_for_a_wake_is_over_counts_as_broken_until_it_is_ready() {
    tell(&[
        &DROWSY,
        &ASLEEP,
        &[
            (700, request, "up 1, to 2", "asked"),
            (701, settled, "stay", "pods-coming"),
            (818, nothing, "stay", "pods-coming"),
            (821, nothing, "stay", "cannot-start"),
            (2000, nothing, "stay", "cannot-start"),
            (2001, pods_ready, "mark", "pods-ready"),
        ],
    ]);
}

#[test]
fn where_a_quota_is_in_the_way_each_try_that_the_breaker_allows_pushes_once() {
    tell(&[
        &DROWSY,
        &ASLEEP,
        &[
            (700, request, "up 1, to 2", "asked"),
            (701, no_room, "stay", "cannot-start"),
            (703, push, "push", "cannot-start"),
            (703, pushed, "stay", "cannot-start"),
            (707, no_image, "stay", "cannot-start"),
            // Nothing that a push would help against.
            (708, push, "stay", "cannot-start"),
        ],
    ]);
}

#[test]
fn a_wake_that_the_api_server_refuses_is_tried_again_when_the_breaker_allows_it() {
    tell(&[
        &DROWSY,
        &ASLEEP,
        &[
            (700, denied_and_request, "stay", "wake-denied"),
            (701, nothing, "stay", "wake-denied"),
            (702, nothing, "up 1, to 2", "asked"),
        ],
    ]);
    // Nobody asks: it sleeps, whatever the breaker says.
    tell(&[&DROWSY, &ASLEEP, &[(700, denied, "stay", "asleep")]]);
    // A wish stays until it is carried out.
    tell(&[
        &DROWSY,
        &ASLEEP,
        &[(700, denied_and_wish, "stay", "wake-denied"), (702, nothing, "up 1, to 2", "wished")],
    ]);
    tell(&[&[
        (10, scaled_to_zero, "stay", "owners-zero"),
        (11, denied_and_wish, "stay", "wake-denied"),
        (13, nothing, "up 0, to 1", "wished"),
    ]]);
}

/// Somebody scales a sleeping app up; it is adopted as awake.
const REVERTED: [Row; 6] = [
    (0, scaled_up, "stay", "pods-coming"),
    (1, pods_ready, "mark", "pods-ready"),
    (1, other_withdraws, "withdraw", "pods-ready"),
    (2, nothing, "finish 0", "woken-by-other"),
    (3, settled, "stay", "woke-recently"),
    (62, nothing, "stay", "had-traffic"),
];

/// The nap before it: quiet for ten minutes since it was adopted as awake.
const NAP: [Row; 6] = [
    (0, nothing, "arm 0", "quiet"),
    (0, nothing, "substitute", "substituting"),
    (0, settled, "stay", "substituting"),
    (1, other_substitutes, "stay", "drowsy-window"),
    (10, path_proved, "zero 0, remember 2", "quiet"),
    (11, settled, "stay", "asleep"),
];

#[test]
fn three_reverts_within_an_hour_and_it_naps_no_more_until_the_hour_is_over() {
    let rounds: Vec<Vec<Row>> = [(610, 1), (1300, 2), (2000, 3)]
        .into_iter()
        .flat_map(|(at, nap)| [later(&NAP, at, nap), later(&REVERTED, at + 20, nap)])
        .collect();
    let mut chapters: Vec<&[Row]> = rounds.iter().map(Vec::as_slice).collect();
    // The last round ends otherwise: nothing about traffic matters any more.
    let last = chapters.pop().unwrap_or_default();
    chapters.push(&last[..4]);
    let after: [Row; 6] = [
        (2024, settled, "stay", "reverted"),
        (3000, nothing, "stay", "reverted"),
        (3001, wish_nap, "clear wish", "reverted"),
        (3002, settled, "stay", "reverted"),
        // The first of the three was at 632 s.
        (4231, nothing, "stay", "reverted"),
        (4232, nothing, "arm 4", "quiet"),
    ];
    chapters.push(&after);
    tell(&chapters);
}

/// A second of a wake, and what happens then.
type Happening = (u64, fn(&mut Day));

#[test]
fn a_wake_of_kubenaps_own_and_a_persons_by_the_command_line_are_no_reverts() {
    let mut day = Day::new();
    for (nap, at) in [(1, 700), (2, 1400), (3, 2100), (4, 2800)] {
        for (second, happens, ..) in later(&NAP, at, nap) {
            day.now = second;
            happens(&mut day);
            drop(day.turn());
        }
        let wakes: [Happening; 6] = [
            (20, if nap % 2 == 0 { wish_wake } else { request }),
            (21, answered),
            (22, settled_and_ready),
            (23, other_withdraws),
            (24, nothing),
            (25, nothing),
        ];
        for (second, happens) in wakes {
            day.now = at + second;
            happens(&mut day);
            drop(day.turn());
        }
        assert_eq!(day.seen.deployment.record.epoch, nap, "it napped");
    }
    assert!(day.seen.deployment.record.reverts.is_empty());
}

/// The same rows, so much later, of this nap.
fn later(rows: &[Row], by: u64, nap: u64) -> Vec<Row> {
    let step = |step: &'static str| match (step, nap) {
        ("arm 0", 1) => "arm 1",
        ("arm 0", 2) => "arm 2",
        ("arm 0", _) => "arm 3",
        ("finish 0", 1) => "finish 1",
        ("finish 0", 2) => "finish 2",
        ("finish 0", _) => "finish 3",
        ("zero 0, remember 2", 1) => "zero 1, remember 2",
        ("zero 0, remember 2", 2) => "zero 2, remember 2",
        ("zero 0, remember 2", _) => "zero 3, remember 2",
        (other, _) => other,
    };
    rows.iter().map(|(at, event, did, why)| (at + by, *event, step(did), *why)).collect()
}

fn no_image(day: &mut Day) {
    day.settle();
    day.seen.deployment.refused = None;
    day.seen.pods.iter_mut().for_each(|pod| pod.trouble = Some(Trouble::Image));
}

fn no_room(day: &mut Day) {
    day.settle();
    day.seen.deployment.refused = Some(Trouble::Quota);
}

fn heals(day: &mut Day) {
    day.seen.pods.iter_mut().for_each(|pod| pod.trouble = None);
}

fn push(day: &mut Day) {
    day.push = true;
}

fn pushed(day: &mut Day) {
    day.push = false;
    day.settle();
}

fn denied(day: &mut Day) {
    day.breaker.failed(Trouble::Denied, Some("not on Fridays".to_owned()), time(day.now));
}

fn denied_and_request(day: &mut Day) {
    denied(day);
    request(day);
}

fn denied_and_wish(day: &mut Day) {
    denied(day);
    wish_wake(day);
}

fn scaled_up(day: &mut Day) {
    day.seen.deployment.replicas = 2;
    day.reverter = Some("argocd-controller".to_owned());
    day.edited();
    day.settle();
}

fn settled_and_ready(day: &mut Day) {
    day.settle();
    day.start_pods();
}
