//! The chart against the program: flags, versions, metrics, values that do something, and pods without privileges.
#![expect(clippy::unwrap_used, reason = "a chart that cannot be read is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use serde_json::Value;

/// What the chart sets itself, or a pod has no use for.
const NOT_SET: [&str; 8] = [
    "advertise-address",
    "config",
    "context",
    "help",
    "identity",
    "kubeconfig",
    "lease-namespace",
    // The value `namespaces`, which makes the Roles too.
    "namespace",
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap()
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&read("chart/kubenap/values.schema.json")).unwrap()
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_flag_of_run_can_be_set_and_no_other() {
    let help = Command::new(env!("CARGO_BIN_EXE_kubenap")).args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let longs = help.lines().filter_map(|line| line.trim_start().split_once("--"));
    let starts = longs.filter(|(before, _)| before.is_empty() || before.ends_with(", "));
    let name = |rest: &str| rest.split([' ', '<']).next().unwrap_or_default().to_owned();
    let mut flags: BTreeSet<_> = starts.map(|(_, rest)| name(rest)).collect();
    for flag in NOT_SET {
        assert!(flags.remove(flag), "run has no flag --{flag}: {flags:?}");
    }
    assert_eq!(keys(&schema()["properties"]["flags"]["properties"]), flags);
}

#[test]
fn the_chart_is_of_the_program_s_version() {
    let chart = yaml("chart/kubenap/Chart.yaml");
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
}

/// Every value with a default, as `a.b`; a map without keys is a value of its own.
fn paths(value: &Value, schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    let open = schema.get("properties").is_none();
    match value {
        Value::Object(map) if !open => {
            assert_eq!(schema["additionalProperties"], false, "values.schema.json takes anything at {at}");
            for (name, value) in map {
                let below = &schema["properties"][name];
                assert!(!below.is_null(), "values.schema.json does not know {at}.{name}");
                paths(value, below, &format!("{at}.{name}"), found);
            }
            if map.is_empty() {
                found.insert(at.to_owned());
            }
        }
        _ => {
            found.insert(at.to_owned());
        }
    }
}

#[test]
fn every_value_has_a_default_is_in_the_schema_and_is_used() {
    let mut templates = String::new();
    for file in fs::read_dir(top().join("chart/kubenap/templates")).unwrap() {
        templates += &fs::read_to_string(file.unwrap().path()).unwrap();
    }
    let (values, schema) = (yaml("chart/kubenap/values.yaml"), schema());
    let mut known = keys(&schema["properties"]);
    // Helm's own.
    assert!(known.remove("global"));
    assert_eq!(known, keys(&values));
    let mut found = BTreeSet::new();
    paths(&values, &schema, "", &mut found);
    assert!(found.len() > 40, "{found:?}");
    let unused: Vec<_> = found
        .iter()
        .filter(|path| {
            let (parent, own) = path.rsplit_once('.').unwrap();
            let within = templates.contains(&format!("with .Values{parent} "))
                && templates.contains(&format!(".{own}"));
            !templates.contains(&format!(".Values{path}")) && !within
        })
        .collect();
    assert!(unused.is_empty(), "no template uses {unused:?}");
}

#[test]
fn the_dashboard_shows_only_metrics_that_there_are() {
    let known = read("docs/reference/metrics.md");
    let dashboard = read("chart/kubenap/dashboards/kubenap.json");
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = parsed["panels"].as_array().unwrap();
    assert!(panels.len() > 8, "{} panels", panels.len());
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let mut shown = BTreeSet::new();
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        let expression = target["expr"].as_str().unwrap();
        shown.extend(expression.split(word).filter(|name| name.starts_with("kubenap_")).map(str::to_owned));
    }
    let histogram = |name: &str| {
        let end = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        end.is_some_and(|name| known.contains(&format!("`{name}` | histogram")))
    };
    let unknown: Vec<_> =
        shown.iter().filter(|name| !known.contains(&format!("`{name}` |")) && !histogram(name)).collect();
    assert!(unknown.is_empty(), "docs/reference/metrics.md does not have {unknown:?}");
    assert!(shown.len() > 8, "only {shown:?}");
}

