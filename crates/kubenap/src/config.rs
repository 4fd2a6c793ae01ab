//! The YAML file of `--config`: flags of the same names. What is typed goes before the environment, that before the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::CommandFactory as _;

use crate::args::Args;

/// A file's value for one flag.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
enum Value {
    Flag(bool),
    Number(i64),
    Text(String),
    List(Vec<String>),
}

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
pub(crate) fn with_file(mut typed: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    let Some(path) = path(&typed) else { return Ok(typed) };
    let shown = path.to_string_lossy().into_owned();
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read the config file {shown}"))?;
    let values: BTreeMap<String, Value> = serde_saphyr::from_str(&text)
        .with_context(|| format!("the config file {shown} is not understood"))?;
    let root = Args::command();
    let (known, common) = known(&root, &typed);
    let mut mistakes = Vec::new();
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
            Value::List(items) => typed.extend(items.iter().map(|item| format!("{flag}={item}").into())),
        }
    }
    if !mistakes.is_empty() {
        bail!("{}", mistakes.join("\n"));
    }
    Ok(typed)
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
