//! Any bytes into `parsers::statistics`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::statistics(bytes));
