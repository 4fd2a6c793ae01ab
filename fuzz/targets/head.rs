//! The head of an HTTP/1 request: three ways of reading agree on what is accepted.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kubenap_fuzz::head(bytes));
