//! What a person asks for with `kubenap/wish` is carried out or refused, and taken away.

use serde_json::json;

use crate::traffic::Mood;
use crate::visitor;
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_wished_nap_asks_no_source() {
    let world = World::quick();
    world.traffic.mood(Mood::Down);
    world.app("web", 2, &[("idleAfter", "24h")]).await;
    let _running = world.join(1).await;
    world.pass(20).await;
    world.annotate("web", "wish", "nap");
    world.asleep("web").await;
    assert_eq!(world.note("web", "wish"), None);
    assert_eq!(world.note("web", "restoreReplicas").as_deref(), Some("2"));
    world.annotate("web", "wish", "wake");
    world.awake("web", 2).await;
    assert_eq!(world.note("web", "wish"), None);
}

#[tokio::test(start_paused = true)]
async fn a_request_cancels_a_wished_nap_but_not_a_forced_one() {
    for (wish, ends) in [("nap", "awake"), ("forceNap", "asleep")] {
        let world = World::quick();
        world.app("web", 1, &[("idleAfter", "24h")]).await;
        let _running = world.join(1).await;
        world.annotate("web", "wish", wish);
        world.until("a slice", 30, || !world.slices("web").is_empty()).await;
        let port = world.slices("web")[0]["ports"][0]["port"].as_u64().unwrap();
        let address = world.slices("web")[0]["endpoints"][0]["addresses"][0].as_str().unwrap().to_owned();
        let door = format!("{address}:{port}").parse().unwrap();
        let reply = visitor::get(door, "web", "/").await;
        assert_eq!(reply.status, 200, "it is passed to the pods that still run: {reply:?}");
        world.until(ends, 30, || world.phase("web") == ends).await;
        assert_eq!(world.note("web", "wish"), None, "{wish}: {}", world.show());
        world.pass(5).await;
        assert_eq!(world.slices("web").is_empty(), ends == "awake");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_cannot_be_carried_out_is_refused_with_an_event_and_taken_away() {
    let world = World::quick();
    world.app("web", 1, &[("idleAfter", "24h")]).await;
    let _running = world.join(1).await;
    world.edit("services", "web", |service| service["spec"]["publishNotReadyAddresses"] = json!(true));
    world.pass(5).await;
    world.annotate("web", "wish", "nap");
    world.until("the wish is gone", 20, || world.note("web", "wish").is_none()).await;
    world.pass(30).await;
    assert_eq!(world.phase("web"), "awake");
    let refused = world.events("web", "NapRefused");
    assert!(refused.iter().any(|note| note.starts_with("a person asked for a nap: ")), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wish_with_a_wrong_annotation_is_refused_in_the_words_of_the_complaint() {
    let world = World::quick();
    world.app("web", 1, &[("idleAfter", "1d"), ("wish", "nap")]).await;
    let _running = world.join(1).await;
    world.until("the wish is gone", 20, || world.note("web", "wish").is_none()).await;
    world.pass(30).await;
    let refused = world.events("web", "NapRefused");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("kubenap/idleAfter: \"1d\" is not a duration"), "{refused:?}");
    assert_eq!(world.events("web", "BadAnnotation").len(), 1);
    assert_eq!(world.phase("web"), "awake");
}

#[tokio::test(start_paused = true)]
async fn a_wish_for_a_sleeping_app_to_nap_is_simply_taken_away() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _running = world.join(1).await;
    world.asleep("web").await;
    world.annotate("web", "wish", "nap");
    world.until("the wish is gone", 20, || world.note("web", "wish").is_none()).await;
    world.pass(10).await;
    assert_eq!((world.phase("web").as_str(), world.replicas("web")), ("asleep", 0));
}
