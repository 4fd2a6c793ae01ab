//! `kubenap simulate`: from a source's history, how long each app would have slept, and what that saves.

mod timeline;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kubenap_controller::activity::{AppPast, AskPast, SourceError, Target, TrafficMetricsSource, build};
use kubenap_controller::clock::Clock;
use kubenap_controller::survey::{Candidate, candidates};
use kubenap_core::app::AppId;
use kubenap_core::duration;
use kubenap_core::policy::Defaults;
use kubenap_core::simulate::Span;
use serde::Serialize;

use crate::args::{ClusterArgs, Format, SimulateArgs};
use crate::outcome::Outcome;
use crate::{connect, output, settings};

/// The whole answer, as `-o json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    from: String,
    to: String,
    step_seconds: u64,
    sources: Vec<String>,
    apps: Vec<Row>,
    asleep_seconds: u64,
    wakes: usize,
    saved_replica_hours: f64,
}

/// What would have been of one app.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    name: String,
    opted_in: bool,
    replicas: u32,
    idle_after: String,
    asleep_seconds: u64,
    /// Of the whole time, from 0 to 1.
    asleep_share: f64,
    wakes: usize,
    saved_replica_hours: f64,
    /// Of how much of the time nothing is known.
    unknown_seconds: u64,
    /// How many series were the app's.
    series: usize,
    looked_for: Vec<String>,
    /// The app's own query, which alone says when it is used, and is not asked of the past.
    #[serde(skip_serializing_if = "Option::is_none")]
    unasked_query: Option<Box<str>>,
    asleep: Vec<Part>,
    used: Vec<Part>,
    unknown: Vec<Part>,
}

#[derive(Debug, Serialize)]
struct Part {
    from: String,
    to: String,
}

pub(crate) async fn run(args: SimulateArgs, at: &ClusterArgs) -> anyhow::Result<Outcome> {
    let cluster = connect::cluster(at).await?;
    let defaults = Defaults { idle_after: args.idle_after, ..Defaults::default() };
    let mut apps =
        candidates(&cluster, &at.namespace, &defaults).await.context("cannot list what may be an app")?;
    if !args.apps.is_empty() {
        let chosen: Vec<_> =
            args.apps.iter().map(|text| connect::app(at, text)).collect::<anyhow::Result<_>>()?;
        for app in &chosen {
            if !apps.iter().any(|known| known.target.app == *app) {
                bail!(
                    "{app} is not there, or no Service selects its pods\nhint: kubectl get deployments,services shows both"
                );
            }
        }
        apps.retain(|known| chosen.contains(&known.target.app));
    }
    if apps.is_empty() {
        bail!(
            "there is no Deployment whose pods a Service selects\nhint: other namespaces are named with -n"
        );
    }
    let sources = build(&args.sources, &settings::credentials(), &cluster.client())?;
    let sources: Vec<_> = sources.into_iter().filter(|source| source.by_default()).collect();
    let targets: Arc<[Target]> = apps.iter().map(|app| app.target.clone()).collect();
    let ask = AskPast { now: Clock::System.now(), targets, since: args.since, step: args.step };
    let (names, mut pasts) = ask_all(&sources, &ask).await?;

    let rows: Vec<_> = apps.iter().filter_map(|app| Some(row(app, pasts.remove(&app.target.app)?))).collect();
    let from = ask.now.checked_sub(jiff::SignedDuration::try_from(args.since)?)?;
    let answer = Answer {
        from: from.to_string(),
        to: ask.now.to_string(),
        step_seconds: args.step.as_secs(),
        sources: names,
        asleep_seconds: rows.iter().map(|row| row.asleep_seconds).sum(),
        wakes: rows.iter().map(|row| row.wakes).sum(),
        saved_replica_hours: rows.iter().map(|row| row.saved_replica_hours).sum(),
        apps: rows,
    };
    if let Some(path) = &args.svg {
        let shown = path.display();
        let picture = timeline::svg(&answer.apps, Span::new(from, ask.now));
        std::fs::write(path, picture).with_context(|| format!("cannot write the timelines to {shown}"))?;
        output::note(&format!("timelines: {shown}"));
    }
    match args.output {
        Some(format @ (Format::Json | Format::Yaml)) => output::data(&answer, format)?,
        wide => print(&answer, wide.is_some()),
    }
    Ok(Outcome::Done)
}

