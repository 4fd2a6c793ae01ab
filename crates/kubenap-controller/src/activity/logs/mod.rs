//! Access logs in files: each line is a request, told apart by who asked for what.
//!
//! A line that is read while it is written counts at the moment of reading; at the start, the last hour counts by the
//! lines' own times. Silence in a log is no sign of life: unless it is declared to be one, the watermark is the
//! moment of the last line, whatever it was. Lines that fit no format are counted, and too many of them make the
//! source blind; a truncation, after which lines may be lost, is where knowledge begins again.

mod line;
mod json;
mod when;
mod follow;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kubenap_core::activity::Blind;
use kubenap_core::app::AppId;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::ledger::{BLINK, Ledger, Look, Sight};
use super::preset::Preset;
use super::spec::{Kind, Setup, With};
use super::verdict::{FRESH, View, samples};
use super::{Ask, Samples, SourceError, SpecError, Target, TrafficMetricsSource};

use follow::Follower;
use line::{Format, Hit, Lines};

/// `logs=PATH`, or with more settings in the config file.
pub(super) const KIND: Kind = Kind {
    name: "logs",
    forms: "logs=PATH",
    short: |path| match path.filter(|path| path.starts_with('/')) {
        Some(path) => Ok(Arc::new(LogsSetup::new(vec![PathBuf::from(path)]))),
        None => Err(SpecError::Incomplete {
            name: "logs".to_owned(),
            what: "needs the path of an access log: logs=/var/log/nginx/access.log".to_owned(),
        }),
    },
    read: |fields| {
        let files: Vec<_> = fields.texts("files").into_iter().map(PathBuf::from).collect();
        if files.is_empty() {
            fields.mistake("files", "is missing; accepted: paths of access logs");
        }
        let format = fields.word("format", &Format::WORDS, None);
        let service = fields.text("service").and_then(|text| {
            let service = text.parse::<AppId>().ok();
            if service.is_none() {
                fields.mistake("service", &format!("`{text}` is not understood; accepted: NAMESPACE/NAME"));
            }
            service.map(|service| service.to_string())
        });
        let trust_silence = fields.flag("trustSilence");
        let every = fields.duration("every", Duration::from_millis(100)).unwrap_or(PERIOD);
        Arc::new(LogsSetup { files, format, service, every, trust_silence })
    },
};

/// All that a source of logs is told.
#[derive(Clone, Debug)]
struct LogsSetup {
    files: Vec<PathBuf>,
    /// None: each line is recognised by itself.
    format: Option<Format>,
    /// The one Service to which every line belongs, as `namespace/name`.
    service: Option<String>,
    /// How often files are read between polls; a file that is rotated twice meanwhile has lost lines.
    every: Duration,
    /// Whether a file that is there and does not grow means that nothing came.
    trust_silence: bool,
}

impl LogsSetup {
    fn new(files: Vec<PathBuf>) -> Self {
        Self { files, format: None, service: None, trust_silence: false, every: PERIOD }
    }
}

impl Setup for LogsSetup {
    fn build(&self, name: String, _: &With<'_>) -> Result<Arc<dyn TrafficMetricsSource>, SourceError> {
        let files = self.files.iter().map(|path| Log::new(path.clone(), self)).collect();
        let book = Logbook {
            asked: None,
            files,
            ledger: None,
            rules: Rules::default(),
            service: self.service.clone(),
        };
        Ok(Arc::new(LogsSource {
            name,
            trust_silence: self.trust_silence,
            every: self.every,
            book: Arc::new(Mutex::new(book)),
            reading: Mutex::default(),
        }))
    }
}

