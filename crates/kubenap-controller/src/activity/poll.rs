//! Asks every source each period, and publishes what they said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Ask, Samples, SourceError, Target, TrafficMetricsSource};
use crate::clock::Clock;

/// What was learned from all sources, as of their last polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polled {
    /// When this was put together.
    pub at: Timestamp,
    /// Each source's state, by its name.
    pub per_source: BTreeMap<String, SourceState>,
}

/// How one source is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceState {
    /// Whether its last poll was answered.
    pub up: bool,
    /// Since when it is up, or down.
    pub since: Timestamp,
    /// Whether it counts for apps that do not choose.
    pub by_default: bool,
    /// Why the last poll failed, with a hint.
    pub error: Option<String>,
    /// What it said.
    pub samples: Arc<Samples>,
}

/// What the sources are to be asked about.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The apps.
    pub targets: Arc<[Target]>,
    /// How far back a source with a memory should look at its start.
    pub history: Duration,
}

/// The poll loops of all sources; they end when the token is cancelled.
#[derive(Clone, Debug)]
pub struct Polls {
    polled: watch::Receiver<Arc<Polled>>,
    asks: Vec<mpsc::Sender<oneshot::Sender<()>>>,
}

/// What a poll may take at most; a source's own deadlines are shorter.
const DEADLINE: Duration = Duration::from_mins(2);

/// How many callers of `ask_now` may wait for one source before the next one waits for a place.
const WAITING: usize = 64;

impl Polls {
    /// Starts one loop per source: polls of different sources overlap, polls of one source do not.
    ///
    /// Must be called within a tokio runtime.
    pub fn start(
        sources: Vec<Arc<dyn TrafficMetricsSource>>,
        clock: Clock,
        period: Duration,
        watched: &watch::Receiver<Watched>,
        stop: &CancellationToken,
    ) -> Self {
        let now = clock.now();
        let starting = |source: &Arc<dyn TrafficMetricsSource>| SourceState {
            up: false,
            since: now,
            by_default: source.by_default(),
            error: None,
            samples: Arc::new(Samples::blind(Blind::Starting)),
        };
        let per_source = sources.iter().map(|source| (source.name().to_owned(), starting(source))).collect();
        let (publish, polled) = watch::channel(Arc::new(Polled { at: now, per_source }));
        let publish = Arc::new(publish);
        let asks = sources
            .into_iter()
            .map(|source| {
                let (ask, asked) = mpsc::channel(WAITING);
                let turn = Turn { source, clock, watched: watched.clone(), publish: Arc::clone(&publish) };
                tokio::spawn(stop.clone().run_until_cancelled_owned(turn.repeat(period, asked)));
                ask
            })
            .collect();
        Self { polled, asks }
    }

    /// The latest answers, and every later one.
    pub fn polled(&self) -> watch::Receiver<Arc<Polled>> {
        self.polled.clone()
    }

    /// Polls every source once more, at once, and gives the answers. Each of these polls begins after this call.
    pub async fn ask_now(&self) -> Arc<Polled> {
        let mut answers = Vec::new();
        for ask in &self.asks {
            let (done, answer) = oneshot::channel();
            if ask.send(done).await.is_ok() {
                answers.push(answer);
            }
        }
        for answer in answers {
            // An error means that the loop was stopped; its last state stands.
            answer.await.unwrap_or(());
        }
        Arc::clone(&self.polled.borrow())
    }
}

impl Polled {
    /// What the sources together know about an app: those that count by default, or those that are `chosen` by name.
    /// A chosen source that does not exist is a blind spot.
    pub fn activity(&self, app: &AppId, chosen: Option<&[String]>) -> Activity {
        match chosen {
            None => {
                let asked = self.per_source.values().filter(|state| state.by_default);
                Activity::join_all(asked.map(|state| state.samples.of(app)))
            }
            Some(names) => Activity::join_all(names.iter().map(|name| {
                self.per_source
                    .get(name)
                    .map_or_else(|| Activity::blind(Blind::NoSource), |state| state.samples.of(app))
            })),
        }
    }
}

