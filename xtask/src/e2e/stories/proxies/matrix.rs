//! The matrix, docs/reference/proxies.md: what each case came to by each way in, with the version and the day.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::CASES;
use super::process::Programs;
use super::way::{Program, WAYS};
use crate::e2e::build;

const HEAD: &str = "<!-- Written by the story `proxies` of `cargo xtask e2e`. -->

# Proxies

One suite, told through every proxy that can be had from package registries, on a real Kubernetes: the story `proxies` of
`cargo xtask e2e` tells it with substitution, the story `hooks` by the proxies' own error paths for apps that are not
substituted (`kubenap/substitute: \"false\"`), the story `gateway` does both through Envoy Gateway, and each writes its part of
this page. A case that fails fails the story, and nothing is written; a cell says how it went. Times are those of a
small machine with much else to do, and a wake in them is a new pod that takes 1.5 s to start (9 s where it says slow).
The apps serve on after SIGTERM: for 5 s, and without substitution for 8 s in which their [readiness
fails](../guide/without-substitution.md).

*307 → 200* was held until the app was ready and then redirected to the same URL, *200* alone was held and passed to the
app without the caller noticing. *Substitution* needs nothing in the proxy: while the app sleeps, KubeNap's addresses
stand in its Service. A cell with a version and a day behind it is from an earlier run.
";
const LAST_RUN: &str = "version, last run";

/// The head of the clients' table, which only the story `clients` writes.
const CLIENTS: &str = "
## Clients

At an app that sleeps and starts slowly, by substitution and by the proxies' own error paths, each client as it comes unless
it says otherwise: what it was answered in the end. *stream* is a POST whose body cannot be sent twice. Told by `cargo xtask e2e --all`.
";

/// The head of the table of response times, which only the story `pace` writes.
const PACE: &str = "
## Awake, with the plugin and without

Two awake apps that are the same, one of them with the plugin in front of it: their median response times through the same
program in turns, A/B/A/B. Told by `cargo xtask e2e --all`.
";

/// A table of another story: by row, then by column.
pub(super) type Table = BTreeMap<String, BTreeMap<String, String>>;

/// What one case came to, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cell {
    said: String,
    when: When,
}

/// A version and a day, as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct When {
    day: String,
    version: String,
}

/// By program, form and case.
type Cells = BTreeMap<(String, String, String), Cell>;

/// Writes the page anew: this run's cells, and the last known ones for what it did not play.
pub(super) fn write(
    played: &BTreeMap<(&'static str, &'static str), String>,
    programs: &Programs,
) -> Result<()> {
    let day = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();
    let before = std::fs::read_to_string(page()).unwrap_or_default();
    let (before, others) = split(&before);
    let mut cells = parse(before);
    for ((way, case), said) in played {
        let way = WAYS.iter().find(|known| known.name == *way).context("a way that is not in the list")?;
        let version = programs.version(way.program)?;
        let when = When { day: day.clone(), version };
        let key = (way.program.title().to_owned(), way.form.to_owned(), title(case)?.to_owned());
        cells.insert(key, Cell { said: said.replace('|', "\\|"), when });
    }
    let text = format!("{}{others}", render(&cells)?);
    std::fs::write(page(), text).with_context(|| format!("write {}", page().display()))
}

/// The matrix, and what other stories have written below it.
fn split(page: &str) -> (&str, &str) {
    page.split_at([PACE, CLIENTS].iter().filter_map(|head| page.find(head)).min().unwrap_or(page.len()))
}

/// Writes the table of response times anew, and leaves the rest of the page as it is.
pub(super) fn write_pace(table: &Table) -> Result<()> {
    write_other(PACE, table)
}

/// Writes the clients' table anew, and leaves the rest of the page as it is.
pub(super) fn write_clients(table: &Table) -> Result<()> {
    write_other(CLIENTS, table)
}

/// The response times stand before the clients.
fn write_other(head: &str, table: &Table) -> Result<()> {
    let page_before = std::fs::read_to_string(page()).unwrap_or_default();
    let (matrix, others) = split(&page_before);
    let (pace, clients) = others.split_at(others.find(CLIENTS).unwrap_or(others.len()));
    let day = jiff::Zoned::now().strftime("%Y-%m-%d");
    let new = format!("{head}\nLast run: {day}\n\n{}", render_table(table)?);
    let (pace, clients) = if head == PACE { (&*new, clients) } else { (pace, &*new) };
    std::fs::write(page(), format!("{matrix}{pace}{clients}"))
        .with_context(|| format!("write {}", page().display()))
}

fn render_table(table: &Table) -> Result<String> {
    let mut columns: Vec<&str> = table.values().flat_map(|row| row.keys().map(String::as_str)).collect();
    columns.sort_by_key(|column| (*column != "version", *column));
    columns.dedup();
    // A number before a column's name is its place.
    let titles: Vec<_> =
        columns.iter().map(|column| column.split_once(". ").map_or(*column, |(_, name)| name)).collect();
    let mut text = format!("| | {} |\n|{}\n", titles.join(" | "), " --- |".repeat(columns.len() + 1));
    for (name, row) in table {
        let cells =
            columns.iter().map(|column| row.get(*column).with_context(|| format!("{name}: no {column}")));
        let cells = cells.collect::<Result<Vec<_>>>()?;
        let cells = cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>();
        writeln!(text, "| {name} | {} |", cells.join(" | "))?;
    }
    Ok(text)
}

fn page() -> PathBuf {
    build::root().join("docs/reference/proxies.md")
}

fn title(case: &str) -> Result<&'static str> {
    let found = CASES.iter().find(|(name, _)| *name == case);
    found.map(|(_, title)| *title).with_context(|| format!("{case:?} is not in the list of cases"))
}

