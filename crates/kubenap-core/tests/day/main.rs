//! An app's day, told as tables: when it is, what happened, what KubeNap does next and why.

mod world;
mod broken;
mod managed;
mod unsubstituted;

use kubenap_core::activity::Blind;
use kubenap_core::app::{AppId, key};
use kubenap_core::policy::Texts;
use kubenap_core::seen::{Peer, Phase, ServiceRefusal};

use crate::world::{Day, OTHER, show};

/// Seconds since midnight, what happened, the next step, the label of its reason.
type Row = (u64, fn(&mut Day), &'static str, &'static str);

/// Armed after ten quiet minutes, in the Service with both members, the window nearly over.
const DROWSY: [Row; 4] = [
    (600, nothing, "arm 1", "quiet"),
    (600, nothing, "substitute", "substituting"),
    (600, settled, "stay", "substituting"),
    (601, other_substitutes, "stay", "drowsy-window"),
];

/// And asleep.
const ASLEEP: [Row; 2] =
    [(610, path_proved, "zero 1, remember 2", "quiet"), (611, settled, "stay", "asleep")];

#[test]
fn a_quiet_app_naps_and_the_next_request_wakes_it() {
    tell(&[&[
        (0, nothing, "stay", "had-traffic"),
        (300, traffic, "stay", "had-traffic"),
        (899, nothing, "stay", "had-traffic"),
        (900, nothing, "arm 1", "quiet"),
        (900, nothing, "substitute", "substituting"),
        (900, settled, "stay", "substituting"),
        (901, other_substitutes, "stay", "drowsy-window"),
        (907, nothing, "stay", "proving"),
        (907, path_proved, "zero 1, remember 2", "quiet"),
        (908, nothing, "stay", "asleep"),
        (909, settled, "stay", "asleep"),
        (5000, request, "up 1, to 2", "asked"),
        (5000, nothing, "stay", "pods-coming"),
        (5001, settled, "stay", "pods-coming"),
        (5002, pods_ready, "mark", "pods-ready"),
        (5002, nothing, "withdraw", "pods-ready"),
        (5002, answered, "finish 1", "pods-ready"),
        (5003, settled, "stay", "pods-ready"),
        (5003, other_withdraws, "stay", "woke-recently"),
        (5100, nothing, "stay", "had-traffic"),
        (5602, nothing, "arm 2", "quiet"),
    ]]);
}

#[test]
fn where_the_path_cannot_be_shown_twice_the_window_counts() {
    tell(&[&DROWSY, &[(610, nothing, "stay", "proving"), (611, nothing, "zero 1, remember 2", "quiet")]]);
}

#[test]
fn an_ask_in_the_drowsy_phase_calls_the_nap_off() {
    tell(&[
        &DROWSY,
        &[
            (603, request, "cancel 1", "asked-while-drowsy"),
            (603, answered, "mark", "pods-ready"),
            (604, settled, "withdraw", "pods-ready"),
            (604, nothing, "stay", "pods-ready"),
            (605, other_withdraws, "stay", "woke-recently"),
        ],
    ]);
}

#[test]
fn traffic_that_a_source_saw_in_the_drowsy_phase_calls_the_nap_off() {
    tell(&[&DROWSY, &[(606, traffic, "cancel 1", "had-traffic")]]);
}

#[test]
fn a_forced_nap_goes_on_through_asks() {
    tell(&[&[
        (10, wish_forced, "arm 1", "wished"),
        (10, nothing, "substitute", "substituting"),
        (10, settled, "stay", "substituting"),
        (11, other_substitutes, "stay", "drowsy-window"),
        (14, request, "stay", "drowsy-window"),
        (21, path_proved, "zero 1, remember 2", "wished"),
        (22, settled_and_answered, "stay", "asleep"),
    ]]);
}

#[test]
fn a_wish_to_nap_needs_no_source_but_yields_to_an_ask() {
    tell(&[&[
        (10, wish_nap_blind, "arm 1", "wished"),
        (10, nothing, "substitute", "substituting"),
        (11, settled, "stay", "substituting"),
        (12, request, "cancel 1", "asked-while-drowsy"),
    ]]);
}

