//! Every annotation with good and bad values: what is understood, and exactly what is complained about.

use expect_test::{Expect, expect};
use kubenap_core::app::key;
use kubenap_core::policy::{Defaults, KEYS, Policy, Reading, Texts, Weight, opted_in, read};
use proptest::prelude::*;

const TABLE: &[(&str, &[&str])] = &[
    ("service", &["web", "web,web-internal", " web , api ", "", "web,", "Web", "web/api", "-web"]),
    ("ingress", &["web-ing", "web_ing"]),
    (
        "idleAfter",
        &["90s", "1h30m", "1s", "999ms", "0", "", "10", "1d", "-5m", "5 m", "99999999999999999999h"],
    ),
    ("replicaCount", &["1", "1000000", "0", "-1", "1000001", "three", "2.0", ""]),
    ("proxy", &["any", "nginx", "traefik", "istio", "envoy", "caddy", "apache", "NGINX"]),
    ("wake", &["auto", "redirect", "pass", "page", "Page", ""]),
    ("holdFor", &["0", "10s", "ten"]),
    ("wakeTimeout", &["2m", "500ms", "x"]),
    ("metrics", &["prometheus", "prometheus,ingress", "graphite", "Prometheus"]),
    ("query", &["sum(x)", "sum(x offset 10m)", ""]),
    ("ignorePaths", &["/health,/metrics", "health", "/ok,"]),
    ("ignoreUserAgents", &["UptimeRobot,curl/", "ab", "uptime,"]),
    ("awakeDuring", &["Mon-Fri 08:00-18:00 Europe/Zurich"]),
    ("dependsOn", &["shop/api"]),
    ("adoptZero", &["true", "false", "yes"]),
    ("substitute", &["true", "false", "no"]),
    ("hook", &["declared", "true", ""]),
    ("wish", &["nap", "forceNap", "wake", "sleep"]),
];

#[test]
fn every_key_is_in_the_table() {
    let keys: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    let table: Vec<_> = TABLE.iter().map(|(name, _)| *name).collect();
    assert_eq!(keys, table);
}

