//! A wrong annotation or an unfit Service keeps the app awake, and says so.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::members::Settings;
use crate::e2e::world::{Space, eventually};

const IDLE_AFTER: Duration = Duration::from_secs(3);

/// A mistake in an annotation: the app's name, key, value, and words that the complaint must have besides these two.
const ANNOTATIONS: [(&str, &str, &str, &[&str]); 12] = [
    ("a-duration", "idleAfter", "10 minutes", &[]),
    ("a-negative", "idleAfter", "-5s", &[]),
    ("a-short", "idleAfter", "200ms", &["1s"]),
    ("a-key", "idelAfter", "5s", &["idleAfter"]),
    ("a-count", "replicaCount", "many", &[]),
    ("a-count-below", "replicaCount", "-1", &[]),
    ("a-proxy", "proxy", "squid", &["nginx", "traefik", "istio", "envoy", "any"]),
    ("a-service", "service", "nowhere", &[]),
    ("a-wake", "wake", "shout", &["auto", "redirect", "pass", "page"]),
    ("a-hold", "holdFor", "a while", &[]),
    ("a-zero", "adoptZero", "perhaps", &["true", "false"]),
    ("a-hours", "awakeDuring", "whenever", &[]),
];

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    space.world.members.ensure(&Settings { idle_after: "3s", ..Settings::default() }).await?;
    for (app, key, value, _) in ANNOTATIONS {
        space.create(&with_host(App::new(app), app).annotate(key, value)).await?;
    }
    let services = services();
    for (app, _, spec) in &services {
        space.create(&with_host(App::new(app).service(spec.clone()), app).annotate("service", app)).await?;
    }
    // One that is right shows that the others had the time to nap.
    space.deploy(&with_host(App::new("right").idle_after("3s"), "right")).await?;
    let names: Vec<&str> =
        ANNOTATIONS.iter().map(|case| case.0).chain(services.iter().map(|case| case.0)).collect();
    for app in &names {
        let what = format!("{app} is ready");
        eventually(&what, Duration::from_secs(240), async || {
            ensure!(space.ready_replicas(app).await? == 1, "it is not");
            Ok(())
        })
        .await?;
    }
    space.until_asleep("right", "right").await?;
    sleep(3 * IDLE_AFTER).await;

    for app in &names {
        let (replicas, ours) = (space.replicas(app).await?, space.our_addresses(app).await?);
        ensure!(replicas == 1 && ours.is_empty(), "{app} was put to sleep: {replicas} replicas, {ours:?}");
    }
    for (app, key, value, words) in ANNOTATIONS {
        let key = format!("kubenap/{key}");
        complained(space, app, &[&[key.as_str(), value], words].concat()).await?;
    }
    for (app, word, _) in &services {
        complained(space, app, &[app, word]).await?;
    }
    Ok(vec![("mistakes", names.len() as u64)])
}

/// Services that cannot be napped behind: the app's name, a word of the complaint, the Service's spec.
fn services() -> Vec<(&'static str, &'static str, Value)> {
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    let udp = json!([{"name": "http", "port": 80, "protocol": "UDP"}]);
    let of = |app: &str| json!({"group": app});
    vec![
        (
            "b-headless",
            "headless",
            json!({"clusterIP": "None", "selector": of("b-headless"), "ports": ports}),
        ),
        ("b-external", "ExternalName", json!({"type": "ExternalName", "externalName": "elsewhere.test"})),
        ("b-unselected", "selector", json!({"ports": ports})),
        ("b-udp", "UDP", json!({"selector": of("b-udp"), "ports": udp})),
        (
            "b-unready",
            "publishNotReadyAddresses",
            json!({"selector": of("b-unready"), "ports": ports, "publishNotReadyAddresses": true}),
        ),
        (
            "b-local",
            "Local",
            json!({"selector": of("b-local"), "ports": ports, "internalTrafficPolicy": "Local"}),
        ),
    ]
}

fn with_host(app: App, name: &str) -> App {
    app.host(&format!("s8-{name}.test"))
}

/// One Event, and one complaint in the status, with all these words.
async fn complained(space: &Space, app: &str, words: &[&str]) -> Result<()> {
    eventually(&format!("{app} has its Event"), Duration::from_secs(60), async || {
        let mut events = space.events(app).await?;
        events.retain(|(reason, _)| reason == "BadAnnotation" || reason == "NapRefused");
        ensure!(events.len() == 1, "expected one Event about {words:?}, found {events:?}");
        has_all(&events[0].1, words).with_context(|| format!("Event {} of {app}", events[0].0))
    })
    .await?;
    let status = space.status(app).await?;
    let complaints = status["complaints"].as_array().with_context(|| format!("status of {app}: {status}"))?;
    ensure!(!complaints.is_empty(), "kubenap status has no complaint about {app}: {status}");
    has_all(&status["complaints"].to_string(), words).with_context(|| format!("complaints about {app}"))
}

fn has_all(text: &str, words: &[&str]) -> Result<()> {
    let lower = text.to_lowercase();
    let missing: Vec<_> = words.iter().filter(|word| !lower.contains(&word.to_lowercase())).collect();
    ensure!(missing.is_empty(), "{text:?} does not name {missing:?}");
    Ok(())
}
