//! Objects as watches and long lists take them in: slimmed one by one while a page is decoded, and without what nobody reads.
//!
//! `managedFields` alone is a map for every field that anybody ever set: a page of a hundred objects, decoded in full,
//! is megabytes of small pieces, and the slim forms that stay lie scattered among the holes that they leave.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _};
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use super::slim::Slim;
use super::watched::Key;

/// An object of which only its slim form was kept, and what a watch must know of each.
#[derive(Clone)]
pub struct Thin<T> {
    /// Namespace, name and version; all else is empty.
    meta: ObjectMeta,
    slim: Arc<T>,
}

/// What is passed over in an object. In a list it holds for each element.
#[derive(Debug)]
pub struct Unread {
    /// These fields.
    pub fields: &'static [&'static str],
    /// And these below others.
    pub below: &'static [(&'static str, &'static Self)],
}

/// In an object of any kind.
pub static ANY: Unread = Unread { fields: &[], below: &[("metadata", &META)] };
/// In a Pod: of its spec only the node is looked at.
pub static POD: Unread = Unread { fields: &[], below: &[("metadata", &META), ("spec", &POD_SPEC)] };
/// In a Deployment: of its template only labels, ports and probes are looked at.
pub static DEPLOYMENT: Unread = Unread { fields: &[], below: &[("metadata", &META), ("spec", &SPEC)] };

static META: Unread = Unread { fields: &["managedFields", "ownerReferences"], below: &[] };
static POD_SPEC: Unread =
    Unread { fields: &["containers", "initContainers", "volumes", "affinity", "tolerations"], below: &[] };
static SPEC: Unread = Unread { fields: &[], below: &[("template", &TEMPLATE)] };
static TEMPLATE: Unread = Unread { fields: &[], below: &[("spec", &TEMPLATE_SPEC)] };
static TEMPLATE_SPEC: Unread = Unread {
    fields: &["volumes", "affinity", "tolerations", "topologySpreadConstraints"],
    below: &[("containers", &CONTAINER), ("initContainers", &CONTAINER)],
};
static CONTAINER: Unread =
    Unread { fields: &["args", "command", "env", "envFrom", "resources", "volumeMounts"], below: &[] };

impl<T: Slim> Thin<T> {
    /// Where it belongs, and what is kept.
    pub fn into_parts(self) -> (Key, Arc<T>) {
        ((self.meta.namespace.unwrap_or_default(), self.meta.name.unwrap_or_default()), self.slim)
    }
}

impl<'de, T: Slim> Deserialize<'de> for Thin<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = T::Object::deserialize(Passing { inner: deserializer, over: T::UNREAD })?;
        let meta = ObjectMeta {
            namespace: object.namespace(),
            name: object.meta().name.clone(),
            resource_version: object.resource_version(),
            ..ObjectMeta::default()
        };
        Ok(Self { meta, slim: Arc::new(T::of(object)) })
    }
}

impl<T: Slim> fmt::Debug for Thin<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thin").field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// The API server is asked for the object itself.
impl<T: Slim> Resource for Thin<T> {
    type DynamicType = <T::Object as Resource>::DynamicType;
    type Scope = <T::Object as Resource>::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        T::Object::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        T::Object::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        T::Object::version(of)
    }

    fn api_version(of: &Self::DynamicType) -> Cow<'_, str> {
        T::Object::api_version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        T::Object::plural(of)
    }

    fn metadata_api() -> bool {
        T::Object::metadata_api()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// Anything of serde's that reads, passing over some fields.
struct Passing<X> {
    inner: X,
    over: &'static Unread,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Passing<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Passing { inner: visitor, over: self.over })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Passing { inner: visitor, over: self.over })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Anything but these is nothing that a place with fields below it can be, and the default says so.
impl<'de, V: Visitor<'de>> Visitor<'de> for Passing<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, some: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Passing { inner: some, over: self.over })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Passing { inner: elements, over: self.over })
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Fields { inner: fields, over: self.over, below: None })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Passing<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Passing { inner: seed, over: self.over })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Passing<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Passing { inner: deserializer, over: self.over })
    }
}

/// The fields of one place.
struct Fields<A> {
    inner: A,
    over: &'static Unread,
    /// What is passed over in the value that comes next.
    below: Option<&'static Unread>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        while let Some(Name(name)) = self.inner.next_key()? {
            if self.over.fields.contains(&&*name) {
                self.inner.next_value::<IgnoredAny>()?;
                continue;
            }
            self.below = self.over.below.iter().find(|(known, _)| *known == name).map(|(_, over)| *over);
            return seed.deserialize(name.into_deserializer()).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        match self.below.take() {
            Some(over) => self.inner.next_value_seed(Passing { inner: seed, over }),
            None => self.inner.next_value_seed(seed),
        }
    }
}

