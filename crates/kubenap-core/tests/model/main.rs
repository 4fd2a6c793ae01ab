//! The model: every order of events around one app, with two leaders, crashes, edits and stale readings, under the
//! shipped `decide` and the shipped writes; and what happens when one precaution of theirs is taken away.
//!
//! `cargo test -p kubenap-core --test model -- --nocapture` prints how many states were seen, and for each precaution
//! the shortest story that shows what it is for.

mod world;
mod protocol;
mod member;
mod environment;
mod graph;

use stateright::{Checker, Model};

use crate::graph::{NEVER_STUCK, explore};
use crate::protocol::{Precaution, Protocol};
use crate::world::Budget;

const HOLE: &str = "somebody answers";
const COUNT: &str = "the count is never lost";

/// One nap, one request, and nothing bad.
const CALM: Budget = Budget { naps: 1, requests: 1, crashes: 0, edits: 0, undos: 0, lapses: 0, hooks: 0 };

#[test]
fn the_shipped_protocol_holds_over_two_naps_with_crashes_and_edits() {
    let naps = holds(&Protocol::shipped(Budget { naps: 2, crashes: 1, ..CALM }));
    let edit = holds(&Protocol::shipped(Budget { crashes: 1, edits: 1, ..CALM }));
    println!("two naps, a crash: {naps}\na crash, an edit: {edit}");
}

#[test]
fn the_shipped_protocol_holds_when_annotations_are_undone() {
    let crash = holds(&Protocol::shipped(Budget { requests: 0, crashes: 1, undos: 1, ..CALM }));
    let edit = holds(&Protocol::shipped(Budget { naps: 2, undos: 1, ..CALM }));
    println!("an undo and a crash: {crash}\nan undo, two naps: {edit}");
}

#[test]
fn the_shipped_protocol_holds_when_every_member_dies() {
    let states = holds(&Protocol::shipped(Budget { naps: 2, requests: 0, crashes: 2, ..CALM }));
    println!("two naps, two crashes: {states}");
}

#[test]
fn the_shipped_protocol_holds_with_two_services() {
    let two = |budget| Protocol { services: 2, ..Protocol::shipped(budget) };
    let crash = holds(&two(Budget { crashes: 1, ..CALM }));
    let undo = holds(&two(Budget { undos: 1, ..CALM }));
    println!("two Services, a crash: {crash}\ntwo Services, an undo: {undo}");
}

#[test]
fn the_shipped_protocol_holds_when_caches_of_slices_are_behind() {
    let torn = |budget| Protocol { torn: true, ..Protocol::shipped(budget) };
    let crash = holds(&torn(Budget { requests: 0, crashes: 1, ..CALM }));
    let undo = holds(&torn(Budget { undos: 1, ..CALM }));
    println!("torn readings, a crash: {crash}\ntorn readings, an undo: {undo}");
}

#[test]
fn the_shipped_protocol_holds_with_one_leader_and_with_one_member() {
    let leader = Protocol { leaders: [true, false], ..Protocol::shipped(Budget { crashes: 1, ..CALM }) };
    let alone = Protocol { processes: 1, ..Protocol::shipped(Budget { naps: 2, crashes: 1, ..CALM }) };
    println!("one leader: {}\none member: {}", holds(&leader), holds(&alone));
}

#[test]
fn the_shipped_protocol_holds_when_a_living_member_is_taken_for_dead() {
    let states = holds(&Protocol::shipped(Budget { naps: 2, lapses: 1, ..CALM }));
    println!("a lapsed Lease of a living member: {states}");
}

#[test]
fn without_substitution_the_shipped_protocol_holds_over_two_naps_with_crashes_and_edits() {
    let naps = holds(&Protocol::behind_a_hook(Budget { naps: 2, requests: 2, crashes: 2, ..CALM }));
    let edit = holds(&Protocol::behind_a_hook(Budget { crashes: 1, edits: 1, ..CALM }));
    println!("behind a hook, two naps, two crashes: {naps}\nbehind a hook, a crash, an edit: {edit}");
}

#[test]
fn without_substitution_the_shipped_protocol_holds_when_annotations_are_undone() {
    let crash = holds(&Protocol::behind_a_hook(Budget { crashes: 1, undos: 1, ..CALM }));
    let naps = holds(&Protocol::behind_a_hook(Budget { naps: 2, requests: 2, undos: 1, ..CALM }));
    println!("behind a hook, an undo and a crash: {crash}\nbehind a hook, an undo, two naps: {naps}");
}

#[test]
fn without_substitution_an_app_whose_hook_is_taken_away_is_never_stuck() {
    let states = holds(&Protocol::behind_a_hook(Budget { naps: 2, crashes: 1, hooks: 2, ..CALM }));
    println!("behind a hook that goes and comes: {states}");
}

#[test]
fn without_a_hook_nobody_answers_for_an_app_that_is_not_substituted() {
    let unhooked = Protocol { hooked: false, ..Protocol::behind_a_hook(CALM) };
    assert_eq!(explore(&unhooked).asleep, 0, "it never naps");
    breaks("naps without a hook", &unhooked.without(&[Precaution::Hook]), HOLE);
}

#[test]
fn without_waiting_for_the_replica_sets_copy_an_undo_loses_the_count() {
    let protocol = Protocol::behind_a_hook(Budget { requests: 0, undos: 1, ..CALM });
    breaks("zero before the copy, and an undo", &protocol.without(&[Precaution::Settled]), COUNT);
}

