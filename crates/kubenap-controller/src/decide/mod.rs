//! One turn for one app: gather, decide, carry out, report.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use kubenap_core::app::AppId;
use kubenap_core::decide::{Decision, decide};
use kubenap_core::policy::Defaults;
use kubenap_core::seen::{Phase, Trouble};
use kubenap_core::situation::Situation;
use kubenap_core::step::{self, Step, writes};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::activity::{Polled, Polls};
use crate::cluster::around::{self, Around};
use crate::cluster::lease::Lead;
use crate::cluster::members::Members;
use crate::cluster::slices::SlimSlice;
use crate::cluster::space::Tag;
use crate::cluster::stores::Stores;
use crate::cluster::watched::number;
use crate::cluster::{Cluster, ClusterError};
use crate::eager;
use crate::nap::wake_address::WakeAddress;
use crate::nap::{carry_out, hooks, prove};
use crate::settings::Settings;
use crate::telemetry::Telemetry;
use crate::wake::{Doors, WakeBudget};

pub mod board;
pub mod entrances;
pub mod events;
pub mod gather;
pub mod hook;
pub mod memory;
pub mod pace;
pub mod patience;
pub mod queue;
pub mod report;
pub mod undone;

use gather::{Gathered, gather};
use memory::Memories;
use queue::Queue;

/// All that a turn needs.
#[derive(Debug)]
pub struct Context {
    /// The settings.
    pub settings: Settings,
    /// What holds for apps that do not say.
    pub defaults: Defaults,
    /// The advertised addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The API server.
    pub cluster: Cluster,
    /// What watches know of it.
    pub stores: Stores,
    /// Whether this member leads.
    pub lead: Lead,
    /// Who lives.
    pub members: Members,
    /// Where requests wait.
    pub doors: Doors,
    /// The sources' poll loops.
    pub polls: Polls,
    /// What they said last.
    pub polled: watch::Receiver<Arc<Polled>>,
    /// What this member has watched.
    pub memories: Memories,
    /// What is to be looked at.
    pub queue: Queue,
    /// Cancelled when this member leaves: it takes no new place in any Service then.
    pub leaving: CancellationToken,
    /// When this process began.
    pub started: Instant,
    /// Metrics.
    pub telemetry: Arc<Telemetry>,
    /// What people are shown.
    pub board: board::Board,
    /// Events on their way.
    pub events: events::Events,
    /// Where proxies' hooks lead, and whether a member answers there.
    pub wake_address: WakeAddress,
    /// How fast requests may wake apps.
    pub budget: WakeBudget,
    /// Bounds how many pods are asked at a time whether they are ready.
    pub asking: Arc<Semaphore>,
    /// Held from choosing wake ports until they are written: two apps must not choose the same.
    pub choosing: Mutex<()>,
}

/// What is opted in this soon after the start was so before.
const STARTING: Duration = Duration::from_secs(5);

impl Context {
    /// Whether this process began only just now, so that whatever it sees for the first time may be old.
    fn starting(&self) -> bool {
        self.started.elapsed() < STARTING
    }
}

/// One turn. An app that nobody knows any more is swept.
pub async fn turn(cx: &Arc<Context>, app: &AppId) {
    let result = match known(cx, app).await {
        Ok(Some(around)) => look(cx, around).await,
        Ok(None) => sweep(cx, app).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => cx.memories.with(app, |memory| {
            let now = Instant::now();
            // A turn that only waits for the end of a pause has shown nothing.
            if memory.refused.as_ref().is_none_or(|refused| refused.1 + REFUSED < now) {
                (memory.failures, memory.refused) = (0, None);
            }
        }),
        Err(error) => {
            let failures = cx.memories.with(app, |memory| {
                memory.failures = (memory.failures + 1).min(11);
                memory.failures
            });
            match error {
                // Somebody was faster: read again, decide again.
                ClusterError::Conflict(_) => tracing::debug!(%app, "conflict, decides again"),
                error => tracing::warn!(%app, error = error.chain(), "cannot carry on"),
            }
            cx.queue.add_after(app, Duration::from_millis(20 << failures.min(8)));
        }
    }
}

/// The app from the stores; live where its label is gone and only a slice of ours remembers it. Where what the stores
/// show leads nowhere, they are read anew for the turns to come.
async fn known(cx: &Context, app: &AppId) -> Result<Option<Around>, ClusterError> {
    if cx.memories.with(app, memory::Memory::doubts) {
        cx.stores.read_anew();
    }
    // A watch that is behind what was read live already would take back what was done since, and that again, and so on.
    let is_old = |around: &Around| {
        let version = number(&around.deployment.seen.resource_version);
        cx.memories.with(app, |memory| version < memory.newest)
    };
    match Around::cached(&cx.stores, app) {
        Some(around) if !is_old(&around) => Ok(Some(around)),
        Some(_) | None => Around::live(&cx.cluster, app).await,
    }
}

