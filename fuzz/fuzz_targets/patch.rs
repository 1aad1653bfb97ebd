//! Any bytes into `parsers::patch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::patch(bytes));
