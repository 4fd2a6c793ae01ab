//! The demo tells the whole story within its time, and the README shows what it really prints.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// `kubenap demo` itself gives up before this.
const LIMIT: Duration = Duration::from_secs(30);

const BEGIN: &str =
    "<!-- demo: UPDATE_EXPECT=1 cargo test -p kubenap --test demo -->\n```console\n$ kubenap demo\n";
const END: &str = "```\n<!-- end of demo -->";

#[tokio::test]
async fn the_demo_naps_and_wakes_an_app_as_the_readme_shows_it() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_kubenap"));
    demo.arg("demo").env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let ended = timeout(LIMIT, demo.output()).await.expect("the demo takes longer than it may").unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{}\n{said}{}", ended.status, String::from_utf8_lossy(&ended.stderr));

    let mut told = said.lines().filter_map(|line| line.split_whitespace().nth(1));
    for word in ["traffic", "drowsy", "asleep", "request", "waking", "307", "200", "awake"] {
        assert!(told.any(|each| each == word), "no `{word}` at its place in\n{said}");
    }

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the README has no place for the demo's output");
    let (shown, after) = rest.split_once(END).expect("the README's place for the demo's output has no end");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{said}{END}{after}")).unwrap();
    } else {
        let hint =
            "the README shows something else; `UPDATE_EXPECT=1 cargo test -p kubenap --test demo` mends it";
        assert_eq!(shape(shown), shape(&said), "{hint}");
    }
}

/// What does not change from run to run: words with a digit, and names of pods, are left out.
fn shape(said: &str) -> Vec<String> {
    let steady =
        |word: &&str| !word.contains(|sign: char| sign.is_ascii_digit()) && !word.starts_with("web-");
    said.lines().map(|line| line.split_whitespace().filter(steady).collect::<Vec<_>>().join(" ")).collect()
}
