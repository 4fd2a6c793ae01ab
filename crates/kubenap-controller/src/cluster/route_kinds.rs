//! Kinds of routes that may be missing, which is normal, and that may not be listed, which is a doubt: each is followed as it can be.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::{ApiResource, GroupVersionKind, ListParams};
use kube::error::DiscoveryError;
use kube::{Api, discovery};
use kubenap_core::proxy::routes::RouteKind;
use tokio::time::Instant;

use super::slim_route::SlimRoute;
use super::thin::Thin;
use super::watched::{Faring, Watched, answer};
use super::{Cluster, ClusterError};

/// After which time it is looked again whether a kind is there, and may be listed, now.
const ASK_AGAIN: Duration = Duration::from_mins(1);
/// The same where that may change at once.
const SOON: Duration = Duration::from_secs(2);
/// So many failures in a row, some seconds' worth, are more than a watch that was cut: what it missed only a list shows.
const FAILURES: u32 = 5;

/// Which kinds of routes are not known now, and of which namespace: nobody can say to which Services they lead.
#[derive(Clone, Debug, Default)]
pub struct Unlisted(Arc<Mutex<BTreeSet<Part>>>);

/// When it was found last that one kind is nowhere, by whichever of its followers: it is missing in all namespaces at once,
/// and only one of them has to ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Absence(Arc<tokio::sync::Mutex<Option<Instant>>>);

/// A kind, of one namespace or of all.
type Part = (&'static str, Option<String>);

impl Unlisted {
    /// Nothing is known of a kind before it was listed, or the API server said that it is not there.
    pub(super) fn begin(&self, kind: &RouteKind, namespace: Option<&String>) {
        self.note(&(kind.kind, namespace.cloned()), true);
    }

    fn note(&self, part: &Part, is_unlisted: bool) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_unlisted {
            parts.insert(part.clone());
        } else {
            parts.remove(part);
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Where the API has a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// Nowhere: it is not installed.
    Nowhere,
    /// Here, in a version that is understood.
    Here(ApiResource),
    /// In these versions only, which nobody here understands.
    Otherwise(Vec<String>),
}

/// Asks the API server where it has a kind, of one namespace or of all.
///
/// # Errors
/// When it does not say, or does not allow to list it.
pub async fn served(
    cluster: &Cluster,
    kind: &RouteKind,
    namespace: Option<&str>,
) -> Result<Served, ClusterError> {
    // One that starts tells of few groups at first, but that there is nothing at a path only when it knows all of them.
    let resource = best(kind);
    match cluster.call(api(cluster, &resource, namespace).list(&ListParams::default().limit(1))).await {
        Ok(_) => return Ok(Served::Here(resource)),
        Err(ClusterError::Gone(_)) => {}
        Err(error) => return Err(error),
    }
    let (client, group) = (cluster.client(), kind.group);
    let look = async move {
        match discovery::group(&client, group).await {
            Err(kube::Error::Discovery(DiscoveryError::MissingApiGroup(_))) => Ok(None),
            found => found.map(Some),
        }
    };
    let Some(found) = cluster.call(look).await? else { return Ok(Served::Nowhere) };
    let has = |version: &&str| {
        found.versioned_resources(version).iter().any(|(resource, _)| resource.plural == kind.plural)
    };
    Ok(choose(kind, found.versions().filter(has)))
}

fn api(cluster: &Cluster, resource: &ApiResource, namespace: Option<&str>) -> Api<Thin<SlimRoute>> {
    match namespace {
        None => Api::all_with(cluster.client(), resource),
        Some(namespace) => Api::namespaced_with(cluster.client(), namespace, resource),
    }
}

fn choose<'a>(kind: &RouteKind, served: impl Iterator<Item = &'a str>) -> Served {
    let served: Vec<_> = served.map(str::to_owned).collect();
    if served.is_empty() {
        return Served::Nowhere;
    }
    match kind.versions.iter().find(|version| served.iter().any(|one| one == *version)) {
        Some(version) => Served::Here(at(kind, version)),
        None => Served::Otherwise(served),
    }
}

/// The kind in this version.
pub(super) fn at(kind: &RouteKind, version: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kind.group, version, kind.kind), kind.plural)
}

/// The kind in the version that is best.
fn best(kind: &RouteKind) -> ApiResource {
    at(kind, kind.versions.first().copied().unwrap_or_default())
}

impl Absence {
    async fn or_served(
        &self,
        cluster: &Cluster,
        kind: &RouteKind,
        namespace: Option<&str>,
    ) -> Result<Served, ClusterError> {
        let mut last = self.0.lock().await;
        if last.is_some_and(|at| at.elapsed() < ASK_AGAIN / 2) {
            return Ok(Served::Nowhere);
        }
        let found = served(cluster, kind, namespace).await;
        *last = matches!(found, Ok(Served::Nowhere)).then(Instant::now);
        found
    }
}

