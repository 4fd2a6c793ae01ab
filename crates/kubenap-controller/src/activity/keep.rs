//! What the ledgers know, kept in a ConfigMap, so that a restart of KubeNap forgets nothing that no counter contradicts.
//!
//! Times in it are on the API server's clock: who reads it next may have another one. Nobody makes the ConfigMap but
//! the chart. Any member writes it, at most once in [`EVERY`], and only after a counter has moved.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, StatusCode, header};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::client::Body;
use serde_json::json;
use tokio::sync::Mutex;

use super::kept::{Kept, decode, encode};
use super::ledger::{Baseline, Ledger, Recalled};
use super::preset::Preset;
use crate::cluster::FIELD_MANAGER;

/// The ConfigMap's name, in KubeNap's own namespace.
pub const NAME: &str = "kubenap-baseline";
/// Between two looks at what is kept, and between two writes of one member.
const EVERY: SignedDuration = SignedDuration::from_mins(5);
/// What is younger is good enough, whoever wrote it.
const YOUNG: SignedDuration = SignedDuration::from_mins(4);
/// For one call to the API server.
const CALL: Duration = Duration::from_secs(5);

/// The keeper of one source's ledgers.
pub(super) struct Keeper {
    client: kube::Client,
    namespace: String,
    /// The source's name: several keep theirs in one ConfigMap.
    source: String,
    state: Mutex<State>,
    is_missed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// When the ConfigMap is looked at next; none: it was never read.
    due: Option<Timestamp>,
    /// What was read at the start, until it is recalled.
    pending: BTreeMap<String, Baseline>,
}

/// The ConfigMap, as it is now.
struct Stored {
    version: String,
    bytes: Option<Vec<u8>>,
    /// How far the API server's clock is before this one.
    ahead: SignedDuration,
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("ConfigMap {NAME} does not answer within {} s", CALL.as_secs())]
    Late,
    #[error("ConfigMap {NAME} cannot be read or written: {0}")]
    Refused(#[from] kube::Error),
    #[error("ConfigMap {NAME}: the API server answers {0}")]
    Answered(StatusCode),
    #[error("ConfigMap {NAME} is not understood: {0}")]
    Garbled(serde_json::Error),
    #[error("ConfigMap {NAME} came without the API server's time")]
    NoTime,
}

impl Keeper {
    pub(super) fn new(client: kube::Client, namespace: String, source: String) -> Self {
        let (state, is_missed) = (Mutex::default(), AtomicBool::new(false));
        Self { client, namespace, source, state, is_missed }
    }

    /// After each look: takes over what was kept, once, and keeps what is known, now and then. `at` is the moment of the
    /// look, `now` tells the time.
    pub(super) async fn turn(
        &self,
        ledgers: &mut BTreeMap<Preset, Ledger>,
        at: Timestamp,
        now: impl Fn() -> Timestamp + Send,
    ) {
        let mut state = self.state.lock().await;
        if state.due.is_none_or(|due| at >= due) {
            match self.look(&mut state, ledgers, at, now).await {
                Ok(()) => self.is_missed.store(false, Ordering::Relaxed),
                Err(error) => {
                    let is_new = !self.is_missed.swap(true, Ordering::Relaxed);
                    if is_new && matches!(error, KeepError::Answered(StatusCode::NOT_FOUND)) {
                        tracing::debug!(source = self.source, %error, "what the proxies show is not kept");
                    } else if is_new {
                        tracing::warn!(
                            source = self.source,
                            %error,
                            "what the proxies show is not kept: after a restart of KubeNap their apps stay awake for one idleAfter more"
                        );
                    }
                    // What was never read is asked for again at the next look, unless it is not there or not granted.
                    let is_final = matches!(&error, KeepError::Answered(status) if status.is_client_error());
                    state.due = (is_final || state.due.is_some()).then(|| at + EVERY);
                }
            }
        }
        recall(&mut state.pending, ledgers, at);
    }

