//! Whether the proxy in front of an app that is not substituted is known to turn to KubeNap while the app has no pods.

use std::time::Duration;

use kubenap_core::app::AppId;
use kubenap_core::policy::Policy;
use kubenap_core::proxy::{Hook, Piece, Proxy, Rendered, WakeAddress, read};
use kubenap_core::seen::{HookGap, HookSeen, ServiceSeen};
use kubenap_core::situation::Situation;
use serde_json::Value;
use tokio::time::Instant;

use super::Context;
use super::entrances::key_of;
use super::gather::Gathered;
use crate::cluster::pieces;

/// What proxies' objects showed counts for so long while an app is awake or asleep.
const LOOK_AGAIN: Duration = Duration::from_mins(2);
/// The same while it is drowsy, for the last look is a fresh one, and where they could not be read.
const LOOK_AGAIN_SOON: Duration = Duration::from_secs(2);

/// What is known of the hook now.
pub fn of(cx: &Context, app: &AppId, policy: &Policy, services: &[ServiceSeen]) -> HookSeen {
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
    let seen = cx.memories.with(app, |memory| memory.hook).filter(|_| cx.lead.holds());
    seen.map_or(HookSeen::Unknown, |(hook, _)| hook)
}

/// Looks at the proxy's objects, where it is time to. Whether something is known now that was not.
///
/// The leader does: who else cannot tell keeps no app from its sleep, and puts none to sleep.
pub async fn look(cx: &Context, gathered: &Gathered) -> bool {
    let policy = &gathered.reading.policy;
    if policy.substitute || policy.hook_declared || policy.proxy == Proxy::default() || !cx.lead.holds() {
        return false;
    }
    let drowsy = matches!(gathered.situation(), Situation::Drowsy { .. });
    let known = cx.memories.with(&gathered.app, |memory| memory.hook);
    let unread = known.is_some_and(|(hook, _)| hook == HookSeen::Unknown);
    let fresh = if drowsy || unread { LOOK_AGAIN_SOON } else { LOOK_AGAIN };
    if known.is_some_and(|(_, at)| at.elapsed() < fresh) {
        return false;
    }
    let hook = match shown(cx, &gathered.app).await {
        Ok(true) => HookSeen::Seen,
        Ok(false) => HookSeen::Missing(HookGap::NotShown),
        Err(why) => {
            // What could not be read says nothing: no nap, and no wake either.
            tracing::warn!(app = %gathered.app, why, "cannot tell whether its proxy's hook is in place");
            HookSeen::Unknown
        }
    };
    cx.memories.with(&gathered.app, |memory| memory.hook = Some((hook, Instant::now())));
    known.map(|(known, _)| known) != Some(hook)
}

/// Whether the cluster has everything that is rendered for the app's proxy.
async fn shown(cx: &Context, app: &AppId) -> Result<bool, String> {
    let objects = pieces::around(&cx.cluster, app).await.map_err(|error| error.chain())?;
    let Some(rendered) = render(app, &objects, &cx.wake_address.resolved(&cx.stores)) else {
        return Ok(false);
    };
    for piece in &rendered.pieces {
        let wanted = match piece {
            Piece::Object(object) | Piece::Fields(object) => object,
            // What stands in a file nobody here can see.
            Piece::Text { .. } => return Ok(false),
        };
        let there = pieces::find(&cx.cluster, wanted).await.map_err(|error| error.chain())?;
        if !there.is_some_and(|there| covers(&there, wanted)) {
            return Ok(false);
        }
    }
    Ok(rendered.hook != Hook::None && !rendered.pieces.is_empty())
}

fn render(app: &AppId, objects: &[Value], wake: &WakeAddress) -> Option<Rendered> {
    let found = read::read(app, objects).ok()?;
    found.proxy.plugin().render(&found.app, wake).ok()
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