#[test]
fn two_members_that_take_each_other_for_dead_leave_a_hole() {
    // No precondition can prevent this, for each deletes what the other has rightly written: so it must not happen that
    // two living members take each other for dead. It is for whoever watches Leases to see to that.
    let protocol = Protocol::shipped(Budget { lapses: 2, ..CALM });
    breaks("Leases that all lapse at once", &protocol, HOLE);
}

#[test]
fn without_resource_versions_on_the_deployment_the_count_is_lost() {
    let protocol = Protocol::shipped(Budget { edits: 1, ..CALM });
    breaks("no resourceVersion, and an edit", &protocol.without(&[Precaution::DeploymentVersion]), COUNT);
    let protocol = Protocol::shipped(Budget { naps: 2, requests: 2, ..CALM });
    breaks("no resourceVersion, no edit", &protocol.without(&[Precaution::DeploymentVersion]), COUNT);
}

#[test]
fn without_preconditions_on_deletes_a_late_delete_leaves_a_hole() {
    let two = Protocol::shipped(Budget { naps: 2, requests: 0, crashes: 2, ..CALM });
    breaks("deletes without precondition, two members", &two.without(&[Precaution::SliceVersion]), HOLE);
    let one = Protocol { processes: 1, ..Protocol::shipped(Budget { naps: 2, crashes: 1, ..CALM }) };
    breaks("deletes without precondition, one member", &one.without(&[Precaution::SliceVersion]), HOLE);
}

#[test]
fn without_rewriting_an_old_slice_a_delete_that_is_on_its_way_leaves_a_hole() {
    let protocol = Protocol::shipped(Budget { naps: 2, crashes: 1, ..CALM });
    breaks("slices reused", &protocol.without(&[Precaution::Rewriting]), HOLE);
}

#[test]
fn without_substitution_first_nobody_answers() {
    breaks("zero first", &Protocol::shipped(CALM).without(&[Precaution::Substitution]), HOLE);
}

#[test]
fn without_minding_dying_pods_a_wake_withdraws_too_soon() {
    breaks("dying pods trusted", &Protocol::shipped(CALM).without(&[Precaution::DyingPods]), HOLE);
}

#[test]
fn without_forgetting_what_was_known_of_pods_a_reused_epoch_withdraws_too_soon() {
    let protocol = Protocol::shipped(Budget { naps: 2, requests: 2, undos: 1, ..CALM });
    breaks("pods confirmed for ever, and an undo", &protocol.without(&[Precaution::Forgetting]), HOLE);
}

#[test]
fn without_the_count_in_the_patch_or_on_slices_it_is_lost() {
    let crash = Protocol::shipped(Budget { crashes: 1, ..CALM });
    let both = [Precaution::CountWithZero, Precaution::Mirror];
    breaks("count written later, not mirrored", &crash.clone().without(&both), COUNT);
    let undo = Protocol::shipped(Budget { requests: 0, undos: 1, ..CALM });
    breaks("count not mirrored, and an undo", &undo.clone().without(&[Precaution::Mirror]), COUNT);
    // The mirror alone is enough to find the count again.
    let crash = holds(&crash.without(&[Precaution::CountWithZero]));
    let undo = holds(&undo.without(&[Precaution::CountWithZero]));
    println!("count written later, but mirrored: with a crash {crash}; with an undo {undo}");
}

#[test]
fn without_repair_a_nap_that_nobody_finishes_stays_for_ever() {
    let protocol = Protocol { leaders: [true, false], ..Protocol::shipped(Budget { crashes: 1, ..CALM }) };
    breaks("no repair", &protocol.without(&[Precaution::Repair]), NEVER_STUCK);
}

#[test]
fn without_waiting_for_readiness_a_wake_withdraws_too_soon() {
    breaks("withdrawn at once", &Protocol::shipped(CALM).without(&[Precaution::Readiness]), HOLE);
}

#[test]
fn without_a_phase_on_the_deployment_nobody_else_knows_of_the_nap() {
    let protocol = Protocol::shipped(Budget { crashes: 1, ..CALM });
    breaks("phase only in memory", &protocol.without(&[Precaution::Phase]), COUNT);
}

/// Both stateright's checker and the graph of its own find nothing wrong. Gives a line of what was seen.
fn holds(protocol: &Protocol) -> String {
    let checker = protocol.clone().checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    let graph = explore(protocol);
    assert!(graph.fault.is_none(), "{:#?}", graph.fault);
    assert_eq!(graph.states, checker.unique_state_count(), "both see the same states");
    assert!(graph.asleep > 0 && graph.woken > 0, "the app must really sleep and really wake");
    format!(
        "{} states, {} stuck; good sleep in {}, good wake in {}; only a dead member's address in {}",
        graph.states, graph.stuck, graph.asleep, graph.woken, graph.only_the_dead
    )
}

/// The promise is broken; prints the shortest way to that.
#[expect(clippy::print_stdout, reason = "the story is what this test is for")]
fn breaks(what: &str, protocol: &Protocol, promise: &str) {
    let graph = explore(protocol);
    let Some(fault) = graph.fault else { panic!("{what}: {} states, and nothing is wrong", graph.states) };
    assert_eq!(fault.promise, promise, "{what}: {:?}", fault.world);
    println!("{what}: not \"{promise}\" after {} steps: {:?}", fault.way.len(), fault.way);
}
