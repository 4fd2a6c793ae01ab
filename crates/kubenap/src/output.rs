//! Data to stdout, everything else to stderr, in few and concrete words.

use std::process::ExitCode;

use anyhow::Context as _;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::args::Format;
use crate::outcome::Outcome;

/// One line of data.
pub(crate) fn line(text: &str) {
    anstream::println!("{text}");
}

/// One line about what is going on.
pub(crate) fn note(text: &str) {
    anstream::eprintln!("{text}");
}

/// Says why a command failed, cause by cause; hints on lines of their own.
pub(crate) fn failed(error: &anyhow::Error, outcome: Outcome) -> ExitCode {
    let mut said: Vec<String> = Vec::new();
    let mut hints: Vec<String> = Vec::new();
    for cause in error.chain().filter(|cause| cause.downcast_ref::<Outcome>().is_none()) {
        for line in cause.to_string().lines() {
            match line.strip_prefix("hint: ") {
                Some(hint) => hints.push(hint.to_owned()),
                None if said.iter().any(|before| before.contains(line)) => {}
                None => said.push(line.to_owned()),
            }
        }
    }
    note(&format!("error: {}", said.join(": ")));
    for hint in hints {
        note(&format!("hint: {hint}"));
    }
    outcome.code()
}

/// clap's own messages: help and version are data, the rest is wrong usage.
pub(crate) fn clap_error(error: &clap::Error) -> ExitCode {
    match error.kind() {
        clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => {
            line(error.render().ansi().to_string().trim_end());
            Outcome::Done.code()
        }
        _ => {
            note(error.render().ansi().to_string().trim_end());
            Outcome::Usage.code()
        }
    }
}

/// JSON or YAML.
pub(crate) fn data<T: Serialize>(value: &T, format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Yaml => serde_saphyr::to_string(value).context("cannot write YAML")?,
        Format::Json | Format::Wide => serde_json::to_string_pretty(value).context("cannot write JSON")?,
    };
    line(text.trim_end());
    Ok(())
}

/// A table without frames, as people know it from kubectl.
pub(crate) fn table(head: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for text in table.to_string().lines() {
        line(text.trim());
    }
}
