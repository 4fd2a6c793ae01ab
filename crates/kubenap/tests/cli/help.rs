//! Help and version are data: on stdout, with exit code 0.

use crate::command::Home;

#[test]
fn help_names_every_command_with_one_line_about_it() {
    let help = Home::empty().kubenap(&["--help"]);
    assert_eq!(help.code, Some(0), "{help:#?}");
    assert_eq!(help.err, "");
    let (_, after) = help.out.split_once("Commands:\n").unwrap();
    let list = after.split("\n\n").next().unwrap();
    let names: Vec<_> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["run", "demo", "status", "why", "nap", "wake", "restore", "render", "doctor", "help"]);
    for line in list.lines() {
        assert!(line.split_whitespace().count() > 3, "a command without a line about it: {line}");
    }
}

#[test]
fn version_is_the_one_of_the_manifest() {
    let version = Home::empty().kubenap(&["--version"]);
    assert_eq!(
        (version.code, version.out.as_str()),
        (Some(0), concat!("kubenap ", env!("CARGO_PKG_VERSION"), "\n"))
    );
}

#[test]
fn the_defaults_that_the_design_fixes_stand_in_the_help_of_run() {
    let help = Home::empty().kubenap(&["run", "--help"]).out;
    let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for (flag, default) in [
        ("--wake-ports", "16000-29999"),
        ("--proxy-listen", "any=0.0.0.0:8080"),
        ("--admin-listen", "0.0.0.0:8081"),
        ("--source", "ingress"),
        ("--poll", "15s"),
        ("--idle-after", "10m"),
        ("--min-awake", "1m"),
        ("--drowsy", "5s"),
    ] {
        let (_, after) = flat.split_once(&format!(" {flag} ")).unwrap();
        let own = after.split(" --").next().unwrap();
        assert!(own.contains(&format!("[default: {default}]")), "{flag}: {own}");
    }
}

#[test]
fn nothing_typed_shows_the_help_and_is_wrong_usage() {
    Home::empty().kubenap(&[]).fails(2, &["Usage: kubenap"]);
}
