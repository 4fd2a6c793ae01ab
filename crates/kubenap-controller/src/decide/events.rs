//! Events on Deployments: a bounded queue that never holds up a turn.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::PostParams;
use kubenap_core::app::AppId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError, FIELD_MANAGER};
use crate::wake::{Bucket, Rate};

/// Why an Event is sent: a closed set, and a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Armed.
    Drowsy,
    /// Scaled to zero.
    Asleep,
    /// Scaled up.
    Waking,
    /// Its pods answer again, or a nap was cancelled.
    Awake,
    /// A nap is not possible.
    NapRefused,
    /// An annotation is wrong.
    BadAnnotation,
    /// It cannot start.
    WakeFailed,
}

impl Reason {
    /// Every reason, for the reference page.
    pub const ALL: [Self; 7] = [
        Self::Drowsy,
        Self::Asleep,
        Self::Waking,
        Self::Awake,
        Self::NapRefused,
        Self::BadAnnotation,
        Self::WakeFailed,
    ];

    /// As it stands on the Event.
    pub fn text(self) -> &'static str {
        match self {
            Self::Drowsy => "Drowsy",
            Self::Asleep => "Asleep",
            Self::Waking => "Waking",
            Self::Awake => "Awake",
            Self::NapRefused => "NapRefused",
            Self::BadAnnotation => "BadAnnotation",
            Self::WakeFailed => "WakeFailed",
        }
    }

    fn warns(self) -> bool {
        match self {
            Self::NapRefused | Self::BadAnnotation | Self::WakeFailed => true,
            Self::Drowsy | Self::Asleep | Self::Waking | Self::Awake => false,
        }
    }
}

/// Where Events are put.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<Message>);

#[derive(Debug)]
struct Message {
    app: AppId,
    uid: String,
    reason: Reason,
    note: String,
    once: bool,
}

/// An API server is shared by all: a hundred Events at once, then ten a second.
const PACE: Rate = Rate { burst: 100, every: Duration::from_millis(100) };

/// More than this many wait only where the API server does not answer, or far too many happen at once; then they are
/// dropped.
const WAITING: usize = 256;

impl Events {
    /// The queue, and the task that empties it.
    pub fn new(cluster: Cluster, identity: String, clock: Clock) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), send(cluster, identity, clock, receiver))
    }

    /// Sends one about something that happened, unless too many wait.
    pub fn send(&self, app: &AppId, uid: &str, reason: Reason, note: &str) {
        self.queue(app, uid, reason, note, false);
    }

    /// Sends one about a state that lasts, unless too many wait. The API server takes the same one only once, from
    /// whichever member, while it keeps Events.
    pub fn send_once(&self, app: &AppId, uid: &str, reason: Reason, note: &str) {
        self.queue(app, uid, reason, note, true);
    }

    fn queue(&self, app: &AppId, uid: &str, reason: Reason, note: &str, once: bool) {
        let note = note.chars().take(1000).collect();
        let message = Message { app: app.clone(), uid: uid.to_owned(), reason, note, once };
        if self.0.try_send(message).is_err() {
            tracing::debug!(%app, reason = reason.text(), "an Event is dropped");
        }
    }
}

async fn send(cluster: Cluster, identity: String, clock: Clock, mut queue: mpsc::Receiver<Message>) {
    let mut bucket = Bucket::new(PACE, Instant::now());
    while let Some(message) = queue.recv().await {
        sleep(bucket.until(1, Instant::now())).await;
        bucket.take(Instant::now());
        let Message { app, uid, reason, note, once } = message;
        let now = clock.now();
        let name = once.then(|| name(&app, &uid, reason, &note));
        let event = Event {
            metadata: ObjectMeta {
                // Otherwise the name must differ from Event to Event, also between members.
                generate_name: name.is_none().then(|| format!("{}-", stem(&app))),
                name,
                namespace: Some(app.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            action: Some(reason.text().to_owned()),
            reason: Some(reason.text().to_owned()),
            note: Some(note),
            type_: Some(if reason.warns() { "Warning" } else { "Normal" }.to_owned()),
            reporting_controller: Some("kubenap.dev/controller".to_owned()),
            reporting_instance: Some(identity.chars().take(128).collect()),
            regarding: Some(ObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: Some("Deployment".to_owned()),
                namespace: Some(app.namespace.clone()),
                name: Some(app.name.clone()),
                uid: Some(uid),
                ..ObjectReference::default()
            }),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(cluster.client(), &app.namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match cluster.call(api.create(&params, &event)).await {
            Ok(_) => {}
            // This member, or one that led before it, told it within the hour that Events are kept.
            Err(ClusterError::Conflict(_)) if once => {}
            Err(error) => tracing::warn!(%app, error = error.chain(), "cannot send an Event"),
        }
    }
}

/// The name of an Event about a state: the same from every member.
fn name(app: &AppId, uid: &str, reason: Reason, note: &str) -> String {
    let hash = fnv1a([uid, reason.text(), note]);
    format!("{}-{}-{hash:016x}", stem(app), reason.text().to_ascii_lowercase())
}

/// The beginning of an Event's name: what is appended must follow a letter or a digit.
fn stem(app: &AppId) -> &str {
    // Names of Deployments are ASCII.
    app.name.get(..200).unwrap_or(&app.name).trim_end_matches(['-', '.'])
}

/// FNV-1a, 64 bits: the standard library's hashes may differ between the versions that two members run.
fn fnv1a(texts: [&str; 3]) -> u64 {
    // No text contains the byte 0xFF, so it keeps them apart.
    let bytes = texts.into_iter().flat_map(|text| text.bytes().chain([0xFF]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_about_a_state_has_one_valid_name_and_another_has_another() {
        let long = format!("{}.-{}", "a".repeat(198), "b".repeat(50));
        for (app, stem) in [("web", "web"), ("web.v2", "web.v2"), (&long, &long[..198])] {
            let app = AppId::new("shop", app);
            let named = |uid, reason, note| name(&app, uid, reason, note);
            let first = named("1", Reason::NapRefused, "no Service");
            assert_eq!(named("1", Reason::NapRefused, "no Service"), first);
            let hash = first.strip_prefix(&format!("{stem}-naprefused-")).unwrap();
            assert!(hash.len() == 16 && first.len() <= 253, "{first}");
            for other in [
                named("2", Reason::NapRefused, "no Service"),
                named("1", Reason::BadAnnotation, "no Service"),
                named("1", Reason::NapRefused, "no port"),
            ] {
                assert_ne!(other, first);
            }
        }
    }
}
