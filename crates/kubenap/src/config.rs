//! The YAML file of `--config`: flags of the same names, and `sources` by name. What is typed goes before the environment, that before the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::CommandFactory as _;
use kubenap_controller::activity::{SourceArg, SourceSpec, resolve};

use crate::args::{Args, Command};

/// A file's value for one flag.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
enum Value {
    Flag(bool),
    Number(i64),
    Text(String),
    List(Vec<String>),
    Other(serde_json::Value),
}

/// The sources of a file as they stand there. They are read only by commands that ask them: others may run where their
/// credentials are not.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    file: String,
    given: serde_json::Map<String, serde_json::Value>,
}

/// The one key of the file that is no flag.
const SOURCES: &str = "sources";

/// What was typed to `kubectl nap`, which runs the program under the name `kubectl-nap`: `kubectl nap shop/web` naps.
pub(crate) fn as_plugin(mut typed: Vec<OsString>) -> Vec<OsString> {
    let name = typed.first().and_then(|name| Path::new(name).file_stem());
    if name.is_some_and(|name| name == "kubectl-nap") {
        let root = Args::command();
        let first = first_word(&root, &typed);
        if first.is_some_and(|word| word != "help" && root.find_subcommand(word).is_none()) {
            typed.insert(1, "nap".into());
        }
    }
    typed
}

/// The first argument that is neither a flag nor a flag's value: the command, if it is one.
fn first_word<'a>(root: &clap::Command, typed: &'a [OsString]) -> Option<&'a OsString> {
    let takes_value = |flag: &str| {
        root.get_arguments().any(|arg| {
            let long = arg.get_long().is_some_and(|long| flag == format!("--{long}"));
            let short = arg.get_short().is_some_and(|short| flag == format!("-{short}"));
            (long || short) && arg.get_action().takes_values()
        })
    };
    let mut args = typed.iter().skip(1);
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        if !text.starts_with('-') {
            return Some(arg);
        }
        if takes_value(&text) {
            args.next();
        }
    }
    None
}

/// What was typed, with the file's flags added where neither the command line nor the environment has them.
/// The file's sources are not flags: they are given apart.
pub(crate) fn with_file(mut typed: Vec<OsString>) -> anyhow::Result<(Vec<OsString>, Sources)> {
    let Some(path) = path(&typed) else { return Ok((typed, Sources::default())) };
    let shown = path.to_string_lossy().into_owned();
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read the config file {shown}"))?;
    let mut values: BTreeMap<String, Value> = serde_saphyr::from_str(&text)
        .with_context(|| format!("the config file {shown} is not understood"))?;
    let root = Args::command();
    let (known, common) = known(&root, &typed);
    let mut mistakes = Vec::new();
    let mut sources = Sources { file: shown.clone(), ..Sources::default() };
    match values.remove(SOURCES) {
        None => {}
        Some(Value::Other(serde_json::Value::Object(given))) => sources.given = given,
        Some(_) => mistakes
            .push(format!("{shown}: `{SOURCES}` is not understood; accepted: settings by the source's name")),
    }
    for (name, value) in values {
        let Some(env) = known.get(&name) else {
            // A file may serve several commands: flags of another one are none of this one's business.
            if !common.contains(&name) {
                mistakes.push(format!(
                    "{shown}: `{name}` is not a flag; accepted: the long flags of kubenap run, without dashes"
                ));
            }
            continue;
        };
        let flag = format!("--{name}");
        let short =
            root.get_arguments().find(|arg| arg.get_long() == Some(&name)).and_then(clap::Arg::get_short);
        let short = short.map(|short| format!("-{short}"));
        let is_typed = |arg: &OsString| {
            let arg = arg.to_string_lossy();
            let by_short =
                short.as_ref().is_some_and(|short| arg.starts_with(short.as_str()) && !arg.starts_with("--"));
            arg == flag || arg.starts_with(&format!("{flag}=")) || by_short
        };
        if typed.iter().any(is_typed) || std::env::var_os(env).is_some() {
            continue;
        }
        match value {
            Value::Flag(true) => typed.push(flag.into()),
            Value::Flag(false) => {}
            Value::Number(number) => typed.push(format!("{flag}={number}").into()),
            Value::Text(text) => typed.push(format!("{flag}={text}").into()),
            Value::Other(_) => mistakes.push(format!(
                "the config file {shown} is not understood: `{name}` is neither a text nor a list of texts"
            )),
            Value::List(items) => typed.extend(items.iter().map(|item| format!("{flag}={item}").into())),
        }
    }
    if !mistakes.is_empty() {
        bail!("{}", mistakes.join("\n"));
    }
    Ok((typed, sources))
}

impl Sources {
    fn read(&self) -> anyhow::Result<BTreeMap<String, SourceSpec>> {
        let mut specs = BTreeMap::new();
        let mut mistakes = Vec::new();
        for (name, settings) in &self.given {
            match SourceSpec::read(name, settings.clone()) {
                Ok(spec) => drop(specs.insert(name.clone(), spec)),
                Err(wrong) => {
                    mistakes.extend(wrong.iter().map(|mistake| format!("{}: {mistake}", self.file)));
                }
            }
        }
        if mistakes.is_empty() { Ok(specs) } else { bail!("{}", mistakes.join("\n")) }
    }
}

/// What was typed, with the sources that it and the file come to.
pub(crate) fn with_sources(mut args: Args, file: &Sources) -> anyhow::Result<Args> {
    let resolved = |named: &[SourceArg]| {
        resolve(named, &file.read()?).map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(|error| format!("--source: {error}")).collect();
            anyhow::anyhow!(errors.join("\n"))
        })
    };
    match &mut args.command {
        Command::Run(run) => run.sources = resolved(&run.source)?,
        Command::Simulate(simulate) => simulate.sources = resolved(&simulate.source)?,
        _ => {}
    }
    Ok(args)
}

fn path(typed: &[OsString]) -> Option<OsString> {
    let mut args = typed.iter();
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().cloned();
        }
        if let Some(path) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    std::env::var_os("KUBENAP_CONFIG")
}

/// The long flags of the command that was typed with their environment variables, and those of every command.
fn known(root: &clap::Command, typed: &[OsString]) -> (BTreeMap<String, String>, Vec<String>) {
    let flags = |command: &clap::Command| -> BTreeMap<String, String> {
        let args = command.get_arguments().chain(root.get_arguments());
        args.filter_map(|arg| {
            let env = arg.get_env().map(|env| env.to_string_lossy().into_owned()).unwrap_or_default();
            Some((arg.get_long()?.to_owned(), env))
        })
        .collect()
    };
    let chosen = first_word(root, typed).and_then(|word| root.find_subcommand(word));
    let all = root.get_subcommands().flat_map(|command| flags(command).into_keys()).collect();
    (chosen.map(flags).unwrap_or_default(), all)
}
