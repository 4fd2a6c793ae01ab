//! (a) An app that is awake, through Traefik, with and without KubeNap, in turns.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::apps::{App, Space, eventually};
use super::figures::{Part, Row, Values, mean, spread};
use super::launcher::Bench;
use super::load;
use super::plot::Plot;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::say;

const RATE: u32 = 200;
const CALLERS: usize = 32;
/// As a cluster runs it; nothing is to nap here.
const FLAGS: [&str; 4] = ["--idle-after", "1h", "--poll", "15s"];
const PARTS: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// What one turn measured.
struct Turn {
    latencies: Values,
    peak: f64,
}

pub(crate) async fn run(bench: &Bench) -> Result<Part> {
    let space = Space::make(bench, "a").await?;
    let app = App { enrolled: false, ..App::new("awake") };
    space.create(&app).await?;
    space.until_answers(&app, TRAEFIK).await?;
    let span = Duration::from_secs(if bench.quick { 4 } else { 12 });
    let full_speed = Duration::from_secs(if bench.quick { 2 } else { 6 });
    // Traefik and the app are warm before the first turn, which is without.
    load::at_rate(TRAEFIK, &app.host(), RATE, Duration::from_secs(3)).await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for nth in 0..bench.count(6, 2) {
        for kubenap in [false, true] {
            if kubenap {
                enrol(&space, &app, true).await?;
                bench.members.start(2, &FLAGS).await?;
                eventually("KubeNap knows the app", Duration::from_secs(30), async || {
                    anyhow::ensure!(bench.members.sum("kubenap_apps").await? >= 2.0, "it does not");
                    Ok(())
                })
                .await?;
            } else {
                bench.members.stop_all().await?;
                enrol(&space, &app, false).await?;
            }
            // What starting and ending members left to do is not to be measured.
            load::at_rate(TRAEFIK, &app.host(), RATE, Duration::from_secs(4)).await?;
            let latencies = load::at_rate(TRAEFIK, &app.host(), RATE, span).await?;
            let peak = load::at_full_speed(TRAEFIK, &app.host(), CALLERS, full_speed).await?;
            say(&format!(
                "turn {}, KubeNap {}: p50 {:.2} ms, p99 {:.2} ms, {peak:.0} a second at most",
                nth + 1,
                if kubenap { "installed, the app enrolled" } else { "absent" },
                latencies.median(),
                latencies.at(0.99)
            ));
            if kubenap { &mut with } else { &mut without }.push(Turn { latencies, peak });
        }
    }
    space.remove().await?;
    let mut rows: Vec<_> = PARTS
        .iter()
        .map(|(name, part)| {
            let of = |turn: &Turn| turn.latencies.at(*part);
            let unit = |value: f64| format!("{value:.2} ms");
            compared(&format!("latency {name} at {RATE}/s"), &without, &with, of, unit)
        })
        .collect();
    let unit = |value: f64| format!("{value:.0}/s");
    rows.push(compared("peak throughput", &without, &with, |turn| turn.peak, unit));
    let all =
        |turns: &[Turn]| Values::of(turns.iter().flat_map(|turn| turn.latencies.all().to_vec()).collect());
    let lines = vec![("without KubeNap".to_owned(), all(&without)), ("with KubeNap".to_owned(), all(&with))];
    let plot = Plot {
        file: "awake".to_owned(),
        title: format!("Latency of an awake app at {RATE} requests a second"),
        axis: "milliseconds".to_owned(),
        lines,
    };
    Ok(Part {
        name: "a",
        title: "An awake app through Traefik",
        how: format!(
            "{RATE} requests a second on a schedule that waits for no answer (each latency counts from the moment the \
             request was due), then {CALLERS} callers at full speed; {} turns without KubeNap and as many with two \
             members and the app enrolled, one after the other. The noise is how far the turns without KubeNap are from \
             their own mean.",
            without.len()
        ),
        rows,
        plots: vec![plot],
    })
}

/// The ratio of the means, beside the noise of the turns among themselves.
fn compared(
    what: &str,
    without: &[Turn],
    with: &[Turn],
    of: impl Fn(&Turn) -> f64,
    show: impl Fn(f64) -> String,
) -> Row {
    let values = |turns: &[Turn]| turns.iter().map(&of).collect::<Vec<_>>();
    let (without, with) = (values(without), values(with));
    let ratio = mean(&with) / mean(&without);
    let noise = spread(&without);
    let beside = format!(
        "{} without, {} with; noise ±{:.0} %",
        show(mean(&without)),
        show(mean(&with)),
        noise * 100.0
    );
    // Two turns that differ by less than the turns of one kind do among themselves are alike.
    let kept = (ratio - 1.0).abs() <= noise.max(0.05);
    Row::new(format!("{what}, with : without"), ratio, format!("{ratio:.2}"), beside).promised(kept)
}

async fn enrol(space: &Space<'_>, app: &App, yes: bool) -> Result<()> {
    let label = if yes { json!("true") } else { json!(null) };
    space.patch(&app.name, &json!({"metadata": {"labels": {"kubenap/enabled": label}}})).await
}
