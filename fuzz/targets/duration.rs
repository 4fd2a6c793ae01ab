//! The duration parser: no panic, and what is shown is read again as the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kubenap_fuzz::duration(bytes));
