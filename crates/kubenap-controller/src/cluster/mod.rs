//! What Kubernetes says: a client with deadlines, and stores that watches keep fresh.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kubenap_core::app::AppId;
use tokio::time::Instant;

pub mod around;
pub mod labels;
pub mod lease;
pub mod members;
pub mod observe;
pub mod pieces;
pub mod ports;
pub mod route_kinds;
pub mod selector;
pub mod slices;
pub mod slim;
pub mod slim_route;
pub mod space;
pub mod stores;
pub mod thin;
mod trouble;
pub mod watched;

/// On a member's Lease: where its admin listener is, for the command line.
pub const ADMIN: &str = "kubenap/admin";
/// Who writes, as the API server's audit log and `managedFields` name it.
pub const FIELD_MANAGER: &str = "kubenap";

/// No call to the API server waits longer.
pub const CALL: Duration = Duration::from_secs(5);

/// A client whose every call has a deadline.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    away: Arc<Mutex<Away>>,
}

/// When calls met no API server, or one that could not do it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Away {
    /// Since when, while each call does.
    since: Option<Instant>,
    /// When the last of them did.
    pub last: Option<Instant>,
    /// When the last did for which that had gone on for [`OUTAGE`].
    pub outage: Option<Instant>,
}

/// A shorter absence is noticed by few, and may be a single call's.
const OUTAGE: Duration = Duration::from_secs(5);

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

/// Why the API server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No answer in time; whether a write happened is not known.
    #[error("the API server did not answer within {0:?}")]
    Late(Duration),
    /// The precondition does not hold any more, or the object exists already.
    #[error("somebody else wrote it first")]
    Conflict(#[source] kube::Error),
    /// The object is not there.
    #[error("it does not exist")]
    Gone(#[source] kube::Error),
    /// The right is missing.
    #[error("the API server refuses it\nhint: kubenap doctor shows which permission is missing")]
    Forbidden(#[source] kube::Error),
    /// Anything else.
    #[error("the API server did not do it")]
    Other(#[source] kube::Error),
}

impl Cluster {
    /// Calls through this client.
    pub fn new(client: Client) -> Self {
        Self { client, away: Arc::default() }
    }

    /// The client, for typed `Api`s; its futures belong into [`call`](Self::call).
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits for an API call, at most [`CALL`].
    pub fn call<T>(
        &self,
        call: impl Future<Output = kube::Result<T>> + Send,
    ) -> impl Future<Output = Result<T, ClusterError>> + Send {
        // kube's futures are large, and a turn holds several.
        let (call, away) = (Box::pin(call), Arc::clone(&self.away));
        async move {
            let answer = match tokio::time::timeout(CALL, call).await {
                Ok(answer) => answer.map_err(ClusterError::of),
                Err(_) => Err(ClusterError::Late(CALL)),
            };
            let is_away = answer.as_ref().is_err_and(ClusterError::is_absence);
            away.lock().unwrap_or_else(PoisonError::into_inner).met(is_away, Instant::now());
            answer
        }
    }

    /// When the API server was found to be away.
    pub fn away(&self) -> Away {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Away {
    fn met(&mut self, is_away: bool, now: Instant) {
        if !is_away {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert(now);
        self.last = Some(now);
        if now - since >= OUTAGE {
            self.outage = Some(now);
        }
    }
}

impl ClusterError {
    /// Sorts kube's error by what follows from it.
    pub fn of(error: kube::Error) -> Self {
        let code = match &error {
            kube::Error::Api(status) => status.code,
            _ => 0,
        };
        match code {
            409 => Self::Conflict(error),
            404 => Self::Gone(error),
            401 | 403 => Self::Forbidden(error),
            _ => Self::Other(error),
        }
    }

    /// There was no answer, or one for want of anything behind it.
    fn is_absence(&self) -> bool {
        match self {
            Self::Other(kube::Error::Api(status)) => status.code >= 500,
            Self::Late(_) | Self::Other(_) => true,
            Self::Conflict(_) | Self::Gone(_) | Self::Forbidden(_) => false,
        }
    }

    /// What the API server says where it refuses a write whatever is tried: one line, and not too long. Not what may pass
    /// by itself: a conflict, a missing object, too many requests, a time that ran out.
    pub fn refusal(&self) -> Option<String> {
        let (Self::Forbidden(kube::Error::Api(status)) | Self::Other(kube::Error::Api(status))) = self else {
            return None;
        };
        let lasts = (400..500).contains(&status.code) && !matches!(status.code, 408 | 429);
        lasts.then(|| plain(&status.message))
    }

    /// Everything there is to say, the causes included, on one line.
    pub fn chain(&self) -> String {
        match self {
            Self::Late(_) => self.to_string(),
            Self::Conflict(cause) | Self::Gone(cause) | Self::Forbidden(cause) | Self::Other(cause) => {
                let said = self.to_string();
                let first = said.lines().next().unwrap_or_default();
                match cause {
                    // The status' own words; its Display repeats them three times.
                    kube::Error::Api(status) => format!("{first}: {}", status.message),
                    other => format!("{first}: {other}"),
                }
            }
        }
    }
}

/// The longest words of others that are repeated, in characters.
const LONGEST: usize = 300;

/// Words of somebody else's as they may stand in a log and an Event.
fn plain(message: &str) -> String {
    message.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Settings of a client as KubeNap wants it: quick to give up on a connection, no hidden retries.
///
/// kube's own retries repeat a PATCH after a 504, when the first may have been committed; here every turn decides
/// again instead.
pub fn client_config(mut config: kube::Config) -> kube::Config {
    config.connect_timeout = Some(Duration::from_secs(4));
    // Longer than a watch is asked to be silent, shorter than for ever.
    config.read_timeout = Some(Duration::from_secs(60));
    config.write_timeout = Some(Duration::from_secs(10));
    config.default_retry = false;
    config
}

/// An app's id as a store's key.
pub fn key_of(app: &AppId) -> watched::Key {
    (app.namespace.clone(), app.name.clone())
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn one_call_that_fails_is_no_outage_and_many_with_no_answer_between_are_one() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut away = Away::default();
        for (second, is_away, last, outage) in [
            (0, false, None, None),
            (1, true, Some(1), None),
            (2, false, Some(1), None),
            (10, true, Some(10), None),
            (14, true, Some(14), None),
            (15, true, Some(15), Some(15)),
            (30, true, Some(30), Some(30)),
            (31, false, Some(30), Some(30)),
            (40, true, Some(40), Some(30)),
        ] {
            away.met(is_away, at(second));
            assert_eq!((away.last, away.outage), (last.map(at), outage.map(at)), "at {second} s");
        }
    }

    #[test]
    fn what_the_api_server_refuses_for_good_is_told_in_its_words_on_one_line() {
        for (code, lasts) in [
            (400, true),
            (403, true),
            (422, true),
            (404, false),
            (408, false),
            (409, false),
            (429, false),
            (500, false),
            (504, false),
        ] {
            let status = Status::failure("denied:\r\nnot\ton Fridays", "Forbidden").with_code(code);
            let refusal = ClusterError::of(kube::Error::Api(Box::new(status))).refusal();
            assert_eq!(refusal.as_deref(), lasts.then_some("denied:  not on Fridays"), "{code}");
        }
        let long = Status::failure(&"x".repeat(9_000), "Forbidden").with_code(403);
        let refusal = ClusterError::of(kube::Error::Api(Box::new(long))).refusal();
        assert_eq!(refusal.map(|said| said.len()), Some(LONGEST));
        assert_eq!(ClusterError::Late(CALL).refusal(), None);
    }
}
