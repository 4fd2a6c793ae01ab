//! How often a 307 is sent to the same client for the same URL: never in a fast loop.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use kubenap_core::proxy::location::{original, safe_location};

/// How long each request that finds its app ready already is held before it is sent back once more.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(3)];

/// After this long without a sign, a client's redirects are counted anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// Remembers who was redirected how often.
#[derive(Debug)]
pub(crate) struct Pacer {
    seed: RandomState,
    room: usize,
    seen: Mutex<BTreeMap<u64, Seen>>,
}

/// Who asks for what, as one number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(u64);

#[derive(Clone, Copy, Debug)]
struct Seen {
    returns: usize,
    first_hop: Option<Instant>,
    last: Instant,
}

impl Pacer {
    pub(crate) fn new(room: usize) -> Self {
        Self { seed: RandomState::new(), room, seen: Mutex::default() }
    }

    pub(crate) fn caller(&self, peer: IpAddr, forwarded_for: &[u8], host: &[u8], target: &str) -> Caller {
        Caller(self.seed.hash_one((peer, forwarded_for, host, target)))
    }

    /// The pause before a redirect of a request that found its app ready, or nothing if it came too often.
    pub(crate) fn comes_back(&self, caller: Caller) -> Option<Duration> {
        let mut pause = None;
        self.note(caller, FORGOTTEN_AFTER, |seen| {
            pause = PAUSES.get(seen.returns).copied();
            seen.returns = seen.returns.saturating_add(1);
        });
        pause
    }

    /// Whether this caller may be sent back to wait once more, `within` this long since the first time.
    /// `held` is how long it waited before each time.
    pub(crate) fn may_hop(&self, caller: Caller, held: Duration, within: Duration) -> bool {
        let mut may = true;
        self.note(caller, FORGOTTEN_AFTER.saturating_add(held), |seen| {
            let first = *seen.first_hop.get_or_insert(seen.last);
            may = seen.last.duration_since(first) <= within;
            if !may {
                seen.first_hop = None;
            }
        });
        may
    }

