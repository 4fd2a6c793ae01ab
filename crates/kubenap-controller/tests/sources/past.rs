//! What a source remembers of the past: every use is in it, and what it cannot tell is no quiet.
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be played has failed")]

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kubenap_controller::activity::SourceError;
use kubenap_core::simulate::{Past, Span};

use crate::stage::{Source, Stage, target, traefik};
use crate::stand_in::{Kind, Proxy};

const WEB: &str = "shop-web-80@kubernetes";
const REMEMBER: [Source; 3] = [Source::Prometheus, Source::Flux, Source::InfluxQl];

fn later(moment: Timestamp, minutes: i64) -> Timestamp {
    moment.checked_add(SignedDuration::from_mins(minutes)).unwrap()
}

fn covers(spans: &[Span], moment: Timestamp) -> bool {
    spans.iter().any(|span| (span.from..=span.to).contains(&moment))
}

async fn web(stage: &Stage, ticks: u32) -> Past {
    let pasts = stage.past(ticks).await.unwrap();
    pasts.into_iter().find(|(app, _)| app.name == "web").unwrap().1.past
}

#[tokio::test]
async fn two_requests_in_five_hours_are_two_wakes_and_long_sleep() {
    for kind in REMEMBER {
        let stage = Stage::new(kind).await;
        let begin = stage.now();
        for tick in 1..=1200 {
            match tick {
                240 => stage.count(WEB, 1.0),
                720 => stage.count(WEB, 2.0),
                _ => {}
            }
            stage.pass();
        }
        let past = web(&stage, 1200).await;
        let naps = past.naps(Duration::from_mins(10));
        assert_eq!(naps.wakes, 2, "{kind:?}: {past:?}");
        for minute in [60, 180] {
            assert!(covers(&past.used, later(begin, minute)), "{kind:?}: {past:?}");
            for nap in &naps.asleep {
                assert!(
                    !(nap.from < later(begin, minute) && later(begin, minute) < nap.to),
                    "{kind:?}: {naps:?}"
                );
            }
        }
        // Three quiet times of which ten minutes each are no sleep; the rest is what steps of a minute cannot tell.
        let slept = naps.slept();
        assert!((255..=270).contains(&(slept.as_secs() / 60)), "{kind:?}: {slept:?}");
        assert!(past.unknown_for() <= Duration::from_mins(5), "{kind:?}: {past:?}");
    }
}

#[tokio::test]
async fn a_hole_in_the_history_is_no_quiet() {
    for kind in REMEMBER {
        let stage = Stage::new(kind).await;
        stage.count(WEB, 5.0);
        let begin = stage.now();
        for _ in 0..960 {
            stage.pass();
        }
        let hole = later(begin, 60)..later(begin, 120);
        let inside =
            |at: f64| hole.contains(&Timestamp::from_duration(SignedDuration::from_secs_f64(at)).unwrap());
        stage.world().log.retain(|moment| !inside(moment.0));
        let past = web(&stage, 960).await;
        let known = past.unknown_for();
        assert!((55..=70).contains(&(known.as_secs() / 60)), "{kind:?}: {past:?}");
        for nap in past.naps(Duration::from_mins(10)).asleep {
            assert!(nap.to <= later(begin, 62) || nap.from >= later(begin, 129), "{kind:?}: {nap:?}");
        }
    }
}

