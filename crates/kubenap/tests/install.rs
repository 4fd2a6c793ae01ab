//! The doctor asks for every right of the chart's rights.yaml that is always granted: neither more nor less.
#![expect(clippy::unwrap_used, reason = "a document that cannot be read is a failed test")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

/// Group, resource, verb.
type Right = (String, String, String);

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_asks_for_what_the_chart_grants() {
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let address = serve(Arc::clone(&asked)).await;
    let folder = tempfile::TempDir::new().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: \"http://{address}\"}}}}]\n\
         users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let doctor = Command::new(env!("CARGO_BIN_EXE_kubenap"))
        .args(["doctor", "--kubeconfig", kubeconfig.to_str().unwrap()])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let asked = asked.lock().unwrap().clone();
    assert!(!asked.is_empty(), "{}", String::from_utf8_lossy(&doctor.stderr));
    assert_eq!(granted(), asked);
}

/// Every right that the chart always gives those who run `kubenap run`.
fn granted() -> BTreeSet<Right> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../chart/kubenap/rights.yaml");
    let all: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let texts =
        |rule: &Value, field: &str| -> Vec<String> { serde_json::from_value(rule[field].clone()).unwrap() };
    let mut rights = BTreeSet::new();
    // Those to read logs are granted only where a source does that, and it says itself where they are missing.
    let places = all["controller"].as_object().unwrap().iter().filter(|(place, _)| *place != "podLogs");
    for rule in places.flat_map(|(_, rules)| rules.as_array().unwrap()) {
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                let verbs = texts(rule, "verbs").into_iter();
                rights.extend(verbs.map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    rights
}

/// An API server on loopback with nothing in it, which writes down which rights it is asked about.
async fn serve(asked: Arc<Mutex<BTreeSet<Right>>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let asked = Arc::clone(&asked);
            let service = service_fn(move |request| answer(request, Arc::clone(&asked)));
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new();
                // A client that goes away is none of this test's business.
                drop(connection.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    address
}

async fn answer(
    request: Request<Incoming>,
    asked: Arc<Mutex<BTreeSet<Right>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let post = request.method() == Method::POST;
    let body = request.into_body().collect().await?.to_bytes();
    let (status, answer) = if post && path.ends_with("/selfsubjectaccessreviews") {
        let mut review: Value = serde_json::from_slice(&body).unwrap();
        let attributes = &review["spec"]["resourceAttributes"];
        let text = |field: &str| attributes[field].as_str().unwrap_or_default().to_owned();
        asked.lock().unwrap().insert((text("group"), text("resource"), text("verb")));
        review["status"] = json!({"allowed": true});
        (StatusCode::CREATED, review)
    } else if path == "/version" {
        let names = [
            "major",
            "minor",
            "gitVersion",
            "gitCommit",
            "gitTreeState",
            "buildDate",
            "goVersion",
            "compiler",
            "platform",
        ];
        (StatusCode::OK, names.iter().map(|name| ((*name).to_owned(), json!("1"))).collect())
    } else if path.ends_with("/leases") || path.ends_with("/deployments") {
        (StatusCode::OK, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}))
    } else {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
            "message": "not found", "code": 404});
        (StatusCode::NOT_FOUND, status)
    };
    let body = Full::new(Bytes::from(answer.to_string()));
    Ok(Response::builder().status(status).header("content-type", "application/json").body(body).unwrap())
}
