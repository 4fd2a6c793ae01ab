//! Prometheus' answers: no panic, whatever the server says.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kubenap_fuzz::promql(bytes));