    async fn look(
        &self,
        state: &mut State,
        ledgers: &mut BTreeMap<Preset, Ledger>,
        at: Timestamp,
        now: impl Fn() -> Timestamp + Send,
    ) -> Result<(), KeepError> {
        let stored = self.get(now).await?;
        let kept = stored.bytes.as_deref().map(|bytes| decode(bytes, stored.ahead));
        let kept = match kept.transpose() {
            Ok(kept) => kept.unwrap_or_default(),
            Err(why) => {
                tracing::warn!(source = self.source, %why, "ConfigMap {NAME} is not understood, and written anew");
                Kept::default()
            }
        };
        if state.due.is_none() {
            state.pending.clone_from(&kept.presets);
            recall(&mut state.pending, ledgers, at);
        }
        state.due = Some(at + EVERY);
        let is_due = kept.saved.is_none_or(|saved| at.duration_since(saved).abs() >= YOUNG);
        if !state.pending.is_empty() || !is_due {
            return Ok(());
        }
        let baselines = ledgers
            .iter()
            .filter_map(|(preset, ledger)| Some((preset.label().to_owned(), ledger.baseline()?)))
            .collect();
        let known = Kept { saved: Some(at), presets: baselines };
        if known.shows_what(&kept) {
            return Ok(());
        }
        match encode(&known, stored.ahead) {
            Ok(bytes) => self.put(&stored.version, bytes).await,
            Err(why) => {
                tracing::debug!(source = self.source, %why, "what is known is not kept");
                Ok(())
            }
        }
    }

    async fn get(&self, now: impl Fn() -> Timestamp + Send) -> Result<Stored, KeepError> {
        let path = format!("/api/v1/namespaces/{}/configmaps/{NAME}", self.namespace);
        let whole = async {
            let request = Request::get(path).body(Body::empty()).map_err(kube::Error::HttpError)?;
            let answer = self.client.send(request).await?;
            let date = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok());
            let date = date.and_then(|date| rfc2822::parse(date).ok()).map(|date| date.timestamp());
            let (ahead, status) = (date.map(|date| date.duration_since(now())), answer.status());
            Ok::<_, KeepError>((ahead, status, answer.into_body().collect_bytes().await?))
        };
        let (ahead, status, body) =
            tokio::time::timeout(CALL, whole).await.map_err(|_| KeepError::Late)??;
        if !status.is_success() {
            return Err(KeepError::Answered(status));
        }
        let map: ConfigMap = serde_json::from_slice(&body).map_err(KeepError::Garbled)?;
        let bytes = map.binary_data.and_then(|mut all| all.remove(&self.source)).map(|bytes| bytes.0);
        let version = map.metadata.resource_version.unwrap_or_default();
        Ok(Stored { version, bytes, ahead: ahead.ok_or(KeepError::NoTime)? })
    }

    async fn put(&self, version: &str, bytes: Vec<u8>) -> Result<(), KeepError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let bytes = super::credentials::base64(&bytes);
        let patch =
            json!({"metadata": {"resourceVersion": version}, "binaryData": {self.source.as_str(): bytes}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let (params, patch) = (params, Patch::Merge(patch));
        let call = api.patch(NAME, &params, &patch);
        match tokio::time::timeout(CALL, call).await {
            Err(_) => Err(KeepError::Late),
            // Somebody else has just written it.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(()),
            Ok(Err(error)) => Err(KeepError::Refused(error)),
            Ok(Ok(_)) => Ok(()),
        }
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

fn recall(pending: &mut BTreeMap<String, Baseline>, ledgers: &mut BTreeMap<Preset, Ledger>, at: Timestamp) {
    for (preset, ledger) in ledgers {
        let Some(baseline) = pending.get(preset.label()) else { continue };
        let recalled = ledger.recall(baseline, at);
        if recalled != Recalled::NotYet {
            tracing::debug!(preset = preset.label(), ?recalled, "what was kept was taken over");
            pending.remove(preset.label());
        }
    }
}
