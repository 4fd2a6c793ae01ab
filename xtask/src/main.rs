//! The project's own commands: `e2e` tells the end-to-end stories, `bench` measures, `image` makes the image.

mod image;
mod manifest;
mod e2e;
mod bench;

use std::process::ExitCode;

use clap::Parser;

/// Commands for working on `KubeNap` itself.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Xtask {
    E2e(e2e::Args),
    Image(image::Args),
    Manifest(manifest::Args),
    Bench(bench::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Xtask::parse() {
        Xtask::E2e(args) => e2e::run(args).await,
        Xtask::Image(args) => image::run(args).await.map(|()| ExitCode::SUCCESS),
        Xtask::Manifest(args) => manifest::run(&args).await.map(|()| ExitCode::SUCCESS),
        Xtask::Bench(args) => bench::run(args).await,
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            e2e::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
