//! Writes docs/reference from the code, and fails where what is written is not what the code says.
//! `UPDATE_EXPECT=1 cargo test -p kubenap --test reference` writes it anew.
#![expect(clippy::unwrap_used, reason = "a program that cannot be started is a failed test")]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use expect_test::expect_file;
use kubenap_controller::decide::events;
use kubenap_controller::nap::hooks::MANAGERS;
use kubenap_controller::telemetry::{
    AskAnswer, ByPhase, BySource, NapOutcome, PhaseLabel, Telemetry, WakeOutcome, WakePart,
};
use kubenap_core::activity::Blind;
use kubenap_core::app::{AppId, key};
use kubenap_core::policy::{self, Defaults, KEYS, Texts, Weight};
use kubenap_core::seen::Trouble;
use kubenap_core::why::Why;

const WRITTEN: &str =
    "<!-- Written from the code by `UPDATE_EXPECT=1 cargo test -p kubenap --test reference`. -->\n\n";

#[test]
fn annotations_are_as_the_code_reads_and_writes_them() {
    let mut page = page(
        "Annotations",
        "Everything stands on the Deployment. A key that is not understood, or not known, keeps its app awake and is \
         complained about: a mistake costs money, never availability.",
    );
    page += "## The label that opts in\n\n";
    page += &table(&["label", "accepted"], [[code(key::ENABLED), "`true`, or `false` to be out".to_owned()]]);
    page += "\n## What people write\n\n";
    let rows = KEYS.iter().map(|key| {
        let text = |text: &str| text.to_owned();
        [code(&key.full()), text(key.meaning), text(key.accepted), text(key.default)]
    });
    page += &table(&["annotation", "meaning", "accepted", "default"], rows);
    page += "\nA duration is what Go and Kubernetes accept: `90s`, `10m`, `1h30m`, `1.5h`.\n";
    page += "\n## What KubeNap writes\n\nTogether with the replica count, in one patch, so that the two never part.\n\n";
    page += &table(&["annotation", "meaning"], key::STATE.map(|name| [code(name), written(name).to_owned()]));
    page += "\n## What KubeNap writes on its own EndpointSlices\n\n";
    page += &table(
        &["key", "value"],
        [
            [code(key::MANAGED_BY), format!("label: {}", code(key::MANAGER))],
            [code(key::SERVICE_NAME), "label: the Service".to_owned()],
            [code(key::SLICE_MEMBER), "annotation: the member whose addresses the slice holds".to_owned()],
            [
                code(key::SLICE_APPS),
                "annotation: nap and remembered count of each app behind the Service".to_owned(),
            ],
        ],
    );
    page += "\n## What KubeNap writes on the pieces of a hook\n\nWith `--manage-proxies`, on objects that it makes; of other \
             people's it holds a few annotations, by the field manager ";
    page += &format!("{}, and marks nothing.\n\n", code(&format!("{MANAGERS}…")));
    page += &table(
        &["key", "value"],
        [
            [code(key::HOOK_MARK), "label: `true`".to_owned()],
            [code(key::HOOK_APP), "annotation: the app, as `NAMESPACE/NAME`".to_owned()],
            [code(key::MANAGED_BY), format!("label, of EndpointSlices: {}", code(key::PROXY_MANAGER))],
        ],
    );
    expect_file!["../../../docs/reference/annotations.md"].assert_eq(&page);
}

#[test]
fn flags_are_as_the_program_s_help_says() {
    let mut page = page(
        "Commands and flags",
        "The flags of `run`, and those that every command has, are also taken from the environment variable that stands \
         beside them. Every long flag may stand in the YAML file of `--config`, by its name without dashes. What is \
         typed goes before the environment, the environment before the file.",
    );
    page += "The file may also hold `sources`, which are no flags: see the [guide to sources](../guide/sources/README.md).\n\n";
    page += "Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not in \
             time, 4 cancelled. The log is chosen by `RUST_LOG`.\n\nA Prometheus that wants a token gets it from \
             `KUBENAP_PROMETHEUS_TOKEN`, or from the file that `KUBENAP_PROMETHEUS_TOKEN_FILE` names.\n";
    let top = help(&[]);
    page += &format!("\n## kubenap\n\n```text\n{top}```\n");
    for command in commands(&top) {
        page += &format!("\n## kubenap {command}\n\n```text\n{}```\n", help(&[&command]));
    }
    expect_file!["../../../docs/reference/flags.md"].assert_eq(&page);
}

