//! The decoder against reference numbers, against a plain definition, and against itself.
//!
//! `goldens` compares with the outputs of another implementation on small checkpoints of each
//! family; `reference` is the forward pass written from its definition in `f64`, with which the
//! other files judge what no golden covers.

mod architecture;
mod checkpoint;
mod decoder;
mod editing;
mod experts;
mod families;
mod ffn;
mod goldens;
mod hooks;
mod invariance;
mod long;
mod overlay;
mod published;
mod reference;
mod trace;
