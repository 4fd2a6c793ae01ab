//! Metric texts: however they are cut, the same is read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kubenap_fuzz::exposition(bytes));
