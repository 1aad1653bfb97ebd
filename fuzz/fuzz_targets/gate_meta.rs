//! Any bytes into `parsers::gate_meta`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::gate_meta(bytes));
