//! Apps nap and wake by what stands in a real `InfluxDB` alone, asked in Flux and in `InfluxQL`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use serde_json::json;
use tokio::time::sleep;

use super::Counts;
use super::sources::Lane;
use crate::e2e::clock;
use crate::e2e::cluster::{INFLUXDB, TRAEFIK};
use crate::e2e::http::{self, Call, Caller, Content};
use crate::e2e::members::Settings;
use crate::e2e::metrics;
use crate::e2e::world::Space;

/// How often Traefik is read; the real Telegraf does so each ten seconds.
const INTERVAL: Duration = Duration::from_secs(1);
/// Where Traefik shows its metrics.
const METRICS: SocketAddr = SocketAddr::new(TRAEFIK.ip(), 8080);
/// What `e2e/cluster/parts/influxdb` sets up.
const TOKEN: &str = "Token test-token";
const WRITE: &str = "/api/v2/write?org=kubenap&bucket=traffic&precision=ms";

/// By the names that two sources of this kind get: without an organisation it is asked in `InfluxQL`.
const LANES: &[Lane] = &[Lane::by_traefik("flux", "influxdb"), Lane::by_traefik("influxql", "influxdb-2")];

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    space.world.cluster.start_influxdb().await?;
    let sources = [
        format!("influxdb=http://{INFLUXDB}?org=kubenap&bucket=traffic"),
        format!("influxdb=http://{INFLUXDB}?bucket=traffic"),
    ];
    let env = json!({"env": [{"name": "KUBENAP_INFLUXDB_TOKEN", "value": "test-token"}]});
    let settings = Settings { flags: vec![("source", json!(sources))], values: env, ..Settings::default() };
    let told = async {
        space.world.members.ensure(&settings).await?;
        try_join_all(LANES.iter().map(async |lane| space.deploy(&lane.app()).await)).await?;
        let told = LANES.iter().map(async |lane| lane.tell(space, TRAEFIK).await.context(lane.app));
        try_join_all(told).await
    };
    let naps: u64 = tokio::select! {
        naps = told => naps?.into_iter().sum(),
        stopped = collect() => return Err(stopped.err().context("collecting has ended")?),
    };
    Ok(vec![("languages", LANES.len() as u64), ("naps", naps)])
}

/// Writes what Traefik shows into the database again and again, under the names that Telegraf gives it by default.
async fn collect() -> Result<()> {
    let mut writer = Caller::kept(INFLUXDB, "influxdb");
    loop {
        let page = http::get(METRICS, "traefik", "/metrics").await.context("read Traefik's metrics")?;
        let lines = lines(&page.text())?;
        let call = Call::post(WRITE, Content::Sized(Bytes::from(lines))).header("authorization", TOKEN);
        let reply = writer.send(&call).await.context("write into InfluxDB")?;
        ensure!(reply.status == 204, "InfluxDB answers {} {}", reply.status, reply.text());
        sleep(INTERVAL).await;
    }
}

/// A line for each of Traefik's series, as Telegraf's `metric_version = 1` has it.
fn lines(page: &str) -> Result<String> {
    let now = clock::now().duration_since(UNIX_EPOCH)?.as_millis();
    let escape = |text: &str| text.replace(' ', "\\ ").replace(',', "\\,").replace('=', "\\=");
    let mut lines = String::new();
    for sample in metrics::parse(page)? {
        let is_count = sample.name.ends_with("_total");
        let wanted = sample.name.starts_with("traefik_") || sample.name == "process_start_time_seconds";
        if !wanted || sample.name.ends_with("_bucket") || !sample.value.is_finite() {
            continue;
        }
        write!(lines, "{},url=http://{METRICS}/metrics", sample.name)?;
        for (label, value) in sample.labels.iter().filter(|(_, value)| !value.is_empty()) {
            write!(lines, ",{label}={}", escape(value))?;
        }
        let field = if is_count { "counter" } else { "gauge" };
        writeln!(lines, " {field}={} {now}", sample.value)?;
    }
    Ok(lines)
}
