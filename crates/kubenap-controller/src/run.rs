//! The whole controller: starts everything in order, runs until told to stop, leaves in order.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kubenap_core::app::AppId;
use kubenap_core::policy::{self, Defaults};
use kubenap_core::seen::Phase;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::activity::{self, Polls, SourceError, TrafficMetricsSource, Watched};
use crate::cluster::lease::Lead;
use crate::cluster::members::Members;
use crate::cluster::slices::SlimSlice;
use crate::cluster::space::Tag;
use crate::cluster::stores::{Stores, Touched};
use crate::cluster::{Cluster, ClusterError, observe};
use crate::decide::board::Board;
use crate::decide::events::Events;
use crate::decide::memory::Memories;
use crate::decide::queue::Queue;
use crate::decide::{Context, entrances, work};
use crate::eager;
use crate::nap::wake_address::{self, WakeAddress};
use crate::nap::{by_hand, hooks, leave};
use crate::routes;
use crate::settings::Settings;
use crate::telemetry::{BySource, Telemetry};
use crate::wake::{self, Doors, DoorsSettings, Limits, WakeBudget};
use crate::web::{self, Ready};

/// Why the controller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener's address is not to be had.
    #[error(
        "cannot listen on {address}\nhint: is another KubeNap running here? choose another address for {flag}"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that names it.
        flag: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The namespace for Leases cannot be used.
    #[error(
        "cannot use the namespace {namespace} for Leases\nhint: create it, or name another one with --lease-namespace"
    )]
    LeaseNamespace {
        /// The namespace.
        namespace: String,
        /// What the API server says.
        source: ClusterError,
    },
    /// A source cannot be built.
    #[error("cannot set up a source of traffic")]
    Source(#[source] SourceError),
}

/// How many apps are looked at at the same time.
const WORKERS: usize = 16;

/// A controller that was started.
#[derive(Debug)]
pub struct Running {
    /// Where its admin listener is.
    pub admin: SocketAddr,
    /// Where its proxy listeners are.
    pub proxies: Vec<SocketAddr>,
    cx: Arc<Context>,
    ready: Ready,
    tasks: JoinSet<()>,
    claims: JoinSet<()>,
    stop: CancellationToken,
}

/// Starts the controller. It works from here on; [`Running::leave`] ends it.
pub async fn start(client: Client, settings: Settings) -> Result<Running, RunError> {
    let own = Some(settings.lease_namespace.as_str());
    let sources = activity::build_kept(&settings.sources, &settings.credentials, &client, own)
        .map_err(RunError::Source)?;
    start_with(client, settings, sources).await
}

