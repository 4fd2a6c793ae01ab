//! Which queries of an app's own are accepted: those of a closed set of words and signs, none of which is known to hide a use.
//!
//! What is left out shows the past, a value where there is no series, or the very same value though the app is used. Whether
//! what is accepted is right PromQL the server says.

use std::iter::Peekable;

/// What is wrong with a query, as part of a sentence; none: it is accepted.
pub(super) fn problem(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("is not understood".to_owned());
    }
    if text.len() > LONGEST {
        return Some(format!("is longer than {LONGEST} bytes"));
    }
    if text.contains('\r') {
        // For some servers a comment ends there, for others it does not.
        return Some("has a carriage return".to_owned());
    }
    let mut tokens = Tokens { rest: text }.peekable();
    let mut selects = false;
    let mut value = Shown::default();
    // Whether a value ends here, so that only what joins it to another one may follow.
    let mut ended = false;
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(word) => {
                let lower = word.to_ascii_lowercase();
                match lower.as_str() {
                    "by" | "without" | "on" | "ignoring" | "group_left" | "group_right" => {
                        labels(&mut tokens);
                    }
                    "and" | "unless" => {
                        value.condition();
                        ended = false;
                    }
                    "inf" | "nan" if !ended => ended = true,
                    _ if ended || NO_METRICS.contains(&lower.as_str()) => return Some(refused(word)),
                    _ if !calls(tokens.peek()) => {
                        value.selects();
                        (selects, ended) = (true, true);
                    }
                    _ if FUNCTIONS.contains(&lower.as_str()) => value.calls(word, &lower),
                    _ => return Some(refused(word)),
                }
            }
            Token::Value if !ended => ended = true,
            Token::Sign('{') => {
                if let Err(problem) = matchers(&mut tokens) {
                    return Some(problem);
                }
                value.selects();
                (selects, ended) = (true, true);
            }
            Token::Sign(')') => {
                value.closes();
                ended = true;
            }
            Token::Sign('(') if !ended => value.opens(),
            Token::Sign(sign @ (',' | '+' | '-' | '*' | '/' | '=' | '!' | '<' | '>')) => {
                value.joins(sign);
                ended = false;
            }
            Token::Sign(sign) if !matches!(sign, '(' | '}') => {
                return Some(refused(sign.encode_utf8(&mut [0; 4])));
            }
            Token::Value | Token::Sign(_) | Token::Broken => return Some("is not understood".to_owned()),
        }
    }
    if !selects {
        return Some("looks at no series".to_owned());
    }
    value.still().map(|word| {
        format!(
            "has `{word}`, which may stand still while the app is used, and may only be in a condition: give the counters themselves, as in sum(x)"
        )
    })
}

/// How many bytes a query may have.
const LONGEST: usize = 2000;

/// What may be called.
const FUNCTIONS: [&str; 13] = [
    "sum",
    "avg",
    "min",
    "max",
    "count",
    "group",
    "time",
    "timestamp",
    "scalar",
    "label_replace",
    "label_join",
    "histogram_count",
    "histogram_sum",
];

/// What is there for conditions: with several series it may show the same while one of them rises.
const STILL: [&str; 4] = ["min", "max", "count", "group"];

/// Whether what a query shows rests on some counter as it is. What stands behind `and`, `unless` and a comparison is a
/// condition, and shows nothing.
#[derive(Debug, Default)]
struct Shown<'a> {
    outer: Frame<'a>,
    /// What is in parentheses that are still open.
    inner: Vec<Frame<'a>>,
    /// What is called by the next parentheses.
    called: Frame<'a>,
    /// What a counter was found in first that may stand still.
    still: Option<&'a str>,
}

/// What is in one pair of parentheses.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and all of them may be so at once"
)]
struct Frame<'a> {
    /// All of it stands in a condition.
    within: bool,
    /// What comes now stands in one.
    condition: bool,
    /// What it is in that may stand still.
    still: Option<&'a str>,
    /// It gives one number, of no series.
    scalar: bool,
    /// There are series in it.
    selects: bool,
    /// It shows a counter as it is, or the time.
    moves: bool,
}

