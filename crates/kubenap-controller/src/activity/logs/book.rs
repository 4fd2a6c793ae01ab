//! What lines of access logs come to: uses of apps in a ledger, and how far each log is to be believed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kubenap_core::activity::Blind;

use super::line::{Format, Hit, Lines};
use crate::activity::Target;
use crate::activity::ledger::Ledger;
use crate::activity::preset::Preset;

/// What all logs of a source have said together.
#[derive(Debug, Default)]
pub(super) struct Book {
    ledger: Option<Ledger>,
    pub(super) rules: Rules,
    /// The one Service to which every line belongs, as `namespace/name`.
    service: Option<String>,
}

/// One log, and how well it is understood.
#[derive(Debug)]
pub(super) struct Log {
    lines: Lines,
    /// When its last line was read, or at the start when it was written.
    pub(super) heard: Option<Timestamp>,
    clock_off: bool,
    /// Of the last lines, how many there were and how many of them fit no format.
    total: u32,
    unfit: u32,
    /// Whether it names more than can be kept.
    overfull: bool,
    /// Whether lines may be written late: so says the last one, and as long as there is none, nobody knows.
    kept_back: bool,
}

/// One reading of a log.
#[derive(Debug)]
pub(super) struct Reading {
    now: Timestamp,
    since: Timestamp,
    /// Whether it is the first: then lines count by their own times.
    pub(super) first: bool,
    /// When the first line was written.
    pub(super) begins: Option<Timestamp>,
    ahead: bool,
}

/// What is no use of an app, by its keys.
#[derive(Debug, Default)]
pub(super) struct Rules(BTreeMap<String, Vec<Rule>>);

/// One app's rules; an app without any has none that match.
#[derive(Clone, Debug)]
struct Rule {
    paths: Vec<String>,
    agents: Vec<String>,
}

/// How far back the start looks.
pub(super) const PAST: SignedDuration = SignedDuration::from_hours(1);
/// A line that is dated this far ahead shows that a clock is off.
const AHEAD: i64 = 3;
/// More than one in ten lines that fit nothing is too many, once there are this many.
const FEW: u32 = 20;
/// The last so many lines are judged.
const JUDGED: u32 = 2_000;
/// Envoy writes its lines every ten seconds, unless `--file-flush-interval-msec` says otherwise.
const KEPT_BACK: SignedDuration = SignedDuration::from_secs(11);
/// So much of a key is kept. No names of objects alone make a longer one; behind them may stand host and path, as long as
/// somebody likes.
const LONGEST_KEY: usize = 450;
/// Hosts are what clients say that they are. More than these are not kept, and then the source is blind.
const KEYS: usize = 100_000;

/// Who asks only whether the proxy lives.
const PROBES: [&str; 4] = ["kube-probe/", "kubenap-probe/", "elb-healthchecker/", "googlehc/"];

impl Book {
    pub(super) fn new(service: Option<String>) -> Self {
        Self { service, ..Self::default() }
    }

    /// The ledger; its knowledge begins with the first reading.
    pub(super) fn ledger(&mut self, now: Timestamp) -> &mut Ledger {
        self.ledger.get_or_insert_with(|| Ledger::since(long_before(now)))
    }
}

impl Reading {
    pub(super) fn at(now: Timestamp, first: bool) -> Self {
        Self { now, since: long_before(now), first, begins: None, ahead: false }
    }
}

impl Log {
    pub(super) fn new(format: Option<Format>) -> Self {
        Self {
            lines: Lines::new(format),
            heard: None,
            clock_off: false,
            total: 0,
            unfit: 0,
            overfull: false,
            kept_back: true,
        }
    }

    /// Takes in one line.
    pub(super) fn take(&mut self, bytes: &[u8], reading: &mut Reading, book: &mut Book) {
        // What names the app is plain text, also where a path or an agent is not.
        let line = &*String::from_utf8_lossy(bytes);
        if is_noise(line) {
            return;
        }
        self.total += 1;
        let lines = &mut self.lines;
        let (now, since) = (reading.now, reading.since);
        if !lines.read(line)
            || (lines.hit.keys.is_empty() && lines.is_without_names() && book.service.is_none())
        {
            self.unfit += 1;
            return;
        }
        self.kept_back = lines.hit.kept_back;
        if let Some(service) = &book.service {
            lines.hit.keys.clear();
            lines.hit.keys.push(format!("svc {service}"));
        }
        reading.ahead |= lines.hit.ended > now.as_second() + AHEAD;
        let written = Timestamp::from_second(lines.hit.ended).unwrap_or(now).min(now);
        let at = if reading.first { written } else { now };
        self.heard = self.heard.max(Some(at));
        reading.begins = reading.begins.or(Some(written));
        if at < since {
            return;
        }
        let ledger = book.ledger.get_or_insert_with(|| Ledger::since(since));
        for key in &lines.hit.keys {
            let key = key.get(..key.floor_char_boundary(LONGEST_KEY)).unwrap_or(key);
            if ledger.known_keys() >= KEYS && !ledger.has_known(key) {
                self.overfull = true;
                continue;
            }
            if book.rules.ignores(key, &lines.hit) {
                ledger.meet(key, at);
            } else {
                ledger.mark(key, at);
            }
        }
        if self.total > JUDGED {
            (self.total, self.unfit) = (self.total / 2, self.unfit / 2);
        }
    }