/// Starts the controller with these sources of traffic, whatever the settings name.
pub async fn start_with(
    client: Client,
    settings: Settings,
    sources: Vec<Arc<dyn TrafficMetricsSource>>,
) -> Result<Running, RunError> {
    let cluster = Cluster::new(client);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let telemetry = Arc::new(Telemetry::new());
    let queue = Queue::new();
    let listener = listen(settings.admin_listen, "--admin-listen").await?;
    let admin = listener.local_addr().unwrap_or(settings.admin_listen);
    let (routes, served) = watch::channel(web::starting(Arc::clone(&telemetry)));
    tasks.spawn(web::serve(listener, served, web::Bounds::default()));
    let asked = queue.clone();
    let doors = Doors::new(DoorsSettings {
        advertise: settings.advertise.clone(),
        limits: Limits::default().within(settings.open_files),
        identity: settings.identity.clone(),
        clock: settings.clock,
        telemetry: Arc::clone(&telemetry),
        on_ask: Arc::new(move |app| asked.add(app)),
    });
    let mut proxies = Vec::new();
    for proxy in &settings.proxy_listen {
        let listener = listen(proxy.address, "--proxy-listen").await?;
        proxies.push(listener.local_addr().unwrap_or(proxy.address));
        tasks.spawn(wake::serve_proxy(listener, proxy.profile, doors.clone(), stop.clone()));
    }
    let touched: Touched = {
        let queue = queue.clone();
        Arc::new(move |app| queue.add(app))
    };
    let stores =
        Stores::start(&cluster, &settings.namespaces, &settings.lease_namespace, &touched, &mut tasks);
    let pod_uid = settings.pod_uid.clone();
    let members = Members::new(&settings.identity, &settings.lease_namespace, pod_uid, stores.clone());
    let admin_url =
        settings.advertise.first().map(|ip| format!("http://{}", SocketAddr::new(*ip, admin.port())));
    match members.join(&cluster, admin_url.as_deref(), settings.clock).await {
        Ok(()) => {}
        Err(source @ (ClusterError::Gone(_) | ClusterError::Forbidden(_))) => {
            return Err(RunError::LeaseNamespace { namespace: settings.lease_namespace, source });
        }
        // An API server that is away for a moment is waited for.
        Err(error) => tracing::warn!(error = error.chain(), "cannot write this member's Lease yet"),
    }
    let lead = Lead::new();
    let (events, sending) = Events::new(cluster.clone(), settings.identity.clone(), settings.clock);
    tasks.spawn(sending);
    let (targets, watched) = watch::channel(Watched { targets: Arc::from([]), history: settings.idle_after });
    stores.synced().await;

    let names = |of: fn(&dyn TrafficMetricsSource) -> bool| {
        let of = sources.iter().filter(|source| of(&***source));
        of.map(|source| source.name().to_owned()).collect::<Vec<_>>()
    };
    let defaults = Defaults {
        idle_after: settings.idle_after,
        sources: names(|_| true),
        by_default: names(|source| source.by_default()),
        asking: names(|source| source.asks_queries()),
        substitute: settings.substitute,
    };
    let polls = Polls::start(sources, settings.clock, settings.poll, &watched, &stop);
    let polled = polls.polled();
    let mut claims = JoinSet::new();
    let (space, identity) = (settings.lease_namespace.clone(), settings.identity.clone());
    let leaving = CancellationToken::new();
    claims.spawn(members.clone().attend(cluster.clone(), admin_url, settings.clock, leaving.clone()));
    claims.spawn(lead.clone().seek(cluster.clone(), space, identity, settings.clock, leaving.clone()));

    let wake_address = WakeAddress::new(settings.wake_service.clone());
    let cx = Arc::new(Context {
        defaults,
        addresses: settings.advertise.iter().copied().collect::<BTreeSet<_>>(),
        settings,
        cluster,
        stores,
        lead,
        members,
        doors,
        polls,
        polled,
        memories: Memories::default(),
        queue,
        started: Instant::now(),
        leaving,
        telemetry,
        board: Board::default(),
        events,
        wake_address,
        budget: WakeBudget::new(Instant::now()),
        asking: Arc::new(Semaphore::new(eager::ASKING)),
        choosing: Mutex::new(()),
    });
    tasks.spawn(routes::follow(Arc::clone(&cx), targets));
    tasks.spawn(look_at_touched(Arc::clone(&cx)));
    tasks.spawn(heed_polls(Arc::clone(&cx)));
    tasks.spawn(heed_members(Arc::clone(&cx)));
    tasks.spawn(wake_address::heed(Arc::clone(&cx)));
    for app in cx.stores.apps() {
        cx.queue.add(&app);
    }
    for _ in 0..WORKERS {
        tasks.spawn(work(Arc::clone(&cx)));
    }
    let ready = Ready::default();
    tasks.spawn(become_ready(Arc::clone(&cx), ready.clone()));
    drop(routes.send_replace(web::router(Arc::clone(&cx), ready.clone())));
    tracing::info!(identity = cx.settings.identity, %admin, "started");
    Ok(Running { admin, proxies, cx, ready, tasks, claims, stop })
}

impl Running {
    /// What a turn of this controller would rest on; for the demo and for tests.
    pub fn context(&self) -> &Arc<Context> {
        &self.cx
    }

