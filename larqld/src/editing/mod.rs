//! Making edits of what a model knows: from INSERT, UPDATE and DELETE to operations for a transaction.
//!
//! - Making: the prompts of a fact ([`prompts`], from `sentences` and `text`) become operations ([`making`],
//!   [`maker`]; [`layers`] says where): a key, features or updates. `against` makes features that speak against an answer of the
//!   base, [`compaction`] moves facts down a tier.
//! - The base: how it behaves where nothing is edited ([`background`], `elsewhere`). `kept` and `latest` hold, for
//!   each model, what the next edit would compute again.
//! - Applying: what operations make of a model is [`applied`], which edges they state is [`stated`]; `named` tells whom a
//!   text asks about, for keys.
//! - Measuring: what edits do to answers is told by a [`receipt`]; [`ask`] runs prompts under edits, for BLAME and for
//!   [`assertions`].
//! - Files: [`keys_as_features`] makes features of keys, [`survival`] asks whether facts are still answered.
//!
//! Elsewhere: arithmetic (`compute::edit`), the overlay in passes (`compute::model::overlay`),
//! transactions and their log (`edits`, `storage::store`).

mod against;
pub mod applied;
pub mod ask;
pub mod assertions;
pub mod background;
pub mod compaction;
mod kept;
pub mod keys_as_features;
mod latest;
pub mod layers;
pub mod maker;
pub mod making;
mod named;
mod other_prompts;
pub mod prompts;
pub mod receipt;
mod sentences;
pub mod stated;
pub mod survival;
mod text;

pub use kept::Kept;
