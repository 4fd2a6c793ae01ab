//! `kubenap status`: every app, and why it sleeps or not.

use std::collections::BTreeSet;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use kubenap_controller::cluster::slim::{Slim as _, SlimDeployment};
use kubenap_controller::cluster::{Cluster, observe};
use kubenap_controller::decide::board::AppStatus;
use kubenap_controller::web::SourceStatus;
use kubenap_core::app::key;
use kubenap_core::duration;
use kubenap_core::policy::Defaults;
use kubenap_core::seen::Phase;

use crate::args::{ClusterArgs, Format, StatusArgs};
use crate::outcome::Outcome;
use crate::{connect, members, output};

pub(crate) async fn run(args: StatusArgs, at: &ClusterArgs) -> anyhow::Result<Outcome> {
    let cluster = connect::cluster(at).await?;
    let mut apps = all(&cluster, at).await?;
    if let Some(text) = &args.app {
        let app = connect::app(at, text)?;
        apps.retain(|status| status.namespace == app.namespace && status.name == app.name);
        if apps.is_empty() {
            anyhow::bail!("{app} is not an app\nhint: label its Deployment kubenap/enabled=true");
        }
    }
    match args.output {
        Some(format @ (Format::Json | Format::Yaml)) => output::data(&apps, format)?,
        wide => {
            print(&apps, wide.is_some());
            if wide.is_some() {
                print_sources(&cluster, at).await;
            }
        }
    }
    Ok(Outcome::Done)
}

/// Every app that the API server knows, told by a running member where there is one.
///
/// The cluster is asked too: what was labelled or changed this very moment is then shown as it is, not as a member
/// last saw it.
pub(crate) async fn all(cluster: &Cluster, at: &ClusterArgs) -> anyhow::Result<Vec<AppStatus>> {
    let told =
        match members::ask::<Vec<AppStatus>>(cluster, &connect::lease_namespace(at), "/api/v1/apps").await {
            Ok(told) => Some(told),
            Err(error) => {
                output::note(&format!("note: {error}; shown is what the cluster itself remembers"));
                None
            }
        };
    let mut shown: Vec<AppStatus> = read(cluster, &at.namespace).await?;
    let told = told.unwrap_or_default();
    for status in &mut shown {
        let same = |known: &&AppStatus| known.namespace == status.namespace && known.name == status.name;
        if let Some(known) = told.iter().find(same) {
            if known.phase == status.phase && known.replicas == status.replicas {
                *status = known.clone();
            } else {
                status.last_seen.clone_from(&known.last_seen);
                status.watermark.clone_from(&known.watermark);
            }
        }
    }
    Ok(shown)
}

async fn read(cluster: &Cluster, namespaces: &[String]) -> anyhow::Result<Vec<AppStatus>> {
    let params = ListParams::default().labels(key::ENABLED);
    let places: Vec<Api<Deployment>> = if namespaces.is_empty() {
        vec![Api::all(cluster.client())]
    } else {
        let unique: BTreeSet<_> = namespaces.iter().collect();
        unique.into_iter().map(|name| Api::namespaced(cluster.client(), name)).collect()
    };
    let mut apps = Vec::new();
    for api in places {
        let list = cluster.call(api.list(&params)).await.context("cannot list Deployments")?;
        let meant = |one: &Deployment| one.labels().get(key::ENABLED).is_some_and(|value| value != "false");
        apps.extend(list.items.into_iter().filter(meant).map(status));
    }
    apps.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(apps)
}

/// What the Deployment alone tells.
fn status(object: Deployment) -> AppStatus {
    let reason = object.annotations().get(key::REASON).cloned().unwrap_or_default();
    let (label, why) = reason.split_once(": ").unwrap_or(("unknown", "no member of KubeNap has said"));
    let (label, why) = (label.to_owned(), why.to_owned());
    let slim = SlimDeployment::of(object);
    let reading = observe::reading(&slim, &Defaults::default());
    let record = &slim.seen.record;
    let phase = match record.phase {
        Some(Phase::Asleep) if slim.seen.replicas > 0 => Phase::Waking,
        Some(phase) => phase,
        None => Phase::Awake,
    };
    AppStatus {
        namespace: slim.id.namespace.clone(),
        name: slim.id.name.clone(),
        phase: phase.text().to_owned(),
        replicas: slim.seen.replicas,
        restore_replicas: record.restore,
        idle_after: duration::show(reading.policy.idle_after),
        last_seen: None,
        watermark: None,
        why,
        label,
        complaints: reading.complaints.iter().map(ToString::to_string).collect(),
    }
}

/// How each source is doing, where a member can be asked; that none can was told of before.
async fn print_sources(cluster: &Cluster, at: &ClusterArgs) {
    let namespace = connect::lease_namespace(at);
    let asked = members::ask::<Vec<SourceStatus>>(cluster, &namespace, "/api/v1/sources").await;
    let Ok(sources) = asked else { return };
    let row = |source: &SourceStatus| {
        let blind = source.apps.iter().filter(|known| !known.blind.is_empty()).count();
        let oldest = source.apps.iter().filter_map(|known| known.watermark.clone()).min();
        let series: usize = source.apps.iter().map(|known| known.matched).sum();
        vec![
            source.name.clone(),
            if source.up { "answers" } else { "is silent" }.to_owned(),
            source.since.clone(),
            oldest.unwrap_or_else(|| "-".to_owned()),
            series.to_string(),
            blind.to_string(),
            source.error.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    output::line("");
    let head = ["SOURCE", "STATE", "SINCE", "KNOWN-UP-TO", "SERIES", "BLIND-APPS", "ERROR"];
    output::table(&head, sources.iter().map(row).collect());
}

fn print(apps: &[AppStatus], wide: bool) {
    if apps.is_empty() {
        output::note("no apps\nhint: kubectl label deployment NAME kubenap/enabled=true");
        return;
    }
    let mut head = vec!["NAMESPACE", "APP", "PHASE", "REPLICAS", "IDLE-AFTER", "WHY"];
    if wide {
        head.extend(["LAST-SEEN", "WATERMARK", "LABEL"]);
    }
    let none = || "-".to_owned();
    let row = |app: &AppStatus| {
        let replicas = match app.restore_replicas {
            Some(restore) => format!("{}/{restore}", app.replicas),
            None => app.replicas.to_string(),
        };
        let mut row = vec![
            app.namespace.clone(),
            app.name.clone(),
            app.phase.clone(),
            replicas,
            app.idle_after.clone(),
            app.why.clone(),
        ];
        if wide {
            row.push(app.last_seen.clone().unwrap_or_else(none));
            row.push(app.watermark.clone().unwrap_or_else(none));
            row.push(app.label.clone());
        }
        row
    };
    output::table(&head, apps.iter().map(row).collect());
    for app in apps {
        for complaint in &app.complaints {
            output::line(&format!("{}/{}: {complaint}", app.namespace, app.name));
        }
    }
}
