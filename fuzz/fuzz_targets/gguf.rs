//! Any bytes into `parsers::gguf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::gguf(bytes));