/// What all the sources remember together: used where one of them saw a use, unknown where one of them knows nothing.
async fn ask_all(
    sources: &[Arc<dyn TrafficMetricsSource>],
    ask: &AskPast,
) -> anyhow::Result<(Vec<String>, BTreeMap<AppId, AppPast>)> {
    let mut names = Vec::new();
    let mut pasts: BTreeMap<AppId, AppPast> = BTreeMap::new();
    let mut without = None;
    for source in sources {
        let own = match source.past(ask).await {
            Ok(own) => own,
            Err(error @ SourceError::NoPast { .. }) => {
                without.get_or_insert(error);
                continue;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read the history of {}", source.name()));
            }
        };
        names.push(source.name().to_owned());
        for (app, past) in own {
            match pasts.get_mut(&app) {
                Some(known) => {
                    known.past.used.extend(past.past.used);
                    known.past.unknown.extend(past.past.unknown);
                    known.matched += past.matched;
                }
                None => drop(pasts.insert(app, past)),
            }
        }
    }
    match without {
        Some(error) if names.is_empty() => Err(error.into()),
        _ => Ok((names, pasts)),
    }
}

fn row(app: &Candidate, mut known: AppPast) -> Row {
    let unasked_query = app.target.query.clone();
    if unasked_query.is_some() {
        // What proxies count of it is not what it naps by.
        known.past.unknown = vec![known.past.whole];
    }
    let naps = known.past.naps(app.idle_after);
    let slept = naps.slept();
    let whole = known.past.whole.length().as_secs_f64();
    Row {
        namespace: app.target.app.namespace.clone(),
        name: app.target.app.name.clone(),
        opted_in: app.opted_in,
        replicas: app.replicas,
        idle_after: duration::show(app.idle_after),
        asleep_seconds: slept.as_secs(),
        asleep_share: if whole > 0.0 { slept.as_secs_f64() / whole } else { 0.0 },
        wakes: naps.wakes,
        saved_replica_hours: naps.replica_hours(app.replicas),
        unknown_seconds: known.past.unknown_for().as_secs(),
        series: known.matched,
        looked_for: known.looked_for,
        unasked_query,
        asleep: parts(&naps.asleep),
        used: parts(&known.past.used),
        unknown: parts(&known.past.unknown),
    }
}

fn parts(spans: &[Span]) -> Vec<Part> {
    spans.iter().map(|span| Part { from: span.from.to_string(), to: span.to.to_string() }).collect()
}

fn print(answer: &Answer, wide: bool) {
    let mut head = vec![
        "NAMESPACE",
        "APP",
        "OPTED-IN",
        "REPLICAS",
        "IDLE-AFTER",
        "ASLEEP",
        "SHARE",
        "WAKES",
        "REPLICA-HOURS",
    ];
    head.push("UNKNOWN");
    if wide {
        head.extend(["SERIES", "LOOKED-FOR"]);
    }
    let row = |app: &Row| {
        let mut row = vec![
            app.namespace.clone(),
            app.name.clone(),
            if app.opted_in { "yes" } else { "no" }.to_owned(),
            app.replicas.to_string(),
            app.idle_after.clone(),
            long(app.asleep_seconds),
            format!("{:.0} %", app.asleep_share * 100.0),
            app.wakes.to_string(),
            format!("{:.1}", app.saved_replica_hours),
            long(app.unknown_seconds),
        ];
        if wide {
            row.push(app.series.to_string());
            row.push(app.looked_for.join(", "));
        }
        row
    };
    output::table(&head, answer.apps.iter().map(row).collect());
    output::line(&format!(
        "from {} to {}, as {} remembers it: {} asleep, {} wakes, {:.1} replica-hours saved",
        answer.from,
        answer.to,
        answer.sources.join(" and "),
        long(answer.asleep_seconds),
        answer.wakes,
        answer.saved_replica_hours
    ));
    output::note(&format!(
        "note: looks are {} apart; what they cannot tell counts as use, and what is unknown as awake",
        duration::show(Duration::from_secs(answer.step_seconds))
    ));
    for app in answer.apps.iter().filter(|app| app.unasked_query.is_some()) {
        output::note(&format!(
            "note: {}/{} goes by its kubenap/query, which is not asked here: nothing of its past is known",
            app.namespace, app.name
        ));
    }
    for app in answer.apps.iter().filter(|app| app.series == 0 && app.unasked_query.is_none()) {
        output::note(&format!(
            "note: {}/{} has no series; looked for {}",
            app.namespace,
            app.name,
            app.looked_for.join(", ")
        ));
    }
}

/// Days, hours and minutes.
fn long(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m"),
        (0, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h{minutes:02}m"),
    }
}
