//! The access log that goes with the counters: what a proxy writes while the stand-ins count.

use jiff::Timestamp;
use serde_json::json;

use crate::stand_in::{Proxy, World};

/// What all proxies wrote at the moment of this number.
pub(crate) fn at(world: &World, number: usize) -> Vec<(Timestamp, String)> {
    let Some(moment) = world.log.get(number) else { return Vec::new() };
    moment.1.keys().flat_map(|name| of(world, number, name)).collect()
}

/// What this process of a proxy has written; an earlier process' log is not there any more.
pub(crate) fn of_process(world: &World, name: &str) -> Vec<(Timestamp, String)> {
    let Some(proxy) = world.proxies.get(name) else { return Vec::new() };
    let own = world.log.iter().enumerate().filter(|(_, moment)| moment.0 > proxy.started);
    own.flat_map(|(number, _)| of(world, number, name)).collect()
}

/// A line of a monitor, which asks for something else all the time, and one for each counter that rose.
fn of(world: &World, number: usize, name: &str) -> Vec<(Timestamp, String)> {
    let Some((at, proxies)) = world.log.get(number).map(|moment| &**moment) else { return Vec::new() };
    let Some(proxy) = proxies.get(name) else { return Vec::new() };
    #[expect(clippy::cast_possible_truncation, reason = "the tests' times are whole seconds")]
    let Ok(at) = Timestamp::from_second(*at as i64) else { return Vec::new() };
    let before = number.checked_sub(1).and_then(|before| world.log.get(before)?.1.get(name));
    let before = before.filter(|before| before.started.to_bits() == proxy.started.to_bits());
    let line = |mut line: serde_json::Value| {
        line["StartUTC"] = json!(at.to_string());
        line["DownstreamStatus"] = json!(200);
        (at, line.to_string())
    };
    let monitor = json!({"KubernetesServiceNamespace": "other", "KubernetesServiceName": "monitor", "RequestPath": "/"});
    let mut lines = vec![line(monitor)];
    for (labels, value) in &proxy.counters {
        if *value > 0.0 && count(before, labels).to_bits() != value.to_bits() {
            let service = labels.split('"').nth(1).unwrap_or_default();
            lines.push(line(json!({"ServiceName": service, "RequestPath": "/"})));
        }
    }
    lines
}

fn count(proxy: Option<&Proxy>, labels: &str) -> f64 {
    proxy.and_then(|proxy| proxy.counters.get(labels)).copied().unwrap_or(0.0)
}
