//! Any bytes into `parsers::edit_log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::parsers::edit_log(bytes));
