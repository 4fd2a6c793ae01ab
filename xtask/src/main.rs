//! The project's own commands: `cargo xtask e2e` runs the end-to-end tests on a real Kubernetes.

mod e2e;

use std::process::ExitCode;

use clap::Parser;

/// Commands for working on `KubeNap` itself.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    E2e(e2e::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Xtask::E2e(args) = Xtask::parse();
    match e2e::run(args).await {
        Ok(code) => code,
        Err(error) => {
            e2e::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
