//! An awake app answers as quickly through each proxy with its plugin as without: measured in turns, A/B/A/B.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;

use super::matrix::{self, Table};
use super::stage::{Lane, Stage};
use super::way::Program;
use super::{Counts, prepare};
use crate::e2e::http::{Call, Caller};
use crate::e2e::say;
use crate::e2e::world::Space;

/// How often each of both has its turn.
const TURNS: usize = 100;
/// So many requests, one after the other.
const REQUESTS: usize = 25;
/// Of the first ones connections are made, and code is loaded.
const WARM_UP: usize = 200;

/// The two medians of one turn each.
struct Turn {
    without: Duration,
    with: Duration,
}

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    let programs = prepare(space).await?;
    let stage =
        Stage::set(space, &programs, |way| !way.substitutes() && way.program != Program::EnvoyGateway)
            .await?;
    for lane in &stage.lanes {
        lane.hook_one(space, &programs).await.with_context(|| lane.way.name)?;
    }
    let mut table = Table::new();
    for lane in &stage.lanes {
        lane.until_open().await?;
        let before = lane.asks(space).await?;
        let turns = measure(lane).await.with_context(|| lane.way.name)?;
        let asked = lane.asks(space).await? - before;
        ensure!(asked.abs() < 0.5, "{}: {asked} requests reached KubeNap", lane.way.name);
        let row = row(&turns);
        say(&format!("   {}, {}: {row:?}", lane.way.program.title(), lane.way.form));
        table.insert(
            format!(
                "{} {}, {}",
                lane.way.program.title(),
                programs.version(lane.way.program)?,
                lane.way.form
            ),
            row.into(),
        );
    }
    let ways = table.len() as u64;
    matrix::write_pace(&table).context("write the table")?;
    Ok(vec![("ways in", ways), ("requests", ways * (2 * TURNS * REQUESTS) as u64)])
}

/// The app with the plugin in front of it, and its twin without, in turns.
async fn measure(lane: &Lane) -> Result<Vec<Turn>> {
    let mut without = Caller::kept(lane.slow.http, &lane.slow.host);
    let mut with = Caller::kept(lane.site.http, &lane.site.host);
    for caller in [&mut without, &mut with] {
        times(caller, WARM_UP).await?;
    }
    let mut turns = Vec::new();
    for turn in 0..TURNS {
        // Who is first changes, so that what gets slower with time counts for neither.
        let (first, second) =
            if turn % 2 == 0 { (&mut without, &mut with) } else { (&mut with, &mut without) };
        let (first, second) = (median(times(first, REQUESTS).await?), median(times(second, REQUESTS).await?));
        let (without, with) = if turn % 2 == 0 { (first, second) } else { (second, first) };
        turns.push(Turn { without, with });
    }
    Ok(turns)
}

async fn times(caller: &mut Caller, requests: usize) -> Result<Vec<Duration>> {
    let mut all = Vec::new();
    for number in 0..requests {
        let (call, begun) = (Call::get(format!("/pace?n={number}")), Instant::now());
        let reply = caller.send(&call).await?;
        all.push(begun.elapsed());
        reply.ensure_from_app()?;
    }
    Ok(all)
}

fn median<T: Ord + Copy + Default>(mut all: Vec<T>) -> T {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// What the table says: both medians, their ratio, and how far the ratios of single turns are apart.
fn row(turns: &[Turn]) -> [(String, String); 4] {
    let ms = |of: fn(&Turn) -> Duration| median(turns.iter().map(of).collect()).as_secs_f64() * 1000.0;
    let (without, with) = (ms(|turn| turn.without), ms(|turn| turn.with));
    let mut ratios: Vec<f64> =
        turns.iter().map(|turn| turn.with.as_secs_f64() / turn.without.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |quarter: usize| ratios.get(ratios.len() * quarter / 4).copied().unwrap_or(f64::NAN);
    [
        ("1. without".to_owned(), format!("{without:.2} ms")),
        ("2. with".to_owned(), format!("{with:.2} ms")),
        ("3. ratio of single turns, median".to_owned(), format!("{:.2}", at(2))),
        ("4. middle half of them".to_owned(), format!("{:.2} to {:.2}", at(1), at(3))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_was_disturbed_does_not_change_the_ratio() {
        let turn = |without: u64, with: u64| Turn {
            without: Duration::from_micros(without),
            with: Duration::from_micros(with),
        };
        let turns = [turn(1000, 1010), turn(1000, 990), turn(1000, 1000), turn(1000, 9000), turn(1000, 1000)];
        let row = row(&turns);
        assert_eq!(row[2].1, "1.00");
        assert_eq!(row[3].1, "1.00 to 1.01");
    }
}
