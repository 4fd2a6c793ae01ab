//! One suite of checks of the Kubernetes API: against the sandbox always, and against a real API server
//! when `KUBENAP_E2E_KUBECONFIG` names a kubeconfig.
mod harness;
mod writes;
mod applies;
mod watches;
mod lists;
mod slices;
mod lives;

use harness::{Check, against_a_real_cluster, against_the_sandbox};

/// Every check, by its sentence.
fn checks() -> Vec<Check> {
    [
        writes::checks(),
        applies::checks(),
        watches::checks(),
        lists::checks(),
        slices::checks(),
        lives::checks(),
    ]
    .concat()
}

#[tokio::test(start_paused = true)]
async fn the_sandbox_keeps_the_contract() {
    against_the_sandbox(&checks()).await;
}

#[tokio::test]
async fn a_real_api_server_keeps_the_contract() {
    against_a_real_cluster(&checks()).await;
}
