//! The one list of keys that people may write, with what each accepts.

use super::complaint::Weight;
use crate::app::PREFIX;

/// An annotation that people write.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name without the prefix.
    pub name: &'static str,
    /// What it accepts.
    pub accepted: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it means, for the reference page.
    pub meaning: &'static str,
    /// Not carried out yet.
    later: Option<Weight>,
}

pub(super) enum Status {
    Now,
    Later(Weight),
}

/// Every annotation that people may write.
pub const KEYS: &[Key] = &[
    Key::now(
        "service",
        "names of Services of its namespace, separated by commas",
        "those whose selector matches the pod template",
        "The Services through which the app is reached.",
    ),
    Key::now(
        "ingress",
        "names of Ingresses of its namespace, separated by commas",
        "all that route to its Services",
        "Which hosts and paths belong to the app.",
    ),
    Key::now(
        "idleAfter",
        "a duration of at least 1s, such as 90s, 10m or 1h30m",
        "`--idle-after`",
        "Quiet this long before a nap.",
    ),
    Key::now(
        "replicaCount",
        "a whole number from 1 to 1000000",
        "the count found when it fell asleep",
        "Replicas to wake to.",
    ),
    Key::now(
        "proxy",
        "any, nginx, traefik, envoy, istio, envoy-gateway, haproxy or caddy",
        "any",
        "The proxy in front, whose own error path `kubenap render` writes. Substitution serves every proxy besides.",
    ),
    Key::now("wake", "auto, redirect, pass or page", "auto", "How requests to a sleeping app are answered."),
    Key::now(
        "holdFor",
        "a duration such as 10s",
        "10s",
        "How long a request is held before it gets a 307 all the same.",
    ),
    Key::now(
        "wakeTimeout",
        "a duration of at least 1s, such as 2m",
        "2m",
        "How long a request that must be passed is held.",
    ),
    Key::now(
        "metrics",
        "names of configured sources, separated by commas",
        "all configured sources",
        "Which sources say whether the app is used.",
    ),
    Key::now(
        "query",
        "a PromQL expression of at most 2000 bytes that gives one series, of selectors without ranges, `+ - * /`, comparisons, `and`, `unless`, and sum, avg, min, max, count, group, time, timestamp, scalar, label_replace, label_join, histogram_count, histogram_sum",
        "what proxies count",
        "A query of the app's own, whose value changes with each use, for sources of kind `prometheus` that allow it (`allowQuery`).",
    ),
    Key::now(
        "ignorePaths",
        "path prefixes that begin with /, separated by commas",
        "none",
        "Requests for these never wake the app.",
    ),
    Key::now(
        "ignoreUserAgents",
        "parts of User-Agent of at least 3 characters, separated by commas",
        "none",
        "Requests by these never wake the app.",
    ),
    Key {
        later: Some(Weight::Refuses),
        ..Key::now(
            "awakeDuring",
            "time windows with a zone",
            "never",
            "When the app must be awake. Not carried out by this version.",
        )
    },
    Key {
        later: Some(Weight::Refuses),
        ..Key::now(
            "dependsOn",
            "apps as NAMESPACE/NAME, separated by commas",
            "none",
            "Apps to wake together with it. Not carried out by this version.",
        )
    },
    Key::now(
        "adoptZero",
        "true or false",
        "true where replicaCount is set",
        "Whether a zero that KubeNap did not make is woken by a request.",
    ),
    Key::now(
        "substitute",
        "true or false",
        "true, and false with `--no-substitute`",
        "`false`: only the error path of the proxy in front wakes the app; nobody who goes past the proxy does. It naps where the proxy's hook is known to be in place.",
    ),
    Key::now(
        "hook",
        "declared",
        "what the proxy's objects show",
        "With substitution off: `declared` vouches that the proxy in front turns to KubeNap's wake address while the app has no pods, as a plain proxy's configuration may say.",
    ),
    Key::now(
        "wish",
        "nap, forceNap or wake",
        "none",
        "A person's request; the controller carries it out and takes it away.",
    ),
];

impl Key {
    const fn now(
        short: &'static str,
        accepted: &'static str,
        default: &'static str,
        meaning: &'static str,
    ) -> Self {
        Self { name: short, accepted, default, meaning, later: None }
    }

    /// The key as it stands on the object.
    pub fn full(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    pub(super) fn status(&self) -> Status {
        self.later.map_or(Status::Now, Status::Later)
    }
}

pub(super) fn find(full: &str) -> Option<&'static Key> {
    let short = full.strip_prefix(PREFIX)?;
    KEYS.iter().find(|key| key.name == short)
}

/// The key that somebody most likely meant.
pub(super) fn nearest(full: &str) -> Option<String> {
    let short = full.strip_prefix(PREFIX)?;
    let (apart, key) = KEYS.iter().map(|key| (apart(key.name, short), key)).min_by_key(|(d, _)| *d)?;
    (apart <= ALIKE).then(|| key.full())
}

/// Whether somebody who wrote one of these most likely meant the other: alike but for case, dashes, or two letters.
pub fn is_like(known: &str, given: &str) -> bool {
    apart(known, given) <= ALIKE
}

const ALIKE: usize = 2;

fn apart(known: &str, given: &str) -> usize {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_', '.'], "");
    distance(&plain(known), &plain(given))
}

fn distance(a: &str, b: &str) -> usize {
    if b.len() > 32 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let swap = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = swap.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