/// One source and all it needs for a turn.
struct Turn {
    source: Arc<dyn TrafficMetricsSource>,
    clock: Clock,
    watched: watch::Receiver<Watched>,
    publish: Arc<watch::Sender<Arc<Polled>>>,
}

impl Turn {
    async fn repeat(self, period: Duration, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut ticks = tokio::time::interval_at(Instant::now(), period.max(Duration::from_millis(100)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                _ = ticks.tick() => {}
                ask = asked.recv(), if open => if let Some(done) = ask { waiting.push(done) } else { open = false; continue },
            }
            // Everybody who asked before this poll begins is served by it.
            while let Ok(done) = asked.try_recv() {
                waiting.push(done);
            }
            let answer = self.poll().await;
            self.tell(answer);
            for done in waiting {
                // Whoever asked may have gone away meanwhile.
                done.send(()).unwrap_or(());
            }
        }
    }

    async fn poll(&self) -> Result<Samples, SourceError> {
        let watched = self.watched.borrow().clone();
        let ask = Ask { now: self.clock.now(), targets: watched.targets, history: watched.history };
        let source = Arc::clone(&self.source);
        // A task of its own: a panic in a source must not end its loop and freeze its last answer.
        let poll = AbortOnDropHandle::new(tokio::spawn(async move { source.poll(&ask).await }));
        match tokio::time::timeout(DEADLINE, poll).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(SourceError::Crashed),
            Err(_) => Err(SourceError::Timeout { at: self.source.name().to_owned(), deadline: DEADLINE }),
        }
    }

    fn tell(&self, answer: Result<Samples, SourceError>) {
        let name = self.source.name();
        let at = self.clock.now();
        let (samples, error) = match answer {
            Ok(samples) => (samples, None),
            Err(error) => (Samples::blind(Blind::SourceDown), Some(error.to_string())),
        };
        let up = error.is_none();
        self.publish.send_modify(|polled| {
            let before = polled.per_source.get(name);
            let since = before.filter(|state| state.up == up).map_or(at, |state| state.since);
            if before.is_none_or(|state| state.error != error) {
                if let Some(error) = &error {
                    tracing::warn!(source = name, error, "source cannot be asked");
                } else {
                    tracing::info!(source = name, "source answers");
                }
            }
            let by_default = self.source.by_default();
            let state = SourceState { up, since, by_default, error, samples: Arc::new(samples) };
            let polled = Arc::make_mut(polled);
            polled.at = at;
            polled.per_source.insert(name.to_owned(), state);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::activity::AppSample;

    /// Answers after a while; every third poll fails, or panics.
    #[derive(Debug, Default)]
    struct Fake {
        name: &'static str,
        takes: Duration,
        third: Third,
        polls: AtomicU32,
        overlapping: AtomicU32,
    }

    #[derive(Debug, Default, Clone, Copy)]
    enum Third {
        #[default]
        Answers,
        Fails,
        Panics,
    }

    #[async_trait]
    impl TrafficMetricsSource for Fake {
        fn name(&self) -> &str {
            self.name
        }

        async fn poll(&self, ask: &Ask) -> Result<Samples, SourceError> {
            assert_eq!(self.overlapping.fetch_add(1, Ordering::SeqCst), 0, "two polls at once");
            tokio::time::sleep(self.takes).await;
            self.overlapping.fetch_sub(1, Ordering::SeqCst);
            let third = (self.polls.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(3);
            match self.third {
                Third::Fails if third => return Err(SourceError::NoProxy),
                Third::Panics if third => panic!("a bug"),
                Third::Answers | Third::Fails | Third::Panics => {}
            }
            let sample = AppSample { activity: Activity::seen(ask.now, ask.now), matched: 1 };
            Ok(ask.targets.iter().map(|target| (target.app.clone(), sample.clone())).collect())
        }
    }

    struct Run {
        polls: Polls,
        clock: Clock,
        _watched: watch::Sender<Watched>,
        stop: CancellationToken,
    }

    fn web() -> AppId {
        AppId::new("shop", "web")
    }

    fn run(fakes: Vec<Arc<Fake>>) -> Run {
        let clock = Clock::starting_at(Timestamp::from_second(1_700_000_000).unwrap());
        let target = Target::of(web());
        let watched = Watched { targets: Arc::from([target]), history: Duration::ZERO };
        let (watched, seen) = watch::channel(watched);
        let stop = CancellationToken::new();
        let sources = fakes.into_iter().map(|fake| fake as Arc<dyn TrafficMetricsSource>).collect();
        let polls = Polls::start(sources, clock, Duration::from_secs(15), &seen, &stop);
        Run { polls, clock, _watched: watched, stop }
    }

    fn fake(name: &'static str, takes: u64, third: Third) -> Arc<Fake> {
        Arc::new(Fake { name, takes: Duration::from_secs(takes), third, ..Fake::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_first_answer_every_source_is_starting() {
        let run = run(vec![fake("a", 5, Third::Answers)]);
        let polled = run.polls.polled().borrow().clone();
        assert_eq!(polled.activity(&web(), None), Activity::blind(Blind::Starting));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_source_is_asked_less_often_and_holds_nobody_up() {
        let (slow, quick) = (fake("slow", 40, Third::Answers), fake("quick", 1, Third::Answers));
        let run = run(vec![Arc::clone(&slow), Arc::clone(&quick)]);
        tokio::time::sleep(Duration::from_secs(302)).await;
        assert_eq!(quick.polls.load(Ordering::SeqCst), 21);
        assert_eq!(slow.polls.load(Ordering::SeqCst), 7);
        run.stop.cancel();
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(quick.polls.load(Ordering::SeqCst), 21, "a stopped loop asks no more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_and_a_panic_are_blind_and_the_next_poll_heals_them() {
        for third in [Third::Fails, Third::Panics] {
            let run = run(vec![fake("a", 1, third), fake("b", 1, Third::Answers)]);
            tokio::time::sleep(Duration::from_secs(33)).await;
            let polled = run.polls.polled().borrow().clone();
            let state = &polled.per_source["a"];
            assert!(!state.up && state.error.is_some() && polled.per_source["b"].up);
            assert!(polled.activity(&web(), None).blind.contains(&Blind::SourceDown));
            assert!(polled.activity(&web(), Some(&["b".to_owned()])).blind.is_empty());
            tokio::time::sleep(Duration::from_secs(15)).await;
            assert!(run.polls.polled().borrow().per_source["a"].up);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_look_begins_after_it_is_asked_for() {
        let run = run(vec![fake("slow", 10, Third::Answers), fake("quick", 1, Third::Answers)]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let asked = run.clock.now();
        let (one, two) = tokio::join!(run.polls.ask_now(), run.polls.ask_now());
        assert!(one.activity(&web(), None).watermark >= asked, "the poll under way does not count");
        assert_eq!(one, two);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_never_answers_is_down_after_the_deadline() {
        let run = run(vec![fake("a", 1_000_000, Third::Answers)]);
        tokio::time::sleep(DEADLINE + Duration::from_secs(1)).await;
        assert!(run.polls.polled().borrow().per_source["a"].error.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_chosen_source_that_does_not_exist_is_a_blind_spot() {
        let run = run(vec![fake("a", 1, Third::Answers)]);
        let polled = run.polls.ask_now().await;
        let chosen = ["a".to_owned(), "graphite".to_owned()];
        assert_eq!(
            polled.activity(&web(), Some(&chosen)).blind.into_iter().collect::<Vec<_>>(),
            [Blind::NoSource]
        );
        assert_eq!(polled.activity(&web(), Some(&[])), Activity::blind(Blind::NoSource));
    }
}