/// Access logs in files.
#[derive(Debug)]
struct LogsSource {
    name: String,
    trust_silence: bool,
    every: Duration,
    book: Arc<Mutex<Logbook>>,
    /// Reads between polls, so that no rotation is missed.
    reading: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// The files, and what they have said.
#[derive(Debug)]
struct Logbook {
    /// When it was asked last, on the controller's clock and on the process's own.
    asked: Option<(Timestamp, Instant)>,
    files: Vec<Log>,
    ledger: Option<Ledger>,
    rules: Rules,
    service: Option<String>,
}

/// One file.
#[derive(Debug)]
struct Log {
    follower: Follower,
    lines: Lines,
    name: Arc<str>,
    /// When its last line was read, or at the start when it was written.
    heard: Option<Timestamp>,
    error: Option<String>,
    clock_off: bool,
    /// Of the last lines, how many there were and how many of them fit no format.
    total: u32,
    unfit: u32,
    /// Whether it names more than can be kept.
    overfull: bool,
}

/// What is no use of an app, by its keys.
#[derive(Debug, Default)]
struct Rules(BTreeMap<String, Vec<Rule>>);

/// One app's rules; an app without any has none that match.
#[derive(Clone, Debug)]
struct Rule {
    paths: Vec<String>,
    agents: Vec<String>,
}

/// How often files are read between polls.
const PERIOD: Duration = Duration::from_secs(1);
/// How far back the start looks.
const PAST: SignedDuration = SignedDuration::from_hours(1);
/// A line that is dated this far ahead shows that a clock is off.
const AHEAD: i64 = 3;
/// More than one in ten lines that fit nothing is too many, once there are this many.
const FEW: u32 = 20;
/// The last so many lines are judged.
const JUDGED: u32 = 2_000;

/// No name of an app leads to a longer key: it is somebody's invention.
const LONGEST_KEY: usize = 400;
/// Hosts are what clients say that they are. More than these are not kept, and then the source is blind.
const KEYS: usize = 100_000;

/// Who asks only whether the proxy lives.
const PROBES: [&str; 4] = ["kube-probe/", "kubenap-probe/", "elb-healthchecker/", "googlehc/"];

impl LogsSource {
    /// Reads on between polls, from the first one on.
    fn read_on(&self) {
        let mut reading = self.reading.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if reading.is_some() {
            return;
        }
        let (book, every) = (Arc::downgrade(&self.book), self.every);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(book) = book.upgrade() else { return };
                let read = move || lock(&book).read_meanwhile();
                if tokio::task::spawn_blocking(read).await.is_err() {
                    return;
                }
            }
        });
        *reading = Some(AbortOnDropHandle::new(task));
    }
}

fn lock(book: &Mutex<Logbook>) -> std::sync::MutexGuard<'_, Logbook> {
    book.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[async_trait]
impl TrafficMetricsSource for LogsSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn poll(&self, ask: &Ask) -> Result<Samples, SourceError> {
        let (book, ask_for, trust) = (Arc::clone(&self.book), ask.clone(), self.trust_silence);
        let answer = tokio::task::spawn_blocking(move || {
            let mut book = lock(&book);
            book.rules = Rules::of(&ask_for.targets);
            book.asked = Some((ask_for.now, Instant::now()));
            book.read(ask_for.now);
            book.answer(&ask_for, trust)
        });
        let answer = answer.await.map_err(|_| SourceError::Crashed)?;
        self.read_on();
        answer
    }
}

impl Logbook {
    fn read_meanwhile(&mut self) {
        let Some((asked, then)) = self.asked else { return };
        let passed = SignedDuration::try_from(then.elapsed()).unwrap_or(SignedDuration::MAX);
        self.read(asked.checked_add(passed).unwrap_or(Timestamp::MAX));
    }

