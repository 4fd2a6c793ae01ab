//! Which host and path belong to which door, as Ingresses and routes say.

use std::collections::BTreeMap;

use super::door::DoorKey;

/// One host and path prefix that leads to a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    /// An exact host name, `*.example.com` for all names below it, or `*` for every host.
    pub host: String,
    /// A prefix by whole segments: `/a` covers `/a` and `/a/b`, not `/ab`. Empty is `/`.
    pub path: String,
    /// Where it leads.
    pub key: DoorKey,
}

/// All rules, ready to be searched.
#[derive(Debug, Default)]
pub(crate) struct HostTable {
    /// By host and then by path without its last slash; nothing for a rule that two doors claim.
    rules: BTreeMap<String, BTreeMap<String, Option<DoorKey>>>,
}

impl HostTable {
    pub(crate) fn new(rules: Vec<HostRule>) -> Self {
        let mut table = Self::default();
        for HostRule { host, path, key } in rules {
            let Some(host) = normal_host(&host) else { continue };
            let path = path.trim_end_matches('/').to_owned();
            table
                .rules
                .entry(host)
                .or_default()
                .entry(path)
                .and_modify(|door| {
                    if door.as_ref() != Some(&key) {
                        *door = None;
                    }
                })
                .or_insert(Some(key));
        }
        table
    }

    /// The door for a request: the most exact host first, then the longest path. A host that is known
    /// does not fall back to a wildcard.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&DoorKey> {
        let host = normal_host(host)?;
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let paths = self.rules.get(&host).or_else(|| self.wildcard(&host))?;
        prefixes(path).find_map(|prefix| paths.get(prefix))?.as_ref()
    }

    fn wildcard(&self, host: &str) -> Option<&BTreeMap<String, Option<DoorKey>>> {
        let below = host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..]));
        below.chain(["*".to_owned()]).find_map(|name| self.rules.get(&name))
    }
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

    fn table(rules: &[(&str, &str, &str)]) -> HostTable {
        let rule = |&(host, path, service): &(&str, &str, &str)| HostRule {
            host: host.into(),
            path: path.into(),
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
            ("a.b.example.com", "/", Some("wild")),
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
    fn a_star_is_for_every_host_that_has_no_rule_of_its_own() {
        let table = table(&[("*", "/", "any"), ("web.example.com", "/only", "web")]);
        assert_eq!(table.find("else.example.com", "/x"), Some(&key("any")));
        assert_eq!(table.find("web.example.com", "/x"), None);
    }
}