    fn note(&self, Caller(number): Caller, memory: Duration, change: impl FnOnce(&mut Seen)) {
        let now = Instant::now();
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= self.room && !all.contains_key(&number) {
            all.retain(|_, seen| now.duration_since(seen.last) < FORGOTTEN_AFTER);
            if all.len() >= self.room {
                // Full of the living: numbers are seeded hashes, so the first is anybody's.
                all.pop_first();
            }
        }
        let seen = all.entry(number).or_insert(Seen { returns: 0, first_hop: None, last: now });
        if now.duration_since(seen.last) >= memory {
            *seen = Seen { returns: 0, first_hop: None, last: now };
        }
        seen.last = now;
        change(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubenap_core::proxy::location::LONGEST;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    #[test]
    fn only_a_path_on_the_same_host_is_a_location() {
        for good in [
            "/",
            "/a",
            "/a/b?c=d&e=/f//g",
            "/a//b",
            "/%2F%2Fevil.example",
            "/%5Cevil",
            "/a?u=http://x",
            "/.//x",
            "/<",
            "/a>?{\"b\":1}|^`",
        ] {
            assert_eq!(safe_location(good), Some(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "//evil.example",
            "/\\evil.example",
            "\\/evil",
            "\\\\evil",
            "http://evil.example",
            "https:evil",
            "/a\\b",
            "/\t/evil.example",
            "/a\r\nX: y",
            "/a\n",
            "/a b",
            "/\u{7f}",
            "/caf\u{e9}",
            "/a#b",
            " /a",
            "?a",
            "*",
        ] {
            assert_eq!(safe_location(bad), None, "{bad:?}");
        }
        assert_eq!(safe_location(&format!("/{}", "a".repeat(LONGEST))), None);
    }

    #[test]
    fn the_original_is_decoded_exactly_once() {
        for (query, found) in [
            ("original=%2Fa%3Fx%3D1%26y%3D2", Some("/a?x=1&y=2")),
            ("original=/a/b", Some("/a/b")),
            ("x=1&original=/a&y=2", Some("/a")),
            ("original=%2F%252Fevil", Some("/%2Fevil")),
            ("original=/caf%C3%A9%20x", Some("/caf%C3%A9%20x")),
            ("original=/a+b", Some("/a+b")),
            ("original=%2F%2Fevil.example", None),
            ("original=/%5Cevil.example", None),
            ("original=/%2Fevil.example", None),
            ("original=%5C%5Cevil.example", None),
            ("original=https%3A%2F%2Fevil.example", None),
            ("original=/%0d%0aSet-Cookie:x", None),
            ("original=/%09/evil.example", None),
            ("original=/%00", None),
            ("original=%2", None),
            ("original=%zz", None),
            ("original=%+1", None),
            ("original=/a&original=/b", None),
            ("original=", None),
            ("other=/a", None),
            ("", None),
        ] {
            assert_eq!(original(query).as_deref(), found, "{query}");
        }
    }

    /// The origin that a browser goes to, by the URL standard.
    fn led_to(location: &str) -> String {
        let page = url::Url::parse("http://web.example/a/b?c").unwrap();
        page.join(location).unwrap().origin().ascii_serialization()
    }

    #[test]
    fn no_beginning_of_a_location_leads_to_another_host() {
        let mut led = 0;
        for (first, second) in
            (0..=u8::MAX).flat_map(|first| (0..=u8::MAX).map(move |second| (first, second)))
        {
            let text = format!("/{}{}evil.example", char::from(first), char::from(second));
            if let Some(location) = safe_location(&text) {
                assert_eq!(led_to(location), "http://web.example", "{location:?}");
                led += 1;
            }
        }
        assert!(led > 8_000, "only {led} were taken");
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_a_location_stays_on_the_host(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let query: String = std::iter::once("original=".to_owned())
                .chain(bytes.iter().map(|byte| format!("%{byte:02x}")))
                .collect();
            if let Some(location) = original(&query) {
                let bytes = location.as_bytes();
                prop_assert_eq!(bytes[0], b'/');
                prop_assert!(!matches!(bytes.get(1), Some(b'/' | b'\\')));
                prop_assert!(bytes.iter().all(u8::is_ascii_graphic));
                prop_assert!(!location.contains('\\'));
                prop_assert_eq!(led_to(&location), "http://web.example");
            }
        }

        #[test]
        fn no_query_makes_it_panic(query in ".*") {
            original(&query);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_is_slowed_and_then_ended() {
        let pacer = Pacer::new(10);
        let caller = pacer.caller(Ipv4Addr::LOCALHOST.into(), b"", b"web", "/");
        let pauses: Vec<_> =
            (0..6).map(|_| pacer.comes_back(caller).map(|pause| pause.as_millis())).collect();
        assert_eq!(pauses, [Some(500), Some(1000), Some(3000), Some(3000), None, None]);
        let other = pacer.caller(Ipv4Addr::LOCALHOST.into(), b"", b"web", "/other");
        assert_eq!(pacer.comes_back(other), Some(PAUSES[0]));
        tokio::time::advance(FORGOTTEN_AFTER).await;
        assert_eq!(pacer.comes_back(caller), Some(PAUSES[0]));
    }

    #[tokio::test(start_paused = true)]
    async fn hops_end_with_the_wake_timeout() {
        let pacer = Pacer::new(10);
        let caller = pacer.caller(Ipv4Addr::LOCALHOST.into(), b"", b"web", "/");
        let mut hops = 0;
        while pacer.may_hop(caller, Duration::from_secs(10), Duration::from_mins(1)) {
            hops += 1;
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        assert_eq!(hops, 7);
    }

    #[test]
    fn the_memory_is_bounded() {
        let pacer = Pacer::new(100);
        for n in 0..1000 {
            pacer.comes_back(Caller(n));
        }
        assert_eq!(pacer.seen.lock().unwrap().len(), 100);
    }
}
