//! Whether the proxy in front of an app that is not substituted is known to turn to KubeNap while the app has no pods.

use std::time::Duration;

use kubenap_core::app::AppId;
use kubenap_core::decide::decide;
use kubenap_core::policy::Policy;
use kubenap_core::proxy::{Hook, Piece, Proxy, Rendered, Unfit, WakeAddress, read};
use kubenap_core::seen::{HookGap, HookSeen, Phase, PieceId, Pieces, Seen, ServiceSeen};
use kubenap_core::situation::Situation;
use kubenap_core::step::Step;
use serde_json::Value;
use tokio::time::Instant;

use super::Context;
use super::entrances::key_of;
use super::gather::Gathered;
use crate::cluster::pieces;
use crate::nap::hooks;

/// What proxies' objects showed counts for so long while an app is awake or asleep.
const LOOK_AGAIN: Duration = Duration::from_mins(2);
/// The same while it is awake and would not nap anyway.
const LOOK_AGAIN_LATER: Duration = Duration::from_mins(10);
/// The same while it is drowsy, for the last look is a fresh one, and where they could not be read.
const LOOK_AGAIN_SOON: Duration = Duration::from_secs(2);

/// What a look at a proxy's objects told, and when.
#[derive(Clone, Debug)]
pub struct Look {
    shown: Shown,
    at: Instant,
    phase: Phase,
    /// The API server was asked whether it would take what is missing.
    tried: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    hook: HookSeen,
    /// Why KubeNap cannot put it in place itself.
    refusal: String,
    /// What it has yet to apply.
    unapplied: Vec<Value>,
    /// What is there by its own hand.
    applied: Pieces,
}

impl From<HookSeen> for Shown {
    fn from(hook: HookSeen) -> Self {
        Self { hook, refusal: String::new(), unapplied: Vec::new(), applied: Pieces::default() }
    }
}

/// Takes over what is known of the hook now.
pub fn tell(cx: &Context, app: &AppId, policy: &Policy, seen: &mut Seen) {
    seen.hook = of(cx, app, policy, &seen.services);
    if cx.lead.holds() && !policy.hook_declared {
        cx.memories.with(app, |memory| {
            let Some(Look { shown, .. }) = memory.hook.as_deref() else { return };
            seen.hook_refusal.clone_from(&shown.refusal);
            seen.unapplied.clone_from(&shown.unapplied);
            seen.applied.clone_from(&shown.applied);
        });
    }
}

/// What is known of the hook now.
fn of(cx: &Context, app: &AppId, policy: &Policy, services: &[ServiceSeen]) -> HookSeen {
    let keys = services
        .iter()
        .flat_map(|service| service.ports.iter().map(|port| key_of(app, service, port.number)));
    if !cx.wake_address.was_asked() {
        return HookSeen::Unknown;
    }
    match cx.doors.is_on_a_route(&keys.collect()) {
        None => return HookSeen::Unknown,
        Some(false) => return HookSeen::Missing(HookGap::NoRoute),
        Some(true) => {}
    }
    if policy.hook_declared {
        return HookSeen::Declared;
    }
    if policy.proxy == Proxy::default() {
        return HookSeen::Missing(HookGap::NoProxy);
    }
    // What somebody saw who led before may be long over.
    let leads = cx.lead.holds();
    cx.memories.with(app, |memory| match &memory.hook {
        Some(look) if leads || (look.shown.hook.in_place() && look.at.elapsed() < LOOK_AGAIN) => {
            look.shown.hook
        }
        _ => HookSeen::Unknown,
    })
}

