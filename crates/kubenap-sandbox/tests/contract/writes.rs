//! Conflicts, preconditions, generations, and what refusals look like.
use crate::harness::{Check, World, check, deployment, refused, replicas, typed};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event as GroupedEvent;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

pub(crate) fn checks() -> Vec<Check> {
    vec![
        check!("a stale resourceVersion is a conflict in merge patch, JSON patch and PUT", stale),
        check!("a patch without a resourceVersion succeeds", unconditional),
        check!("a JSON patch whose test fails is refused", failed_test),
        check!("delete preconditions hold", preconditions),
        check!("what exists cannot be created", exists),
        check!("the generation rises with the spec and not with labels or status", generation),
        check!("annotations and replicas change in one patch", atomic),
        check!("a patch that changes nothing keeps the resourceVersion", no_op),
        check!("scale changes the count and nothing else", scale),
        check!("a lease's update conflicts and needs a version", lease),
        check!("refusals say what is missing or wrong", refusals),
        check!("generated names begin as asked for", generated),
        check!("an access review answers", review),
        check!("events have two forms", events),
    ]
}

async fn stale(world: World) -> Result<()> {
    let api = world.api::<Deployment>();
    let first = world.deployment(0).await?;
    let version = first.metadata.resource_version.clone();
    let label = json!({ "metadata": { "labels": { "a": "b" } } });
    api.patch("web", &PatchParams::default(), &Patch::Merge(label)).await?;

    let merge = json!({ "metadata": { "resourceVersion": version, "labels": { "a": "c" } } });
    let status =
        refused(api.patch("web", &PatchParams::default(), &Patch::Merge(merge)).await, 409, "Conflict")?;
    ensure!(status.message.contains("the object has been modified"), "{}", status.message);

    let operations = json!([{ "op": "replace", "path": "/metadata/resourceVersion", "value": version }]);
    let patch = Patch::<Deployment>::Json(typed(operations));
    refused(api.patch("web", &PatchParams::default(), &patch).await, 409, "Conflict")?;

    refused(api.replace("web", &PostParams::default(), &first).await, 409, "Conflict")?;
    ensure!(api.get("web").await?.metadata.labels.unwrap_or_default()["a"] == "b");
    Ok(())
}

async fn unconditional(world: World) -> Result<()> {
    world.deployment(0).await?;
    let api = world.api::<Deployment>();
    for value in ["1", "2"] {
        let patch = json!({ "metadata": { "annotations": { "test/n": value } } });
        let patched = api.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await?;
        ensure!(patched.metadata.annotations.unwrap_or_default()["test/n"] == value);
    }
    let taken = json!({ "metadata": { "annotations": { "test/n": null } } });
    let patched = api.patch("web", &PatchParams::default(), &Patch::Merge(taken)).await?;
    ensure!(!patched.metadata.annotations.unwrap_or_default().contains_key("test/n"));
    Ok(())
}

async fn failed_test(world: World) -> Result<()> {
    world.deployment(0).await?;
    let operations = json!([
        { "op": "test", "path": "/spec/replicas", "value": 7 },
        { "op": "replace", "path": "/spec/replicas", "value": 8 },
    ]);
    let patch = Patch::<Deployment>::Json(typed(operations));
    let api = world.api::<Deployment>();
    refused(api.patch("web", &PatchParams::default(), &patch).await, 422, "Invalid")?;
    ensure!(replicas(&api.get("web").await?) == 0);
    Ok(())
}

async fn preconditions(world: World) -> Result<()> {
    let first = world.service().await?;
    let api = world.api::<Service>();
    let with = |uid: Option<String>, resource_version: Option<String>| {
        DeleteParams::default().preconditions(Preconditions { uid, resource_version })
    };
    let wrong = "00000000-0000-4000-8000-000000000000".to_owned();
    refused(api.delete("web", &with(Some(wrong), None)).await, 409, "Conflict")?;
    refused(api.delete("web", &with(None, Some("1".to_owned()))).await, 409, "Conflict")?;
    let now = api.get("web").await?.metadata;
    ensure!(now.uid == first.metadata.uid);
    api.delete("web", &with(now.uid, now.resource_version)).await?;
    refused(api.get("web").await, 404, "NotFound")?;
    Ok(())
}

