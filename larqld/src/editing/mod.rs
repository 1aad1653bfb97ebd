//! Making edits of what a model knows: from INSERT, UPDATE and DELETE to operations for a transaction.
//!
//! A fact's prompts ([`prompts`]) are looked at against how the base behaves ([`background`], `elsewhere`), and
//! become operations ([`making`], [`maker`]): a key, features or updates. What operations make of a model is
//! [`applied`], which edges they state is [`stated`]; what they do to its answers is told by a [`receipt`]. `against`
//! makes features that speak against an answer of the base, [`compaction`] moves facts down a tier. [`ask`] runs
//! prompts under edits, for BLAME and for [`assertions`]; `named` tells whom a text asks about; `kept` holds, for each model, what the next edit would
//! compute again. For files, [`lowering`] makes features of keys, and [`survival`] asks whether facts are still
//! answered.
//!
//! Elsewhere: arithmetic (`compute::edit`), the overlay in passes (`compute::model::overlay`),
//! transactions and their log (`edits`, `storage::store`).

mod against;
pub mod applied;
pub mod ask;
pub mod assertions;
pub mod background;
pub mod compaction;
mod elsewhere;
mod kept;
mod latest;
pub mod layers;
pub mod lowering;
pub mod maker;
pub mod making;
mod named;
pub mod prompts;
pub mod receipt;
mod sentences;
pub mod stated;
pub mod survival;
mod text;

pub use kept::Kept;
