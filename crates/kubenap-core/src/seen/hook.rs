//! Whether the proxy in front of an app turns to KubeNap while the app has no pods.

/// What is known of the hook on the proxy's own error path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookSeen {
    /// Nobody has looked yet. No nap, but what sleeps sleeps on.
    Unknown,
    /// Nothing shows one: no nap, and what sleeps is woken, for no request could do it.
    Missing(HookGap),
    /// KubeNap itself can put it in place, or what is missing of it.
    Attachable,
    /// The administrator vouches for it.
    Declared,
    /// The proxy's objects show it.
    Seen,
}

/// What is missing for a hook to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookGap {
    /// No proxy is named whose objects could show it, and nobody vouches for it.
    NoProxy,
    /// The objects of the proxy that is named do not show it.
    NotShown,
    /// KubeNap is to put it in place itself, and cannot.
    Unmanaged,
    /// No route says which hosts and paths are its own, so that a request on an error path could not be told to be its.
    NoRoute,
}

impl HookSeen {
    /// The proxy turns to KubeNap as soon as there are no pods.
    pub fn in_place(self) -> bool {
        match self {
            Self::Declared | Self::Seen => true,
            Self::Unknown | Self::Attachable | Self::Missing(_) => false,
        }
    }

    /// What is missing, as far as somebody has looked.
    pub fn gap(self) -> Option<HookGap> {
        match self {
            Self::Missing(gap) => Some(gap),
            Self::Unknown | Self::Attachable | Self::Declared | Self::Seen => None,
        }
    }
}

impl Default for HookSeen {
    fn default() -> Self {
        Self::Missing(HookGap::NoProxy)
    }
}

impl HookGap {
    /// Every gap, for the reference page.
    pub const ALL: [Self; 4] = [Self::NoProxy, Self::NotShown, Self::Unmanaged, Self::NoRoute];

    /// What is missing, as part of a sentence, and how to mend it.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NoProxy => {
                "kubenap/proxy names no proxy whose objects could show it; name one, or say kubenap/hook: \"declared\" once \
                 the proxy's configuration has it"
            }
            Self::NoRoute => {
                "no Ingress or route leads to its Services, so no request on an error path could be told to be for it"
            }
            Self::Unmanaged => "KubeNap cannot put it in place itself",
            Self::NotShown => {
                "the proxy's objects do not show it; apply what kubenap render prints, or say kubenap/hook: \"declared\""
            }
        }
    }
}
