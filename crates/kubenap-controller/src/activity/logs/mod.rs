//! Access logs: each line is a request, told apart by who asked for what.
//!
//! A line that is read while it is written counts at the moment of reading; at the start, the last hour counts by the
//! lines' own times. Silence in a log is no sign of life: of a file, unless it is declared to be one, the watermark is
//! the moment of the last line, whatever it was; of a container, the moment at which its log was read to its end. Lines
//! that fit no format are counted, and too many of them make the source blind. Where lines may be lost, as after a
//! truncation, knowledge begins again.

mod line;
mod json;
mod when;
mod book;
mod split;
mod follow;
mod files;
mod pods;
mod recent;
#[cfg(test)]
mod as_written;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kubenap_core::app::AppId;

use super::spec::{Kind, Setup, With};
use super::{SourceError, SpecError, TrafficMetricsSource};

use files::FilesSource;
use line::Format;
use pods::{Choice, PodsSource};

/// `logs=PATH`, `logs=pods:LABELS`, or with more settings in the config file.
pub(super) const KIND: Kind = Kind {
    name: "logs",
    forms: "logs=PATH, logs=pods:LABELS",
    short: |from| {
        let from = from.and_then(|from| match from.strip_prefix(PODS) {
            Some(labels) => Choice::of(labels).map(From::Pods),
            None => from.starts_with('/').then(|| From::Files(vec![PathBuf::from(from)])),
        });
        match from {
            Some(from) => Ok(Arc::new(LogsSetup { from, ..LogsSetup::default() })),
            None => Err(SpecError::Incomplete {
                name: "logs".to_owned(),
                what: "needs the path of an access log, or the labels of pods: logs=/var/log/nginx/access.log or logs=pods:app.kubernetes.io/name=traefik".to_owned(),
            }),
        }
    },
    read: |fields| {
        let files: Vec<_> = fields.texts("files").into_iter().map(PathBuf::from).collect();
        let labels = fields.text("pods");
        let (namespace, container) = (fields.text("namespace"), fields.text("container"));
        let chosen = labels.as_deref().and_then(Choice::of);
        if labels.is_some() && chosen.is_none() {
            fields.mistake(
                "pods",
                "is not understood; accepted: labels such as app.kubernetes.io/name=traefik",
            );
        }
        if files.is_empty() && labels.is_none() {
            fields.mistake("files", "is missing; accepted: paths of access logs, or pods instead");
        }
        if !files.is_empty() && labels.is_some() {
            fields.mistake("files", "stands beside pods; accepted: one of them");
        }
        for (name, given) in [("namespace", &namespace), ("container", &container)] {
            if given.is_some() && labels.is_none() {
                fields.mistake(name, "belongs to pods, which is missing");
            }
        }
        let format = fields.word("format", &Format::WORDS, None);
        let service = fields.text("service").and_then(|text| {
            let service = text.parse::<AppId>().ok();
            if service.is_none() {
                fields.mistake("service", &format!("`{text}` is not understood; accepted: NAMESPACE/NAME"));
            }
            service.map(|service| service.to_string())
        });
        let trust_silence = fields.flag("trustSilence");
        let every = fields.duration("every", Duration::from_millis(100));
        for (name, given) in [("trustSilence", trust_silence), ("every", every.is_some())] {
            if given && labels.is_some() {
                fields.mistake(name, "belongs to files; a container's log is read to its end by each poll");
            }
        }
        let from = match chosen {
            Some(choice) => From::Pods(Choice { namespace, container, ..choice }),
            None => From::Files(files),
        };
        Arc::new(LogsSetup { from, format, service, every: every.unwrap_or(PERIOD), trust_silence })
    },
};

/// All that a source of logs is told.
#[derive(Clone, Debug)]
struct LogsSetup {
    from: From,
    /// None: each line is recognised by itself.
    format: Option<Format>,
    /// The one Service to which every line belongs, as `namespace/name`.
    service: Option<String>,
    /// How often files are read between polls; a file that is rotated twice meanwhile has lost lines.
    every: Duration,
    /// Whether a file that is there and does not grow means that nothing came.
    trust_silence: bool,
}

/// Where the lines are.
#[derive(Clone, Debug)]
enum From {
    Files(Vec<PathBuf>),
    Pods(Choice),
}

const PODS: &str = "pods:";

/// How often files are read between polls.
const PERIOD: Duration = Duration::from_secs(1);

impl Default for LogsSetup {
    fn default() -> Self {
        Self {
            from: From::Files(Vec::new()),
            format: None,
            service: None,
            every: PERIOD,
            trust_silence: false,
        }
    }
}

impl Setup for LogsSetup {
    fn build(&self, name: String, with: &With<'_>) -> Result<Arc<dyn TrafficMetricsSource>, SourceError> {
        Ok(match &self.from {
            From::Files(paths) => Arc::new(FilesSource::new(name, paths, self)),
            From::Pods(choice) => Arc::new(PodsSource::new(name, with.client.clone(), choice.clone(), self)),
        })
    }
}
