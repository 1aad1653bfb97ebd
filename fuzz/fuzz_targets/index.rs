//! Any bytes into `parsers::index`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::index(bytes));
