//! Events on Deployments: a bounded queue that never holds up a turn.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::PostParams;
use kubenap_core::app::AppId;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::cluster::{Cluster, FIELD_MANAGER};

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
}

/// More than this many wait for the API server only if it does not answer; then they are dropped.
const WAITING: usize = 256;

impl Events {
    /// The queue, and the task that empties it.
    pub fn new(cluster: Cluster, identity: String, clock: Clock) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), send(cluster, identity, clock, receiver))
    }

    /// Sends one, unless too many wait.
    pub fn send(&self, app: &AppId, uid: &str, reason: Reason, note: &str) {
        let note = note.chars().take(1000).collect();
        let message = Message { app: app.clone(), uid: uid.to_owned(), reason, note };
        if self.0.try_send(message).is_err() {
            tracing::debug!(%app, reason = reason.text(), "an Event is dropped");
        }
    }
}

async fn send(cluster: Cluster, identity: String, clock: Clock, mut queue: mpsc::Receiver<Message>) {
    while let Some(message) = queue.recv().await {
        let Message { app, uid, reason, note } = message;
        let now = clock.now();
        let event = Event {
            metadata: ObjectMeta {
                // The name must differ from Event to Event, also between members.
                generate_name: Some(format!("{}-", app.name.chars().take(200).collect::<String>())),
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
        if let Err(error) = cluster.call(api.create(&params, &event)).await {
            tracing::warn!(%app, error = error.chain(), "cannot send an Event");
        }
    }
}
