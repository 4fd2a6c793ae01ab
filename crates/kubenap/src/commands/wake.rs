//! `kubenap wake APP`: replicas back by the writes that the controller makes, then wait until it is awake.

use std::time::Duration;

use kubenap_controller::clock::Clock;
use kubenap_controller::nap::by_hand::{Progress, Want, bring};
use tokio::time::Instant;

use crate::args::{ClusterArgs, WakeArgs};
use crate::outcome::Outcome;
use crate::{connect, output};

pub(crate) async fn run(args: WakeArgs, at: &ClusterArgs) -> anyhow::Result<Outcome> {
    let cluster = connect::cluster(at).await?;
    let app = connect::app(at, &args.app)?;
    let limit = if args.no_wait { Duration::ZERO } else { args.timeout };
    let end = Instant::now() + limit;
    output::note(&format!("waking {app}"));
    match bring(&cluster, &app, Want::Awake, || Clock::System.now(), end).await? {
        Progress::Done => {
            output::line(&format!("{app} is awake"));
            Ok(Outcome::Done)
        }
        Progress::Stepped | Progress::Waiting if args.no_wait => {
            output::line(&format!("{app} is waking"));
            Ok(Outcome::Done)
        }
        Progress::Stepped | Progress::Waiting => {
            output::note(&format!("error: {app} is not awake in time"));
            Ok(Outcome::Late)
        }
        Progress::CannotStart(why) => anyhow::bail!("{app} cannot start: {why}"),
        Progress::Gone => anyhow::bail!("{app} does not exist"),
    }
}
