//! `kubenap why APP`: the one reason, then source by source what it rests on.

use std::time::Duration;

use anyhow::bail;
use jiff::{SignedDuration, Timestamp};
use kubenap_controller::clock::Clock;
use kubenap_controller::decide::board::AppStatus;
use kubenap_controller::web::{SourceApp, SourceStatus};
use kubenap_core::duration;
use serde::Serialize;

use super::status;
use crate::args::{ClusterArgs, Format, WhyArgs};
use crate::outcome::Outcome;
use crate::{connect, members, output};

/// What is printed with `-o json`.
#[derive(Serialize)]
struct Answer<'a> {
    app: &'a AppStatus,
    sources: &'a [SourceStatus],
}

pub(crate) async fn run(args: WhyArgs, at: &ClusterArgs) -> anyhow::Result<Outcome> {
    let cluster = connect::cluster(at).await?;
    let app = connect::app(at, &args.app)?;
    let apps = status::all(&cluster, at).await?;
    let Some(status) = apps.iter().find(|one| one.namespace == app.namespace && one.name == app.name) else {
        bail!("{app} is not an app\nhint: label its Deployment kubenap/enabled=true");
    };
    let namespace = connect::lease_namespace(at);
    let mut sources: Vec<SourceStatus> =
        members::ask(&cluster, &namespace, "/api/v1/sources").await.unwrap_or_default();
    for source in &mut sources {
        source.apps.retain(|known| known.app == app.to_string());
    }
    if let Some(format @ (Format::Json | Format::Yaml)) = args.output {
        output::data(&Answer { app: status, sources: &sources }, format)?;
        return Ok(Outcome::Done);
    }
    output::line(&format!("{app} is {}: {}", status.phase, status.why));
    let shown = |moment: &Option<String>| moment.clone().unwrap_or_else(|| "not known".to_owned());
    output::line(&format!("  last seen   {}", shown(&status.last_seen)));
    output::line(&format!("  known up to {}", shown(&status.watermark)));
    output::line(&format!("  naps after  {} of quiet", status.idle_after));
    for complaint in &status.complaints {
        output::line(&format!("  complaint   {complaint}"));
    }
    for source in &sources {
        let state = if source.up { "answers" } else { "does not answer" };
        output::line(&format!("source {} {state} since {}", source.name, source.since));
        if let Some(error) = &source.error {
            output::line(&format!("  {error}"));
        }
        for known in &source.apps {
            output::line(&format!(
                "  series {}, last seen {}, known up to {}",
                known.matched,
                shown(&known.last_seen),
                shown(&known.watermark)
            ));
            if known.blind.is_empty() {
                if let Some(missing) = missing(known, &status.idle_after) {
                    output::line(&format!("  {missing}"));
                }
            } else {
                output::line(&format!("  blind: {}", known.blind.join(", ")));
            }
            if known.matched > 0 && !known.sees_open {
                output::line(
                    "  requests that are still open are not seen: idleAfter must be above the longest",
                );
            }
            if known.matched == 0 && !known.looked_for.is_empty() {
                output::line(&format!("  looked for: {}", known.looked_for.join(", ")));
            }
        }
    }
    Ok(Outcome::Done)
}

/// How long the source knows the app to have been quiet, how old that knowledge is, and how much is missing for a nap.
fn missing(known: &SourceApp, idle_after: &str) -> Option<String> {
    let moment = |text: &Option<String>| text.as_deref()?.parse::<Timestamp>().ok();
    let (seen, mark) = (moment(&known.last_seen)?, moment(&known.watermark)?);
    let needed = duration::parse(idle_after).ok()?;
    let span =
        |span: SignedDuration| Duration::from_secs(Duration::try_from(span).unwrap_or_default().as_secs());
    let quiet = span(mark.duration_since(seen));
    let age = span(Clock::System.now().duration_since(mark));
    let missing = match needed.checked_sub(quiet).filter(|missing| !missing.is_zero()) {
        Some(missing) => format!("{} are missing for a nap", duration::show(missing)),
        None => "that is enough for a nap".to_owned(),
    };
    Some(format!(
        "quiet for {} of {}, as of {} ago: {missing}",
        duration::show(quiet),
        duration::show(needed),
        duration::show(age)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(seen: &str, mark: &str) -> SourceApp {
        SourceApp {
            app: "shop/web".to_owned(),
            matched: 1,
            sees_open: true,
            looked_for: Vec::new(),
            last_seen: Some(seen.to_owned()),
            watermark: Some(mark.to_owned()),
            blind: Vec::new(),
        }
    }

    #[test]
    fn what_is_missing_for_a_nap_is_said() {
        let some = missing(&known("2026-11-22T10:00:00Z", "2026-11-22T10:04:30Z"), "10m").unwrap();
        assert!(some.starts_with("quiet for 4m30s of 10m"), "{some}");
        assert!(some.ends_with(" ago: 5m30s are missing for a nap"), "{some}");
        let enough = missing(&known("2026-11-22T10:00:00Z", "2026-11-22T10:10:00Z"), "10m").unwrap();
        assert!(enough.ends_with(": that is enough for a nap"), "{enough}");
        let used = missing(&known("2026-11-22T10:10:00Z", "2026-11-22T10:00:00Z"), "10m").unwrap();
        assert!(used.ends_with(": 10m are missing for a nap"), "{used}");
    }
}
