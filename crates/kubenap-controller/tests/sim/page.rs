//! `docs/reliability.md`, from what was counted.
#![expect(clippy::unwrap_used, reason = "a page that cannot be read or written has failed")]

use std::path::Path;

use crate::bite;
use crate::enumerate;
use crate::invariants::LAWS;
use crate::report::Counts;

/// Invariants that are judged elsewhere, or elsewhere too.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "I3b",
        "whatever a source says, the next request is answered after one cold start",
        "the end of every seed: its request is answered 200",
    ),
    (
        "I3c",
        "no outage of a source, or of what it watches, dates a use too early",
        "`crates/kubenap-controller/tests/sources/outages.rs`: random outages of every source, 0 uses missed",
    ),
    (
        "I5",
        "none of KubeNap's endpoints while awake",
        "the end of every run, where no slice may be left; the model in `crates/kubenap-core/tests/model`",
    ),
    (
        "I9",
        "any number of leaders does no harm",
        "all of these, with up to three members, some of them five minutes off or cut off while they lead; the model",
    ),
    (
        "I12",
        "every `Location` leads back to the same origin",
        "`crates/kubenap-controller/src/wake/redirect.rs`",
    ),
    (
        "I13",
        "a request's body is sent upstream at most once",
        "`crates/kubenap-controller/src/wake/tests`, over real sockets",
    ),
    (
        "I15",
        "a budget of wakes",
        "`crates/kubenap-controller/src/wake/budget.rs`, with random buckets; `crates/kubenap-controller/tests/it/budget.rs`",
    ),
    (
        "I19",
        "garbage in annotations never panics nor stops other apps",
        "`crates/kubenap-core/tests/policy.rs` and `props`; seeds write garbage too",
    ),
    (
        "I22",
        "`restore` leaves no trace, from wherever",
        "the flow `restore by hand` with each of its writes struck, and every fourth seed",
    ),
    (
        "L1",
        "quiet, so asleep",
        "the end of every seed and every flow, within two minutes after the last fault",
    ),
    ("L2", "a request is answered", "the end of every seed and every flow"),
    ("L3", "a good state is reached from everywhere", "the same; the model proves it for all of its states"),
    (
        "L4",
        "one leader soon",
        "`crates/kubenap-controller/tests/it/leads.rs`; without one, L1 could not hold",
    ),
    ("L5", "other apps go on while one is stuck", "`crates/kubenap-controller/tests/it/mistakes.rs`"),
];

/// What was counted, a line each.
pub(crate) fn lines(counts: &Counts) -> Vec<String> {
    let days = |what: &str| *counts.get(what).unwrap_or(&0) / 86_400;
    let mut lines: Vec<_> = counts
        .iter()
        .filter(|(what, _)| {
            !what.contains("second") && !what.contains("no member") && **what != "days of decisions"
        })
        .map(|(what, count)| format!("{what}: {count}"))
        .collect();
    lines.push(format!(
        "days of the whole controller: {}, of them {} with no member running",
        days("simulated seconds"),
        days("of them with no member running")
    ));
    lines.push(format!(
        "days of decisions: {}, in each of them members are at work",
        counts.get("days of decisions").unwrap_or(&0)
    ));
    lines
}

