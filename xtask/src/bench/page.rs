//! docs/benchmarks.md, with its plots beside it: on what machine, how to repeat it, and ratios before all else.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::figures::Report;

/// Writes the page and its pictures.
pub(crate) fn write(report: &Report, page: &Path) -> Result<()> {
    let folder = page.with_extension("");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    for plot in report.parts.iter().flat_map(|part| &part.plots) {
        let file = folder.join(&plot.file).with_extension("svg");
        fs::write(&file, plot.svg()).with_context(|| format!("write {}", file.display()))?;
    }
    fs::write(page, text(report)).with_context(|| format!("write {}", page.display()))
}

fn text(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench`, which repeats all of it: as root on x86-64 Linux with Rust and Go, in about 25\n\
         minutes after the first build. A real one-node Kubernetes 1.34 with Traefik; `kubenap` as its image has it.\n\
         Everything is compared with something else out of the same run, since a time alone says more about a machine\n\
         than about a program.\n\n\
         This run: {} processors ({}), {} GiB of memory, Linux {}, all of the cluster and the clients on this one machine.\n\
         Its load when the run began was {:.1}.\n\n\
         Moments are taken from watches and from the client's clock; the API's own timestamps are whole seconds.\n",
        machine.processors, machine.model, machine.memory_gib, machine.kernel, machine.load
    );
    for part in &report.parts {
        text += &format!(
            "\n## {}\n\n{}\n\n| what | measured | beside | promise |\n| --- | --- | --- | --- |\n",
            part.title, part.how
        );
        for row in &part.rows {
            text += &format!("| {} | {} | {} | {} |\n", row.what, row.value, row.beside, row.verdict());
        }
        for plot in &part.plots {
            text += &format!("\n![{}](benchmarks/{}.svg)\n", plot.title, plot.file);
        }
    }
    text
}
