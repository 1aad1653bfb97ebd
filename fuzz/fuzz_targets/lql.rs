//! Any bytes into `parsers::lql`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::lql(bytes));
