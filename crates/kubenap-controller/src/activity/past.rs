//! From looks over a past to what each app's past was. What steps are too coarse to tell is counted as use.
//!
//! The same ledger that compares polls compares the looks, so that nothing counts here that would not count there. A
//! counter that changed was used some time since the last look that is whole; where looks are missing, or an instance
//! was never read again, nothing is known.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kubenap_core::activity::Blind;
use kubenap_core::app::AppId;
use kubenap_core::simulate::{Past, Span, merged, without};

use super::ledger::{BLINK, Ledger, Look};
use super::preset::{DETAIL, Preset, is_pod_of};
use super::verdict::{View, is_routed, is_unseen, proxies, samples};
use super::{AppPast, AppSample, Ask, AskPast, SourceError, Target};

/// What one source shows of a past, look by look.
#[derive(Debug)]
pub(super) struct Recorder {
    whole: Span,
    /// Two looks that are farther apart have a hole between them.
    gap: SignedDuration,
    blink: Duration,
    records: BTreeMap<Preset, Record>,
}

/// What one preset showed.
#[derive(Debug)]
struct Record {
    ledger: Ledger,
    last: Timestamp,
    /// Up to when every instance was read.
    mark: Timestamp,
    /// When everything is known.
    known: Vec<Span>,
    /// When each counter moved.
    used: BTreeMap<Arc<str>, Vec<Span>>,
    /// When each key was there, of presets whose missing series say nothing.
    shown: BTreeMap<Arc<str>, Vec<Span>>,
}

impl Recorder {
    pub(super) fn new(ask: &AskPast) -> Self {
        let since = SignedDuration::try_from(ask.since).unwrap_or(SignedDuration::MAX);
        let from = ask.now.checked_sub(since).unwrap_or(Timestamp::MIN);
        let step = SignedDuration::try_from(ask.step).unwrap_or(SignedDuration::MAX);
        Self {
            whole: Span::new(from, ask.now),
            gap: step.saturating_mul(2),
            blink: BLINK + 2 * ask.step,
            records: BTreeMap::new(),
        }
    }

    /// Takes in one look; looks come in the order of time.
    pub(super) fn observe(&mut self, preset: Preset, at: Timestamp, look: Look) {
        let (gap, blink) = (self.gap, self.blink);
        let record = self.records.entry(preset).or_insert_with(|| Record::since(at));
        record.observe(at, look, gap, blink, !preset.is_born_at_first_request());
    }

    /// The preset's ledger, as it is by now.
    pub(super) fn ledger(&self, preset: Preset) -> Option<&Ledger> {
        self.records.get(&preset).map(|record| &record.ledger)
    }

    /// What all the looks say of each app.
    pub(super) fn pasts(&self, ask: &AskPast) -> Vec<(AppId, AppPast)> {
        let views = self.records.iter().map(|(preset, record)| (*preset, record.view())).collect();
        let whole = Ask { now: ask.now, targets: Arc::clone(&ask.targets), history: ask.since };
        let samples = samples(&whole, &views, &[].into());
        let past = |target: &Target| {
            let sample = samples.detail(&target.app);
            (target.app.clone(), self.past(target, sample, samples.looked_for(&target.app)))
        };
        ask.targets.iter().map(past).collect()
    }

