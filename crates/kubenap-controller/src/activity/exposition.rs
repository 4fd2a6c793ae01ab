//! The Prometheus text format, read line by line as it comes, for a few wanted metrics.

use std::borrow::Cow;

/// Reads an exposition piece by piece and hands over the lines of the wanted metrics.
#[derive(Debug)]
pub(super) struct Reader<'w, F> {
    wanted: &'w [&'static str],
    each: F,
    /// The beginning of a line whose end has not come yet.
    tail: Vec<u8>,
    /// Whether the rest of the current line is dropped, because it is too long.
    skipping: bool,
    spoiled: usize,
}

/// One sample.
#[derive(Debug, PartialEq)]
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) labels: Vec<(&'a str, Cow<'a, str>)>,
    pub(super) value: f64,
    /// When the sample was taken, in milliseconds since 1970, where the page says so.
    pub(super) at: Option<i64>,
}

/// The longest line that is read; Prometheus' own limit on a label value is far below it.
const LONGEST: usize = 32 * 1024;

/// How many labels a line may have.
const LABELS: usize = 64;

impl<'w, F: FnMut(&Line<'_>)> Reader<'w, F> {
    pub(super) fn new(wanted: &'w [&'static str], each: F) -> Self {
        Self { wanted, each, tail: Vec::new(), skipping: false, spoiled: 0 }
    }

    /// The next piece, cut anywhere.
    pub(super) fn feed(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.skipping {
                self.skipping = false;
            } else if self.tail.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.tail);
                whole.extend_from_slice(line);
                self.line(&whole);
                whole.clear();
                self.tail = whole;
            }
        }
        if self.skipping {
            return;
        }
        self.tail.extend_from_slice(rest);
        if self.tail.len() > LONGEST {
            let long = std::mem::take(&mut self.tail);
            self.line(&long);
            self.skipping = true;
        }
    }

    /// The end: how many lines of wanted metrics were not understood.
    pub(super) fn finish(mut self) -> usize {
        let last = std::mem::take(&mut self.tail);
        if !self.skipping {
            self.line(&last);
        }
        self.spoiled
    }

    fn line(&mut self, line: &[u8]) {
        let name_ends =
            line.iter().position(|byte| matches!(byte, b'{' | b' ' | b'\t')).unwrap_or(line.len());
        let name = line.get(..name_ends).unwrap_or_default();
        if !self.wanted.iter().any(|wanted| wanted.as_bytes() == name) {
            return;
        }
        let parsed = std::str::from_utf8(line).ok().filter(|line| line.len() <= LONGEST).and_then(parse);
        match parsed {
            Some(line) => (self.each)(&line),
            None => self.spoiled += 1,
        }
    }
}

/// Reads an exposition that comes in these pieces: each sample as text, and how many lines were not understood.
pub(crate) fn read_exposition<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, usize) {
    const WANTED: &[&str] = &["traefik_service_requests_total", "process_start_time_seconds", "up"];
    let mut samples = Vec::new();
    let mut reader = Reader::new(WANTED, |line: &Line<'_>| {
        samples.push(format!("{} {:?} {}", line.name, line.labels, line.value));
    });
    for piece in pieces {
        reader.feed(piece);
    }
    let spoiled = reader.finish();
    (samples, spoiled)
}

impl Line<'_> {
    /// The label's value; empty when the label is not there, which means the same.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

/// One line that is a sample: `name{label="value",…} value [timestamp] [# exemplar]`.
pub(super) fn parse(line: &str) -> Option<Line<'_>> {
    let name_ends = line.find(['{', ' ', '\t'])?;
    let (name, mut rest) = line.split_at(name_ends);
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    if name.is_empty() || !name.bytes().all(good) {
        return None;
    }
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once('=')?;
            let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
            if labels.len() == LABELS {
                return None;
            }
            labels.push((label.trim(), value));
            rest = after;
        }
    }
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    let at = match words.next().filter(|word| !word.starts_with('#')) {
        Some(at) => Some(at.parse().ok()?),
        None => None,
    };
    Some(Line { name, labels, value, at })
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let special = text.find(['"', '\\'])?;
    let (plain, rest) = text.split_at(special);
    if let Some(after) = rest.strip_prefix('"') {
        return Some((Cow::Borrowed(plain), after));
    }
    let mut value = plain.to_owned();
    let mut signs = rest.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '"' => return Some((Cow::Owned(value), rest.get(at + 1..)?)),
            '\\' => match signs.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8], pieces: usize) -> (Vec<(String, f64)>, usize) {
        let mut seen = Vec::new();
        let mut reader =
            Reader::new(&["m", "n"], |line: &Line<'_>| seen.push((line.label("a").to_owned(), line.value)));
        for chunk in text.chunks(pieces.max(1)) {
            reader.feed(chunk);
        }
        let spoiled = reader.finish();
        (seen, spoiled)
    }

    #[test]
    fn samples_are_read_as_they_are_written() {
        let text =
            b"# HELP m x\n# TYPE m counter\nm{a=\"x\",b=\"1\"} 3\nmm{a=\"no\"} 1\nn 4.5e1 1700000000\r\n\
            m{ a = \"q\\\"\\\\\\n{}\" , } NaN\nm{a=\"e\"} 7 # {trace=\"1\"} 1\nm{a=\"last\"} +Inf";
        let (seen, spoiled) = read(text, 5);
        let names: Vec<_> = seen.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x", "", "q\"\\\n{}", "e", "last"]);
        assert_eq!((seen[1].1, seen[3].1, seen[4].1), (45.0, 7.0, f64::INFINITY));
        assert!(seen[2].1.is_nan());
        assert_eq!(spoiled, 0);
    }

    #[test]
    fn spoiled_lines_of_wanted_metrics_are_counted_and_others_do_not_matter() {
        let long = format!("m{{a=\"{}\"}} 1\nm{{a=\"ok\"}} 2\n", "x".repeat(2 * LONGEST));
        assert_eq!(read(long.as_bytes(), 1000), (vec![("ok".to_owned(), 2.0)], 1));
        let text = b"m{a=\"x\" 1\nm{a=x} 1\nm{a=\"x\"}\nm{a=\"\xff\"} 1\nother{ 1\nm nonsense\n";
        assert_eq!(read(text, 7).1, 5);
        let many = format!("m{{{}}} 1\n", "a=\"x\",".repeat(LABELS + 1));
        assert_eq!(read(many.as_bytes(), 64), (vec![], 1));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_no_cut_changes_the_answer(
            text in proptest::collection::vec(prop_oneof![
                any::<u8>(), proptest::sample::select(&b"mn{}=\",\\ 1e.\n#a"[..])
            ], 0..400),
            cut in 1usize..50,
        ) {
            let whole = read(&text, usize::MAX);
            let cut = read(&text, cut);
            prop_assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
        }

        #[test]
        fn every_label_value_survives_its_escapes(value in "\\PC{0,40}", number in -1e12..1e12) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let text = format!("m{{z=\"1\",a=\"{escaped}\"}} {number}\n");
            prop_assert_eq!(read(text.as_bytes(), 3), (vec![(value, number)], 0));
        }
    }
}
