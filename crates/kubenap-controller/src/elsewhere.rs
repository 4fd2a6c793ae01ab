//! Which hosts and paths lead past all apps: to Services of none, on hosts that an app has, too.

use std::collections::{BTreeMap, BTreeSet};

use crate::activity::Target;
use crate::cluster::slim::{SlimIngress, SlimRule};
use crate::cluster::stores::Stores;
use crate::cluster::watched::Watched;
use crate::routes::default_class;
use crate::wake::{Place, stand_for};

/// What all such places together may take of memory, in bytes: about 10,000 of them.
const ROOM: usize = 1 << 20;

/// By more ways than this the requests of one host are not followed: nothing is then taken from its app.
const ENTRANCES: usize = 8;

/// Places that are nobody's.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Elsewhere {
    pub(crate) places: Vec<Place>,
    /// How many rules more there are than there is room for.
    pub(crate) left_out: usize,
}

/// By which way requests come to a route: two that differ may be asked for different requests of the same host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entrance<'a> {
    /// An Ingress of this class; none: it is not known which.
    Class(Option<&'a str>),
    /// What [`SlimRoute`](crate::cluster::slim_route::SlimRoute) says, and which kind it is.
    Route(usize, u64),
}

/// A route, its namespace, and by which way requests come to it.
type Route<'a> = (&'a str, Entrance<'a>, &'a SlimIngress);

/// Reads them from the stores. `targets` are all apps.
pub(crate) fn read(stores: &Stores, targets: &[Target]) -> Elsewhere {
    let services = targets.iter().flat_map(|target| target.services.iter());
    let apps: BTreeSet<_> = services.map(|service| (&*service.namespace, &*service.name)).collect();
    let classes = stores.ingress_classes.within("");
    let default = default_class(&classes).map(|(name, _)| name);
    let ingresses = stores.ingresses.all();
    let kinds: Vec<_> = stores.routes.iter().map(Watched::all).collect();
    let mut routes: Vec<Route<'_>> = Vec::new();
    for (namespace, space) in &ingresses {
        for ingress in space.values() {
            let class = ingress.class.as_deref().or(default);
            routes.push((namespace, Entrance::Class(class), ingress));
        }
    }
    for (kind, spaces) in kinds.iter().enumerate() {
        for (namespace, space) in spaces {
            for route in space.values() {
                routes.push((namespace, Entrance::Route(kind, route.entrance), &route.ingress));
            }
        }
    }
    among(&routes, &apps, ROOM)
}

/// Of these routes, the places that lead to no Service of an app and could be taken for one's: on a host of an app, by
/// every entrance by which its requests come. Anything else would be doubt, and doubt wakes.
fn among<'a>(routes: &[Route<'a>], apps: &BTreeSet<(&'a str, &'a str)>, room: usize) -> Elsewhere {
    let is_an_app_s = |namespace: &'a str, rule: &'a SlimRule| apps.contains(&(namespace, &*rule.service));
    let rules = |wanted: bool| {
        let all = routes.iter().flat_map(|route| route.2.rules.iter().map(move |rule| (route, rule)));
        all.filter(move |((namespace, _, _), rule)| is_an_app_s(namespace, rule) == wanted)
    };
    let mut elsewhere = Elsewhere::default();
    if apps.is_empty() || rules(false).next().is_none() {
        return elsewhere;
    }
    let mut hosts: BTreeMap<String, Vec<Entrance<'_>>> = BTreeMap::new();
    for ((_, entrance, _), rule) in rules(true) {
        let Some(place) = place(rule) else { continue };
        let by = hosts.entry(place.host().to_owned()).or_default();
        if by.len() <= ENTRANCES && !by.contains(entrance) {
            by.push(*entrance);
        }
    }
    let entrances = |place: &Place| {
        let by = stand_for(place.host()).find_map(|host| hosts.get(&host));
        by.filter(|by| by.len() <= ENTRANCES)
    };
    let (mut found, mut taken) = (Vec::new(), 0);
    for ((_, entrance, _), rule) in rules(false).filter(|(_, rule)| rule.outright) {
        let Some(place) = place(rule) else { continue };
        if !entrances(&place).is_some_and(|by| by.contains(entrance)) {
            continue;
        }
        if taken + place.size() > room {
            elsewhere.left_out += 1;
            continue;
        }
        taken += place.size();
        found.push((place, *entrance));
    }
    found.sort();
    found.dedup();
    let places = found.chunk_by(|(a, _), (b, _)| a == b).filter_map(|same| {
        let (place, _) = same.first()?;
        entrances(place).filter(|by| by.len() == same.len()).map(|_| place.clone())
    });
    elsewhere.places = places.collect();
    elsewhere
}

