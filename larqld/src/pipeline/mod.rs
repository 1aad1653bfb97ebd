//! The jobs that join storage and compute: resumable, cancellable, with their progress told as they go.
//!
//! Elsewhere: the statements that start them (`exec`), what the bytes mean (`compute`), how they
//! become durable (`storage::vindex::VindexWriter`).

pub mod compile;
pub mod extract;

mod rows;

pub use rows::Rows;

/// How the role of a tensor begins that a vindex keeps without a part in the model; its name follows.
pub const OTHER_ROLE: &str = "source:";
