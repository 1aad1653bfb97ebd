//! Any bytes into `parsers::labels`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::labels(bytes));
