//! Why an app cannot start: a closed set of classes, each with one label and one sentence.

/// Why an app cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// The image cannot be had.
    Image,
    /// It starts and falls, again and again.
    CrashLoop,
    /// No node takes it.
    Unschedulable,
    /// A ConfigMap, Secret or volume that its container needs is missing.
    Config,
    /// A quota leaves no room for its pods.
    Quota,
    /// An admission rule forbids its pods.
    Refused,
    /// The API server refuses the wake itself.
    Denied,
    /// Nothing says why, and the time for a wake is over.
    NotReady,
}

impl Trouble {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Image,
        Self::CrashLoop,
        Self::Unschedulable,
        Self::Config,
        Self::Quota,
        Self::Refused,
        Self::Denied,
        Self::NotReady,
    ];

    /// The reason class, as in the header of answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::CrashLoop => "crash-loop",
            Self::Unschedulable => "unschedulable",
            Self::Config => "config",
            Self::Quota => "quota",
            Self::Refused => "refused",
            Self::Denied => "denied",
            Self::NotReady => "not-ready",
        }
    }

    /// The reason as a sentence about the app.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Image => "its image cannot be pulled",
            Self::CrashLoop => "its container starts and falls again",
            Self::Unschedulable => "no node takes its pod",
            Self::Config => "a ConfigMap, Secret or volume that its container needs is missing",
            Self::Quota => "a quota leaves no room for its pods",
            Self::Refused => "an admission rule forbids its pods",
            Self::Denied => "the API server refuses to scale it up",
            Self::NotReady => "it did not get ready within its kubenap/wakeTimeout",
        }
    }

    /// Kubernetes tries again only when something touches the ReplicaSet, and that after ever longer pauses.
    pub fn needs_a_push(self) -> bool {
        match self {
            Self::Quota | Self::Refused => true,
            Self::Image
            | Self::CrashLoop
            | Self::Unschedulable
            | Self::Config
            | Self::Denied
            | Self::NotReady => false,
        }
    }

    /// The scheduler or a controller says so, by what it has heard of the cluster; a kubelet speaks of what it tries itself.
    pub fn is_of_controllers(self) -> bool {
        match self {
            Self::Unschedulable | Self::Quota | Self::Refused => true,
            Self::Image | Self::CrashLoop | Self::Config | Self::Denied | Self::NotReady => false,
        }
    }
}
