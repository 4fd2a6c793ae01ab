//! `kubenap render APP`: what a proxy must be told for an app, from the cluster or from files alone.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kubenap_controller::cluster::{Cluster, ClusterError, pieces};
use kubenap_core::app::AppId;
use kubenap_core::proxy::{App, Hook, Piece, Proxy, Rendered, WakeAddress, read};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::{ClusterArgs, Format, RenderArgs};
use crate::outcome::Outcome;
use crate::{connect, output};

pub(crate) async fn run(args: RenderArgs, at: &ClusterArgs) -> anyhow::Result<Outcome> {
    let id = connect::app(at, &args.app)?;
    let mut wake = args.wake_service;
    let objects = if args.file.is_empty() {
        let cluster = connect::cluster(at).await?;
        wake.ip = cluster_ip(&cluster, &wake).await?;
        pieces::around(&cluster, &id).await?
    } else {
        let objects = from_files(&args.file)?;
        wake.ip = ip_among(&objects, &wake);
        objects
    };
    wake.ip = args.wake_ip.or(wake.ip);
    let found = read::read(&id, &objects)?;
    for complaint in &found.complaints {
        output::note(&format!("warning: {complaint}"));
    }
    let proxy = args.proxy.unwrap_or(found.proxy);
    let app = App { form: args.form, version: args.proxy_version, ..found.app };
    let rendered = proxy.plugin().render(&app, &wake)?;
    match args.output {
        Some(format @ (Format::Json | Format::Yaml)) => output::data(&Shown::of(proxy, &rendered), format)?,
        Some(Format::Wide) | None => {
            say(&id, proxy, &rendered);
            output::line(text(&rendered)?.trim_end());
        }
    }
    Ok(Outcome::Done)
}

/// All that was rendered, for programs.
#[derive(Serialize)]
struct Shown<'a> {
    proxy: &'static str,
    form: &'static str,
    awake: &'static str,
    by_hand: Option<&'static str>,
    notes: &'a [String],
    pieces: Vec<Value>,
}

impl<'a> Shown<'a> {
    fn of(proxy: Proxy, rendered: &'a Rendered) -> Self {
        let piece = |piece: &Piece| match piece {
            Piece::Object(object) => json!({ "object": object }),
            Piece::Fields(fields) => json!({ "fields": fields }),
            Piece::Text { place, text } => json!({ "place": place, "text": text }),
        };
        Self {
            proxy: proxy.plugin().name(),
            form: rendered.form,
            awake: awake(rendered.hook),
            by_hand: rendered.by_hand,
            notes: &rendered.notes,
            pieces: rendered.pieces.iter().map(piece).collect(),
        }
    }
}

fn awake(hook: Hook) -> &'static str {
    match hook {
        Hook::None => "no hook",
        Hook::Silent => "untouched",
        Hook::Touches(cost) => cost,
    }
}

/// What to know, beside the text itself.
fn say(id: &AppId, proxy: Proxy, rendered: &Rendered) {
    output::note(&format!("{id} behind {proxy}, form {}", rendered.form));
    let objects = |piece: &Piece| matches!(piece, Piece::Object(_) | Piece::Fields(_));
    if rendered.pieces.iter().any(objects) {
        output::note("apply it with `kubectl apply --server-side --field-manager=kubenap-proxy -f -`");
    }
    match rendered.hook {
        Hook::None => {}
        Hook::Silent => output::note("awake: untouched"),
        Hook::Touches(cost) => output::note(&format!("awake: {cost}")),
    }
    for note in &rendered.notes {
        output::note(&format!("note: {note}"));
    }
}

/// Objects as YAML documents; texts as they are.
fn text(rendered: &Rendered) -> anyhow::Result<String> {
    let mut parts = Vec::new();
    for piece in &rendered.pieces {
        parts.push(match piece {
            Piece::Object(value) | Piece::Fields(value) => {
                serde_saphyr::to_string(value).context("cannot write YAML")?
            }
            Piece::Text { place, text } => format!("# Goes into {place}.\n{text}"),
        });
    }
    Ok(parts.join("---\n"))
}

/// So much is read from standard input, which may have no end.
const MOST_READ: u64 = 64 << 20;

fn from_files(files: &[impl AsRef<Path>]) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in files {
        let shown = file.as_ref().display();
        let text = if file.as_ref() == Path::new("-") {
            std::io::read_to_string(std::io::stdin().lock().take(MOST_READ))
        } else {
            std::fs::read_to_string(file)
        };
        let text = text.with_context(|| format!("cannot read {shown}"))?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
            .with_context(|| format!("{shown} is not understood; accepted: manifests as YAML or JSON"))?;
        for document in documents {
            match document["items"].as_array() {
                Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                    objects.extend(items.iter().cloned());
                }
                _ => objects.push(document),
            }
        }
    }
    if objects.iter().all(|object| object["kind"].is_null()) {
        bail!("no file has a manifest\nhint: name the files of the Deployment, its Services and its routes");
    }
    Ok(objects)
}

/// The cluster address of KubeNap's Service, where it is among what was read.
fn ip_among(objects: &[Value], wake: &WakeAddress) -> Option<IpAddr> {
    let mut services = objects.iter().filter(|object| object["kind"] == "Service");
    let service = services.find(|service| {
        let metadata = &service["metadata"];
        metadata["namespace"] == *wake.namespace && metadata["name"] == *wake.service
    })?;
    service["spec"]["clusterIP"].as_str()?.parse().ok()
}

async fn cluster_ip(cluster: &Cluster, wake: &WakeAddress) -> anyhow::Result<Option<IpAddr>> {
    let api: Api<Service> = Api::namespaced(cluster.client(), &wake.namespace);
    let service = match cluster.call(api.get_opt(&wake.service)).await {
        Ok(service) => service,
        Err(ClusterError::Forbidden(_)) => return Ok(None),
        Err(error) => bail!("cannot read KubeNap's Service: {}", error.chain()),
    };
    Ok(service.and_then(|service| service.spec?.cluster_ip?.parse().ok()))
}
