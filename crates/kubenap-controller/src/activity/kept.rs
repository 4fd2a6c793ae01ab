//! The form in which what ledgers know is kept: a line of JSON for each look's instances, then rows of sixteen bytes.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::ledger::{Baseline, Print, Row};

/// What was kept, on this member's clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// When; none: never.
    pub(super) saved: Option<Timestamp>,
    /// Of each preset, by its label.
    pub(super) presets: BTreeMap<String, Baseline>,
}

impl Kept {
    /// Whether the other one tells of the same counters.
    pub(super) fn shows_what(&self, other: &Self) -> bool {
        self.presets.len() == other.presets.len()
            && self.presets.iter().zip(&other.presets).all(|((name, ours), (of, theirs))| {
                let counts = |row: &Row| row.counts;
                name == of
                    && ours.instances == theirs.instances
                    && ours.gone.keys().eq(theirs.gone.keys())
                    && ours.rows.keys().eq(theirs.rows.keys())
                    && ours.rows.values().map(counts).eq(theirs.rows.values().map(counts))
            })
    }
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    /// In seconds since 1970, as all moments here.
    saved: i64,
    presets: Vec<Part>,
}

#[derive(Serialize, Deserialize)]
struct Part {
    name: String,
    floor: i64,
    instances: BTreeMap<String, i64>,
    gone: BTreeMap<String, i64>,
    rows: usize,
}

const VERSION: u32 = 1;
const ROW: usize = 16;
/// So many keys fit into one ConfigMap, which may have a megabyte of Base64.
const MOST_ROWS: usize = 40_000;
/// So many of counters that are gone; each has its name written out.
const MOST_GONE: usize = 1_000;
/// Of the API server's clock, which is told in whole seconds.
const ROUNDED: SignedDuration = SignedDuration::from_secs(2);

/// The bytes, with all moments moved to a clock that is so far `ahead`; moments are rounded up.
pub(super) fn encode(kept: &Kept, ahead: SignedDuration) -> Result<Vec<u8>, String> {
    let rows: usize = kept.presets.values().map(|baseline| baseline.rows.len()).sum();
    let gone: usize = kept.presets.values().map(|baseline| baseline.gone.len()).sum();
    if rows > MOST_ROWS || gone > MOST_GONE {
        return Err(format!("{rows} series and {gone} that are gone; accepted: {MOST_ROWS} and {MOST_GONE}"));
    }
    let moved = |moment: Timestamp| {
        moment
            .checked_add(ahead)
            .and_then(|moment| moment.checked_add(ROUNDED))
            .unwrap_or(Timestamp::MAX)
            .as_second()
    };
    let seconds = |moments: &BTreeMap<String, Timestamp>, of: &dyn Fn(Timestamp) -> i64| {
        moments.iter().map(|(name, moment)| (name.clone(), of(*moment))).collect()
    };
    let parts = kept.presets.iter().map(|(name, baseline)| Part {
        name: name.clone(),
        floor: moved(baseline.floor),
        // The proxies' own words, on their clocks.
        instances: seconds(&baseline.instances, &Timestamp::as_second),
        gone: seconds(&baseline.gone, &moved),
        rows: baseline.rows.len(),
    });
    let saved = moved(kept.saved.unwrap_or(Timestamp::MIN));
    let head = Head { version: VERSION, saved, presets: parts.collect() };
    let mut bytes = serde_json::to_vec(&head).map_err(|error| error.to_string())?;
    bytes.push(b'\n');
    for (key, row) in kept.presets.values().flat_map(|baseline| &baseline.rows) {
        let minutes = u32::try_from((moved(row.moved) + 59).div_euclid(60)).unwrap_or(u32::MAX);
        bytes.extend(key);
        bytes.extend(row.counts);
        bytes.extend(minutes.to_be_bytes());
    }
    Ok(bytes)
}

