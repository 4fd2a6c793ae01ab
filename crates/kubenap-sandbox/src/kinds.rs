//! The kinds of object that the sandbox serves, and what each of them allows.

/// One kind of object as one API group shows it.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Empty for the core group.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    /// As objects name it.
    pub(crate) name: &'static str,
    /// The name in paths, and of the place where its objects are stored.
    pub(crate) plural: &'static str,
    pub(crate) short: &'static str,
    pub(crate) namespaced: bool,
    pub(crate) status: bool,
    pub(crate) scale: bool,
    pub(crate) put: Put,
}

/// What a PUT may do beyond replacing an object whose version it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// Replaces without a version, too.
    Unconditional,
    /// Needs a version, and creates what does not exist.
    VersionedOrCreate,
    /// Replaces without a version, and creates what does not exist.
    UnconditionalOrCreate,
}

const fn kind(group: &'static str, version: &'static str, name: &'static str, plural: &'static str) -> Kind {
    Kind {
        group,
        version,
        name,
        plural,
        short: "",
        namespaced: true,
        status: false,
        scale: false,
        put: Put::Unconditional,
    }
}

/// Every kind that is served. Events are one store that two groups show.
pub(crate) static KINDS: [Kind; 23] = [
    Kind { namespaced: false, status: true, short: "ns", ..kind("", "v1", "Namespace", "namespaces") },
    Kind { namespaced: false, status: true, short: "no", ..kind("", "v1", "Node", "nodes") },
    Kind { short: "cm", ..kind("", "v1", "ConfigMap", "configmaps") },
    Kind { status: true, short: "svc", ..kind("", "v1", "Service", "services") },
    Kind { status: true, short: "po", ..kind("", "v1", "Pod", "pods") },
    Kind { put: Put::UnconditionalOrCreate, short: "ev", ..kind("", "v1", "Event", "events") },
    Kind { put: Put::UnconditionalOrCreate, short: "ev", ..kind("events.k8s.io", "v1", "Event", "events") },
    Kind { status: true, scale: true, short: "deploy", ..kind("apps", "v1", "Deployment", "deployments") },
    Kind { status: true, short: "rs", ..kind("apps", "v1", "ReplicaSet", "replicasets") },
    kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    Kind { status: true, short: "ing", ..kind("networking.k8s.io", "v1", "Ingress", "ingresses") },
    Kind { namespaced: false, ..kind("networking.k8s.io", "v1", "IngressClass", "ingressclasses") },
    Kind { put: Put::VersionedOrCreate, ..kind("coordination.k8s.io", "v1", "Lease", "leases") },
    Kind {
        status: true,
        short: "hpa",
        ..kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
    },
    // Custom resources, which have no type here: kept as they are sent.
    kind("traefik.io", "v1alpha1", "IngressRoute", "ingressroutes"),
    kind("traefik.io", "v1alpha1", "Middleware", "middlewares"),
    kind("traefik.io", "v1alpha1", "TraefikService", "traefikservices"),
    kind("traefik.io", "v1alpha1", "IngressRouteTCP", "ingressroutetcps"),
    kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
    kind("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes"),
    kind("gateway.networking.k8s.io", "v1", "TLSRoute", "tlsroutes"),
    kind("gateway.networking.k8s.io", "v1alpha2", "TCPRoute", "tcproutes"),
    kind("networking.istio.io", "v1", "VirtualService", "virtualservices"),
];

impl Kind {
    /// `apps/v1`, or `v1` in the core group.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `deployments.apps`, as messages name it.
    pub(crate) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// A change of an object's content counts up its `metadata.generation`.
    pub(crate) fn has_generation(&self) -> bool {
        matches!(
            self.plural,
            "deployments"
                | "replicasets"
                | "ingresses"
                | "ingressclasses"
                | "endpointslices"
                | "pods"
                | "ingressroutes"
                | "middlewares"
                | "traefikservices"
                | "ingressroutetcps"
                | "httproutes"
                | "grpcroutes"
                | "tlsroutes"
                | "tcproutes"
                | "virtualservices"
        )
    }
}

/// The kind at a place in the API.
pub(crate) fn served(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The kind of an object that says what it is.
pub(crate) fn named(api_version: &str, name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name && kind.api_version() == api_version)
}

/// The kind whose plural or name this is.
pub(crate) fn called(word: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.plural == word || kind.name == word)
}
