//! What counters can do, and what each source must make of it.

use jiff::SignedDuration;

use crate::stage::{Source, Stage, target, traefik};

const WEB: &str = "shop-web-80@kubernetes";

macro_rules! scenarios {
    ($($name:ident)*) => {
        mod prometheus { $(#[tokio::test] async fn $name() { super::$name(super::Stage::new(super::Source::Prometheus).await).await; })* }
        mod flux { $(#[tokio::test] async fn $name() { super::$name(super::Stage::new(super::Source::Flux).await).await; })* }
        mod influxql { $(#[tokio::test] async fn $name() { super::$name(super::Stage::new(super::Source::InfluxQl).await).await; })* }
        mod ingress { $(#[tokio::test] async fn $name() { super::$name(super::Stage::new(super::Source::Ingress).await).await; })* }
    };
}

/// What also lines of access logs can tell. A container's log that ends unread, as with a replica that leaves or a container
/// that begins anew, is a hole to them, even where a counter would show that nothing came.
macro_rules! scenarios_of_lines {
    ($($name:ident)*) => {
        mod files { $(#[tokio::test] async fn $name() { super::$name(super::Stage::new(super::Source::Files).await).await; })* }
        mod pods { $(#[tokio::test] async fn $name() { super::$name(super::Stage::new(super::Source::Pods).await).await; })* }
    };
}

scenarios_of_lines! {
    a_counter_that_stands_still_is_quiet
    a_busy_counter_is_never_quiet
    the_first_request_ever_is_activity
    a_request_counts_once
    a_reset_to_less_is_activity
    a_reset_to_more_is_activity
    a_series_that_vanishes_and_returns_is_activity
    a_gain_is_not_hidden_by_another_replica_s_loss
    a_new_replica_s_requests_count
    one_service_name_in_two_namespaces_is_two_apps
    names_that_collide_keep_both_apps_awake
    a_port_that_changes_is_followed
    an_app_that_is_renamed_is_followed
    ten_thousand_apps_are_told_apart
}

mod files_alone {
    use super::{Source, Stage};

    #[tokio::test]
    async fn a_reset_to_zero_is_not_activity() {
        super::a_reset_to_zero_is_not_activity(Stage::new(Source::Files).await).await;
    }

    #[tokio::test]
    async fn a_restart_to_the_very_same_count_is_activity() {
        super::a_restart_to_the_very_same_count_is_activity(Stage::new(Source::Files).await).await;
    }

    #[tokio::test]
    async fn a_replica_that_leaves_takes_nothing_along() {
        super::a_replica_that_leaves_takes_nothing_along(Stage::new(Source::Files).await).await;
    }
}

mod pods_alone {
    use super::{Source, Stage};

    #[tokio::test]
    async fn a_replica_that_cannot_be_scraped_holds_everything() {
        super::a_replica_that_cannot_be_scraped_holds_everything(Stage::new(Source::Pods).await).await;
    }

    #[tokio::test]
    async fn a_replica_that_leaves_while_in_use_leaves_a_doubt() {
        super::a_replica_that_leaves_while_in_use_leaves_a_doubt(Stage::new(Source::Pods).await).await;
    }

    #[tokio::test]
    async fn a_replica_that_was_out_of_sight_for_long_and_restarted_leaves_a_hole() {
        let stage = Stage::new(Source::Pods).await;
        super::a_replica_that_was_out_of_sight_for_long_and_restarted_leaves_a_hole(stage).await;
    }
}

scenarios! {
    a_counter_that_stands_still_is_quiet
    a_busy_counter_is_never_quiet
    the_first_request_ever_is_activity
    a_request_counts_once
    a_reset_to_less_is_activity
    a_reset_to_more_is_activity
    a_reset_to_zero_is_not_activity
    a_restart_to_the_very_same_count_is_activity
    a_series_that_vanishes_and_returns_is_activity
    a_replica_that_leaves_takes_nothing_along
    a_replica_that_leaves_while_in_use_leaves_a_doubt
    a_gain_is_not_hidden_by_another_replica_s_loss
    a_new_replica_s_requests_count
    one_service_name_in_two_namespaces_is_two_apps
    names_that_collide_keep_both_apps_awake
    a_number_that_is_none_keeps_the_app_awake
    a_replica_that_cannot_be_scraped_holds_everything
    a_replica_that_was_out_of_sight_for_long_and_restarted_leaves_a_hole
    a_port_that_changes_is_followed
    an_app_that_is_renamed_is_followed
    ten_thousand_apps_are_told_apart
}

async fn a_counter_that_stands_still_is_quiet(mut stage: Stage) {
    stage.count(WEB, 57.0);
    stage.ticks(41).await;
    stage.is_quiet("shop/web", 40);
    assert_eq!(stage.blind("shop/web"), vec![]);
}

async fn a_busy_counter_is_never_quiet(mut stage: Stage) {
    for count in 1..20 {
        stage.count(WEB, f64::from(count));
        stage.ticks(1).await;
        stage.is_quiet("shop/web", 0);
    }
}

async fn the_first_request_ever_is_activity(mut stage: Stage) {
    stage.ticks(20).await;
    stage.is_quiet("shop/web", stage.quiet("shop/web").max(19));
    stage.count(WEB, 1.0);
    stage.ticks(1).await;
    stage.is_quiet("shop/web", 0);
}

async fn a_request_counts_once(mut stage: Stage) {
    stage.count(WEB, 3.0);
    stage.ticks(10).await;
    stage.count(WEB, 4.0);
    stage.ticks(6).await;
    stage.is_quiet("shop/web", 5);
}

async fn resets(stage: &mut Stage, to: f64) {
    stage.count(WEB, 57.0);
    stage.ticks(10).await;
    let now = stage.world().now;
    stage.proxy("a", |proxy| proxy.started = now);
    stage.count(WEB, to);
    stage.ticks(1).await;
}

async fn a_reset_to_less_is_activity(mut stage: Stage) {
    resets(&mut stage, 3.0).await;
    stage.is_quiet("shop/web", 0);
}

async fn a_reset_to_more_is_activity(mut stage: Stage) {
    resets(&mut stage, 58.0).await;
    stage.is_quiet("shop/web", 0);
}

async fn a_reset_to_zero_is_not_activity(mut stage: Stage) {
    resets(&mut stage, 0.0).await;
    stage.is_quiet("shop/web", 10);
}

async fn a_restart_to_the_very_same_count_is_activity(mut stage: Stage) {
    stage.count(WEB, 57.0);
    stage.ticks(10).await;
    // A scrape between the restart and the first request shows that the series was gone.
    let now = stage.world().now;
    stage.proxy("a", |proxy| {
        proxy.started = now;
        proxy.counters.clear();
    });
    stage.ticks(1).await;
    stage.is_quiet("shop/web", 10);
    stage.count(WEB, 57.0);
    stage.ticks(1).await;
    stage.is_quiet("shop/web", 0);
}

async fn a_series_that_vanishes_and_returns_is_activity(mut stage: Stage) {
    stage.count(WEB, 5.0);
    stage.ticks(10).await;
    stage.proxy("a", |proxy| proxy.counters.clear());
    stage.ticks(2).await;
    stage.is_quiet("shop/web", 11);
    stage.count(WEB, 5.0);
    stage.ticks(1).await;
    stage.is_quiet("shop/web", 0);
}

fn second(stage: &Stage, count: f64) {
    let started = stage.world().now - 3600.0;
    let mut proxy = traefik(started);
    proxy.counters.insert(format!("service=\"{WEB}\""), count);
    stage.world().proxies.insert("b".to_owned(), proxy);
}

async fn a_replica_that_leaves_takes_nothing_along(mut stage: Stage) {
    stage.count(WEB, 9.0);
    second(&stage, 5.0);
    stage.ticks(10).await;
    stage.world().proxies.remove("b");
    stage.ticks(1).await;
    stage.is_quiet("shop/web", 10);
    assert_eq!(stage.blind("shop/web"), vec![]);
}

async fn a_replica_that_leaves_while_in_use_leaves_a_doubt(mut stage: Stage) {
    stage.count(WEB, 9.0);
    second(&stage, 5.0);
    stage.ticks(10).await;
    second(&stage, 6.0);
    stage.ticks(2).await;
    stage.is_quiet("shop/web", 1);
    stage.world().proxies.remove("b");
    stage.ticks(1).await;
    stage.is_quiet("shop/web", 0);
}

async fn a_gain_is_not_hidden_by_another_replica_s_loss(mut stage: Stage) {
    stage.count(WEB, 9.0);
    second(&stage, 5.0);
    stage.ticks(10).await;
    stage.world().proxies.remove("b");
    stage.count(WEB, 14.0);
    stage.ticks(1).await;
    stage.is_quiet("shop/web", 0);
}

async fn a_new_replica_s_requests_count(mut stage: Stage) {
    stage.count(WEB, 9.0);
    stage.ticks(10).await;
    second(&stage, 1.0);
    stage.ticks(1).await;
    stage.is_quiet("shop/web", 0);
}

async fn one_service_name_in_two_namespaces_is_two_apps(mut stage: Stage) {
    stage.targets.push(target("blog", "web"));
    stage.count(WEB, 1.0);
    stage.count("blog-web-80@kubernetes", 1.0);
    stage.ticks(10).await;
    stage.count("blog-web-80@kubernetes", 2.0);
    stage.ticks(1).await;
    stage.is_quiet("shop/web", 10);
    stage.is_quiet("blog/web", 0);
}

async fn names_that_collide_keep_both_apps_awake(mut stage: Stage) {
    stage.targets = vec![target("a-b", "c"), target("a", "b-c"), target("a", "b")];
    stage.count("a-b-c-80@kubernetes", 1.0);
    stage.ticks(10).await;
    stage.count("a-b-c-80@kubernetes", 2.0);
    stage.ticks(1).await;
    assert_eq!((stage.quiet("a-b/c"), stage.quiet("a/b-c")), (0, 0));
    assert!(stage.quiet("a/b") >= 8);
}

async fn a_number_that_is_none_keeps_the_app_awake(mut stage: Stage) {
    for odd in [f64::NAN, f64::INFINITY, -1.0] {
        stage.count(WEB, odd);
        stage.ticks(5).await;
        assert_eq!(stage.quiet("shop/web"), 0, "{odd}");
    }
}

async fn a_replica_that_cannot_be_scraped_holds_everything(mut stage: Stage) {
    stage.count(WEB, 9.0);
    second(&stage, 5.0);
    stage.ticks(10).await;
    let (known, quiet) = (stage.activity("shop/web").watermark, stage.quiet("shop/web"));
    stage.proxy("b", |proxy| proxy.up = false);
    stage.ticks(4).await;
    assert!(stage.quiet("shop/web") <= quiet + 1, "it grew in the dark");
    assert!(
        stage.activity("shop/web").watermark.duration_since(known) <= SignedDuration::from_secs(15),
        "the watermark moved on in the dark"
    );
    stage.proxy("b", |proxy| proxy.up = true);
    // What it counted meanwhile would be seen now; a database needs a second sign of life to be sure.
    stage.ticks(2).await;
    stage.is_quiet("shop/web", 15);
}

async fn a_replica_that_was_out_of_sight_for_long_and_restarted_leaves_a_hole(mut stage: Stage) {
    stage.count(WEB, 9.0);
    second(&stage, 5.0);
    stage.ticks(10).await;
    stage.proxy("b", |proxy| proxy.up = false);
    stage.ticks(20).await;
    let now = stage.world().now;
    stage.proxy("b", |proxy| {
        proxy.up = true;
        proxy.started = now;
        proxy.counters.clear();
    });
    stage.ticks(3).await;
    // Nobody knows what it served before it restarted.
    stage.is_quiet("shop/web", 2);
}

async fn a_port_that_changes_is_followed(mut stage: Stage) {
    stage.count(WEB, 9.0);
    stage.ticks(10).await;
    stage.targets[0].services[0].ingress_ports = ["8080".to_owned()].into();
    stage.count("shop-web-8080@kubernetes", 1.0);
    stage.ticks(1).await;
    assert_eq!(stage.quiet("shop/web"), 0);
    stage.ticks(4).await;
    stage.is_quiet("shop/web", 4);
}

async fn an_app_that_is_renamed_is_followed(mut stage: Stage) {
    stage.count(WEB, 9.0);
    stage.ticks(10).await;
    // The Deployment has another name; its Service is the same.
    let mut renamed = target("shop", "web");
    renamed.app = kubenap_core::app::AppId::new("shop", "web2");
    stage.targets = vec![renamed];
    stage.ticks(1).await;
    stage.is_quiet("shop/web2", 10);
    stage.count(WEB, 10.0);
    stage.ticks(1).await;
    assert_eq!(stage.quiet("shop/web2"), 0);
}

async fn ten_thousand_apps_are_told_apart(mut stage: Stage) {
    let names: Vec<_> = (0..10_000).map(|number| format!("app-{number}")).collect();
    stage.targets = names.iter().map(|name| target("shop", name)).collect();
    let label = |name: &str| format!("shop-{name}-80@kubernetes");
    for name in &names {
        stage.count(&label(name), 5.0);
    }
    stage.ticks(2).await;
    stage.count(&label("app-7"), 6.0);
    stage.ticks(3).await;
    for name in &names {
        let (quiet, app) = (if name == "app-7" { 2 } else { 4 }, format!("shop/{name}"));
        stage.is_quiet(&app, quiet);
        assert_eq!(stage.blind(&app), vec![], "{app}");
    }
}
