//! What is known after a restart of the controller, and how the server's clock is read.

use jiff::{SignedDuration, Timestamp};

use crate::stage::{Source, Stage};

const WEB: &str = "shop-web-80@kubernetes";

/// A request, then `quiet` ticks that only the server sees.
async fn remembered(kind: Source, skew: f64, quiet: usize) -> Stage {
    let stage = Stage::new(kind).await;
    stage.world().skew = skew;
    for tick in 0..(quiet + 60) {
        if tick == 59 {
            stage.count(WEB, 8.0);
        }
        stage.pass();
    }
    stage
}

#[tokio::test]
async fn a_restart_in_a_quiet_period_keeps_the_quiet() {
    for kind in [Source::Prometheus, Source::Flux, Source::InfluxQl] {
        for skew in [0.0, 300.0, -300.0] {
            let mut stage = remembered(kind, skew, 80).await;
            stage.ticks(1).await;
            let quiet = stage.quiet("shop/web");
            assert!((73..=81).contains(&quiet), "{quiet} ticks with a skew of {skew} s");
            stage.restart();
            stage.ticks(1).await;
            let quiet = stage.quiet("shop/web");
            assert!((74..=82).contains(&quiet), "{quiet} ticks with a skew of {skew} s");
        }
    }
}

#[tokio::test]
async fn history_that_does_not_reach_back_is_where_knowledge_begins() {
    let mut stage = Stage::new(Source::Prometheus).await;
    for _ in 0..20 {
        stage.pass();
    }
    stage.ticks(1).await;
    let quiet = stage.quiet("shop/web");
    assert!((16..=20).contains(&quiet), "{quiet}");
}

#[tokio::test]
async fn a_server_whose_clock_is_wrong_does_not_move_ours() {
    for skew in [300.0, -300.0] {
        let mut stage = remembered(Source::Prometheus, skew, 10).await;
        stage.ticks(3).await;
        let behind = stage.now().duration_since(stage.activity("shop/web").watermark);
        assert_eq!(behind, SignedDuration::ZERO);
        stage.proxy("a", |proxy| proxy.age = 30.0);
        stage.ticks(1).await;
        let behind = stage.now().duration_since(stage.activity("shop/web").watermark);
        assert_eq!(behind, SignedDuration::from_secs(30));
    }
}

#[tokio::test]
async fn an_ingress_that_never_served_the_app_tells_of_silence_since_its_start() {
    let mut stage = Stage::new(Source::Ingress).await;
    stage.ticks(1).await;
    assert_eq!(stage.quiet("shop/web"), 241, "one hour, and the tick");
    stage.restart();
    stage.count(WEB, 1.0);
    stage.ticks(1).await;
    assert_eq!(stage.quiet("shop/web"), 0, "a count with no history may be from just now");
    assert_ne!(stage.activity("shop/web").last_seen, Timestamp::MIN);
}
