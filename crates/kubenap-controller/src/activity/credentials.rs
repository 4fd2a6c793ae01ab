//! What a server wants to see before it answers: read from files or the environment, sent, never shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::SourceError;

/// Something that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// Itself.
    Text(String),
    /// A file that holds it; it is read for each poll, so that it may be rotated.
    File(PathBuf),
}

/// How KubeNap says who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// `Authorization: Bearer …`.
    Bearer(Secret),
    /// `Authorization: Token …`, which `InfluxDB` wants.
    Token(Secret),
    /// `Authorization: Basic …`.
    Basic {
        /// The user's name.
        user: String,
        /// The user's password.
        password: Secret,
    },
}

/// All that goes along with each question to one server.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Who asks.
    pub authorization: Option<Authorization>,
    /// More headers, such as a tenant.
    pub headers: BTreeMap<String, Secret>,
    /// A PEM file with the certificate authorities that are trusted, instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl Secret {
    /// The text, without white space around it.
    pub(super) async fn read(&self) -> Result<String, SourceError> {
        match self {
            Self::Text(text) => Ok(text.trim().to_owned()),
            Self::File(path) => {
                let text = tokio::fs::read_to_string(path).await.map_err(|error| {
                    SourceError::Credential { path: path.display().to_string(), cause: error.to_string() }
                })?;
                Ok(text.trim().to_owned())
            }
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Text(_) => "(given as text)".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("…"),
            Self::File(path) => write!(f, "the content of {}", path.display()),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("authorization", &self.authorization)
            .field("headers", &self.headers.keys())
            .field("ca_file", &self.ca_file)
            .finish()
    }
}

impl Credentials {
    /// Whether they can be sent at all; files are not read.
    pub(super) fn check(&self) -> Result<(), SourceError> {
        for (name, value) in &self.headers {
            HeaderName::try_from(name.as_str()).map_err(|_| not_a_header(&format!("(header {name})")))?;
            if let Secret::Text(text) = value {
                sensitive(text.trim(), value)?;
            }
        }
        match &self.authorization {
            Some(Authorization::Bearer(secret) | Authorization::Token(secret)) => match secret {
                Secret::Text(text) => sensitive(text.trim(), secret).map(drop),
                Secret::File(_) => Ok(()),
            },
            Some(Authorization::Basic { .. }) | None => Ok(()),
        }
    }

    /// The headers that carry them, marked as sensitive. Reads the files.
    pub(super) async fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, SourceError> {
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            let name =
                HeaderName::try_from(name.as_str()).map_err(|_| not_a_header(&format!("(header {name})")))?;
            headers.push((name, sensitive(&value.read().await?, value)?));
        }
        let authorization = match &self.authorization {
            Some(Authorization::Bearer(secret)) => Some((format!("Bearer {}", secret.read().await?), secret)),
            Some(Authorization::Token(secret)) => Some((format!("Token {}", secret.read().await?), secret)),
            Some(Authorization::Basic { user, password }) => {
                let both = format!("{user}:{}", password.read().await?);
                Some((format!("Basic {}", base64(both.as_bytes())), password))
            }
            None => None,
        };
        if let Some((text, secret)) = authorization {
            headers.push((AUTHORIZATION, sensitive(&text, secret)?));
        }
        Ok(headers)
    }
}

fn sensitive(text: &str, from: &Secret) -> Result<HeaderValue, SourceError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| not_a_header(&from.place()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn not_a_header(place: &str) -> SourceError {
    SourceError::Credential {
        path: place.to_owned(),
        cause: "it cannot be sent as an HTTP header".to_owned(),
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let sign = ALPHABET[((bits >> (18 - 6 * place)) & 63) as usize];
            text.push(if place <= group.len() { char::from(sign) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_it_should() {
        assert_eq!(["", "f", "fo", "foo"].map(|text| base64(text.as_bytes())), ["", "Zg==", "Zm8=", "Zm9v"]);
    }

    #[tokio::test]
    async fn each_way_to_say_who_asks_is_sent_and_never_shown() {
        let secret = || Secret::Text(" hunter2\n".to_owned());
        let password = secret();
        for (authorization, header) in [
            (Authorization::Bearer(secret()), "Bearer hunter2"),
            (Authorization::Token(secret()), "Token hunter2"),
            (Authorization::Basic { user: "me".to_owned(), password }, "Basic bWU6aHVudGVyMg=="),
        ] {
            let credentials = Credentials {
                authorization: Some(authorization),
                headers: BTreeMap::from([("X-Scope-OrgID".to_owned(), secret())]),
                ca_file: None,
            };
            credentials.check().unwrap();
            let headers = credentials.headers().await.unwrap();
            assert_eq!(headers[0].0, "x-scope-orgid");
            assert_eq!(headers[1].1, header);
            assert!(!format!("{credentials:?} {headers:?}").contains("hunter2"));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_refused_by_its_place() {
        let bad = Credentials {
            headers: BTreeMap::from([("no blanks".to_owned(), Secret::Text("x".to_owned()))]),
            ..Credentials::default()
        };
        assert!(bad.check().unwrap_err().to_string().contains("(header no blanks)"));
        let lost = Secret::File(PathBuf::from("/nowhere/token"));
        let lost = Credentials { authorization: Some(Authorization::Bearer(lost)), ..Credentials::default() };
        lost.check().unwrap();
        assert!(lost.headers().await.unwrap_err().to_string().contains("/nowhere/token"));
    }
}
