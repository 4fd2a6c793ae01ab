//! The command `kubenap`: runs what was typed, prints, and ends with an exit code that says how it went.

mod args;
mod settings;
mod config;
mod connect;
mod members;
mod rights;
mod outcome;
mod output;
mod commands;

use std::process::ExitCode;

use clap::Parser as _;

use args::Args;
use outcome::Outcome;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let typed = config::as_plugin(std::env::args_os().collect());
    let args = match config::with_file(typed) {
        Ok((all, sources)) => match Args::try_parse_from(all) {
            Ok(args) => match config::with_sources(args, &sources) {
                Ok(args) => args,
                Err(error) => return output::failed(&error, Outcome::Usage),
            },
            Err(error) => return output::clap_error(&error),
        },
        Err(error) => return output::failed(&error, Outcome::Usage),
    };
    // Two TLS providers could be compiled in; rustls wants to be told once which one is meant.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::failed(&anyhow::Error::new(error), Outcome::Failed),
    };
    let code = runtime.block_on(commands::run(args));
    // A command that is done does not wait for its last connections.
    runtime.shutdown_background();
    match code {
        Ok(outcome) => outcome.code(),
        Err(error) => {
            let outcome = error.downcast_ref::<Outcome>().copied().unwrap_or(Outcome::Failed);
            output::failed(&error, outcome)
        }
    }
}