    /// The reading is over.
    pub(super) fn end(&mut self, reading: &Reading) {
        self.clock_off = reading.ahead || (self.clock_off && reading.begins.is_none());
    }

    /// Up to when it has everything, if it was read to its end then.
    pub(super) fn has_all_until(&self, read: Timestamp) -> Timestamp {
        if self.kept_back { read.checked_sub(KEPT_BACK).unwrap_or(Timestamp::MIN) } else { read }
    }

    /// Why it is not to be believed.
    pub(super) fn blind(&self) -> BTreeSet<Blind> {
        let mut blind = BTreeSet::new();
        if self.overfull || (self.unfit >= FEW && self.unfit * 10 > self.total) {
            blind.insert(Blind::Partial);
        }
        if self.clock_off {
            blind.insert(Blind::ClockOff);
        }
        blind
    }
}

impl Rules {
    pub(super) fn of(targets: &[Target]) -> Self {
        let mut rules: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
        for target in targets {
            let rule = Rule { paths: target.ignore_paths.clone(), agents: target.ignore_user_agents.clone() };
            for key in Preset::Logs.expected(target) {
                rules.entry(key).or_default().push(rule.clone());
            }
        }
        rules.retain(|_, rules| rules.iter().any(|rule| !rule.paths.is_empty() || !rule.agents.is_empty()));
        Self(rules)
    }

    /// Whether the request is no use of the app; of several apps with one key, of each of them.
    fn ignores(&self, key: &str, hit: &Hit) -> bool {
        let agent = hit.agent.to_ascii_lowercase();
        if PROBES.iter().any(|probe| agent.starts_with(probe)) {
            return true;
        }
        let ignores = |rule: &Rule| {
            rule.paths.iter().any(|path| hit.path.starts_with(path.as_str()))
                || rule.agents.iter().any(|known| agent.contains(known.as_str()))
        };
        self.0.get(key).is_some_and(|rules| rules.iter().all(ignores))
    }
}

fn long_before(now: Timestamp) -> Timestamp {
    now.checked_sub(PAST).unwrap_or(Timestamp::MIN)
}

/// What programs write beside their access log: NGINX's error log, and the logs of Go programs, Traefik and Envoy.
fn is_noise(line: &str) -> bool {
    let bytes = line.as_bytes();
    let digits =
        |from: usize, to: usize| bytes.get(from..to).is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    let go = matches!(bytes.first(), Some(b'I' | b'W' | b'E' | b'F')) && digits(1, 5);
    let nginx = bytes.get(4) == Some(&b'/') && bytes.get(7) == Some(&b'/') && line.contains(" [");
    // `2026-11-22T10:00:00Z INF …`, and with a tab as Istio's agent writes it.
    let dated = digits(0, 4) && bytes.get(4) == Some(&b'-') && bytes.get(10) == Some(&b'T');
    // `[2026-11-22 10:00:00.123][1][info][main] …`; in an access log a `T` stands between day and hour.
    let envoy = bytes.first() == Some(&b'[') && digits(1, 5) && bytes.get(11) == Some(&b' ');
    // Traefik paints its own log, also where no terminal is.
    let painted = bytes.first() == Some(&b'\x1b');
    line.trim().is_empty() || go || nginx || dated || envoy || painted
}

#[cfg(test)]
mod tests {
    use super::is_noise;

    #[test]
    fn a_program_s_own_log_is_not_taken_for_access() {
        for noise in [
            "",
            "I1122 10:00:00.000000 1 main.go:1] the controller's own log",
            "2026/11/22 10:00:00 [error] 7#7: *1 connect() failed",
            "2026-11-22T10:00:00Z INF Traefik version 3.7.15 built on 2026-08-01T00:00:00Z",
            "\u{1b}[90m2026-11-22T10:00:00Z\u{1b}[0m \u{1b}[31mERR\u{1b}[0m \u{1b}[1mSkipping service: no endpoints found\u{1b}[0m",
            "2026-11-22T10:00:00.000000Z\tinfo\txdsproxy\tconnected",
            "[2026-11-22 10:00:00.123][1][info][main] [source/server/server.cc:1] starting",
        ] {
            assert!(is_noise(noise), "{noise}");
        }
        for access in [
            r#"10.0.0.1 - - [22/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8""#,
            r#"[2026-11-22T10:00:00.500Z] "GET / HTTP/1.1" 200 - 0 2 1 1 "-" "curl/8" "id" "a" "b""#,
            r#"{"StartUTC":"2026-11-22T10:00:00Z","DownstreamStatus":200}"#,
        ] {
            assert!(!is_noise(access), "{access}");
        }
    }
}