fn page(counts: &Counts) -> String {
    let mut text =
        "# Reliability\n\nWritten by `UPDATE_EXPECT=1 cargo test -p kubenap-controller --test sim`. What \
        runs is the shipped controller, one to three members\nof it, against the small Kubernetes of \
        `crates/kubenap-sandbox`, on a clock that jumps from event to event.\n\n## What is enumerated\n\n"
            .to_owned();
    text += "Each flow is run once undisturbed and its writes and events are counted; then once for each of them with \
        this one struck:\nthe member crashes before or after the write and another or the same one carries on; the write is \
        answered 409, 429, 500\nor 504, or not at all, not carried out, carried out all the same, or carried out seconds \
        later; the event is dropped,\ndelayed, repeated, or shows the state before it; the watch begins again from an old list.\n\n";
    for name in enumerate::names() {
        text += &format!("* {name}\n");
    }
    text += "\nSeeds mix at random: requests, `kubectl scale`, rollouts, undone rollouts, the label off and on, wishes, garbage in \
        annotations,\ncrashes, leaving and joining, members whose clocks are off, an API server that is away or fails, a member \
        cut off from it,\na source that is down, stuck, empty or wrong. Then faults end, the app must fall asleep, stay so in \
        silence, survive a night\nof twelve hours without any member (with one, each five hundredth seed), and answer the next request.\n\n\
        Days of decisions: a day of the whole controller costs seconds of computing, nearly all of it for the renewal of \
        Leases. So a thousand days\nin which members are at work are those of its core: `decide` and `writes` are the shipped \
        ones, while what a member remembers, Kubernetes' controllers\nand the API server are a model, and a source is asked \
        each minute. In stories of ten days each, with the defaults for everything else, there are\nvisits all day, crashes also at a \
        write, members replaced, cut off, late to hear of changes, with clocks that are minutes off, all taking themselves for\nthe \
        leader, an API server that is away or fails, images that are missing, a source that is down, stuck, empty or wrong, \
        `kubectl scale` also to zero,\nrollouts and undone ones, the label off and on, wishes, garbage. After each change \
        somebody must answer; each write is judged by I2, I3, I6, I7, I14,\nI16 and I17. Each night the app must be asleep with its owner's count, every member \
        standing in, and for two hours nothing may be written; the\nrequest at dawn must wake it within five minutes and leave no \
        slice and no count; and in the end, opted out, no trace. Six precautions are\ntaken away in turn, such as `idleAfter` or the \
        count in the patch with the zero, and each loss is noticed.\n\nThe same run gives the same writes at the same \
        moments, byte for byte but for the loopback addresses and ports that\nthe machine gave it; each flow and the first \
        seeds are run twice to show it. An event that is lost for good is made\nup for by the next list, \
        twenty seconds later where an app gets nowhere, ten minutes later where nothing else happens.\n\n## How many\n\n| what | count |\n| --- | --- |\n";
    for line in lines(counts) {
        let (what, count) = line.split_once(": ").unwrap();
        text += &format!("| {what} | {count} |\n");
    }
    text += "\nThese counts depend on no machine, since the clock is not the machine's: any that builds KubeNap gets the same. How \
        long the run\ntakes does depend on it; the run says it in its last line, with the processors and the kernel. What \
        happens on a real Kubernetes is not\ncounted here: `cargo xtask e2e --all` prints for each story how long it took and what it \
        counted.\n";
    text += "\n## Invariants\n\nJudged after every single write of a run:\n\n| | holds |\n| --- | --- |\n";
    for law in LAWS {
        text += &format!("| {} | {} |\n", law.id, law.says);
    }
    text += &format!(
        "\nThat each of these judges can see is shown with {} histories that were tampered with.\n\nJudged at the end of a run, or elsewhere:\n\n| | what | where |\n| --- | --- | --- |\n",
        bite::count()
    );
    for (id, what, place) in ELSEWHERE {
        text += &format!("| {id} | {what} | {place} |\n");
    }
    text += "\n## How to repeat\n\n```sh\ncargo test -p kubenap-controller --test sim                      # all of it\ncargo test -p kubenap-controller --test sim -- --seeds 100000    # more seeds; or KUBENAP_SEEDS=100000\ncargo test -p kubenap-controller --test sim -- --seed 17         # one seed\ncargo test -p kubenap-controller --test sim -- --only nap        # one flow\ncargo test -p kubenap-controller --test sim -- --days 10000      # more days of decisions\ncargo test -p kubenap-controller --test sim -- --story 17        # one story of them\n```\n\nA run that fails prints the line that repeats it.\n";
    text
}

/// Writes the page, or says in what it differs but for its numbers.
pub(crate) fn keep(counts: &Counts) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reliability.md");
    let page = page(counts);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, page).unwrap();
        return Vec::new();
    }
    let plain = |text: &str| text.chars().filter(|letter| !letter.is_ascii_digit()).collect::<String>();
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    if plain(&there) == plain(&page) {
        Vec::new()
    } else {
        vec![("docs/reliability.md".to_owned(), "it is old; UPDATE_EXPECT=1 writes it anew".to_owned())]
    }
}
