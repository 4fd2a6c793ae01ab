//! What a proxy's own metrics showed outlives KubeNap's process, as far as the counters still stand where they stood.

use kubenap_core::activity::Blind;
use serde_json::json;

use crate::stage::{Source, Stage, target, traefik};

const WEB: &str = "shop-web-80@kubernetes";
const OTHER: &str = "shop-other-80@kubernetes";
/// By how many ticks of fifteen seconds what is kept may be later than it was: moments are rounded to minutes.
const ROUNDED: u64 = 5;

/// An hour of quiet after one request.
async fn quiet_hour() -> Stage {
    let mut stage = Stage::new(Source::Ingress).await;
    stage.ticks(4).await;
    stage.count(WEB, 3.0);
    stage.ticks(241).await;
    assert_eq!(stage.quiet("shop/web"), 240);
    stage
}

#[tokio::test]
async fn a_restart_of_kubenap_forgets_nothing_of_an_app_that_nobody_used() {
    let mut stage = quiet_hour().await;
    for restarts in 1..=3 {
        stage.restart();
        // Nobody looks for five minutes.
        (0..20).for_each(|_| stage.pass());
        stage.ticks(1).await;
        let quiet = stage.quiet("shop/web");
        let truly = 240 + 21 * restarts;
        assert!((truly - ROUNDED..=truly).contains(&quiet), "{quiet} ticks of {truly}");
        assert_eq!(stage.blind("shop/web"), []);
    }
    // And what comes now is seen as ever.
    stage.count(WEB, 4.0);
    stage.ticks(1).await;
    assert_eq!(stage.quiet("shop/web"), 0);
}

#[tokio::test]
async fn what_came_while_kubenap_was_away_is_use() {
    let mut stage = quiet_hour().await;
    stage.targets.push(target("shop", "other"));
    stage.restart();
    stage.pass();
    stage.count(WEB, 4.0);
    stage.count(OTHER, 1.0);
    stage.pass();
    stage.ticks(2).await;
    assert_eq!((stage.quiet("shop/web"), stage.quiet("shop/other")), (1, 1));
}

#[tokio::test]
async fn nothing_is_believed_of_a_proxy_of_which_a_process_has_ended() {
    for gone in [false, true] {
        let mut stage = Stage::new(Source::Ingress).await;
        let started = stage.world().now - 3000.0;
        stage.world().proxies.insert("b".to_owned(), traefik(started));
        stage.ticks(4).await;
        stage.count(WEB, 3.0);
        stage.targets.push(target("shop", "other"));
        stage.ticks(240).await;
        stage.restart();
        stage.pass();
        // Whom the second replica served last is lost with it: it may have been the app that has no series at all.
        if gone {
            stage.world().proxies.remove("b");
        } else {
            let now = stage.world().now;
            stage.proxy("b", |proxy| proxy.started = now);
        }
        stage.ticks(1).await;
        assert_eq!((stage.quiet("shop/web"), stage.quiet("shop/other")), (0, 0), "gone: {gone}");
        stage.ticks(10).await;
        assert_eq!((stage.quiet("shop/web"), stage.quiet("shop/other")), (10, 10), "gone: {gone}");
    }
}

#[tokio::test]
async fn a_replica_that_does_not_answer_is_waited_for() {
    let mut stage = quiet_hour().await;
    let started = stage.world().now - 3000.0;
    stage.world().proxies.insert("b".to_owned(), traefik(started));
    stage.ticks(40).await;
    let before = stage.quiet("shop/web");
    stage.restart();
    stage.proxy("b", |proxy| proxy.up = false);
    stage.ticks(4).await;
    assert!(stage.blind("shop/web").contains(&Blind::SourceDown));
    stage.proxy("b", |proxy| proxy.up = true);
    stage.ticks(1).await;
    let quiet = stage.quiet("shop/web");
    assert!((before..=before + 5).contains(&quiet), "{quiet} ticks, {before} before the restart");
}

#[tokio::test]
async fn an_app_without_any_series_is_as_quiet_as_before_though_the_proxy_was_rolled_meanwhile() {
    let mut stage = Stage::new(Source::Ingress).await;
    stage.targets.push(target("shop", "other"));
    stage.count(WEB, 1.0);
    stage.ticks(100).await;
    let now = stage.world().now;
    stage.world().proxies.insert("b".to_owned(), traefik(now));
    stage.ticks(40).await;
    stage.world().proxies.remove("a");
    stage.ticks(40).await;
    let before = (stage.quiet("shop/web"), stage.quiet("shop/other"));
    stage.restart();
    stage.ticks(1).await;
    let after = (stage.quiet("shop/web"), stage.quiet("shop/other"));
    assert!(
        after.0.abs_diff(before.0) <= ROUNDED && after.1.abs_diff(before.1) <= ROUNDED,
        "{before:?} {after:?}"
    );
    assert!(after.0 > 100 && after.1 > 200, "{after:?}");
    // One more replica that nobody has seen before: its process may be its second.
    stage.restart();
    let now = stage.world().now;
    stage.world().proxies.insert("c".to_owned(), traefik(now - 30.0));
    stage.ticks(1).await;
    assert_eq!((stage.quiet("shop/web"), stage.quiet("shop/other")), (3, 3));
}

#[tokio::test]
async fn an_app_whose_series_were_gone_before_the_restart_is_no_quieter_than_it_was() {
    let mut stage = quiet_hour().await;
    stage.count(WEB, 4.0);
    stage.ticks(2).await;
    stage.proxy("a", |proxy| proxy.counters.clear());
    stage.ticks(40).await;
    let before = stage.quiet("shop/web");
    assert_eq!(before, 41);
    stage.restart();
    stage.ticks(1).await;
    let quiet = stage.quiet("shop/web");
    assert!((before..=before + 1).contains(&quiet), "{quiet} ticks, {before} before the restart");
    // Those that vanish while nobody looks may have been used at the very end.
    stage.count(WEB, 5.0);
    stage.ticks(40).await;
    stage.restart();
    stage.proxy("a", |proxy| proxy.counters.clear());
    stage.ticks(1).await;
    assert_eq!(stage.quiet("shop/web"), 0);
}

#[tokio::test]
async fn it_is_written_only_when_a_counter_moved_and_every_few_minutes_at_most() {
    let stage = quiet_hour().await;
    let quiet = stage.world().kept.writes;
    assert!((1..=2).contains(&quiet), "{quiet} writes in a quiet hour");
    let (mut stage, before) = (stage, quiet);
    for request in 0..240 {
        stage.count(WEB, 10.0 + f64::from(request));
        stage.ticks(1).await;
    }
    let busy = stage.world().kept.writes - before;
    assert!((11..=12).contains(&busy), "{busy} writes in a busy hour");
}

#[tokio::test]
async fn where_nothing_can_be_kept_or_what_was_kept_is_garbage_a_restart_begins_anew() {
    let garbage = [json!(""), json!("e30K"), json!("/w==")];
    for refused in [Some(403), Some(404), Some(500), None] {
        for text in &garbage {
            let mut stage = quiet_hour().await;
            stage.world().kept.refused = refused;
            stage.world().kept.data.insert("main".to_owned(), text.clone());
            stage.restart();
            stage.ticks(2).await;
            assert_eq!((stage.quiet("shop/web"), stage.blind("shop/web")), (1, vec![]), "{refused:?} {text}");
            stage.ticks(30).await;
            let written = stage.world().kept.data["main"] != *text;
            assert_eq!(written, refused.is_none(), "{refused:?} {text}");
        }
    }
}
