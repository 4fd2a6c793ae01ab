//! One suite through every proxy: whatever is in front, a sleeping app is woken, and an awake one left alone.

mod way;
mod nginx;
mod traefik;
mod envoy;
mod envoy_gateway;
mod haproxy;
mod caddy;
mod process;
mod hook;
mod stage;
mod kinds;
mod hostile;
mod awake;
mod long;
mod moments;
mod down;
mod matrix;
pub(super) mod clients;
pub(super) mod hooks;
pub(super) mod gateway;
pub(super) mod pace;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};

use self::awake::Fingerprint;
pub(super) use self::process::Programs;
use self::stage::{BYSTANDER, Lane, Place, Stage, bystander_host};
pub(super) use self::way::Program;
use self::way::Way;
use super::Counts;
use crate::e2e::app::App;
use crate::e2e::members::{HOME, Settings};
use crate::e2e::say;
use crate::e2e::world::{Space, eventually};

/// The cases: the row's name, and what it says in the matrix.
const CASES: &[(&str, &str)] = &[
    ("get", "asleep: GET with a query and a percent-encoded path"),
    ("head", "asleep: HEAD"),
    ("post", "asleep: POST of 900 kB"),
    ("chunked", "asleep: POST of 900 kB, chunked"),
    ("websocket", "asleep: WebSocket"),
    ("grpc", "asleep: gRPC"),
    ("hostile", "asleep: forged hosts, paths and headers"),
    ("browser", "asleep, slow to start: a browser opens a page"),
    ("hop", "asleep, slow to start: GET, longer than the proxy waits"),
    ("own", "awake: the app's own 502, 503 and 307"),
    ("awake", "awake: bytes and headers as without KubeNap"),
    ("moments", "a request at each moment of a nap and of the wake"),
    ("down", "KubeNap is down"),
    ("back", "asleep: GET, KubeNap is back"),
    ("after", "KubeNap is taken off: the proxy's configuration"),
];

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    tell(space, |way| way.substitutes() && way.program != Program::EnvoyGateway).await
}

/// The suite on these ways in.
async fn tell(space: &Space, told: fn(&Way) -> bool) -> Result<Counts> {
    let programs = prepare(space).await?;
    space.deploy(&App::new(BYSTANDER).host(&bystander_host())).await?;
    space.nap(BYSTANDER).await?;
    space.until_asleep(BYSTANDER, BYSTANDER).await?;
    // For somebody who works on one of them; the page keeps what it says of the others.
    let chosen = std::env::var("E2E_WAYS").unwrap_or_default();
    let chosen: Vec<_> = chosen.split_whitespace().collect();
    let wanted = |way: &Way| told(way) && (chosen.is_empty() || chosen.contains(&way.name));
    let mut cells = BTreeMap::new();
    let stage = Stage::set(space, &programs, wanted).await?;
    if !stage.lanes.is_empty() {
        cells.extend(play(stage, &programs).await?);
    }
    let counted = cells.len() as u64;
    matrix::write(&cells, &programs).context("write the matrix")?;
    Ok(vec![("ways in", counted / CASES.len() as u64), ("cases", CASES.len() as u64), ("cells", counted)])
}

/// The programs, with members that listen for each of them.
async fn prepare(space: &Space) -> Result<Programs> {
    let programs = Programs::find(&space.world.cluster).await?;
    try_join_all(Program::ALL.map(|program| hook::wake(space, program))).await?;
    space.world.members.ensure(&settings()).await?;
    Ok(programs)
}

/// The whole suite on one stage.
async fn play(stage: Stage<'_>, programs: &Programs) -> Result<BTreeMap<Place, String>> {
    let first = try_join_all(stage.lanes.iter().map(awake::fingerprint)).await?;
    stage.hook(programs).await?;

    let apps: Vec<_> = stage.lanes.iter().map(|lane| &*lane.site.app).collect();
    let slow = stage.lanes.iter().map(|lane| &*lane.slow.app);
    until_hooks_are_known(stage.space).await?;
    say("   asleep");
    stage.sleep(apps.iter().copied().chain(slow)).await?;
    asleep(&stage).await;
    hostile::ensure_nobody_else_woke(&stage).await?;
    say("   awake");
    let ((), settled) = tokio::join!(long(&stage), until_awake(&stage, &apps));
    settled?;
    awake(&stage, &first).await;
    say("   napping");
    stage.play("moments", async |lane| moments::play(lane, &stage).await).await;
    say("   without KubeNap");
    stage.sleep(apps.iter().copied()).await?;
    everybody_leaves(&stage, &apps).await?;
    stage.play("down", async |lane| down::play(lane).await).await;
    stage.space.world.members.ensure(&settings()).await?;
    stage.play("back", async |lane| down::back(lane).await).await;
    say("   taken off");
    until_hooks_are_known(stage.space).await?;
    stage.sleep(apps.iter().copied()).await?;
    take_off(&stage, &apps).await?;
    stage.unhook(programs).await?;
    let with_first = stage.lanes.iter().zip(&first).map(|(lane, first)| (lane.way.name, first));
    let with_first: BTreeMap<_, _> = with_first.collect();
    let as_at_first = async |lane: &Lane| {
        after(lane, &stage, with_first.get(lane.way.name).context("no first answers")?).await
    };
    stage.play("after", as_at_first).await;
    stage.end()
}

