//! Waking and restoring by a person at a command line, with a kubeconfig alone: the same decisions, the same writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, ResourceExt as _};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::{AppId, key};
use kubenap_core::decide::{Facts, Here, Timing, decide};
use kubenap_core::policy::{self, Defaults, Wish};
use kubenap_core::seen::{Pieces, Slice};
use kubenap_core::situation::{Situation, situation};
use kubenap_core::step::{Step, writes};
use kubenap_core::why::Why;
use kubenap_core::write::Write;
use tokio::time::{Instant, sleep};

use super::carry_out;
use crate::cluster::around::{Around, list_labelled, remembered, settled_pods};
use crate::cluster::slices::SlimSlice;
use crate::cluster::slim::Slim;
use crate::cluster::thin::Thin;
use crate::cluster::{Cluster, ClusterError, observe};

/// What a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The app awake, and all as before.
    Awake,
    /// The app awake, and no trace of KubeNap.
    Restored,
}

/// Where an app has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is as it was wanted.
    Done,
    /// A step was taken.
    Stepped,
    /// Its pods are not ready yet.
    Waiting,
    /// A pod says why it cannot start.
    CannotStart(&'static str),
    /// The Deployment does not exist.
    Gone,
}

/// How many objects are asked for at a time.
const PAGE: u32 = 500;
/// Members that live take their own addresses out within this time; after it they are taken out by hand.
const MEMBERS_FIRST: Duration = Duration::from_secs(8);

