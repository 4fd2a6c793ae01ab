//! Runs the stories one after the other, each in a fresh namespace, and prints what failed and a table at the end.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, timeout};

use super::cluster::Cluster;
use super::logs::Mark;
use super::members::{HOME, Settings};
use super::progress::say;
use super::stories::{Counts, LONG, STORIES, Story};
use super::world::{Space, World};

/// The longest that one story may take.
const LONGEST: Duration = Duration::from_secs(40 * 60);
/// How many lines of each log a failure shows.
const TAIL: usize = 60;

struct Outcome {
    story: &'static Story,
    result: Result<Counts>,
    took: Duration,
}

/// Names the stories, each with its sentence.
pub(crate) fn list() -> Result<()> {
    let mut out = io::stdout().lock();
    for story in STORIES {
        let mark = if LONG.contains(&story.name) { " (--all)" } else { "" };
        writeln!(out, "{:<9} {}{mark}", story.name, story.sentence)?;
    }
    Ok(())
}

/// The names of the stories that are told unless others are asked for.
pub(crate) fn everyday() -> Vec<String> {
    let names = STORIES.iter().map(|story| story.name);
    names.filter(|name| !LONG.contains(name)).map(str::to_owned).collect()
}

/// The stories of these names; none means all.
pub(crate) fn chosen(only: &[String]) -> Result<Vec<&'static Story>> {
    if let Some(unknown) = only.iter().find(|name| !STORIES.iter().any(|story| story.name == **name)) {
        let known: Vec<&str> = STORIES.iter().map(|story| story.name).collect();
        bail!("there is no story {unknown:?}; there are {}", known.join(", "));
    }
    Ok(STORIES.iter().filter(|story| only.is_empty() || only.iter().any(|name| name == story.name)).collect())
}

/// Whether this story is among them.
pub(crate) fn wants(story: &str, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|name| name == story)
}

/// Runs the stories; the exit code is 1 if any failed.
pub(crate) async fn run(cluster: Cluster, kubenap: PathBuf, only: &[String], keep: bool) -> Result<ExitCode> {
    let _alone = alone(&cluster)?;
    let world = Arc::new(World::connect(cluster, kubenap).await?);
    let mut outcomes = Vec::new();
    let interrupted = tokio::select! {
        () = run_all(&world, chosen(only)?, keep, &mut outcomes) => false,
        _ = tokio::signal::ctrl_c() => true,
    };
    io::stdout().lock().write_all(table(&outcomes).as_bytes())?;
    if interrupted {
        bail!("interrupted");
    }
    let failed = outcomes.iter().any(|outcome| outcome.result.is_err());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Held while stories run: two runs in one cluster would take each other's addresses.
fn alone(cluster: &Cluster) -> Result<File> {
    let path = cluster.logs().join("stories.lock");
    let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    file.try_lock().context("another run of the stories uses this cluster; wait for it to end")?;
    Ok(file)
}

async fn run_all(world: &Arc<World>, stories: Vec<&'static Story>, keep: bool, outcomes: &mut Vec<Outcome>) {
    for story in stories {
        say(&format!("\n── {}: {}", story.name, story.sentence));
        let (begun, mark) = (Instant::now(), world.members.logs().mark());
        let namespace = format!("{}-{}", story.name, std::process::id());
        let space = Space { world: Arc::clone(world), namespace };
        let told = timeout(LONGEST, tell(story, &space)).await;
        let result = told.unwrap_or_else(|_| Err(anyhow::anyhow!("not done after {} s", LONGEST.as_secs())));
        let took = begun.elapsed();
        match &result {
            Ok(counts) => {
                say(&format!("── {}: ok, {:.1} s, {}", story.name, took.as_secs_f64(), join(counts)));
            }
            Err(error) => {
                say(&format!("── {}: FAILED after {:.1} s: {error:#}", story.name, took.as_secs_f64()));
                explain(&space, &mark).await;
            }
        }
        if (result.is_ok() || !keep)
            && let Err(error) = world.remove_namespace(&space.namespace).await
        {
            say(&format!("{error:#}"));
        }
        outcomes.push(Outcome { story, result, took });
    }
}

async fn tell(story: &Story, space: &Space) -> Result<Counts> {
    if story.with_kubenap {
        space.world.members.ensure(&Settings::default()).await?;
    }
    space.world.make_namespace(&space.namespace).await?;
    let counts = (story.run)(space).await?;
    space.world.members.ensure_alive().await?;
    Ok(counts)
}

/// Prints what the namespace looks like, the members, and the ends of their logs.
async fn explain(space: &Space, mark: &Mark) {
    let questions: [&[&str]; 3] = [
        &["get", "deployments,pods,services,endpointslices,ingresses", "-o", "wide"],
        &["get", "events", "--sort-by=.metadata.creationTimestamp"],
        &["get", "deployments,endpointslices", "-o", "yaml"],
    ];
    for question in questions {
        say(&format!("\n$ kubectl -n {} {}", space.namespace, question.join(" ")));
        match space.kubectl(question).await {
            Ok(text) => say(&text),
            Err(error) => say(&format!("{error:#}")),
        }
    }
    let logs = space.world.members.logs();
    for identity in logs.writers_since(mark) {
        say(&format!("\nthe last {TAIL} lines of member {identity}:"));
        say(&logs.tail(&identity, TAIL));
    }
    let home = ["-n", HOME, "get", "pods,leases,jobs", "-o", "wide"];
    say(&format!("\n$ kubectl {}", home.join(" ")));
    say(&space.world.kubectl(&home).await.unwrap_or_else(|error| format!("{error:#}")));
}

fn table(outcomes: &[Outcome]) -> String {
    let rows = outcomes.iter().map(|Outcome { story, result, took }| {
        let (word, counts) = match result {
            Ok(counts) => ("ok", join(counts)),
            Err(error) => ("FAILED", error.to_string().lines().next().unwrap_or_default().to_owned()),
        };
        format!("{:<9} {word:<6} {:>8.1}  {counts}\n", story.name, took.as_secs_f64())
    });
    let rows: String = rows.collect();
    // Once more and whole: of a long output the end is what people see.
    let failures = outcomes.iter().filter_map(|Outcome { story, result, .. }| {
        result.as_ref().err().map(|error| format!("\n{}: {error:#}\n", story.name))
    });
    let failures: String = failures.collect();
    let passed = outcomes.iter().filter(|outcome| outcome.result.is_ok()).count();
    let failed = outcomes.len() - passed;
    format!(
        "\nstory     result  seconds  counts\n{rows}{failures}e2e result: {passed} passed; {failed} failed\n"
    )
}

fn join(counts: &Counts) -> String {
    counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
}
