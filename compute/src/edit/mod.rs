//! Editing what a model knows, in closed form: from prompts and the tokens that should follow them to
//! vectors for an [`Overlay`](crate::model::Overlay).
//!
//! The input of a feed-forward network tells which entity is asked for what, across phrasings, so a
//! linear [`selector`] of it separates a fact from its neighbours. What the network should answer
//! there ([`value`]) is found along the residual stream. Of these are made
//!
//! - a key that retrieves an answer: a selector at a middle layer, with its threshold;
//! - a feature with its own gate, up and down vectors ([`compose`]): a selector and a value in the last layers;
//! - an update of the down projection for many facts at once ([`memit`]): values and activations there.
//!
//! Promises: the same prompts give the same vectors, whatever the threads; decompositions run in
//! `f64`; every pass can be cancelled; nothing here knows text, files or statements.
//!
//! Elsewhere: choosing the prompts, measuring what an edit does (`larqld/src/editing`), overlays at
//! work ([`crate::model::overlay`]).

pub mod compose;
mod editor;
pub mod memit;
pub mod selector;
mod solve;
pub mod value;

pub use compose::{ComposedFeature, compose};
pub use editor::{Captured, Editor};
pub use memit::{Beside, KeyedChange, LinearUpdate, Preserved, closed_form};
pub use selector::{Care, Examples, Moments, Selector, Unseen};
pub use solve::SolveError;
pub use value::{Enough, Values};

use crate::model::DecodeError;

/// Why an edit could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// A pass failed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The equations have no solution in finite numbers.
    #[error(transparent)]
    Solve(#[from] SolveError),
    /// The fact's prompts look like those that must not change.
    #[error(
        "at layer {layer} the prompts of the fact cannot be told from those of others; choose another layer"
    )]
    Inseparable {
        /// The layer.
        layer: usize,
    },
    /// There is no prompt.
    #[error("an edit needs at least one prompt")]
    NoPrompts,
}
