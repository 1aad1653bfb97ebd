//! Any bytes into `parsers::down_meta`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::down_meta(bytes));
