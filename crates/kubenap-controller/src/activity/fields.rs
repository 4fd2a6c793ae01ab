//! The settings of one source in the config file, taken field by field, with every mistake at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kubenap_core::duration;
use serde_json::{Map, Value};

use super::{Authorization, Credentials, Endpoint, Secret};

/// What is written for one source; each field is taken once, and what is left at the end is a mistake.
#[derive(Debug)]
pub(super) struct Fields {
    place: String,
    given: Map<String, Value>,
    known: Vec<String>,
    mistakes: Vec<String>,
}

impl Fields {
    /// The fields that stand at `place`, such as `sources.main`.
    pub(super) fn new(place: String, given: Map<String, Value>) -> Self {
        Self { place, given, known: Vec::new(), mistakes: Vec::new() }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.known.push(name.to_owned());
        self.given.remove(name).filter(|value| !value.is_null())
    }

    /// Notes a mistake in the field.
    pub(super) fn mistake(&mut self, name: &str, what: &str) {
        self.mistakes.push(format!("{}.{name}: {what}", self.place));
    }

    /// A text; a number is one too.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) if !text.is_empty() => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => {
                self.mistake(name, "is not understood; accepted: a text");
                None
            }
        }
    }

    /// A text that must be there.
    pub(super) fn needed(&mut self, name: &str) -> String {
        let given = self.given.contains_key(name);
        self.text(name).unwrap_or_else(|| {
            if !given {
                self.mistake(name, "is missing");
            }
            String::new()
        })
    }

    /// One word of a closed set; without it the first.
    pub(super) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)], otherwise: T) -> T {
        let Some(text) = self.text(name) else { return otherwise };
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return *meaning;
        }
        let accepted: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        self.mistake(name, &format!("`{text}` is not understood; accepted: {}", accepted.join(", ")));
        otherwise
    }

    /// `true` or `false`; without it `false`.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        match self.take(name) {
            Some(Value::Bool(flag)) => flag,
            None => false,
            Some(_) => {
                self.mistake(name, "is not understood; accepted: true or false");
                false
            }
        }
    }

    /// A duration of at least `least`.
    pub(super) fn duration(&mut self, name: &str, least: Duration) -> Option<Duration> {
        let text = self.text(name)?;
        let value = duration::parse(&text).ok().filter(|value| *value >= least);
        if value.is_none() {
            let least = duration::show(least);
            self.mistake(
                name,
                &format!("`{text}` is not understood; accepted: {} of at least {least}", duration::ACCEPTED),
            );
        }
        value
    }

    /// A list of texts, or a single one.
    pub(super) fn texts(&mut self, name: &str) -> Vec<String> {
        let items = match self.take(name) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(single) => vec![single],
        };
        let texts: Option<Vec<_>> = items
            .iter()
            .map(|item| item.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
            .collect();
        texts.unwrap_or_else(|| {
            self.mistake(name, "is not understood; accepted: a list of texts");
            Vec::new()
        })
    }

    /// Texts by name.
    pub(super) fn pairs(&mut self, name: &str) -> BTreeMap<String, String> {
        let pairs = match self.take(name) {
            None => return BTreeMap::new(),
            Some(Value::Object(pairs)) => pairs,
            Some(_) => {
                self.mistake(name, "is not understood; accepted: texts by name");
                return BTreeMap::new();
            }
        };
        let mut read = BTreeMap::new();
        for (key, value) in pairs {
            match value {
                Value::String(text) => {
                    read.insert(key, text);
                }
                Value::Number(number) => {
                    read.insert(key, number.to_string());
                }
                _ => self.mistake(&format!("{name}.{key}"), "is not understood; accepted: a text"),
            }
        }
        read
    }

    /// An address, without which nothing can be asked.
    pub(super) fn endpoint(&mut self, name: &str) -> Option<Endpoint> {
        let text = self.needed(name);
        if text.is_empty() {
            return None;
        }
        match Endpoint::parse(&text) {
            Ok(endpoint) => Some(endpoint),
            Err(why) => {
                // The address itself may hold a password.
                self.mistake(
                    name,
                    &format!("is not understood: {why}; accepted: http://HOST[:PORT][/PATH] or https://…"),
                );
                None
            }
        }
    }

    /// `NAMEFile` or `NAMEEnv`; a secret itself does not belong into the file.
    pub(super) fn secret(&mut self, name: &str) -> Option<Secret> {
        let (file, env) = (format!("{name}File"), format!("{name}Env"));
        if self.given.remove(name).is_some() {
            self.mistake(name, &format!("does not belong into this file; accepted: {file} or {env}"));
        }
        let (path, variable) = (self.text(&file), self.text(&env));
        match (path, variable) {
            (Some(_), Some(_)) => {
                self.mistake(&file, &format!("stands beside {env}; accepted: one of them"));
                None
            }
            (Some(path), None) => Some(Secret::File(PathBuf::from(path))),
            (None, Some(variable)) => {
                let value = std::env::var(&variable).ok().filter(|value| !value.is_empty());
                if value.is_none() {
                    self.mistake(&env, &format!("the environment variable `{variable}` is not set"));
                }
                value.map(Secret::Text)
            }
            (None, None) => None,
        }
    }

    /// `headers`, `bearerToken…`, `username` with `password…`, and `caFile`.
    pub(super) fn credentials(&mut self) -> Credentials {
        let headers = self.pairs("headers").into_iter();
        let headers: BTreeMap<_, _> = headers.map(|(name, value)| (name, Secret::Text(value))).collect();
        let bearer = self.secret("bearerToken");
        let (user, password) = (self.text("username"), self.secret("password"));
        let authorization = match (bearer, user, password) {
            (Some(bearer), None, None) => Some(Authorization::Bearer(bearer)),
            (None, Some(user), Some(password)) => Some(Authorization::Basic { user, password }),
            (None, None, None) => None,
            (Some(_), ..) => {
                self.mistake("bearerToken", "stands beside username or password; accepted: one of them");
                None
            }
            (None, ..) => {
                self.mistake("username", "and password belong together; one of them is missing");
                None
            }
        };
        let ca_file = self.text("caFile").map(PathBuf::from);
        let credentials = Credentials { authorization, headers, ca_file };
        if let Err(error) = credentials.check() {
            self.mistake("headers", &error.to_string());
        }
        credentials
    }

    /// What was made of the fields, unless there was a mistake; every field that nobody took is one.
    ///
    /// # Errors
    /// Every mistake, each with its place.
    pub(super) fn finish<T>(mut self, made: T) -> Result<T, Vec<String>> {
        let strangers: Vec<_> = self.given.keys().cloned().collect();
        for stranger in strangers {
            let accepted = self.known.join(", ");
            self.mistake(&stranger, &format!("is not known; accepted: {accepted}"));
        }
        if self.mistakes.is_empty() { Ok(made) } else { Err(self.mistakes) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(of: Value) -> Fields {
        let Value::Object(given) = of else { panic!("an object") };
        Fields::new("sources.main".to_owned(), given)
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let mut fields = fields(json!({
            "url": "ftp://me:hunter2@x", "bearerToken": "hunter2", "username": "me", "colour": "blue",
            "headers": {"a": ["b"]}, "flag": "yes", "wait": "1d",
        }));
        assert_eq!(fields.endpoint("url"), None);
        fields.credentials();
        fields.flag("flag");
        fields.duration("wait", Duration::from_secs(1));
        let mistakes = fields.finish(()).unwrap_err().join("\n");
        for expected in [
            "sources.main.url: is not understood: its scheme is neither http nor https",
            "sources.main.bearerToken: does not belong into this file; accepted: bearerTokenFile or bearerTokenEnv",
            "sources.main.username: and password belong together",
            "sources.main.headers.a: is not understood",
            "sources.main.flag: is not understood; accepted: true or false",
            "sources.main.wait: `1d` is not understood",
            "sources.main.colour: is not known; accepted: url, headers,",
        ] {
            assert!(mistakes.contains(expected), "{expected}\nis not in\n{mistakes}");
        }
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
    }

    #[test]
    fn secrets_come_from_files_and_the_environment() {
        let mut fields = fields(json!({
            "bearerTokenFile": "/run/token", "apiKeyEnv": "PATH", "lostEnv": "KUBENAP_NO_SUCH_VARIABLE",
        }));
        assert_eq!(fields.secret("bearerToken"), Some(Secret::File(PathBuf::from("/run/token"))));
        assert!(matches!(fields.secret("apiKey"), Some(Secret::Text(text)) if !text.is_empty()));
        assert_eq!(fields.secret("lost"), None);
        let mistakes = fields.finish(()).unwrap_err();
        assert_eq!(
            mistakes,
            ["sources.main.lostEnv: the environment variable `KUBENAP_NO_SUCH_VARIABLE` is not set"]
        );
    }
}
