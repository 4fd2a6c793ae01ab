//! What each fuzz target does with its bytes. `cargo test` includes this file and runs the same on the seeds and on mutants of them.

use std::collections::BTreeMap;
use std::time::Duration;

use kubenap_controller::untrusted::{self, Head};
use kubenap_core::duration as durations;
use kubenap_core::policy::{self, Defaults};

/// What a target does with its bytes.
pub type Target = fn(&[u8]);

/// Every target, with its name.
pub const TARGETS: [(&str, Target); 6] = [
    ("location", location),
    ("annotations", annotations),
    ("duration", duration),
    ("head", head),
    ("exposition", exposition),
    ("promql", promql),
];

/// The path check, on a target and on the query of `/wake`.
pub fn location(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(location) = untrusted::location(&text) {
        assert_eq!(location, text, "a target is taken as it is or not at all");
        stays_on_its_host(location);
    }
    if let Some(location) = untrusted::original(&text) {
        stays_on_its_host(&location);
    }
    let encoded: Vec<_> = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
    if let Some(location) = untrusted::original(&format!("original={}", encoded.concat())) {
        stays_on_its_host(&location);
    }
}

/// As a browser reads it: white space within is dropped, a backslash is a slash.
fn stays_on_its_host(location: &str) {
    let browser: String = location
        .chars()
        .filter(|sign| !sign.is_whitespace())
        .map(|sign| if sign == '\\' { '/' } else { sign })
        .collect();
    assert_eq!(browser, location, "a browser reads something else");
    assert!(location.starts_with('/') && !location.starts_with("//"), "{location:?} leads to another host");
    assert!(
        location.len() <= 8 * 1024 && location.bytes().all(|byte| byte.is_ascii_graphic()),
        "{location:?}"
    );
}

/// Lines of `key: value`, with and without the prefix.
pub fn annotations(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut texts = BTreeMap::new();
    for line in text.lines().take(64) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        texts.insert(format!("kubenap/{name}"), value.trim_start().to_owned());
    }
    let defaults = Defaults { sources: vec!["ingress".to_owned()], ..Defaults::default() };
    let labels = BTreeMap::from([("kubenap/enabled".to_owned(), text.chars().take(70).collect())]);
    for labels in [labels, BTreeMap::from([("kubenap/enabled".to_owned(), "true".to_owned())])] {
        let reading = policy::read(&labels, &texts, &defaults);
        assert!(reading.policy.idle_after >= Duration::from_secs(1), "an app would nap at once");
        for complaint in &reading.complaints {
            let line = complaint.to_string();
            assert!(!line.contains(['\n', '\r']), "a complaint is one line: {line:?}");
        }
        let again = policy::read(&labels, &texts, &defaults);
        assert_eq!(again.policy, reading.policy);
    }
}

/// A duration.
pub fn duration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match durations::parse(&text) {
        Ok(span) => {
            let shown = durations::show(span);
            assert_eq!(durations::parse(&shown), Ok(span), "{text:?} is shown as {shown:?}");
        }
        Err(error) => assert!(error.to_string().contains("accepted:")),
    }
}

/// The head of a request: what passes, passes whole, and every way of reading it finds the same end and the same host.
pub fn head(bytes: &[u8]) {
    let Head::Passes(end) = untrusted::head(bytes) else { return };
    let head = &bytes[..end];
    assert!(head.ends_with(b"\r\n\r\n"));
    // More of the body does not change what was judged.
    assert_eq!(untrusted::head(&[bytes, b"GET / HTTP/1.1\r\n\r\n"].concat()), Head::Passes(end));
    let readings = [Manner::Strict, Manner::Lenient, Manner::Sloppy].map(|manner| manner.read(head));
    let [Some(first), Some(second), Some(third)] = &readings else {
        panic!(
            "some way of reading refuses what is passed: {readings:?}\n{:?}",
            String::from_utf8_lossy(head)
        )
    };
    assert_eq!((first, first), (second, third), "{:?}", String::from_utf8_lossy(head));
}