async fn exists(world: World) -> Result<()> {
    world.deployment(0).await?;
    let again = world.api::<Deployment>().create(&PostParams::default(), &deployment(0)).await;
    let status = refused(again, 409, "AlreadyExists")?;
    ensure!(status.message == "deployments.apps \"web\" already exists", "{}", status.message);
    Ok(())
}

async fn generation(world: World) -> Result<()> {
    let api = world.api::<Deployment>();
    ensure!(world.deployment(0).await?.metadata.generation == Some(1));
    let label = json!({ "metadata": { "labels": { "a": "b" } } });
    let patched = api.patch("web", &PatchParams::default(), &Patch::Merge(label)).await?;
    ensure!(patched.metadata.generation == Some(1), "a label counts: {:?}", patched.metadata.generation);
    let status = json!({ "status": { "observedGeneration": 1 } });
    let patched = api.patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await?;
    ensure!(patched.metadata.generation == Some(1));
    let annotation = json!({ "metadata": { "annotations": { "test/a": "b" } } });
    let patched = api.patch("web", &PatchParams::default(), &Patch::Merge(annotation)).await?;
    ensure!(
        patched.metadata.generation == Some(2),
        "a Deployment's annotation counts, too: {:?}",
        patched.metadata.generation
    );
    let spec = json!({ "spec": { "paused": true }, "status": { "replicas": 9 } });
    let patched = api.patch("web", &PatchParams::default(), &Patch::Merge(spec)).await?;
    ensure!(patched.metadata.generation == Some(3));
    ensure!(
        patched.status.unwrap_or_default().replicas.is_none(),
        "the status was written through the main resource"
    );
    Ok(())
}

async fn atomic(world: World) -> Result<()> {
    let api = world.api::<Deployment>();
    world.deployment(0).await?;
    let patch = json!({
        "metadata": { "annotations": { "test/phase": "x" } }, "spec": { "replicas": 1 },
    });
    let patched = api.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await?;
    ensure!(replicas(&patched) == 1 && patched.metadata.generation == Some(2));
    ensure!(patched.metadata.annotations.unwrap_or_default()["test/phase"] == "x");
    Ok(())
}

async fn no_op(world: World) -> Result<()> {
    world.service().await?;
    let api = world.api::<Service>();
    let patch = || Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    let first = api.patch("web", &PatchParams::default(), &patch()).await?;
    let second = api.patch("web", &PatchParams::default(), &patch()).await?;
    ensure!(first.metadata.resource_version == second.metadata.resource_version);
    Ok(())
}

async fn scale(world: World) -> Result<()> {
    let api = world.api::<Deployment>();
    let first = world.deployment(0).await?;
    let scale = api.get_scale("web").await?;
    ensure!(scale.spec.unwrap_or_default().replicas.unwrap_or(0) == 0);
    ensure!(scale.status.unwrap_or_default().selector.as_deref() == Some("app=web"));
    let patch = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    let scaled = api.patch_scale("web", &PatchParams::default(), &patch).await?;
    ensure!(scaled.spec.unwrap_or_default().replicas == Some(2));
    let now = api.get("web").await?;
    ensure!(now.metadata.uid == first.metadata.uid);
    ensure!(
        replicas(&now) == 2
            && now.spec.unwrap_or_default().template == first.spec.unwrap_or_default().template
    );
    let mut outdated = api.get_scale("web").await?;
    outdated.metadata.resource_version = first.metadata.resource_version;
    refused(api.replace_scale("web", &PostParams::default(), &outdated).await, 409, "Conflict")?;
    Ok(())
}

