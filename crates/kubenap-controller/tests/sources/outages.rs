//! Random outages of servers and proxies: whatever they are, no use that a source could know is dated too early.
//!
//! `KUBENAP_OUTAGES=10000 cargo test -p kubenap-controller --test sources outages -- --nocapture` has as many of each
//! source as it is told; without, a few hundred. With `UPDATE_EXPECT=1` a run of at least 10,000 is written down in
//! `docs/reference/outages.md`.
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be played has failed")]
#![expect(clippy::print_stdout, reason = "it says what it has counted")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::stage::{Source, Stage, TICK, traefik};
use crate::stand_in::Fault;

const WEB: &str = "shop-web-80@kubernetes";
const IDLE_AFTER: Duration = Duration::from_mins(2);
/// How far a source looks back when it is restarted. Some proxies are down for longer.
const HISTORY: Duration = Duration::from_mins(8);
/// After so many ticks the world begins anew, so that its memory stays small.
const DAY: u32 = 120;

/// xorshift: the same days on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

#[derive(Debug, Default)]
struct Counts {
    outages: usize,
    uses: usize,
    ticks: usize,
    quiet: usize,
    blind: usize,
    failed: usize,
}

/// What a poll that was answered showed of one proxy.
type Shown = (u64, u64);

/// A day of one source, with a use now and then, in which everything that can fail does.
async fn day(kind: Source, chance: &mut Chance, counts: &mut Counts) {
    let mut stage = Stage::new(kind).await;
    stage.history = HISTORY;
    let mut shown: BTreeMap<&str, Shown> = BTreeMap::new();
    let mut pending: BTreeMap<&str, Timestamp> = BTreeMap::new();
    let mut known: BTreeMap<&str, Timestamp> = BTreeMap::new();
    let mut answered = stage.now();
    let mut scraped: BTreeMap<&str, Timestamp> = BTreeMap::new();
    let (mut fault_for, mut down_for) = (0, BTreeMap::from([("a", 0), ("b", 0)]));
    let mut serial = 1.0;
    for _ in 0..DAY {
        counts.ticks += 1;
        // What happens to the proxies.
        for name in ["a", "b"] {
            if !stage.world().proxies.contains_key(name) {
                if name == "b" && chance.one_in(10) {
                    let started = stage.world().now;
                    stage.world().proxies.insert("b".to_owned(), traefik(started));
                }
                continue;
            }
            let left = down_for.get_mut(name).unwrap();
            if *left == 0 && chance.one_in(9) {
                *left = if chance.one_in(20) { 40 + chance.below(20) } else { 1 + chance.below(12) };
                counts.outages += 1;
            }
            *left = left.saturating_sub(1);
            let (up, restarts) = (*left == 0, chance.one_in(25));
            let now = stage.world().now;
            stage.proxy(name, |proxy| {
                proxy.up = up;
                if restarts {
                    proxy.started = now;
                    proxy.counters.clear();
                }
            });
            if restarts {
                counts.outages += 1;
                // What it served since it was read last is lost with it.
                pending.remove(name);
            }
            if name == "b" && chance.one_in(60) {
                stage.world().proxies.remove("b");
                counts.outages += 1;
                pending.remove("b");
                shown.remove("b");
                scraped.remove("b");
                continue;
            }
            if chance.one_in(14) {
                serial += 1.0;
                stage.proxy(name, |proxy| {
                    proxy.counters.insert(format!("service=\"{WEB}\""), serial);
                });
                counts.uses += 1;
                pending.insert(name, stage.now());
            }
        }
        // What happens to the server.
        if fault_for == 0 && chance.one_in(7) {
            fault_for = 1 + chance.below(8);
            counts.outages += 1;
            let fault = match chance.below(6) {
                0 => Fault::Html,
                1 => Fault::Garbage,
                2 => Fault::Redirect,
                3 => Fault::ErrorIn200,
                4 => Fault::Nothing,
                _ => Fault::Status(503),
            };
            stage.world().fault = Some(fault);
        }
        fault_for = u64::saturating_sub(fault_for, 1);
        if fault_for == 0 {
            stage.world().fault = None;
        }
        if chance.one_in(40) {
            stage.restart();
            // These have no memory: of a replica that is gone by now nothing can be known any more.
            if matches!(kind, Source::Ingress | Source::Pods) {
                known.retain(|name, _| stage.world().proxies.contains_key(*name));
            }
            counts.outages += 1;
        }

        let fine = stage.world().fault.is_none();
        let later = stage.now().checked_add(SignedDuration::from_secs(16)).unwrap();
        let up = |name: &&str| stage.world().proxies.get(*name).is_some_and(|proxy| proxy.up);
        scraped.extend(["a", "b"].into_iter().filter(up).map(|name| (name, later)));
        if stage.tick().await.is_err() {
            counts.failed += 1;
            continue;
        }
        let now = stage.now();
        if fine {
            answered = now;
            let proxies = stage.world().proxies.clone();
            for name in ["a", "b"] {
                let Some(proxy) = proxies.get(name).filter(|proxy| proxy.up) else { continue };
                let count = proxy.counters.values().next().copied().unwrap_or(0.0);
                let now_shown = (count.to_bits(), proxy.started.to_bits());
                let changed = shown.insert(name, now_shown) != Some(now_shown);
                if changed
                    && count > 0.0
                    && let Some(used) = pending.remove(name)
                {
                    known.insert(name, used);
                }
            }
        }
        let activity = stage.activity("shop/web");
        if !activity.blind.is_empty() {
            counts.blind += 1;
            continue;
        }
        // These know who should be there, and cannot have been told of what comes by it since it was read last.
        if matches!(kind, Source::Prometheus | Source::Ingress | Source::Pods) {
            for (name, scraped) in scraped.iter().filter(|(name, _)| down_for[**name] > 0) {
                assert!(
                    activity.watermark <= *scraped,
                    "{kind:?} at {now}: {name} is down since {scraped}, and it says {activity:?}"
                );
            }
        }
        // Real time passes during a poll, too.
        let latest = answered.checked_add(SignedDuration::from_secs(1)).unwrap();
        // Datadog is asked each minute only, and until then its watermark stands before what it could tell by now.
        let told = |used: &&Timestamp| kind != Source::Datadog || **used <= activity.watermark;
        let known = known.values().filter(told).max().copied().unwrap_or(Timestamp::MIN);
        assert!(activity.last_seen >= known, "{kind:?} at {now}: used at {known}, and it says {activity:?}");
        assert!(
            activity.watermark <= latest,
            "{kind:?} at {now}: it was told until {answered}, {activity:?}"
        );
        counts.quiet += usize::from(activity.quiet_since(Timestamp::MIN) >= IDLE_AFTER);
    }
}

