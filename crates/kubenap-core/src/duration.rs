//! Durations as Go and Kubernetes write them (`90s`, `1h30m`), parsed without any way to panic.

use std::fmt;
use std::time::Duration;

/// Reads `1h30m`, `90s`, `1.5h`, `100ms`. Negative and empty ones are refused.
///
/// The grammar is that of Go's `time.ParseDuration`; the longest is 2^63 − 1 nanoseconds, as there.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let refuse = |problem| Err(DurationError { value: text.chars().take(64).collect(), problem });
    if text.is_empty() {
        return refuse(Problem::Empty);
    }
    if text.starts_with('-') {
        return refuse(Problem::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total: u128 = 0;
    if rest.is_empty() {
        return refuse(Problem::NotANumber);
    }
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(tail) => digits(tail),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return refuse(Problem::NotANumber);
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, tail) = after.split_at(end);
        let Some(nanos) = nanos_of(unit) else {
            return refuse(match unit {
                "" => Problem::NoUnit,
                "d" | "w" | "day" | "days" => Problem::Days,
                _ => Problem::UnknownUnit,
            });
        };
        let Some(part) = scaled(whole, fraction, nanos) else { return refuse(Problem::TooLong) };
        total = total.saturating_add(part);
        if total > LONGEST {
            return refuse(Problem::TooLong);
        }
        rest = tail;
    }
    match u64::try_from(total) {
        Ok(nanos) => Ok(Duration::from_nanos(nanos)),
        Err(_) => refuse(Problem::TooLong),
    }
}

/// Writes a duration so that [`parse`] reads the same again: `1h30m`, `1.5s`, `0s`.
pub fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let nanos = duration.subsec_nanos();
    let mut text = String::new();
    if hours > 0 {
        text += &format!("{hours}h");
    }
    if minutes > 0 {
        text += &format!("{minutes}m");
    }
    if nanos > 0 {
        let fraction = format!("{nanos:09}");
        text += &format!("{seconds}.{}s", fraction.trim_end_matches('0'));
    } else if seconds > 0 || text.is_empty() {
        text += &format!("{seconds}s");
    }
    text
}

/// Why a text is no duration. Its message names what is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurationError {
    /// The text, at most its first 64 characters.
    pub value: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Nothing there.
    Empty,
    /// Below zero.
    Negative,
    /// A number was expected.
    NotANumber,
    /// A number without a unit.
    NoUnit,
    /// Days and weeks are not part of the grammar.
    Days,
    /// A unit that is not known.
    UnknownUnit,
    /// More than 292 years.
    TooLong,
}

/// What is accepted, for messages.
pub const ACCEPTED: &str = "a duration such as 90s, 10m or 1h30m";

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match self.problem {
            Problem::Empty => "is empty",
            Problem::Negative => "is negative",
            Problem::NotANumber => "is not a duration",
            Problem::NoUnit => "has no unit",
            Problem::Days => "is in days or weeks (use hours: 24h)",
            Problem::UnknownUnit => "has an unknown unit",
            Problem::TooLong => "is too long",
        };
        write!(f, "`{}` {problem}; accepted: {ACCEPTED}", self.value)
    }
}

impl std::error::Error for DurationError {}

const LONGEST: u128 = i64::MAX as u128;

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn nanos_of(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn scaled(whole: &str, fraction: &str, nanos: u128) -> Option<u128> {
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok().filter(|n| *n <= LONGEST)? };
    // Digits beyond the eighteenth are below a nanosecond even for hours.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    whole.checked_mul(nanos)?.checked_add(part.checked_mul(nanos)? / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn go_durations_are_read_and_others_refused() {
        let good = [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("0", 0),
            ("100ms", 100),
            (".5s", 500),
            ("1.s", 1000),
            ("+5m", 300_000),
            ("1000us", 1),
            ("1000µs", 1),
            ("1m1m", 120_000),
        ];
        for (text, millis) in good {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let bad = [
            ("", Problem::Empty),
            ("-5m", Problem::Negative),
            ("90", Problem::NoUnit),
            ("1d", Problem::Days),
            ("10 m", Problem::UnknownUnit),
            ("1M", Problem::UnknownUnit),
            ("--5m", Problem::Negative),
            ("ten", Problem::NotANumber),
            ("+", Problem::NotANumber),
            (".s", Problem::NotANumber),
            ("99999999999999999999h", Problem::TooLong),
            ("1e3s", Problem::UnknownUnit),
            ("5m ", Problem::UnknownUnit),
        ];
        for (text, problem) in bad {
            assert_eq!(parse(text).unwrap_err().problem, problem, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_the_same(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            if let Ok(duration) = parse(&text) {
                prop_assert_eq!(parse(&show(duration)), Ok(duration));
            }
        }

        #[test]
        fn no_text_of_the_grammar_panics(text in "[-+]?([0-9]{0,25}\\.?[0-9]{0,25}(ns|us|µs|ms|s|m|h|d)?){0,4}") {
            if let Ok(duration) = parse(&text) {
                prop_assert_eq!(parse(&show(duration)), Ok(duration));
            }
        }
    }
}