#[test]
fn metrics_are_as_the_controller_shows_them() {
    let mut page = page(
        "Metrics",
        "On `/metrics` of `--admin-listen`, as OpenMetrics text. Every set of label values is closed but those of \
         `namespace`, `app` and `source`.",
    );
    let text = String::from_utf8(telemetry().encode().concat()).unwrap();
    let families: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')).collect();
    let rows = families.iter().map(|(name, help)| {
        let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
        let sample = text.lines().find(|line| !line.starts_with('#') && line.starts_with(name)).unwrap();
        let series = if kind == "counter" { format!("{name}_total") } else { (*name).to_owned() };
        [code(&series), kind.to_owned(), labels_of(sample), help.trim_end_matches('.').to_owned()]
    });
    page += &table(&["metric", "type", "labels", "meaning"], rows);
    page += "\n## Label values\n\n";
    let words = |all: &[&'static str]| all.iter().map(|word| code(word)).collect::<Vec<_>>().join(", ");
    let rows = [
        ("phase", words(&PhaseLabel::ALL.map(PhaseLabel::label))),
        ("outcome of `kubenap_naps_total`", words(&NapOutcome::ALL.map(NapOutcome::label))),
        ("outcome of `kubenap_wakes_total`", words(&WakeOutcome::ALL.map(WakeOutcome::label))),
        ("part", words(&WakePart::ALL.map(WakePart::label))),
        ("answer", words(&AskAnswer::ALL.map(AskAnswer::label))),
    ];
    page += &table(&["label", "values"], rows.map(|(name, values)| [name.to_owned(), values]));
    expect_file!["../../../docs/reference/metrics.md"].assert_eq(&page);
}

#[test]
fn reasons_are_as_the_code_says_them() {
    let mut page = page(
        "Reasons",
        "One decision has one reason, and one sentence for it: in the log, in `kubenap/reason`, in Events, in \
         `kubenap status` and `kubenap why`.",
    );
    page += "## Why an app does what it does\n\n";
    page += &table(
        &["label", "sentence, with an example's values"],
        Why::reference().into_iter().map(|(label, sentence)| [code(label), sentence]),
    );
    page += "\n## Why a source cannot tell\n\nAnything of this keeps the app awake.\n\n";
    page += &table(
        &["label", "a source …"],
        Blind::ALL.map(|blind| [code(blind.label()), blind.sentence().to_owned()]),
    );
    page += "\n## Why an app cannot start\n\nWho asks for such an app gets a 503 with the class in the header \
             `X-KubeNap-Reason`, the sentence in the body, and a `Retry-After` that grows from 2 s to a minute.\n\n";
    page += &table(
        &["class", "sentence"],
        Trouble::ALL.map(|trouble| [code(trouble.label()), trouble.sentence().to_owned()]),
    );
    page += "\n## Events on the Deployment\n\n";
    page += &table(
        &["reason", "when"],
        events::Reason::ALL.map(|reason| [code(reason.text()), when(reason).to_owned()]),
    );
    page += "\n## Complaints\n\nA complaint names the key, the value, what is wrong and what is accepted. Examples:\n\n";
    let rows = complaints().into_iter().map(|complaint| {
        let then = match complaint.weight {
            Weight::Refuses => "no nap until it is mended",
            Weight::Warns => "naps go on",
        };
        [complaint.to_string(), then.to_owned()]
    });
    page += &table(&["complaint", "what follows"], rows);
    expect_file!["../../../docs/reference/reasons.md"].assert_eq(&page);
}

fn written(name: &str) -> &'static str {
    match name {
        key::PHASE => "`awake`, `drowsy`, `asleep` or `waking`",
        key::EPOCH => "the number of the nap, growing by one each",
        key::RESTORE => "how many replicas it had when it fell asleep; there only while it sleeps or wakes",
        key::SINCE => "since when the phase holds (RFC 3339)",
        key::REASON => "why the phase was entered: a label of the [reasons](reasons.md), then the sentence",
        key::WAKE_PORTS => "the port on KubeNap's members for each Service port: `SERVICE:PORT=WAKE-PORT`",
        key::REVERTS => {
            "when somebody else scaled it up while it slept, and by which field manager: `TIME MANAGER`, the last three"
        }
        key::HOOK_PIECES => {
            "with `--manage-proxies`: the pieces of its proxy's hook that KubeNap has put in place, or is about to: \
             `API-VERSION/KIND/NAMESPACE/NAME`; there only while it sleeps, and shortly before and after"
        }
        other => panic!("{other} is not described here"),
    }
}

