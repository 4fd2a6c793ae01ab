//! `kubenap why APP`: the one reason, then source by source what it rests on.

use anyhow::bail;
use kubenap_controller::decide::board::AppStatus;
use kubenap_controller::web::SourceStatus;
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
            if !known.blind.is_empty() {
                output::line(&format!("  blind: {}", known.blind.join(", ")));
            }
            if known.matched == 0 && !known.looked_for.is_empty() {
                output::line(&format!("  looked for: {}", known.looked_for.join(", ")));
            }
        }
    }
    Ok(Outcome::Done)
}