async fn lease(world: World) -> Result<()> {
    let api = world.api::<Lease>();
    let lease = |holder: &str, version: Option<String>| -> Lease {
        typed(json!({
            "metadata": { "name": "lead", "resourceVersion": version },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.123456Z" },
        }))
    };
    let first = api.create(&PostParams::default(), &lease("a", None)).await?;
    let version = first.metadata.resource_version;
    api.replace("lead", &PostParams::default(), &lease("b", version.clone())).await?;
    refused(api.replace("lead", &PostParams::default(), &lease("c", version)).await, 409, "Conflict")?;
    refused(api.replace("lead", &PostParams::default(), &lease("d", None)).await, 422, "Invalid")?;
    let spec = api.get("lead").await?.spec.unwrap_or_default();
    ensure!(spec.holder_identity.as_deref() == Some("b"));
    let bad = json!({ "spec": { "leaseDurationSeconds": 0 } });
    refused(api.patch("lead", &PatchParams::default(), &Patch::Merge(bad)).await, 422, "Invalid")?;
    Ok(())
}

async fn refusals(world: World) -> Result<()> {
    let status = refused(world.api::<Deployment>().get("nope").await, 404, "NotFound")?;
    ensure!(status.message == "deployments.apps \"nope\" not found", "{}", status.message);
    let about = details(status)?;
    ensure!(about.name == "nope" && about.group == "apps" && about.kind == "deployments", "{about:?}");

    let bad: Service =
        typed(json!({ "metadata": { "name": "Bad_Name" }, "spec": { "ports": [{ "port": 80 }] } }));
    let status = refused(world.api::<Service>().create(&PostParams::default(), &bad).await, 422, "Invalid")?;
    ensure!(details(status)?.causes.iter().any(|cause| cause.field == "metadata.name"));

    let bad: EndpointSlice = typed(json!({
        "metadata": { "name": "x", "labels": { "a": "not ok" } }, "addressType": "IPv4",
        "endpoints": [], "ports": [{ "name": "Upper" }],
    }));
    let status =
        refused(world.api::<EndpointSlice>().create(&PostParams::default(), &bad).await, 422, "Invalid")?;
    let fields: Vec<String> = details(status)?.causes.into_iter().map(|cause| cause.field).collect();
    ensure!(
        fields.contains(&"metadata.labels".to_owned()) && fields.contains(&"ports[0].name".to_owned()),
        "{fields:?}"
    );

    let elsewhere: Api<Deployment> = Api::namespaced(world.client.clone(), "there-is-no-such-namespace");
    refused(elsewhere.create(&PostParams::default(), &deployment(0)).await, 404, "NotFound")?;
    Ok(())
}

fn details(status: kube::core::Status) -> Result<kube::core::response::StatusDetails> {
    status.details.context("the Status has no details")
}

async fn generated(world: World) -> Result<()> {
    let lease: Lease = typed(json!({ "metadata": { "generateName": "lead-" } }));
    let made = world.api::<Lease>().create(&PostParams::default(), &lease).await?;
    let name = made.metadata.name.unwrap_or_default();
    ensure!(name.starts_with("lead-") && name.len() == 10, "{name}");
    Ok(())
}

async fn review(world: World) -> Result<()> {
    let review: SelfSubjectAccessReview = typed(json!({ "spec": { "resourceAttributes": {
        "namespace": world.namespace, "verb": "patch", "group": "apps", "resource": "deployments",
    }}}));
    let api: Api<SelfSubjectAccessReview> = Api::all(world.client);
    let answer = api.create(&PostParams::default(), &review).await?;
    ensure!(answer.status.is_some_and(|status| status.allowed));
    Ok(())
}

async fn events(world: World) -> Result<()> {
    let event: GroupedEvent = typed(json!({
        "metadata": { "name": "web.1" }, "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": { "kind": "Deployment", "name": "web", "namespace": world.namespace },
        "reason": "Tested", "action": "Test", "note": "a note", "type": "Normal",
        "reportingController": "contract.test/check", "reportingInstance": "one",
    }));
    world.api::<GroupedEvent>().create(&PostParams::default(), &event).await?;
    let found = world.api::<Event>().get("web.1").await?;
    ensure!(
        found.message.as_deref() == Some("a note") && found.involved_object.name.as_deref() == Some("web")
    );
    let about =
        kube::api::ListParams::default().fields("involvedObject.name=web,involvedObject.kind=Deployment");
    ensure!(world.api::<Event>().list(&about).await?.items.len() == 1);
    let others = kube::api::ListParams::default().fields("involvedObject.name=other");
    ensure!(world.api::<Event>().list(&others).await?.items.is_empty());
    Ok(())
}
