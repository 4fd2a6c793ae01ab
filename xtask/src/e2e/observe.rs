//! Looks at the state of the cluster: Deployments, pods, `KubeNap`'s slices, Events.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::process::Command;

use super::world::{Space, eventually};

/// What `KubeNap` takes away when an app is awake again (epoch and wake ports stay for the next nap).
const STATE: [&str; 2] = ["kubenap/restoreReplicas", "kubenap/wish"];
/// How long an app may take from "nothing hinders it" to its next phase.
const SOON: Duration = Duration::from_secs(120);

impl Space {
    /// A typed client for this namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        Api::namespaced(self.world.client.clone(), &self.namespace)
    }

    /// A Deployment as it is now.
    pub(crate) async fn deployment(&self, name: &str) -> Result<Deployment> {
        self.api().get(name).await.with_context(|| format!("read Deployment {}", self.id(name)))
    }

    /// A Deployment's whole spec, as text with its fields in order.
    pub(crate) async fn spec_text(&self, name: &str) -> Result<String> {
        let path = format!("/apis/apps/v1/namespaces/{}/deployments/{name}", self.namespace);
        let deployment: Value = self.world.client.request(http::Request::get(path).body(Vec::new())?).await?;
        Ok(deployment["spec"].to_string())
    }

    /// How many replicas a Deployment asks for.
    pub(crate) async fn replicas(&self, name: &str) -> Result<i32> {
        Ok(self.deployment(name).await?.spec.and_then(|spec| spec.replicas).unwrap_or(1))
    }

    /// How many of its replicas are ready.
    pub(crate) async fn ready_replicas(&self, name: &str) -> Result<i32> {
        Ok(self.deployment(name).await?.status.and_then(|status| status.ready_replicas).unwrap_or(0))
    }

    /// One of its annotations.
    pub(crate) async fn annotation(&self, name: &str, key: &str) -> Result<Option<String>> {
        Ok(self.deployment(name).await?.metadata.annotations.and_then(|mut all| all.remove(key)))
    }

    /// Changes a Deployment by a merge patch.
    pub(crate) async fn patch(&self, name: &str, patch: &Value) -> Result<()> {
        let patched =
            self.api::<Deployment>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).with_context(|| format!("patch Deployment {}", self.id(name)))
    }

    /// Sets one of the annotations by which a person tells `KubeNap` something: `kubenap/KEY: VALUE`.
    pub(crate) async fn annotate(&self, name: &str, key: &str, value: &str) -> Result<()> {
        let key = format!("kubenap/{key}");
        self.patch(name, &json!({"metadata": {"annotations": {key.as_str(): value}}})).await
    }

    /// Sets or, with null, removes a label of a Deployment.
    pub(crate) async fn label(&self, name: &str, key: &str, value: Value) -> Result<()> {
        self.patch(name, &json!({"metadata": {"labels": {key: value}}})).await
    }

    /// The unique numbers of an app's pods, those that are going included.
    pub(crate) async fn pods(&self, app: &str) -> Result<BTreeSet<String>> {
        let pods = self.api::<Pod>().list(&ListParams::default().labels(&format!("app={app}"))).await?;
        Ok(pods.items.into_iter().filter_map(|pod| pod.metadata.uid).collect())
    }

    /// `KubeNap`'s slices of a Service.
    pub(crate) async fn our_slices(&self, service: &str) -> Result<Vec<EndpointSlice>> {
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let slices = self.api::<EndpointSlice>().list(&of_service).await?;
        Ok(slices.items.into_iter().filter(is_ours).collect())
    }

    /// The addresses in `KubeNap`'s slices of a Service.
    pub(crate) async fn our_addresses(&self, service: &str) -> Result<BTreeSet<String>> {
        let slices = self.our_slices(service).await?;
        let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints);
        Ok(endpoints.flat_map(|endpoint| endpoint.addresses).collect())
    }

    /// Where kube-proxy leads from a Service: it hears of changes later than the API shows them.
    async fn led_to(&self, service: &str) -> Result<BTreeSet<String>> {
        let rules = Command::new("iptables-save").args(["-t", "nat"]).kill_on_drop(true).output().await;
        let rules = rules.context("run iptables-save")?;
        let said = String::from_utf8_lossy(&rules.stderr);
        ensure!(rules.status.success(), "iptables-save: {}", said.trim());
        Ok(led_to(&String::from_utf8_lossy(&rules.stdout), &self.id(service)))
    }

    /// Reason and message of each Event about a Deployment.
    pub(crate) async fn events(&self, name: &str) -> Result<Vec<(String, String)>> {
        let events = self.api::<Event>().list(&ListParams::default()).await?;
        let about =
            events.items.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
        Ok(about.map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default())).collect())
    }

    /// The phase that `KubeNap` wrote on the Deployment; "awake" if it wrote none.
    pub(crate) async fn phase(&self, name: &str) -> Result<String> {
        Ok(self.annotation(name, "kubenap/phase").await?.unwrap_or_else(|| "awake".to_owned()))
    }

    /// Waits until the app is asleep: zero replicas, no pod, both members in its Service's endpoints, or none if it is not
    /// substituted, and nobody else where kube-proxy leads.
    pub(crate) async fn until_asleep(&self, app: &str, service: &str) -> Result<()> {
        eventually(&format!("{app} is asleep"), SOON, async || {
            let (replicas, phase) = (self.replicas(app).await?, self.phase(app).await?);
            ensure!(replicas == 0 && phase == "asleep", "{replicas} replicas, phase {phase}");
            let pods = self.pods(app).await?.len();
            ensure!(pods == 0, "{pods} pods are left");
            let substituted =
                self.annotation(app, "kubenap/substitute").await?.is_none_or(|set| set != "false");
            let ours = self.our_addresses(service).await?;
            let wanted = if substituted { 2 } else { 0 };
            ensure!(ours.len() == wanted, "KubeNap's addresses in {service}: {ours:?}");
            // A request that was led to a pod that is gone would be lost, as in any rollout of such an app.
            let led = self.led_to(service).await?;
            ensure!(led == ours, "kube-proxy leads to {led:?}, KubeNap is {ours:?}");
            Ok(())
        })
        .await
    }

    /// Waits until the app is awake with so many ready replicas no nap in memory, and nothing of `KubeNap`'s in its Service.
    pub(crate) async fn until_awake(&self, app: &str, service: &str, replicas: i32) -> Result<()> {
        eventually(&format!("{app} is awake with {replicas}"), SOON, async || {
            let (asked, ready) = (self.replicas(app).await?, self.ready_replicas(app).await?);
            ensure!(
                asked == replicas && ready == replicas,
                "{asked} replicas are asked for, {ready} are ready"
            );
            self.ensure_untouched(app, service).await
        })
        .await
    }

    /// Fails unless the phase is awake, no count is remembered, no wish is open, and no slice of ours is left.
    pub(crate) async fn ensure_untouched(&self, app: &str, service: &str) -> Result<()> {
        let phase = self.phase(app).await?;
        ensure!(phase == "awake", "phase {phase}");
        for key in STATE {
            let value = self.annotation(app, key).await?;
            ensure!(value.is_none(), "{key} is still {value:?}");
        }
        let ours = self.our_addresses(service).await?;
        ensure!(ours.is_empty(), "KubeNap's addresses are still in {service}: {ours:?}");
        Ok(())
    }
}

