//! Asks every source each period, and publishes what they said.

use std::sync::Arc;
use std::time::Duration;

use kubenap_core::activity::Blind;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::polled::{PartState, Polled, SourceState};
use super::{Ask, Samples, SourceError, Target, TrafficMetricsSource};
use crate::clock::Clock;

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
    asks: Vec<(Part, mpsc::Sender<oneshot::Sender<()>>)>,
}

/// What one loop asks its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// What it counts, of all apps.
    Counters,
    /// The queries that apps bring.
    Queries,
}

/// What a poll may take at most; a source's own deadlines are shorter.
const DEADLINE: Duration = Duration::from_mins(2);

/// How many callers of `ask_now` may wait for one source before the next one waits for a place.
const WAITING: usize = 64;

impl Polls {
    /// Starts one loop per source, and one more where it asks apps' queries: polls of different loops overlap, those of one
    /// do not.
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
            by_default: source.by_default(),
            counters: PartState::starting(now),
            queries: source.asks_queries().then(|| PartState::starting(now)),
        };
        let per_source = sources.iter().map(|source| (source.name().to_owned(), starting(source))).collect();
        let (publish, polled) = watch::channel(Arc::new(Polled { at: now, per_source }));
        let publish = Arc::new(publish);
        let queries = sources.iter().filter(|source| source.asks_queries()).cloned().collect::<Vec<_>>();
        let queries = queries.into_iter().map(|source| (Part::Queries, source));
        let parts = sources.into_iter().map(|source| (Part::Counters, source)).chain(queries);
        let asks = parts
            .map(|(part, source)| {
                let (ask, asked) = mpsc::channel(WAITING);
                let turn =
                    Turn { part, source, clock, watched: watched.clone(), publish: Arc::clone(&publish) };
                tokio::spawn(stop.clone().run_until_cancelled_owned(turn.repeat(period, asked)));
                (part, ask)
            })
            .collect();
        Self { polled, asks }
    }

    /// The latest answers, and every later one.
    pub fn polled(&self) -> watch::Receiver<Arc<Polled>> {
        self.polled.clone()
    }

    /// Polls every source once more, at once, and gives the answers. Each of these polls begins after this call. The
    /// queries that apps bring are asked only for an app that has one.
    pub async fn ask_now(&self, with_queries: bool) -> Arc<Polled> {
        let mut answers = Vec::new();
        for (_, ask) in self.asks.iter().filter(|(part, _)| with_queries || *part == Part::Counters) {
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

/// One part of a source and all it needs for a turn.
struct Turn {
    part: Part,
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
        let part = self.part;
        let poll = AbortOnDropHandle::new(tokio::spawn(async move {
            match part {
                Part::Counters => source.poll(&ask).await,
                Part::Queries => source.queries(&ask).await,
            }
        }));
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
            Err(error) => {
                let error = error.to_string();
                let samples = match self.part {
                    Part::Counters => Samples::blind(Blind::SourceDown),
                    Part::Queries => Samples::unasked(&self.watched.borrow().targets, &error),
                };
                (samples, Some(error))
            }
        };
        self.publish.send_modify(|polled| {
            let polled = Arc::make_mut(polled);
            polled.at = at;
            let Some(state) = polled.per_source.get_mut(name) else { return };
            let part = match self.part {
                Part::Counters => &mut state.counters,
                // There is a loop for them only where they are asked.
                Part::Queries => state.queries.get_or_insert_with(|| PartState::starting(at)),
            };
            let is_first = part.is_starting();
            let up = error.is_none();
            if is_first || part.error != error {
                match (self.part, &error) {
                    (Part::Counters, Some(error)) => {
                        tracing::warn!(source = name, error, "source cannot be asked");
                    }
                    (Part::Counters, None) => tracing::info!(source = name, "source answers"),
                    (Part::Queries, Some(error)) => {
                        tracing::warn!(source = name, error, "apps' queries cannot be asked");
                    }
                    (Part::Queries, None) => tracing::info!(source = name, "apps' queries can be asked"),
                }
            }
            let since = if part.up == up { part.since } else { at };
            *part = PartState { up, since, error, samples: Arc::new(samples) };
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use jiff::Timestamp;
    use kubenap_core::activity::Activity;
    use kubenap_core::app::AppId;

    use super::super::AppSample;
    use super::*;

    /// Answers after a while; every third poll fails, or panics.
    #[derive(Debug, Default)]
    struct Fake {
        name: &'static str,
        takes: Duration,
        third: Third,
        /// It asks queries, and these cannot be asked for so many polls.
        unasked: Option<u32>,
        polls: AtomicU32,
        overlapping: AtomicU32,
        asked: AtomicU32,
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

        fn asks_queries(&self) -> bool {
            self.unasked.is_some()
        }

        async fn queries(&self, ask: &Ask) -> Result<Samples, SourceError> {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst);
            if self.unasked.is_some_and(|polls| (2..2 + polls).contains(&asked)) {
                return Err(SourceError::Crashed);
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
        let target = Target { query: Some("sum(x)".into()), ..Target::of(web()) };
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
        assert_eq!(polled.activity(&web(), None, false), Activity::blind(Blind::Starting));
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
            assert!(!state.up() && state.error().is_some() && polled.per_source["b"].up());
            assert!(polled.activity(&web(), None, false).blind.contains(&Blind::SourceDown));
            assert!(polled.activity(&web(), Some(&["b".to_owned()]), false).blind.is_empty());
            tokio::time::sleep(Duration::from_secs(15)).await;
            assert!(run.polls.polled().borrow().per_source["a"].up());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_whose_queries_cannot_be_asked_is_not_healthy_and_says_since_when() {
        let run = run(vec![Arc::new(Fake { name: "a", unasked: Some(4), ..Fake::default() })]);
        let source = || run.polls.polled().borrow().per_source["a"].clone();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let began = source().since();
        assert!(source().up() && source().error().is_none());
        tokio::time::sleep(Duration::from_secs(45)).await;
        let state = source();
        assert!(!state.up() && state.counters.up);
        assert_eq!(state.since().duration_since(began).as_secs(), 30, "since the first that failed");
        let error = state.error().unwrap();
        assert!(error.starts_with("apps' queries cannot be asked: "), "{error}");
        let (samples, app, sample) = state.each().next().unwrap();
        assert_eq!((app, &sample.activity), (&web(), &Activity::blind(Blind::SourceDown)));
        assert!(samples.looked_for(app)[0].starts_with("kubenap/query `sum(x)`: "));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(source().up() && source().error().is_none(), "it heals");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_look_begins_after_it_is_asked_for() {
        let run = run(vec![fake("slow", 10, Third::Answers), fake("quick", 1, Third::Answers)]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let asked = run.clock.now();
        let (one, two) = tokio::join!(run.polls.ask_now(false), run.polls.ask_now(false));
        assert!(one.activity(&web(), None, false).watermark >= asked, "the poll under way does not count");
        assert_eq!(one, two);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_never_answers_is_down_after_the_deadline() {
        let run = run(vec![fake("a", 1_000_000, Third::Answers)]);
        tokio::time::sleep(DEADLINE + Duration::from_secs(1)).await;
        assert!(run.polls.polled().borrow().per_source["a"].error().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_chosen_source_that_does_not_exist_is_a_blind_spot() {
        let run = run(vec![fake("a", 1, Third::Answers)]);
        let polled = run.polls.ask_now(false).await;
        let chosen = ["a".to_owned(), "graphite".to_owned()];
        assert_eq!(
            polled.activity(&web(), Some(&chosen), false).blind.into_iter().collect::<Vec<_>>(),
            [Blind::NoSource]
        );
        assert_eq!(polled.activity(&web(), Some(&[]), false), Activity::blind(Blind::NoSource));
    }
}
