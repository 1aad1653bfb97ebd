//! Any bytes into `parsers::operation`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::operation(bytes));