impl<'a> Shown<'a> {
    fn top(&mut self) -> &mut Frame<'a> {
        self.inner.last_mut().unwrap_or(&mut self.outer)
    }

    fn calls(&mut self, word: &'a str, lower: &str) {
        self.called = Frame {
            still: STILL.contains(&lower).then_some(word),
            scalar: lower == "scalar",
            ..Frame::default()
        };
        // Each look is at another time.
        let top = self.top();
        top.moves |= lower.starts_with("time") && !top.condition;
    }

    fn opens(&mut self) {
        let (called, top) = (std::mem::take(&mut self.called), *self.top());
        let (within, still) = (top.condition, top.still.or(called.still));
        self.inner.push(Frame { within, condition: within, still, ..called });
    }

    fn closes(&mut self) {
        if let Some(closed) = self.inner.pop() {
            let top = self.top();
            top.selects |= closed.selects && !closed.scalar;
            top.moves |= closed.moves;
        }
    }

    fn selects(&mut self) {
        let top = self.top();
        top.selects = true;
        if !top.condition {
            top.moves |= top.still.is_none();
            let still = top.still;
            self.still = self.still.or(still);
        }
    }

    fn joins(&mut self, sign: char) {
        let top = self.top();
        match sign {
            ',' => (top.condition, top.selects) = (top.within, false),
            '=' | '!' | '<' | '>' if top.selects => top.condition = true,
            // A number that is compared with series shows what they show.
            '=' | '!' | '<' | '>' => top.moves = false,
            _ => {}
        }
    }

    fn condition(&mut self) {
        self.top().condition = true;
    }

    /// What all that it shows is in, if that may stand still.
    fn still(&self) -> Option<&'a str> {
        self.still.filter(|_| !self.outer.moves)
    }
}

/// Words that are no metric's name wherever they stand.
const NO_METRICS: [&str; 4] = ["offset", "or", "bool", "atan2"];

fn refused(word: &str) -> String {
    let why = match word.to_ascii_lowercase().as_str() {
        "offset" | "@" => "which shows the past",
        "[" | "rate" | "irate" | "increase" | "delta" | "changes" => {
            "which may show the same under a steady use, and not the first count of a new series: give the counter itself, as in sum(x)"
        }
        "or" | "default" | "vector" | "absent" => "which shows a value where there is no series",
        _ => "which is not known to show every use",
    };
    // A word may be as long as the query.
    let word: String = word.chars().take(32).collect();
    format!("has `{word}`, {why}")
}

/// One piece of an expression.
#[derive(Clone, Copy)]
enum Token<'a> {
    /// A name or a keyword.
    Word(&'a str),
    /// A number, or what stands in quotes.
    Value,
    Sign(char),
    /// A quote that does not end, or a number that is none.
    Broken,
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.rest = self.rest.trim_start();
        while let Some(comment) = self.rest.strip_prefix('#') {
            self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
        }
        let first = self.rest.chars().next()?;
        let is_part = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '_' | ':' | '.');
        let (token, length) = match first {
            '"' | '\'' | '`' => {
                quoted(self.rest, first).map_or((Token::Broken, self.rest.len()), |end| (Token::Value, end))
            }
            _ if is_part(first) => {
                let end = self.rest.find(|sign| !is_part(sign)).unwrap_or(self.rest.len());
                let (word, _) = self.rest.split_at(end);
                let is_number = first.is_ascii_digit() || first == '.';
                // VictoriaMetrics takes `0or` for a number and a word.
                let is_plain = word
                    .chars()
                    .all(|sign| sign.is_ascii_hexdigit() || matches!(sign, '.' | '_' | 'x' | 'X'));
                let token = match (is_number, is_plain) {
                    (true, true) => Token::Value,
                    (true, false) => Token::Broken,
                    (false, _) => Token::Word(word),
                };
                (token, end)
            }
            _ => (Token::Sign(first), first.len_utf8()),
        };
        self.rest = self.rest.get(length..).unwrap_or_default();
        Some(token)
    }
}

/// Where what stands in quotes at the beginning of the text ends.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut signs = text.char_indices().skip(1);
    while let Some((at, sign)) = signs.next() {
        match sign {
            '\\' if quote != '`' => drop(signs.next()),
            // For VictoriaMetrics it does not end there.
            '\\' if text.get(at + 1..).is_some_and(|rest| rest.starts_with(quote)) => return None,
            _ if sign == quote => return Some(at + sign.len_utf8()),
            _ => {}
        }
    }
    None
}

/// Whether the word before this is called, as in `sum(x)` and `sum by (y) (x)`.
fn calls(next: Option<&Token<'_>>) -> bool {
    match next {
        Some(Token::Sign('(')) => true,
        Some(Token::Word(word)) => ["by", "without"].iter().any(|list| list.eq_ignore_ascii_case(word)),
        _ => false,
    }
}

/// Goes past the labels in parentheses, if they come next.
fn labels(tokens: &mut Peekable<Tokens<'_>>) {
    if matches!(tokens.peek(), Some(Token::Sign('('))) {
        // An expression that ends before they do is the server's to refuse.
        let _ = tokens.find(|token| matches!(token, Token::Sign(')')));
    }
}

