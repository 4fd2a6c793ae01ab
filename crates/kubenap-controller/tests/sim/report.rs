//! Jobs on all processors, what they counted, and the page that is written from it.
#![expect(clippy::unwrap_used, reason = "a job whose outcome is lost has failed")]
#![expect(clippy::print_stdout, reason = "what was counted is to be seen")]

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many of what.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

type Work<T> = dyn Fn() -> Pin<Box<dyn Future<Output = (T, Counts)>>> + Send + Sync;

/// One run on a clock and a runtime of its own.
pub(crate) struct Job<T> {
    pub(crate) name: String,
    work: Box<Work<T>>,
}

impl<T> Job<T> {
    pub(crate) fn new<F>(name: String, work: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = (T, Counts)> + 'static,
    {
        Self { name, work: Box::new(move || Box::pin(work())) }
    }

    /// Runs it; a panic is its failure.
    pub(crate) fn run(&self) -> Result<(T, Counts), String> {
        let run = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(true).build().unwrap().block_on((self.work)())
        };
        catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        })
    }
}

/// What came of many jobs.
#[derive(Debug, Default)]
pub(crate) struct Outcome<T> {
    pub(crate) results: Vec<T>,
    pub(crate) failures: Vec<(String, String)>,
}

/// Runs jobs on all processors and adds up what they count. Results are in the jobs' order.
pub(crate) fn run_all<T: Send>(jobs: &[Job<T>], counts: &mut Counts) -> Outcome<T> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((index, job)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|index| Some((index, jobs.get(index)?)))
                {
                    let result = job.run();
                    done.lock().unwrap().insert(index, (job.name.clone(), result));
                }
            });
        }
    });
    let mut outcome = Outcome { results: Vec::new(), failures: Vec::new() };
    for (name, result) in done.into_inner().unwrap().into_values() {
        match result {
            Ok((result, counted)) => {
                outcome.results.push(result);
                for (what, count) in counted {
                    *counts.entry(what).or_default() += count;
                }
            }
            Err(why) => outcome.failures.push((name, why)),
        }
    }
    outcome
}

/// Shows a part of the test: what it counted, or the first failures.
pub(crate) fn show(part: &str, failures: &[(String, String)], repeat: &str) {
    for (name, why) in failures.iter().take(5) {
        println!(
            "FAILED {part}: {name}\n  repeat: cargo test -p kubenap-controller --test sim -- {repeat}\n{why}\n"
        );
    }
    for (name, why) in failures.iter().skip(5) {
        println!("FAILED {name}: {}", why.lines().next().unwrap_or_default());
    }
    println!(
        "sim: {part} ... {}",
        if failures.is_empty() { "ok".to_owned() } else { format!("{} FAILED", failures.len()) }
    );
}
