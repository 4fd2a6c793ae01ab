//! What KubeNap tells proxies is each app's own, and of one nap: forgers, latecomers and sweepers leave the rest alone.

use std::time::Duration;

use kubenap_controller::cluster::Cluster;
use kubenap_controller::nap::by_hand::{Progress, Want, bring};
use kubenap_controller::nap::hooks;
use kubenap_core::app::AppId;
use kubenap_core::proxy::Piece;
use kubenap_core::seen::PieceId;
use kubenap_sandbox::{Effect, Fault};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::managed::{KINDS, app, as_before, is_attached, join, told};
use crate::unsubstituted::{proxy, rendered, visit};
use crate::world::{SPACE, World, deployment, service};

/// The app asleep with its hook in place, and its only member gone without a goodbye; its proxy's objects as they were.
async fn left_asleep(world: &World) -> Vec<(String, Value)> {
    let before = app(world, KINDS[0]).await;
    let running = join(world, 1).await;
    world.serve_wakes(&[&running]);
    world.asleep("web").await;
    running.crash();
    before
}

#[tokio::test(start_paused = true)]
async fn what_sleeps_elsewhere_or_lost_its_record_is_not_swept_away() {
    let world = World::quick();
    left_asleep(&world).await;
    let cluster = Cluster::new(world.client());
    // Its middleware lies in KubeNap's own namespace, where those of all apps do.
    let other = ["elsewhere".to_owned()];
    assert_eq!(hooks::sweep(&cluster, &other, "kubenap-system", hooks::Spared::Living).await.unwrap(), 0);
    world.edit("deployments", "web", |app| {
        app["metadata"]["annotations"].as_object_mut().unwrap().remove("kubenap/hookPieces");
    });
    assert_eq!(hooks::sweep(&cluster, &[], "kubenap-system", hooks::Spared::Living).await.unwrap(), 0);
    assert!(is_attached(&world), "{}", world.show());
    // The next leader writes it down again.
    let next = join(&world, 2).await;
    world.serve_wakes(&[&next]);
    world.until("it is written down", 60, || world.note("web", "hookPieces").is_some()).await;
    assert_eq!(world.phase("web"), "asleep", "{}", world.show());
}

#[tokio::test(start_paused = true)]
async fn a_restore_for_good_takes_back_also_what_nobody_has_written_down() {
    let world = World::quick();
    let before = left_asleep(&world).await;
    // Replaced by somebody who knows nothing of KubeNap.
    world.edit("deployments", "web", |app| {
        app["metadata"]["annotations"] = json!({});
        app["metadata"]["labels"] = json!({});
    });
    let cluster = Cluster::new(world.client());
    assert_eq!(hooks::sweep(&cluster, &[], "kubenap-system", hooks::Spared::Nobody).await.unwrap(), 3);
    assert_eq!(told(&world), before);
}

#[tokio::test(start_paused = true)]
async fn what_others_committed_themselves_is_theirs_also_after_the_wake() {
    let world = World::quick();
    app(&world, KINDS[2]).await;
    // The Service beside the app is in their repository, as `kubenap render` printed it.
    world.serve_wakes(&[]);
    let service = rendered(&world, "web").into_iter().find_map(|piece| match piece {
        Piece::Object(object) if object["kind"] == "Service" => Some(object),
        _ => None,
    });
    world.put(service.unwrap());
    let before = told(&world);
    let running = join(&world, 1).await;
    world.serve_wakes(&[&running]);
    world.asleep("web").await;
    world.annotate("web", "wish", "wake");
    world.awake("web", 2).await;
    as_before(&world, &before, "their Service").await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_somebody_forges_takes_nothing_of_others() {
    let world = World::quick();
    world.put(
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "db", "namespace": "elsewhere" },
        "spec": { "selector": { "app": "db" }, "ports": [{ "port": 80 }] } }),
    );
    app(&world, KINDS[0]).await;
    let running = join(&world, 1).await;
    world.serve_wakes(&[&running]);
    world.asleep("web").await;
    let rendered = rendered(&world, "web");
    let Some(Piece::Object(middleware)) = rendered.first() else { panic!("{rendered:?}") };
    let middleware = PieceId::of(middleware);
    world.put(deployment(
        "thief",
        1,
        // The last two are of a neighbour that sleeps, in the same namespace.
        &[(
            "hookPieces",
            &format!(
                "v1/Service/elsewhere/db,{middleware},v1/Service/shop/web,networking.k8s.io/v1/Ingress/shop/web"
            ),
        )],
    ));
    world.put(service("thief", "thief"));
    world.ready("thief", 1).await;
    world.pass(30).await;
    assert_eq!(world.note("thief", "hookPieces"), None, "it is forgotten: {}", world.show());
    assert!(world.sandbox.get("services", "elsewhere", "db").is_some());
    assert!(is_attached(&world), "{}", world.show());
}