async fn look(cx: &Arc<Context>, around: Around) -> Result<(), ClusterError> {
    let mut gathered = gather(cx, &around);
    if undone::look(cx, &gathered).await? || hook::look(cx, &gathered).await {
        gathered = gather(cx, &around);
    }
    let listening = entrances::open(cx, &gathered);
    gathered.set_listening(listening);
    confirm(cx, &mut gathered).await?;
    eager::look(cx, &gathered).await?;
    entrances::tell(cx, &gathered);
    let mut decision = pace::pace(cx, &gathered, decide(&gathered.facts(cx)));
    // A nap is numbered above all that its ReplicaSets have copies of. Read before its turn comes: others wait for theirs.
    let counted = match &decision.step {
        Step::Arm { .. } => around::counted(&cx.cluster, &gathered.around.deployment).await?,
        _ => 0,
    };
    let _choosing = if decision.step.takes_ports() { Some(cx.choosing.lock().await) } else { None };
    if let Some((fresh, again)) = read_again(cx, &gathered, &decision, counted).await? {
        // What a live reading says stands, also when it says no.
        (gathered, decision) = (fresh, again);
    }
    report::publish(cx, &gathered, &decision);
    if decision.step == Step::Stay {
        assist(cx, &gathered);
        if let Some(delay) = decision.look_again.or(gathered.barred().map(|barred| barred.left)) {
            cx.queue.add_after(&gathered.app, delay);
        }
        return Ok(());
    }
    if decision.step == Step::Substitute && cx.leaving.is_cancelled() {
        return Ok(());
    }
    if let Some(left) = refused(cx, &gathered.app, &decision.step) {
        cx.queue.add_after(&gathered.app, left);
        return Ok(());
    }
    for write in writes(&gathered.facts(cx), &decision) {
        if let Err(error) = carry_out(&cx.cluster, Some(&cx.stores), &write).await {
            return not_carried_out(cx, &gathered, &decision.step, error);
        }
    }
    cx.memories.with(&gathered.app, |memory| {
        (memory.refused, memory.forbidden) = (None, None);
        if matches!(decision.step, Step::Attach | Step::Detach) {
            memory.hook = None;
        }
    });
    report::carried_out(cx, &gathered, &decision);
    cx.queue.add(&gathered.app);
    Ok(())
}

/// How much longer a step that failed is not tried again, though something happens to the app meanwhile.
fn refused(cx: &Context, app: &AppId, step: &Step) -> Option<Duration> {
    let refused = cx.memories.with(app, |memory| memory.refused.clone());
    let (_, until) = *refused.filter(|refused| refused.0 == *step)?;
    Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
}

/// A step whose write failed: the API server refuses it, or could not do it.
fn not_carried_out(
    cx: &Context,
    gathered: &Gathered,
    step: &Step,
    error: ClusterError,
) -> Result<(), ClusterError> {
    let app = &gathered.app;
    let refusal = error.refusal();
    if let (Step::ScaleUp { .. }, ClusterError::Forbidden(_)) = (step, &error)
        && patience::may_be_allowed(cx, app, step)
    {
        return Ok(());
    }
    if let (Step::ScaleUp { .. }, Some(said)) = (step, &refusal) {
        tracing::warn!(%app, said, "the API server refuses a wake");
        let now = cx.settings.clock.now();
        cx.memories.with(app, |memory| memory.breaker.failed(Trouble::Denied, Some(said.clone()), now));
        // The next turn tells those who wait.
        cx.queue.add(app);
        return Ok(());
    }
    if matches!(step, Step::Attach) {
        // The next look says what stands in the way.
        cx.memories.with(app, |memory| memory.hook = None);
    }
    if !matches!(error, ClusterError::Conflict(_)) {
        let longest = if refusal.is_some() { REFUSED } else { FAILED };
        cx.memories.with(app, |memory| {
            let pause = Duration::from_millis(40 << memory.failures).min(longest);
            memory.refused = Some(Box::new((step.clone(), Instant::now() + pause)));
        });
    }
    Err(error)
}

/// A step that the API server refuses is tried again after this long at most.
const REFUSED: Duration = Duration::from_secs(60);
/// One that it could not carry out, after this long.
const FAILED: Duration = Duration::from_secs(1);

