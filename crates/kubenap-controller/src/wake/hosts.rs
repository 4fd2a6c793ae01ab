//! Which host and path belong to which door, as Ingresses and routes say.

use std::collections::BTreeSet;

use super::door::DoorKey;

/// One host and path prefix that leads to a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    /// An exact host name, `*.example.com` for all names with one label more, or `*` for every host.
    pub host: String,
    /// A prefix by whole segments: `/a` covers `/a` and `/a/b`, not `/ab`. Empty is `/`.
    pub path: String,
    /// The path covers itself alone.
    pub exact: bool,
    /// Where it leads.
    pub key: DoorKey,
}

/// All rules, ready to be searched: in one row and in order, since thousands of hosts have one path each.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct HostTable {
    claims: Vec<(Place, Option<DoorKey>)>,
    /// Places that lead past all doors.
    elsewhere: Vec<Place>,
}

/// What a rule is for; nothing else has the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    host: Box<str>,
    exact: bool,
    /// A whole path where it is exact, otherwise without its last slash.
    path: Box<str>,
}

impl Place {
    /// None: there is no such host. Host and path are as in a [`HostRule`].
    pub fn new(host: &str, path: &str, exact: bool) -> Option<Self> {
        let path = if exact { whole(path) } else { path.trim_end_matches('/') };
        Some(Self { host: normal_host(host)?.into(), exact, path: path.into() })
    }

    /// The host as requests are compared with it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What it takes of memory, in bytes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.host.len() + self.path.len()
    }
}

impl HostTable {
    pub(crate) fn new(rules: Vec<HostRule>, mut elsewhere: Vec<Place>) -> Self {
        let place = |HostRule { host, path, exact, key }: HostRule| {
            Some((Place::new(&host, &path, exact)?, Some(key)))
        };
        let mut claims: Vec<_> = rules.into_iter().filter_map(place).collect();
        claims.sort_by(|(a, _), (b, _)| a.cmp(b));
        // A place that two doors claim leads nowhere.
        claims.dedup_by(|(place, door), (kept, first)| {
            if place != kept {
                return false;
            }
            if door != first {
                *first = None;
            }
            true
        });
        claims.shrink_to_fit();
        elsewhere.sort();
        elsewhere.dedup();
        elsewhere.shrink_to_fit();
        Self { claims, elsewhere }
    }

    /// The door for a request: the most exact host first, then an exact path, then the longest. A host that is
    /// known does not fall back to a wildcard. None, too, where a place that leads elsewhere is the closer one: its host
    /// and its path are as close as the door's, and not both the same. Where only one of them is closer proxies
    /// differ, and who is woken in vain loses less than who is not woken.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&DoorKey> {
        let host = normal_host(host)?;
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let known = stand_for(&host).find(|host| self.knows(host))?;
        let (closer, door) = ways(path)
            .enumerate()
            .find_map(|(closer, (exact, path))| Some((closer, self.claim(&known, exact, path)?)))?;
        let hosts = stand_for(&host).take_while(|host| *host != known).map(|host| (host, closer + 1));
        let mut hosts = hosts.chain([(known.clone(), closer)]);
        let leads_elsewhere = hosts.any(|(host, closer)| {
            let places = self.elsewhere_at(&host);
            let is_one = |way| places.binary_search_by(|place| (place.exact, &*place.path).cmp(&way)).is_ok();
            !places.is_empty() && ways(path).take(closer).any(is_one)
        });
        door.as_ref().filter(|_| !leads_elsewhere)
    }

    /// Whether some request could be told to be for one of these doors.
    pub(crate) fn leads_to_any(&self, keys: &BTreeSet<DoorKey>) -> bool {
        self.claims.iter().filter_map(|(_, door)| door.as_ref()).any(|door| keys.contains(door))
    }

    fn knows(&self, host: &str) -> bool {
        let first = self.claims.partition_point(|(place, _)| *place.host < *host);
        self.claims.get(first).is_some_and(|(place, _)| *place.host == *host)
    }

    fn claim(&self, host: &str, exact: bool, path: &str) -> Option<&Option<DoorKey>> {
        let wanted = (host, exact, path);
        let found =
            self.claims.binary_search_by(|(place, _)| (&*place.host, place.exact, &*place.path).cmp(&wanted));
        self.claims.get(found.ok()?).map(|(_, door)| door)
    }

    fn elsewhere_at(&self, host: &str) -> &[Place] {
        let first = self.elsewhere.partition_point(|place| *place.host < *host);
        let (_, rest) = self.elsewhere.split_at(first);
        let (those, _) = rest.split_at(rest.partition_point(|place| *place.host == *host));
        those
    }
}

/// The hosts of rules that stand for this one, the most exact first: a wildcard for exactly one label.
pub(crate) fn stand_for(host: &str) -> impl Iterator<Item = String> {
    let below = host.split_once('.').filter(|(label, _)| !label.is_empty());
    let below = below.map(|(_, rest)| format!("*.{rest}"));
    [host.to_owned()].into_iter().chain(below).chain(["*".to_owned()])
}

/// The paths of rules that stand for this one, and whether they are exact, the closest first.
fn ways(path: &str) -> impl Iterator<Item = (bool, &str)> {
    [(true, whole(path))].into_iter().chain(prefixes(path).map(|prefix| (false, prefix)))
}

/// No path at all is the root.
fn whole(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// Lower case, without port and last dot; nothing for what is no host.
fn normal_host(host: &str) -> Option<String> {
    let host = host.trim();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => match host.split_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) => return None,
            None => host,
        },
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}

