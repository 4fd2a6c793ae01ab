//! How old each source's oldest watermark is at the moment somebody asks, also while the source fails.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use jiff::Timestamp;

use super::{BySource, Telemetry};

impl Telemetry {
    /// The source knows of every app up to here.
    pub fn set_watermark(&self, source: &str, watermark: Timestamp) {
        self.watermarks().insert(source.to_owned(), watermark);
    }

    /// The source has nothing to know of: no age is shown.
    pub fn clear_watermark(&self, source: &str) {
        let mut watermarks = self.watermarks();
        watermarks.remove(source);
        self.source_watermark_age.remove(&BySource { source: source.to_owned() });
    }

    /// Brings the ages up to `now`.
    pub fn age_watermarks(&self, now: Timestamp) {
        // Locked until the end, or an age could come back after its watermark was cleared.
        for (source, watermark) in self.watermarks().iter() {
            let label = BySource { source: source.clone() };
            let age = now.duration_since(*watermark).as_secs_f64();
            self.source_watermark_age.get_or_create(&label).set(age);
        }
    }

    fn watermarks(&self) -> MutexGuard<'_, BTreeMap<String, Timestamp>> {
        self.watermarks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_grows_until_the_source_says_more_and_goes_with_the_last_app() {
        let telemetry = Telemetry::new();
        let at = |second| Timestamp::from_second(second).unwrap();
        let shown = |now| {
            telemetry.age_watermarks(at(now));
            let text = telemetry.text();
            let name = "kubenap_source_watermark_age_seconds{source=\"ingress\"} ";
            text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
        };
        assert_eq!(shown(0), None);
        telemetry.set_watermark("ingress", at(100));
        assert_eq!(shown(103).as_deref(), Some("3.0"));
        assert_eq!(shown(460).as_deref(), Some("360.0"));
        telemetry.set_watermark("ingress", at(460));
        assert_eq!(shown(461).as_deref(), Some("1.0"));
        telemetry.clear_watermark("ingress");
        assert_eq!(shown(500), None);
    }
}
