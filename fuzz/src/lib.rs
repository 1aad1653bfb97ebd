//! What the fuzz targets run: each parser on any bytes, and what must hold of whatever it accepts.
//!
//! `cargo xtask fuzz` runs the targets under libFuzzer; `tests/tests/corpora.rs` includes the same
//! functions and replays the kept inputs as ordinary tests.

#[cfg(feature = "daemon")]
pub mod daemon;
pub mod parsers;
