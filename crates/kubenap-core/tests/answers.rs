//! The table of answers, row by row.

use std::time::Duration;

use kubenap_core::answer::{
    Answer, Manners, OwnedManners, PAGE_PATIENCE, Readiness, Request, WakeMode, Way, answer,
};
use kubenap_core::proxy::Reach;

const HOLD: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_mins(2);
const PASS: Answer = Answer::Pass { hold: TIMEOUT };
const REDIRECT: Answer = Answer::Redirect { hold: HOLD };

/// A request in a few words: method, path, and what is special about it.
fn request(words: &'static str) -> Request<'static> {
    let has = |word: &str| words.split(' ').any(|each| each == word);
    let mut parts = words.split(' ');
    Request {
        method: parts.next().unwrap_or_default(),
        path: parts.next().unwrap_or_default(),
        user_agent: if has("kubelet") {
            "kube-probe/1.34"
        } else if has("scraper") {
            "Prometheus/3.0"
        } else if has("crawler") {
            "Mozilla/5.0 (compatible; SomeBot/2.1)"
        } else {
            "curl/8"
        },
        way: if has("error-path") {
            Way::ErrorPath(Reach::Gone)
        } else if has("fixed") {
            Way::ErrorPath(Reach::GoneForGood)
        } else if has("here") {
            Way::ErrorPath(Reach::Here)
        } else if has("kept") {
            Way::ErrorPath(Reach::Kept)
        } else {
            Way::WakePort
        },
        forwarded: has("forwarded"),
        navigation: has("browser"),
        upgrade: has("upgrade"),
        grpc: has("grpc"),
        h2c: has("h2c"),
        preflight: has("preflight"),
        body: has("body"),
    }
}

fn check(mode: WakeMode, app: Readiness, rows: &[(&'static str, Answer)]) {
    let manners = OwnedManners {
        mode,
        ignore_paths: vec!["/internal/".into()],
        ignore_user_agents: vec!["somebot".into()],
        ..OwnedManners::default()
    };
    let manners: Manners<'_> = manners.borrowed();
    for (words, expected) in rows {
        assert_eq!(answer(&request(words), &manners, app), *expected, "{mode:?} {app:?}: {words}");
    }
}

#[test]
fn while_the_app_sleeps_each_request_gets_what_suits_it() {
    let page = Answer::Page { patience: PAGE_PATIENCE };
    check(
        WakeMode::Auto,
        Readiness::NotReady,
        &[
            ("GET / forwarded", REDIRECT),
            ("HEAD /a forwarded", REDIRECT),
            ("GET /", PASS),
            ("GET / browser", page),
            ("GET / browser forwarded", page),
            ("GET / browser forwarded error-path", page),
            ("POST / forwarded body", PASS),
            ("POST / forwarded", PASS),
            ("GET / forwarded body", PASS),
            ("GET / forwarded upgrade", PASS),
            ("POST /p.S/M forwarded grpc h2c body", PASS),
            ("GET / forwarded h2c", PASS),
            ("OPTIONS / forwarded preflight", PASS),
            ("GET / error-path", REDIRECT),
            ("POST / error-path body", REDIRECT),
            ("POST /p.S/M error-path grpc body", Answer::GrpcUnavailable),
            ("GET / kubelet", Answer::Ignore),
            ("GET /metrics scraper", Answer::Ignore),
            ("GET /favicon.ico browser", Answer::Ignore),
            ("GET /robots.txt forwarded", Answer::Ignore),
            ("POST /favicon.ico", PASS),
            ("GET /internal/health forwarded", Answer::Ignore),
            ("GET / crawler forwarded", Answer::Ignore),
            ("GET / crawler error-path", Answer::Ignore),
        ],
    );
}

#[test]
fn on_an_error_path_a_request_is_redirected_passed_or_sent_again_as_far_as_it_can_be_reached() {
    let page = Answer::Page { patience: PAGE_PATIENCE };
    check(
        WakeMode::Auto,
        Readiness::NotReady,
        &[
            ("GET / here", REDIRECT),
            ("POST / here body", PASS),
            ("GET / here upgrade", PASS),
            ("GET / here browser", page),
            ("POST /p.S/M here grpc h2c body", PASS),
            ("GET / kept", REDIRECT),
            ("POST / kept", PASS),
            ("GET / kept upgrade", PASS),
            ("GET / kept browser", page),
            ("POST /p.S/M kept grpc", Answer::GrpcUnavailable),
            ("GET / fixed", REDIRECT),
            ("GET / fixed browser", REDIRECT),
            ("POST / fixed grpc", REDIRECT),
            ("GET /healthz here", Answer::Ignore),
            ("GET / kept kubelet", Answer::Ignore),
        ],
    );
    check(
        WakeMode::Auto,
        Readiness::Ready,
        &[
            ("GET / here", PASS),
            ("GET / here browser", PASS),
            ("GET / kept", PASS),
            ("GET / fixed", REDIRECT),
            ("GET / here kubelet", Answer::PassQuietly),
            ("GET / kept kubelet", Answer::Ignore),
        ],
    );
}

#[test]
fn once_the_app_is_ready_everything_is_passed_so_that_nothing_loops() {
    check(
        WakeMode::Auto,
        Readiness::Ready,
        &[
            ("GET / forwarded", PASS),
            ("GET / browser", PASS),
            ("POST / body", PASS),
            ("GET / kubelet", Answer::PassQuietly),
            ("GET /internal/health", Answer::PassQuietly),
            ("GET / error-path", REDIRECT),
            ("GET / browser error-path", REDIRECT),
            ("GET / kubelet error-path", Answer::Ignore),
            ("POST /p.S/M error-path grpc", Answer::GrpcUnavailable),
        ],
    );
}

#[test]
fn an_owner_may_ask_for_other_manners() {
    check(
        WakeMode::Redirect,
        Readiness::NotReady,
        &[("GET /", REDIRECT), ("GET / browser", REDIRECT), ("POST / body", PASS)],
    );
    check(
        WakeMode::Pass,
        Readiness::NotReady,
        &[
            ("GET / forwarded", PASS),
            ("GET / browser forwarded", PASS),
            ("GET / error-path", REDIRECT),
            ("GET / browser error-path", REDIRECT),
        ],
    );
    check(
        WakeMode::Page,
        Readiness::NotReady,
        &[
            ("GET / browser", Answer::Page { patience: Duration::ZERO }),
            ("GET / forwarded", REDIRECT),
            ("POST / browser body", PASS),
        ],
    );
}
