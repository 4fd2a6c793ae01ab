//! Server-side apply: who owns what.
use crate::harness::{Check, World, check, refused, replicas};
use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

pub(crate) fn checks() -> Vec<Check> {
    vec![
        check!("an apply creates, and owns what it says", owns),
        check!("an apply of a field that another manager owns is a conflict, unless forced", conflicts),
        check!("a field that is applied no more goes", gives_up),
        check!("the same value can have two owners", shares),
        check!("a field that somebody patched belongs to them", patched),
        check!("a dry run answers as the apply would, and changes nothing", runs_dry),
        check!("an apply to an object that is gone, named by its uid, does not bring it back", stays_gone),
    ]
}

fn service(port: u16, label: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "labels": { "test/who": label } },
        "spec": { "selector": { "app": "web" }, "ports": [{ "name": "web", "port": port, "targetPort": 8080 }] },
    })
}

async fn owns(world: World) -> Result<()> {
    let api = world.api::<Service>();
    let made = api.patch("web", &PatchParams::apply("one"), &Patch::Apply(service(80, "a"))).await?;
    let entries = made.metadata.managed_fields.unwrap_or_default();
    ensure!(entries.len() == 1 && entries[0].manager.as_deref() == Some("one"), "{entries:?}");
    ensure!(entries[0].operation.as_deref() == Some("Apply"));
    let fields = entries[0].fields_v1.clone().map(|fields| fields.0).unwrap_or_default();
    ensure!(fields["f:metadata"]["f:labels"]["f:test/who"] == json!({}), "{fields}");
    ensure!(fields["f:spec"]["f:selector"] == json!({}), "{fields}");
    let port = &fields["f:spec"]["f:ports"]["k:{\"port\":80,\"protocol\":\"TCP\"}"];
    ensure!(port["f:name"] == json!({}) && port["."] == json!({}), "{fields}");
    let again = api.patch("web", &PatchParams::apply("one"), &Patch::Apply(service(80, "a"))).await?;
    ensure!(
        again.metadata.resource_version == made.metadata.resource_version,
        "the same apply made a new version"
    );
    Ok(())
}

async fn conflicts(world: World) -> Result<()> {
    let api = world.api::<Service>();
    api.patch("web", &PatchParams::apply("one"), &Patch::Apply(service(80, "a"))).await?;
    let other = Patch::Apply(service(80, "b"));
    let status = refused(api.patch("web", &PatchParams::apply("two"), &other).await, 409, "Conflict")?;
    let causes = status.details.map(|details| details.causes).unwrap_or_default();
    ensure!(causes.len() == 1 && causes[0].field == ".metadata.labels.test/who", "{causes:?}");
    ensure!(causes[0].message.contains("\"one\""), "{causes:?}");
    let forced = api.patch("web", &PatchParams::apply("two").force(), &other).await?;
    ensure!(forced.metadata.labels.unwrap_or_default()["test/who"] == "b");
    let back = Patch::Apply(service(80, "a"));
    refused(api.patch("web", &PatchParams::apply("one"), &back).await, 409, "Conflict")?;
    Ok(())
}

async fn runs_dry(world: World) -> Result<()> {
    let api = world.api::<Service>();
    let dry = |manager: &str| PatchParams { dry_run: true, ..PatchParams::apply(manager) };
    let shown = api.patch("web", &dry("one"), &Patch::Apply(service(80, "a"))).await?;
    ensure!(shown.metadata.labels.unwrap_or_default()["test/who"] == "a");
    ensure!(api.get_opt("web").await?.is_none(), "a dry run made an object");
    let made = api.patch("web", &PatchParams::apply("one"), &Patch::Apply(service(80, "a"))).await?;
    refused(api.patch("web", &dry("two"), &Patch::Apply(service(80, "b"))).await, 409, "Conflict")?;
    let shown = api.patch("web", &dry("one"), &Patch::Apply(service(80, "b"))).await?;
    ensure!(shown.metadata.labels.unwrap_or_default()["test/who"] == "b");
    let still = api.get("web").await?;
    ensure!(still.metadata.resource_version == made.metadata.resource_version, "a dry run changed an object");
    Ok(())
}

async fn stays_gone(world: World) -> Result<()> {
    let api = world.api::<Service>();
    let made = api.patch("web", &PatchParams::apply("one"), &Patch::Apply(service(80, "a"))).await?;
    let nothing = json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "uid": made.metadata.uid } });
    api.delete("web", &kube::api::DeleteParams::default()).await?;
    refused(api.patch("web", &PatchParams::apply("one"), &Patch::Apply(nothing)).await, 409, "Conflict")?;
    ensure!(api.get_opt("web").await?.is_none());
    Ok(())
}

async fn gives_up(world: World) -> Result<()> {
    let api = world.api::<Service>();
    api.patch("web", &PatchParams::apply("one"), &Patch::Apply(service(80, "a"))).await?;
    let mut less = service(81, "a");
    less["metadata"]["labels"] = json!({ "other": "x" });
    let applied = api.patch("web", &PatchParams::apply("one"), &Patch::Apply(less)).await?;
    let labels = applied.metadata.labels.unwrap_or_default();
    ensure!(!labels.contains_key("test/who") && labels["other"] == "x", "{labels:?}");
    let ports = applied.spec.unwrap_or_default().ports.unwrap_or_default();
    ensure!(ports.len() == 1 && ports[0].port == 81, "{ports:?}");
    Ok(())
}

async fn shares(world: World) -> Result<()> {
    let api = world.api::<Service>();
    api.patch("web", &PatchParams::apply("one"), &Patch::Apply(service(80, "a"))).await?;
    api.patch("web", &PatchParams::apply("two"), &Patch::Apply(service(80, "a"))).await?;
    let mut less = service(80, "a");
    less["metadata"]["labels"] = json!({});
    let applied = api.patch("web", &PatchParams::apply("one"), &Patch::Apply(less)).await?;
    ensure!(applied.metadata.labels.unwrap_or_default()["test/who"] == "a", "the other owner's field went");
    Ok(())
}

async fn patched(world: World) -> Result<()> {
    world.deployment(0).await?;
    let api = world.api::<Deployment>();
    let count = json!({ "spec": { "replicas": 0, "paused": true } });
    let mine = PatchParams { field_manager: Some("person".to_owned()), ..PatchParams::default() };
    api.patch("web", &mine, &Patch::Merge(count)).await?;
    let applied = |paused: bool| json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": { "paused": paused } });
    let status = refused(
        api.patch("web", &PatchParams::apply("one"), &Patch::Apply(applied(false))).await,
        409,
        "Conflict",
    )?;
    ensure!(
        status.message.contains("person") && status.message.contains(".spec.paused"),
        "{}",
        status.message
    );
    let same = api.patch("web", &PatchParams::apply("one"), &Patch::Apply(applied(true))).await?;
    ensure!(replicas(&same) == 0);
    Ok(())
}
