//! N4 without substitution: does a member answer at the wake address, to which the hooks of proxies lead?

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kubenap_core::app::AppId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::stores::Stores;
use crate::decide::Context;
use crate::wake::Question;

/// How often it is asked while some app relies on it.
const EVERY: Duration = Duration::from_secs(10);
/// An answer counts for so long: two may be lost.
const LATELY: Duration = Duration::from_secs(30);
/// An app that was not looked at for so long relies on it no more: each is looked at with every poll.
const RELIES: Duration = Duration::from_mins(10);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// No answer is longer.
const LONGEST: u64 = 4096;

/// The wake address, and whether a member answers there.
#[derive(Debug)]
pub struct WakeAddress {
    service: kubenap_core::proxy::WakeAddress,
    state: Mutex<State>,
    ask: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// When the question was asked that was answered last.
    answered: Option<Instant>,
    /// Whether the last one was answered; none: none was asked.
    answers: Option<bool>,
    /// The apps that rely on it, and when each was last seen to.
    relying: BTreeMap<AppId, Instant>,
    /// Somebody cannot wait until it is time again.
    urgent: bool,
}

impl WakeAddress {
    /// Nobody has asked there yet.
    pub fn new(service: kubenap_core::proxy::WakeAddress) -> Self {
        Self { service, state: Mutex::default(), ask: Notify::new() }
    }

    /// A member answered lately. An app that asks is told when that changes.
    pub fn answers(&self, app: &AppId) -> bool {
        let mut state = self.state();
        if state.relying.insert(app.clone(), Instant::now()).is_none() && state.answers.is_none() {
            self.ask.notify_one();
        }
        state.answered.is_some_and(|at| at.elapsed() < LATELY)
    }

    /// Somebody has asked there at all.
    pub fn was_asked(&self) -> bool {
        self.state().answers.is_some()
    }

    /// A member answered a question that was not asked before `moment`.
    pub fn answered_since(&self, moment: Instant) -> bool {
        self.state().answered.is_some_and(|at| at >= moment)
    }

    /// Asks as soon as possible, and tells the apps that rely on it of the answer.
    pub fn ask_now(&self) {
        self.state().urgent = true;
        self.ask.notify_one();
    }

    /// The Service with its cluster address: as it was told, or as it is seen where Services of its namespace are
    /// watched.
    pub fn resolved(&self, stores: &Stores) -> kubenap_core::proxy::WakeAddress {
        let service = &self.service;
        let seen =
            || stores.services.find(&service.namespace, &service.service)?.cluster_ips.first().copied();
        kubenap_core::proxy::WakeAddress { ip: service.ip.or_else(seen), ..service.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks as long as some app relies on the answer. Goes on for ever.
pub async fn heed(cx: Arc<Context>) {
    let it = &cx.wake_address;
    loop {
        tokio::select! {
            () = it.ask.notified() => {}
            () = sleep(EVERY) => {}
        }
        let relying = {
            let mut state = it.state();
            state.relying.retain(|_, at| at.elapsed() < RELIES);
            state.relying.keys().cloned().collect::<Vec<_>>()
        };
        if relying.is_empty() {
            continue;
        }
        let asked = Instant::now();
        let answer = ask(&cx).await;
        let mut state = it.state();
        let answers = answer.is_some();
        if answers {
            state.answered = Some(asked);
        }
        let changed = state.answers.replace(answers) != Some(answers);
        let urgent = std::mem::take(&mut state.urgent);
        drop(state);
        if changed {
            let at = format!("{}:{}", it.service.host(), it.service.port);
            if let Some(member) = answer {
                tracing::info!(at, member, "a member answers at the wake address");
            } else {
                tracing::warn!(at, "no member answers at the wake address; hint: --wake-service");
            }
        }
        for app in relying.iter().filter(|_| changed || urgent) {
            cx.queue.add(app);
        }
    }
}

/// The member that answers, if one does.
async fn ask(cx: &Context) -> Option<String> {
    let service = cx.wake_address.resolved(&cx.stores);
    let question = Question::new();
    let text = question.text(&service.host());
    let talk = async {
        let mut stream = match service.ip {
            Some(ip) => TcpStream::connect(SocketAddr::new(ip, service.port)).await,
            // What is not known here is asked of the cluster's DNS.
            None => TcpStream::connect((service.host(), service.port)).await,
        }?;
        stream.write_all(text.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(ANSWER, talk).await.ok()?.ok()?;
    let members = cx.members.living();
    question.answered_by(&String::from_utf8_lossy(&answer), &members).map(str::to_owned)
}
