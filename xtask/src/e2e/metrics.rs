//! Reads Prometheus' text format, as far as the stories need it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// One line: name, labels, value.
#[derive(Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// Every sample in a page of metrics; comments, timestamps and exemplars are left out.
pub(crate) fn parse(page: &str) -> Result<Vec<Sample>> {
    let lines = page.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| sample(line).with_context(|| format!("not a metric: {line:?}"))).collect()
}

/// The sum of one metric over all its labels.
pub(crate) fn sum(samples: &[Sample], name: &str) -> f64 {
    samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            inside = inside.trim_start_matches([',', ' ']);
            if let Some(after) = inside.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, quoted) = inside.split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            labels.insert(label.trim().to_owned(), value);
            inside = after;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote with its escapes undone, and what follows the quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((out, &text[at + 1..])),
            (_, '\\') => match characters.next()?.1 {
                'n' => out.push('\n'),
                other => out.push(other),
            },
            (_, other) => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, sum};

    #[test]
    fn samples_are_read_with_labels_escapes_and_timestamps() {
        let page = "# TYPE a counter\na{x=\"1,}\",y=\"say \\\"hi\\\"\"} 2 1700000000\na{x=\"2\"} 3.5\nb 1e3\n# EOF\n";
        let samples = parse(page).expect("a page of metrics");
        assert_eq!(samples[0].labels["x"], "1,}");
        assert_eq!(samples[0].labels["y"], "say \"hi\"");
        assert!((sum(&samples, "a") - 5.5).abs() < 1e-9);
        assert!((sum(&samples, "b") - 1000.0).abs() < 1e-9);
        assert!(sum(&samples, "c").abs() < 1e-9);
    }

    #[test]
    fn a_line_that_is_no_metric_is_refused() {
        assert!(parse("a{x=\"1} 2").is_err());
        assert!(parse("a{} much").is_err());
    }
}
