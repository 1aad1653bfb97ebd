//! Any bytes into `daemon::table`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::daemon::table(bytes));
