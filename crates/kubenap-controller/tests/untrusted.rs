//! The fuzz targets without a fuzzer: their seeds, and some thousand mutants of each, the same in every run.
#![expect(clippy::unwrap_used, reason = "seeds that cannot be read are a failed test")]

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[path = "../../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "for the fuzz targets it is a crate of its own")]
mod targets;

/// Mutants of each target.
const MUTANTS: usize = 6000;

#[test]
fn no_seed_and_no_mutant_of_one_breaks_its_target() {
    for (name, target) in targets::TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() >= 4, "{name} has only {} seeds", seeds.len());
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mutants = (0..MUTANTS).map(|_| mutant(&seeds, &mut random));
        for bytes in seeds.iter().cloned().chain(mutants) {
            // The bytes are what one needs to see, and to put among the seeds.
            assert!(catch_unwind(|| target(&bytes)).is_ok(), "{name} fails on {}", bytes.escape_ascii());
        }
    }
}

#[test]
fn every_target_is_a_program_and_has_seeds() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let named = targets::TARGETS.map(|(name, _)| name);
    for name in named {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in the manifest");
        let program = fs::read_to_string(fuzz.join("targets").join(format!("{name}.rs"))).unwrap();
        assert!(program.contains(&format!("kubenap_fuzz::{name}(bytes)")), "{name} runs something else");
    }
    assert_eq!(fs::read_dir(fuzz.join("targets")).unwrap().count(), named.len());
    assert_eq!(fs::read_dir(fuzz.join("seeds")).unwrap().count(), named.len());
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// A seed with a few bytes changed, taken out, doubled, or another seed's put in.
fn mutant(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    const ODD: &[u8] = b"\r\n\t \0\x0b:,;/\\%#?@\"{}[]+-.019eE\x7f\x80\xff";
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let until = (at + random.below(8)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            1 if at < bytes.len() => bytes[at] = ODD[random.below(ODD.len())],
            2 => bytes.insert(at, ODD[random.below(ODD.len())]),
            3 => drop(bytes.drain(at..until)),
            4 => {
                let again = bytes[at..until].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let piece = other[from..(from + random.below(40)).min(other.len())].to_vec();
                bytes.splice(at..until, piece);
            }
        }
    }
    bytes
}

/// Xorshift: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }
}
