//! Asleep: forged hosts, paths and headers lead nobody elsewhere, and wake nobody else.

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;

use super::stage::{BYSTANDER, Lane, Stage, asks, bystander_host};
use crate::e2e::http::{Head, exchange_raw};

/// A request target that some would read as another host, or as two lines. `HOST` is the app's own.
const TARGETS: [&str; 9] = [
    "//evil.example/x",
    "/\\evil.example/x",
    "\\\\evil.example/x",
    "/%2F/evil.example/x",
    "/%5Cevil.example/x",
    "/x%0d%0aLocation:%20https://evil.example/",
    "/x\rLocation: https://evil.example/",
    "http://evil.example/x",
    "/wake?original=//evil.example/x",
];
/// Header lines that a client makes up. `OTHER` is the host of an app that sleeps.
const HEADERS: [&str; 14] = [
    "X-Forwarded-Host: OTHER",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Proto: javascript",
    "X-Forwarded-Uri: //evil.example/x",
    "X-Forwarded-Prefix: //evil.example",
    "X-Forwarded-Port: 1@evil.example",
    "X-Original-URI: //evil.example/x",
    "X-Original-URI: https://evil.example/x",
    "X-Original-Host: OTHER",
    "X-Original-URL: https://evil.example/x",
    "X-Replaced-Path: //evil.example/x",
    "X-Envoy-Original-Path: //evil.example/x",
    "Forwarded: host=OTHER;proto=https",
    "X-Namespace: NAMESPACE\r\nX-Ingress-Name: bystander\r\nX-Service-Name: bystander\r\nX-Service-Port: 80",
];
/// Host headers that are not the app's.
const HOSTS: [&str; 4] = ["evil.example", "HOST@evil.example", "HOST, OTHER", "HOST\r\nHost: OTHER"];

/// Sends them all at once, and looks at where each is led.
pub(super) async fn play(stage: &Stage<'_>, lane: &Lane) -> Result<String> {
    let requests = requests(&lane.site.host, &stage.space.namespace);
    let sent = requests.iter().map(async |request| {
        let head = exchange_raw(lane.site.http, request.as_bytes()).await;
        let head = head.with_context(|| format!("{request:?}"))?;
        judge(head.as_ref()).with_context(|| format!("{request:?} was answered {head:?}"))
    });
    try_join_all(sent).await?;
    Ok(format!("{} requests: no foreign Location", requests.len()))
}

/// Fails if the bystander was asked for, or does not sleep.
pub(super) async fn ensure_nobody_else_woke(stage: &Stage<'_>) -> Result<()> {
    let asked = asks(stage.space, BYSTANDER).await?;
    ensure!(asked < 0.5, "{asked} requests reached KubeNap for an app that nobody asked for");
    let (replicas, phase) = (stage.space.replicas(BYSTANDER).await?, stage.space.phase(BYSTANDER).await?);
    ensure!(replicas == 0 && phase == "asleep", "the bystander has {replicas} replicas, phase {phase}");
    Ok(())
}

fn requests(host: &str, namespace: &str) -> Vec<String> {
    let request = |target: &str, host: &str, more: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n")
    };
    let targets = TARGETS.iter().map(|target| request(target, host, ""));
    let headers = HEADERS.iter().map(|line| request("/hostile", host, &format!("{line}\r\n")));
    let hosts = HOSTS.iter().map(|other| request("/hostile", other, ""));
    let filled = |request: String| {
        let request = request.replace("NAMESPACE", namespace).replace("OTHER", &bystander_host());
        request.replace("HOST", host)
    };
    targets.chain(headers).chain(hosts).map(filled).collect()
}

/// An answer that leads nowhere, or back to the same host.
fn judge(head: Option<&Head>) -> Result<()> {
    let Some(head) = head else { return Ok(()) };
    for location in &head.locations {
        let bytes = location.as_bytes();
        let own = bytes.first() == Some(&b'/') && !matches!(bytes.get(1), Some(b'/' | b'\\'));
        ensure!(own, "a foreign Location");
    }
    ensure!(head.status < 500 || head.status == 503, "an error of the proxy");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{judge, requests};
    use crate::e2e::http::Head;

    #[test]
    fn a_location_on_another_host_is_seen() {
        let answer = |location: &str| Some(Head { status: 307, locations: vec![location.to_owned()] });
        assert!(judge(answer("/x?y=//z").as_ref()).is_ok() && judge(None).is_ok());
        for foreign in ["//evil.example", "/\\evil.example", "https://evil.example/", "x", ""] {
            assert!(judge(answer(foreign).as_ref()).is_err(), "{foreign}");
        }
    }

    #[test]
    fn every_mark_in_a_request_is_filled_in() {
        for request in requests("web.test", "space") {
            assert!(request.contains("web.test") || request.contains("evil.example"), "{request:?}");
            assert!(
                !request.contains("OTHER") && !request.contains("HOST") && !request.contains("NAMESPACE")
            );
        }
    }
}
