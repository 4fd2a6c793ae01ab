//! What a request is about: its place in the API, read from the path.
use crate::kinds::{self, Kind};

/// What a path names.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Object(Place),
    /// An access review of the caller's own rights.
    SelfReview,
    /// `/version`, `/apis` and the like: answered by discovery, if it knows the path.
    Other,
}

/// A kind, perhaps narrowed to a namespace, an object, a subresource.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
}

impl Place {
    /// `deployments/scale`, as RBAC rules name it.
    pub(crate) fn resource(&self) -> String {
        if self.subresource.is_empty() {
            self.kind.plural.to_owned()
        } else {
            format!("{}/{}", self.kind.plural, self.subresource)
        }
    }
}

/// Reads a path; percent signs are not decoded, since no name may hold what needs them.
pub(crate) fn target(path: &str) -> Target {
    let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
    let (group, version, rest) = match steps.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Target::Other,
    };
    if (group, version, rest) == ("authorization.k8s.io", "v1", &["selfsubjectaccessreviews"][..]) {
        return Target::SelfReview;
    }
    let (namespace, rest) = match rest {
        ["namespaces", namespace, plural, rest @ ..]
            if kinds::served(group, version, plural).is_some_and(|kind| kind.namespaced) =>
        {
            (*namespace, [&[*plural], rest].concat())
        }
        rest => ("", rest.to_vec()),
    };
    let (plural, name, subresource) = match rest.as_slice() {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, subresource] => (*plural, *name, *subresource),
        _ => return Target::Other,
    };
    let Some(kind) = kinds::served(group, version, plural) else {
        return Target::Other;
    };
    if kind.namespaced && namespace.is_empty() && !name.is_empty() {
        return Target::Other;
    }
    Target::Object(Place {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
    })
}
