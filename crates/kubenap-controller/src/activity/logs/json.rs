//! Access logs of one JSON object a line: NGINX's, Traefik's, Envoy's and Istio's, told by their names of fields.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::line::{Hit, cluster_key, host_key, path_of};
use super::when::Clock;

/// The fields that are read, under the names that the programs' own examples give them. Others are skipped. Of what has several
/// names a line may have several.
#[derive(Deserialize)]
struct Object<'a> {
    // Traefik.
    #[serde(borrow, rename = "KubernetesServiceNamespace")]
    service_namespace: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "KubernetesServiceName")]
    service_name: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "ServiceName")]
    traefik_service: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "StartUTC")]
    start_utc: Option<Cow<'a, str>>,
    #[serde(rename = "Duration")]
    nanos: Option<i64>,
    #[serde(borrow, rename = "RequestPath")]
    request_path: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "request_User-Agent")]
    traefik_agent: Option<Cow<'a, str>>,
    #[serde(rename = "DownstreamStatus")]
    downstream_status: Option<u16>,
    // Envoy and Istio.
    #[serde(borrow)]
    start_time: Option<Cow<'a, str>>,
    duration: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    upstream_cluster: Option<Cow<'static, str>>,
    #[serde(borrow, alias = ":authority")]
    authority: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "x-envoy-origin-path")]
    path: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "user-agent", alias = "http_user_agent")]
    user_agent: Option<Cow<'a, str>>,
    // NGINX.
    #[serde(borrow)]
    uri: Option<Cow<'a, str>>,
    #[serde(borrow)]
    request_uri: Option<Cow<'a, str>>,
    #[serde(borrow)]
    request: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time_local: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time_iso8601: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "@timestamp")]
    at_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    proxy_upstream_name: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "resource_namespace")]
    namespace: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "service")]
    service_name_of_nginx: Option<Cow<'a, str>>,
    #[serde(borrow)]
    host: Option<Cow<'a, str>>,
    #[serde(borrow)]
    http_host: Option<Cow<'a, str>>,
    #[serde(borrow)]
    vhost: Option<Cow<'a, str>>,
}

/// A field that is there, although there may be nothing in it.
fn present<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Cow<'static, str>>, D::Error> {
    let text = Option::<String>::deserialize(field)?;
    Ok(Some(Cow::Owned(text.unwrap_or_default())))
}