    fn read(&mut self, now: Timestamp) {
        let Self { asked: _, files, ledger, rules, service } = self;
        for log in files {
            let first = log.heard.is_none();
            let since = now.checked_sub(PAST).unwrap_or(Timestamp::MIN);
            let mut begins = None;
            let ledger = ledger.get_or_insert_with(|| Ledger::since(since));
            let Log { follower, lines, heard, clock_off, total, unfit, overfull, .. } = log;
            let mut ahead = false;
            let step = follower.step(&mut |bytes| {
                let Ok(line) = std::str::from_utf8(bytes) else {
                    (*total, *unfit) = (*total + 1, *unfit + 1);
                    return;
                };
                if is_noise(line) {
                    return;
                }
                *total += 1;
                if !lines.read(line)
                    || (lines.hit.keys.is_empty() && lines.is_without_names() && service.is_none())
                {
                    *unfit += 1;
                    return;
                }
                if let Some(service) = service {
                    lines.hit.keys.clear();
                    lines.hit.keys.push(format!("svc {service}"));
                }
                ahead |= lines.hit.ended > now.as_second() + AHEAD;
                let written = Timestamp::from_second(lines.hit.ended).unwrap_or(now).min(now);
                let at = if first { written } else { now };
                *heard = (*heard).max(Some(at));
                begins = begins.or(Some(written));
                if at < since {
                    return;
                }
                for key in &lines.hit.keys {
                    if key.len() > LONGEST_KEY {
                        continue;
                    }
                    if ledger.known_keys() >= KEYS && !ledger.has_known(key) {
                        *overfull = true;
                        continue;
                    }
                    if rules.ignores(key, &lines.hit) {
                        ledger.meet(key, at);
                    } else {
                        ledger.mark(key, at);
                    }
                }
                if *total > JUDGED {
                    (*total, *unfit) = (*total / 2, *unfit / 2);
                }
            });
            *clock_off = ahead || (*clock_off && begins.is_none());
            if first {
                // What was written before the file begins is not known.
                ledger.begin_again(begins.unwrap_or(now).max(since));
                *heard = (*heard).or(Some(now));
            }
            match step {
                Ok(step) => {
                    log.error = None;
                    if step.lost {
                        ledger.begin_again(now);
                    }
                }
                Err(error) => {
                    log.error = Some(format!("cannot read {}: {error}", log.follower.path().display()));
                }
            }
        }
    }

    fn answer(&mut self, ask: &Ask, trust_silence: bool) -> Result<Samples, SourceError> {
        let all_fail = self.files.iter().all(|log| log.error.is_some());
        if let Some(error) = self.files.iter().find_map(|log| log.error.as_ref()).filter(|_| all_fail) {
            return Err(SourceError::Files { why: error.clone() });
        }
        let Some(ledger) = &mut self.ledger else {
            return Err(SourceError::Files { why: "no file is named".to_owned() });
        };
        let mut look = Look::default();
        let mut blind = BTreeSet::new();
        for log in &self.files {
            if log.error.is_some() {
                look.down.insert(Arc::clone(&log.name));
                blind.insert(Blind::SourceDown);
                continue;
            }
            let scraped = if trust_silence { ask.now } else { log.heard.unwrap_or(ask.now) };
            let sight = Sight { scraped, started: None, counters: BTreeMap::new() };
            look.live.insert(Arc::clone(&log.name), sight);
            if log.overfull || (log.unfit >= FEW && log.unfit * 10 > log.total) {
                blind.insert(Blind::Partial);
            }
            if log.clock_off {
                blind.insert(Blind::ClockOff);
            }
        }
        ledger.observe(ask.now, look, BLINK);
        let view = View { ledger, live: true, blind, fresh: FRESH };
        Ok(samples(ask, &BTreeMap::from([(Preset::Logs, view)]), &BTreeSet::new()))
    }
}

impl Log {
    fn new(path: PathBuf, setup: &LogsSetup) -> Self {
        Self {
            name: Arc::from(path.to_string_lossy()),
            follower: Follower::new(path),
            lines: Lines::new(setup.format),
            heard: None,
            error: None,
            clock_off: false,
            total: 0,
            unfit: 0,
            overfull: false,
        }
    }
}

impl Rules {
    fn of(targets: &[Target]) -> Self {
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

/// What programs write beside their access log: NGINX's error log, and the log of a Go program.
fn is_noise(line: &str) -> bool {
    let bytes = line.as_bytes();
    let go = matches!(bytes.first(), Some(b'I' | b'W' | b'E' | b'F'))
        && bytes.get(1..5).is_some_and(|day| day.iter().all(u8::is_ascii_digit));
    let nginx = bytes.get(4) == Some(&b'/') && bytes.get(7) == Some(&b'/') && line.contains(" [");
    line.trim().is_empty() || go || nginx
}
