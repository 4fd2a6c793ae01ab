//! The members' logs, kept also when their pods are gone and the kubelet has cleared them away.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::members::HOME;

/// How often new logs are looked for; a container that is gone sooner leaves none.
const LOOK: Duration = Duration::from_millis(500);

/// The length of each log at some moment.
pub(crate) struct Mark(BTreeMap<PathBuf, u64>);

/// The logs; new ones are looked for until this is dropped.
pub(crate) struct Logs {
    folder: PathBuf,
    looking: AbortHandle,
}

impl Logs {
    /// Keeps what the kubelet writes below one folder in another, of the same file system.
    pub(crate) fn keep(kubelet: PathBuf, folder: PathBuf) -> Self {
        let to = folder.clone();
        let looking = tokio::spawn(async move {
            let mut ticks = interval(LOOK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                link(&kubelet, &to);
            }
        });
        Self { folder, looking: looking.abort_handle() }
    }

    /// The last lines of a member's log, of all its containers.
    pub(crate) fn tail(&self, identity: &str, lines: usize) -> String {
        let text: String =
            self.of(identity).iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
        let all: Vec<&str> = text.lines().map(said).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// How far each log has come, to ask later who has written since.
    pub(crate) fn mark(&self) -> Mark {
        let lengths = kept(&self.folder).into_iter().map(|path| {
            let length = length(&path);
            (path, length)
        });
        Mark(lengths.collect())
    }

    /// The members that have written something since.
    pub(crate) fn writers_since(&self, mark: &Mark) -> Vec<String> {
        let grown = |path: &PathBuf| mark.0.get(path).is_none_or(|known| length(path) > *known);
        let grown = kept(&self.folder).into_iter().filter(grown);
        let mut names: Vec<_> = grown.filter_map(|path| Some(owner(&path)?.0)).collect();
        names.sort();
        names.dedup();
        names
    }

    fn of(&self, identity: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = kept(&self.folder)
            .into_iter()
            .filter_map(|path| {
                let (name, number) = owner(&path)?;
                (name == identity).then_some((number, path))
            })
            .collect();
        files.sort();
        files.into_iter().map(|(_, path)| path).collect()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// Gives every log of a member a second name: it grows on under that, and outlives the first.
fn link(kubelet: &Path, folder: &Path) {
    for pod in entries(kubelet) {
        // NAMESPACE_POD_UID
        let name = pod.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut parts = name.split('_');
        let (Some(HOME), Some(pod_name)) = (parts.next(), parts.next()) else { continue };
        for log in entries(&pod.join("kubenap")) {
            let Some(number) = log.file_stem().and_then(|stem| stem.to_str()?.parse::<u32>().ok()) else {
                continue;
            };
            // It is there already, nearly always.
            fs::hard_link(&log, folder.join(format!("member-{pod_name}.{number}.log"))).unwrap_or(());
        }
    }
}

fn kept(folder: &Path) -> Vec<PathBuf> {
    entries(folder).into_iter().filter(|path| owner(path).is_some()).collect()
}

/// Whose log a file is, and of which of its containers.
fn owner(path: &Path) -> Option<(String, u32)> {
    let name = path.file_name()?.to_str()?.strip_prefix("member-")?.strip_suffix(".log")?;
    let (pod, number) = name.rsplit_once('.')?;
    Some((pod.to_owned(), number.parse().ok()?))
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// What a container wrote, without what the runtime puts before it: time, stream, and whether the line is whole.
fn said(line: &str) -> &str {
    line.splitn(4, ' ').nth(3).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{owner, said};

    #[test]
    fn a_log_is_its_pod_s_and_its_lines_are_what_the_container_wrote() {
        let path = Path::new("log/member-kubenap-7d4b9-x2x5z.1.log");
        assert_eq!(owner(path), Some(("kubenap-7d4b9-x2x5z".to_owned(), 1)));
        assert_eq!(owner(Path::new("log/audit.json")), None);
        assert_eq!(
            said("2026-11-22T10:00:00.1Z stderr F INFO started identity=m1"),
            "INFO started identity=m1"
        );
    }
}
