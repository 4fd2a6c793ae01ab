//! From ledgers to samples: which presets cover an app, and what they say of it together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;

use super::ledger::{Ledger, Shown};
use super::mapping::{clusters, gateway, ingress_route, is_untold, rules};
use super::preset::{Preset, is_pod_of};
use super::{AppSample, Ask, RouteForm, Samples, Target, TargetRoute};

/// What is known of one preset after a poll.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) ledger: &'a Ledger,
    /// Whether an instance of it answered in this poll.
    pub(super) live: bool,
    /// What forbids a nap for every app that it covers.
    pub(super) blind: BTreeSet<Blind>,
    /// A watermark older than this is stale.
    pub(super) fresh: SignedDuration,
}

/// Two scrape intervals of a minute and a poll fit into it.
pub(super) const FRESH: SignedDuration = SignedDuration::from_secs(150);

/// How many of the label values looked for are told.
const TOLD: usize = 8;

/// What is told in place of names where none would do.
const CONNECTIONS: &str = "nothing, for connections lead to it (by a TLSRoute, a TCPRoute, an IngressRouteTCP or a VirtualService's tls and tcp), or a kind of route cannot be listed, which the log names: only a query of its own shows those, where kubenap/metrics names only sources that ask it";

const NGINX_CONTROLLER: &str = "k8s.io/ingress-nginx";

/// The proxies of a view, and counters that somebody names himself.
pub(super) fn proxies() -> impl Iterator<Item = Preset> {
    Preset::PROXIES.into_iter().chain([Preset::Named, Preset::Logs])
}

/// What the views say about every app that was asked for. Proxies in the `dark` exist but do not answer: an app
/// may be behind one of them as long as nobody says which controller its Ingresses have.
pub(super) fn samples(ask: &Ask, views: &BTreeMap<Preset, View<'_>>, dark: &BTreeSet<Preset>) -> Samples {
    let views: BTreeMap<Preset, Indexed<'_>> =
        views.iter().map(|(preset, view)| (*preset, Indexed { view, index: view.ledger.index() })).collect();
    let mut late = BTreeSet::new();
    let apps = ask.targets.iter().map(|target| {
        let (sample, sees_open) = sample(target, ask.now, &views, dark);
        if !sees_open {
            late.insert(target.app.clone());
        }
        (target.app.clone(), sample)
    });
    let apps = apps.collect();
    let looked = Looked { targets: Arc::clone(&ask.targets), presets: views.keys().copied().collect() };
    Samples { apps, otherwise: Blind::NoSeries, late, looked: Some(looked), asked: BTreeMap::new() }
}

/// What names were looked for, told when somebody asks: of thousands of apps they are a mountain of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Looked {
    targets: Arc<[Target]>,
    /// Those that there was something of.
    presets: BTreeSet<Preset>,
}

impl Looked {
    /// The first few label values.
    pub(super) fn of(&self, app: &AppId) -> Vec<String> {
        // They come in order of app, except from tests.
        let ordered = self.targets.binary_search_by(|target| target.app.cmp(app)).ok();
        let place = ordered.or_else(|| self.targets.iter().position(|target| target.app == *app));
        let Some(target) = place.and_then(|place| self.targets.get(place)) else { return Vec::new() };
        if is_unseen(target) {
            return vec![CONNECTIONS.to_owned()];
        }
        let mut names: BTreeSet<_> = proxies()
            // Of proxies that are not there nothing is looked for, unless there is none at all.
            .filter(|preset| *preset == Preset::Traefik || self.presets.contains(preset))
            .flat_map(|preset| preset.expected(target))
            .collect();
        if names.len() < TOLD {
            names.insert(format!("{}/{}-*", app.namespace, app.name));
        }
        names.into_iter().take(TOLD).collect()
    }
}

struct Indexed<'a> {
    view: &'a View<'a>,
    index: BTreeMap<&'a str, Vec<Shown>>,
}

/// One preset's word about one app.
struct Word {
    last_seen: Timestamp,
    watermark: Timestamp,
    blind: BTreeSet<Blind>,
}

