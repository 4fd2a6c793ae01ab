//! What was typed: every command and flag, with its default and its environment variable.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use kubenap_controller::activity::{SourceArg, SourceSpec};
use kubenap_controller::wake::ProxyListen;
use kubenap_core::duration;
use kubenap_core::proxy::{Proxy, Version, WakeAddress};

/// Puts idle Kubernetes Deployments to sleep and wakes them on request.
#[derive(Debug, Parser)]
#[command(name = "kubenap", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// Which cluster, and where KubeNap's own things are in it.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// A YAML file with flags of the same names
    #[arg(long, global = true, env = "KUBENAP_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Which kubeconfig to use [default: in-cluster, then $KUBECONFIG, then ~/.kube/config]
    #[arg(long, global = true, env = "KUBENAP_KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Which context of the kubeconfig
    #[arg(long, global = true, env = "KUBENAP_CONTEXT")]
    pub(crate) context: Option<String>,
    /// Where the Leases live [default: $POD_NAMESPACE, else kubenap-system]
    #[arg(long, global = true, env = "KUBENAP_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) lease_namespace: Option<String>,
    /// Where to look for apps; may be repeated [default: all]. Short names of apps are taken from the first
    #[arg(long, short = 'n', global = true, env = "KUBENAP_NAMESPACE", value_delimiter = ',')]
    pub(crate) namespace: Vec<String>,
    /// How to write the log [default: text on a terminal, else json]
    #[arg(long, global = true, env = "KUBENAP_LOG_FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the controller
    Run(Box<RunArgs>),
    /// Show a nap and a wake on a small cluster inside this process
    Demo(DemoArgs),
    /// Show every app, and why it sleeps or not
    Status(StatusArgs),
    /// Say why one app sleeps or not, source by source
    Why(WhyArgs),
    /// Put an app to sleep now
    Nap(NapArgs),
    /// Wake an app now; needs only a kubeconfig
    Wake(WakeArgs),
    /// Wake apps and take every trace of KubeNap off them; needs only a kubeconfig
    Restore(RestoreArgs),
    /// Print what a proxy must be told so that its own error path wakes an app
    Render(Box<RenderArgs>),
    /// Say from a source's history how long apps would have slept, opted in or not
    Simulate(SimulateArgs),
    /// Check what KubeNap needs, and say how to mend what is missing
    Doctor(DoctorArgs),
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// What goes into EndpointSlices, and what wake ports bind; one a family
    /// [default: $POD_IP, else the local address on the route to the API server]
    #[arg(long, env = "KUBENAP_ADVERTISE_ADDRESS", value_delimiter = ',', value_name = "IP")]
    pub(crate) advertise_address: Vec<IpAddr>,
    /// One for each Service port of a napping app; a busy one is skipped
    #[arg(long, env = "KUBENAP_WAKE_PORTS", default_value = "16000-29999", value_parser = port_range, value_name = "FROM-TO")]
    pub(crate) wake_ports: PortRange,
    /// Where proxies' error paths, and /wake, are answered; a profile is a proxy's name. May be repeated
    #[arg(
        long,
        env = "KUBENAP_PROXY_LISTEN",
        default_value = "any=0.0.0.0:8080",
        value_delimiter = ',',
        value_name = "[PROFILE=]ADDR"
    )]
    pub(crate) proxy_listen: Vec<ProxyListen>,
    /// Where /metrics, /livez, /readyz and the command line's API are answered
    #[arg(long, env = "KUBENAP_ADMIN_LISTEN", default_value = "0.0.0.0:8081", value_name = "ADDR")]
    pub(crate) admin_listen: SocketAddr,
    /// Who knows the traffic; may be repeated: ingress, ingress=URL, prometheus=URL, influxdb=URL, datadog, logs=PATH,
    /// or the name of one of the config file's sources [default: ingress]; without it, all that the file has
    #[arg(long, env = "KUBENAP_SOURCE", value_delimiter = ',', value_name = "NAME[=URL]")]
    pub(crate) source: Vec<SourceArg>,
    /// What `source` and the config file come to.
    #[arg(skip)]
    pub(crate) sources: Vec<SourceSpec>,
    /// How often sources are asked
    #[arg(long, env = "KUBENAP_POLL", default_value = "15s", value_parser = at_least_100ms, value_name = "DURATION")]
    pub(crate) poll: Duration,
    /// Quiet this long before a nap, when an app does not say
    #[arg(long, env = "KUBENAP_IDLE_AFTER", default_value = "10m", value_parser = at_least_1s, value_name = "DURATION")]
    pub(crate) idle_after: Duration,
    /// No nap sooner after a wake
    #[arg(long, env = "KUBENAP_MIN_AWAKE", default_value = "1m", value_parser = any_duration, value_name = "DURATION")]
    pub(crate) min_awake: Duration,
    /// How long KubeNap and the pods both answer before the pods go
    #[arg(long, env = "KUBENAP_DROWSY", default_value = "5s", value_parser = at_least_100ms, value_name = "DURATION")]
    pub(crate) drowsy: Duration,
    /// The pace of naps; 0 is no limit [default: 2 % of the apps, at least 1]
    #[arg(long, env = "KUBENAP_NAPS_PER_MINUTE", value_name = "NUMBER")]
    pub(crate) naps_per_minute: Option<u32>,
    /// Who this member is [default: $POD_NAME, else the host's name and a random tail]
    #[arg(long, env = "KUBENAP_IDENTITY", value_name = "NAME")]
    pub(crate) identity: Option<String>,
    /// KubeNap's Service, and its port that leads to --proxy-listen: what proxies' error paths are told
    /// [default: the Service kubenap of --lease-namespace, port 80]
    #[arg(long, env = "KUBENAP_WAKE_SERVICE", value_name = "NAMESPACE/SERVICE[:PORT]")]
    pub(crate) wake_service: Option<WakeAddress>,
    /// Use only the proxies' error paths, never EndpointSlices
    #[arg(long, env = "KUBENAP_NO_SUBSTITUTE")]
    pub(crate) no_substitute: bool,
    /// Put the hooks of apps that are not substituted in place, while they sleep: what `kubenap render` prints for
    /// kubenap/proxy
    #[arg(long, env = "KUBENAP_MANAGE_PROXIES")]
    pub(crate) manage_proxies: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// Keep running after the story, until Ctrl-C
    #[arg(long)]
    pub(crate) stay: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    /// Only this app: NAMESPACE/NAME, or NAME with -n
    pub(crate) app: Option<String>,
    /// How to print it
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct WhyArgs {
    /// The app: NAMESPACE/NAME, or NAME with -n
    pub(crate) app: String,
    /// How to print it
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct NapArgs {
    /// The app: NAMESPACE/NAME, or NAME with -n
    pub(crate) app: String,
    /// Requests that come while it is drowsy are passed, and the nap goes on
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not wait until its pods are gone
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Wait no longer than this
    #[arg(long, default_value = "5m", value_parser = at_least_1s, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct WakeArgs {
    /// The app: NAMESPACE/NAME, or NAME with -n
    pub(crate) app: String,
    /// Do not wait until it is awake
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Wait no longer than this
    #[arg(long, default_value = "5m", value_parser = at_least_1s, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct RestoreArgs {
    /// The apps: NAMESPACE/NAME, or NAME with -n
    #[arg(conflicts_with = "all")]
    pub(crate) apps: Vec<String>,
    /// Every app that KubeNap has touched
    #[arg(long)]
    pub(crate) all: bool,
    /// No controller naps any app from now on for ten minutes, or until this fails: for taking KubeNap off
    #[arg(long, requires = "all")]
    pub(crate) stop_naps: bool,
    /// Wait no longer than this for pods
    #[arg(long, default_value = "5m", value_parser = at_least_1s, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct RenderArgs {
    /// The app: NAMESPACE/NAME, or NAME with -n
    pub(crate) app: String,
    /// The proxy [default: what kubenap/proxy says, else any]
    #[arg(long, value_name = "NAME")]
    pub(crate) proxy: Option<Proxy>,
    /// Which of the proxy's forms [default: the one that fits the app's routes]
    #[arg(long, value_name = "NAME")]
    pub(crate) form: Option<String>,
    /// The proxy's version, as some things came late
    #[arg(long, value_name = "MAJOR.MINOR")]
    pub(crate) proxy_version: Option<Version>,
    /// Read these manifests (- for standard input), and ask no cluster; may be repeated
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// KubeNap's Service, and its port that leads to --proxy-listen
    #[arg(long, default_value = "kubenap-system/kubenap:80", value_name = "NAMESPACE/SERVICE[:PORT]")]
    pub(crate) wake_service: WakeAddress,
    /// The cluster address of KubeNap's Service [default: what the cluster or the files say]
    #[arg(long, value_name = "IP")]
    pub(crate) wake_ip: Option<IpAddr>,
    /// How to print it
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct SimulateArgs {
    /// Only these apps: NAMESPACE/NAME, or NAME with -n
    pub(crate) apps: Vec<String>,
    /// How far back: days, or a duration of hours and less; at most 30d
    #[arg(long, default_value = "7d", value_parser = since, value_name = "DAYS")]
    pub(crate) since: Duration,
    /// Whose history; may be repeated: prometheus=URL, influxdb=URL, or the name of one of the config file's sources
    #[arg(long, env = "KUBENAP_SOURCE", value_delimiter = ',', value_name = "NAME[=URL]")]
    pub(crate) source: Vec<SourceArg>,
    /// What `source` and the config file come to.
    #[arg(skip)]
    pub(crate) sources: Vec<SourceSpec>,
    /// How far two looks are apart; a use between them counts from the one to the other
    #[arg(long, default_value = "1m", value_parser = step, value_name = "DURATION")]
    pub(crate) step: Duration,
    /// Quiet this long before a nap, when an app does not say
    #[arg(long, env = "KUBENAP_IDLE_AFTER", default_value = "10m", value_parser = at_least_1s, value_name = "DURATION")]
    pub(crate) idle_after: Duration,
    /// Draw a timeline of every app into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// How to print it
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// How to print it
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Json,
    Yaml,
    Wide,
}

/// `FROM-TO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) from: u16,
    pub(crate) to: u16,
}

fn port_range(text: &str) -> Result<PortRange, String> {
    let refuse =
        || format!("`{text}` is not a range of ports; accepted: FROM-TO within 1-65535, such as 16000-29999");
    let (from, to) = text.split_once('-').ok_or_else(refuse)?;
    let (from, to) = (from.parse().map_err(|_| refuse())?, to.parse().map_err(|_| refuse())?);
    if from == 0 || from > to { Err(refuse()) } else { Ok(PortRange { from, to }) }
}

fn any_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| error.to_string())
}