#[test]
fn the_admission_policy_lets_the_annotations_through_by_which_proxies_are_told_and_no_others() {
    let policies = deployed("ValidatingAdmissionPolicy");
    let hooks = policies.iter().find(|policy| policy["metadata"]["name"] == "kubenap-hooks").unwrap();
    let variables = hooks["spec"]["variables"].as_array().unwrap();
    let list = variables.iter().find(|variable| variable["name"] == "hooks").unwrap();
    let mut quoted = list["expression"].as_str().unwrap().split('\'').skip(1).step_by(2);
    let mut allowed = BTreeMap::new();
    while let (Some(key), Some(pattern)) = (quoted.next(), quoted.next()) {
        allowed.insert(key.to_owned(), Regex::new(pattern).unwrap());
    }
    let mut told = BTreeSet::new();
    // The forms that are taken where none is named, which are those that KubeNap applies itself.
    for form in ["traefik/ingress", "nginx/ingress-nginx", "nginx/f5"] {
        let text = read(&format!("crates/kubenap-core/tests/proxies/{form}.yaml"));
        for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            let whole = object["metadata"]["labels"].is_object();
            if !whole {
                for (key, value) in object["metadata"]["annotations"].as_object().unwrap() {
                    let value = value.as_str().unwrap();
                    assert!(allowed[key].is_match(value), "{key}: {value}");
                    // Nothing goes before it, after it or into the middle of it.
                    let middle = value.find("\n}").map_or(value.len(), |at| at + 1);
                    let (head, tail) = value.split_at(middle);
                    let more = "  return 200 $cookie_session;\n";
                    for forged in
                        [format!("{more}{value}"), format!("{value}{more}"), format!("{head}{more}{tail}")]
                    {
                        assert!(!allowed[key].is_match(&forged), "{key}: {forged}");
                    }
                    told.insert(key.to_owned());
                }
            }
        }
    }
    assert_eq!(
        allowed.into_keys().collect::<BTreeSet<_>>(),
        told,
        "left: what the policy lets through, right: what is rendered"
    );
}

/// Every document in deploy/kubenap.yaml of this kind.
fn deployed(kind: &str) -> Vec<Value> {
    documents("deploy/kubenap.yaml", kind)
}

fn documents(path: &str, kind: &str) -> Vec<Value> {
    let text = read(path);
    let documents = text.split("\n---\n").map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    documents.filter(|document| document["kind"] == kind).collect()
}

#[test]
fn its_pods_have_no_privilege_and_are_never_all_away() {
    let deployment = &deployed("Deployment")[0];
    let (spec, pod) = (&deployment["spec"], &deployment["spec"]["template"]["spec"]);
    assert_eq!(spec["replicas"], 2);
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= 60);
    assert!(pod["affinity"]["podAntiAffinity"].is_object());
    for key in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
        assert!(pod[key].is_null(), "{key}: {}", pod[key]);
    }
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"][0], "ALL");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(deployed("PodDisruptionBudget")[0]["spec"]["maxUnavailable"], 1);
    assert_eq!(deployed("ValidatingAdmissionPolicyBinding").len(), 3);
}

const LISTENERS: &str = "crates/kubenap/tests/chart/listeners.yaml";

/// Of each element, its field of this name.
fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a Value> {
    list.as_array().unwrap().iter().map(|one| &one[field]).collect()
}

#[test]
fn every_listener_is_opened_and_led_to_and_admitted() {
    let deployment = &documents(LISTENERS, "Deployment")[0];
    let service = &documents(LISTENERS, "Service")[0]["spec"];
    let policy = &documents(LISTENERS, "NetworkPolicy")[0]["spec"];
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    // One for both families, and the admin listener's at the end.
    assert_eq!(each(&container["ports"], "containerPort"), [8080, 8082, 8083, 8084, 8081]);
    let names = ["proxy", "proxy-traefik", "proxy-envoy-gat", "proxy-8084", "admin"];
    assert_eq!(each(&container["ports"], "name"), names);
    assert_eq!(each(&service["ports"], "targetPort"), names[..4]);
    assert_eq!(each(&service["ports"], "name"), names[..4]);
    assert_eq!(each(&service["ports"], "port"), [80, 8082, 8083, 8084]);
    assert_eq!(each(&policy["ingress"][1]["ports"], "port"), [8080, 8082, 8083, 8084]);
}

#[test]
fn whoever_else_may_come_in_members_may_reach_each_other() {
    let policy = &documents(LISTENERS, "NetworkPolicy")[0]["spec"];
    let rules = policy["ingress"].as_array().unwrap();
    assert_eq!(rules.len(), 3);
    for rule in rules {
        let admitted = rule["from"].as_array().unwrap();
        assert_eq!(admitted[0]["podSelector"], policy["podSelector"], "{rule}");
    }
    let named = |rule: &Value| {
        rule["from"][1]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"].clone()
    };
    assert_eq!((named(&rules[0]), named(&rules[1])), ("apps".into(), "ingress".into()));
}
