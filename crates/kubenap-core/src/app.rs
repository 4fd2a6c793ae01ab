//! Who an app is: its name, and the keys that KubeNap reads and writes on its objects.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

/// A Deployment's namespace and name. Shown and parsed as `shop/web`.
///
/// A clone is the same piece of memory: a member keeps the id of each of thousands of apps in a dozen places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(Arc<AppName>);

/// The two parts of an [`AppId`].
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppName {
    /// The namespace.
    pub namespace: String,
    /// The Deployment's name.
    pub name: String,
}

impl AppId {
    /// An id from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self(Arc::new(AppName { namespace: namespace.into(), name: name.into() }))
    }

    /// A short text of its own for names that are cut or joined: the same on every machine and in every version.
    pub fn digest(&self) -> String {
        digest(&self.to_string())
    }
}

/// A short text that stands for a longer one in a name: the same on every machine and in every version.
pub(crate) fn digest(text: &str) -> String {
    // FNV-1a, folded.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}

impl Deref for AppId {
    type Target = AppName;

    fn deref(&self) -> &AppName {
        &self.0
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for AppId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(format!("`{text}` is not an app; accepted: NAMESPACE/NAME")),
        }
    }
}

/// The prefix of every key that KubeNap reads or writes.
pub const PREFIX: &str = "kubenap/";

/// Keys of labels and annotations, and the values that never change.
pub mod key {
    /// The label that opts a Deployment in, with the value `true`.
    pub const ENABLED: &str = "kubenap/enabled";
    /// Written by KubeNap: which phase the app is in.
    pub const PHASE: &str = "kubenap/phase";
    /// Written by KubeNap: the number of the nap, growing by one each.
    pub const EPOCH: &str = "kubenap/epoch";
    /// Written by KubeNap: how many replicas the app had when it fell asleep.
    pub const RESTORE: &str = "kubenap/restoreReplicas";
    /// Written by KubeNap: since when the phase holds (RFC 3339).
    pub const SINCE: &str = "kubenap/since";
    /// Written by KubeNap: why the phase was entered.
    pub const REASON: &str = "kubenap/reason";
    /// Written by KubeNap: the port on its members for each Service port.
    pub const WAKE_PORTS: &str = "kubenap/wakePorts";
    /// Written by KubeNap: when, and by which field manager, it was scaled up while it slept.
    pub const REVERTS: &str = "kubenap/reverts";
    /// Written by KubeNap: the pieces of its proxy's hook that KubeNap put in place itself.
    pub const HOOK_PIECES: &str = "kubenap/hookPieces";
    /// A person's request: `nap`, `forceNap` or `wake`.
    pub const WISH: &str = "kubenap/wish";
    /// Everything that KubeNap writes about the state of an app.
    pub const STATE: [&str; 8] = [PHASE, EPOCH, RESTORE, SINCE, REASON, WAKE_PORTS, REVERTS, HOOK_PIECES];

    /// On KubeNap's slices: epoch and remembered count of each app behind the Service.
    pub const SLICE_APPS: &str = "kubenap/apps";
    /// On KubeNap's slices: which member's addresses they hold.
    pub const SLICE_MEMBER: &str = "kubenap/member";
    /// The label, with the value `true`, of whole objects that KubeNap made as pieces of a hook.
    pub const HOOK_MARK: &str = "kubenap/managed";
    /// On the same objects, as an annotation: the app that they were made for.
    pub const HOOK_APP: &str = "kubenap/app";
    /// The standard label that names a slice's Service.
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
    /// The standard label that names who writes a slice.
    pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
    /// Our value of [`MANAGED_BY`].
    pub const MANAGER: &str = "kubenap.dev";
    /// The value of [`MANAGED_BY`] on slices that lead a proxy's error path to KubeNap: no member writes them.
    pub const PROXY_MANAGER: &str = "proxies.kubenap.dev";
}