fn when(reason: events::Reason) -> &'static str {
    match reason {
        events::Reason::Drowsy => "a nap begins: KubeNap becomes an endpoint, the pods still run",
        events::Reason::Asleep => "scaled to zero, or somebody else's zero is taken over",
        events::Reason::Waking => "scaled up again",
        events::Reason::Awake => "its pods answer again, or a nap was cancelled",
        events::Reason::NapRefused => "a nap is not possible, and somebody has to mend something first",
        events::Reason::BadAnnotation => "an annotation is wrong",
        events::Reason::WakeFailed => "it cannot be woken: once for each nap and class of trouble",
    }
}

/// One mistake of each kind.
fn complaints() -> Vec<policy::Complaint> {
    let mistakes = [
        ("idleAfter", "1d"),
        ("idleAfter", "100ms"),
        ("replicaCount", "0"),
        ("idle-after", "10m"),
        ("colour", "blue"),
        ("metrics", "graphite"),
        ("dependsOn", "shop/db"),
        ("proxy", "apache"),
    ];
    let defaults =
        Defaults { sources: vec!["ingress".to_owned(), "prometheus".to_owned()], ..Defaults::default() };
    let read = |(name, value): (&str, &str)| {
        let annotations = Texts::from([(format!("kubenap/{name}"), value.to_owned())]);
        policy::read(&Texts::new(), &annotations, &defaults).complaints
    };
    mistakes.into_iter().flat_map(read).collect()
}

/// One sample in each family, so that each is shown with its labels.
fn telemetry() -> Telemetry {
    let telemetry = Telemetry::new();
    let app = AppId::new("shop", "web");
    let source = BySource { source: "ingress".to_owned() };
    telemetry.apps.get_or_create(&ByPhase { phase: PhaseLabel::Asleep }).set(1);
    telemetry.set_phase(&app, PhaseLabel::Asleep);
    telemetry.count_nap(NapOutcome::Asleep);
    telemetry.count_wake(WakeOutcome::Awake);
    telemetry.observe_wake(Duration::from_secs(1));
    telemetry.observe_wake_part(WakePart::Scale, Duration::from_secs(1));
    telemetry.count_ask(&app, AskAnswer::Redirected);
    telemetry.source_up.get_or_create(&source).set(1);
    telemetry.source_watermark_age.get_or_create(&source).set(1.0);
    telemetry.count_sleep(&app, Duration::from_secs(1), 1);
    telemetry
}

/// The names of a sample's labels, without a histogram's own.
fn labels_of(sample: &str) -> String {
    let set = sample.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(set, _)| set);
    let names: BTreeMap<_, _> = set.split(',').filter_map(|pair| pair.split_once('=')).collect();
    let own: Vec<_> = names.keys().filter(|name| **name != "le").map(|name| code(name)).collect();
    own.join(", ")
}

/// The help of a command, as it is on a terminal 100 columns wide and with nothing in the environment.
fn help(command: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kubenap"))
        .args(command)
        .arg("--help")
        .env_clear()
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

fn commands(help: &str) -> Vec<String> {
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let names =
        list.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn page(title: &str, about: &str) -> String {
    format!("{WRITTEN}# {title}\n\n{about}\n\n")
}

fn table<const N: usize>(head: &[&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(head.iter().map(|cell| (*cell).to_owned()).collect());
    text += &line(vec!["---".to_owned(); N]);
    for row in rows {
        text += &line(row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect());
    }
    text
}

fn code(text: &str) -> String {
    format!("`{text}`")
}
