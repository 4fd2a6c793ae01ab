//! What one request gets while KubeNap answers for its app: the table of the design's section 6.

use std::time::Duration;

use crate::proxy::Reach;

/// How a request that reached KubeNap is answered by default (`kubenap/wake`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WakeMode {
    /// The table below.
    #[default]
    Auto,
    /// 307 wherever the client may follow one, also without a proxy in front.
    Redirect,
    /// Pass everything; never a redirect, never a page.
    Pass,
    /// The waiting page for every browser navigation; otherwise as `auto`.
    Page,
}

/// What is known of a request when its head has arrived.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact about the head")]
pub struct Request<'a> {
    /// The method, upper case as on the wire.
    pub method: &'a str,
    /// The path without the query.
    pub path: &'a str,
    /// The `User-Agent` header, or nothing.
    pub user_agent: &'a str,
    /// The way it came in.
    pub way: Way,
    /// It carries a forwarding header (`X-Forwarded-*`, `Forwarded`, `Via`, `X-Real-Ip`): some proxy is in front.
    pub forwarded: bool,
    /// A browser's page load: it accepts HTML and its `Sec-Fetch-Mode`, if any, is `navigate`.
    pub navigation: bool,
    /// It asks for another protocol (`Upgrade`).
    pub upgrade: bool,
    /// `Content-Type: application/grpc…`.
    pub grpc: bool,
    /// HTTP/2 without TLS.
    pub h2c: bool,
    /// A cross-origin preflight: `OPTIONS` with `Access-Control-Request-Method`.
    pub preflight: bool,
    /// It has a body, or may have one.
    pub body: bool,
}

/// The way a request came to KubeNap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By substitution, on an app's wake port: the original request is at hand.
    WakePort,
    /// By a proxy's error path, which says how the app can still be given the request.
    ErrorPath(Reach),
}

/// What the app's owner asked for, as far as answers go.
#[derive(Clone, Copy, Debug)]
pub struct Manners<'a> {
    /// `kubenap/wake`.
    pub mode: WakeMode,
    /// `kubenap/holdFor`: how long a request that can be redirected is held.
    pub hold_for: Duration,
    /// `kubenap/wakeTimeout`: how long a request that must be passed is held.
    pub wake_timeout: Duration,
    /// `kubenap/ignorePaths`: path prefixes that never wake.
    pub ignore_paths: &'a [String],
    /// `kubenap/ignoreUserAgents`: parts of `User-Agent`, lower case, that never wake.
    pub ignore_user_agents: &'a [String],
}

/// [`Manners`] that own what they hold, to be kept beside an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedManners {
    /// See [`Manners::mode`].
    pub mode: WakeMode,
    /// See [`Manners::hold_for`].
    pub hold_for: Duration,
    /// See [`Manners::wake_timeout`].
    pub wake_timeout: Duration,
    /// See [`Manners::ignore_paths`].
    pub ignore_paths: Vec<String>,
    /// See [`Manners::ignore_user_agents`].
    pub ignore_user_agents: Vec<String>,
}

impl OwnedManners {
    /// The same, borrowed, as [`answer`] wants it.
    pub fn borrowed(&self) -> Manners<'_> {
        Manners {
            mode: self.mode,
            hold_for: self.hold_for,
            wake_timeout: self.wake_timeout,
            ignore_paths: &self.ignore_paths,
            ignore_user_agents: &self.ignore_user_agents,
        }
    }
}

impl Default for OwnedManners {
    /// What an app gets that says nothing: `auto`, held for 10 s, woken within 2 min, nothing ignored.
    fn default() -> Self {
        Self {
            mode: WakeMode::Auto,
            hold_for: Duration::from_secs(10),
            wake_timeout: Duration::from_mins(2),
            ignore_paths: Vec::new(),
            ignore_user_agents: Vec::new(),
        }
    }
}

/// What the app is like when the request arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Its pods answer.
    Ready,
    /// It sleeps or is on its way.
    NotReady,
}

