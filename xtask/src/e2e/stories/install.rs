//! The README's section "On a cluster", line by line: installed, napped, woken, upgraded, and taken off without a trace.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use serde_json::json;

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::build;
use crate::e2e::members::HOME;
use crate::e2e::say;
use crate::e2e::world::{Ran, Space, World, eventually};
use crate::manifest;

/// As in the README.
const SHOP: &str = "shop";
const APP: &str = "web";
const HOST: &str = "web.shop.example";
/// What the chart can be told, all of which must make sense to Helm and to the API server.
const OPTIONS: [&[&str]; 6] = [
    &[],
    &["namespaces={default,shop}"],
    &[
        "namespaces={shop}",
        "rbac.proxies=false",
        "admissionPolicy.enabled=false",
        "restoreHook.enabled=false",
    ],
    &["rbac.create=false", "podDisruptionBudget.enabled=false", "replicas=1", "image.digest=sha256:00"],
    &[
        "networkPolicy.enabled=true",
        "networkPolicy.adminFrom[0].namespaceSelector.matchLabels.name=monitoring",
        "dashboard.enabled=true",
        "flowSchema.enabled=true",
        "priorityClassName=system-cluster-critical",
        "podAnnotations.a=b",
        "topologySpreadConstraints[0].maxSkew=1",
        "topologySpreadConstraints[0].topologyKey=zone",
        "topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
    ],
    &[
        "flags.source={ingress,prometheus=http://prometheus.monitoring.svc:9090}",
        "flags.idle-after=1h",
        "flags.naps-per-minute=3",
        "flags.admin-listen=0.0.0.0:9000",
        "flags.proxy-listen={any=0.0.0.0:9001}",
        "certificateAuthorities.configMapName=ca",
        "prometheusToken.secretName=token",
    ],
];

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    let world = &space.world;
    let shop = Space { world: Arc::clone(world), namespace: SHOP.to_owned() };
    world.members.uninstall().await?;
    world.members.forget().await;
    shop_anew(&shop).await?;
    every_option_is_taken(world).await.context("the chart's options")?;
    manifest::check(&world.cluster).await?;
    let plain = build::root().join("deploy/kubenap.yaml").display().to_string();
    world.kubectl(&["apply", "--dry-run=server", "-f", &plain]).await.context("deploy/kubenap.yaml")?;

    let lines = readme()?;
    for line in &lines {
        say(&format!("$ {line}"));
        told(&shop, line).await.with_context(|| format!("$ {line}"))?;
    }
    world.remove_namespace(SHOP).await?;
    Ok(vec![("README's commands", lines.len() as u64), ("sets of options", OPTIONS.len() as u64)])
}

/// One line of the README, and what must be true after it.
async fn told(shop: &Space, line: &str) -> Result<()> {
    let world = &shop.world;
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["helm", "install", ..] | ["kubectl", "-n", SHOP, "label", ..] => drop(done(world, line).await?),
        ["kubenap", "doctor", ..] => all_green(world, line).await?,
        ["kubenap", "status" | "why", ..] => {
            let ran = done(world, line).await?;
            ensure!(ran.stdout.contains(APP), "it does not speak of {APP}: {}", ran.stdout);
        }
        ["kubenap", "nap", ..] => {
            done(world, line).await?;
            shop.until_asleep(APP, APP).await?;
        }
        ["curl", ..] => {
            let ran = done(world, line).await?;
            ensure!(ran.stdout.contains("307"), "there was no redirect: {}", ran.stdout);
            ensure!(ran.stdout.contains("200 OK") && ran.stdout.contains("pod="), "no app: {}", ran.stdout);
            shop.until_awake(APP, APP, 2).await?;
        }
        ["kubenap", "wake", ..] => {
            done(world, line).await?;
            shop.until_awake(APP, APP, 2).await?;
        }
        ["helm", "upgrade", ..] => {
            done(world, line).await?;
            let deployment =
                world.kubectl(&["-n", HOME, "get", "deployment", "kubenap", "-o", "yaml"]).await?;
            let flag = line.split_whitespace().find_map(|word| word.strip_prefix("flags."));
            let flag = flag.context("the README's upgrade sets no flag")?;
            ensure!(deployment.contains(&format!("--{flag}")), "--{flag} is not there:\n{deployment}");
        }
        ["helm", "uninstall", ..] => {
            shop.until_asleep(APP, APP).await.context("an app must sleep when KubeNap is taken off")?;
            done(world, line).await?;
            nothing_is_left(shop).await?;
        }
        ["kubectl", "delete", "namespace", name] => {
            done(world, line).await?;
            gone(world, name).await?;
            world.make_home().await?;
        }
        _ => bail!("the README tells something that the story does not know how to check"),
    }
    Ok(())
}

async fn done(world: &World, line: &str) -> Result<Ran> {
    let ran = world.bash(line, Duration::from_secs(300)).await?;
    ensure!(ran.code == 0, "exit {}\n{}{}", ran.code, ran.stdout, ran.stderr);
    Ok(ran)
}

/// A person who has just installed it may be quicker than its first poll.
async fn all_green(world: &World, line: &str) -> Result<()> {
    eventually("the doctor is content", Duration::from_secs(120), async || {
        let ran = done(world, line).await?;
        // Apps that an earlier run has left behind have warnings of their own.
        let ours = |line: &&str| line.starts_with("FAILED") || line.contains("warning shop/");
        let red = ran.stdout.lines().find(ours);
        ensure!(red.is_none(), "{}", ran.stdout);
        Ok(())
    })
    .await
}

