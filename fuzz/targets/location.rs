//! The path check: whatever may stand in a `Location` stays on its host.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kubenap_fuzz::location(bytes));