#[test]
fn a_source_that_goes_blind_keeps_the_app_awake_or_calls_the_nap_off() {
    tell(&[&[
        (700, blind, "stay", "blind"),
        (9000, nothing, "stay", "blind"),
        (9001, sees_again, "arm 1", "quiet"),
    ]]);
    tell(&[&DROWSY, &[(606, blind, "cancel 1", "blind")]]);
    tell(&[&DROWSY, &ASLEEP, &[(9000, blind, "stay", "asleep"), (9001, request, "up 1, to 2", "asked")]]);
}

#[test]
fn annotations_that_are_undone_are_written_back_from_the_slices() {
    let undone: [Row; 2] =
        [(700, annotations_gone, "record 1, remember 2", "record-lost"), (701, settled, "stay", "asleep")];
    tell(&[&DROWSY, &ASLEEP, &undone, &[(800, request, "up 1, to 2", "asked")]]);
    tell(&[&DROWSY, &ASLEEP, &[(700, annotations_gone_and_request, "up 1, to 2", "asked")]]);
}

#[test]
fn a_nap_gets_a_greater_number_than_any_that_an_undo_may_bring_back() {
    tell(&[&[(600, an_earlier_revision_was_at_nap_21, "arm 22", "quiet")]]);
}

#[test]
fn a_zero_of_the_owners_stays_unless_the_app_says_how_to_wake() {
    tell(&[&[
        (10, scaled_to_zero, "stay", "owners-zero"),
        (11, request, "stay", "owners-zero"),
        (12, wish_nap, "clear wish", "owners-zero"),
        (13, wish_wake, "up 0, to 1", "wished"),
    ]]);
    tell(&[&[
        (10, says_three_and_zero, "record 1, remember 3", "zero-adopted"),
        (10, nothing, "substitute", "asleep"),
        (11, settled, "stay", "asleep"),
        (12, request, "up 1, to 3", "asked"),
    ]]);
}

#[test]
fn taking_the_label_away_wakes_the_app_in_every_phase_and_leaves_no_trace() {
    tell(&[&[(10, label_gone, "stay", "opted-out")]]);
    tell(&[
        &DROWSY,
        &[
            (603, label_gone, "cancel 1", "opted-out"),
            (604, settled, "mark", "pods-ready"),
            (605, other_withdraws, "withdraw", "pods-ready"),
            (606, nothing, "forget", "opted-out"),
            (607, settled, "stay", "opted-out"),
        ],
    ]);
    tell(&[
        &DROWSY,
        &ASLEEP,
        &[(700, label_gone, "up 1, to 2", "opted-out"), (701, settled, "stay", "pods-coming")],
        &GONE,
    ]);
    tell(&[
        &DROWSY,
        &ASLEEP,
        &[
            (700, request, "up 1, to 2", "asked"),
            (701, label_gone, "stay", "pods-coming"),
            (702, settled, "stay", "pods-coming"),
        ],
        &GONE,
    ]);
}

/// The end of every app that is no longer opted in, whose pods become ready.
const GONE: [Row; 5] = [
    (711, pods_ready, "mark", "pods-ready"),
    (712, other_withdraws, "withdraw", "pods-ready"),
    (713, settled, "finish 1", "pods-ready"),
    (714, settled, "forget", "opted-out"),
    (715, settled, "stay", "opted-out"),
];

#[test]
fn two_deployments_behind_one_service_nap_and_wake_together() {
    tell(&[&[
        (600, peer_is_busy, "stay", "peer-awake"),
        (601, peer_is_willing, "arm 1", "quiet"),
        (601, nothing, "substitute", "substituting"),
        (602, settled_with_other, "stay", "drowsy-window"),
        (613, path_proved, "stay", "peer-awake"),
        (614, peer_is_drowsy, "substitute", "substituting"),
        (614, other_substitutes, "zero 1, remember 2", "quiet"),
        (615, settled, "stay", "asleep"),
        (700, peer_wakes, "up 1, to 2", "peer-awake"),
    ]]);
    tell(&[&DROWSY, &[(603, peer_wakes, "cancel 1", "peer-awake")]]);
}

