//! The pieces of a hook that KubeNap itself put in place, written down so that any member can take them back.

use std::fmt;

use serde_json::Value;

/// One object that a proxy is told by: whole, or some fields of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceId {
    /// Group and version of its kind, such as `traefik.io/v1alpha1`.
    pub api_version: String,
    /// Its kind, such as `Middleware`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The pieces of a hook, in the order in which they are put in place; they are taken back in the opposite order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pieces(pub Vec<PieceId>);

/// Every kind of which `KubeNap` puts pieces in place, with its group and version: what the chart grants rights for.
pub const KINDS: [(&str, &str); 6] = [
    ("Service", "v1"),
    ("EndpointSlice", "discovery.k8s.io/v1"),
    ("Ingress", "networking.k8s.io/v1"),
    ("Middleware", "traefik.io/v1alpha1"),
    ("TraefikService", "traefik.io/v1alpha1"),
    ("IngressRoute", "traefik.io/v1alpha1"),
];
/// What the name of every object begins with that is made for an app.
pub const MADE: &str = "kubenap-";
/// More pieces than this no hook has.
const MOST: usize = 64;

impl PieceId {
    /// The id of an object that says what it is.
    pub fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
        }
    }

    /// An object that KubeNap makes, as its name says, and not some fields of somebody else's.
    pub fn is_whole(&self) -> bool {
        self.kind != "Ingress" && self.name.starts_with(MADE)
    }

    /// Reads `v1/Service/shop/web` or `traefik.io/v1alpha1/Middleware/shop/web`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.rsplitn(4, '/').filter(|part| !part.is_empty()).map(str::to_owned);
        let (name, namespace, kind, api_version) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let known = KINDS.contains(&(kind.as_str(), api_version.as_str()));
        known.then_some(Self { api_version, kind, namespace, name })
    }
}

impl fmt::Display for PieceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.api_version, self.kind, self.namespace, self.name)
    }
}

impl Pieces {
    /// Reads the annotation's value. What is not understood, is of no kind that is ever put in place, or is too much, is
    /// left out: anybody who may edit the Deployment may have written it.
    pub fn parse(text: &str) -> Self {
        Self(text.split(',').filter_map(|item| PieceId::parse(item.trim())).take(MOST).collect())
    }

    /// The annotation's value.
    pub fn text(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// These, and those of `others` that are not among them.
    #[must_use]
    pub fn and<'a>(&self, others: impl IntoIterator<Item = &'a PieceId>) -> Self {
        let mut all = self.clone();
        for piece in others {
            if !all.0.contains(piece) {
                all.0.push(piece.clone());
            }
        }
        all
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_as_they_were_written_and_what_is_not_understood_is_left_out() {
        let text = "v1/Service/shop/web,traefik.io/v1alpha1/Middleware/kubenap-system/kubenap-shop-web";
        let pieces = Pieces::parse(text);
        assert_eq!(pieces.0.len(), 2);
        assert_eq!(pieces.0[1].api_version, "traefik.io/v1alpha1");
        assert_eq!(pieces.0[1].kind, "Middleware");
        assert_eq!((pieces.0[0].namespace.as_str(), pieces.0[0].name.as_str()), ("shop", "web"));
        assert_eq!(pieces.text(), text);
        assert_eq!(Pieces::parse("Service/shop/web, ,v1//shop/web,v1/Service/shop/"), Pieces::default());
        assert_eq!(Pieces::parse("v1/Secret/shop/web,v2/Service/shop/web"), Pieces::default());
        assert_eq!(Pieces::parse(&format!("{text},").repeat(1000)).0.len(), MOST);
        let more = pieces.and(&Pieces::parse("v1/Service/shop/web,v1/Service/shop/api").0);
        assert_eq!(more.text(), format!("{text},v1/Service/shop/api"));
    }
}