#[tokio::test]
async fn a_replica_that_could_not_be_scraped_is_no_quiet() {
    for kind in REMEMBER {
        let stage = Stage::new(kind).await;
        stage.count(WEB, 5.0);
        let begin = stage.now();
        for tick in 0..480 {
            stage.proxy("a", |proxy| {
                proxy.up = !(120..240).contains(&tick);
                if tick == 240 {
                    proxy.started += 1800.0;
                    proxy.counters.clear();
                }
            });
            stage.pass();
        }
        let past = web(&stage, 480).await;
        for minute in 35..60 {
            let moment = later(begin, minute);
            assert!(
                covers(&past.unknown, moment) || covers(&past.used, moment),
                "{kind:?} {minute}: {past:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_app_that_no_proxy_knows_is_unknown_all_the_time() {
    for kind in REMEMBER {
        let mut stage = Stage::new(kind).await;
        let mut hidden = target("shop", "web");
        hidden.services[0].ingress_ports.clear();
        stage.targets = vec![hidden];
        for _ in 0..100 {
            stage.pass();
        }
        let past = web(&stage, 100).await;
        assert_eq!((past.unknown.as_slice(), past.used.as_slice()), (&[past.whole][..], &[][..]), "{kind:?}");
    }
}

#[tokio::test]
async fn no_sleep_is_promised_to_an_app_whose_pods_count_requests_and_which_connections_reach_too() {
    const POD: &str = "web-6d7fdd8798-mg4f4";
    for unseen in [false, true] {
        let mut stage = Stage::new(Source::Prometheus).await;
        stage.targets[0].services[0].ingress_ports.clear();
        stage.targets[0].services[0].unseen = unseen;
        let own = Proxy {
            kind: Kind::Own,
            counters: [(format!("namespace=\"shop\",pod=\"{POD}\""), 4.0)].into(),
            ..traefik(0.0)
        };
        stage.world().proxies.insert(POD.to_owned(), own);
        for _ in 0..100 {
            stage.pass();
        }
        let past = web(&stage, 100).await;
        let sleeps = !past.naps(Duration::from_mins(10)).asleep.is_empty();
        assert_eq!(sleeps, !unseen, "{past:?}");
    }
}

#[tokio::test]
async fn a_source_without_a_memory_says_which_have_one() {
    let stage = Stage::new(Source::Ingress).await;
    let error = stage.past(10).await.unwrap_err();
    assert!(matches!(error, SourceError::NoPast { .. }));
    assert!(
        error.to_string().contains("accepted: a source of kind prometheus or influxdb; hint: "),
        "{error}"
    );
}

#[tokio::test]
async fn no_use_is_lost_whatever_happens_to_server_and_proxy() {
    // xorshift: the same days on every machine.
    let mut random = 88_172_645_463_325_252_u64;
    let mut below = move |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let (mut requests, mut naps, mut unknown) = (0, 0, 0);
    for round in 0..30 {
        let kind = REMEMBER[round % 3];
        let stage = Stage::new(kind).await;
        let (mut count, mut down, mut away) = (1.0, 0, 0);
        // A use that was lost with its proxy before anybody read it, nobody can know.
        let (mut moments, mut unread) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            // A use, then quiet for a while, in a world in which proxy and server go away and restart.
            let used = below(40) == 0;
            down = if below(120) == 0 { below(30) } else { u64::saturating_sub(down, 1) };
            away = if below(150) == 0 { below(40) } else { u64::saturating_sub(away, 1) };
            let restarts = down == 0 && below(200) == 0;
            if restarts {
                unread.clear();
                count = 0.0;
            }
            if used {
                count += 1.0;
                unread.push(stage.now());
            }
            let now = stage.world().now;
            stage.proxy("a", |proxy| {
                proxy.up = down == 0;
                if restarts {
                    proxy.started = now;
                    proxy.counters.clear();
                }
                if count > 0.0 {
                    proxy.counters.insert(format!("service=\"{WEB}\""), count);
                }
            });
            stage.pass();
            if away > 0 {
                stage.world().log.pop();
            } else if down == 0 {
                moments.append(&mut unread);
            }
        }
        let Ok(pasts) = stage.past(400).await else { continue };
        let past = &pasts[0].1.past;
        let asleep = past.naps(Duration::from_mins(5)).asleep;
        for moment in &moments {
            // It was counted with the tick that followed.
            let seen = moment.checked_add(SignedDuration::from_secs(15)).unwrap();
            let inside = |span: &Span| span.from < *moment && seen < span.to;
            assert!(!asleep.iter().any(inside), "{kind:?}: used at {moment}, asleep {asleep:?}\n{past:?}");
        }
        requests += moments.len();
        naps += asleep.len();
        unknown += past.unknown.len();
    }
    assert!(
        requests > 150 && naps > 50 && unknown > 20,
        "{requests} uses, {naps} naps, {unknown} unknown times"
    );
}
