//! Without a cluster, or with one that does not answer: exit code 1, why, and what to do.

use crate::command::Home;

#[test]
fn without_any_configuration_a_command_fails_with_a_hint() {
    for command in [&["run"][..], &["status"], &["why", "web"], &["nap", "web"], &["wake", "web"], &["doctor"]] {
        let ended = Home::empty().kubenap(command);
        ended.fails(1, &["error: no cluster is configured", "hint: give --kubeconfig, or set KUBECONFIG"]);
    }
}

#[test]
fn a_kubeconfig_that_is_not_there_is_named() {
    let ended = Home::empty().kubenap(&["--kubeconfig", "/nowhere/config", "status"]);
    ended.fails(1, &["cannot use the kubeconfig /nowhere/config"]);
}

#[test]
fn a_context_that_does_not_exist_is_named() {
    let ended = Home::with_dead_cluster().kubenap(&["--context", "elsewhere", "status"]);
    ended.fails(1, &["cannot use the kubeconfig", "elsewhere"]);
}

#[test]
fn an_api_server_that_does_not_answer_ends_a_command_with_the_reason() {
    let home = Home::with_dead_cluster();
    home.kubenap(&["status"]).fails(1, &["error: cannot list Deployments", "the API server"]);
    home.kubenap(&["nap", "shop/web"]).fails(1, &["error: cannot read shop/web"]);
}

#[test]
fn doctor_says_on_stdout_what_is_missing_and_fails() {
    let ended = Home::with_dead_cluster().kubenap(&["doctor"]);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.out.contains("FAILED  the API server does not answer"), "{ended:#?}");
    assert!(ended.out.contains("hint: check --kubeconfig and --context"), "{ended:#?}");
    let json = Home::with_dead_cluster().kubenap(&["doctor", "-o", "json"]);
    let findings: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(findings[0]["state"], "failed");
}

#[test]
fn the_controller_does_not_start_against_an_api_server_that_is_not_there() {
    let ended = Home::with_dead_cluster().kubenap(&[
        "run",
        "--advertise-address",
        "127.0.0.1",
        "--admin-listen",
        "127.0.0.1:0",
        "--proxy-listen",
        "127.0.0.1:0",
    ]);
    ended.fails(1, &["cannot use the namespace kubenap-system for Leases", "--lease-namespace"]);
}
