//! `kubenap simulate` against a small Kubernetes and a Prometheus that remembers a day.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::post;
use kubenap_controller::clock::Clock;
use kubenap_sandbox::{Sandbox, Settings};
use serde_json::{Value, json};

use crate::command::{Ended, Home};

/// Requests came to `shop-web` at every full hour; the proxy was there all the time.
async fn prometheus() -> SocketAddr {
    let app = Router::new().route("/api/v1/query", post(instant)).route("/api/v1/query_range", post(range));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn answer(kind: &str, query: &str, moments: &[i64]) -> axum::Json<Value> {
    let beats = query.contains("timestamp%28up%29");
    let value = |at: i64| if beats { at } else { at / 3600 };
    let values: Vec<_> = moments.iter().map(|at| json!([at, value(*at).to_string()])).collect();
    let mut metric = json!({"instance": "a", "kubenap": "traefik"});
    if !beats {
        metric["service"] = json!("shop-web-80@kubernetes");
    }
    let mut row = json!({"metric": metric});
    match kind {
        "vector" => row["value"] = values[0].clone(),
        _ => row["values"] = json!(values),
    }
    axum::Json(json!({"status": "success", "data": {"resultType": kind, "result": [row]}}))
}

async fn instant(body: String) -> axum::Json<Value> {
    answer("vector", &body, &[Clock::System.now().as_second()])
}

async fn range(body: String) -> axum::Json<Value> {
    let form: BTreeMap<_, _> = body.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let [start, end, step] = ["start", "end", "step"].map(|name| form[name].parse::<i64>().unwrap());
    let moments: Vec<_> = (0..=(end - start) / step).map(|number| start + number * step).collect();
    answer("matrix", &body, &moments)
}

fn objects(name: &str, enabled: bool) -> [Value; 3] {
    let labels = if enabled { json!({"kubenap/enabled": "true"}) } else { json!({}) };
    let meta = json!({"name": name, "namespace": "shop"});
    [
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "app", "image": "app:1"}]}}}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta,
            "spec": {"rules": [{"host": format!("{name}.example"), "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": name, "port": {"number": 80}}}}]}}]}}),
    ]
}

async fn simulate(home: &Home, args: &[&str]) -> Ended {
    let mut all = vec!["simulate", "--since", "1d"];
    all.extend(args);
    let output = home.program(&all).output().await.unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_history_says_what_each_app_would_have_slept_opted_in_or_not() {
    let sandbox = Sandbox::start(Settings::default());
    for object in objects("web", false).into_iter().chain(objects("api", true)) {
        sandbox.put(object).unwrap();
    }
    let api = sandbox.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let home = Home::with_cluster(&format!("http://{api}"));
    let source = format!("prometheus=http://{}", prometheus().await);

    let svg = home.file("day.svg", "");
    let picture = svg.to_str().unwrap();
    let json = simulate(&home, &["--source", &source, "-o", "json", "--svg", picture]).await;
    assert_eq!(json.code, Some(0), "{json:#?}");
    let answer: Value = serde_json::from_str(&json.out).unwrap();
    let app = |name: &str| {
        answer["apps"].as_array().unwrap().iter().find(|app| app["name"] == name).unwrap().clone()
    };
    let (web, api) = (app("web"), app("api"));
    assert_eq!((&web["optedIn"], &api["optedIn"]), (&json!(false), &json!(true)));
    // Of each hour ten minutes are quiet first, and up to two are not told apart.
    assert!((23..=24).contains(&web["wakes"].as_u64().unwrap()), "{web}");
    let share = web["asleepShare"].as_f64().unwrap();
    assert!((0.76..0.84).contains(&share), "{share}");
    let hours = web["savedReplicaHours"].as_f64().unwrap();
    assert!((hours - share * 48.0).abs() < 0.1, "two replicas: {hours}");
    assert_eq!(api["wakes"], 0, "its proxy never had a series of it");
    assert!(api["asleepShare"].as_f64().unwrap() > 0.98, "{api}");

    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.contains(">shop/web</text>") && drawn.ends_with("</svg>\n"));
    assert!(drawn.matches("fill=\"#0072b2\"").count() > 23, "a bar for each nap");

    let table = simulate(&home, &["--source", &source, "shop/web"]).await;
    let row = table.out.lines().find(|line| line.starts_with("shop")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells[..5], ["shop", "web", "no", "2", "10m"], "{table:#?}");
    assert!(!table.out.contains("api") && table.out.contains("replica-hours saved"), "{table:#?}");
    assert!(table.err.contains("looks are 1m apart"), "{table:#?}");

    let nobody = simulate(&home, &["--source", &source, "shop/nobody"]).await;
    nobody.fails(1, &["shop/nobody is not there, or no Service selects its pods", "hint: "]);
    let ingress = simulate(&home, &["--source", "ingress"]).await;
    ingress.fails(1, &["`ingress` keeps no history; accepted: a source of kind prometheus or influxdb"]);
    let dead = simulate(&home, &["--source", "prometheus=http://127.0.0.1:1"]).await;
    dead.fails(1, &["cannot read the history of prometheus", "cannot connect to http://127.0.0.1:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_app_that_goes_by_its_own_query_no_nap_is_made_up() {
    let sandbox = Sandbox::start(Settings::default());
    for mut object in objects("api", true) {
        if object["kind"] == "Deployment" {
            object["metadata"]["annotations"] = json!({"kubenap/query": "sum(jobs_total)"});
        }
        sandbox.put(object).unwrap();
    }
    let api = sandbox.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let home = Home::with_cluster(&format!("http://{api}"));
    let source = format!("prometheus=http://{}", prometheus().await);
    let json = simulate(&home, &["--source", &source, "-o", "json"]).await;
    let answer: Value = serde_json::from_str(&json.out).unwrap();
    let app = &answer["apps"][0];
    assert_eq!(
        (&app["unaskedQuery"], &app["asleepSeconds"]),
        (&json!("sum(jobs_total)"), &json!(0)),
        "{app}"
    );
    assert_eq!(app["unknownSeconds"], 86_400, "{app}");
    let table = simulate(&home, &["--source", &source]).await;
    assert!(table.err.contains("shop/api goes by its kubenap/query, which is not asked here"), "{table:#?}");
}

#[test]
fn a_time_that_is_not_understood_is_refused_with_examples() {
    for wrong in ["7", "31d", "d", "1m", "-1d", "1d1d"] {
        let given = format!("--since={wrong}");
        let ended = Home::with_dead_cluster().kubenap(&["simulate", &given]);
        ended.fails(
            2,
            &[&format!("`{wrong}`"), "--since", "accepted: from 10m to 30d, such as 7d, 1d12h or 36h"],
        );
    }
    let ended = Home::with_dead_cluster().kubenap(&["simulate", "--step", "1500ms"]);
    ended.fails(2, &["`1500ms`", "--step", "accepted: whole seconds, from 1s to 1h"]);
}
