//! Several members: one leads, all stand in, and the death of one is nobody's trouble.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kubenap_controller::clock::Clock;
use kubenap_controller::run::Running;
use kubenap_sandbox::{Effect, Fault};
use serde_json::json;

use crate::traffic::Traffic;
use crate::visitor;
use crate::world::World;

fn leads(running: &Running) -> bool {
    running.context().lead.holds()
}

#[tokio::test(start_paused = true)]
async fn of_two_members_one_leads_and_both_stand_in() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let one = world.join(1).await;
    let two = world.join(2).await;
    world.asleep("web").await;
    for _ in 0..100 {
        assert!(leads(&one) ^ leads(&two));
        world.pass(1).await;
    }
    let mut members = world.members_in("web");
    members.sort();
    assert_eq!(members, ["m1", "m2"]);
    assert!(World::metrics(&one).await.contains("kubenap_leader 1"));
    assert!(World::metrics(&two).await.contains("kubenap_leader 0"));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_leaves_is_followed_within_seconds_and_takes_its_slices_along() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let one = world.join(1).await;
    world.until("the first leads", 5, || leads(&one)).await;
    let two = world.join(2).await;
    world.asleep("web").await;
    world.until("both stand in", 10, || world.members_in("web").len() == 2).await;
    one.leave().await;
    assert_eq!(world.members_in("web"), ["m2"]);
    world.until("the second leads", 5, || leads(&two)).await;
    assert!(world.sandbox.get("leases", "kubenap-system", "kubenap-m1").is_none());
    world.annotate("web", "wish", "wake");
    world.awake("web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_crashes_is_followed_within_seventeen_seconds_and_swept_within_twenty() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let one = world.join(1).await;
    world.until("the first leads", 5, || leads(&one)).await;
    let two = world.join(2).await;
    world.asleep("web").await;
    world.until("both stand in", 10, || world.members_in("web").len() == 2).await;
    one.crash();
    world.until("the second leads", 17, || leads(&two)).await;
    world.until("the first one's slices are gone", 5, || world.members_in("web") == ["m2"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_member_stands_in_for_what_sleeps_already() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _one = world.join(1).await;
    world.asleep("web").await;
    let _two = world.join(2).await;
    world.until("both stand in", 10, || world.members_in("web").len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_lease_is_not_there_does_not_start_a_war_over_slices() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _one = world.join(1).await;
    world.asleep("web").await;
    let refused = Fault::new(Effect::FailBefore(500)).resource("leases").name("kubenap-m2");
    world.sandbox.faults().inject(refused);
    let _two = world.join(2).await;
    let from = world.sandbox.log().len();
    world.pass(60).await;
    let writes = world.writes(from).len();
    assert!(writes <= 12, "{writes} writes in a minute");
    world.sandbox.faults().clear();
    world.pass(10).await;
    assert_eq!(world.members_in("web").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_pod_is_not_ready_yet_may_write_its_slices() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _one = world.join(1).await;
    world.asleep("web").await;
    world.put(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "m2", "namespace": "kubenap-system"},
        "spec": {"nodeName": "elsewhere", "containers": [{"name": "kubenap", "image": "kubenap:1"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}}),
    );
    let from = world.sandbox.log().len();
    let two = world.join(2).await;
    world.until("it is ready", 10, || world.members_in("web").len() == 2).await;
    world.pass(1).await;
    let reply = visitor::get(two.admin, "admin", "/readyz").await;
    assert_eq!(reply.status, 200);
    let writes = world.writes(from).len();
    assert!(writes <= 2, "{writes} writes");
}

#[tokio::test(start_paused = true)]
async fn a_nap_goes_on_or_is_undone_when_its_leader_crashes_at_any_moment() {
    for tenths in 0..26 {
        let world = World::quick();
        world.app("web", 2, &[]).await;
        let one = world.join(1).await;
        world.until("the first leads", 5, || leads(&one)).await;
        let _two = world.join(2).await;
        world.until("drowsy", 30, || world.phase("web") == "drowsy").await;
        tokio::time::sleep(Duration::from_millis(100 * tenths)).await;
        one.crash();
        world
            .until("asleep or awake", 90, || matches!(world.phase("web").as_str(), "asleep" | "awake"))
            .await;
        world.asleep("web").await;
        world.until("only the living stand in", 25, || world.members_in("web") == ["m2"]).await;
        assert_eq!(world.note("web", "restoreReplicas").as_deref(), Some("2"));
        world.annotate("web", "wish", "wake");
        world.awake("web", 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn clocks_five_minutes_apart_do_not_matter() {
    for minutes in [-5, 5] {
        let world = World::quick();
        world.app("web", 1, &[]).await;
        let one = world.join(1).await;
        world.until("the first leads", 5, || leads(&one)).await;
        let skewed = shifted(world.now(), minutes);
        let settings =
            kubenap_controller::settings::Settings { clock: Clock::starting_at(skewed), ..world.settings(2) };
        let two = world.join_as(settings).await;
        world.asleep("web").await;
        for _ in 0..60 {
            world.pass(1).await;
            assert!(leads(&one) && !leads(&two));
        }
        world.until("both stand in", 10, || world.members_in("web").len() == 2).await;
        one.crash();
        world.until("the second leads", 17, || leads(&two)).await;
        world.until("the first one's slices are gone", 5, || world.members_in("web") == ["m2"]).await;
        world.annotate("web", "wish", "wake");
        world.awake("web", 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_a_member_with_a_wrong_clock_woke_naps_neither_early_nor_minutes_late() {
    for minutes in [-5, 5] {
        let world = World::quick();
        world.app("web", 1, &[]).await;
        let one = world.join(1).await;
        world.until("the first leads", 5, || leads(&one)).await;
        world.asleep("web").await;
        // What another member leaves behind whose clock is wrong.
        let since = shifted(world.now(), minutes).to_string();
        world.edit("deployments", "web", |app| {
            app["spec"]["replicas"] = 1.into();
            let notes = app["metadata"]["annotations"].as_object_mut().unwrap();
            notes.insert("kubenap/phase".to_owned(), "awake".into());
            notes.insert("kubenap/since".to_owned(), since.into());
            notes.remove("kubenap/restoreReplicas");
        });
        world.awake("web", 1).await;
        for second in 0..9 {
            assert_eq!(world.phase("web"), "awake", "{second} s after it woke, by a clock {minutes} min off");
            world.pass(1).await;
        }
        world.until("it is drowsy again", 15, || world.phase("web") != "awake").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_app_naps_in_time_under_a_leader_whose_clock_is_behind() {
    let mut world = World::quick();
    let behind = shifted(world.now(), -5);
    world.traffic = Traffic::new("script", behind);
    let settings =
        kubenap_controller::settings::Settings { clock: Clock::starting_at(behind), ..world.settings(1) };
    let _one = world.join_as(settings).await;
    world.pass(10).await;
    world.app("web", 1, &[]).await;
    for second in 0..8 {
        assert_eq!(world.phase("web"), "awake", "{second} s after it was made");
        world.pass(1).await;
    }
    world.asleep("web").await;
}

fn shifted(now: Timestamp, minutes: i64) -> Timestamp {
    now + SignedDuration::from_mins(minutes)
}

#[tokio::test(start_paused = true)]
async fn members_whose_lease_watches_fall_silent_do_not_take_each_other_for_dead() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _one = world.join(1).await;
    let _two = world.join(2).await;
    world.asleep("web").await;
    world.until("both stand in", 10, || world.members_in("web").len() == 2).await;
    world.pass(30).await;
    world.sandbox.faults().inject(Fault::new(Effect::Silent).verb("watch").resource("leases").times(1000));
    for second in 0..200 {
        world.pass(1).await;
        assert_eq!(world.members_in("web").len(), 2, "after {second} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_starts_while_the_api_server_is_away_is_alive_and_not_ready_and_comes_by_itself() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let mut settings = world.settings(1);
    settings.admin_listen = (settings.advertise[0], 18_081).into();
    let admin = settings.admin_listen;
    world.sandbox.faults().inject(Fault::new(Effect::FailBefore(503)));
    let mut joining = std::pin::pin!(world.join_as(settings));
    assert!(tokio::time::timeout(Duration::from_secs(300), joining.as_mut()).await.is_err());
    let status = async |path| visitor::get(admin, "admin", path).await.status;
    let asked = async { (status("/livez").await, status("/readyz").await, status("/metrics").await) };
    let said = tokio::select! {
        _ = joining.as_mut() => panic!("it starts without the API server"),
        said = asked => said,
    };
    assert_eq!(said, (200, 503, 200));
    world.sandbox.faults().clear();
    let _running = joining.await;
    world.pass(5).await;
    assert_eq!(status("/readyz").await, 200);
}
