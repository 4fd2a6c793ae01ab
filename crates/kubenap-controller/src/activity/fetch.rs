//! A small HTTP client for sources: always a deadline, a size limit, and no redirects.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT,
};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kubenap_core::policy::is_like;

use super::SourceError;
use super::credentials::base64;

/// An HTTP address. Shown without user, password and query. The default leads nowhere.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    base: String,
    query: Option<String>,
    basic: Option<String>,
}

/// One question over HTTP.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) endpoint: &'a Endpoint,
    /// Added to the endpoint's path.
    pub(super) path: &'a str,
    /// What is posted; without it it is a GET.
    pub(super) post: Option<Post>,
    pub(super) headers: &'a [(HeaderName, HeaderValue)],
    pub(super) accept: &'static str,
    /// For everything, from the connection to the last byte.
    pub(super) deadline: Duration,
    /// How many bytes the answer may have.
    pub(super) limit: usize,
}

/// The body of a question.
#[derive(Debug)]
pub(super) struct Post {
    /// Its `Content-Type`.
    pub(super) kind: &'static str,
    pub(super) text: String,
}

/// The head of an answer whose body was read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// The client. Connections are reused.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Fetch {
    /// A client that trusts the system's certificate authorities.
    pub(super) fn new() -> Self {
        Self::with(tls())
    }

    /// A client that trusts the certificate authorities of this PEM file only, or the system's without one.
    pub(super) fn trusting(ca_file: Option<&Path>) -> Result<Self, SourceError> {
        ca_file.map_or_else(|| Ok(Self::new()), |path| Ok(Self::with(tls_trusting(path)?)))
    }

    fn with(tls: rustls::ClientConfig) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(Duration::from_secs(5)));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_mins(1))
            .pool_max_idle_per_host(2)
            .build(https);
        Self { client }
    }

    /// The whole answer; other statuses than those `also` wanted are errors.
    pub(super) async fn whole(
        &self,
        question: Question<'_>,
        also: &[StatusCode],
    ) -> Result<(Reply, Vec<u8>), SourceError> {
        let mut body = Vec::new();
        let reply = self.stream(question, also, |chunk| body.extend_from_slice(chunk)).await?;
        Ok((reply, body))
    }

    /// The answer piece by piece, as it comes. What was given to `each` counts only when this returns `Ok`.
    pub(super) async fn stream(
        &self,
        question: Question<'_>,
        also: &[StatusCode],
        each: impl FnMut(&[u8]),
    ) -> Result<Reply, SourceError> {
        let (at, deadline) = (question.endpoint.to_string(), question.deadline);
        tokio::time::timeout(deadline, self.exchange(question, also, each))
            .await
            .map_err(|_| SourceError::Timeout { at, deadline })?
    }

    async fn exchange(
        &self,
        question: Question<'_>,
        also: &[StatusCode],
        mut each: impl FnMut(&[u8]),
    ) -> Result<Reply, SourceError> {
        let at = || question.endpoint.to_string();
        let limit = question.limit;
        let request = request(&question)?;
        let response =
            self.client.request(request).await.map_err(|error| unreachable(at(), innermost(&error)))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(SourceError::Redirect { at: at(), status: status.as_u16() });
        }
        if status != StatusCode::OK && !also.contains(&status) {
            return Err(SourceError::Status { at: at(), status: status.as_u16() });
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html")) {
            // A proxy's error page keeps its status; a page with status 200 is a login form.
            return Err(match status {
                StatusCode::OK => SourceError::NotUnderstood {
                    at: at(),
                    why: "a web page came instead; hint: the address may lead to a login or a web interface"
                        .to_owned(),
                },
                _ => SourceError::Status { at: at(), status: status.as_u16() },
            });
        }
        // An answer that says itself that it is too large is not even begun.
        let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        if length.and_then(|length| length.parse().ok()).is_some_and(|length: u64| length > limit as u64) {
            return Err(SourceError::TooLarge { at: at(), limit });
        }
        let (head, mut body): (_, Incoming) = response.into_parts();
        let mut read = 0_usize;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| SourceError::Broken { at: at(), cause: innermost(&error) })?;
            if let Some(chunk) = frame.data_ref() {
                read = read.saturating_add(chunk.len());
                if read > limit {
                    return Err(SourceError::TooLarge { at: at(), limit });
                }
                each(chunk);
            }
        }
        Ok(Reply { status, headers: head.headers })
    }
}

