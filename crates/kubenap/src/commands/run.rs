//! `kubenap run`: the controller, until a signal tells it to leave.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use kube::Client;
use kubenap_controller::run::start;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::{ClusterArgs, LogFormat, RunArgs};
use crate::outcome::Outcome;
use crate::{connect, settings};

pub(crate) async fn run(run: RunArgs, cluster: &ClusterArgs) -> anyhow::Result<Outcome> {
    log(cluster.log_format);
    let config = connect::config(cluster).await?;
    let settings = settings::settings(run, cluster, &config)?;
    let client = Client::try_from(config).context("cannot set up a client for the cluster")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    let mut running = tokio::select! {
        running = start(client, settings) => running?,
        _ = terminate.recv() => return Ok(Outcome::Done),
        _ = interrupt.recv() => return Ok(Outcome::Done),
    };
    let outcome = tokio::select! {
        _ = terminate.recv() => Outcome::Done,
        _ = interrupt.recv() => Outcome::Done,
        () = running.broken() => {
            tracing::error!("a part of the controller ended; leaving, to be started again");
            Outcome::Failed
        }
    };
    tracing::info!("leaving");
    tokio::select! {
        () = running.leave() => {}
        // Told twice: at once.
        _ = interrupt.recv() => {}
    }
    Ok(outcome)
}

/// The log goes to stderr. `RUST_LOG` chooses what; by default our own at info and others' warnings.
pub(crate) fn log(format: Option<LogFormat>) {
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,kube_client=off,kubenap=info,kubenap_controller=info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => builder.with_ansi(terminal).with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = installed {
        tracing::debug!(%error, "a log was set up before");
    }
}
