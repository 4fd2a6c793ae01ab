//! `kubenap doctor`: what KubeNap needs, what it sees, and the hint that mends what is missing.

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Container, Probe};
use kube::Api;
use kube::api::PostParams;
use kubenap_controller::cluster::Cluster;
use kubenap_controller::decide::board::AppStatus;
use kubenap_controller::web::{Room, SourceStatus};
use kubenap_core::policy::{self, Defaults};
use kubenap_core::proxy::Proxy;
use serde::Serialize;

use super::status;
use crate::args::{ClusterArgs, DoctorArgs, Format};
use crate::outcome::Outcome;
use crate::rights::{self, Place, Rule};
use crate::{connect, members, output};

/// A member that can hold fewer requests than this sheds some in a rush that others stand.
const ROOM: usize = 10_000;

/// One finding.
#[derive(Debug, Serialize)]
struct Finding {
    state: State,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Failed,
}

pub(crate) async fn run(args: DoctorArgs, at: &ClusterArgs) -> anyhow::Result<Outcome> {
    let mut findings = Vec::new();
    let cluster = connect::cluster(at).await?;
    match cluster.call(cluster.client().apiserver_version()).await {
        Ok(version) => {
            ok(&mut findings, format!("the API server answers: Kubernetes {}", version.git_version));
        }
        Err(error) => {
            failed(
                &mut findings,
                format!("the API server does not answer: {}", error.chain()),
                "check --kubeconfig and --context",
            );
            return finish(&findings, args.output);
        }
    }
    let namespace = connect::lease_namespace(at);
    let room = members::ask::<Room>(&cluster, &namespace, "/api/v1/room").await.ok();
    let substitute = room.as_ref().is_none_or(|room| room.substitutes);
    let manages_proxies = room.as_ref().is_some_and(|room| room.manages_proxies);
    let ways = Ways { defaults: Defaults { substitute, ..Defaults::default() }, manages_proxies };
    if let Err(error) = rights(&cluster, at, &ways, &mut findings).await {
        failed(
            &mut findings,
            format!("{error:#}"),
            "every account may ask this by default; look at the API server's roles",
        );
    }
    match members::leader(&cluster, &namespace).await {
        Ok(Some(leader)) => ok(&mut findings, format!("{leader} leads")),
        Ok(None) => failed(
            &mut findings,
            format!("nobody leads in {namespace}: no app naps"),
            "start kubenap run, or name its namespace with --lease-namespace",
        ),
        Err(error) => failed(
            &mut findings,
            format!("{error:#}"),
            "create the namespace, or name another one with --lease-namespace",
        ),
    }
    let sources: anyhow::Result<Vec<SourceStatus>> =
        members::ask(&cluster, &namespace, "/api/v1/sources").await;
    match &sources {
        Ok(sources) => sources.iter().for_each(|source| tell_source(source, &mut findings)),
        Err(error) => warn(
            &mut findings,
            format!("no member can be asked about its sources: {error:#}"),
            "run doctor where members can be reached",
        ),
    }
    // That nobody can be asked was told of above.
    if let Some(room) = &room {
        tell_room(room, &mut findings);
    }
    match status::all(&cluster, at).await {
        Ok(apps) => {
            for app in &apps {
                tell_app(&cluster, app, sources.as_deref().unwrap_or_default(), &ways, &mut findings).await;
            }
        }
        Err(error) => failed(
            &mut findings,
            format!("{error:#}"),
            "grant list on deployments to the account that is used here",
        ),
    }
    finish(&findings, args.output)
}

/// How requests may come to KubeNap, by what its members were told.
struct Ways {
    defaults: Defaults,
    manages_proxies: bool,
}

