//! The clients that people use, each with its own idea of a redirect, at an app that sleeps behind each proxy.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use super::matrix::{self, Table};
use super::stage::{Lane, Stage};
use super::way::Way;
use super::{Counts, prepare, until_hooks_are_known};
use crate::e2e::say;
use crate::e2e::world::Space;

/// Through each program twice, by substitution and by its own error path; Traefik has two of those.
const WAYS: [&str; 11] = [
    "nginx",
    "ngxtext",
    "ingress",
    "treerr",
    "trefail",
    "envoy",
    "envoylua",
    "haproxy",
    "hatext",
    "caddy",
    "caddytext",
];
/// They follow no redirect, and say so to whoever reads their manual.
const NOT_FOLLOWING: [&str; 4] =
    ["curl, not following", "Python httpx, not following", "Node http", "Java HttpClient, as it comes"];
/// What clients make of a 307 who cannot send their body again, or ask no URL twice: where a proxy's error path has nothing to
/// pass, KubeNap has no better answer. Each is a fact of the client, and one more reason for substitution.
const NOT_AGAIN: [(&str, &str, &str); 8] = [
    ("Go net/http", "stream", "307, not the app"),
    ("Node fetch", "stream", "TypeError: fetch failed"),
    ("Python httpx", "stream", "StreamConsumed"),
    ("Python httpx", "stream", "200, POST of 0 bytes"),
    ("Python requests", "stream", "200, POST of 0 bytes"),
    ("Python urllib", "POST", "HTTPError 307"),
    ("curl -L", "stream", "curl: (65) seek callback returned error 2 exit 65"),
    ("ws", "WebSocket", "307"),
];
const LONGEST: Duration = Duration::from_secs(120);

/// What one client met with one kind of request.
struct Met {
    client: String,
    version: String,
    kind: String,
    happened: String,
}

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    let programs = prepare(space).await?;
    let output = space.world.cluster.script("parts/clients").output().await.context("run parts/clients")?;
    ensure!(output.status.success(), "parts/clients: {}", String::from_utf8_lossy(&output.stderr).trim());
    let commands = String::from_utf8_lossy(&output.stdout).into_owned();
    // For somebody who works on one of them; the table is written only with all.
    let chosen = std::env::var("E2E_WAYS").unwrap_or_default();
    let chosen: Vec<_> = chosen.split_whitespace().collect();
    let wanted = |way: &Way| WAYS.contains(&way.name) && (chosen.is_empty() || chosen.contains(&way.name));
    let stage = Stage::set_patient(space, &programs, wanted).await?;
    stage.hook(&programs).await?;
    until_hooks_are_known(space).await?;

    let (mut table, mut wrong) = (Table::default(), Vec::new());
    for (place, lane) in stage.lanes.iter().enumerate() {
        stage.sleep([&*lane.slow.app]).await?;
        let version = programs.version(lane.way.program)?;
        let column = format!("{place:02}. {} {version}: {}", lane.way.program.title(), lane.way.form);
        let hosts = space.world.cluster.logs().join(format!("hosts-{}", lane.way.name));
        fs::write(&hosts, format!("127.0.0.1 localhost\n{} {}\n", lane.slow.http.ip(), lane.slow.host))
            .with_context(|| format!("write {}", hosts.display()))?;
        // All at once, so that all of them meet an app that sleeps.
        let runs = commands.lines().map(|command| meet(lane, &hosts, command));
        for mut met in futures::future::try_join_all(runs).await?.into_iter().flatten() {
            if met.kind.starts_with("gRPC")
                && let Some(why) = lane.way.impossible("grpc")
            {
                met.happened = format!("not possible: {why}");
            }
            say(&format!("   {column}, {} {}: {}", met.client, met.kind, met.happened));
            if !met.is_right(!lane.way.substitutes()) {
                wrong.push(format!("{column}, {} {}: {}", met.client, met.kind, met.happened));
            }
            let row = table.entry(format!("{}: {}", met.client, met.kind)).or_insert_with(BTreeMap::new);
            row.insert("version".to_owned(), met.version);
            row.insert(column.clone(), met.happened);
        }
    }
    ensure!(wrong.is_empty(), "{} clients were not served:\n{}", wrong.len(), wrong.join("\n"));
    let rows = table.len() as u64;
    if chosen.is_empty() {
        matrix::write_clients(&table).context("write the clients' table")?;
    }
    Ok(vec![("clients and kinds", rows), ("proxies", stage.lanes.len() as u64)])
}

