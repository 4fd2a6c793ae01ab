//! Days of an app that is not substituted, and whose proxy KubeNap tells itself: with a death after any write of any turn.

use std::collections::BTreeSet;

use kubenap_core::app::key;
use kubenap_core::seen::{HookSeen, PieceId, Pieces};
use kubenap_core::step::Step;
use serde_json::{Value, json};

use crate::world::{Day, show};

/// What its proxy is told, in this order: a whole object, and an annotation of the app's Ingress that leads to it.
const PIECES: &str =
    "traefik.io/v1alpha1/Middleware/kubenap-system/kubenap-shop-web,networking.k8s.io/v1/Ingress/shop/web";
/// A request comes, long after the app fell asleep.
const ASK: u64 = 650;
/// By then it is awake again, and all is as it was.
const END: u64 = 730;

/// What befalls the app besides, at one turn.
type Blow = fn(&mut Day);

fn objects() -> Vec<Value> {
    let object = |piece: &PieceId| {
        json!({ "apiVersion": piece.api_version, "kind": piece.kind,
            "metadata": { "name": piece.name, "namespace": piece.namespace } })
    };
    Pieces::parse(PIECES).0.iter().map(object).collect()
}

/// What a look at the proxy's objects shows.
fn look(day: &mut Day) {
    let is_there = |object: &Value| day.proxy.contains(&PieceId::of(object));
    let unapplied: Vec<_> = objects().into_iter().filter(|object| !is_there(object)).collect();
    day.seen.hook = if unapplied.is_empty() { HookSeen::Seen } else { HookSeen::Attachable };
    day.seen.unapplied = unapplied;
    day.seen.applied = Pieces(day.proxy.iter().cloned().collect());
}

/// A day with a nap and a wake. At turn `at` the blow falls, and only `most` writes are carried out by a member that
/// then dies. All steps.
fn live(at: usize, most: usize, blow: Blow) -> Vec<String> {
    let mut day = Day::behind_a_hook();
    let mut steps = Vec::new();
    let (mut known_since, mut knew, mut led) = (None, None, None);
    for (turn, second) in (600..END).enumerate() {
        day.now = second;
        day.asked = second >= ASK && day.seen.deployment.replicas == 0;
        day.path_proved = true;
        if turn == at {
            blow(&mut day);
        }
        day.settle();
        day.start_pods();
        look(&mut day);
        let most = if turn == at { most } else { usize::MAX };
        let decision = day.turn_cut_short(most);
        if turn == at {
            day.forget_all();
        }
        check(&day, &decision.step, &steps);
        let is_whole = |piece: &PieceId| piece.is_whole();
        let (leads, there) = (day.proxy.iter().any(|piece| !is_whole(piece)), day.proxy.iter().any(is_whole));
        known_since = if there { known_since.or(Some(second)) } else { None };
        // The proxy hears of both kinds on different ways, of each within two seconds.
        if there != knew.is_some() && !there {
            assert!(led.is_none_or(|last| second - last >= 2), "{at}, {most}: it leads nowhere: {steps:?}");
        }
        if leads && led.is_none_or(|last| second - last > 1) {
            let heard = known_since.is_some_and(|since| second - since >= 2);
            assert!(heard, "{at}, {most}: it leads nowhere yet: {steps:?}");
        }
        led = if leads { Some(second) } else { led };
        knew = known_since;
        if decision.step != Step::Stay {
            steps.push(show(&decision.step));
        }
    }
    let left: Vec<_> = day.annotations.keys().filter(|name| *name == key::HOOK_PIECES).collect();
    assert!(left.is_empty() && day.proxy.is_empty(), "{at}, {most}: {:?} after {steps:?}", day.proxy);
    assert_eq!(day.seen.deployment.replicas, 2, "{at}, {most}: {steps:?}");
    steps
}

fn check(day: &Day, step: &Step, steps: &[String]) {
    let all: BTreeSet<_> = Pieces::parse(PIECES).0.into_iter().collect();
    if day.seen.deployment.replicas == 0 && *step != Step::Attach {
        assert_eq!(day.proxy, all, "asleep, and nobody leads to KubeNap: {step:?} after {steps:?}");
    }
}

fn nothing(_: &mut Day) {}

#[test]
fn its_proxy_is_told_before_the_pods_go_and_what_it_was_told_is_taken_back_after_the_wake() {
    let steps = live(usize::MAX, 0, nothing);
    assert_eq!(
        steps,
        ["arm 1", "attach", "attach", "zero 1, remember 2", "up 1, to 2", "finish 1", "detach", "detach"],
        "what is applied is written down with the arming"
    );
}

#[test]
fn whichever_write_a_member_dies_after_another_one_carries_on() {
    for at in 0..95 {
        for most in 0..3 {
            live(at, most, nothing);
        }
    }
}

#[test]
fn whoever_takes_the_label_away_at_any_moment_has_the_proxy_as_it_was() {
    for at in 0..80 {
        let steps = live(at, usize::MAX, |day| day.labels.clear());
        assert!(at < 2 || steps.last().is_some_and(|step| step == "forget"), "{at}: {steps:?}");
    }
}

#[test]
fn old_annotations_brought_back_at_any_moment_leave_no_hook_behind() {
    for at in 0..80 {
        live(at, usize::MAX, |day| {
            day.annotations.retain(|name, _| name == "kubenap/substitute");
            day.edited();
        });
    }
}

#[test]
fn a_piece_that_somebody_deletes_while_it_sleeps_is_put_back() {
    let steps = live(30, usize::MAX, |day| drop(day.proxy.pop_first()));
    assert_eq!(
        steps,
        [
            "arm 1",
            "attach",
            "attach",
            "zero 1, remember 2",
            "attach",
            "up 1, to 2",
            "finish 1",
            "detach",
            "detach"
        ]
    );
}
