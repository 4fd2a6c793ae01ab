//! Paused time: days cost milliseconds, and everything stands in its moment.
use crate::world::{lease, put_web, ready_replicas, until, without_sockets};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::json;
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_watcher_lives_through_a_day_and_misses_nothing() {
    let (sandbox, client) = without_sockets();
    let api: Api<Lease> = Api::all(client);
    let config = watcher::Config::default().timeout(290);
    let mut events = pin!(watcher(api, config));
    let maker = sandbox.clone();
    tokio::spawn(async move {
        for hour in 0..24 {
            maker.put(lease(&format!("hour-{hour}"))).unwrap();
            tokio::time::sleep(Duration::from_hours(1)).await;
        }
    });
    let start = Instant::now();
    let mut seen = 0;
    while seen < 24 {
        match events.next().await.unwrap() {
            Ok(Event::Apply(_) | Event::InitApply(_)) => seen += 1,
            Ok(_) => {}
            Err(error) => panic!("the watch broke: {error}"),
        }
    }
    assert!(start.elapsed() >= Duration::from_hours(23));
    let watches = sandbox.requests()[&("watch".to_owned(), "leases".to_owned())];
    let lists = sandbox.requests()[&("list".to_owned(), "leases".to_owned())];
    assert!((250..350).contains(&watches) && lists == 1, "{watches} watches, {lists} lists");
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_before_it_is_ready_and_times_are_the_sandboxs() {
    let (sandbox, _client) = without_sockets();
    put_web(&sandbox, 1, &json!({ "sandbox/readyDelay": "10s" }));
    let pod = || sandbox.list("pods", Some("default")).into_iter().next();
    until("the pod is scheduled", || pod().is_some_and(|pod| pod["spec"]["nodeName"].is_string())).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let started = pod().unwrap();
    assert_eq!(started["status"]["phase"], "Running");
    assert!(started["status"]["podIP"].is_string());
    assert_eq!(ready_replicas(&sandbox), 0);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(ready_replicas(&sandbox), 1);
    let ready = pod().unwrap();
    let moment = |value: &serde_json::Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let conditions = ready["status"]["conditions"].as_array().unwrap();
    let turned = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
    let took =
        moment(&turned["lastTransitionTime"]).duration_since(moment(&ready["metadata"]["creationTimestamp"]));
    assert_eq!(took.as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn just_after_a_scale_to_zero_the_slices_still_show_dying_pods_as_ready() {
    let (sandbox, _client) = without_sockets();
    put_web(&sandbox, 1, &json!({}));
    let conditions = || {
        let slices = sandbox.list("endpointslices", Some("default"));
        slices.first().map(|slice| slice["endpoints"][0]["conditions"].clone()).unwrap_or_default()
    };
    until("a ready endpoint", || conditions()["ready"] == true).await;
    sandbox.edit("deployments", "default", "web", |web| web["spec"]["replicas"] = 0.into()).unwrap();
    let is_dying = || sandbox.list("pods", None)[0]["metadata"]["deletionTimestamp"].is_string();
    while !is_dying() {
        tokio::task::yield_now().await;
    }
    assert_eq!(conditions(), json!({ "ready": true, "serving": true, "terminating": false }));
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(conditions(), json!({ "ready": false, "serving": true, "terminating": true }));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(sandbox.list("pods", None).is_empty());
    assert_eq!(conditions(), json!(null));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_names() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let (sandbox, _client) = without_sockets();
        put_web(&sandbox, 3, &json!({}));
        until("three ready", || ready_replicas(&sandbox) == 3).await;
        let names: Vec<_> =
            sandbox.list("pods", None).iter().map(|pod| pod["metadata"]["name"].clone()).collect();
        runs.push(names);
    }
    assert_eq!(runs[0], runs[1]);
}