/// Runs the clients of one language against the slow app of a lane, with its name in their list of hosts.
async fn meet(lane: &Lane, hosts: &Path, command: &str) -> Result<Vec<Met>> {
    let (address, host) = (lane.slow.http, &lane.slow.host);
    let mut run = Command::new("unshare");
    run.args(["--mount", "bash", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
    run.args(command.split_whitespace()).arg(format!("http://{host}:{}", address.port()));
    run.arg(format!("{host}:{}", lane.slow.grpc.port()));
    let output = timeout(LONGEST, run.kill_on_drop(true).output()).await;
    let output = output.with_context(|| format!("{command} has not ended"))?.context("run the clients")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let met: Vec<_> = said.lines().filter_map(Met::read).collect();
    ensure!(!met.is_empty(), "{command} said {said:?}, {}", String::from_utf8_lossy(&output.stderr));
    Ok(met)
}

impl Met {
    fn read(line: &str) -> Option<Self> {
        let mut parts = line.split('\t').map(str::to_owned);
        let mut next = || parts.next();
        Some(Self { client: next()?, version: next()?, kind: next()?, happened: next()? })
    }

    /// The app's own answer to the whole request; a redirect for those that do not follow. On an error path the app is waited
    /// for where it was asked first, so that these may be told so or be answered by it.
    fn is_right(&self, on_error_path: bool) -> bool {
        let is = |(client, kind, happened): &(&str, &str, &str)| {
            (self.client.as_str(), self.kind.as_str(), self.happened.as_str()) == (*client, *kind, *happened)
        };
        let was_answered =
            self.kind == "GET" && ["200, GET of 0 bytes", "200, not the app"].contains(&&*self.happened);
        let stays = NOT_FOLLOWING.contains(&&*self.client);
        if on_error_path && (NOT_AGAIN.iter().any(is) || (stays && was_answered)) {
            return true;
        }
        let wanted = match &*self.kind {
            "GET" if NOT_FOLLOWING.contains(&&*self.client) => "307, not the app",
            "GET" => "200, GET of 0 bytes",
            "WebSocket" => "101, echo",
            "gRPC" | "gRPC stream" if self.happened.starts_with("not possible: ") => return true,
            "gRPC" | "gRPC stream" => "OK, echo",
            // A person who is shown the page for waiting has only to wait.
            "navigation" => {
                let answer = self.happened.strip_suffix(", after the page").unwrap_or(&self.happened);
                return answer == "200, GET of 0 bytes";
            }
            _ => "200, POST of 10 bytes",
        };
        self.happened == wanted
    }
}

#[cfg(test)]
mod tests {
    use super::Met;

    #[test]
    fn a_body_that_was_lost_on_the_way_is_seen() {
        let right = |line| Met::read(line).expect("a line").is_right(false);
        assert!(right("Go net/http\t1.26\tstream\t200, POST of 10 bytes"));
        assert!(!right("Python requests\t2.32\tstream\t200, POST of 0 bytes"));
        assert!(right("Node http\t20\tGET\t307, not the app") && !right("axios\t1\tGET\t307, not the app"));
        assert!(right("Chromium\t156\tnavigation\t200, GET of 0 bytes, after the page"));
        assert!(!right("Chromium\t156\tnavigation\t200, 'Waking up'"));
        assert!(Met::read("Go\t1").is_none());
        let late = |line| Met::read(line).expect("a line").is_right(true);
        assert!(late("Python requests\t2.32\tstream\t200, POST of 0 bytes"));
        assert!(!late("Python requests\t2.32\tPOST\t200, POST of 0 bytes"));
        assert!(late("Node http\t20\tGET\t200, GET of 0 bytes") && !late("axios\t1\tGET\t503, not the app"));
    }
}
