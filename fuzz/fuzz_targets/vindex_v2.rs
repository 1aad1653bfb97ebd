//! Any bytes into `parsers::vindex_v2`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::vindex_v2(bytes));
