//! Sources that lie, hang or are gone: nothing that they do lets an app nap, and no error shows a password.
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be played has failed")]

use kubenap_controller::activity::SourceError;
use kubenap_core::activity::Blind;

use crate::stage::{Source, Stage, TICK};
use crate::stand_in::Fault;

/// Every source that is asked over HTTP.
const EVERY: [Source; 4] = [Source::Prometheus, Source::Ingress, Source::Flux, Source::InfluxQl];

async fn fails(kind: Source, fault: Fault) -> SourceError {
    let mut stage = Stage::new(kind).await;
    stage.ticks(5).await;
    stage.world().fault = Some(fault);
    let error = stage.tick().await.unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    stage.world().fault = None;
    stage.ticks(2).await;
    assert!(stage.quiet("shop/web") >= 5, "what stood still meanwhile was quiet");
    error
}

#[tokio::test]
async fn every_fault_is_an_error_and_heals() {
    for kind in EVERY {
        assert!(matches!(fails(kind, Fault::Html).await, SourceError::NotUnderstood { .. }));
        assert!(matches!(fails(kind, Fault::Garbage).await, SourceError::NotUnderstood { .. }));
        assert!(matches!(fails(kind, Fault::Redirect).await, SourceError::Redirect { status: 302, .. }));
        assert!(matches!(fails(kind, Fault::Huge).await, SourceError::TooLarge { .. }));
        for status in [401, 404, 500, 503] {
            let error = fails(kind, Fault::Status(status)).await;
            assert!(matches!(error, SourceError::Status { status: seen, .. } if seen == status), "{error}");
        }
    }
}

#[tokio::test]
async fn an_error_within_a_good_status_is_an_error() {
    for kind in [Source::Prometheus, Source::Flux, Source::InfluxQl] {
        let error = fails(kind, Fault::ErrorIn200).await;
        assert!(matches!(&error, SourceError::Api { text, .. } if text == "disk on fire"), "{error}");
    }
}

#[tokio::test]
async fn an_empty_answer_is_not_silence() {
    assert!(matches!(fails(Source::Prometheus, Fault::Nothing).await, SourceError::NothingScraped { .. }));
    for kind in [Source::Flux, Source::InfluxQl] {
        let mut stage = Stage::new(kind).await;
        stage.ticks(5).await;
        let quiet = stage.quiet("shop/web");
        stage.world().fault = Some(Fault::Nothing);
        for _ in 0..40 {
            drop(stage.tick().await);
            assert!(stage.quiet("shop/web") <= quiet, "nothing was heard, and it grew quieter");
        }
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_meets_the_deadline() {
    for kind in EVERY {
        let stage = Stage::new(kind).await;
        stage.pass();
        stage.world().fault = Some(Fault::Never);
        tokio::time::pause();
        assert!(matches!(stage.ask().await, Err(SourceError::Timeout { .. })));
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_warning_makes_the_answer_partial() {
    let mut stage = Stage::new(Source::Prometheus).await;
    stage.ticks(5).await;
    stage.world().warnings.push("some store did not answer".to_owned());
    stage.ticks(1).await;
    assert_eq!((stage.quiet("shop/web"), stage.blind("shop/web")), (0, vec![Blind::Partial]));
}

#[tokio::test]
async fn an_old_heartbeat_is_stale() {
    let mut stage = Stage::new(Source::Prometheus).await;
    stage.ticks(20).await;
    stage.proxy("a", |proxy| proxy.age = 200.0);
    stage.ticks(1).await;
    assert_eq!(stage.blind("shop/web"), [Blind::Stale]);
}

#[tokio::test]
async fn a_page_of_metrics_is_as_old_as_its_timestamps_say() {
    let mut stage = Stage::new(Source::Ingress).await;
    stage.count("shop-web-80@kubernetes", 5.0);
    stage.ticks(4).await;
    let quiet = stage.quiet("shop/web");
    for ticks in 1..=4 {
        stage.proxy("a", |proxy| proxy.age += TICK);
        stage.ticks(1).await;
        assert_eq!(stage.quiet("shop/web"), quiet, "{ticks} ticks later the same page came");
    }
    stage.proxy("a", |proxy| proxy.age = 200.0);
    stage.ticks(1).await;
    assert_eq!(stage.blind("shop/web"), [Blind::Stale]);
    stage.proxy("a", |proxy| proxy.age = 0.0);
    stage.ticks(1).await;
    assert!(stage.quiet("shop/web") > quiet);
}

#[tokio::test]
async fn the_same_answer_of_a_cache_again_and_again_is_not_silence() {
    let mut stage = Stage::new(Source::Prometheus).await;
    stage.ticks(20).await;
    let quiet = stage.quiet("shop/web");
    for ticks in 1..=4 {
        stage.world().skew -= TICK;
        stage.ticks(1).await;
        assert_eq!(stage.quiet("shop/web"), quiet, "{ticks} ticks later the same answer came");
    }
    stage.world().skew -= 200.0;
    stage.ticks(1).await;
    assert_eq!(stage.blind("shop/web"), [Blind::Stale]);
    stage.world().skew = 0.0;
    stage.ticks(1).await;
    assert!(stage.quiet("shop/web") > quiet);
}

#[tokio::test]
async fn no_proxy_at_all_is_an_error_with_a_hint() {
    let mut stage = Stage::new(Source::Ingress).await;
    stage.world().proxies.clear();
    let error = stage.tick().await.unwrap_err();
    assert!(error.to_string().contains("hint: give the address with"), "{error}");
}

#[tokio::test]
async fn data_from_the_future_makes_it_blind() {
    for kind in [Source::Flux, Source::InfluxQl] {
        let mut stage = Stage::new(kind).await;
        stage.world().data_skew = 300.0;
        stage.ticks(20).await;
        assert_eq!(stage.blind("shop/web"), [Blind::ClockOff]);
        let mut stage = Stage::new(kind).await;
        stage.world().data_skew = -310.0;
        stage.ticks(40).await;
        assert_eq!(stage.blind("shop/web"), [Blind::Stale]);
    }
}
