//! Which hosts and paths an expression of Traefik's covers, such as ``(Host(`a`) || Host(`b`)) && PathPrefix(`/x`)``.

use std::collections::BTreeSet;

/// So many ways are told apart, and so many brackets inside each other.
const MOST_WAYS: usize = 256;
const DEEPEST: usize = 32;

/// What an expression covers.
#[derive(Debug, Default)]
pub(super) struct Covered {
    /// Host, path and whether the path is exact.
    pub(super) places: Vec<(String, String, bool)>,
    /// Nothing else: every way in which the expression comes true is understood.
    pub(super) whole: bool,
}

/// What it covers, as far as it is understood: conditions on anything but hosts and paths only narrow it; a negation or a
/// pattern makes the whole way one that is not understood.
pub(super) fn covered(expression: &str) -> Covered {
    let mut reader = Reader { rest: expression, depth: 0 };
    let Some(ways) = reader.either().filter(|_| reader.rest.trim().is_empty()) else {
        return Covered::default();
    };
    let whole = ways.iter().all(Option::is_some);
    let mut places = Vec::new();
    for Way { hosts, paths } in ways.into_iter().flatten() {
        let hosts = hosts.unwrap_or_else(|| BTreeSet::from(["*".to_owned()]));
        let paths = paths.unwrap_or_else(|| BTreeSet::from([("/".to_owned(), false)]));
        for host in hosts {
            places.extend(paths.iter().map(|(path, exact)| (host.clone(), path.clone(), *exact)));
        }
    }
    Covered { places, whole }
}

/// One way in which an expression comes true; without hosts or paths it is for all.
#[derive(Clone, Debug, Default)]
struct Way {
    hosts: Option<BTreeSet<String>>,
    paths: Option<BTreeSet<(String, bool)>>,
}

/// Those that are not understood are none.
type Ways = Vec<Option<Way>>;

impl Way {
    /// Where both come true.
    fn and(&self, other: &Self) -> Self {
        let hosts = match (&self.hosts, &other.hosts) {
            (Some(one), Some(other)) => Some(one & other),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        let paths = match (&self.paths, &other.paths) {
            (Some(one), Some(other)) => Some(
                one.iter().flat_map(|one| other.iter().filter_map(|other| narrower(one, other))).collect(),
            ),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        Self { hosts, paths }
    }
}

/// What two paths have in common.
fn narrower(one: &(String, bool), other: &(String, bool)) -> Option<(String, bool)> {
    let covers = |(path, exact): &(String, bool), (inner, inner_exact): &(String, bool)| {
        if *exact { *inner_exact && path == inner } else { inner.starts_with(path.as_str()) }
    };
    if covers(one, other) { Some(other.clone()) } else { covers(other, one).then(|| one.clone()) }
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|sign| sign.is_ascii_alphanumeric() || b".-_".contains(&sign))
}

/// What of an expression is still to be read.
struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn takes(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn either(&mut self) -> Option<Ways> {
        let mut ways = self.both()?;
        while self.takes("||") {
            ways.extend(self.both()?);
        }
        (ways.len() <= MOST_WAYS).then_some(ways)
    }

    fn both(&mut self) -> Option<Ways> {
        let mut ways = self.one()?;
        while self.takes("&&") {
            let others = self.one()?;
            if ways.len() * others.len() > MOST_WAYS {
                return None;
            }
            let join = |one: &Option<Way>, other: &Option<Way>| Some(one.as_ref()?.and(other.as_ref()?));
            ways = ways.iter().flat_map(|one| others.iter().map(move |other| join(one, other))).collect();
        }
        Some(ways)
    }

    fn one(&mut self) -> Option<Ways> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let ways = if self.takes("!") {
            self.one()?;
            vec![None]
        } else if self.takes("(") {
            let ways = self.either()?;
            self.takes(")").then_some(ways)?
        } else {
            self.condition()?
        };
        self.depth -= 1;
        Some(ways)
    }