/// Goes past the matchers of a selector, up to its closing brace.
fn matchers(tokens: &mut Peekable<Tokens<'_>>) -> Result<(), String> {
    for token in tokens {
        match token {
            Token::Sign('}') => return Ok(()),
            Token::Word(_) | Token::Value | Token::Sign('=' | '!' | '~' | ',') => {}
            Token::Sign(_) | Token::Broken => break,
        }
    }
    Err("is not understood".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_as_they_are_and_conditions_are_accepted() {
        for text in [
            "sum(x)",
            "up",
            r#"sum(queue_messages_received_total{queue="orders"}) and min(up{job="queue"}) == 1"#,
            "sum by (a, offset) (x) / on (a) group_left x:y:sum",
            "SUM(x) BY (a)",
            "sum(jobs_running) * time()",
            "-1.5e+3 * sum({__name__=~\"a|b\",le!='1'}) unless group(y) > 2",
            "(sum(x) + sum(y)) # not by offset, or so @home [1m]",
            r#"sum(x{how="or \" offset 5m [1m] @ 7"})"#,
            "sum(x{how=`off\\set `, or='vector(1)'})",
            "sum(histogram_count(latency_seconds))",
            "sum(x) / count(y)",
            "max(jobs_running) * time()",
            "5 < sum(x) > min(y) unless (max(z)) > 3",
        ] {
            assert_eq!(problem(text), None, "{text}");
        }
    }

    #[test]
    fn a_query_that_can_stand_still_while_the_app_is_used_is_refused_and_the_word_is_named() {
        for (text, word) in [
            ("sum(x offset 10m)", "offset"),
            ("sum(x OFFSET -10m)", "OFFSET"),
            ("sum(x{a='b'} offset 10m)", "offset"),
            ("sum(x @ 1700000000)", "@"),
            ("sum(x@end())", "@"),
            ("sum(x) or vector(0)", "or"),
            ("sum(x)\nOR on() y", "OR"),
            ("vector(1)", "vector"),
            ("absent(x{a='b'})", "absent"),
            ("sum(rate(x[1h]))", "rate"),
            ("sum(x[5m])", "["),
            ("sum(x)[1h:10m]", "["),
            ("round(sum(x))", "round"),
            ("clamp_max(sum(x), 1)", "clamp_max"),
            ("topk by (a) (1, x)", "topk"),
            ("sum(x) > bool 5", "bool"),
            ("sum(x) % 2", "%"),
            ("sum(x) atan2 y", "atan2"),
            // Words of MetricsQL.
            ("sum(x) default 0", "default"),
            ("sum(x) if y", "if"),
            ("WITH (y = 1) y", "WITH"),
            ("keep_last_value(x)", "keep_last_value"),
        ] {
            let problem = problem(text).unwrap_or_default();
            assert!(problem.starts_with(&format!("has `{word}`, ")), "{text}: {problem}");
        }
    }

    #[test]
    fn a_query_that_shows_one_of_two_replicas_only_is_refused_and_the_sum_is_named() {
        for (text, word) in [
            ("max(x)", "max"),
            ("MIN by (a) (x)", "MIN"),
            ("count(x) > 0", "count"),
            ("group(x)", "group"),
            ("-(max(x))", "max"),
            ("max(x) + min(x)", "max"),
            ("sum(max by (pod) (x))", "max"),
            ("max(sum by (pod) (x))", "max"),
            ("label_replace(max(x{a='b'}), 'a', 'b', 'c', 'd')", "max"),
            ("max(x) and sum(y) > 1", "max"),
            ("max(x) and min(y) == time()", "max"),
            // This shows what is on its right side.
            ("1 < max(x)", "max"),
            ("time() < max(x)", "max"),
            ("scalar(sum(y) > 1 unless z) < max(x)", "max"),
        ] {
            let problem = problem(text).unwrap_or_default();
            assert!(
                problem.starts_with(&format!("has `{word}`, which may stand still")),
                "{text}: {problem}"
            );
            assert!(problem.contains("sum(x)"), "{problem}");
        }
    }

    #[test]
    fn a_query_of_constants_only_never_changes_and_is_refused() {
        for text in ["1", "1 + inf", "time()", "scalar(1)", "sum by (a) (1)", "'up'"] {
            assert_eq!(problem(text).as_deref(), Some("looks at no series"), "{text}");
        }
    }

    #[test]
    fn every_function_that_is_accepted_is_told() {
        let accepted =
            crate::policy::KEYS.iter().find(|key| key.name == "query").map_or("", |key| key.accepted);
        let (_, functions) = accepted.split_once("and sum").unwrap();
        assert_eq!(format!("sum{functions}").split(", ").collect::<Vec<_>>(), FUNCTIONS);
    }

    #[test]
    fn what_is_no_expression_is_not_understood() {
        for text in [
            "",
            "x 5",
            "x y='",
            "sum(x{a=\"b)",
            "sum(x{a='\\",
            "x{a=\"b\"",
            "x{{}}",
            "x}",
            "sum(x) (y)",
            "sum(x) + 0or -1",
            "x{a=`\\`,b=\"`} offset 5m #\"}",
            "sum(x) #\r or vector(0)",
            "x \"y\"",
        ] {
            assert!(problem(text).is_some(), "{text}");
        }
        assert_eq!(problem(&"x".repeat(2000)), None);
        assert_eq!(problem(&"x".repeat(2001)).as_deref(), Some("is longer than 2000 bytes"));
        let long = problem(&format!("{}(x)", "y".repeat(1500))).unwrap_or_default();
        assert!(long.len() < 100, "{long}");
    }
}
