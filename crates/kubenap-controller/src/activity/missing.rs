//! Replicas of a proxy that cannot be scraped and that nothing read so far tells of: what comes by them nobody sees.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::ledger::{BLINK, Ledger};
use super::preset::Preset;
use super::promql::{Answer, DOWN, MARK, Point, Row, marked, presence};

/// Behind a preset's mark: targets that cannot be scraped and showed within a day what every instance of it shows.
const FALLEN: &str = "~fallen";
/// Behind a preset's mark: targets that cannot be scraped and are listed as its instances are.
const UNREAD: &str = "~unread";

/// For each proxy the targets that were down a moment ago and are its replicas: those that were scraped within a day, and
/// those that were perhaps never scraped, but belong to the same job, namespace and app as one that is. A replica that
/// starts is of the second kind, and serves nothing yet: so they count after two minutes. It is asked after the heartbeat, and
/// only of what is down there; as a scrape may lie between the two, this one looks back farther than the other.
pub(super) fn missing() -> String {
    let mut query = String::new();
    for preset in Preset::PROXIES {
        let presence = presence(preset);
        let fallen = format!(
            "max by (instance) (min_over_time(up[6m]) == 0 and on (job, instance) last_over_time({presence}[1d]))"
        );
        marked(&mut query, &fallen, &format!("{}{FALLEN}", preset.label()));
        let unread = format!(
            "max by (instance) (up{{namespace!=\"\"}} offset 2m == 0 and on (job, namespace, container, app, app_kubernetes_io_name) (up == 1 and on (job, instance) {presence}))"
        );
        marked(&mut query, &unread, &format!("{}{UNREAD}", preset.label()));
    }
    query
}

/// What was answered last, and about which targets.
#[derive(Debug, Default)]
pub(super) struct Missing {
    asked: Option<(BTreeSet<Box<str>>, Instant)>,
    answer: Option<Answer>,
}

impl Missing {
    /// The targets that must be asked about now: those that are down and that no ledger knows, unless that was asked about
    /// all of them a moment ago.
    pub(super) fn strangers<'a>(
        &mut self,
        beats: &[Point<'_>],
        ledgers: &(impl Iterator<Item = &'a Ledger> + Clone),
    ) -> Option<BTreeSet<Box<str>>> {
        let down = beats.iter().filter(|beat| beat.row.label(MARK) == DOWN);
        let strangers: BTreeSet<Box<str>> = down
            .map(|beat| beat.row.label("instance"))
            .filter(|instance| !ledgers.clone().any(|ledger| ledger.knows(instance)))
            .map(Box::from)
            .collect();
        if strangers.is_empty() {
            *self = Self::default();
            return None;
        }
        let is_asked =
            self.asked.as_ref().is_some_and(|(asked, at)| strangers.is_subset(asked) && at.elapsed() < BLINK);
        (!is_asked).then_some(strangers)
    }

    pub(super) fn answered(&mut self, strangers: BTreeSet<Box<str>>, answer: Answer) {
        *self = Self { asked: Some((strangers, Instant::now())), answer: Some(answer) };
    }

    pub(super) fn points(&self) -> impl Iterator<Item = Point<'_>> {
        self.answer.iter().flat_map(|answer| answer.rows.iter().map(Row::last))
    }

    pub(super) fn is_partial(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.is_partial)
    }
}

/// Of one moment the targets that are down and that may be replicas of a proxy.
#[derive(Debug)]
pub(super) struct Absent<'a> {
    down: BTreeSet<&'a str>,
    fallen: BTreeSet<&'a str>,
    unread: BTreeSet<&'a str>,
}

impl<'a> Absent<'a> {
    pub(super) fn of(preset: Preset, beats: &'a [Point<'_>]) -> Self {
        let marked = |of: &str, detail: &str| {
            let own = beats.iter().map(|beat| beat.row);
            let own = own.filter(|row| row.label(MARK).strip_prefix(of) == Some(detail));
            own.map(|row| row.label("instance")).collect()
        };
        let label = preset.label();
        Self { down: marked(DOWN, ""), fallen: marked(label, FALLEN), unread: marked(label, UNREAD) }
    }

    /// Whether there is one that was scraped within a day.
    pub(super) fn is_any(&self) -> bool {
        self.down.iter().any(|instance| self.fallen.contains(instance))
    }

    /// Those that hold back the proxy's apps: the ledger knows them, or they are its replicas. Another port of a pod that is
    /// read is none.
    pub(super) fn replicas(&self, ledger: &Ledger, live: &BTreeSet<&str>) -> impl Iterator<Item = &'a str> {
        self.down.iter().copied().filter(|instance| {
            if ledger.knows(instance) || self.fallen.contains(instance) {
                return true;
            }
            if self.unread.contains(instance) {
                return !live.contains(host(instance));
            }
            // It fell more than a day ago, and has been missed ever since.
            ledger.misses(instance)
        })
    }
}

/// The instance without its port.
pub(super) fn host(instance: &str) -> &str {
    match instance.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => instance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_query_is_this_for_each_proxy() {
        let query = missing().replace(" or label_replace", "\nor label_replace");
        let of_mesh: Vec<_> = query.lines().filter(|line| line.contains("istio~")).collect();
        assert_eq!(query.lines().count(), 2 * Preset::PROXIES.len());
        expect![[r#"
            or label_replace(max by (instance) (min_over_time(up[6m]) == 0 and on (job, instance) last_over_time(istio_build{component="proxy"}[1d])), "kubenap", "istio~fallen", "", "")
            or label_replace(max by (instance) (up{namespace!=""} offset 2m == 0 and on (job, namespace, container, app, app_kubernetes_io_name) (up == 1 and on (job, instance) istio_build{component="proxy"})), "kubenap", "istio~unread", "", "")"#]].assert_eq(&of_mesh.join("\n"));
    }

    #[test]
    fn the_port_is_no_part_of_a_host() {
        assert_eq!(
            ["10.0.0.7:9100", "[fd00::7]:9100", "traefik-7"].map(host),
            ["10.0.0.7", "[fd00::7]", "traefik-7"]
        );
    }
}
