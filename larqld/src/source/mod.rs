//! A published model: what its files say about it, whatever their format.
//!
//! `gguf` turns a GGUF file's metadata into the texts that a hub checkpoint has beside its weights.

pub mod gguf;
