//! The files of larqld: bytes in, bytes out, durable.
//!
//! This crate knows bytes, shapes and an opaque format tag, and does no arithmetic on weights: what
//! a tag means is decided once, by larqld, when a model is opened.
//!
//! - [`mod@file`]: the seam to the disk (mmap, memory, and a backend that fails on demand).
//! - [`checkpoint`]: what others publish (safetensors, GGUF), read in place.
//! - [`vindex`]: the directory that larqld mounts: its layout, reader, resumable writer, checks.
//! - [`trace`]: what runs of a model leave in files: residual streams, whole or at windows.
//! - [`catalog`]: what is mounted, kept across restarts.
//! - [`overlay`]: edits above a base, as typed deltas.
//! - [`wal`]: the log that makes edits durable.
//! - [`store`]: transactions, branches and history above that log.
//! - [`patch`]: files of edits, read and written.
//!
//! Everything read here may come from a stranger: counts are checked against lengths before memory
//! is taken, names are plain file names, and a refusal says which file, what is wrong and what to do.

pub mod catalog;
pub mod checkpoint;
pub mod file;
pub mod overlay;
pub mod patch;
pub mod store;
pub mod trace;
pub mod vindex;
pub mod wal;

pub use file::{DiskFiles, Files};