#[tokio::test(start_paused = true)]
async fn who_takes_back_what_an_earlier_nap_put_in_place_leaves_that_of_a_later_one() {
    for kind in KINDS {
        let world = World::quick();
        app(&world, kind).await;
        let running = join(&world, 1).await;
        world.serve_wakes(&[&running]);
        for nap in 1..=2 {
            world.asleep("web").await;
            assert_eq!(world.note("web", "epoch"), Some(nap.to_string()), "{kind:?}: {}", world.show());
            if nap == 1 {
                world.annotate("web", "wish", "wake");
                world.awake("web", 2).await;
            }
        }
        let (cluster, app) = (Cluster::new(world.client()), AppId::new(SPACE, "web"));
        let pieces: Vec<_> = rendered(&world, "web")
            .iter()
            .map(|piece| match piece {
                Piece::Object(object) | Piece::Fields(object) => PieceId::of(object),
                Piece::Text { .. } => panic!("no text is applied"),
            })
            .collect();
        // As a member does that stalled in the middle of it since the first nap.
        for piece in &pieces {
            hooks::take_back(&cluster, &app, 1, piece).await.unwrap();
        }
        assert!(is_attached(&world), "{kind:?}: {}", world.show());
        running.crash();
        for piece in pieces.iter().rev() {
            hooks::take_back(&cluster, &app, 2, piece).await.unwrap();
        }
        assert!(!is_attached(&world), "{kind:?}: {}", world.show());
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_has_heard_of_what_is_made_before_an_annotation_leads_there_and_after_it_does() {
    let world = World::quick();
    app(&world, KINDS[0]).await;
    let running = join(&world, 1).await;
    world.serve_wakes(&[&running]);
    let leads = || {
        let ingress = world.sandbox.get("ingresses", SPACE, "web").unwrap();
        !ingress["metadata"]["annotations"]["traefik.ingress.kubernetes.io/router.middlewares"].is_null()
    };
    let there = || !world.sandbox.list("middlewares", None).is_empty();
    for _ in 0..2 {
        // Traefik gathers what happens for two seconds, and hears of both kinds on different ways.
        world.until("the middleware is there", 60, there).await;
        assert!(!leads(), "{}", world.show());
        world.pass(2).await;
        assert!(!leads(), "{}", world.show());
        world.asleep("web").await;
        assert!(there() && leads(), "{}", world.show());
        world.annotate("web", "wish", "wake");
        world.awake("web", 2).await;
        world.until("nothing leads there", 60, || !leads()).await;
        assert!(there(), "{}", world.show());
        world.pass(2).await;
        assert!(there(), "{}", world.show());
        world.until("the middleware is gone", 60, || !there()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_with_traffic_is_neither_tried_out_nor_looked_at_often() {
    let world = World::quick();
    app(&world, KINDS[0]).await;
    world.annotate("web", "idleAfter", "1h");
    let running = join(&world, 1).await;
    world.serve_wakes(&[&running]);
    world.pass(60).await;
    let count = |verb: &str, resource: &str| {
        let right = (verb.to_owned(), resource.to_owned());
        world.sandbox.requests().get(&right).copied().unwrap_or_default()
    };
    let before = (count("list", "ingressclasses"), count("patch", "middlewares"));
    world.pass(540).await;
    let after = (count("list", "ingressclasses"), count("patch", "middlewares"));
    assert!(after.0 - before.0 <= 1, "looked at {} times", after.0 - before.0);
    assert_eq!(after.1, 0, "nothing is tried before a nap");
    world.annotate("web", "idleAfter", "10s");
    world.asleep("web").await;
    assert!(is_attached(&world), "{}", world.show());
}

#[tokio::test(start_paused = true)]
async fn a_request_wakes_it_before_anybody_looks_at_its_proxy_again() {
    let world = World::quick();
    app(&world, KINDS[0]).await;
    let (one, two) = (join(&world, 1).await, join(&world, 2).await);
    let proxy = proxy(&world, &[&one, &two]).await;
    world.asleep("web").await;
    // Long enough for the next look to be due, which would take its time.
    for kind in ["middlewares", "ingressclasses"] {
        let slow = Effect::Delay(Duration::from_secs(4));
        world.sandbox.faults().inject(Fault::new(slow).verb("list").resource(kind));
    }
    world.pass(150).await;
    let begun = Instant::now();
    assert_eq!(visit(&proxy, "web").await.status, 200, "{}", world.show());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    world.sandbox.faults().clear();
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_may_not_be_taken_back_stops_no_sweep_and_keeps_what_it_leads_to() {
    let world = World::quick();
    let before = left_asleep(&world).await;
    assert!(world.sandbox.delete("deployments", SPACE, "web"));
    world.sandbox.faults().inject(Fault::new(Effect::Deny).verb("patch").resource("services"));
    let cluster = Cluster::new(world.client());
    let sweep = async || hooks::sweep(&cluster, &[], "kubenap-system", hooks::Spared::Living).await.unwrap();
    assert_eq!(sweep().await, 1);
    assert_eq!(world.sandbox.list("middlewares", None).len(), 1, "{}", world.show());
    world.sandbox.faults().clear();
    assert_eq!(sweep().await, 2);
    assert_eq!(told(&world), before);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_leads_where_nobody_may_look_does_not_stop_a_restore() {
    let world = World::quick();
    let pieces = "v1/Secret/shop/web,traefik.io/v1alpha1/Middleware/shop/web";
    world.put(deployment("web", 1, &[("hookPieces", pieces)]));
    world.put(service("web", "web"));
    world.ready("web", 1).await;
    for verb in ["get", "list"] {
        for kind in ["secrets", "middlewares"] {
            world.sandbox.faults().inject(Fault::new(Effect::Deny).verb(verb).resource(kind));
        }
    }
    let (cluster, deadline) = (Cluster::new(world.client()), Instant::now() + Duration::from_secs(60));
    let app = AppId::new(SPACE, "web");
    let progress = bring(&cluster, &app, Want::Restored, || world.now(), deadline).await.unwrap();
    assert_eq!(progress, Progress::Done, "{}", world.show());
    assert_eq!(world.note("web", "hookPieces"), None, "{}", world.show());
}
