//! The annotation parser: any keys and values are read, and what is not understood is a complaint.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kubenap_fuzz::annotations(bytes));
