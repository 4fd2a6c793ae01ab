//! Wrong usage: exit code 2, with the value, the place, and what is accepted.

use crate::command::Home;

#[test]
fn an_unknown_flag_is_wrong_usage() {
    Home::empty().kubenap(&["run", "--idle-afer", "10m"]).fails(2, &["--idle-afer", "--idle-after"]);
}

#[test]
fn a_duration_in_days_is_refused_with_what_is_accepted() {
    let ended = Home::empty().kubenap(&["run", "--idle-after", "1d"]);
    ended.fails(2, &["`1d`", "--idle-after", "accepted", "1h30m"]);
}

#[test]
fn a_duration_that_is_too_short_is_refused_with_the_least() {
    Home::empty()
        .kubenap(&["run", "--idle-after", "10ms"])
        .fails(2, &["`10ms`", "--idle-after", "at least 1s"]);
    Home::empty().kubenap(&["nap", "web", "--timeout", "0"]).fails(2, &["`0`", "--timeout", "at least 1s"]);
}

#[test]
fn a_range_of_ports_is_refused_with_an_example() {
    for wrong in ["29999-16000", "0-5", "16000", "1-70000", "a-b"] {
        let ended = Home::empty().kubenap(&["run", "--wake-ports", wrong]);
        ended.fails(2, &[&format!("`{wrong}`"), "--wake-ports", "16000-29999"]);
    }
}

#[test]
fn a_source_that_does_not_exist_is_refused_with_those_that_do() {
    let ended = Home::empty().kubenap(&["run", "--source", "graphite"]);
    ended.fails(2, &["`graphite`", "--source", "accepted: ingress, ingress=URL, prometheus=URL"]);
    let ended = Home::empty().kubenap(&["run", "--source", "prometheus"]);
    ended.fails(2, &["needs an address: prometheus=http://HOST:PORT"]);
}

#[test]
fn a_source_that_lacks_something_says_what() {
    for (given, lacks) in [
        (
            "influxdb=http://127.0.0.1:1",
            "needs a bucket; accepted: influxdb=http://HOST:PORT?org=ORG&bucket=BUCKET",
        ),
        ("datadog", "needs the environment variables DD_API_KEY and DD_APP_KEY"),
    ] {
        Home::empty().kubenap(&["run", "--source", given]).fails(2, &[lacks]);
    }
}

#[test]
fn every_mistake_in_the_sources_of_a_file_is_told_at_once() {
    let home = Home::with_dead_cluster();
    let text =
        "sources:\n  main: {kind: prometheus, url: 'ftp://x', colour: blue}\n  spare: {kind: graphite}\n";
    let path = home.file("kubenap.yaml", text);
    let config = path.to_str().unwrap();
    home.kubenap(&["run", "--config", config]).fails(
        2,
        &[
            "kubenap.yaml: sources.main.url: is not understood",
            "kubenap.yaml: sources.main.colour: is not known; accepted: url, allowQuery, ruleInterval, headers",
            "kubenap.yaml: sources.spare.kind: \"graphite\" is not a kind of source",
        ],
    );
    // A command that asks no source does not read them.
    home.kubenap(&["status", "--config", config]).fails(1, &["cannot list Deployments"]);
}

#[test]
fn a_listener_s_profile_that_does_not_exist_is_refused_with_those_that_do() {
    let ended = Home::empty().kubenap(&["run", "--proxy-listen", "apache=0.0.0.0:8080"]);
    ended.fails(2, &["`apache` is not a proxy", "accepted: any, nginx, traefik"]);
    Home::empty().kubenap(&["run", "--proxy-listen", "8080"]).fails(2, &["`8080`", "accepted: IP:PORT"]);
}

#[test]
fn restore_wants_apps_or_all_of_them_and_not_both() {
    Home::empty().kubenap(&["restore"]).fails(2, &["no app is named", "--all"]);
    Home::empty().kubenap(&["restore", "--all", "shop/web"]).fails(2, &["--all"]);
}

#[test]
fn a_name_that_is_no_app_s_is_refused_with_the_form() {
    for command in ["why", "nap", "wake", "restore"] {
        let ended = Home::with_dead_cluster().kubenap(&[command, "a/b/c"]);
        ended.fails(2, &["`a/b/c` is not an app", "NAMESPACE/NAME"]);
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let ended = Home::with_dead_cluster().kubenap(&[
        "run",
        "--identity",
        "Upper_Case",
        "--advertise-address",
        "0.0.0.0",
    ]);
    ended.fails(2, &["--identity", "`Upper_Case`", "0.0.0.0"]);
}

#[test]
fn linked_as_a_plugin_of_kubectl_it_naps_what_is_named() {
    let home = Home::with_dead_cluster().called("kubectl-nap");
    home.kubenap(&["shop/web"]).fails(1, &["cannot read shop/web"]);
    home.kubenap(&["-n", "shop", "web"]).fails(1, &["cannot read shop/web"]);
    home.kubenap(&["status"]).fails(1, &["cannot list Deployments"]);
}