/// Each held request is an open file; and who looks into some namespaces only does not see all routes.
fn tell_room(room: &Room, findings: &mut Vec<Finding>) {
    let Room { member, open_files, connections, substitutes: _, manages_proxies: _, namespaces } = room;
    if !namespaces.is_empty() {
        warn(
            findings,
            format!(
                "routes of other namespaces than {} are not read: what comes by them is no use of an app",
                namespaces.join(", ")
            ),
            "an app to which such a route leads besides another one needs a source that sees all of its use (docs/guide/sources)",
        );
    }
    let files = open_files.map_or("no limit of open files".to_owned(), |files| format!("{files} open files"));
    let what = format!("{member} can hold {connections} requests at a time ({files})");
    if *connections < ROOM {
        warn(
            findings,
            what,
            "raise the limit of open files of its container (the container runtime's LimitNOFILE)",
        );
    } else {
        ok(findings, what);
    }
}

async fn tell_app(
    cluster: &Cluster,
    app: &AppStatus,
    sources: &[SourceStatus],
    ways: &Ways,
    findings: &mut Vec<Finding>,
) {
    let name = format!("{}/{}", app.namespace, app.name);
    ok(findings, format!("{name} is {}: {}", app.phase, app.why));
    for complaint in &app.complaints {
        warn(findings, format!("{name}: {complaint}"), "until it is mended the app does not nap");
    }
    if let Err(error) = manners(cluster, &app.namespace, &app.name, ways, findings).await {
        failed(
            findings,
            format!("{name}: {error:#}"),
            "grant get on deployments to the account that is used here",
        );
    }
    lag(app, sources, findings);
    strangers(&name, sources, findings);
}

/// Sources that answer and know nothing of the app, with the names that they have looked for.
fn strangers(name: &str, sources: &[SourceStatus], findings: &mut Vec<Finding>) {
    for source in sources.iter().filter(|source| source.up) {
        let Some(known) = source.apps.iter().find(|known| known.app == name) else { continue };
        if known.matched > 0 || known.blind.is_empty() {
            continue;
        }
        warn(
            findings,
            format!(
                "{name}: source {} is blind ({}); it has looked for {}",
                source.name,
                known.blind.join(", "),
                known.looked_for.join(", ")
            ),
            "compare these names with the labels of your proxy's metrics, or choose other sources with kubenap/metrics",
        );
    }
}

async fn rights(
    cluster: &Cluster,
    at: &ClusterArgs,
    ways: &Ways,
    findings: &mut Vec<Finding>,
) -> anyhow::Result<()> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client());
    let mut missing = Vec::new();
    let mut asked = 0;
    for (place, rules) in rights::controller()? {
        let namespace = match place {
            Place::Substitution if !ways.defaults.substitute => continue,
            Place::Hooks if !ways.manages_proxies => continue,
            Place::Apps | Place::Substitution | Place::Hooks => at.namespace.first().cloned(),
            Place::Proxies => None,
            Place::Own => Some(connect::lease_namespace(at)),
        };
        for right in rules.iter().flat_map(Rule::rights) {
            let attributes = ResourceAttributes {
                group: Some(right.group.to_owned()),
                resource: Some(right.resource.to_owned()),
                name: right.name.map(str::to_owned),
                verb: Some(right.verb.to_owned()),
                namespace: namespace.clone(),
                ..ResourceAttributes::default()
            };
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(attributes),
                    ..SelfSubjectAccessReviewSpec::default()
                },
                ..SelfSubjectAccessReview::default()
            };
            let answer = cluster.call(reviews.create(&PostParams::default(), &review)).await;
            let answer = answer.context("cannot ask which permissions there are")?;
            asked += 1;
            if !answer.status.is_some_and(|status| status.allowed) {
                missing.push(format!("{} {}", right.verb, right.resource));
            }
        }
    }
    if missing.is_empty() {
        ok(findings, format!("all {asked} permissions are there"));
    } else {
        failed(
            findings,
            format!("missing permissions: {}", missing.join(", ")),
            "grant them to the account that is used here",
        );
    }
    Ok(())
}

