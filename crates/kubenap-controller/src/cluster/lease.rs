//! Who leads: a Lease, judged by when its changes were observed here, never by the clocks of others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Cluster, ClusterError, FIELD_MANAGER};
use crate::clock::Clock;

/// The name of the leader's Lease.
pub const LEADER: &str = "kubenap";
/// How long a Lease holds without renewal.
pub const DURATION: Duration = Duration::from_secs(15);
/// The leader stops to lead when it could not renew for this long: well before others take over.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often the Lease is renewed, or looked at.
const RETRY: Duration = Duration::from_secs(2);
/// A leader renews once in [`RETRY`]; it is in the way once, or twice.
const OCCUPY_TRIES: u32 = 5;

/// Whether this member leads.
#[derive(Clone, Debug)]
pub struct Lead {
    until: Arc<Mutex<Option<Instant>>>,
    changed: watch::Sender<bool>,
}

impl Lead {
    /// Nobody leads yet.
    pub fn new() -> Self {
        Self { until: Arc::default(), changed: watch::Sender::new(false) }
    }

    /// Whether this member leads at this moment. Asked on every turn: a claim can end without an event.
    pub fn holds(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Tells when leading begins or ends.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.changed.subscribe()
    }

    /// Seeks and keeps the Lease until `stop`; gives it back then.
    pub async fn seek(
        self,
        cluster: Cluster,
        namespace: String,
        identity: String,
        clock: Clock,
        stop: CancellationToken,
    ) {
        let api: Api<Lease> = Api::namespaced(cluster.client(), &namespace);
        let mut observed: Option<(String, Instant)> = None;
        loop {
            let asked = Instant::now();
            match turn(&cluster, &api, &identity, clock.now(), &mut observed).await {
                Ok(true) => self.set(Some(asked + RENEW_DEADLINE)),
                Ok(false) => self.set(None),
                // Whether the Lease is ours is not known; what was known holds until its deadline.
                Err(error) => tracing::warn!(error = error.chain(), "cannot renew the leader's Lease"),
            }
            self.tell();
            if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                break;
            }
        }
        if self.holds() {
            self.set(None);
            self.tell();
            if let Err(error) = release(&cluster, &api, &identity, clock.now()).await {
                tracing::warn!(error = error.chain(), "cannot give the leader's Lease back");
            }
        }
    }

    fn set(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn tell(&self) {
        let holds = self.holds();
        self.changed.send_if_modified(|known| std::mem::replace(known, holds) != holds);
    }
}

impl Default for Lead {
    fn default() -> Self {
        Self::new()
    }
}

/// One look at the Lease; whether it is ours after it.
async fn turn(
    cluster: &Cluster,
    api: &Api<Lease>,
    identity: &str,
    now: Timestamp,
    observed: &mut Option<(String, Instant)>,
) -> Result<bool, ClusterError> {
    let Some(lease) = cluster.call(api.get_opt(LEADER)).await? else {
        let lease = lease(LEADER, identity, DURATION, now);
        return won(cluster.call(api.create(&params(), &lease)).await);
    };
    let version = lease.resource_version().unwrap_or_default();
    let since = match observed {
        Some((known, since)) if *known == version => *since,
        _ => {
            let since = Instant::now();
            *observed = Some((version, since));
            since
        }
    };
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.clone().unwrap_or_default();
    // The duration that its holder promised, not our own.
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let over = since.elapsed() >= seconds.map_or(DURATION, Duration::from_secs);
    if holder != identity && !holder.is_empty() && !over {
        return Ok(false);
    }
    let taken = holder != identity;
    let mut next = lease;
    let acquired = if taken { Some(MicroTime(now)) } else { spec.acquire_time };
    next.spec = Some(LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: acquired,
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(spec.lease_transitions.unwrap_or(0).saturating_add(i32::from(taken))),
        ..LeaseSpec::default()
    });
    // The version that was read goes with the write, so that of two who take over only one succeeds.
    won(cluster.call(api.replace(LEADER, &params(), &next)).await)
}

async fn release(
    cluster: &Cluster,
    api: &Api<Lease>,
    identity: &str,
    now: Timestamp,
) -> Result<(), ClusterError> {
    let Some(mut lease) = cluster.call(api.get_opt(LEADER)).await? else { return Ok(()) };
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    if spec.holder_identity.as_deref() != Some(identity) {
        return Ok(());
    }
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    spec.renew_time = Some(MicroTime(now));
    won(cluster.call(api.replace(LEADER, &params(), &lease)).await).map(|_| ())
}

/// Takes the Lease away from whoever leads, so that for `span` nobody naps; wakes go on.
///
/// Who led before may not know of it until [`RENEW_DEADLINE`] has passed.
pub async fn occupy(
    cluster: &Cluster,
    namespace: &str,
    holder: &str,
    span: Duration,
    now: impl Fn() -> Timestamp,
) -> Result<(), ClusterError> {
    let api: Api<Lease> = Api::namespaced(cluster.client(), namespace);
    let mut left = OCCUPY_TRIES;
    loop {
        let mut next = lease(LEADER, holder, span, now());
        let answer = match cluster.call(api.get_opt(LEADER)).await? {
            None => cluster.call(api.create(&params(), &next)).await,
            Some(there) => {
                next.metadata = there.metadata;
                cluster.call(api.replace(LEADER, &params(), &next)).await
            }
        };
        left -= 1;
        match answer {
            // The leader has just renewed it.
            Err(ClusterError::Conflict(_)) if left > 0 => {}
            other => return other.map(drop),
        }
    }
}

/// Gives the Lease back, if `holder` still has it.
pub async fn give_back(
    cluster: &Cluster,
    namespace: &str,
    holder: &str,
    now: Timestamp,
) -> Result<(), ClusterError> {
    release(cluster, &Api::namespaced(cluster.client(), namespace), holder, now).await
}

fn won(answer: Result<Lease, ClusterError>) -> Result<bool, ClusterError> {
    match answer {
        Ok(_) => Ok(true),
        Err(ClusterError::Conflict(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn lease(name: &str, holder: &str, duration: Duration, now: Timestamp) -> Lease {
    Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

pub(super) fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