fn sample(
    target: &Target,
    now: Timestamp,
    views: &BTreeMap<Preset, Indexed<'_>>,
    dark: &BTreeSet<Preset>,
) -> (AppSample, bool) {
    let mut words = Vec::new();
    let mut sees_open = true;
    let mut matched = 0;
    let mut hints = Vec::new();

    let unserved = unserved(target, views, dark);
    let sees_every = sees_every_route(target, views);
    // What proxies answer themselves is no use of an app that has no pods.
    let has_pods = target.pods.as_ref().is_none_or(|pods| !pods.is_empty());
    let mut fresh = SignedDuration::ZERO;
    for preset in proxies() {
        let Some(indexed) = views.get(&preset) else { continue };
        let expected = preset.expected(target);
        fresh = fresh.max(indexed.view.fresh);
        matched +=
            expected.iter().filter_map(|key| indexed.index.get(key.as_str())).map(Vec::len).sum::<usize>();
        if preset == Preset::Logs {
            // Lines are no counters: each name that was read is one series.
            matched += expected.iter().filter(|key| indexed.view.ledger.has_known(key)).count();
        }
        let seen = expected.iter().filter_map(|key| indexed.view.ledger.changed(key, has_pods)).max();
        let known = || expected.iter().any(|key| indexed.view.ledger.has_known(key));
        // A log that names Services would name this one.
        let names = || ["svc *", "up *"].iter().any(|any| indexed.view.ledger.has_known(any));
        let is_born = preset.is_born_at_first_request() || (preset == Preset::Logs && names());
        let mapped = (is_born && is_routed(target)) || known();
        // Whoever names counters after Services, or a log, says that these are all.
        let whole = sees_every || matches!(preset, Preset::Named | Preset::Logs);
        let routed = mapped && whole && unserved.is_none();
        if indexed.view.live && routed {
            sees_open &= preset.open().is_some();
            words.push(proxy_word(indexed.view, seen));
        } else if let Some(seen) = seen {
            // What was seen stays seen. A proxy that served the app and is gone now leaves it in the dark.
            let blind = if indexed.view.live { BTreeSet::new() } else { BTreeSet::from([Blind::Stale]) };
            hints.push(Word { last_seen: seen, watermark: Timestamp::MAX, blind });
        }
    }
    for preset in Preset::OWN {
        let covered = !words.is_empty();
        if preset == Preset::OwnPlain && covered {
            continue;
        }
        let Some(indexed) = views.get(&preset) else { continue };
        fresh = fresh.max(indexed.view.fresh);
        let own = own(target, indexed);
        matched += own.matched;
        match own.word {
            Some(word) if own.complete => {
                // What pods count themselves is of no proxy that shows more.
                sees_open &= covered;
                words.push(word);
            }
            Some(word) if covered => hints.push(Word { watermark: Timestamp::MAX, ..word }),
            _ => {}
        }
    }
    let mut activity = if words.is_empty() {
        Activity::blind(unserved.unwrap_or(Blind::NoSeries))
    } else {
        let words = words.into_iter().chain(hints);
        let mut activity = Activity::join_all(words.map(|word| Activity {
            last_seen: word.last_seen,
            watermark: word.watermark,
            blind: word.blind,
        }));
        if now.duration_since(activity.watermark) > fresh {
            activity.blind.insert(Blind::Stale);
        }
        activity
    };
    if is_unseen(target) {
        activity.blind.remove(&Blind::NoSeries);
        activity.blind.insert(Blind::NotMapped);
    }
    (AppSample { activity, matched }, sees_open)
}

/// Whether live proxies have shown names of the routes besides Ingresses that lead to the app: of every HTTPRoute and
/// GRPCRoute, for what comes by another one, or through another gateway, may be another proxy's to count; where a proxy names
/// after their Service what routes lead to, as of VirtualServices alone, all of one gateway are one. IngressRoutes are Traefik's
/// alone, so that one that was seen shows that their names are understood; others may be hidden behind it.
fn sees_every_route(target: &Target, views: &BTreeMap<Preset, Indexed<'_>>) -> bool {
    let has = |preset: Preset, name: &str| {
        views.get(&preset).is_some_and(|indexed| indexed.view.live && indexed.view.ledger.has_known(name))
    };
    let shown = |route: &TargetRoute| {
        let by_envoy = || rules(route).any(|name| has(Preset::Envoy, &name));
        let by_traefik = || gateway(route).is_some_and(|name| has(Preset::Traefik, &name));
        let [gateway] = &*route.gateways else { return false };
        !gateway.is_empty() && (by_envoy() || by_traefik())
    };
    target.services.iter().all(|service| {
        let named = |preset: Preset| preset.expected_of(service).iter().any(|name| has(preset, name));
        let by_cluster = |begins: &str| {
            clusters(service).iter().any(|name| name.starts_with(begins) && has(Preset::Envoy, name))
        };
        // Not by the names that Contour and Envoy Gateway give to the same Service.
        let by_mesh = || by_cluster("outbound|") || named(Preset::Istio);
        let by_service = || by_cluster("") || named(Preset::Istio) || named(Preset::HaProxy);
        let known = |rule| ingress_route(service, rule).iter().any(|name| has(Preset::Traefik, name));
        let understood = service.ingress_routes.is_empty() || service.ingress_routes.iter().any(known);
        let (meshed, others): (Vec<_>, Vec<_>) =
            service.routes.iter().partition(|route| route.form == RouteForm::Virtual);
        // By its Service's name an app is seen as soon as one gateway is read; what comes by another one nobody misses.
        let by_one = |routes: &[&TargetRoute]| {
            let gateways = routes.iter().flat_map(|route| &route.gateways);
            let gateways: BTreeSet<_> = gateways.collect();
            gateways.len() == 1 && gateways.iter().all(|gateway| !gateway.is_empty())
        };
        let by_name = by_service() && by_one(&service.routes.iter().collect::<Vec<_>>());
        understood
            && (meshed.is_empty() || (by_mesh() && by_one(&meshed)))
            && (others.iter().copied().all(shown) || by_name)
    })
}