/// The app is awake as it was, and of KubeNap there is nothing.
async fn nothing_is_left(shop: &Space) -> Result<()> {
    let world = &shop.world;
    let (replicas, ready) = (shop.replicas(APP).await?, shop.ready_replicas(APP).await?);
    ensure!(replicas == 2 && ready == 2, "{replicas} replicas, {ready} ready: Helm did not wait for them");
    let annotations = shop.deployment(APP).await?.metadata.annotations.unwrap_or_default();
    let ours: Vec<_> = annotations.keys().filter(|key| key.starts_with("kubenap/")).collect();
    ensure!(ours.is_empty(), "annotations are left: {ours:?}");
    ensure!(shop.our_slices(APP).await?.is_empty(), "slices are left");
    let host = crate::e2e::http::get(crate::e2e::cluster::TRAEFIK, HOST, "/").await?;
    host.ensure_from_app()?;
    eventually("nothing of KubeNap's is left", Duration::from_secs(180), async || {
        let of_release = ["-l", "app.kubernetes.io/instance=kubenap", "-o", "name", "--ignore-not-found"];
        let kinds = "all,leases,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,configmaps,\
                     poddisruptionbudgets,networkpolicies,validatingadmissionpolicies,validatingadmissionpolicybindings";
        let found = world.kubectl(&[&["-n", HOME, "get", kinds], &of_release[..]].concat()).await?;
        ensure!(found.trim().is_empty(), "{found}");
        let leases = world.kubectl(&["-n", HOME, "get", "leases", "-o", "name"]).await?;
        ensure!(leases.trim().is_empty(), "{leases}");
        Ok(())
    })
    .await
}

async fn every_option_is_taken(world: &World) -> Result<()> {
    world.members.helm(&["lint", "chart/kubenap", "--strict"]).await?;
    for options in OPTIONS {
        let sets = options.iter().map(|option| format!("--set '{option}'")).collect::<Vec<_>>().join(" ");
        let render =
            format!("helm template kubenap chart/kubenap --namespace {HOME} --dry-run=server {sets}");
        let line = format!("set -o pipefail; {render} | kubectl apply --dry-run=server -f -");
        done(world, &line).await.with_context(|| sets.clone())?;
    }
    // The Prometheus operator's kind is not here.
    let monitor =
        world.members.helm(&["template", "kubenap", "chart/kubenap", "--set", "serviceMonitor.enabled=true"]);
    ensure!(
        monitor.await?.contains("kind: ServiceMonitor"),
        "serviceMonitor.enabled makes no ServiceMonitor"
    );
    let typing_error =
        world.members.helm(&["template", "kubenap", "chart/kubenap", "--set", "flags.idle-afer=1m"]);
    ensure!(typing_error.await.is_err(), "a flag that does not exist was taken");
    Ok(())
}

/// A shop with an app that is not opted in yet.
async fn shop_anew(shop: &Space) -> Result<()> {
    let world = &shop.world;
    if Api::<Namespace>::all(world.client.clone()).get_opt(SHOP).await?.is_some() {
        world.remove_namespace(SHOP).await?;
        gone(world, SHOP).await?;
    }
    world.make_namespace(SHOP).await?;
    shop.create(&App::new(APP).replicas(2).host(HOST)).await?;
    // A well-behaved app, so that the doctor has nothing to say about it.
    let sleep = json!({"preStop": {"sleep": {"seconds": 3}}});
    let template = json!({"spec": {"containers": [{"name": "app", "lifecycle": sleep}]}});
    let patch = json!({"metadata": {"labels": {"kubenap/enabled": null}}, "spec": {"template": template}});
    shop.kubectl(&["patch", "deployment", APP, "-p", &patch.to_string()]).await?;
    shop.kubectl(&["rollout", "status", "deployment/web", "--timeout=150s"]).await.map(drop)
}

async fn gone(world: &World, namespace: &str) -> Result<()> {
    let namespaces = Api::<Namespace>::all(world.client.clone());
    eventually(&format!("namespace {namespace} is gone"), Duration::from_secs(180), async || {
        ensure!(namespaces.get_opt(namespace).await?.is_none(), "it is still there");
        Ok(())
    })
    .await
}

/// The commands between the README's marks, without their comments.
fn readme() -> Result<Vec<String>> {
    let text = std::fs::read_to_string(build::root().join("README.md")).context("read README.md")?;
    let lines = commands(&text).context("README.md has no section that is told by the story `install`")?;
    ensure!(lines.len() > 5, "too few commands in the README: {lines:?}");
    Ok(lines)
}

fn commands(readme: &str) -> Option<Vec<String>> {
    let (_, rest) = readme.split_once("<!-- install: ")?;
    let (section, _) = rest.split_once("<!-- end of install -->")?;
    let typed = section.lines().filter_map(|line| line.strip_prefix("$ "));
    Some(typed.map(|line| line.split("  #").next().unwrap_or(line).trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::{commands, readme};

    #[test]
    fn the_readme_s_commands_are_found_without_their_comments() {
        let page = "a\n<!-- install: x -->\n```console\n$ kubenap nap shop/web    # now\n$ curl 'http://x/#a'\nok\n```\n<!-- end of install -->\n$ no";
        assert_eq!(commands(page).expect("commands"), ["kubenap nap shop/web", "curl 'http://x/#a'"]);
        assert!(readme().expect("the README").iter().any(|line| line.starts_with("helm uninstall")));
    }
}