/// The path and everything above it, by whole segments, the longest first, the root last as nothing.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let whole = path.trim_end_matches('/');
    std::iter::successors(Some(whole), |prefix| prefix.rfind('/').map(|slash| &prefix[..slash]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(service: &str) -> DoorKey {
        DoorKey { namespace: "shop".into(), service: service.into(), port: 80 }
    }

    /// A path that begins with `=` is exact, and a Service without a name no app's.
    fn table(rules: &[(&str, &str, &str)]) -> HostTable {
        let plain = |path: &str| (path.trim_start_matches('=').to_owned(), path.starts_with('='));
        let (elsewhere, rules): (Vec<_>, Vec<_>) =
            rules.iter().partition(|(_, _, service)| service.is_empty());
        let rule = |&&(host, path, service): &&(&str, &str, &str)| {
            let (path, exact) = plain(path);
            HostRule { host: host.into(), path, exact, key: key(service) }
        };
        let place = |&&(host, path, _): &&(&str, &str, &str)| {
            let (path, exact) = plain(path);
            Place::new(host, &path, exact)
        };
        HostTable::new(rules.iter().map(rule).collect(), elsewhere.iter().filter_map(place).collect())
    }

    #[test]
    fn the_most_exact_host_and_the_longest_path_win() {
        let table = table(&[
            ("web.example.com", "/", "root"),
            ("web.example.com", "/a/b", "deep"),
            ("*.example.com", "/", "wild"),
        ]);
        for (host, path, found) in [
            ("web.example.com", "/", Some("root")),
            ("WEB.example.com:8443", "/x?y=/a/b", Some("root")),
            ("web.example.com.", "/a/b/c", Some("deep")),
            ("web.example.com", "/a/bc", Some("root")),
            ("other.example.com", "/", Some("wild")),
            ("a.b.example.com", "/", None),
            (".example.com", "/", None),
            ("example.com", "/", None),
            ("example.com.evil", "/", None),
            ("", "/", None),
            ("[::1]:80", "/", None),
            ("web.example.com:80:90", "/", None),
        ] {
            assert_eq!(table.find(host, path), found.map(key).as_ref(), "{host} {path}");
        }
    }

    #[test]
    fn a_rule_that_two_doors_claim_leads_nowhere() {
        let table = table(&[
            ("web.example.com", "/", "one"),
            ("web.example.com", "", "two"),
            ("web.example.com", "/", "one"),
            ("web.example.com", "/own", "two"),
            ("same.example.com", "/", "one"),
            ("same.example.com", "/", "one"),
        ]);
        assert_eq!(table.find("web.example.com", "/"), None);
        assert_eq!(table.find("web.example.com", "/own/x"), Some(&key("two")));
        assert_eq!(table.find("same.example.com", "/"), Some(&key("one")));
    }

    #[test]
    fn an_exact_path_covers_itself_alone_and_goes_before_a_prefix() {
        let table = table(&[
            ("web.example.com", "=/a", "exact"),
            ("web.example.com", "/", "root"),
            ("one.example.com", "=/a", "exact"),
            ("one.example.com", "=/", "home"),
            ("two.example.com", "=/a", "one"),
            ("two.example.com", "=/a", "two"),
            ("two.example.com", "/a", "one"),
        ]);
        for (host, path, found) in [
            ("web.example.com", "/a?b", Some("exact")),
            ("web.example.com", "/a/", Some("root")),
            ("web.example.com", "/a/b", Some("root")),
            ("one.example.com", "/a", Some("exact")),
            ("one.example.com", "/a/", None),
            ("one.example.com", "/a/b", None),
            ("one.example.com", "", Some("home")),
            ("two.example.com", "/a", None),
            ("two.example.com", "/a/b", Some("one")),
        ] {
            assert_eq!(table.find(host, path), found.map(key).as_ref(), "{host} {path}");
        }
    }

    #[test]
    fn what_leads_to_no_app_takes_its_host_and_path_from_the_app_above_it_and_nothing_else() {
        let table = table(&[
            ("web.example.com", "/", "web"),
            ("web.example.com", "/api", ""),
            ("web.example.com", "/api/own", "own"),
            ("web.example.com", "=/exact", ""),
            // Shared with an app: doubt, which wakes.
            ("web.example.com", "/", ""),
            ("*.wild.com", "/", "wild"),
            ("*.wild.com", "/deep", "deep"),
            ("a.wild.com", "/", ""),
            ("b.wild.com", "/only", ""),
            ("*", "/x/y", "any"),
            ("d.example.org", "/x", ""),
        ]);
        for (host, path, found) in [
            ("web.example.com", "/", Some("web")),
            ("web.example.com", "/apis", Some("web")),
            ("web.example.com", "/api", None),
            ("web.example.com:443", "/api/x?y", None),
            ("web.example.com", "/api/own/x", Some("own")),
            ("web.example.com", "/exact", None),
            ("web.example.com", "/exact/x", Some("web")),
            ("a.wild.com", "/x", None),
            // Whether the closer host or the longer path wins, proxies do not agree.
            ("a.wild.com", "/deep", Some("deep")),
            ("b.wild.com", "/only/x", None),
            ("b.wild.com", "/x", Some("wild")),
            ("z.wild.com", "/x", Some("wild")),
            ("d.example.org", "/x/y", Some("any")),
            ("e.example.org", "/x/y/z", Some("any")),
        ] {
            assert_eq!(table.find(host, path), found.map(key).as_ref(), "{host} {path}");
        }
        assert!(!table.leads_to_any(&BTreeSet::from([key("")])));
    }

    #[test]
    fn a_star_is_for_every_host_that_has_no_rule_of_its_own() {
        let table = table(&[("*", "/", "any"), ("web.example.com", "/only", "web")]);
        assert_eq!(table.find("else.example.com", "/x"), Some(&key("any")));
        assert_eq!(table.find("web.example.com", "/x"), None);
    }
}
