//! Without a cluster, or with one that does not answer: exit code 1, why, and what to do.

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::command::{Home, LIMIT};

#[test]
fn without_any_configuration_a_command_fails_with_a_hint() {
    for command in
        [&["run"][..], &["status"], &["why", "web"], &["nap", "web"], &["wake", "web"], &["doctor"]]
    {
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

#[tokio::test]
async fn the_controller_waits_for_an_api_server_that_is_away_and_leaves_when_told_to() {
    let home = Home::with_dead_cluster();
    let own = ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:0"];
    let flags = ["--advertise-address", "--admin-listen", "--proxy-listen"];
    let mut program = home.program(&["run", "--log-format", "text"]);
    program.args(flags.iter().zip(own).flat_map(|(flag, value)| [*flag, value]));
    let story = async {
        let mut running = program.spawn().unwrap();
        let mut log = BufReader::new(running.stderr.take().unwrap()).lines();
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains("cannot write this member's Lease yet") {
                break;
            }
        }
        let pid = running.id().unwrap().to_string();
        assert!(Command::new("kill").arg(&pid).status().await.unwrap().success());
        // Reading on, so that it does not stand still on a full pipe.
        while log.next_line().await.unwrap().is_some() {}
        running.wait().await.unwrap().code()
    };
    assert_eq!(timeout(LIMIT, story).await.expect("it neither complains nor leaves"), Some(0));
}
