//! Any bytes into `parsers::safetensors_index`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::safetensors_index(bytes));
