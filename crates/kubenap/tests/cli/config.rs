//! Three places for a flag: what is typed goes before the environment, the environment before the file.

use crate::command::{Ended, Home};

/// Runs with a wrong `--idle-after` in some of the places: the message names the one that counts.
fn run(file: Option<&str>, environment: Option<&str>, typed: Option<&str>) -> Ended {
    let mut home = Home::with_dead_cluster();
    if let Some(value) = environment {
        home = home.set("KUBENAP_IDLE_AFTER", value);
    }
    let mut args = vec!["run".to_owned()];
    if let Some(value) = file {
        let path = home.file("kubenap.yaml", &format!("idle-after: {value}\n"));
        args.extend(["--config".to_owned(), path.to_str().unwrap().to_owned()]);
    }
    if let Some(value) = typed {
        args.extend(["--idle-after".to_owned(), value.to_owned()]);
    }
    home.kubenap(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_flag_is_taken_from_the_file() {
    run(Some("1d"), None, None).fails(2, &["`1d`", "--idle-after"]);
}

#[test]
fn the_environment_goes_before_the_file() {
    run(Some("1d"), Some("2d"), None).fails(2, &["`2d`", "--idle-after"]);
}

#[test]
fn what_is_typed_goes_before_both() {
    run(Some("1d"), Some("2d"), Some("3d")).fails(2, &["`3d`", "--idle-after"]);
    run(Some("1d"), None, Some("3d")).fails(2, &["`3d`", "--idle-after"]);
}

#[test]
fn a_key_that_is_no_flag_is_named_with_its_file() {
    let home = Home::with_dead_cluster();
    let path = home.file("kubenap.yaml", "idleAfter: 10m\npoll: 15s\npol: 15s\n");
    let ended = home.kubenap(&["run", "--config", path.to_str().unwrap()]);
    ended.fails(
        2,
        &["kubenap.yaml: `idleAfter` is not a flag", "kubenap.yaml: `pol` is not a flag", "accepted"],
    );
    assert!(!ended.err.contains("`poll`"), "{ended:#?}");
}

#[test]
fn a_file_may_hold_flags_of_other_commands_and_lists() {
    let home = Home::with_dead_cluster();
    let path = home.file("kubenap.yaml", "namespace: [shop, office]\nsource:\n- ingress\n- graphite\n");
    let config = path.to_str().unwrap();
    home.kubenap(&["status", "--config", config]).fails(1, &["cannot list Deployments"]);
    home.kubenap(&["run", "--config", config]).fails(2, &["`graphite`", "--source"]);
}

#[test]
fn the_file_itself_may_be_named_by_the_environment() {
    let home = Home::with_dead_cluster();
    let path = home.file("kubenap.yaml", "drowsy: soon\n");
    let home = home.set("KUBENAP_CONFIG", path.to_str().unwrap());
    home.kubenap(&["run"]).fails(2, &["`soon`", "--drowsy"]);
}

#[test]
fn a_file_that_cannot_be_read_or_understood_is_named() {
    let home = Home::with_dead_cluster();
    home.kubenap(&["run", "--config", "/nowhere.yaml"])
        .fails(2, &["cannot read the config file /nowhere.yaml"]);
    let path = home.file("kubenap.yaml", "poll: {every: 15s}\n");
    home.kubenap(&["run", "--config", path.to_str().unwrap()]).fails(2, &["kubenap.yaml is not understood"]);
    let path = home.file("kubenap.yaml", "sources: [main]\n");
    let ended = home.kubenap(&["run", "--config", path.to_str().unwrap()]);
    ended.fails(2, &["kubenap.yaml: `sources` is not understood; accepted: settings by the source's name"]);
}

#[test]
fn a_namespace_typed_as_n_goes_before_the_file_s() {
    let home = Home::with_dead_cluster();
    let path = home.file("kubenap.yaml", "namespace: [office]\n");
    let config = path.to_str().unwrap();
    home.kubenap(&["-n", "shop", "nap", "web", "--config", config]).fails(1, &["cannot read shop/web"]);
    home.kubenap(&["nap", "-nshop", "web", "--config", config]).fails(1, &["cannot read shop/web"]);
}

#[test]
fn every_setting_of_a_source_that_the_guide_shows_is_accepted() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/sources");
    let mut shown = 0;
    for page in std::fs::read_dir(guide).unwrap() {
        let text = std::fs::read_to_string(page.unwrap().path()).unwrap();
        for block in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let home = Home::with_dead_cluster();
            let path = home.file("kubenap.yaml", block);
            // The one mistake is a flag's, which is found after those of the sources.
            let ended =
                home.kubenap(&["run", "--config", path.to_str().unwrap(), "--identity", "Upper_Case"]);
            ended.fails(2, &["--identity"]);
            assert!(!ended.err.contains("sources."), "{block}\n{ended:#?}");
            shown += 1;
        }
    }
    assert!(shown > 8, "only {shown} examples were found");
}

#[test]
fn an_app_called_like_a_command_is_an_app() {
    let home = Home::with_dead_cluster();
    let path = home.file("kubenap.yaml", "idle-after: 10m\n");
    let ended = home.kubenap(&["nap", "run", "--config", path.to_str().unwrap()]);
    ended.fails(1, &["cannot read default/run"]);
}