fn at_least(text: &str, least: Duration) -> Result<Duration, String> {
    let value = any_duration(text)?;
    if value >= least {
        return Ok(value);
    }
    Err(format!(
        "`{text}` is too short; accepted: {} of at least {}",
        duration::ACCEPTED,
        duration::show(least)
    ))
}

/// `7d`, `1d12h`, `36h`.
fn since(text: &str) -> Result<Duration, String> {
    const DAY: Duration = Duration::from_hours(24);
    const LONGEST: Duration = Duration::from_hours(30 * 24);
    let refuse =
        || format!("`{text}` is not understood; accepted: from 10m to 30d, such as 7d, 1d12h or 36h");
    let (days, rest) = match text.split_once('d') {
        Some((days, rest)) => (days.parse().map_err(|_| refuse())?, rest),
        None => (0_u32, text),
    };
    let rest = if rest.is_empty() && days > 0 { Some(Duration::ZERO) } else { duration::parse(rest).ok() };
    let whole = rest.zip(DAY.checked_mul(days)).and_then(|(rest, days)| days.checked_add(rest));
    whole.filter(|whole| (Duration::from_mins(10)..=LONGEST).contains(whole)).ok_or_else(refuse)
}

fn step(text: &str) -> Result<Duration, String> {
    let value = at_least_1s(text)?;
    if value.subsec_nanos() == 0 && value <= Duration::from_hours(1) {
        return Ok(value);
    }
    Err(format!("`{text}` is no step; accepted: whole seconds, from 1s to 1h"))
}

fn at_least_1s(text: &str) -> Result<Duration, String> {
    at_least(text, Duration::from_secs(1))
}

fn at_least_100ms(text: &str) -> Result<Duration, String> {
    at_least(text, Duration::from_millis(100))
}