/// Ways in which programs read a head.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// By the letter: lines end in CR LF, no space before a colon, the first of doubled fields.
    Strict,
    /// A line feed ends a line, spaces around names are dropped, folded lines are joined, the last field counts.
    Lenient,
    /// As lenient, any control byte ends a line, odd bytes of names are dropped, numbers are read up to their first other sign.
    Sloppy,
}

/// What a head says of where its request ends and whom it is for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Framing {
    method: String,
    target: String,
    host: String,
    length: Option<u64>,
    chunked: bool,
}

impl Manner {
    fn read(self, head: &[u8]) -> Option<Framing> {
        let text: String = head.iter().map(|byte| char::from(*byte)).collect();
        let lines: Vec<String> = match self {
            Self::Strict => text.split("\r\n").map(str::to_owned).collect(),
            Self::Lenient => unfolded(text.split('\n').map(|line| line.trim_end_matches('\r'))),
            Self::Sloppy => {
                unfolded(text.split(['\r', '\n', '\0', '\u{b}', '\u{c}']).filter(|line| !line.is_empty()))
            }
        };
        let mut lines = lines.iter();
        let first = lines.next()?;
        let mut words: Box<dyn Iterator<Item = &str>> = match self {
            Self::Strict => Box::new(first.split(' ')),
            Self::Lenient | Self::Sloppy => Box::new(first.split_ascii_whitespace()),
        };
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        (words.next()?.starts_with("HTTP/1.") && words.next().is_none()).then_some(())?;
        let mut framing = Framing { method, target, ..Framing::default() };
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let name = match self {
                Self::Strict => name.to_ascii_lowercase(),
                Self::Lenient => name.trim().to_ascii_lowercase(),
                Self::Sloppy => name
                    .to_ascii_lowercase()
                    .chars()
                    .filter(|sign| sign.is_ascii_alphanumeric() || *sign == '-')
                    .collect(),
            };
            self.note(&mut framing, &name, value.trim_matches([' ', '\t']));
        }
        Some(framing)
    }

    fn note(self, framing: &mut Framing, name: &str, value: &str) {
        let last = !matches!(self, Self::Strict);
        match name {
            "host" if last || framing.host.is_empty() => framing.host = value.to_ascii_lowercase(),
            "content-length" if last || framing.length.is_none() => {
                let digits = match self {
                    Self::Strict => value,
                    Self::Lenient => {
                        value.trim_start_matches('+').rsplit(',').next().unwrap_or_default().trim()
                    }
                    Self::Sloppy => {
                        value.split(|sign: char| !sign.is_ascii_digit()).next().unwrap_or_default()
                    }
                };
                framing.length = digits.parse().ok();
            }
            "transfer-encoding" => {
                framing.chunked |= match self {
                    Self::Strict => value.eq_ignore_ascii_case("chunked"),
                    Self::Lenient => value.to_ascii_lowercase().ends_with("chunked"),
                    Self::Sloppy => value.to_ascii_lowercase().contains("chunked"),
                };
            }
            _ => {}
        }
    }
}

fn unfolded<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut whole: Vec<String> = Vec::new();
    for line in lines {
        match whole.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => last.push_str(line),
            _ => whole.push(line.to_owned()),
        }
    }
    whole
}

/// A metric text: whole, byte by byte and in pieces it is the same.
pub fn exposition(bytes: &[u8]) {
    let whole = untrusted::exposition([bytes]);
    assert_eq!(untrusted::exposition(bytes.chunks(7)), whole);
    assert_eq!(untrusted::exposition(bytes.chunks(1)), whole);
}

/// An answer of Prometheus.
pub fn promql(bytes: &[u8]) {
    if let Err(why) = untrusted::promql(bytes) {
        assert!(why.len() < 2000 && !why.contains('\n'), "{why}");
    }
}
