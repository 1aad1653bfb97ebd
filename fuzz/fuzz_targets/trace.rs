//! Any bytes into `parsers::trace`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::trace(bytes));