#[test]
fn a_service_that_changes_while_the_app_sleeps_is_followed() {
    tell(&[
        &DROWSY,
        &ASLEEP,
        &[
            (700, service_changes_its_port, "record 1, remember 2", "ports-changed"),
            (700, nothing, "substitute", "asleep"),
            (701, settled, "sweep", "member-dead"),
            (701, nothing, "stay", "asleep"),
        ],
    ]);
    tell(&[&DROWSY, &ASLEEP, &[(700, service_goes, "up 1, to 2", "service-missing")]]);
    tell(&[&DROWSY, &ASLEEP, &[(700, service_becomes_headless, "up 1, to 2", "service-refused")]]);
}

#[test]
fn a_dead_members_slices_are_swept_by_the_living() {
    tell(&[&DROWSY, &ASLEEP, &[(700, other_dies, "sweep", "member-dead"), (700, nothing, "stay", "asleep")]]);
}

#[test]
fn a_nap_that_nobody_finishes_is_called_off_by_any_member() {
    tell(&[
        &DROWSY[..3],
        &[
            (602, leader_lost, "stay", "not-leader"),
            (660, nothing, "stay", "not-leader"),
            (661, nothing, "cancel 1", "nap-abandoned"),
        ],
    ]);
}

#[test]
fn the_last_look_of_an_app_with_a_query_may_come_minutes_after_the_arming() {
    let armed: [Row; 4] = [
        (10, query_two_minutes_late, "stay", "had-traffic"),
        (720, nothing, "arm 1", "quiet"),
        (720, nothing, "substitute", "substituting"),
        (721, settled_with_other, "stay", "last-look"),
    ];
    tell(&[
        &armed,
        &[(839, path_proved, "stay", "last-look"), (840, nothing, "zero 1, remember 2", "quiet")],
    ]);
    tell(&[
        &armed,
        &[(800, four_minutes_late, "stay", "last-look"), (991, nothing, "cancel 1", "nap-abandoned")],
    ]);
}

#[test]
fn an_app_whose_query_shows_what_is_too_old_is_not_armed() {
    tell(&[&[
        (10, query_two_minutes_late, "stay", "had-traffic"),
        (700, four_minutes_late, "stay", "behind"),
        (9000, nothing, "stay", "behind"),
        (9001, query_two_minutes_late, "arm 1", "quiet"),
    ]]);
}

#[test]
fn a_wish_is_cleared_once_it_is_carried_out_or_refused() {
    tell(&[&[(10, wish_wake, "clear wish", "wished")]]);
    tell(&[&DROWSY, &ASLEEP, &[(700, wish_nap, "clear wish", "wished"), (700, settled, "stay", "asleep")]]);
    tell(&[&DROWSY, &ASLEEP, &[(700, wish_wake, "up 1, to 2", "wished")]]);
    tell(&[&DROWSY, &[(603, wish_wake, "cancel 1", "wished")]]);
    tell(&[&[
        (10, wish_nap_in_a_bad_place, "stay", "rolling-out"),
        (11, settled, "clear wish", "service-refused"),
        (12, settled, "stay", "service-refused"),
    ]]);
}

#[test]
fn who_does_not_lead_puts_nothing_to_sleep_but_wakes() {
    tell(&[&[(700, leader_lost, "stay", "not-leader")]]);
    tell(&[&DROWSY, &ASLEEP, &[(700, leader_lost, "stay", "asleep"), (701, request, "up 1, to 2", "asked")]]);
}

fn nothing(_: &mut Day) {}

fn settled(day: &mut Day) {
    day.settle();
}

fn pods_ready(day: &mut Day) {
    day.start_pods();
}

fn traffic(day: &mut Day) {
    day.last_seen = day.now;
}

fn request(day: &mut Day) {
    (day.asked, day.last_seen) = (true, day.now);
}

fn answered(day: &mut Day) {
    day.asked = false;
}

fn settled_and_answered(day: &mut Day) {
    day.settle();
    day.asked = false;
}

fn other_substitutes(day: &mut Day) {
    day.other_substitutes();
}

fn settled_with_other(day: &mut Day) {
    day.settle();
    day.other_substitutes();
}

fn other_withdraws(day: &mut Day) {
    day.seen.slices.retain(|slice| slice.member != OTHER);
}

fn other_dies(day: &mut Day) {
    day.here.living.remove(OTHER);
}

fn leader_lost(day: &mut Day) {
    day.here.leading = false;
}

fn path_proved(day: &mut Day) {
    day.path_proved = true;
}