fn place(rule: &SlimRule) -> Option<Place> {
    Place::new(rule.host.as_deref().unwrap_or("*"), &rule.path, rule.exact)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::Ingress;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::slim::Slim as _;

    /// Hosts, paths and Services.
    fn ingress(rules: &[(&str, &str, &str)]) -> SlimIngress {
        annotated(rules, &Value::Null)
    }

    fn annotated(rules: &[(&str, &str, &str)], annotations: &Value) -> SlimIngress {
        let rule = |&(host, path, service): &(&str, &str, &str)| {
            let backend = json!({ "service": { "name": service, "port": { "number": 80 } } });
            json!({ "host": host, "http": { "paths": [{ "path": path, "pathType": "Prefix", "backend": backend }] } })
        };
        let rules: Vec<_> = rules.iter().map(rule).collect();
        let ingress = json!({
            "metadata": { "name": "all", "annotations": annotations }, "spec": { "rules": rules },
        });
        SlimIngress::of(serde_json::from_value::<Ingress>(ingress).unwrap())
    }

    fn found(routes: &[Route<'_>], room: usize) -> Elsewhere {
        among(routes, &BTreeSet::from([("shop", "web")]), room)
    }

    fn places(rules: &[(&str, &str)]) -> Vec<Place> {
        let mut places: Vec<_> =
            rules.iter().filter_map(|(host, path)| Place::new(host, path, false)).collect();
        places.sort();
        places
    }

    #[test]
    fn only_what_shares_a_host_with_an_app_by_the_same_way_is_kept() {
        let (traefik, nginx) = (Entrance::Class(Some("traefik")), Entrance::Class(Some("nginx")));
        let web = ingress(&[
            ("web.example", "/", "web"),
            ("web.example", "/api", "api"),
            ("*.wild.example", "/", "web"),
        ]);
        let own = ingress(&[("web.example", "/", "web")]);
        let mixed = ingress(&[
            ("away.example", "/", "api"),
            ("a.wild.example", "/", "api"),
            ("WEB.example", "/x", "api"),
        ]);
        let all = [("shop", traefik, &web), ("other", traefik, &mixed)];
        let expected = [("web.example", "/api"), ("a.wild.example", "/"), ("web.example", "/x")];
        assert_eq!(found(&all, ROOM).places, places(&expected));
        // Another proxy's Ingress takes nothing from this one's.
        let all = [("shop", traefik, &web), ("other", nginx, &mixed)];
        assert_eq!(found(&all, ROOM).places, places(&expected[..1]));
        // By both of them: which one asks is not known, unless both of them lead the same way.
        let all = [("shop", traefik, &web), ("other", traefik, &mixed), ("shop", nginx, &web)];
        assert_eq!(found(&all, ROOM).places, places(&expected[..1]));
        let all = [("shop", traefik, &web), ("other", traefik, &mixed), ("shop", nginx, &own)];
        let expected = [("a.wild.example", "/")];
        assert_eq!(found(&all, ROOM).places, places(&expected));
        // A share of the requests for a place is not the place.
        let share = annotated(
            &[("web.example", "/api", "api")],
            &json!({ "nginx.ingress.kubernetes.io/canary": "true" }),
        );
        assert_eq!(found(&[("shop", nginx, &own), ("shop", nginx, &share)], ROOM), Elsewhere::default());
    }

    #[test]
    fn ten_thousand_rules_of_others_take_nothing_unless_they_share_an_app_s_host_and_then_no_more_than_the_room()
     {
        let by = Entrance::Class(None);
        let own = ingress(&[("web.example", "/", "web")]);
        let texts: Vec<_> = (0..10_000).map(|n| (format!("app-{n}.example"), format!("/path-{n}"))).collect();
        let apart: Vec<_> = texts.iter().map(|(host, path)| (&**host, &**path, "api")).collect();
        let apart = ingress(&apart);
        assert_eq!(found(&[("shop", by, &own), ("other", by, &apart)], ROOM), Elsewhere::default());
        let shared: Vec<_> = texts.iter().map(|(_, path)| ("web.example", &**path, "api")).collect();
        let shared = ingress(&shared);
        let all = found(&[("shop", by, &own), ("other", by, &shared)], ROOM);
        assert_eq!((all.places.len(), all.left_out), (10_000, 0));
        let some = found(&[("shop", by, &own), ("other", by, &shared)], ROOM / 4);
        assert!(some.places.iter().map(Place::size).sum::<usize>() <= ROOM / 4);
        assert!(some.left_out > 5_000 && some.places.len() + some.left_out == 10_000);
    }
}