    /// A function and what it is asked about.
    fn condition(&mut self) -> Option<Ways> {
        let text = self.rest.trim_start();
        let end = text.find(|sign: char| !sign.is_ascii_alphanumeric()).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        self.rest = rest;
        if !self.takes("(") {
            return None;
        }
        let mut values = Vec::new();
        while !self.takes(")") {
            values.push(self.value()?);
            if !self.takes(",") {
                self.takes(")").then_some(())?;
                break;
            }
        }
        let paths = |exact: bool| values.iter().map(|path| (path.clone(), exact)).collect();
        let way = match name {
            // A wildcard is none for Traefik, and no other sign is a host's: whatever it is meant to be.
            "Host" if !values.iter().all(|host| is_host(host)) => None,
            "Host" => Some(Way { hosts: Some(values.into_iter().collect()), paths: None }),
            "PathPrefix" => Some(Way { hosts: None, paths: Some(paths(false)) }),
            "Path" => Some(Way { hosts: None, paths: Some(paths(true)) }),
            "Method" | "Header" | "Headers" | "Query" | "ClientIP" => Some(Way::default()),
            _ => None,
        };
        Some(vec![way])
    }

    /// A text between two backticks or quotation marks. One with an escape is not understood.
    fn value(&mut self) -> Option<String> {
        let text = self.rest.trim_start();
        let mark = text.chars().next().filter(|mark| matches!(mark, '`' | '"'))?;
        let (value, rest) = text.get(1..)?.split_once(mark)?;
        self.rest = rest;
        (mark == '`' || !value.contains('\\')).then(|| value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(expression: &str) -> (Vec<String>, bool) {
        let Covered { places, whole } = covered(expression);
        let line = |(host, path, exact): &(String, String, bool)| {
            format!("{host}{}{path}", if *exact { "=" } else { "" })
        };
        (places.iter().map(line).collect(), whole)
    }

    #[test]
    fn what_stands_in_brackets_belongs_together() {
        for (expression, places) in [
            ("(Host(`a`) || Host(`b`)) && PathPrefix(`/x`)", &["a/x", "b/x"][..]),
            ("Host(`a`) && (Path(`/x`) || (PathPrefix(`/y`)))", &["a=/x", "a/y"]),
            ("Host(`a`) || Host(`b`) && Path(`/x`)", &["a/", "b=/x"]),
            ("\n( Host( \"a\" , `b` ) )\t&& Method(`GET`)\n", &["a/", "b/"]),
            ("(Host(`a`) || Host(`b`)) && Host(`b`)", &["b/"]),
            ("PathPrefix(`/x`) && PathPrefix(`/x/y`) && Host(`a`)", &["a/x/y"]),
            ("Path(`/x`) && PathPrefix(`/y`)", &[]),
            ("Header(`X`, `) || (`) && Host(`a`)", &["a/"]),
        ] {
            assert_eq!(shown(expression), (places.iter().map(|place| (*place).to_owned()).collect(), true));
        }
    }

    #[test]
    fn what_is_not_understood_is_told_and_leads_nowhere() {
        for (expression, places) in [
            ("Host(`a`) || HostRegexp(`^(x|y)$`)", &["a/"][..]),
            ("(Host(`a`) || HostRegexp(`.*`)) && PathPrefix(`/x`)", &["a/x"]),
            ("Host(`a`) && !PathPrefix(`/x`)", &[]),
            ("Host(`a`) && PathRegexp(`)||(`)", &[]),
            ("Host(`a`", &[]),
            ("Host(`a`))", &[]),
            ("Host(a)", &[]),
            ("Host(`*`)", &[]),
            ("Host(`a; b`)", &[]),
            ("Host(``)", &[]),
            ("Host(\"a\\n\")", &[]),
            ("", &[]),
        ] {
            assert_eq!(shown(expression), (places.iter().map(|place| (*place).to_owned()).collect(), false));
        }
        assert_eq!(shown(&"(".repeat(100_000)), (Vec::new(), false));
        assert_eq!(shown(&["(Host(`a`) || Host(`b`))"; 20].join(" && ")), (Vec::new(), false));
    }
}