/// A field's name. serde's own `Cow` is always a copy.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowing;

        impl<'de> Visitor<'de> for Borrowing {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(Borrowing)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::{ObjectList, WatchEvent};
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::slim::{SlimDeployment, SlimPod};
    use crate::cluster::slim_route::SlimRoute;

    /// With values of the wrong type wherever nothing is to be read: they are refused if they are.
    fn deployment(unread: &Value) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "namespace": "shop", "name": "web", "uid": "u", "resourceVersion": "7", "managedFields": unread,
                "labels": {"kubenap/enabled": "true", "env": "prod", "managedFields": "a label"},
            },
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"env": "prod", "volumes": "many"}},
                "template": {
                    "metadata": {"labels": {"env": "prod", "volumes": "many"}},
                    "spec": {"volumes": unread, "initContainers": null, "containers": [
                        {"name": "a", "env": unread, "ports": [{"name": "http", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}}},
                        {"name": "b", "command": unread, "readinessProbe": {"tcpSocket": {"port": 9000}}},
                    ]},
                },
            },
            "status": {"replicas": 2, "readyReplicas": 1},
        })
    }

    #[test]
    fn an_object_is_slimmed_as_if_it_had_been_decoded_in_full() {
        let full: Deployment = serde_json::from_value(deployment(&json!(null))).unwrap();
        let full = SlimDeployment::of(full);
        let text = deployment(&json!(17)).to_string();
        let thin: Thin<SlimDeployment> = serde_json::from_str(&text).unwrap();
        let (key, slim) = thin.into_parts();
        assert_eq!((key.0.as_str(), key.1.as_str()), ("shop", "web"));
        assert_eq!(*slim, full);
        assert!(full.readiness.is_some() && full.is_selected_by(&full.template_labels));
    }

    #[test]
    fn what_nobody_reads_is_passed_over_in_pages_and_in_events_whatever_it_is() {
        let pod = json!({
            "metadata": {"namespace": "shop", "name": "web-1", "resourceVersion": "9", "managedFields": 17, "labels": {"a": "b"}},
            "spec": {"nodeName": "n", "containers": 17}, "status": {"phase": "Running", "podIP": "10.0.0.1"},
        });
        assert!(serde_json::from_value::<Pod>(pod.clone()).is_err(), "it could be read in full");
        let page = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "9"}, "items": [pod]});
        let page: ObjectList<Thin<SlimPod>> = serde_json::from_str(&page.to_string()).unwrap();
        // Written by hand, for the order of the two fields is not the same everywhere.
        for event in [
            format!(r#"{{"type": "ADDED", "object": {pod}}}"#),
            format!(r#"{{"object": {pod}, "type": "ADDED"}}"#),
        ] {
            let event: WatchEvent<Thin<SlimPod>> = serde_json::from_str(&event).unwrap();
            let WatchEvent::Added(thin) = event else { panic!("{event:?}") };
            assert_eq!(thin.resource_version().as_deref(), Some("9"));
            let slim = thin.into_parts().1;
            assert!(slim.scheduled && slim.running && slim == page.items[0].clone().into_parts().1);
        }
    }

    #[test]
    fn a_kind_that_is_not_known_when_this_is_built_keeps_its_rules() {
        let text = json!({
            "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute",
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7", "managedFields": 17},
            "spec": {"routes": [{"match": "Host(`web.example`)", "services": [{"name": "web", "port": "http"}]}]},
        });
        let thin: Thin<SlimRoute> = serde_json::from_str(&text.to_string()).unwrap();
        assert_eq!(thin.into_parts().1.ingress.rules[0].host.as_deref(), Some("web.example"));
        // An item of a list says no kind, and may lead to other namespaces.
        let text = json!({
            "metadata": {"name": "front", "namespace": "edge", "resourceVersion": "7", "managedFields": 17},
            "spec": {
                "parentRefs": [{"name": "gw"}],
                "rules": [{}, {"backendRefs": [{"name": "web", "namespace": "shop", "port": 80}]}],
            },
        });
        let thin: Thin<SlimRoute> = serde_json::from_str(&text.to_string()).unwrap();
        let route = thin.into_parts().1;
        let backends = route.backends.iter().map(|to| (to.rule, to.namespace.as_str(), to.service.as_str()));
        assert_eq!(backends.collect::<Vec<_>>(), [(1, "shop", "web")]);
        assert_eq!(*route.gateways, ["edge/gw"]);
    }

    #[test]
    fn an_object_of_the_wrong_form_is_an_error_and_says_so() {
        let error = serde_json::from_str::<Thin<SlimPod>>(r#"{"metadata": 17}"#).unwrap_err();
        assert!(error.to_string().contains("invalid type: integer `17`"), "{error}");
        assert!(serde_json::from_str::<Thin<SlimPod>>("[").is_err());
    }
}