/// With a listener for each proxy's error path, which reads that proxy's headers only. Traefik's hooks are objects, which
/// name the Service that leads to its listener.
fn settings() -> Settings {
    let listener = |program: Program| {
        let (profile, port) = program.listener();
        format!("{profile}=0.0.0.0:{port}")
    };
    let own = Program::ALL.map(listener);
    let all: Vec<_> = ["any=0.0.0.0:8080".to_owned()].into_iter().chain(own).collect();
    let wake_service = format!("{HOME}/{}:80", hook::wake_service(Program::Traefik));
    Settings {
        flags: vec![("proxy-listen", json!(all)), ("wake-service", json!(wake_service))],
        values: json!({"rbac": {"hooks": true}}),
        ..Settings::default()
    }
}

async fn asleep(stage: &Stage<'_>) {
    tokio::join!(
        stage.play("get", async |lane| kinds::get(lane).await),
        stage.play("head", async |lane| kinds::head(lane).await),
        stage.play("post", async |lane| kinds::post(lane).await),
        stage.play("chunked", async |lane| kinds::chunked(lane).await),
        stage.play("websocket", async |lane| kinds::websocket(lane).await),
        stage.play("grpc", async |lane| kinds::grpc(lane).await),
        stage.play("hostile", async |lane| hostile::play(stage, lane).await),
    );
}

async fn long(stage: &Stage<'_>) {
    tokio::join!(
        stage.play("hop", async |lane| long::hop(lane).await),
        stage.play("browser", async |lane| long::browser(lane).await),
    );
}

async fn awake(stage: &Stage<'_>, first: &[Fingerprint]) {
    stage.play("own", async |lane| awake::own(lane, stage).await).await;
    let first_of = |lane: &Lane| stage.lanes.iter().zip(first).find(|(one, _)| one.way.name == lane.way.name);
    let same = async |lane: &Lane| {
        let (_, first) = first_of(lane).context("no first answers")?;
        awake::same(lane, stage, first).await
    };
    stage.play("awake", same).await;
}

async fn until_awake(stage: &Stage<'_>, apps: &[&str]) -> Result<()> {
    try_join_all(apps.iter().map(|app| stage.space.until_awake(app, app, 1))).await?;
    // Proxies hear of it up to some seconds later; what comes to KubeNap until then is passed.
    try_join_all(stage.lanes.iter().map(|lane| lane.until_direct(stage.space))).await.map(drop)
}

/// Every member is told to leave, and has: it takes its addresses out of the apps' Services before.
async fn everybody_leaves(stage: &Stage<'_>, apps: &[&str]) -> Result<()> {
    stage.space.world.members.run_only(0).await?;
    for app in apps {
        eventually(&format!("KubeNap has left {app}"), Duration::from_secs(120), async || {
            let ours = stage.space.our_addresses(app).await?;
            ensure!(ours.is_empty(), "KubeNap's addresses are still there: {ours:?}");
            Ok(())
        })
        .await?;
    }
    let pods = ["-n", HOME, "get", "pods", "-l", "app.kubernetes.io/name=kubenap", "-o", "name"];
    eventually("KubeNap's pods have ended", Duration::from_secs(180), async || {
        let left = stage.space.world.kubectl(&pods).await?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
    .await
}

/// Members look at routes and objects, and ask at the wake address, now and then; what they do not know yet refuses a nap.
async fn until_hooks_are_known(space: &Space) -> Result<()> {
    eventually("every app's hook is known", Duration::from_secs(150), async || {
        for status in space.statuses().await? {
            let (name, label) = (&status["name"], &status["label"]);
            let unknown = ["hook-missing", "hook-unknown", "wake-address-silent"];
            ensure!(!unknown.iter().any(|unknown| label == *unknown), "{name}: {label}");
        }
        Ok(())
    })
    .await
}

/// The label goes from every app that sleeps, which takes everything of KubeNap's away.
async fn take_off(stage: &Stage<'_>, apps: &[&str]) -> Result<()> {
    for app in apps {
        stage.space.label(app, "kubenap/enabled", Value::Null).await?;
    }
    let gone = apps.iter().map(async |app| {
        eventually(&format!("{app} is as it was"), Duration::from_secs(240), async || {
            let ready = stage.space.ready_replicas(app).await?;
            ensure!(ready == 1, "{ready} are ready");
            stage.space.ensure_untouched(app, app).await
        })
        .await
    });
    join_all(gone).await.into_iter().collect()
}

async fn after(lane: &Lane, stage: &Stage<'_>, first: &Fingerprint) -> Result<String> {
    lane.ensure_as_it_was(stage.space).await?;
    eventually("the app answers as at first", Duration::from_secs(60), async || {
        let now = awake::fingerprint(lane).await?;
        ensure!(now == *first, "at first: {first:?}\nnow: {now:?}");
        Ok(())
    })
    .await?;
    Ok("as it was".to_owned())
}
