//! `kubenap restore`: apps awake and every trace of KubeNap gone, with a kubeconfig alone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use kubenap_controller::clock::Clock;
use kubenap_controller::cluster::Cluster;
use kubenap_controller::cluster::lease::{RENEW_DEADLINE, give_back, occupy};
use kubenap_controller::nap::by_hand::{Progress, Want, bring, sweep, touched};
use kubenap_controller::nap::hooks::{self, Spared};
use kubenap_core::app::AppId;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::{ClusterArgs, RestoreArgs};
use crate::outcome::Outcome;
use crate::{connect, members, output};

/// So many apps are restored at the same time.
const AT_ONCE: usize = 16;
/// Who holds the leader's Lease, so that nobody naps.
const HOLDER: &str = "kubenap-restore";
/// How long nobody naps with --stop-naps: long enough to take KubeNap off.
const NO_NAPS: Duration = Duration::from_mins(10);

/// How it went with the apps.
#[derive(Default)]
struct Tally {
    done: BTreeSet<AppId>,
    failed: usize,
    late: usize,
}

pub(crate) async fn run(args: RestoreArgs, at: &ClusterArgs) -> anyhow::Result<Outcome> {
    if args.apps.is_empty() && !args.all {
        let usage = anyhow::Error::new(Outcome::Usage);
        return Err(
            usage.context("no app is named\nhint: kubenap restore NAMESPACE/NAME, or kubenap restore --all")
        );
    }
    let cluster = connect::cluster(at).await?;
    if args.stop_naps {
        return for_good(&cluster, &args, at).await;
    }
    let apps = if args.all {
        touched(&cluster, &at.namespace).await?
    } else {
        args.apps.iter().map(|text| connect::app(at, text)).collect::<Result<_, _>>()?
    };
    let mut tally = Tally::default();
    restore(&cluster, apps, &args, &mut tally).await;
    if members::leader(&cluster, &connect::lease_namespace(at)).await.is_ok_and(|leader| leader.is_some()) {
        output::note("note: a controller runs, and apps that keep their label nap again when they are quiet");
    }
    if args.all {
        sweep_up(&cluster, at, &tally, Spared::Living).await?;
    }
    Ok(tally.outcome())
}

/// Restores everything, and sees to it that it stays so. If it cannot, naps go on.
async fn for_good(cluster: &Cluster, args: &RestoreArgs, at: &ClusterArgs) -> anyhow::Result<Outcome> {
    let namespace = connect::lease_namespace(at);
    occupy(cluster, &namespace, HOLDER, NO_NAPS, || Clock::System.now())
        .await
        .with_context(|| format!("cannot take the leader's Lease in {namespace}, so naps go on"))?;
    let since = Instant::now();
    let result = twice(cluster, args, at, since).await;
    if !matches!(result, Ok(Outcome::Done)) {
        output::note(
            "error: not every app is awake, so naps go on, and KubeNap must stay\nhint: mend the apps that are named \
             above, or take their label kubenap/enabled away, and try again",
        );
        if let Err(error) = give_back(cluster, &namespace, HOLDER, Clock::System.now()).await {
            output::note(&format!("error: cannot give the leader's Lease back: {}", error.chain()));
        }
    }
    result
}

/// A leader may not know for a while that it leads no more: whatever it did meanwhile is undone in a second round.
async fn twice(
    cluster: &Cluster,
    args: &RestoreArgs,
    at: &ClusterArgs,
    since: Instant,
) -> anyhow::Result<Outcome> {
    let mut tally = Tally::default();
    restore(cluster, touched(cluster, &at.namespace).await?, args, &mut tally).await;
    if tally.failed + tally.late == 0 {
        tokio::time::sleep_until(since + RENEW_DEADLINE).await;
        restore(cluster, touched(cluster, &at.namespace).await?, args, &mut tally).await;
    }
    sweep_up(cluster, at, &tally, Spared::Nobody).await?;
    Ok(tally.outcome())
}

async fn restore(cluster: &Cluster, apps: BTreeSet<AppId>, args: &RestoreArgs, tally: &mut Tally) {
    let end = Instant::now() + args.timeout;
    let mut waiting = apps.into_iter();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < AT_ONCE {
            let Some(app) = waiting.next() else { break };
            let cluster = cluster.clone();
            if !tally.done.contains(&app) {
                output::note(&format!("restoring {app}"));
            }
            under_way.spawn(async move {
                let result = bring(&cluster, &app, Want::Restored, || Clock::System.now(), end).await;
                (app, result)
            });
        }
        let Some(Ok((app, result))) = under_way.join_next().await else { break };
        match result {
            Ok(Progress::Done) => {
                if tally.done.insert(app.clone()) {
                    output::line(&format!("{app} is awake"));
                }
            }
            Ok(Progress::Gone) if args.all => output::line(&format!("{app} does not exist any more")),
            Ok(Progress::Gone) => {
                tally.failed += 1;
                output::note(&format!("error: {app} does not exist"));
            }
            Ok(Progress::Stepped | Progress::Waiting) => {
                tally.late += 1;
                output::note(&format!("error: {app} is not awake in time"));
            }
            Ok(Progress::CannotStart(why)) => {
                tally.failed += 1;
                output::note(&format!("error: {app} cannot start: {why}"));
            }
            Err(error) => {
                tally.failed += 1;
                output::note(&format!("error: {app}: {}", error.chain()));
            }
        }
    }
}

async fn sweep_up(cluster: &Cluster, at: &ClusterArgs, tally: &Tally, spare: Spared) -> anyhow::Result<()> {
    let swept = sweep(cluster, &at.namespace).await?;
    output::note(&format!("restored {} apps, took {swept} leftover slices away", tally.done.len()));
    let pieces = hooks::sweep(cluster, &at.namespace, &connect::lease_namespace(at), spare).await?;
    if pieces > 0 {
        output::note(&format!("took {pieces} leftover pieces of proxies' hooks back"));
    }
    Ok(())
}

impl Tally {
    fn outcome(&self) -> Outcome {
        if self.failed > 0 {
            Outcome::Failed
        } else if self.late > 0 {
            Outcome::Late
        } else {
            Outcome::Done
        }
    }
}
