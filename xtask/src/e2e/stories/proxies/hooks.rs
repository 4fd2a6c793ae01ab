//! The same suite on the proxies' own error paths, for apps that are not substituted.

use anyhow::Result;

use super::way::Program;
use super::{Counts, tell};
use crate::e2e::world::Space;

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    tell(space, |way| !way.substitutes() && way.program != Program::EnvoyGateway).await
}