/// Whether connections may come to the app, which are no requests: neither metrics nor logs tell whose they are.
pub(super) fn is_unseen(target: &Target) -> bool {
    target.services.iter().any(|service| service.unseen)
}

pub(super) fn is_routed(target: &Target) -> bool {
    target.services.iter().any(|service| !service.ingress_ports.is_empty())
}

/// Why the live proxies cannot speak for all of the app's ways in.
fn unserved(
    target: &Target,
    views: &BTreeMap<Preset, Indexed<'_>>,
    dark: &BTreeSet<Preset>,
) -> Option<Blind> {
    let live = |preset: Preset| views.get(&preset).is_some_and(|indexed| indexed.view.live);
    // Traefik's provider for ingress-nginx's class has a name of its own in the labels.
    let traefik_as_nginx = || {
        views.get(&Preset::Traefik).is_some_and(|indexed| {
            indexed.view.live && indexed.index.keys().any(|key| key.ends_with("@kubernetesingressnginx"))
        })
    };
    let logs =
        views.get(&Preset::Logs).filter(|indexed| indexed.view.live).map(|indexed| indexed.view.ledger);
    if logs.is_some_and(|logs| target.services.iter().any(|service| is_untold(service, logs))) {
        return Some(Blind::NotMapped);
    }
    let routed = target.services.iter().filter(|service| !service.ingress_ports.is_empty());
    for service in routed {
        let may_be_nginx = service.controllers.is_empty() || service.controllers.contains(NGINX_CONTROLLER);
        // Counters that somebody names after Services may be ingress-nginx's, too.
        let counts = live(Preset::IngressNginx) || live(Preset::Named);
        if service.open_hosts && may_be_nginx && counts {
            // ingress-nginx does not count what comes for a host that no Ingress spells out.
            return Some(Blind::NotMapped);
        }
        if service.controllers.is_empty() && !dark.is_empty() {
            return Some(Blind::SourceDown);
        }
        for controller in &service.controllers {
            let by = |preset: Preset| preset.serves(controller) && live(preset);
            let served = proxies().any(by) || (controller == NGINX_CONTROLLER && traefik_as_nginx());
            if !served {
                return Some(Blind::NotMapped);
            }
        }
    }
    None
}

/// A proxy whose series are born at the first request: no series means no request since its knowledge begins.
fn proxy_word(view: &View<'_>, seen: Option<Timestamp>) -> Word {
    let floor = view.ledger.floor();
    let mut blind = view.blind.clone();
    if view.ledger.watermark().is_none() {
        blind.insert(Blind::SourceDown);
    }
    Word {
        last_seen: seen.map_or(floor, |seen| seen.max(floor)),
        watermark: view.ledger.watermark().unwrap_or(Timestamp::MIN),
        blind,
    }
}

struct OwnWord {
    word: Option<Word>,
    matched: usize,
    /// Whether every pod of the app speaks.
    complete: bool,
}

fn own(target: &Target, indexed: &Indexed<'_>) -> OwnWord {
    let prefix =
        format!("{}/{}", target.app.namespace, target.app.name.get(..57).unwrap_or(&target.app.name));
    let is_own = |key: &&str| {
        key.split_once('/').is_some_and(|(_, pod)| {
            is_pod_of(pod, &target.app.name) || target.pods.as_ref().is_some_and(|pods| pods.contains(pod))
        })
    };
    let keys: Vec<_> = indexed
        .index
        .range(prefix.as_str()..)
        .take_while(|(key, _)| key.starts_with(&prefix))
        .filter(|(key, _)| is_own(key))
        .collect();
    let shown = || keys.iter().flat_map(|(_, shown)| shown.iter());
    let matched = shown().count();
    let seen =
        indexed.view.ledger.changed_from(&prefix).filter(|(key, _)| is_own(key)).map(|(_, at)| at).max();
    let every_pod = target.pods.as_ref().is_none_or(|pods| {
        pods.iter()
            .all(|pod| keys.iter().any(|(key, _)| key.split_once('/').is_some_and(|(_, of)| of == pod)))
    });
    let begins = shown().map(|shown| shown.first).max();
    let watermark = shown().map(|shown| shown.scraped).min();
    let word = match (begins.max(seen), watermark) {
        (Some(known), Some(watermark)) => Some(Word {
            last_seen: known.max(indexed.view.ledger.floor()),
            watermark,
            blind: indexed.view.blind.clone(),
        }),
        (Some(known), None) => {
            Some(Word { last_seen: known, watermark: Timestamp::MAX, blind: BTreeSet::new() })
        }
        (None, _) => None,
    };
    OwnWord { word, matched, complete: matched > 0 && every_pod && indexed.view.live }
}