/// Follows one kind for ever, of one namespace or of all: as soon as it is there and may be listed, in whichever version.
pub(super) async fn follow(
    cluster: Cluster,
    store: Watched<SlimRoute>,
    kind: RouteKind,
    namespace: Option<String>,
    unlisted: Unlisted,
    absence: Absence,
) {
    let part = (kind.kind, namespace.clone());
    let mut told = None;
    loop {
        let begun = Instant::now();
        let trouble = match absence.or_served(&cluster, &kind, namespace.as_deref()).await {
            Ok(Served::Nowhere) => {
                store.forget(namespace.as_deref());
                None
            }
            Ok(Served::Here(resource)) => {
                Some(watch(&cluster, &store, &resource, &part, &unlisted, told.is_some()).await)
            }
            Ok(Served::Otherwise(versions)) => {
                let (served, known) = (versions.join(", "), kind.versions.join(", "));
                Some(format!("it is served as {served}; accepted: {known}"))
            }
            Err(error) => Some(error.chain()),
        };
        unlisted.note(&part, trouble.is_some());
        if begun.elapsed() > ASK_AGAIN {
            // All was well meanwhile.
            told = None;
        }
        // What is wrong for the first time may be over at once, as where the API server is starting.
        let is_new = trouble != told;
        if told.is_some() && trouble.is_none() {
            tracing::info!(kind = kind.kind, namespace, "is not installed any more");
        }
        if let Some(trouble) = trouble.as_ref().filter(|_| is_new) {
            tracing::warn!(
                kind = kind.kind,
                namespace,
                error = trouble,
                "cannot be listed, so its hosts lead nowhere on proxies' error paths, and what comes by it is not seen: apps stay awake, but for those that bring a query"
            );
        }
        let was_away = cluster.away().last.is_some_and(|at| at.elapsed() < ASK_AGAIN);
        let pause = if trouble.is_some() && (is_new || was_away) { SOON } else { ASK_AGAIN };
        told = trouble;
        tokio::time::sleep(pause).await;
    }
}

/// Follows a kind that is there, until the API server says that it is not, or may not be listed; and what it says.
/// `is_missed` where it was told that it cannot be listed.
async fn watch(
    cluster: &Cluster,
    store: &Watched<SlimRoute>,
    resource: &ApiResource,
    part: &Part,
    unlisted: &Unlisted,
    mut is_missed: bool,
) -> String {
    let api = api(cluster, resource, part.1.as_deref());
    let heed = |faring: Faring<'_>| match faring {
        Faring::Listed => {
            unlisted.note(part, false);
            if std::mem::take(&mut is_missed) {
                tracing::info!(kind = part.0, namespace = part.1, "is listed again");
            }
            ControlFlow::Continue(())
        }
        Faring::Failed { failures, error } => {
            let answer = answer(error);
            let is_refused = answer.is_some_and(|answer| matches!(answer.code, 401 | 403 | 404));
            if is_refused || failures >= FAILURES {
                let said = answer.map_or_else(|| error.to_string(), |answer| answer.message.clone());
                return ControlFlow::Break(said);
            }
            ControlFlow::Continue(())
        }
    };
    store.clone().follow_while(api, part.1.clone(), None, Arc::new(|_, _, _| {}), heed).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kube::client::Body;
    use kubenap_core::proxy::routes::OTHERS;
    use serde_json::json;

    use super::*;

    #[test]
    fn of_the_versions_that_are_served_the_best_one_that_is_understood_is_read() {
        let tls = &OTHERS[1];
        let chosen = |served: &[&str]| choose(tls, served.iter().copied());
        assert_eq!(chosen(&[]), Served::Nowhere);
        let Served::Here(resource) = chosen(&["v1alpha2", "v1alpha3"]) else { panic!("it is understood") };
        assert_eq!(
            (resource.api_version.as_str(), resource.kind.as_str(), resource.plural.as_str()),
            ("gateway.networking.k8s.io/v1alpha3", "TLSRoute", "tlsroutes")
        );
        assert_eq!(chosen(&["v9"]), Served::Otherwise(vec!["v9".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_is_not_installed_is_asked_for_once_a_minute_however_many_namespaces_there_are() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let (code, answer) = if request.uri().path() == "/apis" {
                (200, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}))
            } else {
                (404, json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}))
            };
            let answer =
                http::Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
            async { answer }
        });
        let cluster = Cluster::new(kube::Client::new(service, "default"));
        let absence = Absence::default();
        for minute in 1..=3 {
            let spaces: Vec<_> = (0..50).map(|number| format!("space-{number}")).collect();
            let asks = spaces.iter().map(|space| absence.or_served(&cluster, &OTHERS[0], Some(space)));
            for found in futures::future::join_all(asks).await {
                assert_eq!(found.unwrap(), Served::Nowhere);
            }
            assert_eq!(asked.load(Ordering::Relaxed), 2 * minute, "a list, and the groups");
            tokio::time::advance(ASK_AGAIN).await;
        }
    }

    #[test]
    fn a_kind_that_one_namespace_hides_is_hidden_though_another_one_shows_it() {
        let (unlisted, kind) = (Unlisted::default(), &OTHERS[0]);
        for space in ["a", "b"] {
            unlisted.begin(kind, Some(&space.to_owned()));
        }
        unlisted.note(&(kind.kind, Some("a".to_owned())), false);
        assert_eq!(unlisted.count(), 1);
    }
}
