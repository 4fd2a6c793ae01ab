//! The project's own commands: `cargo xtask e2e` runs the end-to-end tests, `cargo xtask image` makes the image.

mod image;
mod manifest;
mod e2e;

use std::process::ExitCode;

use clap::Parser;

/// Commands for working on `KubeNap` itself.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    E2e(e2e::Args),
    Image(image::Args),
    Manifest(manifest::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Xtask::parse() {
        Xtask::E2e(args) => e2e::run(args).await,
        Xtask::Image(args) => image::run(args).await.map(|()| ExitCode::SUCCESS),
        Xtask::Manifest(args) => manifest::run(&args).await.map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            e2e::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
