//! Stories about a scanner: what becomes of a real request when far more apps are asked for than may wake at once.

use std::time::Duration;

use kubenap_controller::run::Running;
use kubenap_controller::wake::Turn;
use kubenap_core::app::AppId;
use tokio::time::Instant;

use crate::visitor;
use crate::world::World;

/// So many other apps are asked for at this moment; how many of them may wake.
fn scan(running: &Running, apps: usize) -> usize {
    let budget = &running.context().budget;
    let goes = |number: &usize| {
        budget.turn(&AppId::new("other", format!("app{number}")), 1, true, Instant::now()) == Turn::Go
    };
    (0..apps).filter(goes).count()
}

#[tokio::test(start_paused = true)]
async fn a_request_behind_a_scanner_is_held_and_answered_soon() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let running = world.join(1).await;
    world.asleep("web").await;
    assert_eq!(scan(&running, 150), 100);
    let begun = world.elapsed();
    let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let took = world.elapsed().saturating_sub(begun);
    assert!(took > Duration::from_secs(2), "fifty others were there before, but it took {took:?}");
    assert!(took < Duration::from_secs(30), "it took {took:?}");
    world.awake("web", 1).await;
    assert!(World::metrics(&running).await.contains("kubenap_wakes_total{outcome=\"put-off\"} 1"));
    let told = world.events("web", "WakeFailed");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("more apps are asked for than may wake at once"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_in_vain_is_told_so_at_once_and_when_to_come_again() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let running = world.join(1).await;
    world.asleep("web").await;
    scan(&running, 4000);
    let begun = world.elapsed();
    let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(world.elapsed() < begun + Duration::from_secs(2), "not at once");
    assert_eq!(reply.header("x-kubenap-reason"), Some("wake-paced"), "{reply:?}");
    let after: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!(after > 120, "{after}");
    // Nobody else waits any more; its place was kept.
    world.awake("web", 1).await;
    assert_eq!(visitor::get(world.cluster_ip("web", 80), "web", "/").await.status, 200);
}