/// Steps that take pods away rest on a live reading (N1), and a wake needs to know the autoscaler's least.
async fn read_again(
    cx: &Arc<Context>,
    gathered: &Gathered,
    decision: &Decision,
    counted: u64,
) -> Result<Option<(Gathered, Decision)>, ClusterError> {
    let mut fresh = match &decision.step {
        // Also what takes wake ports: another app may have taken them while this one waited for its turn. And what is told
        // to a proxy: the phase it belongs to may be over.
        Step::Arm { .. } | Step::Record { .. } | Step::ScaleDown { .. } | Step::Attach | Step::Detach => {
            let Some(around) = Around::live(&cx.cluster, &gathered.app).await? else { return Ok(None) };
            let mut fresh = gather(cx, &around);
            fresh.seen.counted = counted;
            fresh
        }
        Step::ScaleUp { .. } => {
            let mut fresh = gathered.clone();
            // A wake does not fail because autoscalers cannot be read: they lift the count themselves.
            match timeout(Duration::from_secs(1), around::scaler(&cx.cluster, &gathered.app)).await {
                Ok(Ok(scaler)) => fresh.set_scaler(scaler),
                Ok(Err(error)) => tracing::debug!(error = error.chain(), "cannot read autoscalers"),
                Err(_) => tracing::debug!("autoscalers are not read in time"),
            }
            fresh
        }
        Step::FinishWake { .. } if step::woken_by_other(&gathered.facts(cx)) => {
            let mut fresh = gathered.clone();
            match timeout(Duration::from_secs(1), around::replicas_by(&cx.cluster, &gathered.app)).await {
                Ok(Ok(manager)) => fresh.set_reverter(manager),
                Ok(Err(error)) => tracing::debug!(error = error.chain(), "cannot read who scaled it up"),
                Err(_) => tracing::debug!("who scaled it up is not read in time"),
            }
            fresh
        }
        Step::Stay
        | Step::Substitute
        | Step::Cancel { .. }
        | Step::Push
        | Step::MarkLeaving
        | Step::Withdraw
        | Step::WithdrawStrays
        | Step::SweepDead
        | Step::FinishWake { .. }
        | Step::ClearWish
        | Step::Forget => return Ok(None),
    };
    fresh.set_listening(entrances::open(cx, &fresh));
    let again = decide(&fresh.facts(cx));
    Ok(Some((fresh, again)))
}

/// What helps a decision that waits: the last look at the sources, and connections that prove the path.
fn assist(cx: &Arc<Context>, gathered: &Gathered) {
    let Situation::Drowsy { epoch } = gathered.situation() else { return };
    if !cx.lead.holds()
        || cx.memories.with(&gathered.app, |memory| memory.proving.replace(epoch) == Some(epoch))
    {
        return;
    }
    let brings = gathered.reading.policy.query.is_some();
    if !gathered.reading.policy.substitute {
        cx.wake_address.ask_now();
        let cx = Arc::clone(cx);
        tokio::spawn(async move { cx.polls.ask_now(brings).await });
        return;
    }
    let cx = Arc::clone(cx);
    let app = gathered.app.clone();
    let addresses: Vec<_> = gathered
        .seen
        .services
        .iter()
        .filter_map(|service| {
            let known = cx.stores.services.find(&app.namespace, &service.name)?;
            // With client-IP affinity a connection from here may never come here.
            let ip = known.cluster_ips.first().copied().filter(|_| !known.affinity)?;
            Some((ip, service.ports.first()?.number))
        })
        .collect();
    let ports: Vec<_> = gathered.seen.deployment.record.wake_ports.0.values().copied().collect();
    let ends = gathered.seen.pods.len() + cx.members.living().len();
    tokio::spawn(async move {
        cx.polls.ask_now(brings).await;
        cx.queue.add(&app);
        let window = cx.settings.timing.drowsy * 2;
        let before: u64 = ports.iter().map(|port| cx.doors.arrivals(*port)).sum();
        let arrived = || ports.iter().map(|port| cx.doors.arrivals(*port)).sum::<u64>() > before;
        for (ip, port) in addresses {
            prove::prove(ip, port, (ends * 10).min(200), window, arrived).await;
        }
        cx.queue.add(&app);
    });
}