/// What the request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 503 with `Retry-After`; it wakes nothing and cancels nothing.
    Ignore,
    /// A probe or an ignored request while the pods answer: hand it on, without any effect.
    PassQuietly,
    /// Hand the request to a ready pod, waiting up to this long for one; it needs the app.
    Pass {
        /// How long to wait for a ready pod.
        hold: Duration,
    },
    /// Hold until the app is ready or `hold` is over, then 307 to where it wanted to go.
    Redirect {
        /// How long to wait before a 307 is sent all the same.
        hold: Duration,
    },
    /// The waiting page, at once when the app is not ready within `patience`.
    Page {
        /// How long a fast app may take so that no page is seen at all.
        patience: Duration,
    },
    /// 200 with `grpc-status: 14` (unavailable), which gRPC clients retry.
    GrpcUnavailable,
}

/// How long a page load waits before it is shown the waiting page.
pub const PAGE_PATIENCE: Duration = Duration::from_secs(3);

/// The answer for one request. Total: every request gets exactly one.
pub fn answer(request: &Request<'_>, manners: &Manners<'_>, app: Readiness) -> Answer {
    let ready = app == Readiness::Ready;
    let here = matches!(request.way, Way::WakePort | Way::ErrorPath(Reach::Here));
    if is_probe(request) || is_ignored(request, manners) {
        return if ready && here { Answer::PassQuietly } else { Answer::Ignore };
    }
    let pass = Answer::Pass { hold: manners.wake_timeout };
    let redirect = Answer::Redirect { hold: manners.hold_for };
    match request.way {
        Way::ErrorPath(Reach::Gone | Reach::Kept) if request.grpc => Answer::GrpcUnavailable,
        Way::ErrorPath(Reach::Gone) if wants_page(request, manners.mode) && !ready => page(manners),
        // Where it is gone for good the client sees a redirect, whatever is answered.
        Way::ErrorPath(Reach::Gone | Reach::GoneForGood) => redirect,
        // The app is ready already: a proxy that has not heard of it yet. Passing ends every loop.
        Way::WakePort | Way::ErrorPath(_) if ready => pass,
        Way::WakePort | Way::ErrorPath(_) if must_pass(request, manners.mode) => pass,
        Way::WakePort | Way::ErrorPath(_) if wants_page(request, manners.mode) => page(manners),
        Way::ErrorPath(_) => redirect,
        Way::WakePort if request.forwarded || manners.mode == WakeMode::Redirect => redirect,
        Way::WakePort => pass,
    }
}

/// Health probes and what nobody waits for; answered without waking.
pub fn is_probe(request: &Request<'_>) -> bool {
    const AGENTS: [&str; 8] = [
        "kube-probe/",
        "prometheus/",
        "googlehc/",
        "elb-healthchecker/",
        "envoy/hc",
        "blackbox",
        "kubenap-probe/",
        "azuretrafficmanager",
    ];
    const PATHS: [&str; 5] = ["/favicon.ico", "/robots.txt", "/healthz", "/livez", "/readyz"];
    let agent = request.user_agent.to_ascii_lowercase();
    let get = matches!(request.method, "GET" | "HEAD");
    AGENTS.iter().any(|known| agent.starts_with(known)) || (get && PATHS.contains(&request.path))
}

fn is_ignored(request: &Request<'_>, manners: &Manners<'_>) -> bool {
    let agent = request.user_agent.to_ascii_lowercase();
    manners.ignore_paths.iter().any(|prefix| request.path.starts_with(prefix.as_str()))
        || manners.ignore_user_agents.iter().any(|part| agent.contains(part.as_str()))
}

fn must_pass(request: &Request<'_>, mode: WakeMode) -> bool {
    let safe = matches!(request.method, "GET" | "HEAD");
    mode == WakeMode::Pass
        || !safe
        || request.body
        || request.upgrade
        || request.grpc
        || request.h2c
        || request.preflight
}

fn wants_page(request: &Request<'_>, mode: WakeMode) -> bool {
    request.navigation && request.method == "GET" && matches!(mode, WakeMode::Auto | WakeMode::Page)
}

fn page(manners: &Manners<'_>) -> Answer {
    match manners.mode {
        WakeMode::Page => Answer::Page { patience: Duration::ZERO },
        WakeMode::Auto | WakeMode::Redirect | WakeMode::Pass => {
            Answer::Page { patience: PAGE_PATIENCE.min(manners.hold_for) }
        }
    }
}
