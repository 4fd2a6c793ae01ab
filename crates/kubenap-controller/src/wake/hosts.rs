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
}

/// What a rule is for; nothing else has the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    host: Box<str>,
    exact: bool,
    /// A whole path where it is exact, otherwise without its last slash.
    path: Box<str>,
}

impl HostTable {
    pub(crate) fn new(rules: Vec<HostRule>) -> Self {
        let place = |HostRule { host, path, exact, key }: HostRule| {
            let path = if exact { whole(&path) } else { path.trim_end_matches('/') };
            Some((Place { host: normal_host(&host)?.into(), exact, path: path.into() }, Some(key)))
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
        Self { claims }
    }

    /// The door for a request: the most exact host first, then an exact path, then the longest. A host that is
    /// known does not fall back to a wildcard.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&DoorKey> {
        let host = normal_host(host)?;
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let host = if self.knows(&host) { host } else { self.wildcard(&host)? };
        let exact = self.claim(&host, true, whole(path));
        exact.or_else(|| prefixes(path).find_map(|prefix| self.claim(&host, false, prefix)))?.as_ref()
    }

    /// Whether some request could be told to be for one of these doors.
    pub(crate) fn leads_to_any(&self, keys: &BTreeSet<DoorKey>) -> bool {
        self.claims.iter().filter_map(|(_, door)| door.as_ref()).any(|door| keys.contains(door))
    }

    /// A wildcard stands for exactly one label.
    fn wildcard(&self, host: &str) -> Option<String> {
        let below = host.split_once('.').filter(|(label, _)| !label.is_empty());
        let below = below.map(|(_, rest)| format!("*.{rest}"));
        below.into_iter().chain(["*".to_owned()]).find(|host| self.knows(host))
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

    /// A path that begins with `=` is exact.
    fn table(rules: &[(&str, &str, &str)]) -> HostTable {
        let rule = |&(host, path, service): &(&str, &str, &str)| HostRule {
            host: host.into(),
            path: path.trim_start_matches('=').into(),
            exact: path.starts_with('='),
            key: key(service),
        };
        HostTable::new(rules.iter().map(rule).collect())
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
    fn a_star_is_for_every_host_that_has_no_rule_of_its_own() {
        let table = table(&[("*", "/", "any"), ("web.example.com", "/only", "web")]);
        assert_eq!(table.find("else.example.com", "/x"), Some(&key("any")));
        assert_eq!(table.find("web.example.com", "/x"), None);
    }
}