/// Reads a line into the hit; `None`: it is not an access log's.
pub(super) fn read(line: &str, clock: &mut Clock, hit: &mut Hit) -> Option<()> {
    let object: Object<'_> = serde_json::from_str(line).ok()?;
    let some = |text: &Option<Cow<'_, str>>| {
        text.as_deref().filter(|text| !matches!(*text, "" | "-")).map(str::to_owned)
    };
    hit.ended = if let Some(start) = &object.start_utc {
        object.downstream_status?;
        clock.iso(start)? + object.nanos.unwrap_or(0) / 1_000_000_000 + 1
    } else if let Some(start) = &object.start_time {
        let millis = match &object.duration {
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        hit.kept_back = true;
        clock.iso(start)? + millis? / 1000 + 1
    } else {
        let times = [&object.time_local, &object.time_iso8601, &object.time, &object.timestamp];
        let time = times.into_iter().chain([&object.at_timestamp]).find_map(Option::as_deref)?;
        clock.iso(time).or_else(|| clock.common(time))? + 1
    };
    let paths = [&object.request_path, &object.path, &object.request_uri, &object.request, &object.uri];
    let path = paths.into_iter().find_map(Option::as_deref).unwrap_or_default();
    hit.path.push_str(path_of(path));
    let agent = object.traefik_agent.as_deref().or(object.user_agent.as_deref()).unwrap_or_default();
    hit.agent.push_str(agent);

    let nginx = some(&object.namespace).zip(some(&object.service_name_of_nginx));
    if let Some((namespace, name)) = some(&object.service_namespace).zip(some(&object.service_name)).or(nginx)
    {
        hit.keys.push(format!("svc {namespace}/{name}"));
    } else if let Some(service) = some(&object.traefik_service) {
        hit.keys.push(format!("traefik {service}"));
    } else if let Some(upstream) = some(&object.proxy_upstream_name) {
        hit.keys.push(format!("up {upstream}"));
    } else if let Some(cluster) = some(&object.upstream_cluster) {
        hit.keys.push(cluster_key(&cluster));
    } else if object.start_utc.is_none()
        && let Some(host) = some(&object.authority)
            .or_else(|| [&object.host, &object.http_host, &object.vhost].into_iter().find_map(some))
    {
        // Where the app would be named and is not, the request went to none.
        let in_vain = object.proxy_upstream_name.is_some()
            || object.upstream_cluster.is_some()
            || object.namespace.as_ref().and(object.service_name_of_nginx.as_ref()).is_some();
        hit.keys.push(host_key(&host, in_vain));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::line::Lines;

    fn keys(line: &str) -> Option<(Vec<String>, i64, String)> {
        let mut lines = Lines::new(None);
        if lines.read(line) { Some((lines.hit.keys, lines.hit.ended, lines.hit.path)) } else { None }
    }

    #[test]
    fn traefik_names_the_service_itself() {
        let line = r#"{"DownstreamStatus":200,"Duration":2500000000,"KubernetesServiceName":"web","KubernetesServiceNamespace":"shop","RequestPath":"/a?b","ServiceName":"shop-web-80@kubernetes","StartUTC":"2026-11-22T10:00:00.1Z","time":"2026-11-22T10:00:02Z"}"#;
        let expected = Some((vec!["svc shop/web".to_owned()], 1_795_341_603, "/a".to_owned()));
        assert_eq!(keys(line), expected);
        let route = line.replace("KubernetesServiceName\"", "x\"");
        assert_eq!(keys(&route).unwrap().0, ["traefik shop-web-80@kubernetes"]);
        let nobody = r#"{"DownstreamStatus":404,"StartUTC":"2026-11-22T10:00:00Z","RequestPath":"/"}"#;
        assert_eq!(keys(nobody).unwrap().0, [""; 0], "no router, no app");
    }

    #[test]
    fn envoy_istio_and_nginx_are_told_by_their_fields() {
        let istio = r#"{"start_time":"2026-11-22T10:00:00.500Z","duration":1500,"upstream_cluster":"outbound|80||web.shop.svc.cluster.local","authority":"web.example","path":"/","response_code":200}"#;
        assert_eq!(keys(istio).unwrap().0, ["cluster outbound|80||web.shop.svc.cluster.local"]);
        assert_eq!(keys(istio).unwrap().1, 1_795_341_602);
        let subset = istio.replace("||", "|v1|");
        assert_eq!(keys(&subset).unwrap().0, keys(istio).unwrap().0);
        let envoy = r#"{"start_time":"2026-11-22T10:00:00Z","duration":"3","upstream_cluster":"-",":authority":"Web.example:80"}"#;
        assert_eq!(keys(envoy).unwrap().0, ["asked web.example"], "it went to no cluster");
        assert_eq!(keys(&envoy.replace("\"-\"", "null")).unwrap().0, ["asked web.example"]);
        let plain = envoy.replace("upstream_cluster", "x");
        assert_eq!(keys(&plain).unwrap().0, ["host web.example"]);
        let nginx = r#"{"time_local":"22/Nov/2026:10:00:00 +0000","proxy_upstream_name":"shop-web-80","request":"GET /x HTTP/1.1"}"#;
        let expected = Some((vec!["up shop-web-80".to_owned()], 1_795_341_601, "/x".to_owned()));
        assert_eq!(keys(nginx), expected);
        let named = r#"{"time":"2026-11-22T10:00:00Z","resource_namespace":"shop","service":"web"}"#;
        assert_eq!(keys(named).unwrap().0, ["svc shop/web"]);
    }

    #[test]
    fn other_objects_are_no_access_log() {
        for odd in [r#"{"level":"info","msg":"started"}"#, r#"{"time":"soon"}"#, "{}", "{\"a\":"] {
            assert_eq!(keys(odd), None, "{odd}");
        }
    }
}
