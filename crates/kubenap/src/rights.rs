//! Everything that KubeNap may do in a cluster, as the chart's rights.yaml says it: the only place.

use anyhow::Context as _;
use serde::Deserialize;

/// Compiled in, so that the doctor asks for what this very version uses.
const RIGHTS: &str = include_str!("../../../chart/kubenap/rights.yaml");

/// Where a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Wherever apps are.
    Apps,
    /// The same, where apps may be substituted.
    Substitution,
    /// Wherever apps are, where proxies are told by KubeNap itself.
    Hooks,
    /// In all namespaces, or in none: proxies' pods and IngressClasses.
    Proxies,
    /// In KubeNap's own namespace.
    Own,
}

/// Rules as roles have them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    /// The only objects that they are on; none: all.
    #[serde(default)]
    resource_names: Vec<String>,
    verbs: Vec<String>,
}

/// One of them, as the API server is asked about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Right<'a> {
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    /// Of which object; none: of all.
    pub(crate) name: Option<&'a str>,
    pub(crate) verb: &'a str,
}

impl Rule {
    /// Each of them on its own.
    pub(crate) fn rights(&self) -> impl Iterator<Item = Right<'_>> {
        self.api_groups.iter().flat_map(move |group| {
            self.resources.iter().flat_map(move |resource| {
                let rights =
                    move |name| self.verbs.iter().map(move |verb| Right { group, resource, name, verb });
                let all = self.resource_names.is_empty().then_some(None);
                all.into_iter()
                    .chain(self.resource_names.iter().map(|name| Some(name.as_str())))
                    .flat_map(rights)
            })
        })
    }
}

/// What `kubenap run` needs, place by place.
pub(crate) fn controller() -> anyhow::Result<[(Place, Vec<Rule>); 5]> {
    let Rights { controller, mut hooks, manage } =
        serde_saphyr::from_str(RIGHTS).context("the list of rights in this program is not understood")?;
    let Controller { apps, substitution, proxies, own, .. } = controller;
    hooks.extend(manage.controller);
    Ok([
        (Place::Apps, apps),
        (Place::Substitution, substitution),
        (Place::Hooks, hooks),
        (Place::Proxies, proxies),
        (Place::Own, own),
    ])
}

#[derive(Debug, Deserialize)]
struct Rights {
    controller: Controller,
    hooks: Vec<Rule>,
    manage: Manage,
}

#[derive(Debug, Deserialize)]
struct Manage {
    controller: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Controller {
    apps: Vec<Rule>,
    substitution: Vec<Rule>,
    proxies: Vec<Rule>,
    #[expect(
        dead_code,
        reason = "a source of logs that lacks it says so by itself; most clusters have none"
    )]
    pod_logs: Vec<Rule>,
    own: Vec<Rule>,
}

#[cfg(test)]
mod tests {
    use super::{Place, Right, Rule, controller};

    #[test]
    fn the_rights_are_read_and_none_is_on_secrets_or_on_running_things_in_pods() {
        let all = controller().expect("rights.yaml");
        let rights: Vec<_> = all.iter().flat_map(|(_, rules)| rules.iter().flat_map(Rule::rights)).collect();
        assert!(rights.len() > 20, "{rights:?}");
        let bold = rights.iter().find(|right| {
            right.resource == "secrets"
                || right.resource.contains('/')
                || right.verb == "*"
                || right.resource == "*"
        });
        assert_eq!(bold, None);
        let (_, own) = &all[4];
        let is_own = |right: Right<'_>| {
            right.resource == "leases"
                || (right.resource == "configmaps"
                    && right.name == Some(kubenap_controller::activity::KEPT_IN))
        };
        assert!(own.iter().flat_map(Rule::rights).all(is_own));
        assert_eq!(all[0].0, Place::Apps);
    }
}
