//! How a request on a proxy's error path is read: what it is about, and what may become of it.

use super::location::{original, safe_location};

/// The head of a request, whatever carried it.
#[derive(Clone, Debug)]
pub struct RequestHead<'a> {
    /// The method, as on the wire.
    pub method: &'a str,
    /// Path and query, as they came.
    pub uri: &'a str,
    /// `Host`, or `:authority`; none if there is none or more than one.
    pub host: Option<&'a str>,
    /// All fields, names in lower case. A value that is no text stands there as one that means nothing.
    pub fields: &'a [(&'a str, &'a str)],
}

/// What a request is about, as the proxy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Every name that the proxy set. Those that are known must all lead to the same app.
    pub hosts: Vec<&'a str>,
    /// Where a redirect leads: path and query, checked.
    pub location: String,
    /// The Service that the proxy says it could not reach, with its namespace.
    pub service: Option<(&'a str, &'a str)>,
    /// The method of the request that the client sent.
    pub method: &'a str,
    /// It wants another protocol (`Upgrade`), but this head does not say so itself.
    pub upgrade: bool,
    /// How the app can still be given the client's request.
    pub reach: Reach,
}

/// How the app can still be given the client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only by the client itself: what is here is another request.
    Gone,
    /// The same, and the proxy makes a redirect of whatever is answered.
    GoneForGood,
    /// It is here whole: method, path, fields and body.
    Here,
    /// The proxy keeps it, and sends it once more when it is told so by `X-Accel-Redirect`.
    Kept,
}

/// Why a request wakes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is not clear for whom it is.
    Whom,
    /// No redirect may lead where it wants to go.
    Where,
    /// The app was reached and may have carried it out: the proxy's own error, this status, is the answer.
    Reached(u16),
}

/// Where NGINX sends a request that it keeps to the app once more.
pub const RETRY: &str = "@kubenap_retry";
/// Where NGINX asks KubeNap about a request that it keeps.
pub const ASK: &str = "@kubenap";

impl<'a> RequestHead<'a> {
    /// A field that is there at most once.
    pub fn one(&self, name: &str) -> Result<Option<&'a str>, Doubt> {
        let mut values = self.fields.iter().filter(|(own, _)| *own == name).map(|(_, value)| *value);
        match (values.next(), values.next()) {
            (value, None) => Ok(value.filter(|value| !value.is_empty())),
            (_, Some(_)) => Err(Doubt::Whom),
        }
    }

    /// The path without the query.
    pub fn path(&self) -> &'a str {
        self.uri.split('?').next().unwrap_or_default()
    }

    /// The query, or nothing.
    pub fn query(&self) -> &'a str {
        self.uri.split_once('?').map_or("", |(_, query)| query)
    }

    /// The whole request, for its own host and path.
    pub fn here(&self) -> Result<Target<'a>, Doubt> {
        self.about(self.uri, Reach::Here)
    }

    /// A request for its own host, about this path and query.
    pub fn about(&self, uri: &str, reach: Reach) -> Result<Target<'a>, Doubt> {
        let location = safe_location(uri).ok_or(Doubt::Where)?.to_owned();
        let host = self.host.ok_or(Doubt::Whom)?;
        let (method, service) = (self.method, None);
        Ok(Target { hosts: vec![host], location, service, method, upgrade: false, reach })
    }
}

/// A request that says itself where it wants to go: `/wake?original=<path>`; or none of this kind.
pub(super) fn asked_by_name<'a>(head: &RequestHead<'a>) -> Option<Result<Target<'a>, Doubt>> {
    let named = head.query().split('&').any(|pair| pair.starts_with("original="));
    let by_name = head.path() == "/wake" && named;
    by_name.then(|| head.about(&original(head.query()).ok_or(Doubt::Where)?, Reach::Gone))
}
