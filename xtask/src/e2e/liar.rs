//! A source of metrics that lies when it is told to: it hands on what the real one says, or something else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// How it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// It does not.
    Honest,
    /// A good answer with nothing in it.
    Empty,
    /// Somebody's login page, with status 200.
    Html,
    /// Status 500.
    Fails,
    /// The truth, but later than anybody waits for it.
    Slow,
    /// The truth up to the middle; then the connection ends.
    CutOff,
    /// The truth of long ago, by its own timestamps.
    Old,
    /// The last truth over and over again, as a cache has it.
    Cached,
    /// Every counter begins again, near zero, with each answer.
    Reset,
}

/// What the real one speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// Prometheus' query API.
    Prometheus,
    /// A page of metrics.
    Page,
}

/// It listens until this is dropped.
pub(crate) struct Liar {
    mind: Arc<Mutex<Mind>>,
    listening: AbortHandle,
}

struct Mind {
    lie: Lie,
    speech: Speech,
    real: SocketAddr,
    /// How often it was asked.
    asked: u64,
    /// What was true when it was honest last, by question.
    known: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Longer than KubeNap waits for a source.
const LATE: Duration = Duration::from_secs(15);
/// How long the real one, and whoever asks, may take.
const EXCHANGE: Duration = Duration::from_secs(10);
/// The longest question.
const MOST: usize = 64 << 10;
/// What the heartbeat asks for, and nothing else does.
const HEARTBEAT: &[u8] = b"process_start_time_seconds";
/// The page's counter whose values are made up.
const COUNTER: &str = "traefik_service_requests_total";

impl Liar {
    /// Listens at `here`, in front of the real one. It is honest at first.
    pub(crate) async fn listen(here: SocketAddr, real: SocketAddr, speech: Speech) -> Result<Self> {
        let listener = TcpListener::bind(here).await.with_context(|| format!("listen at {here}"))?;
        let mind = Mind { lie: Lie::Honest, speech, real, asked: 0, known: BTreeMap::new() };
        let mind = Arc::new(Mutex::new(mind));
        let shared = Arc::clone(&mind);
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mind = Arc::clone(&shared);
                // Who is not answered sees it; there is nobody else to tell.
                tokio::spawn(async move { drop(answer(&mind, stream).await) });
            }
        });
        Ok(Self { mind, listening: listening.abort_handle() })
    }

    /// From now on it lies like this.
    pub(crate) fn tell(&self, lie: Lie) {
        lock(&self.mind).lie = lie;
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> u64 {
        lock(&self.mind).asked
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn lock(mind: &Mutex<Mind>) -> std::sync::MutexGuard<'_, Mind> {
    mind.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(mind: &Mutex<Mind>, mut stream: TcpStream) -> Result<()> {
    let question = timeout(EXCHANGE, read_question(&mut stream)).await??;
    let (lie, speech, real, asked) = {
        let mut mind = lock(mind);
        mind.asked += 1;
        (mind.lie, mind.speech, mind.real, mind.asked)
    };
    let known = || lock(mind).known.get(&question).cloned();
    let old = if matches!(lie, Lie::Old | Lie::Cached) { known() } else { None };
    let truth = match old {
        Some(old) => old,
        None => timeout(EXCHANGE, ask(real, &question)).await??,
    };
    let (status, kind, body) = match lie {
        Lie::Honest => {
            lock(mind).known.insert(question.clone(), truth.clone());
            ("200 OK", plain(speech), truth)
        }
        Lie::CutOff | Lie::Cached => ("200 OK", plain(speech), truth),
        Lie::Slow => {
            sleep(LATE).await;
            ("200 OK", plain(speech), truth)
        }
        Lie::Empty => ("200 OK", plain(speech), empty(speech, &question)),
        Lie::Html => (
            "200 OK",
            "text/html; charset=utf-8",
            b"<!doctype html><title>Sign in</title><form></form>\n".to_vec(),
        ),
        Lie::Fails => ("500 Internal Server Error", "text/plain", b"out of memory\n".to_vec()),
        Lie::Old => ("200 OK", plain(speech), aged(speech, truth)),
        Lie::Reset => ("200 OK", plain(speech), reset(speech, &question, truth, asked)),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let sent = if lie == Lie::CutOff { body.len() / 2 } else { body.len() };
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.get(..sent).unwrap_or_default()).await?;
    stream.shutdown().await.context("end an answer")
}

/// A whole request: its head, and what its Content-Length promises.
async fn read_question(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut question = Vec::new();
    loop {
        if let Some(end) = question.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&question[..end]).to_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if question.len() >= end + 4 + length.unwrap_or(0) {
                return Ok(question);
            }
        }
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await?;
        anyhow::ensure!(read > 0 && question.len() < MOST, "a question that does not end");
        question.extend_from_slice(&piece[..read]);
    }
}

