//! docs/benchmarks.md, with its plots beside it: on what machine, how to repeat it, and ratios before all else.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::figures::{Part, Report};
use super::machine::Machine;

const HEAD: &str = "# Benchmarks\n\n\
    Written by `cargo xtask bench`, which repeats all of it: as root on x86-64 Linux with Rust and Go, in about 40\n\
    minutes after the first build. `--only PART` repeats one part and leaves the others as they are. A real one-node\n\
    Kubernetes 1.34 with Traefik; `kubenap` as its image has it; all of the cluster and the clients on one machine.\n\n\
    Everything is compared with something else out of the same run, since a time alone says more about a machine\n\
    than about a program. Moments are taken from watches and from the client's clock; the API's own timestamps are\n\
    whole seconds.\n";
/// How each part begins, before its letter.
const BEGIN: &str = "\n## (";

/// Writes the page and its pictures. Parts that were not measured stay as the page has them.
pub(crate) fn write(report: &Report, page: &Path) -> Result<()> {
    let folder = page.with_extension("");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    for plot in report.parts.iter().flat_map(|part| &part.plots) {
        let file = folder.join(&plot.file).with_extension("svg");
        fs::write(&file, plot.svg()).with_context(|| format!("write {}", file.display()))?;
    }
    let before = match fs::read_to_string(page) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", page.display())),
    };
    fs::write(page, text(&before, report)).with_context(|| format!("write {}", page.display()))
}

/// The page, after what it was before.
fn text(before: &str, report: &Report) -> String {
    let mut sections: BTreeMap<&str, String> = before
        .split(BEGIN)
        .skip(1)
        .filter_map(|section| Some((section.get(..1)?, format!("{BEGIN}{section}"))))
        .collect();
    sections.extend(report.parts.iter().map(|part| (part.name, section(part, &report.machine))));
    sections.into_values().fold(HEAD.to_owned(), |page, section| page + &section)
}

fn section(part: &Part, machine: &Machine) -> String {
    let Machine { processors, model, memory_gib, kernel, load, day } = machine;
    let Part { name, title, how, rows, plots } = part;
    let mut text = format!(
        "{BEGIN}{name}) {title}\n\n{how}\n\n\
         Measured on {day} with {processors} processors ({model}), {memory_gib} GiB of memory, Linux {kernel}; the load \
         when the run began was {load:.1}.\n\n\
         | what | measured | beside | promise |\n| --- | --- | --- | --- |\n"
    );
    for row in rows {
        text += &format!("| {} | {} | {} | {} |\n", row.what, row.value, row.beside, row.verdict());
    }
    for plot in plots {
        text += &format!("\n![{}](benchmarks/{}.svg)\n", plot.title, plot.file);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::Row;

    fn report(parts: &[(&'static str, &str)]) -> Report {
        let machine = Machine {
            processors: 2,
            model: "model".to_owned(),
            memory_gib: 8,
            kernel: "6.1".to_owned(),
            load: 0.1,
            day: "2026-01-02".to_owned(),
        };
        let part = |(name, value): &(&'static str, &str)| Part {
            name,
            title: "title",
            how: "how".to_owned(),
            rows: vec![Row::new("what", 1.0, (*value).to_owned(), "beside")],
            plots: Vec::new(),
        };
        Report { parts: parts.iter().map(part).collect(), ..Report::new(machine, false) }
    }

    #[test]
    fn a_part_that_was_not_measured_stays_as_it_was() {
        let whole = text("", &report(&[("a", "one"), ("c", "three")]));
        let again = text(&whole, &report(&[("b", "two"), ("c", "four")]));
        assert_eq!(again, text("", &report(&[("a", "one"), ("b", "two"), ("c", "four")])));
        assert_eq!(text(&again, &report(&[])), again);
    }
}
