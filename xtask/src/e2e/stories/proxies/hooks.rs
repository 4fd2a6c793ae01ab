//! The same suite on the proxies' own error paths, without substitution; some fall short in a case as yet.

use anyhow::Result;

use super::{Counts, tell};
use crate::e2e::world::Space;

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    tell(space, |way| !way.substitutes()).await
}