async fn outages(kind: Source) {
    let many = std::env::var("KUBENAP_OUTAGES").ok().and_then(|many| many.parse().ok()).unwrap_or(250_usize);
    let mut chance = Chance(88_172_645_463_325_252);
    let mut counts = Counts::default();
    while counts.outages < many {
        day(kind, &mut chance, &mut counts).await;
    }
    let hours = f64::from(u32::try_from(counts.ticks).unwrap()) * TICK / 3600.0;
    println!("{kind:?}: {counts:?}, {hours:.0} hours, 0 uses dated too early");
    // What proves nothing has failed, too.
    assert!(
        counts.uses > many / 10 && counts.quiet > many / 20 && counts.blind + counts.failed > many / 10,
        "{kind:?}: {counts:?}"
    );
    if many >= 10_000 && std::env::var_os("UPDATE_EXPECT").is_some() {
        write_down(kind, &counts);
    }
}

/// The source's row on the page; whoever comes here has seen no use that was dated too early.
fn write_down(kind: Source, counts: &Counts) {
    static PAGE: Mutex<()> = Mutex::new(());
    let _page = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/outages.md");
    let name = match kind {
        Source::Prometheus => "Prometheus",
        Source::Ingress => "the proxies' own metrics",
        Source::Flux => "InfluxDB, Flux",
        Source::InfluxQl => "InfluxDB, InfluxQL",
        Source::Files => "logs in files",
        Source::Pods => "logs of containers",
        Source::Datadog => "Datadog",
    };
    let Counts { outages, uses, ticks, quiet, blind, failed } = counts;
    let row = format!("| {name} | {outages} | {ticks} | {uses} | {quiet} | {blind} | {failed} | 0 | 0 |");
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page.contains(&format!("| {name} |")), "{path} has no row for {name}");
    let lines = page.lines().map(|line| if line.starts_with(&format!("| {name} |")) { &row } else { line });
    let lines: Vec<&str> = lines.collect();
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

macro_rules! outages {
    ($($name:ident $kind:ident)*) => {
        $(#[tokio::test]
        async fn $name() {
            outages(Source::$kind).await;
        })*
    };
}

outages! {
    no_outage_hides_a_use_from_prometheus Prometheus
    no_outage_hides_a_use_from_the_ingress Ingress
    no_outage_hides_a_use_from_flux Flux
    no_outage_hides_a_use_from_influxql InfluxQl
    no_outage_hides_a_use_from_logs_in_files Files
    no_outage_hides_a_use_from_logs_of_pods Pods
    no_outage_hides_a_use_from_datadog Datadog
}