    fn past(&self, target: &Target, sample: Option<&AppSample>, looked_for: Vec<String>) -> AppPast {
        let lost = [Blind::NoSeries, Blind::NotMapped];
        let is_mapped =
            sample.is_some_and(|sample| lost.iter().all(|why| !sample.activity.blind.contains(why)));
        let mut used = Vec::new();
        let mut known: Option<Vec<Span>> = None;
        for preset in proxies() {
            let Some(record) = self.records.get(&preset) else { continue };
            let expected = preset.expected(target);
            used.extend(expected.iter().flat_map(|key| record.used_by(key)));
            let is_born = preset.is_born_at_first_request();
            let has_known = expected.iter().any(|key| record.ledger.has_known(key));
            if !is_mapped || !(has_known || (is_born && is_routed(target))) {
                continue;
            }
            let mut own = record.known.clone();
            if !is_born {
                // Before its first series nobody could tell which one would be the app's.
                let first = expected.iter().filter_map(|key| record.shown.get(key.as_str())?.first());
                let since = first.map(|span| span.from).min().unwrap_or(self.whole.to);
                own = common(&own, &[Span::new(since, self.whole.to)]);
            }
            known = Some(known.map_or_else(|| own.clone(), |known| common(&known, &own)));
        }
        for preset in Preset::OWN {
            if preset == Preset::OwnPlain && known.is_some() {
                continue;
            }
            let Some(record) = self.records.get(&preset) else { continue };
            let own = record.own(&target.app);
            let pods = merged(own.iter().flat_map(|(_, spans)| spans.iter().copied()).collect());
            used.extend(own.iter().flat_map(|(key, _)| record.used_by(key)));
            if known.is_none() && !pods.is_empty() && !is_unseen(target) {
                known = Some(common(&record.known, &pods));
            }
        }
        AppPast {
            past: Past {
                whole: self.whole,
                used: merged(used),
                unknown: without(self.whole, known.unwrap_or_default()),
            },
            matched: sample.map_or(0, |sample| sample.matched),
            looked_for,
        }
    }
}

impl Record {
    fn since(at: Timestamp) -> Self {
        Self {
            ledger: Ledger::since(at),
            last: at,
            mark: at,
            known: Vec::new(),
            used: BTreeMap::new(),
            shown: BTreeMap::new(),
        }
    }

    fn observe(&mut self, at: Timestamp, look: Look, gap: SignedDuration, blink: Duration, shows: bool) {
        let floor = self.ledger.floor();
        // What a process has counted since the last look is lost with it.
        let lost = self.ledger.loses(&look);
        self.ledger.observe(at, look, blink);
        let whole = at.duration_since(self.last) <= gap && self.ledger.floor() == floor && !lost;
        for key in self.ledger.changed_at(at) {
            extend(&mut self.used, key, Span::new(self.mark, at));
        }
        if shows {
            let since = if whole { self.last } else { at };
            let keys: Vec<Arc<str>> = self.ledger.index().into_keys().map(Arc::from).collect();
            for key in &keys {
                let begins =
                    self.shown.get(key).and_then(|spans| spans.last()).is_none_or(|last| last.to != since);
                extend(&mut self.shown, key, Span::new(if begins { at } else { since }, at));
            }
        }
        if let Some(mark) = self.ledger.watermark() {
            match self.known.last_mut() {
                Some(known) if whole => known.to = known.to.max(mark),
                _ => self.known.push(Span::new(at, at)),
            }
            self.mark = self.mark.max(mark);
        }
        self.last = at;
    }

    fn view(&self) -> View<'_> {
        View { ledger: &self.ledger, live: true, blind: [].into(), fresh: SignedDuration::MAX }
    }

    fn used_by<'a>(&'a self, key: &'a str) -> impl Iterator<Item = Span> + 'a {
        let from = self.used.range::<str, _>((Bound::Included(key), Bound::Unbounded));
        let own = from.take_while(move |(own, _)| own.starts_with(key)).filter(move |(own, _)| {
            own.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(DETAIL))
        });
        own.flat_map(|(_, spans)| spans.iter().copied())
    }

    /// When the app's own pods were there.
    fn own(&self, app: &AppId) -> Vec<(&str, &Vec<Span>)> {
        let space = format!("{}/", app.namespace);
        let pods = self.shown.range::<str, _>((Bound::Included(space.as_str()), Bound::Unbounded));
        pods.take_while(|(key, _)| key.starts_with(&space))
            .filter(|(key, _)| key.strip_prefix(&space).is_some_and(|pod| is_pod_of(pod, &app.name)))
            .map(|(key, spans)| (&**key, spans))
            .collect()
    }
}