/// What the bytes say, with all moments moved back from a clock that is so far `ahead`.
pub(super) fn decode(bytes: &[u8], ahead: SignedDuration) -> Result<Kept, String> {
    let end = memchr::memchr(b'\n', bytes).ok_or("it has no first line")?;
    let (head, rows) = bytes.split_at(end);
    let head: Head = serde_json::from_slice(head).map_err(|error| format!("its first line: {error}"))?;
    if head.version != VERSION {
        return Err(format!("it has version {}; accepted: {VERSION}", head.version));
    }
    let moment = |seconds: i64| {
        let there = Timestamp::from_second(seconds).ok();
        there.and_then(|there| there.checked_sub(ahead).ok()).ok_or_else(|| format!("{seconds} is no moment"))
    };
    let mut lines = rows.get(1..).unwrap_or_default().chunks_exact(ROW);
    let mut kept = Kept { saved: Some(moment(head.saved)?), presets: BTreeMap::new() };
    for part in head.presets {
        let (floor, rows, gone) = (moment(part.floor)?, BTreeMap::new(), BTreeMap::new());
        let mut baseline = Baseline { floor, instances: BTreeMap::new(), rows, gone };
        for (name, started) in part.instances {
            let started = Timestamp::from_second(started).map_err(|error| error.to_string())?;
            baseline.instances.insert(name, started);
        }
        for (identity, moved) in part.gone {
            baseline.gone.insert(identity, moment(moved)?);
        }
        for _ in 0..part.rows {
            let (key, row) = lines.next().and_then(read).ok_or("it ends too early")?;
            baseline.rows.insert(key, Row { counts: row.0, moved: moment(i64::from(row.1) * 60)? });
        }
        kept.presets.insert(part.name, baseline);
    }
    if lines.next().is_some() || !lines.remainder().is_empty() {
        return Err("it goes on after its end".to_owned());
    }
    Ok(kept)
}

fn read(row: &[u8]) -> Option<(Print, (Print, u32))> {
    let (key, rest) = row.split_first_chunk()?;
    let (counts, minutes) = rest.split_first_chunk()?;
    Some((*key, (*counts, u32::from_be_bytes(*minutes.first_chunk()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn kept() -> Kept {
        let row = |second| Row { counts: [2; 6], moved: at(second) };
        let baseline = Baseline {
            floor: at(-900),
            instances: [("ingress/traefik-a".to_owned(), at(-500))].into(),
            rows: [([1; 6], row(30)), ([9; 6], row(61))].into(),
            gone: [("shop-old-80@kubernetes\u{0}200".to_owned(), at(5))].into(),
        };
        Kept { saved: Some(at(100)), presets: [("traefik".to_owned(), baseline)].into() }
    }

    #[test]
    fn what_is_kept_is_read_the_same_but_never_as_longer_ago() {
        for ahead in [0, 300, -300].map(SignedDuration::from_secs) {
            let back = decode(&encode(&kept(), ahead).unwrap(), ahead).unwrap();
            assert!(back.shows_what(&kept()) && kept().shows_what(&back));
            let (was, is) = (&kept().presets["traefik"], &back.presets["traefik"]);
            for (key, row) in &is.rows {
                let late = row.moved.duration_since(was.rows[key].moved).as_secs();
                assert!((1..=62).contains(&late), "{late} s");
            }
            assert_eq!(is.gone.values().next(), Some(&at(7)));
        }
    }

    #[test]
    fn a_member_whose_clock_is_wrong_reads_the_moments_of_one_whose_clock_is_right() {
        let behind = SignedDuration::from_mins(5);
        let back = decode(&encode(&kept(), SignedDuration::ZERO).unwrap(), behind).unwrap();
        let moved = back.presets["traefik"].rows[&[1; 6]].moved;
        assert!((-300..=-208).contains(&moved.duration_since(at(30)).as_secs()), "on its own clock: {moved}");
    }

    #[test]
    fn no_broken_bytes_are_believed() {
        let whole = encode(&kept(), SignedDuration::ZERO).unwrap();
        for end in 0..whole.len() {
            assert!(decode(&whole[..end], SignedDuration::ZERO).is_err(), "its first {end} bytes");
        }
        assert!(decode(&[&whole[..], b"x"].concat(), SignedDuration::ZERO).is_err());
        let other = String::from_utf8_lossy(&whole).replace("\"version\":1", "\"version\":2");
        assert!(decode(other.as_bytes(), SignedDuration::ZERO).unwrap_err().contains("version 2"));
        for (from, to) in [("1700000102", "9223372036854775807"), ("\"rows\":2", "\"rows\":99999999999")] {
            let text: Vec<u8> = String::from_utf8_lossy(&whole).replace(from, to).into_bytes();
            assert!(decode(&text, SignedDuration::ZERO).is_err(), "{from}");
        }
    }

    #[test]
    fn more_than_fits_into_a_configmap_is_not_kept() {
        let mut much = kept();
        let baseline = much.presets.get_mut("traefik").unwrap();
        let rows = (0..=40_000_u64).map(|n| {
            let [_, _, key @ ..] = n.to_be_bytes();
            (key, Row { counts: [0; 6], moved: at(0) })
        });
        baseline.rows = rows.collect();
        assert!(encode(&much, SignedDuration::ZERO).unwrap_err().contains("40001 series"));
        baseline_of(&mut much).rows.pop_first();
        let bytes = encode(&much, SignedDuration::ZERO).unwrap();
        assert!(bytes.len() * 4 / 3 < 900_000, "{} bytes", bytes.len());
    }

    fn baseline_of(kept: &mut Kept) -> &mut Baseline {
        kept.presets.get_mut("traefik").unwrap()
    }
}
