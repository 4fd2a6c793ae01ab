//! A wake that takes longer than the proxy waits: what a program meets, and what a person at a browser sees.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::time::{Instant, sleep};

use super::kinds::{MOST_REDIRECTS, seconds, told};
use super::stage::Lane;
use crate::e2e::http::Call;

/// How often a page that waits loads itself again.
const RELOAD: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(90);

/// A GET is sent back to the same URL before the proxy loses its patience, as often as it takes.
pub(super) async fn hop(lane: &Lane) -> Result<String> {
    let journey = lane.patient_visitor().follow(&Call::get("/hop?x=1"), MOST_REDIRECTS).await?;
    journey.reply.ensure_from_app()?;
    ensure!(
        journey.took > lane.slow.timeout,
        "the wake took {:?}, no longer than the proxy waits ({:?})",
        journey.took,
        lane.slow.timeout
    );
    Ok(told(&journey))
}

/// A person sees a page at once, which opens by itself.
pub(super) async fn browser(lane: &Lane) -> Result<String> {
    let call = Call::get("/browser?x=1")
        .header("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
        .header("sec-fetch-mode", "navigate");
    let (begun, mut page) = (Instant::now(), None);
    while begun.elapsed() < LONGEST {
        let journey = lane.patient_visitor().follow(&call, MOST_REDIRECTS).await?;
        if journey.reply.status == 200 {
            journey.reply.ensure_from_app()?;
            let opened = seconds(begun.elapsed());
            return Ok(match page {
                Some(after) => format!("waiting page after {after}, opens by itself after {opened}"),
                None => format!("{}, no page", told(&journey)),
            });
        }
        let text = journey.reply.text();
        ensure!(text.contains("http-equiv=\"refresh\""), "no waiting page: {} {text}", journey.reply.status);
        page.get_or_insert(seconds(begun.elapsed()));
        sleep(RELOAD).await;
    }
    bail!("not open after {LONGEST:?}")
}
