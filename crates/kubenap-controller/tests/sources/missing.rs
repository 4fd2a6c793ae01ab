//! A replica that cannot be scraped holds back the apps of its proxy, whoever remembers it, until it is back or taken away.

use std::time::Duration;

use kubenap_core::activity::Blind;

use crate::stage::{Source, Stage, traefik};
use crate::stand_in::{Fault, Kind, Proxy};

const WEB: &str = "shop-web-80@kubernetes";

/// Two replicas of Traefik, and the app has been quiet for ten minutes.
async fn two() -> Stage {
    let mut stage = Stage::new(Source::Prometheus).await;
    stage.history = Duration::from_mins(10);
    stage.count(WEB, 9.0);
    let started = stage.world().now - 3600.0;
    stage.world().proxies.insert("b".to_owned(), traefik(started));
    stage.ticks(40).await;
    assert_eq!(stage.blind("shop/web"), vec![]);
    stage
}

fn falls(stage: &Stage) {
    stage.proxy("b", |proxy| proxy.up = false);
}

#[tokio::test]
async fn a_replica_that_is_down_for_longer_than_the_history_lets_no_app_nap_after_a_restart() {
    let mut stage = two().await;
    falls(&stage);
    stage.ticks(50).await;
    assert_eq!(stage.blind("shop/web"), vec![Blind::SourceDown, Blind::Stale]);
    stage.restart();
    for _ in 0..100 {
        stage.ticks(1).await;
        assert!(stage.blind("shop/web").contains(&Blind::SourceDown), "{:?}", stage.activity("shop/web"));
    }
    // It is back, and was the same process all along: what it shows now it counted meanwhile.
    stage.proxy("b", |proxy| {
        proxy.up = true;
        proxy.counters.insert(format!("service=\"{WEB}\""), 1.0);
    });
    stage.ticks(1).await;
    assert_eq!(stage.blind("shop/web"), vec![]);
    stage.is_quiet("shop/web", 0);
    stage.ticks(20).await;
    stage.is_quiet("shop/web", 20);
}

#[tokio::test]
async fn a_replica_that_is_down_lets_no_app_nap_though_nobody_could_ask_prometheus_for_minutes() {
    let mut stage = two().await;
    falls(&stage);
    for _ in 0..60 {
        stage.pass();
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(15)).await;
    tokio::time::resume();
    stage.world().fault = Some(Fault::Status(503));
    assert!(stage.tick().await.is_err());
    stage.world().fault = None;
    for _ in 0..60 {
        stage.ticks(1).await;
        assert!(stage.blind("shop/web").contains(&Blind::SourceDown), "{:?}", stage.activity("shop/web"));
    }
}

#[tokio::test]
async fn a_replica_that_was_never_scraped_lets_no_app_nap() {
    let mut stage = Stage::new(Source::Prometheus).await;
    stage.count(WEB, 9.0);
    stage.ticks(20).await;
    let started = stage.world().now;
    stage.world().proxies.insert("b".to_owned(), Proxy { up: false, ..traefik(started) });
    // For its first two minutes it is one that starts.
    for _ in 0..10 {
        stage.pass();
    }
    stage.restart();
    for _ in 0..40 {
        stage.ticks(1).await;
        assert!(stage.blind("shop/web").contains(&Blind::SourceDown), "{:?}", stage.activity("shop/web"));
    }
}

#[tokio::test]
async fn a_use_between_two_steps_of_the_history_is_not_forgotten_when_its_replica_falls_and_begins_anew() {
    let mut stage = two().await;
    // It was seen, and only the steps of a minute before and after it are read again.
    stage.proxy("b", |proxy| {
        proxy.counters.insert(format!("service=\"{WEB}\""), 1.0);
    });
    stage.ticks(3).await;
    stage.is_quiet("shop/web", 2);
    falls(&stage);
    stage.restart();
    stage.ticks(1).await;
    assert!(stage.blind("shop/web").contains(&Blind::SourceDown));
    let now = stage.world().now;
    stage.proxy("b", |proxy| {
        proxy.up = true;
        proxy.started = now;
        proxy.counters.clear();
    });
    stage.ticks(1).await;
    assert!(stage.quiet("shop/web") <= 4, "{:?}", stage.activity("shop/web"));
}

#[tokio::test]
async fn a_replica_that_is_taken_away_keeps_no_app_awake() {
    let mut stage = two().await;
    falls(&stage);
    stage.ticks(50).await;
    stage.restart();
    stage.ticks(4).await;
    assert!(stage.blind("shop/web").contains(&Blind::SourceDown));
    stage.world().proxies.remove("b");
    stage.ticks(1).await;
    assert_eq!(stage.blind("shop/web"), vec![]);
    stage.is_quiet("shop/web", 0);
    stage.ticks(20).await;
    stage.is_quiet("shop/web", 20);
    // Nor does a rollout: a new one starts, and the old one ends.
    let started = stage.world().now;
    stage.world().proxies.insert("c".to_owned(), Proxy { up: false, ..traefik(started) });
    stage.ticks(3).await;
    assert_eq!(stage.blind("shop/web"), vec![]);
    stage.proxy("c", |proxy| proxy.up = true);
    stage.ticks(4).await;
    stage.world().proxies.remove("a");
    stage.ticks(1).await;
    assert_eq!(stage.blind("shop/web"), vec![]);
    stage.is_quiet("shop/web", 28);
}

#[tokio::test]
async fn a_target_that_is_down_and_no_replica_of_a_proxy_keeps_no_app_awake() {
    let mut stage = two().await;
    let own = Proxy { kind: Kind::Own, up: false, ..traefik(0.0) };
    stage.world().proxies.insert("kube-proxy".to_owned(), own);
    stage.ticks(10).await;
    stage.restart();
    stage.ticks(10).await;
    assert_eq!(stage.blind("shop/web"), vec![]);
    assert!(stage.quiet("shop/web") >= 38, "{}", stage.quiet("shop/web"));
}

#[tokio::test]
async fn a_simulation_promises_no_sleep_for_times_in_which_a_replica_was_down() {
    for ever_scraped in [true, false] {
        let stage = two().await;
        if !ever_scraped {
            let started = stage.world().now;
            stage.world().log.clear();
            stage.world().proxies.insert("b".to_owned(), traefik(started));
        }
        falls(&stage);
        for _ in 0..400 {
            stage.pass();
        }
        let pasts = stage.past(380).await.unwrap();
        let past = &pasts[0].1.past;
        let naps = past.naps(Duration::from_mins(5));
        assert!(naps.slept() <= Duration::from_mins(1), "{ever_scraped}: {past:?}");
        assert!(past.unknown_for() >= Duration::from_mins(85), "{ever_scraped}: {past:?}");
    }
}
