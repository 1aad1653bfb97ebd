//! The jobs that join storage and compute: resumable, cancellable, with their progress told as they go.
//!
//! Elsewhere: the statements that start them (`exec`), what the bytes mean (`compute`), how they
//! become durable (`storage::vindex::VindexWriter`).

pub mod compile;
pub mod edited;
pub mod extract;
pub mod label;

mod rows;

use crate::failure::Failure;

pub use rows::Rows;

/// Is told how far a job is: stage, done, total, unit. Its failure ends the job.
pub type Progress<'a> = dyn FnMut(&'static str, u64, u64, &'static str) -> Result<(), Failure> + 'a;

/// The files beside weights and `config.json` that go along as they are, from a checkpoint to a vindex
/// and back.
pub const SIDE_FILES: [&str; 5] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// The file of a vindex that holds the metadata of the GGUF it was extracted from: a GGUF file without
/// tensors.
pub const SOURCE_METADATA: &str = "source_metadata.gguf";

/// How the role of a tensor begins that a vindex keeps without a part in the model; its name follows.
pub const OTHER_ROLE: &str = "source:";
