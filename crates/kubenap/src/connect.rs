//! A client for the cluster that was asked for, with KubeNap's own deadlines.

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use kubenap_controller::cluster::{Cluster, client_config};
use kubenap_core::app::AppId;

use crate::args::ClusterArgs;

/// The configuration that leads to the cluster.
pub(crate) async fn config(args: &ClusterArgs) -> anyhow::Result<Config> {
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let config = match &args.kubeconfig {
        Some(path) => {
            let shown = path.display();
            let file =
                Kubeconfig::read_from(path).with_context(|| format!("cannot use the kubeconfig {shown}"))?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .with_context(|| format!("cannot use the kubeconfig {shown}"))?
        }
        None if args.context.is_some() => {
            Config::from_kubeconfig(&options).await.context("cannot use the kubeconfig")?
        }
        // In a pod the Service account goes before a kubeconfig that happens to be there.
        None => match Config::incluster() {
            Ok(config) => config,
            Err(_) => Config::from_kubeconfig(&options)
                .await
                .context("no cluster is configured\nhint: give --kubeconfig, or set KUBECONFIG")?,
        },
    };
    Ok(client_config(config))
}

/// Calls with deadlines.
pub(crate) async fn cluster(args: &ClusterArgs) -> anyhow::Result<Cluster> {
    let client = Client::try_from(config(args).await?).context("cannot set up a client for the cluster")?;
    Ok(Cluster::new(client))
}

/// Where KubeNap's Leases are.
pub(crate) fn lease_namespace(args: &ClusterArgs) -> String {
    args.lease_namespace
        .clone()
        .or_else(|| std::env::var("POD_NAMESPACE").ok().filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "kubenap-system".to_owned())
}

/// `NAMESPACE/NAME`, or `NAME` in the first `-n`, or in `default`.
pub(crate) fn app(args: &ClusterArgs, text: &str) -> anyhow::Result<AppId> {
    if text.contains('/') {
        return text
            .parse()
            .map_err(|error: String| anyhow::Error::new(crate::outcome::Outcome::Usage).context(error));
    }
    let namespace = args.namespace.first().map_or("default", String::as_str);
    Ok(AppId::new(namespace, text))
}
