//! Any bytes into `parsers::config_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::config_json(bytes));
