//! A Deployment's label selector, and whether it takes a pod.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::labels::Labels;

/// Which pods belong to a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Labels,
    others: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Absent(String),
    /// An operator that this version of Kubernetes does not have: takes nothing.
    Unknown,
}

impl Selector {
    /// Reads the API's form.
    pub fn of(selector: LabelSelector) -> Self {
        let others = selector.match_expressions.unwrap_or_default();
        Self {
            labels: Labels::of(&selector.match_labels.unwrap_or_default()),
            others: others.into_iter().map(Requirement::of).collect(),
        }
    }

    /// A label that everything it takes must carry, if there is one.
    pub fn first(&self) -> Option<(&str, &str)> {
        self.labels.iter().next()
    }

    /// Whether it takes something with these labels. An empty selector takes nothing here.
    pub fn takes(&self, labels: &Labels) -> bool {
        !(self.labels.is_empty() && self.others.is_empty())
            && labels.contain(&self.labels)
            && self.others.iter().all(|other| other.takes(labels))
    }
}

impl Requirement {
    fn of(raw: LabelSelectorRequirement) -> Self {
        let values = raw.values.unwrap_or_default().into_iter().collect();
        match raw.operator.as_str() {
            "In" => Self::In(raw.key, values),
            "NotIn" => Self::NotIn(raw.key, values),
            "Exists" => Self::Exists(raw.key),
            "DoesNotExist" => Self::Absent(raw.key),
            _ => Self::Unknown,
        }
    }

    fn takes(&self, labels: &Labels) -> bool {
        match self {
            Self::In(name, values) => labels.get(name).is_some_and(|value| values.contains(value)),
            Self::NotIn(name, values) => labels.get(name).is_none_or(|value| !values.contains(value)),
            Self::Exists(name) => labels.get(name).is_some(),
            Self::Absent(name) => labels.get(name).is_none(),
            Self::Unknown => false,
        }
    }
}
