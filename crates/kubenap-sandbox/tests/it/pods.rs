//! Pods that do not start show what real ones show; rollouts keep to their limits; undo brings annotations back.
use crate::world::{deployment, put_web, ready_replicas, until, without_sockets};
use serde_json::{Value, json};
use std::time::Duration;

async fn pod_after_a_minute(broken: &str) -> Value {
    let (sandbox, _client) = without_sockets();
    put_web(&sandbox, 1, &json!({ "sandbox/broken": broken }));
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(ready_replicas(&sandbox), 0);
    sandbox.list("pods", None).remove(0)
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_pulled_leaves_the_pod_pending() {
    let pod = pod_after_a_minute("ImagePullBackOff").await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ImagePullBackOff");
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_has_restarted_and_waits() {
    let pod = pod_after_a_minute("CrashLoopBackOff").await;
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 1);
    assert!(container["restartCount"].as_u64().unwrap() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_configuration_is_missing_is_not_made() {
    let pod = pod_after_a_minute("CreateContainerConfigError").await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"],
        "CreateContainerConfigError"
    );
}

#[tokio::test(start_paused = true)]
async fn where_no_pods_may_be_made_the_deployment_says_so_until_something_touches_its_replica_set() {
    let (sandbox, _client) = without_sockets();
    let quota = |notes: Value| {
        sandbox.edit("namespaces", "", "default", |space| space["metadata"]["annotations"] = notes)
    };
    quota(json!({ "sandbox/noPods": "exceeded quota: none" })).unwrap();
    put_web(&sandbox, 2, &json!({}));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(sandbox.list("pods", None).is_empty());
    let failure = |sandbox: &kubenap_sandbox::Sandbox| {
        let web = sandbox.get("deployments", "default", "web").unwrap();
        let conditions = web["status"]["conditions"].as_array().unwrap().clone();
        conditions.into_iter().find(|condition| condition["type"] == "ReplicaFailure")
    };
    let said = failure(&sandbox).unwrap();
    assert_eq!((&said["status"], &said["reason"]), (&json!("True"), &json!("FailedCreate")));
    assert!(said["message"].as_str().unwrap().contains("exceeded quota"));
    quota(json!({})).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ready_replicas(&sandbox), 0, "nobody told it");
    sandbox
        .edit("deployments", "default", "web", |web| web["metadata"]["annotations"]["touched"] = json!("yes"))
        .unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(ready_replicas(&sandbox), 2);
    assert!(failure(&sandbox).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_room_has_no_node_and_says_why() {
    let pod = pod_after_a_minute("Unschedulable").await;
    assert!(pod["spec"].get("nodeName").is_none());
    let scheduled = &pod["status"]["conditions"][0];
    assert_eq!((&scheduled["type"], &scheduled["reason"]), (&json!("PodScheduled"), &json!("Unschedulable")));
}

#[tokio::test(start_paused = true)]
async fn a_rollout_never_has_fewer_ready_pods_than_it_may() {
    let (sandbox, _client) = without_sockets();
    put_web(&sandbox, 4, &json!({}));
    until("four ready", || ready_replicas(&sandbox) == 4).await;
    sandbox.put(deployment(4, &json!({ "version": "2" }))).unwrap();
    let is_done = || {
        let status = sandbox.get("deployments", "default", "web").unwrap()["status"].clone();
        status["updatedReplicas"] == 4 && status["replicas"] == 4 && status["readyReplicas"] == 4
    };
    let mut steps = 0;
    while !is_done() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(ready_replicas(&sandbox) >= 3, "a quarter of four may be missing");
        let active = sandbox
            .list("pods", None)
            .iter()
            .filter(|pod| !pod["metadata"]["deletionTimestamp"].is_string())
            .count();
        assert!(active <= 5, "a quarter of four may be too much");
        steps += 1;
        assert!(steps < 10_000, "the rollout does not end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recreate_has_no_two_versions_at_once() {
    let (sandbox, _client) = without_sockets();
    let recreate = |version: &str| {
        let mut web = deployment(2, &json!({ "version": version }));
        web["spec"]["strategy"] = json!({ "type": "Recreate" });
        web
    };
    sandbox.put(recreate("1")).unwrap();
    until("two ready", || ready_replicas(&sandbox) == 2).await;
    sandbox.put(recreate("2")).unwrap();
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let pods = sandbox.list("pods", None);
        let mut versions: Vec<_> =
            pods.iter().map(|pod| pod["metadata"]["annotations"]["version"].to_string()).collect();
        versions.dedup();
        versions.sort();
        versions.dedup();
        assert!(versions.len() <= 1, "{versions:?}");
    }
    assert_eq!(ready_replicas(&sandbox), 2);
}

#[tokio::test(start_paused = true)]
async fn an_undo_finds_the_old_annotations_on_the_old_replica_set() {
    let (sandbox, _client) = without_sockets();
    let annotated = |value: &str| {
        let mut web = deployment(1, &json!({ "version": value }));
        web["metadata"]["annotations"] = json!({ "note": value });
        web
    };
    sandbox.put(annotated("old")).unwrap();
    until("ready", || ready_replicas(&sandbox) == 1).await;
    sandbox.put(annotated("new")).unwrap();
    until("two sets", || sandbox.list("replicasets", None).len() == 2).await;
    let notes: Vec<_> = sandbox
        .list("replicasets", None)
        .iter()
        .map(|set| {
            let annotations = &set["metadata"]["annotations"];
            (annotations["deployment.kubernetes.io/revision"].clone(), annotations["note"].clone())
        })
        .collect();
    assert!(
        notes.contains(&(json!("1"), json!("old"))) && notes.contains(&(json!("2"), json!("new"))),
        "{notes:?}"
    );
    sandbox.put(annotated("old")).unwrap();
    until("the old set is the newest", || {
        let revision = "deployment.kubernetes.io/revision";
        sandbox.get("deployments", "default", "web").unwrap()["metadata"]["annotations"][revision] == "3"
    })
    .await;
    assert_eq!(sandbox.list("replicasets", None).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let (sandbox, _client) = without_sockets();
    let mut web = deployment(1, &json!({}));
    web["metadata"]["namespace"] = "shop".into();
    sandbox.put(web).unwrap();
    until("a pod", || !sandbox.list("pods", Some("shop")).is_empty()).await;
    assert!(sandbox.delete("namespaces", "", "shop"));
    until("no namespace", || sandbox.get("namespaces", "", "shop").is_none()).await;
    assert!(
        sandbox.list("pods", Some("shop")).is_empty() && sandbox.list("replicasets", Some("shop")).is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn a_log_is_read_from_a_time_on_with_the_moments_of_its_lines() {
    use kube::api::{Api, LogParams};
    let (sandbox, client) = without_sockets();
    put_web(&sandbox, 1, &json!({}));
    until("ready", || ready_replicas(&sandbox) == 1).await;
    let name = sandbox.list("pods", None)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client, "default");
    sandbox.print("default", &name, "early").unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let since = sandbox.now();
    sandbox.print("default", &name, "late").unwrap();
    assert_eq!(api.logs(&name, &LogParams::default()).await.unwrap(), "early\nlate\n");
    let whole = jiff::Timestamp::from_second(since.as_second()).unwrap();
    let params = LogParams { since_time: Some(whole), timestamps: true, ..LogParams::default() };
    let text = api.logs(&name, &params).await.unwrap();
    let (stamp, line) = text.split_once(' ').unwrap();
    assert_eq!((stamp.parse::<jiff::Timestamp>().unwrap(), line), (since, "late\n"));
    sandbox.rotate_log("default", &name).unwrap();
    assert_eq!(api.logs(&name, &LogParams::default()).await.unwrap(), "");
    for (pod, container, code) in [("nobody", None, 404), (name.as_str(), Some("nobody"), 400)] {
        let params = LogParams { container: container.map(str::to_owned), ..LogParams::default() };
        let error = api.logs(pod, &params).await.unwrap_err();
        assert!(matches!(&error, kube::Error::Api(status) if status.code == code), "{error:?}");
    }
}