#[test]
fn each_value_is_understood_or_complained_about() {
    let mut told = String::new();
    for (name, values) in TABLE {
        for value in *values {
            let full = format!("kubenap/{name}");
            let reading = policy(&[(full.as_str(), *value)]);
            let understood = differences(&reading.policy);
            told += &format!("{name}={value:?}: {understood}\n");
            for complaint in complaints(&reading).lines() {
                told += &format!("    {complaint}\n");
            }
        }
    }
    expect_test::expect_file!["policy.txt"].assert_eq(&told);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    check(
        &[
            ("kubenap/idleAfter", "1d"),
            ("kubenap/replicaCount", "0"),
            ("kubenap/proxy", "apache"),
            ("kubenap/idelAfter", "5m"),
            ("kubenap/dependsOn", "shop/api"),
            ("kubenap/enabled", "true"),
            ("other/idleAfter", "1d"),
        ],
        &expect![[r#"
                refuses: kubenap/dependsOn: "shop/api" is understood, but not carried out by this version, so the app is kept awake; accepted: apps as NAMESPACE/NAME, separated by commas
                refuses: kubenap/enabled: "true" is an annotation here; accepted: this key as a label, with the value true
                refuses: kubenap/idelAfter: "5m" is not a key of KubeNap; accepted: did you mean kubenap/idleAfter?
                refuses: kubenap/idleAfter: "1d" is not a duration; accepted: a duration of at least 1s, such as 90s, 10m or 1h30m
                refuses: kubenap/replicaCount: "0" is not understood; accepted: a whole number from 1 to 1000000
                refuses: kubenap/proxy: "apache" is not understood; accepted: any, nginx, traefik, envoy, istio, envoy-gateway, haproxy or caddy
        "#]],
    );
}

#[test]
fn an_unknown_key_is_a_mistake_and_the_likely_one_is_named() {
    check(
        &[
            ("kubenap/IdleAfter", "5m"),
            ("kubenap/idle-after", "5m"),
            ("kubenap/idle", "5m"),
            ("kubenap/idelAfter", "5m"),
            ("kubenap/replica_count", "1"),
            ("kubenap/replicas", "1"),
            ("kubenap/services", "web"),
            ("kubenap/", ""),
            ("kubenap/täglich", "ja"),
            ("kubenap/aVeryLongKeyThatIsLikeNothingKubeNapKnowsOf", ""),
        ],
        &expect![[r#"
                refuses: kubenap/: "" is not a key of KubeNap; accepted: the keys that KubeNap's reference page lists
                refuses: kubenap/IdleAfter: "5m" is not a key of KubeNap; accepted: did you mean kubenap/idleAfter?
                refuses: kubenap/aVeryLongKeyThatIsLikeNothingKubeNapKnowsOf: "" is not a key of KubeNap; accepted: the keys that KubeNap's reference page lists
                refuses: kubenap/idelAfter: "5m" is not a key of KubeNap; accepted: did you mean kubenap/idleAfter?
                refuses: kubenap/idle: "5m" is not a key of KubeNap; accepted: the keys that KubeNap's reference page lists
                refuses: kubenap/idle-after: "5m" is not a key of KubeNap; accepted: did you mean kubenap/idleAfter?
                refuses: kubenap/replica_count: "1" is not a key of KubeNap; accepted: did you mean kubenap/replicaCount?
                refuses: kubenap/replicas: "1" is not a key of KubeNap; accepted: the keys that KubeNap's reference page lists
                refuses: kubenap/services: "web" is not a key of KubeNap; accepted: did you mean kubenap/service?
                refuses: kubenap/täglich: "ja" is not a key of KubeNap; accepted: the keys that KubeNap's reference page lists
        "#]],
    );
}

#[test]
fn what_kubenap_writes_itself_is_never_complained_about() {
    let texts: Vec<_> = key::STATE.iter().map(|name| (*name, "anything")).collect();
    assert_eq!(policy(&texts).complaints, []);
}

#[test]
fn only_the_label_true_opts_in_and_another_value_is_a_mistake() {
    let label = |value: &str| Texts::from([(key::ENABLED.to_owned(), value.to_owned())]);
    let told: Vec<_> = ["true", "false", "True", "yes", ""]
        .into_iter()
        .map(|value| {
            let reading = read(&label(value), &Texts::new(), &Defaults::default());
            format!("{value:?}: in {}, refused {}", opted_in(&label(value)), reading.refuses())
        })
        .collect();
    assert_eq!(
        told,
        [
            r#""true": in true, refused false"#,
            r#""false": in false, refused false"#,
            r#""True": in false, refused true"#,
            r#""yes": in false, refused true"#,
            r#""": in false, refused true"#,
        ]
    );
}

#[test]
fn where_no_sources_are_known_any_name_is_accepted() {
    let texts = Texts::from([("kubenap/metrics".to_owned(), "graphite".to_owned())]);
    assert_eq!(read(&Texts::new(), &texts, &Defaults::default()).complaints, []);
}

#[test]
fn a_long_value_is_cut_in_the_complaint() {
    let long = "x".repeat(10_000);
    let reading = policy(&[("kubenap/wake", long.as_str())]);
    assert_eq!(reading.complaints[0].value.len(), 64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_and_what_is_complained_about_names_its_key(
        keys in proptest::collection::vec("(kubenap/)?\\PC{0,40}", 0..4),
        known in proptest::collection::vec(proptest::sample::select(KEYS), 0..4),
        texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 8),
    ) {
        let keys = keys.into_iter().chain(known.into_iter().map(|key| key.full()));
        let texts = texts.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let annotations: Texts = keys.zip(texts).collect();
        let reading = read(&annotations, &annotations, &Defaults::default());
        for complaint in &reading.complaints {
            prop_assert!(annotations.contains_key(&complaint.key), "{complaint}");
            prop_assert!(complaint.value.chars().count() <= 64);
            prop_assert!(!complaint.to_string().contains('\n'), "{complaint}");
            prop_assert!(!complaint.accepted.is_empty() && !complaint.problem.is_empty());
        }
        prop_assert!(reading.policy.idle_after.as_secs() >= 1);
        prop_assert!(reading.policy.replica_count != Some(0));
    }
}

#[test]
fn a_key_with_one_letter_wrong_is_recognised() {
    for known in KEYS {
        for (at, letter) in (0..known.name.len()).flat_map(|at| ('a'..='z').map(move |letter| (at, letter))) {
            let mut short = known.name.to_owned();
            short.replace_range(at..=at, &letter.to_string());
            if KEYS.iter().any(|key| key.name == short) {
                continue;
            }
            let reading = policy(&[(format!("kubenap/{short}").as_str(), "x")]);
            assert_eq!(reading.complaints.len(), 1);
            assert!(
                reading.complaints[0].accepted.starts_with("did you mean kubenap/"),
                "{}",
                reading.complaints[0]
            );
            assert!(reading.refuses());
        }
    }
}

fn check(annotations: &[(&str, &str)], expected: &Expect) {
    expected.assert_eq(&complaints(&policy(annotations)));
}

fn policy(annotations: &[(&str, &str)]) -> Reading {
    let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    let sources = vec!["ingress".to_owned(), "prometheus".to_owned()];
    let asking = vec!["prometheus".to_owned()];
    let defaults = Defaults { by_default: sources.clone(), sources, asking, ..Defaults::default() };
    read(&Texts::new(), &annotations.iter().map(own).collect(), &defaults)
}

fn complaints(reading: &Reading) -> String {
    let line = |complaint: &kubenap_core::policy::Complaint| {
        let mark = match complaint.weight {
            Weight::Refuses => "refuses",
            Weight::Warns => "warns",
        };
        format!("{mark}: {complaint}\n")
    };
    reading.complaints.iter().map(line).collect()
}

/// What differs from the policy of an app that says nothing.
fn differences(said: &Policy) -> String {
    let nothing = read(&Texts::new(), &Texts::new(), &Defaults::default()).policy;
    let fields = |policy: &Policy| {
        let Policy {
            services,
            ingresses,
            idle_after,
            replica_count,
            proxy,
            wake,
            hold_for,
            wake_timeout,
            metrics,
            query,
            ignore_paths,
            ignore_user_agents,
            adopt_zero,
            substitute,
            hook_declared,
            wish,
        } = policy;
        [
            format!("services {services:?}"),
            format!("ingresses {ingresses:?}"),
            format!("idle after {idle_after:?}"),
            format!("replica count {replica_count:?}"),
            format!("proxy {proxy:?}"),
            format!("wake {wake:?}"),
            format!("hold for {hold_for:?}"),
            format!("wake timeout {wake_timeout:?}"),
            format!("metrics {metrics:?}"),
            format!("query {query:?}"),
            format!("ignore paths {ignore_paths:?}"),
            format!("ignore user agents {ignore_user_agents:?}"),
            format!("adopt zero {adopt_zero:?}"),
            format!("substitute {substitute:?}"),
            format!("hook declared {hook_declared:?}"),
            format!("wish {wish:?}"),
        ]
    };
    let pairs = fields(said).into_iter().zip(fields(&nothing));
    let changed: Vec<_> = pairs.filter(|(said, nothing)| said != nothing).map(|(said, _)| said).collect();
    if changed.is_empty() { "the default".to_owned() } else { changed.join(", ") }
}