fn tell_source(source: &SourceStatus, findings: &mut Vec<Finding>) {
    match &source.error {
        None if source.up => {
            ok(findings, format!("source {} answers since {}{}", source.name, source.since, age(source)));
            late(source, findings);
        }
        error => {
            let why = error.clone().unwrap_or_else(|| "not asked yet".to_owned());
            let (why, hint) = why
                .split_once("\nhint: ")
                .unwrap_or((&why, "apps that rely on it stay awake until it answers"));
            failed(
                findings,
                format!("source {} does not answer since {}: {why}", source.name, source.since),
                hint,
            );
        }
    }
}

/// How old what it knows of the app is that it knows least of.
fn age(source: &SourceStatus) -> String {
    let known = source.apps.iter().filter(|known| known.blind.is_empty());
    let marks = known.filter_map(|known| known.watermark.as_deref()?.parse::<jiff::Timestamp>().ok());
    let Some(oldest) = marks.min() else { return String::new() };
    let age = kubenap_controller::clock::Clock::System.now().duration_since(oldest);
    format!(", and is {} s behind", age.as_secs().max(0))
}

/// Most proxies count a request when it ends, and what is open looks like quiet.
fn late(source: &SourceStatus, findings: &mut Vec<Finding>) {
    let apps: Vec<_> = source.apps.iter().filter(|known| known.matched > 0 && !known.sees_open).collect();
    if let Some(first) = apps.first() {
        let others = if apps.len() > 1 { format!(" and {} more", apps.len() - 1) } else { String::new() };
        warn(
            findings,
            format!(
                "source {} does not see requests of {}{others} that are still open",
                source.name, first.app
            ),
            "where apps have WebSockets, streams or long downloads, set kubenap/idleAfter above the longest of them",
        );
    }
}

/// What an app drops itself when it is told to stop is as in any rollout; these say so before it happens.
async fn manners(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    ways: &Ways,
    findings: &mut Vec<Finding>,
) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::namespaced(cluster.client(), namespace);
    let Some(deployment) = cluster.call(api.get_opt(name)).await.context("cannot read a Deployment")? else {
        return Ok(());
    };
    let texts = |map: Option<policy::Texts>| map.unwrap_or_default();
    let metadata = deployment.metadata;
    let reading = policy::read(&texts(metadata.labels), &texts(metadata.annotations), &ways.defaults);
    if !reading.policy.substitute {
        warn(
            findings,
            format!(
                "{namespace}/{name} is not substituted: whoever does not come through its proxy finds nobody while it sleeps"
            ),
            "callers inside the cluster, cron jobs and monitors must use the proxy's address, or leave substitution on",
        );
    }
    let policy = &reading.policy;
    if ways.manages_proxies && policy.proxy != Proxy::default() && !policy.hook_declared {
        let told = if policy.substitute {
            "needs to be told nothing, for the app is substituted"
        } else {
            "is told of KubeNap while it sleeps, and not while it is awake"
        };
        ok(findings, format!("{namespace}/{name}: {} {told}", policy.proxy));
    }
    let pod = deployment.spec.and_then(|spec| spec.template.spec);
    let containers = pod.map(|pod| pod.containers).unwrap_or_default();
    if !reading.policy.substitute
        && let Some(late) = unready_after(&containers)
    {
        warn(
            findings,
            format!(
                "{namespace}/{name} gets requests until its last pod's readiness has failed, up to {late} s after SIGTERM"
            ),
            &format!(
                "let its readiness fail at SIGTERM, and let it serve on for {} s",
                late.saturating_add(HEARD_OF)
            ),
        );
    }
    if containers.iter().all(|container| container.readiness_probe.is_none()) {
        warn(
            findings,
            format!("{namespace}/{name} has no readiness probe"),
            "add one: without it a wake may answer before the app does",
        );
    }
    let hooks = |container: &Container| {
        container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
    };
    if !containers.iter().any(hooks) {
        warn(
            findings,
            format!("{namespace}/{name} has no preStop hook"),
            "unless the app itself serves on for a few seconds after SIGTERM, add a preStop sleep of 5 s",
        );
    }
    Ok(())
}

