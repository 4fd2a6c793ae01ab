//! `kubenap restore`: apps awake and every trace of KubeNap gone, with a kubeconfig alone.

use kubenap_controller::clock::Clock;
use kubenap_controller::nap::by_hand::{Progress, Want, bring, sweep, touched};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::{ClusterArgs, RestoreArgs};
use crate::outcome::Outcome;
use crate::{connect, members, output};

/// So many apps are restored at the same time.
const AT_ONCE: usize = 16;

pub(crate) async fn run(args: RestoreArgs, at: &ClusterArgs) -> anyhow::Result<Outcome> {
    if args.apps.is_empty() && !args.all {
        let usage = anyhow::Error::new(Outcome::Usage);
        return Err(
            usage.context("no app is named\nhint: kubenap restore NAMESPACE/NAME, or kubenap restore --all")
        );
    }
    let cluster = connect::cluster(at).await?;
    let apps: Vec<_> = if args.all {
        touched(&cluster, &at.namespace).await?.into_iter().collect()
    } else {
        args.apps.iter().map(|text| connect::app(at, text)).collect::<Result<_, _>>()?
    };
    let end = Instant::now() + args.timeout;
    let (mut failed, mut late, mut done) = (0, 0, 0);
    let mut waiting = apps.into_iter();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < AT_ONCE {
            let Some(app) = waiting.next() else { break };
            let cluster = cluster.clone();
            output::note(&format!("restoring {app}"));
            under_way.spawn(async move {
                let result = bring(&cluster, &app, Want::Restored, || Clock::System.now(), end).await;
                (app, result)
            });
        }
        let Some(Ok((app, result))) = under_way.join_next().await else { break };
        match result {
            Ok(Progress::Done) => {
                done += 1;
                output::line(&format!("{app} is awake"));
            }
            Ok(Progress::Gone) if args.all => output::line(&format!("{app} does not exist any more")),
            Ok(Progress::Gone) => {
                failed += 1;
                output::note(&format!("error: {app} does not exist"));
            }
            Ok(Progress::Stepped | Progress::Waiting) => {
                late += 1;
                output::note(&format!("error: {app} is not awake in time"));
            }
            Ok(Progress::CannotStart(why)) => {
                failed += 1;
                output::note(&format!("error: {app} cannot start: {why}"));
            }
            Err(error) => {
                failed += 1;
                output::note(&format!("error: {app}: {}", error.chain()));
            }
        }
    }
    if members::leader(&cluster, &connect::lease_namespace(at)).await.is_ok_and(|leader| leader.is_some()) {
        output::note("note: a controller runs, and apps that keep their label nap again when they are quiet");
    }
    if args.all {
        let swept = sweep(&cluster, &at.namespace).await?;
        output::note(&format!("restored {done} apps, took {swept} leftover slices away"));
    }
    Ok(if failed > 0 {
        Outcome::Failed
    } else if late > 0 {
        Outcome::Late
    } else {
        Outcome::Done
    })
}
