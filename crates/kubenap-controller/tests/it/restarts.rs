//! A crash after each write, and each kind of failed write: it always ends asleep when quiet and awake when asked.

use std::time::Duration;

use kubenap_sandbox::{Effect, Fault};

use crate::visitor;
use crate::world::{Guard, World};

/// Asleep with its count, then awake with it; no slice is left over.
async fn ends_well(world: &World, guard: &Guard, what: &str) {
    world.asleep("web").await;
    assert_eq!(world.note("web", "restoreReplicas").as_deref(), Some("2"), "{what}: {}", world.show());
    world.annotate("web", "wish", "wake");
    world.awake("web", 2).await;
    assert_eq!(world.note("web", "restoreReplicas"), None, "{what}");
    assert_eq!(guard.holes(), 0, "{what}: nobody answered for the app");
}

async fn drowsy_soon(world: &World) -> Guard {
    world.app("web", 2, &[]).await;
    world.pass(1).await;
    world.guard("web")
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_any_write_of_a_nap_is_made_good_by_the_next_controller() {
    for writes in 1..30 {
        let world = World::quick();
        let guard = drowsy_soon(&world).await;
        let running = world.join(1).await;
        world.pass(5).await;
        world.sandbox.faults().fail_after_writes(writes);
        world.pass(20).await;
        let all = world.phase("web") == "asleep";
        running.crash();
        world.sandbox.faults().clear();
        world.pass(u64::from(writes % 2 == 0) * 10).await;
        // Now and then the same pod comes back, now and then another one.
        let nth = if writes % 3 == 0 { 1 } else { 2 };
        let _next = world.join(nth).await;
        ends_well(&world, &guard, &format!("after {writes} writes")).await;
        if all && writes > 12 {
            return;
        }
    }
    panic!("thirty writes are not enough for a nap");
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_any_write_of_a_wake_is_made_good_by_the_next_controller() {
    for writes in 1..20 {
        let world = World::quick();
        let guard = drowsy_soon(&world).await;
        let running = world.join(1).await;
        world.asleep("web").await;
        world.annotate("web", "wish", "wake");
        world.sandbox.faults().fail_after_writes(writes);
        world.pass(10).await;
        running.crash();
        world.sandbox.faults().clear();
        let nth = if writes % 3 == 0 { 1 } else { 2 };
        let _next = world.join(nth).await;
        world.until("it was awake", 60, || world.ready_replicas("web") == 2).await;
        ends_well(&world, &guard, &format!("after {writes} writes")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_write_may_fail_once_in_any_way() {
    let effects = [
        Effect::Conflict,
        Effect::FailBefore(500),
        Effect::FailBefore(504),
        Effect::FailAfter(500),
        Effect::FailAfter(504),
        Effect::TooManyRequests(1),
        Effect::Delay(Duration::from_secs(7)),
    ];
    let writes = [
        ("patch", "deployments", 4),
        ("create", "endpointslices", 1),
        ("patch", "endpointslices", 1),
        ("delete", "endpointslices", 1),
    ];
    for effect in effects {
        for (verb, resource, count) in writes {
            for nth in 0..count {
                let what = format!("{effect:?} on {verb} {resource} {nth}");
                let world = World::quick();
                let guard = drowsy_soon(&world).await;
                let _running = world.join(1).await;
                let fault = Fault::new(effect).verb(verb).resource(resource).after(nth).times(1);
                world.sandbox.faults().inject(fault);
                ends_well(&world, &guard, &what).await;
                assert!(world.elapsed() < Duration::from_secs(120), "{what}: {}", world.show());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_for_a_while_changes_nothing() {
    let world = World::quick();
    let guard = drowsy_soon(&world).await;
    let _running = world.join(1).await;
    world.asleep("web").await;
    world.sandbox.faults().freeze();
    world.pass(120).await;
    world.sandbox.faults().thaw();
    world.pass(30).await;
    assert_eq!((world.phase("web").as_str(), world.replicas("web")), ("asleep", 0));
    assert_eq!(world.members_in("web"), ["m1"]);
    world.annotate("web", "wish", "wake");
    world.awake("web", 2).await;
    world.sandbox.faults().freeze();
    world.pass(120).await;
    world.sandbox.faults().thaw();
    world.asleep("web").await;
    assert_eq!(guard.holes(), 0, "nobody answered for the app");
}

#[tokio::test(start_paused = true)]
async fn watches_that_fall_silent_lose_events_or_start_again_are_overcome() {
    for effect in [Effect::Silent, Effect::DropEvent, Effect::Gone] {
        let world = World::quick();
        let guard = drowsy_soon(&world).await;
        let _running = world.join(1).await;
        world.pass(5).await;
        world.sandbox.faults().inject(Fault::new(effect).verb("watch").times(6));
        ends_well(&world, &guard, &format!("{effect:?}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_stayed_waking_for_ever_since_one_event_was_lost_gets_awake() {
    for (kind, nth) in [("endpointslices", 2), ("endpointslices", 3), ("deployments", 4), ("deployments", 6)]
    {
        let world = World::quick();
        let guard = drowsy_soon(&world).await;
        let _running = world.join(1).await;
        world.asleep("web").await;
        world.sandbox.faults().inject(Fault::new(Effect::DropEvent).resource(kind).after(nth).times(1));
        world.annotate("web", "wish", "wake");
        world.awake("web", 2).await;
        world.sandbox.faults().clear();
        ends_well(&world, &guard, &format!("{kind} {nth}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_watch_lags_behind_the_nap_wakes_the_app_soon_and_writes_no_more_than_it_must() {
    let world = World::quick();
    let guard = drowsy_soon(&world).await;
    let _running = world.join(1).await;
    world.until("drowsy", 30, || world.phase("web") == "drowsy").await;
    let late = Effect::DelayEvent(Duration::from_secs(30));
    world.sandbox.faults().inject(Fault::new(late).resource("deployments").after(1).times(1));
    world.until("scaled down", 30, || world.replicas("web") == 0).await;
    let from = world.sandbox.log().len();
    let start = world.elapsed();
    let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(world.elapsed().saturating_sub(start) < Duration::from_secs(10), "{}", world.show());
    world.pass(20).await;
    let writes = world.writes(from);
    assert!(writes.len() < 30, "{} writes\n{}", writes.len(), world.show());
    ends_well(&world, &guard, "a lagging watch").await;
}

#[tokio::test(start_paused = true)]
async fn a_slice_watch_that_falls_silent_does_not_make_a_member_write_its_slice_every_two_seconds() {
    let world = World::quick();
    let guard = drowsy_soon(&world).await;
    let _running = world.join(1).await;
    world.pass(5).await;
    let silent = Fault::new(Effect::Silent).verb("watch").resource("endpointslices").times(3);
    world.sandbox.faults().inject(silent);
    world.sandbox.faults().inject(Fault::new(Effect::Gone).verb("watch").resource("endpointslices").times(1));
    world.pass(45).await;
    world.asleep("web").await;
    let from = world.sandbox.log().len();
    world.pass(30).await;
    assert!(world.writes(from).len() <= 2, "{}", world.show());
    world.sandbox.faults().clear();
    ends_well(&world, &guard, "a silent watch of slices").await;
}
