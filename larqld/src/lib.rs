//! The larqld daemon: the one crate that sees storage, compute, planner and the wire.
//!
//! The life of a statement: `server` takes a frame, `session` decides that its script may run, `exec`
//! parses, plans and runs it over an open model (`mounts`), and the answer goes back the same way.
//! `engine` holds what sessions share; `batch` runs models for all of them together; `pipeline` holds the long jobs; `failure` is how errors look
//! to users.

pub mod activity;
pub mod batch;
pub mod bench;
pub mod bundled;
pub mod cache;
pub mod config;
pub mod confined;
pub mod daemon;
pub mod editing;
pub mod edits;
pub mod engine;
pub mod exec;
pub mod failure;
pub mod generation;
pub mod indexes;
pub mod inference;
pub mod knowledge;
mod machine;
pub mod mounts;
pub mod paths;
pub mod pipeline;
pub mod reference;
pub mod remote;
pub mod server;
pub mod session;
pub mod source;
pub mod tables;
pub mod text;