/// Looks at the proxy's objects, where it is time to. Whether something is known now that was not.
///
/// The leader does: who else cannot tell keeps no app from its sleep, and puts none to sleep. But a member that has slices
/// of an app that is not substituted any more takes none out without a look of its own.
pub async fn look(cx: &Context, gathered: &Gathered) -> bool {
    let (app, policy) = (&gathered.app, &gathered.reading.policy);
    if policy.substitute || policy.hook_declared || policy.proxy == Proxy::default() {
        return false;
    }
    let situation = gathered.situation();
    let asleep = matches!(situation, Situation::Asleep { .. });
    // Nothing stands before a wake, and nothing depends on it while the pods come.
    if matches!(situation, Situation::Waking { .. }) || (asleep && gathered.is_asked()) {
        return false;
    }
    let mut slices = gathered.seen.slices.iter();
    let stands_in = asleep && slices.any(|slice| slice.member == cx.settings.identity);
    if !cx.lead.holds() && !stands_in {
        return false;
    }
    let phase = situation.phase();
    let known = cx.memories.with(app, |memory| memory.hook.clone());
    let unread = known.as_ref().is_some_and(|look| look.shown.hook == HookSeen::Unknown);
    let matters = phase != Phase::Awake || is_content_otherwise(cx, gathered);
    let fresh = match phase {
        _ if unread || phase == Phase::Drowsy => LOOK_AGAIN_SOON,
        _ if matters => LOOK_AGAIN,
        _ => LOOK_AGAIN_LATER,
    };
    let is_fresh = |look: &Look| look.phase == phase && look.at.elapsed() < fresh && (look.tried || !matters);
    if known.as_deref().is_some_and(is_fresh) {
        return false;
    }
    let shown = shown(cx, app, &gathered.seen, matters).await.unwrap_or_else(|why| {
        // What could not be read says nothing: no nap, and no wake either.
        tracing::warn!(%app, why, "cannot tell whether its proxy's hook is in place");
        HookSeen::Unknown.into()
    });
    let changed = known.is_none_or(|look| look.shown != shown);
    let look = Look { shown, at: Instant::now(), phase, tried: matters };
    cx.memories.with(app, |memory| memory.hook = Some(Box::new(look)));
    changed
}

/// With its hook in place, an app that is awake would begin a nap now.
fn is_content_otherwise(cx: &Context, gathered: &Gathered) -> bool {
    let mut gathered = gathered.clone();
    gathered.seen.hook = HookSeen::Seen;
    gathered.seen.applied = Pieces::default();
    matches!(decide(&gathered.facts(cx)).step, Step::Arm { .. })
}

/// What the cluster has of everything that is rendered for the app's proxy, and what is to be done about the rest.
async fn shown(cx: &Context, app: &AppId, seen: &Seen, tries: bool) -> Result<Shown, String> {
    let missing = || Shown::from(HookSeen::Missing(HookGap::NotShown));
    let unmanaged = |refusal: String| {
        if cx.settings.manage_proxies {
            Shown { refusal, ..HookSeen::Missing(HookGap::Unmanaged).into() }
        } else {
            missing()
        }
    };
    let objects = pieces::around(&cx.cluster, app).await.map_err(|error| error.to_string())?;
    let rendered = match render(app, &objects, &cx.wake_address.resolved(&cx.stores)) {
        Ok(rendered) => rendered,
        Err(unfit) => return Ok(unmanaged(unfit.to_string().replace('\n', "; "))),
    };
    if rendered.hook == Hook::None || rendered.pieces.is_empty() {
        return Ok(unmanaged(format!(
            "the form {} has nothing to apply: leave it to substitution",
            rendered.form
        )));
    }
    // What an annotation says holds for all that its Ingress leads to: not only this app may need it, or be awake.
    let is_shared = |piece: &Piece| match piece {
        Piece::Fields(fields) if fields["kind"] == "Ingress" => {
            !seen.peers.is_empty() || leads_elsewhere(&objects, fields, &seen.services)
        }
        Piece::Fields(_) | Piece::Object(_) | Piece::Text { .. } => false,
    };
    let (mut unapplied, mut applied) = (Vec::new(), Pieces::default());
    for piece in &rendered.pieces {
        let wanted = match piece {
            Piece::Object(object) | Piece::Fields(object) => object,
            // What stands in a file nobody here can see.
            Piece::Text { .. } => return Ok(unmanaged(by_hand("it is text for a file"))),
        };
        let there = match pieces::seek(&cx.cluster, wanted).await {
            Ok(there) => there,
            Err(error) => match hooks::refusal(wanted, &error) {
                Some(said) => return Ok(unmanaged(said)),
                None => return Err(error.chain()),
            },
        };
        if there.as_ref().is_some_and(|there| hooks::is_held(there, app)) && !is_shared(piece) {
            applied.0.push(PieceId::of(wanted));
        }
        if !there.is_some_and(|there| covers(&there, wanted)) {
            if !cx.settings.manage_proxies {
                return Ok(missing());
            }
            unapplied.push(piece);
        }
    }
    if unapplied.is_empty() {
        return Ok(Shown { applied, ..HookSeen::Seen.into() });
    }
    if let Some(why) = rendered.by_hand {
        return Ok(Shown { applied, ..unmanaged(by_hand(why)) });
    }
    if rendered.pieces.iter().any(is_shared) {
        let why = "another app behind the same Service or Ingress would have the same annotation";
        return Ok(Shown { applied, ..unmanaged(by_hand(why)) });
    }
    match tried(cx, app, &unapplied, tries).await? {
        Ok(unapplied) => Ok(Shown { unapplied, applied, ..HookSeen::Attachable.into() }),
        Err(said) => Ok(Shown { applied, ..unmanaged(said) }),
    }
}