/// Until kube-proxy and a proxy have heard of it, in seconds.
const HEARD_OF: u32 = 4;

/// How long it takes until a pod whose probes fail is no longer ready, in seconds; none without a probe.
fn unready_after(containers: &[Container]) -> Option<u32> {
    let probes = containers.iter().filter_map(|container| container.readiness_probe.as_ref());
    // As the API server fills them in.
    let seconds = |probe: &Probe| {
        probe.period_seconds.unwrap_or(10).saturating_mul(probe.failure_threshold.unwrap_or(3))
    };
    probes.map(seconds).min().and_then(|seconds| u32::try_from(seconds).ok())
}

/// An idleAfter below four times the lag of a source makes naps that end at once.
fn lag(
    app: &kubenap_controller::decide::board::AppStatus,
    sources: &[SourceStatus],
    findings: &mut Vec<Finding>,
) {
    let name = format!("{}/{}", app.namespace, app.name);
    let Ok(idle_after) = kubenap_core::duration::parse(&app.idle_after) else { return };
    for source in sources.iter().filter(|source| source.up) {
        let known = source.apps.iter().find(|known| known.app == name);
        let Some(mark) = known.and_then(|known| known.watermark.as_deref()?.parse::<jiff::Timestamp>().ok())
        else {
            continue;
        };
        let behind = kubenap_controller::clock::Clock::System.now().duration_since(mark);
        let behind = std::time::Duration::try_from(behind).unwrap_or_default();
        if behind * 4 > idle_after {
            warn(
                findings,
                format!(
                    "{name}: idleAfter {} is below four times the lag of source {} ({} s)",
                    app.idle_after,
                    source.name,
                    behind.as_secs()
                ),
                "raise kubenap/idleAfter, or lower --poll and the scrape interval",
            );
        }
    }
}

fn ok(findings: &mut Vec<Finding>, what: String) {
    findings.push(Finding { state: State::Ok, what, hint: None });
}

fn warn(findings: &mut Vec<Finding>, what: String, hint: &str) {
    findings.push(Finding { state: State::Warning, what, hint: Some(hint.to_owned()) });
}

fn failed(findings: &mut Vec<Finding>, what: String, hint: &str) {
    findings.push(Finding { state: State::Failed, what, hint: Some(hint.to_owned()) });
}

fn finish(findings: &[Finding], format: Option<Format>) -> anyhow::Result<Outcome> {
    if let Some(format @ (Format::Json | Format::Yaml)) = format {
        output::data(&findings, format)?;
    } else {
        for finding in findings {
            let mark = match finding.state {
                State::Ok => "ok     ",
                State::Warning => "warning",
                State::Failed => "FAILED ",
            };
            output::line(&format!("{mark} {}", finding.what));
            if let Some(hint) = &finding.hint {
                output::line(&format!("        hint: {hint}"));
            }
        }
    }
    let bad = findings.iter().any(|finding| finding.state == State::Failed);
    Ok(if bad { Outcome::Failed } else { Outcome::Done })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_unready_when_the_quickest_of_its_probes_has_failed_often_enough() {
        let probed = |period_seconds, failure_threshold| Container {
            readiness_probe: Some(Probe { period_seconds, failure_threshold, ..Probe::default() }),
            ..Container::default()
        };
        assert_eq!(unready_after(&[]), None);
        assert_eq!(unready_after(&[Container::default()]), None);
        assert_eq!(unready_after(&[Container::default(), probed(None, None)]), Some(30));
        assert_eq!(unready_after(&[probed(None, None), probed(Some(1), None)]), Some(3));
        assert_eq!(unready_after(&[probed(Some(i32::MAX), Some(9))]), Some(i32::MAX.unsigned_abs()));
    }
}