fn extend(of: &mut BTreeMap<Arc<str>, Vec<Span>>, key: &Arc<str>, span: Span) {
    let spans = of.entry(Arc::clone(key)).or_default();
    match spans.last_mut() {
        Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
        _ => spans.push(span),
    }
}

/// The time that both have in common.
fn common(one: &[Span], other: &[Span]) -> Vec<Span> {
    let both = one.iter().flat_map(|span| other.iter().filter_map(|other| span.and(*other)));
    merged(both.collect())
}

/// A past in pieces that an answer has room for, in whole seconds of the server's clock.
#[derive(Debug)]
pub(super) struct Pieces {
    next: i64,
    end: i64,
    step: i64,
    /// How many steps a piece has at most.
    most: i64,
}

/// Six hours of minutes; of 10,000 apps they are halved until an answer has room for them.
const MOST: i64 = 360;
const LEAST: i64 = 5;

impl Pieces {
    /// From so long before `end` until then. The steps are multiples of a step, as databases cut them.
    pub(super) fn until(end: i64, ask: &AskPast) -> Self {
        let seconds = |of: Duration| i64::try_from(of.as_secs()).unwrap_or(i64::MAX);
        let step = seconds(ask.step).max(1);
        let from = end.saturating_sub(seconds(ask.since));
        Self { next: from - from.rem_euclid(step), end, step, most: MOST }
    }

    /// Where the next piece begins and before when it ends; none: all were had.
    pub(super) fn next(&self) -> Option<(i64, i64)> {
        let until =
            self.next.saturating_add(self.step.saturating_mul(self.most)).min(self.end.saturating_add(1));
        (self.next <= self.end).then_some((self.next, until))
    }

    /// The next piece was had.
    pub(super) fn had(&mut self) {
        self.next = self.next.saturating_add(self.step.saturating_mul(self.most));
    }

    /// Takes smaller pieces from here on, if that can help.
    ///
    /// # Errors
    /// The error itself, if it cannot.
    pub(super) fn smaller(&mut self, error: SourceError) -> Result<(), SourceError> {
        let too_much = match &error {
            SourceError::TooLarge { .. } | SourceError::Timeout { .. } => true,
            // Prometheus' words for too many samples, and for too long.
            SourceError::Api { kind, .. } => matches!(kind.as_str(), "execution" | "timeout" | "canceled"),
            _ => false,
        };
        if !too_much || self.most <= LEAST {
            return Err(error);
        }
        self.most = (self.most / 2).max(LEAST);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_past_without_overlap_and_get_smaller_when_they_must() {
        let ask = AskPast {
            now: Timestamp::MIN,
            targets: Arc::from([]),
            since: Duration::from_secs(3000),
            step: Duration::from_secs(60),
        };
        let mut pieces = Pieces { most: 20, ..Pieces::until(100_030, &ask) };
        assert_eq!(pieces.next(), Some((97_020, 98_220)), "the first step is a multiple of a minute");
        pieces.smaller(SourceError::TooLarge { at: String::new(), limit: 1 }).unwrap();
        let mut had = Vec::new();
        while let Some(piece) = pieces.next() {
            had.push(piece);
            pieces.had();
        }
        assert_eq!(had.first(), Some(&(97_020, 97_620)));
        assert!(had.windows(2).all(|two| two[0].1 == two[1].0), "{had:?}");
        assert_eq!(had.last().map(|last| last.1), Some(100_031));
        let lasting = SourceError::NoProxy;
        assert!(pieces.smaller(lasting).is_err(), "smaller pieces do not mend that");
        pieces.most = LEAST;
        assert!(pieces.smaller(SourceError::TooLarge { at: String::new(), limit: 1 }).is_err());
    }
}