/// What the real one answers: the body. Asked in HTTP/1.0, it does not cut it into chunks.
async fn ask(real: SocketAddr, question: &[u8]) -> Result<Vec<u8>> {
    let text = String::from_utf8_lossy(question).replacen("HTTP/1.1\r\n", "HTTP/1.0\r\n", 1);
    let mut stream = TcpStream::connect(real).await.with_context(|| format!("connect to {real}"))?;
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("an answer without a head")?;
    Ok(answer.split_off(end + 4))
}

fn plain(speech: Speech) -> &'static str {
    match speech {
        Speech::Prometheus => "application/json",
        Speech::Page => "text/plain; version=0.0.4; charset=utf-8",
    }
}

fn empty(speech: Speech, question: &[u8]) -> Vec<u8> {
    let kind = if question.windows(11).any(|part| part == b"query_range") { "matrix" } else { "vector" };
    match speech {
        Speech::Prometheus => {
            json!({"status": "success", "data": {"resultType": kind, "result": []}}).to_string().into_bytes()
        }
        Speech::Page => Vec::new(),
    }
}

/// Evaluated now, of what was scraped long ago.
fn aged(speech: Speech, truth: Vec<u8>) -> Vec<u8> {
    let now = super::clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match speech {
        Speech::Prometheus => each_value(truth, |row| row["value"][0] = now.as_secs_f64().into()),
        Speech::Page => {
            let long_ago = now.saturating_sub(Duration::from_secs(3600)).as_millis();
            each_line(&truth, |line| format!("{line} {long_ago}"))
        }
    }
}

fn reset(speech: Speech, question: &[u8], truth: Vec<u8>, asked: u64) -> Vec<u8> {
    // Another one each time, however many questions a poll has.
    let low = asked % 7 + 1;
    match speech {
        // Only the heartbeat asks for it, and it counts nothing.
        Speech::Prometheus if question.windows(HEARTBEAT.len()).any(|part| part == HEARTBEAT) => truth,
        Speech::Prometheus => each_value(truth, |row| {
            // What is open is no counter.
            if row["metric"]["kubenap"].as_str().is_some_and(|mark| !mark.contains('~')) {
                row["value"][1] = low.to_string().into();
            }
        }),
        Speech::Page => each_line(&truth, |line| match line.rsplit_once(' ') {
            Some((series, _)) if line.starts_with(COUNTER) => format!("{series} {low}"),
            _ => line.to_owned(),
        }),
    }
}

/// Changes each row of an instant query's answer: whose, when, and what.
fn each_value(truth: Vec<u8>, change: impl Fn(&mut Value)) -> Vec<u8> {
    let Ok(mut answer) = serde_json::from_slice::<Value>(&truth) else { return truth };
    for row in answer["data"]["result"].as_array_mut().into_iter().flatten() {
        if row.get("value").is_some() {
            change(row);
        }
    }
    answer.to_string().into_bytes()
}

/// Changes each sample of a page of metrics.
fn each_line(truth: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let page = String::from_utf8_lossy(truth);
    let lines = page.lines().map(|line| if line.starts_with('#') { line.to_owned() } else { change(line) });
    lines.map(|line| line + "\n").collect::<String>().into_bytes()
}