fn render(cells: &Cells) -> Result<String> {
    let mut text = HEAD.to_owned();
    for program in Program::ALL {
        let forms: Vec<_> = WAYS.iter().filter(|way| way.program == program).map(|way| way.form).collect();
        // One that takes long to build may never have been there.
        if !cells.keys().any(|(name, ..)| name == program.title()) {
            continue;
        }
        let at = |form: &str, case: &str| {
            let key = (program.title().to_owned(), form.to_owned(), case.to_owned());
            cells.get(&key).with_context(|| format!("{}, {form}: {case:?} was never played", program.title()))
        };
        let mut rows: Vec<Vec<String>> = vec![vec![LAST_RUN.to_owned()]];
        rows.extend(CASES.iter().map(|(_, title)| vec![(*title).to_owned()]));
        for form in &forms {
            let column = CASES.iter().map(|(_, title)| at(form, title)).collect::<Result<Vec<_>>>()?;
            let newest = column.iter().map(|cell| &cell.when).max().context("there are no cases")?;
            rows[0].push(format!("{}, {}", newest.version, newest.day));
            for (row, cell) in rows[1..].iter_mut().zip(column) {
                let said = cell.said.trim();
                ensure!(!said.is_empty(), "{}, {form}: an empty cell", program.title());
                ensure!(!said.starts_with("failed"), "{}, {form}: a case that failed", program.title());
                let When { day, version } = &cell.when;
                let older = if cell.when == *newest { String::new() } else { format!(" ({version}, {day})") };
                row.push(format!("{}{older}", cell.said));
            }
        }
        write!(text, "\n## {}\n\n| | {} |\n", program.title(), forms.join(" | "))?;
        writeln!(text, "|{}", " --- |".repeat(forms.len() + 1))?;
        for row in rows {
            writeln!(text, "| {} |", row.join(" | "))?;
        }
    }
    Ok(text)
}

/// What an earlier run has written; what cannot be read was never there.
fn parse(page: &str) -> Cells {
    let mut cells = Cells::new();
    let (mut program, mut forms, mut newest) = (String::new(), Vec::new(), Vec::new());
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            (program, forms, newest) = (title.to_owned(), Vec::new(), Vec::new());
            continue;
        }
        let Some(row) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else { continue };
        let row: Vec<&str> = row.split(" | ").collect();
        let [first, rest @ ..] = &row[..] else { continue };
        if forms.is_empty() {
            // The head begins with an empty cell: `| | form | form |`.
            forms = row.iter().map(|form| form.trim_start_matches("| ").to_owned()).collect();
        } else if *first == LAST_RUN {
            newest = rest.iter().map(|when| read_when(when)).collect();
        } else {
            for ((form, newest), said) in forms.iter().zip(&newest).zip(rest) {
                let (said, older) = split_older(said);
                let Some(when) = older.or_else(|| newest.clone()) else { continue };
                let key = (program.clone(), form.clone(), (*first).to_owned());
                cells.insert(key, Cell { said: said.to_owned(), when });
            }
        }
    }
    cells
}

/// `1.2.3, 2026-11-25`.
fn read_when(text: &str) -> Option<When> {
    let (version, day) = text.rsplit_once(", ")?;
    let is_day = day.len() == 10 && day.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    is_day.then(|| When { day: day.to_owned(), version: version.to_owned() })
}

/// A cell without the version and the day behind it.
fn split_older(said: &str) -> (&str, Option<When>) {
    let split = said.strip_suffix(')').and_then(|said| said.rsplit_once(" ("));
    match split.and_then(|(said, when)| Some((said, read_when(when)?))) {
        Some((said, when)) => (said, Some(when)),
        None => (said, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(day: &str) -> Cells {
        let mut cells = Cells::new();
        for way in WAYS {
            for (_, title) in CASES {
                let when = When { day: day.to_owned(), version: "1.2.3".to_owned() };
                let key = (way.program.title().to_owned(), way.form.to_owned(), (*title).to_owned());
                cells.insert(key, Cell { said: format!("{} did (it)", way.name), when });
            }
        }
        cells
    }

    #[test]
    fn what_is_written_is_read_again_the_same_also_where_cells_are_of_different_days() {
        let mut cells = full("2026-11-25");
        let key = cells.keys().nth(3).expect("cells").clone();
        cells.insert(
            key,
            Cell {
                said: "307 → 200, 1.0 s".to_owned(),
                when: When { day: "2026-10-01".to_owned(), version: "1.2.0".to_owned() },
            },
        );
        let page = render(&cells).expect("a page");
        assert!(page.contains("307 → 200, 1.0 s (1.2.0, 2026-10-01) |"), "{page}");
        assert_eq!(parse(&page), cells);
    }

    #[test]
    fn a_page_with_a_hole_or_a_failure_is_not_written() {
        let mut cells = full("2026-11-25");
        let key = cells.keys().next().expect("cells").clone();
        for said in [" ", "failed: 3 of 1086 requests lost"] {
            said.clone_into(&mut cells.get_mut(&key).expect("the cell").said);
            assert!(render(&cells).is_err(), "{said}");
        }
        cells.remove(&key);
        assert!(render(&cells).is_err());
    }

    #[test]
    fn the_page_that_is_kept_has_a_cell_for_every_case_by_every_way_in() {
        let kept = std::fs::read_to_string(page()).expect("docs/reference/proxies.md");
        let (kept, others) = split(&kept);
        let rendered = render(&parse(kept)).expect("every cell is there");
        assert_eq!(rendered, kept, "the page is not what the story writes of it");
        assert!(!others.contains("|  |"), "an empty cell: {others}");
    }
}
