//! Edits above an immutable base, as typed deltas: what one is, and what many of them make together.
//!
//! An [`Operation`] is one change, as the log keeps it and a `.vlp` file carries it. An [`Overlay`] is what
//! operations amount to when applied in order: rows that replace or add features, tombstones, facts found by
//! similarity, low-rank updates of a matrix. It is immutable and persistent: a clone costs nothing, a change
//! copies a path of a tree, and whoever holds one keeps it as it was.
//!
//! Promises: the same operations in the same order make the same overlay, bit for bit; [`Operation::touched`]
//! names every slot and fact that an operation changes, which is what two writers may not both change;
//! nothing here does arithmetic on weights.
//!
//! Elsewhere: durability (`wal`), transactions, branches and history (`store`), files of operations
//! (`patch`), what the deltas do to inference (larql-compute).

mod check;
mod encoding;
mod map;
mod names;
mod operation;

pub use check::{BaseShape, Problem, TEXT_BYTES_MAX, VECTOR_NORM_MAX};
pub use encoding::{DecodeError, decode, encode};
pub use map::{FeatureDelta, Knn, LowRankDelta, Overlay, Statement, Stating};
pub use names::{case_folded, compared};
pub use operation::{
    DeleteKnn, Describe, Effect, Fact, LowRank, Matrix, Mode, Operation, SetFeature, SetKnn, Slot,
    Touched, Vector,
};
