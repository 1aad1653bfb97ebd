//! Any bytes into `daemon::gguf_description`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::daemon::gguf_description(bytes));