    /// Waits until something that must run for ever has ended. It never does, unless there is a bug.
    pub async fn broken(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Leaves: claims given back, addresses out of every Service, what is held answered.
    ///
    /// The last member takes its addresses out too: a quick 503 is better than an address that answers nobody, or
    /// that somebody else may get.
    pub async fn leave(mut self) {
        let deadline = Instant::now() + self.cx.settings.grace;
        self.ready.set(false);
        self.cx.leaving.cancel();
        let claims = async { while self.claims.join_next().await.is_some() {} };
        let settings = &self.cx.settings;
        let withdrawn = leave::withdraw_all(&self.cx.cluster, &settings.namespaces, &settings.identity);
        let (_, ()) = tokio::join!(tokio::time::timeout_at(deadline, claims), withdrawn);
        // What is held still has its apps woken, and what comes late is still answered.
        let left = self.cx.doors.drain(self.cx.settings.propagation, deadline).await;
        self.stop.cancel();
        self.tasks.abort_all();
        tracing::info!(left, "stopped");
    }

    /// Ends at once, as a crash does: nothing is taken back.
    pub fn crash(mut self) {
        self.tasks.abort_all();
        self.claims.abort_all();
        self.stop.cancel();
        self.cx.doors.slam();
    }
}

/// Looks once at every app that carries KubeNap's annotations: its label may have gone while no controller ran.
async fn look_at_touched(cx: Arc<Context>) {
    match by_hand::touched(&cx.cluster, &cx.settings.namespaces).await {
        Ok(apps) => apps.iter().for_each(|app| cx.queue.add(app)),
        Err(error) => tracing::warn!(error = error.chain(), "cannot look for apps that lost their label"),
    }
    if cx.settings.manage_proxies {
        let wake = &cx.settings.wake_service.namespace;
        if let Err(error) =
            hooks::sweep(&cx.cluster, &cx.settings.namespaces, wake, hooks::Spared::Living).await
        {
            tracing::warn!(
                error = error.chain(),
                "cannot take back what was put in place for apps that are gone"
            );
        }
    }
    std::future::pending::<()>().await;
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, flag, source })
}

/// Looks at every app after each poll, and keeps the sources' metrics.
async fn heed_polls(cx: Arc<Context>) {
    let mut polled = cx.polled.clone();
    while polled.changed().await.is_ok() {
        let latest = polled.borrow_and_update().clone();
        for (name, state) in &latest.per_source {
            let label = BySource { source: name.clone() };
            cx.telemetry.source_up.get_or_create(&label).set(i64::from(state.up()));
            let mut seen = state.each().map(|(_, _, sample)| &sample.activity).peekable();
            let asked = seen.peek().is_some();
            let oldest =
                seen.filter(|activity| activity.blind.is_empty()).map(|activity| activity.watermark).min();
            if let Some(oldest) = oldest {
                cx.telemetry.set_watermark(name, oldest);
            } else if state.up() && !asked {
                // It answers, and there is no app that it could know anything of.
                cx.telemetry.clear_watermark(name);
            }
        }
        for app in cx.stores.apps() {
            cx.queue.add(&app);
        }
    }
}

/// Looks at every app when members come and go, or leading begins or ends; and counts apps by phase.
async fn heed_members(cx: Arc<Context>) {
    let mut lead = cx.lead.changes();
    let mut known = BTreeSet::new();
    loop {
        let leading = tokio::select! {
            changed = lead.changed() => changed.is_ok(),
            () = tokio::time::sleep(Duration::from_secs(1)) => false,
        };
        cx.telemetry.leader.set(i64::from(cx.lead.holds()));
        cx.telemetry.count_apps(&cx.board.phases().into_iter().map(Phase::text).collect::<Vec<_>>());
        entrances::close_unclaimed(&cx);
        let living = cx.members.living();
        if leading || living != known {
            tracing::info!(leads = cx.lead.holds(), members = living.len(), "members");
            known = living;
            for app in cx.stores.apps() {
                cx.queue.add(&app);
            }
        }
    }
}

/// Ready once every app was looked at, and every sleeping one has this member's slices. Goes on for ever.
async fn become_ready(cx: Arc<Context>, ready: Ready) {
    let shown = |app: &AppId| {
        let deployment = cx.stores.deployments.find(&app.namespace, &app.name);
        deployment
            .is_some_and(|deployment| policy::opted_in(&deployment.labels) || deployment.seen.record.any)
    };
    let substituted = |app: &AppId| {
        let deployment = cx.stores.deployments.find(&app.namespace, &app.name);
        deployment.is_none_or(|deployment| observe::reading(&deployment, &cx.defaults).policy.substitute)
    };
    let placed = |app: &AppId| {
        cx.stores.slices.within(&app.namespace).tagged(Tag::app(&app.name)).any(|(_, slice)| {
            matches!(&**slice, SlimSlice::Ours(slice)
                if slice.member == cx.settings.identity && slice.apps.contains_key(&app.name))
        })
    };
    let mut left: Vec<AppId> = cx.stores.apps().into_iter().collect();
    loop {
        // Sleeping, by its reason: one that is at zero for another reason has no slices to wait for.
        let done = |app: &AppId| match cx.board.look(app, |row| row.why.label() == "asleep") {
            Some(asleep) => !asleep || placed(app) || !substituted(app),
            None => !shown(app),
        };
        left.retain(|app| !done(app));
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ready.set(true);
    std::future::pending::<()>().await;
}