/// Takes the app where it is wanted, step by step, until `deadline`.
pub async fn bring(
    cluster: &Cluster,
    app: &AppId,
    want: Want,
    now: impl Fn() -> Timestamp,
    deadline: Instant,
) -> Result<Progress, ClusterError> {
    let mut watch = Watch { start: Instant::now(), awake: None, told: None };
    loop {
        let by_hand = want == Want::Restored || watch.start.elapsed() > MEMBERS_FIRST;
        let progress = match step(cluster, app, want, by_hand, &mut watch, now()).await {
            Err(ClusterError::Conflict(_)) => Progress::Stepped,
            other => other?,
        };
        match progress {
            Progress::Done | Progress::Gone => return Ok(progress),
            Progress::Stepped => {}
            Progress::Waiting | Progress::CannotStart(_) => {
                if Instant::now() >= deadline {
                    return Ok(progress);
                }
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Since when it is looked at, and since when it is awake.
struct Watch {
    start: Instant,
    awake: Option<Instant>,
    /// What its proxy was told, and since when.
    told: Option<(Pieces, Instant)>,
}

/// One step. `by_hand`: slices are taken out here, whoever they belong to.
async fn step(
    cluster: &Cluster,
    app: &AppId,
    want: Want,
    by_hand: bool,
    watch: &mut Watch,
    now: Timestamp,
) -> Result<Progress, ClusterError> {
    let Some(mut around) = Around::live(cluster, app).await? else { return Ok(Progress::Gone) };
    let mut reading = observe::reading(&around.deployment, &Defaults::default());
    let mut seen = observe::observe(&around, &reading.policy, &BTreeSet::new());
    let mut state = situation(&app.name, &reading.policy, &seen);
    if state == Situation::OwnersZero {
        seen.remembered = remembered(cluster, &around.deployment).await?;
        state = situation(&app.name, &reading.policy, &seen);
    }
    if let Situation::Waking { .. } = state {
        let observed = seen.deployment.observed_generation >= seen.deployment.generation;
        let settled = settled_pods(cluster, &around.deployment).await?.filter(|_| observed);
        let confirmed = settled.is_some();
        if let Some(pods) = settled {
            around.pods = pods;
            seen = observe::observe(&around, &reading.policy, &BTreeSet::new());
        }
        seen.pods_confirmed = confirmed;
    }
    if want == Want::Awake {
        if matches!(state, Situation::Awake) {
            return Ok(Progress::Done);
        }
        reading.policy.wish = Some(Wish::Wake);
    }
    let since = match state {
        Situation::Awake => watch.awake.get_or_insert_with(Instant::now).elapsed(),
        _ => watch.start.elapsed(),
    };
    let pieces = seen.pieces();
    let (_, told) = match watch.told.take() {
        Some(told) if told.0 == pieces => watch.told.insert(told),
        _ => watch.told.insert((pieces, Instant::now())),
    };
    let told_for = told.elapsed();
    let opted_in = want == Want::Awake && policy::opted_in(&around.deployment.labels);
    // By hand, nobody lives: whatever addresses are left over go. Else those who have slices are given their time.
    let members = seen.slices.iter().map(|slice| slice.member.clone());
    let living = if by_hand { BTreeSet::new() } else { members.collect() };
    let here = Here { living, ..Here::default() };
    let activity = Activity::blind(Blind::NoSource);
    let facts = Facts {
        now,
        app,
        reading: &reading,
        opted_in,
        seen: &seen,
        activity: &activity,
        here: &here,
        asked: false,
        in_phase: since,
        waiting: since,
        substituted_for: Duration::ZERO,
        told_for,
        path_proved: false,
        wake_address_answers: false,
        may_arm: false,
        ports: None,
        barred: None,
        push: false,
        reverter: None,
        timing: Timing::default(),
    };
    let decision = decide(&facts);
    match decision.step {
        Step::Stay => match (state, decision.why) {
            (_, Why::Detaching) => return Ok(Progress::Waiting),
            (Situation::Awake | Situation::OwnersZero, _) => return Ok(Progress::Done),
            (_, Why::CannotStart(trouble)) => return Ok(Progress::CannotStart(trouble.sentence())),
            _ => return Ok(Progress::Waiting),
        },
        // Ready, and members still have to leave by themselves.
        Step::FinishWake { .. } if !by_hand && !seen.slices.is_empty() => return Ok(Progress::Waiting),
        _ => {}
    }
    for write in writes(&facts, &decision) {
        match carry_out(cluster, None, &write).await {
            // The record is an annotation, which others can write: one that leads where nobody may look must keep neither
            // this app nor an uninstall.
            Err(error @ ClusterError::Forbidden(_)) if matches!(write, Write::Detach { .. }) => {
                tracing::warn!(%app, error = error.chain(), "a piece of its proxy's hook is left where it is");
            }
            done => done?,
        }
    }
    Ok(Progress::Stepped)
}

/// Every app that KubeNap may have touched: labelled, annotated by it, or remembered by one of its slices.
pub async fn touched(cluster: &Cluster, namespaces: &[String]) -> Result<BTreeSet<AppId>, ClusterError> {
    let mut apps = BTreeSet::new();
    for api in apis::<Thin<Marks>>(cluster, namespaces) {
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let found = cluster.call(api.list(&params)).await?;
            for ((namespace, name), marks) in found.items.into_iter().map(Thin::into_parts) {
                if marks.touched {
                    apps.insert(AppId::new(namespace, name));
                }
            }
            match found.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
    }
    for (namespace, slice) in slices(cluster, namespaces).await? {
        apps.extend(slice.apps.keys().map(|name| AppId::new(&namespace, name)));
    }
    Ok(apps)
}

/// Deletes slices of KubeNap's whose Deployments do not exist any more. How many.
pub async fn sweep(cluster: &Cluster, namespaces: &[String]) -> Result<usize, ClusterError> {
    let mut swept = 0;
    for (namespace, slice) in slices(cluster, namespaces).await? {
        let api: Api<Deployment> = Api::namespaced(cluster.client(), &namespace);
        let mut orphan = true;
        for name in slice.apps.keys() {
            orphan &= cluster.call(api.get_opt(name)).await?.is_none();
        }
        if orphan {
            let write = Write::DeleteSlice {
                namespace,
                name: slice.name,
                uid: Some(slice.uid),
                resource_version: Some(slice.resource_version),
            };
            carry_out(cluster, None, &write).await?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Every slice of KubeNap's, with its namespace.
pub async fn slices(cluster: &Cluster, namespaces: &[String]) -> Result<Vec<(String, Slice)>, ClusterError> {
    let own = format!("{}={}", key::MANAGED_BY, key::MANAGER);
    let mut all = Vec::new();
    for api in apis::<Thin<SlimSlice>>(cluster, namespaces) {
        for ((namespace, _), slice) in
            list_labelled(cluster, api, &own).await?.into_iter().map(Thin::into_parts)
        {
            if let SlimSlice::Ours(slice) = Arc::unwrap_or_clone(slice) {
                all.push((namespace, slice));
            }
        }
    }
    Ok(all)
}

/// What a Deployment's name and marks say: enough to look for apps among thousands.
#[derive(Clone, PartialEq)]
struct Marks {
    /// It is labelled, or annotated by KubeNap.
    touched: bool,
    resource_version: String,
}

impl Slim for Marks {
    type Object = PartialObjectMeta<Deployment>;

    fn of(object: Self::Object) -> Self {
        let marked = object.annotations().keys().any(|name| key::STATE.contains(&name.as_str()));
        let touched = marked || object.labels().contains_key(key::ENABLED);
        Self { touched, resource_version: object.resource_version().unwrap_or_default() }
    }

    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

/// One for each namespace; none named: one for all.
fn apis<K>(cluster: &Cluster, namespaces: &[String]) -> Vec<Api<K>>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    if namespaces.is_empty() {
        return vec![Api::all(cluster.client())];
    }
    namespaces.iter().map(|namespace| Api::namespaced(cluster.client(), namespace)).collect()
}
