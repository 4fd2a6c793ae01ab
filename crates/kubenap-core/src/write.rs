//! Writes as data: which object, what changes, and what must still hold for it to happen.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::app::AppId;
use crate::seen::{PieceId, Slice};

/// One write on the cluster. Carried out in one place; refused by the API server when its precondition fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Patches the app's Deployment: replicas and annotations together, so that the two can never part.
    Deployment(DeploymentPatch),
    /// Creates or replaces a member's own slice. Always a write, so that its version rises and a delete that rests
    /// on an older reading fails.
    PutSlice {
        /// The namespace.
        namespace: String,
        /// All that it must hold; its uid and version are ignored.
        slice: Slice,
        /// The uid of the Service that owns it.
        owner: String,
    },
    /// Marks a member's own endpoints as terminating.
    MarkLeaving {
        /// The namespace.
        namespace: String,
        /// The slice as it was read.
        slice: Slice,
        /// Only if it is still this version.
        resource_version: Option<String>,
    },
    /// Deletes a slice.
    DeleteSlice {
        /// The namespace.
        namespace: String,
        /// The slice's name.
        name: String,
        /// Only if it is still this object.
        uid: Option<String>,
        /// Only if it is still this version.
        resource_version: Option<String>,
    },
    /// Puts a piece of a proxy's hook in place: a server-side apply, which somebody else's field of another value makes fail.
    Attach {
        /// The app.
        app: AppId,
        /// The object, or its fields, with KubeNap's mark where it is whole.
        object: Value,
    },
    /// Takes a piece back: deleted where it is KubeNap's alone and was made for this app, else KubeNap's own fields of it.
    Detach {
        /// The app.
        app: AppId,
        /// Only if no later nap has begun, whose piece it may be.
        epoch: u64,
        /// The piece.
        piece: PieceId,
    },
}

/// A change of a Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentPatch {
    /// The Deployment.
    pub app: AppId,
    /// Only if it is still this version.
    pub resource_version: Option<String>,
    /// The new `spec.replicas`; none: unchanged.
    pub replicas: Option<u32>,
    /// Annotations to set.
    pub set: BTreeMap<&'static str, String>,
    /// Annotations to take away.
    pub clear: BTreeSet<&'static str>,
}
