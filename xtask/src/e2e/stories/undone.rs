//! What makes an end of KubeNap while apps sleep leaves them awake, or gone, and nothing of KubeNap's behind.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use serde_json::Value;

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::http::{Call, Caller};
use crate::e2e::members::Settings;
use crate::e2e::world::{Space, eventually, throughout};

/// Each app with what it is put to sleep with: one that a person has set to a count, one with a host, one of three.
const APPS: [(&str, i32); 3] = [("one", 1), ("two", 2), ("three", 3)];

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    for (app, replicas) in APPS {
        space.deploy(&App::new(app).replicas(replicas).host(&host(app))).await?;
    }
    let before = specs(space).await?;
    labels(space).await.context("the label is taken away from every app that sleeps")?;
    all_as_before(space, &before).await.context("the label is taken away")?;

    for (app, _) in APPS {
        space.label(app, "kubenap/enabled", "true".into()).await?;
    }
    restored(space, false).await.context("kubenap restore --all beside living members")?;
    all_as_before(space, &before).await.context("kubenap restore --all beside living members")?;
    space.world.members.ensure(&Settings::default()).await?;
    restored(space, true).await.context("kubenap restore --all with every member dead")?;
    all_as_before(space, &before).await.context("kubenap restore --all with every member dead")?;
    space.world.members.ensure(&Settings::default()).await?;

    namespace_goes(space).await.context("the namespace is deleted while its apps sleep")?;
    Ok(vec![("apps asleep", 4 * APPS.len() as u64), ("ways", 4)])
}

async fn labels(space: &Space) -> Result<()> {
    all_asleep(space).await?;
    for (app, _) in APPS {
        space.label(app, "kubenap/enabled", Value::Null).await?;
    }
    for (app, replicas) in APPS {
        space.until_awake(app, app, replicas).await?;
    }
    Ok(())
}

async fn restored(space: &Space, dead: bool) -> Result<()> {
    all_asleep(space).await?;
    if dead {
        space.world.members.kill().await?;
    }
    let ran = space.world.kubenap(&["restore", "--all"], Duration::from_secs(180)).await?;
    ensure!(ran.code == 0, "exit {}\n{}{}", ran.code, ran.stdout, ran.stderr);
    for (app, replicas) in APPS {
        let ready = space.ready_replicas(app).await?;
        ensure!(ready == replicas, "it has ended, and {app} has {ready} ready of {replicas}");
    }
    Ok(())
}

async fn all_asleep(space: &Space) -> Result<()> {
    futures::future::try_join_all(APPS.map(|(app, _)| space.nap(app))).await?;
    for (app, _) in APPS {
        space.until_asleep(app, app).await?;
    }
    Ok(())
}

/// Replicas and specs as at first, every app answers by both ways, and nothing of KubeNap's is on anything; and so it stays.
async fn all_as_before(space: &Space, before: &[String]) -> Result<()> {
    eventually("nothing of KubeNap's is left", Duration::from_secs(45), async || no_trace(space).await)
        .await?;
    throughout(Duration::from_secs(2), async || no_trace(space).await).await.context("it came back")?;
    for (app, replicas) in APPS {
        let asked = space.replicas(app).await?;
        ensure!(asked == replicas, "{app} has {asked} replicas, it had {replicas}");
        let mut visitor = Caller::fresh(TRAEFIK, host(app));
        visitor
            .send(&Call::get("/"))
            .await?
            .ensure_from_app()
            .with_context(|| format!("{app} through Traefik"))?;
        space.neighbour(app).await?.send(&Call::get("/")).await?.ensure_from_app()?;
    }
    let after = specs(space).await?;
    ensure!(after == before, "specs have changed\nbefore: {before:?}\nafter:  {after:?}");
    Ok(())
}

async fn no_trace(space: &Space) -> Result<()> {
    for deployment in space.api::<Deployment>().list(&ListParams::default()).await? {
        let keys = deployment.annotations().keys();
        let ours: Vec<_> = keys.filter(|key| key.starts_with("kubenap/")).collect();
        ensure!(ours.is_empty(), "{} still has {ours:?}", deployment.name_any());
    }
    for (app, _) in APPS {
        let slices = space.our_slices(app).await?.len();
        ensure!(slices == 0, "{slices} slices of KubeNap's are left in {app}");
    }
    Ok(())
}

async fn namespace_goes(space: &Space) -> Result<()> {
    let world = &space.world;
    let doomed = Space { world: Arc::clone(world), namespace: format!("{}-doomed", space.namespace) };
    world.make_namespace(&doomed.namespace).await?;
    for (app, replicas) in APPS {
        let app = App::new(app).replicas(replicas).host(&format!("undone-doomed-{app}.test"));
        doomed.deploy(&app).await?;
    }
    all_asleep(&doomed).await?;
    world.remove_namespace(&doomed.namespace).await?;
    let namespaces = Api::<Namespace>::all(world.client.clone());
    eventually("the namespace is gone", Duration::from_secs(60), async || {
        // Whoever writes into a namespace that ends holds its end up.
        ensure!(namespaces.get_opt(&doomed.namespace).await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    let slices = Api::<EndpointSlice>::all(world.client.clone());
    eventually("the members have forgotten its apps", Duration::from_secs(30), async || {
        let left = slices.list(&ListParams::default()).await?;
        let left = left.iter().filter(|slice| slice.namespace().as_ref() == Some(&doomed.namespace)).count();
        ensure!(left == 0, "{left} slices are left");
        let ran = world.kubenap(&["status", "-o", "json"], Duration::from_secs(20)).await?;
        ensure!(ran.code == 0, "kubenap status: exit {}: {}", ran.code, ran.stderr.trim());
        ensure!(!ran.stdout.contains(&doomed.namespace), "kubenap status still lists them: {}", ran.stdout);
        Ok(())
    })
    .await?;
    // Whoever was at the doors of those apps does no harm to the others.
    space.nap("one").await?;
    space.until_asleep("one", "one").await?;
    space.neighbour("one").await?.send(&Call::get("/")).await?.ensure_from_app()?;
    space.until_awake("one", "one", 1).await
}

async fn specs(space: &Space) -> Result<Vec<String>> {
    let mut specs = Vec::new();
    for (app, _) in APPS {
        specs.push(space.spec_text(app).await?);
    }
    Ok(specs)
}

fn host(app: &str) -> String {
    format!("undone-{app}.test")
}
