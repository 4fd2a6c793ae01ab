//! The API server's audit log: which writes KubeNap made, and how often an app was scaled.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The log, from a moment on.
pub(crate) struct Log {
    file: PathBuf,
    from: u64,
}

impl Log {
    /// From now on.
    pub(crate) fn begin(file: PathBuf) -> Result<Self> {
        let from = std::fs::metadata(&file).with_context(|| format!("look at {}", file.display()))?.len();
        Ok(Self { file, from })
    }

    /// KubeNap's successful writes since then: how many of each verb and resource.
    pub(crate) fn writes(&self) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        self.each(|event| {
            if is_ours(event) {
                let what = format!("{} {}", text(&event["verb"]), text(&event["objectRef"]["resource"]));
                *counts.entry(what).or_default() += 1;
            }
        })?;
        Ok(counts)
    }

    /// How often a Deployment's count went from zero to more since then.
    pub(crate) fn wakes(&self, namespace: &str, name: &str) -> Result<usize> {
        let (mut before, mut wakes) = (0, 0);
        self.each(|event| {
            let of = &event["objectRef"];
            if of["resource"] == "deployments"
                && of["namespace"] == namespace
                && of["name"] == name
                && let Some(now) = event["responseObject"]["spec"]["replicas"].as_u64()
            {
                wakes += usize::from(before == 0 && now > 0);
                before = now;
            }
        })?;
        Ok(wakes)
    }

    fn each(&self, mut look: impl FnMut(&Value)) -> Result<()> {
        let mut file = File::open(&self.file).with_context(|| format!("open {}", self.file.display()))?;
        file.seek(SeekFrom::Start(self.from))?;
        for line in BufReader::new(file).lines() {
            // The last line may still be on its way.
            let Ok(event) = serde_json::from_str::<Value>(&line?) else { continue };
            let code = event["responseStatus"]["code"].as_u64().unwrap_or(0);
            if event["stage"] == "ResponseComplete" && (200..300).contains(&code) {
                look(&event);
            }
        }
        Ok(())
    }
}

/// The members are the administrator here, as this program is, which writes nothing while it looks.
fn is_ours(event: &Value) -> bool {
    event["user"]["username"] == "admin"
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