fn query_two_minutes_late(day: &mut Day) {
    day.annotations.insert("kubenap/query".to_owned(), "sum(orders_total)".to_owned());
    day.lag = 120;
}

fn four_minutes_late(day: &mut Day) {
    day.lag = 240;
}

fn blind(day: &mut Day) {
    day.blind.insert(Blind::SourceDown);
}

fn sees_again(day: &mut Day) {
    day.blind.clear();
}

fn annotations_gone(day: &mut Day) {
    day.annotations = Texts::new();
    day.edited();
}

fn an_earlier_revision_was_at_nap_21(day: &mut Day) {
    day.copies.insert(0, Texts::from([(key::EPOCH.to_owned(), "21".to_owned())]));
}

fn annotations_gone_and_request(day: &mut Day) {
    annotations_gone(day);
    request(day);
}

fn scaled_to_zero(day: &mut Day) {
    (day.seen.deployment.replicas, day.owners) = (0, true);
    day.edited();
    day.settle();
}

fn says_three_and_zero(day: &mut Day) {
    annotate(day, "kubenap/replicaCount", "3");
    scaled_to_zero(day);
    // One member alone is enough for this story.
    day.here.living.remove(OTHER);
}

fn label_gone(day: &mut Day) {
    day.labels.clear();
}

fn wish_nap(day: &mut Day) {
    annotate(day, key::WISH, "nap");
    day.settle();
}

fn wish_nap_blind(day: &mut Day) {
    blind(day);
    wish_nap(day);
}

fn wish_forced(day: &mut Day) {
    annotate(day, key::WISH, "forceNap");
    day.settle();
}

fn wish_wake(day: &mut Day) {
    annotate(day, key::WISH, "wake");
    day.settle();
}

fn wish_nap_in_a_bad_place(day: &mut Day) {
    service_becomes_headless(day);
    annotate(day, key::WISH, "nap");
}

fn annotate(day: &mut Day, name: &str, text: &str) {
    day.annotations.insert(name.to_owned(), text.to_owned());
    day.edited();
}

fn peer(day: &mut Day, phase: Phase, willing: bool) {
    day.seen.peers = vec![Peer { id: AppId::new("shop", "api"), phase, willing, stamp: None }];
}

fn peer_is_busy(day: &mut Day) {
    peer(day, Phase::Awake, false);
}

fn peer_is_willing(day: &mut Day) {
    peer(day, Phase::Awake, true);
}

fn peer_is_drowsy(day: &mut Day) {
    peer(day, Phase::Drowsy, true);
    day.seen.peers[0].stamp = Some(kubenap_core::seen::Stamp { epoch: 1, restore: 1 });
}

fn peer_wakes(day: &mut Day) {
    peer(day, Phase::Waking, false);
}

fn service_changes_its_port(day: &mut Day) {
    day.seen.services[0].ports[0].number = 81;
    day.here.living.remove(OTHER);
}

fn service_goes(day: &mut Day) {
    day.seen.services.clear();
    day.seen.slices.clear();
    day.owners = true;
    day.seen.missing_services = vec!["web".to_owned()];
}

fn service_becomes_headless(day: &mut Day) {
    day.seen.services[0].refusal = Some(ServiceRefusal::Headless);
}

/// Tells a story: each row's step and reason must be as it says.
fn tell(chapters: &[&[Row]]) {
    tell_from(Day::new(), chapters);
}

/// The same, of a day that begins otherwise.
fn tell_from(mut day: Day, chapters: &[&[Row]]) {
    let mut told = String::new();
    let mut wrong = false;
    for (now, event, step, why) in chapters.iter().copied().flatten().copied() {
        day.now = now;
        event(&mut day);
        let decision = day.turn();
        let (did, label) = (show(&decision.step), decision.why.label());
        wrong |= did != step || label != why;
        told += &format!("{now:>5}  {did:<22} {label:<20} (expected {step}, {why})\n");
        assert!(answers(&day), "nobody answers:\n{told}");
    }
    assert!(!wrong, "not as expected:\n{told}");
}

/// At every moment its pods answer or a member does, unless its owner took the pods or the Service away.
fn answers(day: &Day) -> bool {
    let member =
        day.seen.slices.iter().any(|slice| !slice.leaving && day.here.living.contains(&slice.member));
    !day.seen.endpoints.is_empty() || member || day.is_behind_a_hook() || day.owners
}
