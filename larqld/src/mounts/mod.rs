//! Open models: a vindex or a checkpoint with its architecture, tokenizer and labels, ready to read.
//!
//! [`Model`] joins what storage holds (bytes, shapes, tags) with what compute knows (roles, dtypes,
//! families); [`Mounted`] is a model under a name, and what the planner sees. Models are immutable
//! and shared: a statement keeps the `Arc` it began with, so an unmount never pulls weights from
//! under a reader.
//!
//! Elsewhere: which mounts are remembered (`storage::catalog`), who uses which (`engine`).

mod ancestor;
mod base_hash;
mod gate_statistics;
mod inventory;
mod model;
mod mounted;
mod output_tokens;
mod rounding;
mod vindex_model;

pub use base_hash::{BaseHasher, checkpoint_base_hash, checkpoint_hashes};
pub use gate_statistics::{NO_SCORES, STATISTICS_SAMPLES, Samples};
pub use model::{Kind, Model, Source};
pub use mounted::{Mounted, edited_features};
pub use output_tokens::FEATURES_AT_ONCE;
pub use rounding::unsteady;
pub use vindex_model::VindexModel;
