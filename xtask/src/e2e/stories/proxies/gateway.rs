//! The same suite through Envoy Gateway, which takes long to build: by substitution and on its own error path.

use anyhow::Result;

use super::way::Program;
use super::{Counts, tell};
use crate::e2e::world::Space;

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    tell(space, |way| way.program == Program::EnvoyGateway).await
}
