//! Speculation: tokens guessed ahead and verified together.
//!
//! A [`Proposer`] guesses what may follow; one pass over the weights yields the logits of every
//! guess, and the sequence keeps guesses for as long as each is the token that it chooses itself. So
//! the answer is the same as without, greedy or drawn with a seed; only the number of passes differs.
//! A sequence asks for more guesses after all of the last ones were right, and for fewer after one
//! was wrong.
//!
//! Sources: verification of a draft, Leviathan et al. 2023 (arXiv:2211.17192) and Chen et al. 2023
//! (arXiv:2302.01318), here with exact agreement instead of rejection sampling.

mod draft;
mod ngram;

use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::KvPages;

pub use self::draft::Draft;
pub use self::ngram::NgramLookup;
use super::Sequence;
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// Tokens that may be guessed at a time.
pub const PROPOSALS_MAX: usize = 32;
/// Tokens guessed at a time unless the request says otherwise.
const PROPOSALS_DEFAULT: usize = 8;

/// How a request wants tokens to be guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speculation {
    /// Who guesses.
    pub kind: SpeculationKind,
    /// Tokens guessed at a time; 0 leaves it to us.
    pub tokens_max: usize,
}

/// Who guesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpeculationKind {
    /// What followed when the last few tokens came before.
    Ngram,
    /// A smaller model with the same vocabulary, by name.
    Draft(String),
}

impl Speculation {
    /// Tokens guessed at a time.
    pub(super) fn reach(&self) -> usize {
        if self.tokens_max == 0 { PROPOSALS_DEFAULT } else { self.tokens_max }
    }

    /// Checks what needs no model.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.tokens_max > PROPOSALS_MAX {
            let message = format!(
                "speculation of {} tokens at a time: at most {PROPOSALS_MAX}",
                self.tokens_max
            );
            return Err(Failure::new(code::INVALID_PARAMETER, message)
                .hint("0 leaves the number to the daemon"));
        }
        Ok(())
    }

    /// The proposer for a sequence; `draft` is the model that [`SpeculationKind::Draft`] names.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a draft model with another vocabulary, or for none; as
    /// [`Model::require_inference`].
    pub fn proposer(
        &self,
        sequence: &Sequence,
        draft: Option<&Arc<Model>>,
    ) -> Result<Box<dyn Proposer>, Failure> {
        Ok(match (&self.kind, draft) {
            (SpeculationKind::Ngram, _) => Box::new(NgramLookup::default()),
            (SpeculationKind::Draft(name), Some(model)) => {
                Box::new(Draft::new(name, model.clone(), sequence)?)
            }
            (SpeculationKind::Draft(name), None) => {
                let message =
                    format!("speculation names the model {name}, which was not looked for");
                return Err(
                    Failure::new(code::INVALID_PARAMETER, message).hint("take n-gram lookup")
                );
            }
        })
    }
}

/// Guesses tokens. What it answers never changes what is made.
///
/// One that keeps keys and values does so in the memory of the model that it guesses for, and gives them
/// back whenever they are needed there.
pub trait Proposer: Send + std::fmt::Debug {
    /// At most `most` tokens that may follow `tokens`, which is what stood there at the last call with
    /// more behind it; none is an answer too. What has to be computed is computed on `pool`.
    ///
    /// # Errors
    /// When cancelled, or when a draft model fails.
    fn propose(
        &mut self,
        tokens: &[u32],
        most: usize,
        pool: &Arc<Pool>,
        cancel: &Cancel,
    ) -> Result<Vec<u32>, Failure>;

    /// Says where keys and values are kept, before anything is proposed.
    fn keep_in(&mut self, _: &KvPages) {}

    /// What it keeps there.
    fn memory(&self) -> Memory {
        Memory::default()
    }

    /// Bytes that it takes there to go on after so many tokens.
    fn bytes_needed(&self, _: usize) -> usize {
        0
    }

    /// Gives back what it keeps; it is computed again when it is needed.
    fn release(&mut self) {}
}

/// Memory for keys and values of a proposer, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Taken now.
    pub bytes: usize,
    /// Taken at most.
    pub bytes_max: usize,
}

/// How guesses fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acceptance {
    /// Tokens that were guessed and verified.
    pub proposed: usize,
    /// Those of them that proved right.
    pub accepted: usize,
}
