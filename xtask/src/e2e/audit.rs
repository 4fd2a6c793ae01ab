//! Reads the API server's audit log: who changed a Deployment, and to how many replicas.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The log of one API server.
#[derive(Clone)]
pub(crate) struct Audit {
    file: PathBuf,
}

/// One successful write on a Deployment or its scale.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Write {
    /// Where the log had this line, in bytes from its beginning.
    at: u64,
    resource_version: u64,
    /// `create`, `update`, `patch` or `delete`.
    pub(crate) verb: String,
    /// Who did it, as its User-Agent says.
    pub(crate) agent: String,
    /// The count after it.
    pub(crate) replicas: i64,
    /// `kubenap/phase` after it; none after a write through `scale`, which does not show it.
    pub(crate) phase: Option<String>,
}

/// A moment in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(u64);

impl Audit {
    /// The log in this file.
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Now: whatever is written later comes after it.
    pub(crate) fn now(&self) -> Result<Moment> {
        let length = std::fs::metadata(&self.file).map(|file| file.len());
        length.map(Moment).with_context(|| format!("look at the audit log {}", self.file.display()))
    }

    /// The writes since that moment, in the order in which the API server took them.
    pub(crate) fn writes_since(&self, since: Moment, namespace: &str, name: &str) -> Result<Vec<Write>> {
        Ok(self.writes(namespace, name)?.into_iter().filter(|write| write.at >= since.0).collect())
    }

    /// Those of the writes since that moment that changed the replica count.
    pub(crate) fn scalings_since(&self, since: Moment, namespace: &str, name: &str) -> Result<Vec<Write>> {
        let writes = self.writes(namespace, name)?;
        let changes = writes.windows(2).filter(|pair| pair[0].replicas != pair[1].replicas);
        Ok(changes.map(|pair| pair[1].clone()).filter(|write| write.at >= since.0).collect())
    }

    fn writes(&self, namespace: &str, name: &str) -> Result<Vec<Write>> {
        let text = std::fs::read_to_string(&self.file)
            .with_context(|| format!("read the audit log {}", self.file.display()))?;
        Ok(parse(&text, namespace, name))
    }
}

/// All successful writes on one Deployment; a last line that is still being written is left out.
fn parse(text: &str, namespace: &str, name: &str) -> Vec<Write> {
    let mut at = 0;
    let mut writes = Vec::new();
    for line in text.split_inclusive('\n') {
        let here = at;
        at += line.len() as u64;
        // Cheaper than parsing the many lines about other things.
        if line.ends_with('\n') && line.contains("\"resource\":\"deployments\"") && line.contains(name) {
            writes.extend(
                serde_json::from_str(line).ok().and_then(|event| write(&event, here, namespace, name)),
            );
        }
    }
    writes.sort_by_key(|write| write.resource_version);
    writes
}

fn write(event: &Value, at: u64, namespace: &str, name: &str) -> Option<Write> {
    let of = &event["objectRef"];
    let new = &event["responseObject"];
    let created = event["verb"] == "create" && new["metadata"]["name"] == name;
    if event["stage"] != "ResponseComplete"
        || of["namespace"] != namespace
        || !(of["name"] == name || created)
        || !(200..300).contains(&event["responseStatus"]["code"].as_i64()?)
    {
        return None;
    }
    Some(Write {
        at,
        resource_version: new["metadata"]["resourceVersion"].as_str()?.parse().ok()?,
        verb: event["verb"].as_str()?.to_owned(),
        agent: event["userAgent"].as_str().unwrap_or_default().to_owned(),
        replicas: new["spec"]["replicas"].as_i64().unwrap_or(0),
        phase: new["metadata"]["annotations"]["kubenap/phase"].as_str().map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn line(verb: &str, code: u16, version: u32, replicas: u32) -> String {
        serde_json::json!({
            "stage": "ResponseComplete", "verb": verb, "userAgent": "kubenap/0.1",
            "objectRef": {"resource": "deployments", "namespace": "shop", "name": "web"},
            "responseStatus": {"code": code},
            "responseObject": {"metadata": {"name": "web", "resourceVersion": version.to_string()}, "spec": {"replicas": replicas}},
        })
        .to_string()
            + "\n"
    }

    #[test]
    fn writes_come_in_the_order_of_their_versions_without_failures_and_half_lines() {
        let late_line = line("patch", 200, 9, 3);
        let text =
            late_line.clone() + &line("patch", 200, 7, 0) + &line("patch", 409, 8, 0) + &late_line[..40];
        let writes = parse(&text, "shop", "web");
        assert_eq!(writes.iter().map(|write| write.replicas).collect::<Vec<_>>(), [0, 3]);
        assert_eq!(writes[0].at, late_line.len() as u64);
        assert_eq!(parse(&text, "shop", "other"), []);
    }
}
