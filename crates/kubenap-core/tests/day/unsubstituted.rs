//! Days of an app that is not substituted: only the proxy in front of it leads to KubeNap.

use kubenap_core::app::key;
use kubenap_core::seen::{HookGap, HookSeen, ServiceRefusal};

use crate::world::Day;
use crate::{
    ASLEEP, DROWSY, Row, annotate, nothing, other_substitutes, other_withdraws, path_proved, pods_ready,
    request, scaled_to_zero, settled, settled_and_answered, tell, tell_from, traffic, wish_nap,
};

/// Armed after ten quiet minutes, and the window nearly over.
const ARMED: [Row; 3] = [
    (600, nothing, "arm 1", "quiet"),
    (600, nothing, "stay", "rolling-out"),
    (600, settled, "stay", "drowsy-window"),
];

/// And asleep.
const SLEEPING: [Row; 2] =
    [(606, path_proved, "zero 1, remember 2", "quiet"), (607, settled, "stay", "asleep")];

#[test]
fn it_naps_without_a_slice_and_the_next_request_wakes_it() {
    behind_a_hook(&[
        &ARMED,
        &SLEEPING,
        &[
            (5000, request, "up 1, to 2", "asked"),
            (5001, settled, "stay", "pods-coming"),
            (5002, pods_ready, "finish 1", "pods-ready"),
            (5003, settled_and_answered, "stay", "woke-recently"),
            (5602, nothing, "arm 2", "quiet"),
        ],
    ]);
}

#[test]
fn a_kind_of_service_that_nobody_can_stand_in_for_does_not_matter() {
    behind_a_hook(&[&[(0, becomes_headless, "stay", "had-traffic")], &ARMED, &SLEEPING]);
}

#[test]
fn without_a_hook_or_an_answer_at_the_wake_address_it_stays_awake() {
    for (missing, back, why) in [
        (hook_goes as fn(&mut Day), hook_comes as fn(&mut Day), "hook-missing"),
        (hook_not_looked_for, hook_comes, "hook-unknown"),
        (wake_address_falls_silent, wake_address_answers, "wake-address-silent"),
    ] {
        behind_a_hook(&[&[
            (500, missing, "stay", why),
            (9000, nothing, "stay", why),
            (9001, back, "arm 1", "quiet"),
        ]]);
        behind_a_hook(&[&[(500, missing, "stay", why), (501, wish_nap, "clear wish", why)]]);
        behind_a_hook(&[&ARMED, &[(603, missing, "cancel 1", why)]]);
    }
    behind_a_hook(&[
        &ARMED,
        &[(606, nothing, "stay", "proving"), (610, nothing, "cancel 1", "wake-address-silent")],
    ]);
}

#[test]
fn a_member_that_does_not_lead_and_so_has_not_looked_at_the_hook_ends_no_nap() {
    behind_a_hook(&[
        &ARMED,
        &[(603, another_leads, "stay", "not-leader"), (604, hook_goes, "cancel 1", "hook-missing")],
    ]);
}

#[test]
fn a_member_that_began_a_moment_ago_and_has_no_answer_of_the_wake_address_yet_ends_no_nap_of_the_leaders() {
    behind_a_hook(&[&ARMED, &[(603, another_leads_and_this_one_is_new, "stay", "not-leader")]]);
}

#[test]
fn a_hook_that_goes_while_it_sleeps_wakes_it_and_one_that_cannot_be_seen_does_not() {
    behind_a_hook(&[
        &ARMED,
        &SLEEPING,
        &[
            (700, hook_not_looked_for, "stay", "asleep"),
            (701, wake_address_falls_silent, "stay", "asleep"),
            (702, owner_takes_the_hook, "up 1, to 2", "hook-missing"),
        ],
    ]);
}

#[test]
fn an_undo_while_it_sleeps_is_made_good_from_its_replica_sets() {
    behind_a_hook(&[
        &ARMED,
        &SLEEPING,
        &[
            (700, undone, "record 1, remember 2", "record-lost"),
            (700, settled, "stay", "asleep"),
            (701, request, "up 1, to 2", "asked"),
        ],
    ]);
    // Before the copy of the zero is there, the one of the arming tells.
    behind_a_hook(&[&ARMED, &SLEEPING[..1], &[(606, undone, "record 1, remember 2", "record-lost")]]);
    behind_a_hook(&[&ARMED, &SLEEPING, &[(700, undone_and_request, "up 1, to 2", "asked")]]);
}

#[test]
fn a_zero_of_the_owners_after_a_nap_is_still_the_owners() {
    behind_a_hook(&[
        &ARMED,
        &SLEEPING,
        &[
            (700, request, "up 1, to 2", "asked"),
            (701, settled, "stay", "pods-coming"),
            (702, pods_ready, "finish 1", "pods-ready"),
            (703, settled_and_answered, "stay", "woke-recently"),
            (704, scaled_to_zero, "stay", "owners-zero"),
            (705, undone, "stay", "owners-zero"),
        ],
    ]);
}

