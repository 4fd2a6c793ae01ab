//! Who owns what, and which labels are where: so that nothing has to look through a whole namespace.
use crate::store::{Key, object};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Index(BTreeMap<Term, BTreeSet<Key>>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Term {
    Owner(String),
    Label {
        plural: String,
        namespace: String,
        label: String,
        value: String,
    },
    /// A Service is found by the first pair of its selector.
    Selects {
        namespace: String,
        label: String,
        value: String,
    },
}

impl Index {
    pub(super) fn replace(&mut self, key: &Key, before: Option<&Value>, after: Option<&Value>) {
        for term in before.into_iter().flat_map(|object| terms(key, object)) {
            if let Some(keys) = self.0.get_mut(&term) {
                keys.remove(key);
                if keys.is_empty() {
                    self.0.remove(&term);
                }
            }
        }
        for term in after.into_iter().flat_map(|object| terms(key, object)) {
            self.0.entry(term).or_default().insert(key.clone());
        }
    }

    pub(super) fn owned(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.0.get(&Term::Owner(uid.to_owned())).into_iter().flatten()
    }

    pub(super) fn labelled(
        &self,
        plural: &str,
        namespace: &str,
        label: &str,
        value: &str,
    ) -> impl Iterator<Item = &Key> {
        let [plural, namespace, label, value] = [plural, namespace, label, value].map(str::to_owned);
        self.0.get(&Term::Label { plural, namespace, label, value }).into_iter().flatten()
    }

    /// The Services whose selector begins with one label.
    pub(super) fn selecting(&self, namespace: &str, label: &str, value: &str) -> impl Iterator<Item = &Key> {
        let [namespace, label, value] = [namespace, label, value].map(str::to_owned);
        self.0.get(&Term::Selects { namespace, label, value }).into_iter().flatten()
    }
}

fn terms(key: &Key, object: &Value) -> Vec<Term> {
    let owners = object::owners(object).map(|owner| Term::Owner(owner.to_owned()));
    let labels = object::labels(object).map(|(label, value)| Term::Label {
        plural: key.plural.to_owned(),
        namespace: key.namespace.clone(),
        label: label.to_owned(),
        value: value.to_owned(),
    });
    let selector = if key.plural == "services" { &object["spec"]["selector"] } else { &Value::Null };
    let selects = object::strings(selector).next().map(|(label, value)| Term::Selects {
        namespace: key.namespace.clone(),
        label: label.to_owned(),
        value: value.to_owned(),
    });
    owners.chain(labels).chain(selects).collect()
}