/// These pieces as they are applied, if the API server would do that: asked by a dry run, where it matters now. Else what it
/// says.
async fn tried(
    cx: &Context,
    app: &AppId,
    pieces: &[&Piece],
    tries: bool,
) -> Result<Result<Vec<Value>, String>, String> {
    let mut objects = Vec::new();
    for piece in pieces {
        let Some(object) = hooks::marked(app, piece) else {
            return Ok(Err(by_hand("it is of no kind that KubeNap writes")));
        };
        if !tries {
            objects.push(object);
            continue;
        }
        match hooks::apply(&cx.cluster, app, &object, true).await {
            Ok(would) if covers(&would, &object) => objects.push(object),
            Ok(_) => {
                let PieceId { kind, namespace, name, .. } = PieceId::of(&object);
                let said = format!(
                    "{kind} {namespace}/{name}: the API server keeps a part of it only, for its definition is too old"
                );
                return Ok(Err(said));
            }
            Err(error) => match hooks::refusal(&object, &error) {
                Some(said) => return Ok(Err(said)),
                None => return Err(error.chain()),
            },
        }
    }
    Ok(Ok(objects))
}

/// Whether the Ingress that these fields are of leads to another Service than the app's, too.
fn leads_elsewhere(objects: &[Value], fields: &Value, own: &[ServiceSeen]) -> bool {
    let is_it = |object: &&Value| {
        object["kind"] == "Ingress" && object["metadata"]["name"] == fields["metadata"]["name"]
    };
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    objects.iter().filter(is_it).any(|ingress| {
        let spec = &ingress["spec"];
        let paths = all(&spec["rules"]).into_iter().flat_map(|rule| all(&rule["http"]["paths"]));
        let backends = paths.map(|path| path["backend"].clone()).chain([spec["defaultBackend"].clone()]);
        backends
            .filter_map(|backend| Some(backend["service"]["name"].as_str()?.to_owned()))
            .any(|name| own.iter().all(|service| service.name != name))
    })
}

fn by_hand(why: &str) -> String {
    format!(
        "{why}; apply what kubenap render prints yourself, or say kubenap/hook: \"declared\" once it is in place"
    )
}

fn render(app: &AppId, objects: &[Value], wake: &WakeAddress) -> Result<Rendered, Unfit> {
    let found = read::read(app, objects)?;
    found.proxy.plugin().render(&found.app, wake)
}

/// Whether everything that is wanted is there, whatever else is.
fn covers(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| there.get(name).is_some_and(|there| covers(there, wanted)))
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len()
                && there.iter().zip(wanted).all(|(there, wanted)| covers(there, wanted))
        }
        _ => there == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wanted_must_be_there_whatever_else_is() {
        let there = json!({ "kind": "Ingress", "metadata": { "name": "web", "annotations": { "a": "1", "b": "2" } },
            "spec": { "ports": [{ "port": 80, "protocol": "TCP" }] } });
        for (wanted, holds) in [
            (json!({ "metadata": { "annotations": { "a": "1" } } }), true),
            (json!({ "metadata": { "annotations": { "a": "2" } } }), false),
            (json!({ "metadata": { "annotations": { "c": "1" } } }), false),
            (json!({ "spec": { "ports": [{ "port": 80 }] } }), true),
            (json!({ "spec": { "ports": [{ "port": 81 }] } }), false),
            (json!({ "spec": { "ports": [] } }), false),
            (json!({ "spec": "x" }), false),
            (json!({}), true),
        ] {
            assert_eq!(covers(&there, &wanted), holds, "{wanted}");
        }
    }
}
