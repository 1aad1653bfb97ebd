//! Any bytes into `parsers::vindex_manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::vindex_manifest(bytes));
