//! Any bytes into `daemon::chat_template`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| larql_fuzz::daemon::chat_template(bytes));