/// W3 and W4: are the pods that are shown as ready those of this wake, and does one take a connection? Asked as soon
/// as their kubelets call them ready: until the Service leads there too, some milliseconds more pass.
async fn confirm(cx: &Context, gathered: &mut Gathered) -> Result<(), ClusterError> {
    let Situation::Waking { epoch, recorded: _ } = gathered.situation() else { return Ok(()) };
    let wake = (epoch, gathered.seen.deployment.record.since);
    if gathered.seen.pods_confirmed {
        return Ok(());
    }
    if !pods_take_over(gathered) {
        return Ok(());
    }
    let memory = cx.memories.with(&gathered.app, |memory| memory.clone());
    if memory.confirmed != Some(wake) {
        let deployment = &gathered.seen.deployment;
        if deployment.observed_generation < deployment.generation {
            return Ok(());
        }
        let Some(pods) = around::settled_pods(&cx.cluster, &gathered.around.deployment).await? else {
            return Ok(());
        };
        gathered.around.pods = pods;
        gathered.seen.pods.retain(|pod| gathered.around.pods.values().any(|live| live.seen.uid == pod.uid));
        for pod in &mut gathered.seen.pods {
            let live = gathered.around.pods.values().find(|live| live.seen.uid == pod.uid);
            pod.deleting |= live.is_none_or(|live| live.seen.deleting);
        }
        if !pods_take_over(gathered) {
            return Ok(());
        }
        cx.memories.with(&gathered.app, |memory| memory.confirmed = Some(wake));
    }
    let connects = connects(gathered).await;
    gathered.seen.pods_confirmed = connects;
    if connects {
        cx.memories.with(&gathered.app, |memory| memory.connected = Some(wake));
    } else {
        cx.queue.add_after(&gathered.app, Duration::from_millis(50));
    }
    Ok(())
}

/// Whether every Service port has a ready pod, be it that the Service shows it already or only the pod itself.
fn pods_take_over(gathered: &mut Gathered) -> bool {
    let confirmed = std::mem::replace(&mut gathered.seen.pods_confirmed, true);
    let ready = gathered.seen.ready() || eager::has_ready_pods(gathered);
    gathered.seen.pods_confirmed = confirmed;
    ready
}

async fn connects(gathered: &Gathered) -> bool {
    let shown = gathered.seen.services.iter().all(|service| {
        service.ports.iter().all(|port| !gathered.seen.targets(&service.name, &port.name).is_empty())
    });
    for service in &gathered.seen.services {
        for port in &service.ports {
            let targets = if shown {
                gathered.seen.targets(&service.name, &port.name)
            } else {
                eager::ready_pods(gathered, service, port.number)
            };
            let tries = targets.iter().take(3).map(|target| {
                Box::pin(async move {
                    match timeout(Duration::from_millis(500), TcpStream::connect(target)).await {
                        Ok(Ok(_)) => Ok(()),
                        Ok(Err(_)) | Err(_) => Err(()),
                    }
                })
            });
            if futures::future::select_ok(tries).await.is_err() {
                return false;
            }
        }
    }
    true
}

/// The Deployment is gone: this member's slices that remember only it go too.
async fn sweep(cx: &Context, app: &AppId) -> Result<(), ClusterError> {
    let living = cx.members.living();
    for (_, slice) in cx.stores.slices.within(&app.namespace).tagged(Tag::app(&app.name)) {
        let SlimSlice::Ours(slice) = &**slice else { continue };
        let mine = slice.member == cx.settings.identity || !living.contains(&slice.member);
        let only = slice
            .apps
            .keys()
            .all(|name| *name == app.name || cx.stores.deployments.find(&app.namespace, name).is_none());
        if !mine || !only || !slice.apps.contains_key(&app.name) {
            continue;
        }
        let write = kubenap_core::write::Write::DeleteSlice {
            namespace: app.namespace.clone(),
            name: slice.name.clone(),
            uid: Some(slice.uid.clone()),
            resource_version: Some(slice.resource_version.clone()),
        };
        carry_out(&cx.cluster, Some(&cx.stores), &write).await?;
        let service = slice.service.clone();
        entrances::forget(cx, app, |name| name == service);
    }
    if cx.settings.manage_proxies && cx.lead.holds() {
        let wake = &cx.settings.wake_service.namespace;
        hooks::sweep(&cx.cluster, std::slice::from_ref(&app.namespace), wake, hooks::Spared::Living).await?;
    }
    cx.memories.forget(app);
    cx.budget.forget(app);
    cx.board.forget(app);
    cx.telemetry.forget(app);
    Ok(())
}

/// An app whose turn panicked is left alone for this long.
const AFTER_PANIC: Duration = Duration::from_secs(30);

/// Looks at apps, several at a time, until the process ends.
pub async fn work(cx: Arc<Context>) {
    loop {
        let app = cx.queue.next().await;
        // One bad object must not stop the others.
        if AssertUnwindSafe(turn(&cx, &app)).catch_unwind().await.is_err() {
            tracing::error!(%app, "a turn panicked; this is a bug of KubeNap");
            cx.queue.add_after(&app, AFTER_PANIC);
        }
        cx.queue.done(&app);
    }
}

/// The phase as metrics label it.
pub(crate) fn label_of(phase: Phase) -> crate::telemetry::PhaseLabel {
    match phase {
        Phase::Awake => crate::telemetry::PhaseLabel::Awake,
        Phase::Drowsy => crate::telemetry::PhaseLabel::Drowsy,
        Phase::Asleep => crate::telemetry::PhaseLabel::Asleep,
        Phase::Waking => crate::telemetry::PhaseLabel::Waking,
    }
}
