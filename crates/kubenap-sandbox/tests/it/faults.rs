//! Each fault does what it says, as often as it was told to, and nothing else.
#![expect(clippy::unwrap_used, reason = "a test that cannot set its world up has failed")]
use crate::world::{code, lease, typed, without_sockets};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use kubenap_sandbox::{Effect, Fault, Sandbox};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, timeout};

fn leases(client: &Client) -> Api<Lease> {
    Api::namespaced(client.clone(), "default")
}

fn world() -> (Sandbox, Api<Lease>) {
    let (sandbox, client) = without_sockets();
    sandbox.put(lease("a")).unwrap();
    (sandbox, leases(&client))
}

fn label(value: &str) -> Patch<serde_json::Value> {
    Patch::Merge(json!({ "metadata": { "labels": { "x": value } } }))
}

fn label_of(sandbox: &Sandbox) -> serde_json::Value {
    sandbox.get("leases", "default", "a").unwrap()["metadata"]["labels"]["x"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_conflict_refuses_the_write_as_often_as_asked_for() {
    let (sandbox, api) = world();
    sandbox
        .faults()
        .inject(Fault::new(Effect::Conflict).verb("patch").resource("leases").name("a").after(1).times(1));
    api.patch("a", &PatchParams::default(), &label("1")).await.unwrap();
    assert_eq!(code(api.patch("a", &PatchParams::default(), &label("2")).await), 409);
    assert_eq!(label_of(&sandbox), "1");
    api.patch("a", &PatchParams::default(), &label("3")).await.unwrap();
    assert_eq!(label_of(&sandbox), "3");
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_commit_writes_nothing_and_one_after_it_writes() {
    let (sandbox, api) = world();
    sandbox.faults().inject(Fault::new(Effect::FailBefore(500)).verb("patch").times(1));
    assert_eq!(code(api.patch("a", &PatchParams::default(), &label("1")).await), 500);
    assert_eq!(label_of(&sandbox), json!(null));
    sandbox.faults().inject(Fault::new(Effect::FailAfter(504)).verb("patch").times(1));
    assert_eq!(code(api.patch("a", &PatchParams::default(), &label("2")).await), 504);
    assert_eq!(label_of(&sandbox), "2");
    let codes: Vec<u16> = sandbox.log().iter().map(|write| write.status).collect();
    assert_eq!(codes, [500, 504]);
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_as_long_as_asked_for() {
    let (sandbox, api) = world();
    sandbox.faults().inject(Fault::new(Effect::Delay(Duration::from_secs(20))).verb("get").times(1));
    let start = Instant::now();
    api.get("a").await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_says_when_to_come_back() {
    let (sandbox, _api) = world();
    sandbox.faults().inject(Fault::new(Effect::TooManyRequests(7)));
    let request = http::Request::get("/api/v1/pods").body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(sandbox.router(), request).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "7");
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_told_410_on_request() {
    let (sandbox, api) = world();
    sandbox.faults().inject(Fault::new(Effect::Gone).verb("watch").times(1));
    let first = api.watch(&WatchParams::default(), "0").await.unwrap().boxed().try_next().await.unwrap();
    assert!(matches!(first, Some(WatchEvent::Error(status)) if status.code == 410));
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_says_nothing_and_does_not_end() {
    let (sandbox, api) = world();
    sandbox.faults().inject(Fault::new(Effect::Silent).verb("watch").times(1));
    let mut events = api.watch(&WatchParams::default().timeout(10), "0").await.unwrap().boxed();
    sandbox.put(lease("b")).unwrap();
    assert!(timeout(Duration::from_hours(1), events.try_next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn one_event_is_dropped_and_the_next_one_comes() {
    let (sandbox, api) = world();
    let from = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    sandbox.faults().inject(Fault::new(Effect::DropEvent).resource("leases").times(1));
    let mut events = api.watch(&WatchParams::default(), &from).await.unwrap().boxed();
    sandbox.put(lease("lost")).unwrap();
    sandbox.put(lease("seen")).unwrap();
    let Some(WatchEvent::Added(first)) = events.try_next().await.unwrap() else {
        panic!("an addition was expected")
    };
    assert_eq!(first.metadata.name.as_deref(), Some("seen"));
}

/// A watch whose first event suffers this, and the two changes of `a` that it has to tell of.
async fn told_of_two_changes(effect: Effect) -> Vec<(Duration, serde_json::Value)> {
    let (sandbox, api) = world();
    let from = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    sandbox.faults().inject(Fault::new(effect).resource("leases").times(1));
    let mut events = api.watch(&WatchParams::default(), &from).await.unwrap().boxed();
    let start = Instant::now();
    for value in ["1", "2"] {
        sandbox
            .edit("leases", "default", "a", |lease| lease["metadata"]["labels"]["x"] = value.into())
            .unwrap();
    }
    let mut told = Vec::new();
    // Bookmarks come for ever.
    while let Ok(event) = tokio::time::timeout_at(start + Duration::from_secs(30), events.try_next()).await {
        let Some(WatchEvent::Modified(lease)) = event.unwrap() else { continue };
        let label = lease.metadata.labels.unwrap_or_default().get("x").cloned();
        told.push((start.elapsed(), json!(label)));
    }
    told
}

#[tokio::test(start_paused = true)]
async fn one_event_comes_twice() {
    let labels: Vec<_> =
        told_of_two_changes(Effect::RepeatEvent).await.into_iter().map(|(_, label)| label).collect();
    assert_eq!(labels, [json!("1"), json!("1"), json!("2")]);
}

#[tokio::test(start_paused = true)]
async fn one_event_shows_the_state_before_it_and_the_next_one_is_true() {
    let labels: Vec<_> =
        told_of_two_changes(Effect::StaleEvent).await.into_iter().map(|(_, label)| label).collect();
    assert_eq!(labels, [json!(null), json!("2")]);
}

#[tokio::test(start_paused = true)]
async fn a_late_event_holds_up_all_that_follow_and_none_is_lost() {
    let told = told_of_two_changes(Effect::DelayEvent(Duration::from_secs(9))).await;
    let seconds: Vec<_> = told.iter().map(|(after, label)| (after.as_secs(), label.clone())).collect();
    assert_eq!(seconds, [(9, json!("1")), (9, json!("2"))]);
}

#[tokio::test(start_paused = true)]
async fn a_stale_list_is_as_old_as_asked_for_and_a_watch_from_it_catches_up() {
    let (sandbox, api) = world();
    sandbox.put(lease("b")).unwrap();
    sandbox.faults().inject(Fault::new(Effect::StaleList(1)).verb("list").times(1));
    let old = api.list(&ListParams::default()).await.unwrap();
    assert_eq!(old.items.len(), 1);
    let from = old.metadata.resource_version.unwrap();
    let mut events = api.watch(&WatchParams::default(), &from).await.unwrap().boxed();
    let Some(WatchEvent::Added(next)) = events.try_next().await.unwrap() else {
        panic!("an addition was expected")
    };
    assert_eq!(next.metadata.name.as_deref(), Some("b"));
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_follower_reads_every_change_in_order_and_events_are_counted() {
    let (sandbox, api) = world();
    let mut follow = sandbox.follow();
    assert!(follow.take().is_empty());
    let mut events = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    events.try_next().await.unwrap();
    api.patch("a", &PatchParams::default(), &label("1")).await.unwrap();
    api.delete("a", &kube::api::DeleteParams::default()).await.unwrap();
    let changes = follow.next().await;
    assert_eq!(changes.len(), 2);
    assert!(changes[0].version < changes[1].version && changes[0].time == sandbox.now());
    assert_eq!((changes[0].plural, changes[0].name.as_str()), ("leases", "a"));
    assert!(changes[0].before.is_some() && changes[1].after.is_none());
    for _ in 0..2 {
        events.try_next().await.unwrap();
    }
    assert_eq!(sandbox.watch_events()["leases"], 2);
}

#[tokio::test(start_paused = true)]
async fn frozen_requests_and_watches_wait_for_the_thaw() {
    let (sandbox, api) = world();
    let from = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut events = api.watch(&WatchParams::default(), &from).await.unwrap().boxed();
    sandbox.faults().freeze();
    sandbox.put(lease("b")).unwrap();
    assert!(timeout(Duration::from_secs(60), api.get("a")).await.is_err());
    assert!(timeout(Duration::from_secs(60), events.try_next()).await.is_err());
    sandbox.faults().thaw();
    api.get("a").await.unwrap();
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
}

#[tokio::test(start_paused = true)]
async fn a_client_can_be_cut_off_between_two_writes() {
    let (sandbox, api) = world();
    sandbox.faults().fail_after_writes(1);
    api.get("a").await.unwrap();
    api.patch("a", &PatchParams::default(), &label("1")).await.unwrap();
    assert_eq!(code(api.patch("a", &PatchParams::default(), &label("2")).await), 503);
    assert_eq!(code(api.get("a").await), 503);
    assert_eq!(label_of(&sandbox), "1");
    sandbox.faults().clear();
    api.patch("a", &PatchParams::default(), &label("3")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_denied_is_forbidden_and_a_review_says_so() {
    let (sandbox, client) = without_sockets();
    sandbox.put(lease("a")).unwrap();
    sandbox.faults().inject(Fault::new(Effect::Deny).verb("patch").resource("leases"));
    assert_eq!(code(leases(&client).patch("a", &PatchParams::default(), &label("1")).await), 403);
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
    for (verb, allowed) in [("patch", false), ("get", true)] {
        let review =
            typed(json!({ "spec": { "resourceAttributes": { "verb": verb, "resource": "leases" } } }));
        let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
        assert_eq!(answer.status.unwrap().allowed, allowed, "{verb}");
    }
}
