//! Any bytes into `parsers::safetensors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::safetensors(bytes));
