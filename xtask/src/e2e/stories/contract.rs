//! The sandbox's contract holds on the real API server: the same tests, with a kubeconfig.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::timeout;

use super::Counts;
use crate::e2e::build;
use crate::e2e::world::Space;

const LONGEST: Duration = Duration::from_secs(10 * 60);

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    // Built before; --offline because there is no way out of the cluster's network.
    let mut tests = build::cargo();
    tests.args(["test", "--offline", "--locked", "-p", "kubenap-sandbox", "--test", "contract"]);
    tests.env("KUBENAP_E2E_KUBECONFIG", space.world.cluster.kubeconfig()).kill_on_drop(true);
    let status = timeout(LONGEST, tests.status()).await.context("the contract tests did not end")??;
    ensure!(status.success(), "the contract tests ended with {status}");
    Ok(Vec::new())
}