#[test]
fn traffic_and_a_new_count_in_the_drowsy_phase_call_the_nap_off() {
    behind_a_hook(&[&ARMED, &[(603, traffic, "cancel 1", "had-traffic")]]);
    behind_a_hook(&[&ARMED, &[(603, scaled_to_three, "cancel 1", "armed-otherwise")]]);
}

#[test]
fn substitution_that_is_switched_off_takes_the_slices_out_when_the_other_way_answers() {
    tell(&[
        &DROWSY,
        &[
            (603, switched_off, "cancel 1", "armed-otherwise"),
            (603, settled, "mark", "pods-ready"),
            (604, nothing, "withdraw", "pods-ready"),
            (605, other_withdraws, "stay", "woke-recently"),
        ],
    ]);
    tell(&[
        &DROWSY,
        &ASLEEP,
        &[
            (700, switched_off_in_silence, "stay", "asleep"),
            (701, wake_address_answers, "withdraw strays", "leftover"),
            (702, other_withdraws, "stay", "asleep"),
            (703, request, "up 1, to 2", "asked"),
        ],
    ]);
    tell(&[&DROWSY, &ASLEEP, &[(700, switched_off_without_a_hook, "up 1, to 2", "hook-missing")]]);
    tell(&[
        &DROWSY,
        &ASLEEP,
        &[
            (700, request, "up 1, to 2", "asked"),
            (701, switched_off, "stay", "pods-coming"),
            (702, settled, "stay", "pods-coming"),
            (703, pods_ready, "mark", "pods-ready"),
            (703, nothing, "withdraw", "pods-ready"),
            (704, other_withdraws, "finish 1", "pods-ready"),
        ],
    ]);
}

#[test]
fn substitution_that_is_switched_on_puts_members_into_the_services() {
    behind_a_hook(&[&ARMED, &[(603, switched_on, "cancel 1", "armed-otherwise")]]);
    behind_a_hook(&[
        &ARMED,
        &SLEEPING,
        &[
            (700, switched_on, "record 1, remember 2", "ports-changed"),
            (700, nothing, "substitute", "asleep"),
            (701, other_substitutes, "stay", "asleep"),
            (702, owner_takes_the_hook, "stay", "asleep"),
            (703, request, "up 1, to 2", "asked"),
        ],
    ]);
    behind_a_hook(&[
        &ARMED,
        &SLEEPING,
        &[
            (700, request, "up 1, to 2", "asked"),
            (701, switched_on, "stay", "pods-coming"),
            (702, settled, "stay", "pods-coming"),
            (703, pods_ready, "finish 1", "pods-ready"),
        ],
    ]);
}

fn behind_a_hook(chapters: &[&[Row]]) {
    tell_from(Day::behind_a_hook(), chapters);
}

fn hook_goes(day: &mut Day) {
    day.seen.hook = HookSeen::Missing(HookGap::NotShown);
}

fn owner_takes_the_hook(day: &mut Day) {
    hook_goes(day);
    day.owners = true;
}

fn hook_not_looked_for(day: &mut Day) {
    day.seen.hook = HookSeen::Unknown;
    // It is there all the same.
    day.owners = true;
}

fn another_leads(day: &mut Day) {
    day.here.leading = false;
    hook_not_looked_for(day);
}

fn another_leads_and_this_one_is_new(day: &mut Day) {
    day.here.leading = false;
    wake_address_falls_silent(day);
}

fn hook_comes(day: &mut Day) {
    day.seen.hook = HookSeen::Seen;
}

fn wake_address_falls_silent(day: &mut Day) {
    day.wake_address_answers = false;
}

fn wake_address_answers(day: &mut Day) {
    day.wake_address_answers = true;
}

fn becomes_headless(day: &mut Day) {
    day.seen.services[0].refusal = Some(ServiceRefusal::Headless);
}

/// As `kubectl rollout undo` does: another ReplicaSet is the current one, and the Deployment has its annotations.
fn undone(day: &mut Day) {
    day.annotations.retain(|name, _| !key::STATE.contains(&name.as_str()));
    day.copies.push(day.annotations.clone());
    day.edited();
}

fn undone_and_request(day: &mut Day) {
    undone(day);
    request(day);
}

fn scaled_to_three(day: &mut Day) {
    day.seen.deployment.replicas = 3;
    day.edited();
}

fn switched_off(day: &mut Day) {
    annotate(day, "kubenap/substitute", "false");
    day.seen.hook = HookSeen::Declared;
}

fn switched_off_in_silence(day: &mut Day) {
    switched_off(day);
    wake_address_falls_silent(day);
}

fn switched_off_without_a_hook(day: &mut Day) {
    switched_off(day);
    hook_goes(day);
}

fn switched_on(day: &mut Day) {
    annotate(day, "kubenap/substitute", "true");
}