impl Endpoint {
    /// Reads `http://[USER:PASSWORD@]HOST[:PORT][/PATH][?QUERY]`, or the same with `https`.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| "it is not a URL".to_owned())?;
        let scheme = match uri.scheme_str() {
            Some(scheme @ ("http" | "https")) => scheme,
            Some(_) => return Err("its scheme is neither http nor https".to_owned()),
            None => return Err("it does not begin with http:// or https://".to_owned()),
        };
        let authority = uri.authority().ok_or_else(|| "it has no host".to_owned())?;
        if authority.host().is_empty() {
            return Err("it has no host".to_owned());
        }
        let (user, host) = authority
            .as_str()
            .rsplit_once('@')
            .map_or((None, authority.as_str()), |(user, host)| (Some(user), host));
        if host.len() > authority.host().len() && authority.port_u16().is_none() {
            return Err("its port is not a number from 1 to 65535".to_owned());
        }
        let basic = user.map(|user| format!("Basic {}", base64(&percent_decoded(user))));
        let base = format!("{scheme}://{host}{}", uri.path().trim_end_matches('/'));
        Ok(Self { base, query: uri.query().map(str::to_owned), basic })
    }

    fn uri(&self, path: &str) -> String {
        let (path, own) = path.split_once('?').map_or((path, None), |(path, own)| (path, Some(own)));
        let queries: Vec<_> = own.into_iter().chain(self.query.as_deref()).collect();
        let query = if queries.is_empty() { String::new() } else { format!("?{}", queries.join("&")) };
        format!("{}{path}{query}", self.base)
    }

    /// Takes a parameter out of the query, decoded: what belongs to a source's settings is not sent twice.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let query = self.query.take()?;
        let mut taken = None;
        let mut rest = Vec::new();
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some((key, value)) if key == name && taken.is_none() => {
                    taken = String::from_utf8(percent_decoded(value)).ok();
                }
                _ => rest.push(pair),
            }
        }
        self.query = (!rest.is_empty()).then(|| rest.join("&"));
        taken
    }

    /// A parameter that is left, and the one of these that it most likely was to be.
    pub(super) fn mistyped<'a>(&self, known: &[&'a str]) -> Option<(String, &'a str)> {
        let names = self.query.iter().flat_map(|query| query.split('&'));
        let mut names = names.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
        let meant = |name: &str| known.iter().copied().find(|known| is_like(known, name));
        names.find_map(|name| Some((name.to_owned(), meant(name)?)))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

fn request(question: &Question<'_>) -> Result<Request<Full<Bytes>>, SourceError> {
    let not_sent = |cause: String| SourceError::Connect { at: question.endpoint.to_string(), cause };
    let mut request = Request::builder()
        .uri(question.endpoint.uri(question.path))
        .header(ACCEPT, question.accept)
        .header(USER_AGENT, concat!("kubenap/", env!("CARGO_PKG_VERSION")));
    if let Some(basic) = &question.endpoint.basic {
        let mut value =
            HeaderValue::try_from(basic).map_err(|_| not_sent("bad user or password".to_owned()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    if let Some(headers) = request.headers_mut() {
        for (name, value) in question.headers {
            headers.insert(name.clone(), value.clone());
        }
    }
    let request = match &question.post {
        Some(post) => request
            .method(Method::POST)
            .header(CONTENT_TYPE, post.kind)
            .body(Full::new(Bytes::copy_from_slice(post.text.as_bytes()))),
        None => request.method(Method::GET).body(Full::new(Bytes::new())),
    };
    request.map_err(|error| not_sent(error.to_string()))
}

#[expect(clippy::expect_used, reason = "ring has ciphers for the versions that rustls speaks")]
fn builder() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
}

fn tls_trusting(path: &Path) -> Result<rustls::ClientConfig, SourceError> {
    use rustls::pki_types::pem::PemObject as _;
    let wrong = |cause: String| SourceError::Credential { path: path.display().to_string(), cause };
    let pem =
        rustls::pki_types::CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in pem {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it holds no certificate in PEM form".to_owned()));
    }
    Ok(builder().with_root_certificates(roots).with_no_client_auth())
}

/// Read once: to read a system's certificates takes some hundredths of a second, and all sources trust the same.
fn tls() -> rustls::ClientConfig {
    static KNOWN: OnceLock<rustls::ClientConfig> = OnceLock::new();
    KNOWN.get_or_init(read_tls).clone()
}

fn read_tls() -> rustls::ClientConfig {
    use hyper_rustls::ConfigBuilderExt as _;
    match builder().with_native_roots() {
        Ok(config) => config.with_no_client_auth(),
        Err(error) => {
            // An image without certificates can still speak plain HTTP; https then fails by name.
            tracing::info!(%error, "no certificate authorities are known: a source over https needs SSL_CERT_FILE");
            builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
        }
    }
}

fn unreachable(at: String, cause: String) -> SourceError {
    // rustls' words reach here as a text only.
    match cause.strip_prefix("invalid peer certificate: ") {
        Some(cause) => SourceError::Certificate { at, cause: cause.to_owned() },
        None => SourceError::Connect { at, cause },
    }
}

fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// `name=value` pairs as a form body.
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                text.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                write!(text, "%{byte:02X}").unwrap_or(());
            }
        }
    }
    text
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let (b'%', Some(value)) = (byte, hex) {
            decoded.push(value);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_sent_but_never_shown() {
        let endpoint = Endpoint::parse("https://me:p%40ss@prom.example:9090/base/?tenant=secret").unwrap();
        assert_eq!(endpoint.to_string(), "https://prom.example:9090/base");
        assert_eq!(endpoint.basic.as_deref(), Some("Basic bWU6cEBzcw=="));
        assert_eq!(endpoint.uri("/api"), "https://prom.example:9090/base/api?tenant=secret");
        assert!(!format!("{endpoint:?}").contains("ss"));
    }

    #[test]
    fn a_setting_in_the_address_is_taken_out_of_what_is_sent() {
        let mut endpoint = Endpoint::parse("http://x:8086?org=my%20shop&db=a&bucket=b").unwrap();
        assert_eq!(endpoint.take("org").as_deref(), Some("my shop"));
        assert_eq!(endpoint.take("org"), None);
        assert_eq!(endpoint.uri("/q?a=1"), "http://x:8086/q?a=1&db=a&bucket=b");
    }

    #[test]
    fn a_file_of_authorities_that_cannot_be_used_is_named() {
        let error = Fetch::trusting(Some(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let error = Fetch::trusting(Some(Path::new(manifest))).unwrap_err().to_string();
        assert!(error.contains("it holds no certificate in PEM form"), "{error}");
    }

    #[test]
    fn addresses_that_cannot_work_are_refused() {
        for bad in ["", "prom:9090", "ftp://x", "http://", "http://x:99999/", "http:///path", "http://a b/"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_form_survives_every_sign_of_a_query() {
        assert_eq!(
            form(&[("query", "sum by (a)(m{x!~\"/y+\"}) & 1")]),
            "query=sum%20by%20%28a%29%28m%7Bx%21~%22%2Fy%2B%22%7D%29%20%26%201"
        );
    }
}