/// The addresses behind a Service in kube-proxy's rules, which have its name as a comment.
fn led_to(rules: &str, service: &str) -> BTreeSet<String> {
    let mark = format!("\"{service}:");
    let own = rules.lines().filter(|rule| rule.contains(&mark));
    let target = |rule: &str| {
        let (_, target) = rule.split_once("--to-destination ")?;
        Some(target.rsplit_once(':')?.0.to_owned())
    };
    own.filter_map(target).collect()
}

fn is_ours(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    let writer = labels.and_then(|labels| labels.get("endpointslice.kubernetes.io/managed-by"));
    writer.is_some_and(|writer| writer.starts_with("kubenap"))
}

#[cfg(test)]
mod tests {
    use super::led_to;

    #[test]
    fn where_kube_proxy_leads_is_read_out_of_its_rules() {
        let rule = |service: &str, rest: &str| {
            format!("-A KUBE-SEP-2W46 -p tcp -m comment --comment \"{service}\" -m tcp {rest}\n")
        };
        let rules = rule("shop/web:http", "-j DNAT --to-destination 10.88.0.3:16011")
            + &rule("shop/web:alt", "-j DNAT --to-destination 10.88.0.4:16012")
            + &rule("shop/web-2:http", "-j DNAT --to-destination 10.88.0.9:8080")
            + &rule("shop/web:http cluster IP", "-d 10.96.0.7/32 --dport 80 -j KUBE-SVC-7");
        assert_eq!(led_to(&rules, "shop/web").into_iter().collect::<Vec<_>>(), ["10.88.0.3", "10.88.0.4"]);
        assert!(led_to(&rules, "shop/we").is_empty());
    }
}
