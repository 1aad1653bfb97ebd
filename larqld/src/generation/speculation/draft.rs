//! Guessing by a smaller model with the same vocabulary.

use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{Decoder, DecoderOptions, DenseFfn, KvCache, Precision};
use larql_compute::sample::greedy;

use super::super::Sequence;
use super::{PROPOSALS_MAX, Proposer};
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// A draft model with the cache of what it read so far.
pub struct Draft {
    model: Arc<Model>,
    cache: KvCache,
    positions_max: usize,
    /// The tokens in the cache.
    read: Vec<u32>,
}

impl Draft {
    /// Prepares `model` to guess for `sequence`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`, with the first token that differs, unless both models have one
    /// vocabulary; as [`Model::require_inference`].
    pub(super) fn new(name: &str, model: Arc<Model>, sequence: &Sequence) -> Result<Self, Failure> {
        model.require_inference()?;
        let vocabularies = (sequence.model().tokenizer()?, model.tokenizer()?);
        if let Some(id) = vocabularies.0.first_difference(vocabularies.1) {
            let message = format!("draft model {name} has another vocabulary: token {id} differs");
            return Err(Failure::new(code::INVALID_PARAMETER, message)
                .hint("take a smaller model of the same family, or n-gram lookup"));
        }
        let positions_max = model.architecture().context_max.min(sequence.positions_max());
        let cache = KvCache::new(model.architecture(), positions_max);
        Ok(Self { model, cache, positions_max, read: Vec::new() })
    }
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Draft")
            .field("model", &self.model.path())
            .field("read", &self.read.len())
            .finish_non_exhaustive()
    }
}

impl Proposer for Draft {
    fn propose(
        &mut self,
        tokens: &[u32],
        most: usize,
        pool: &Pool,
        cancel: &Cancel,
    ) -> Result<Vec<u32>, Failure> {
        let most = most.min(PROPOSALS_MAX).min(self.positions_max.saturating_sub(tokens.len()));
        if most == 0 || tokens.is_empty() {
            return Ok(Vec::new());
        }
        // What was guessed wrong is forgotten; the last token is always read, for its logits.
        let known = self.read.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let known = known.min(tokens.len() - 1);
        self.cache.truncate(known);
        self.read.truncate(known);
        let options = DecoderOptions { precision: Precision::Serving, ffn: &DenseFfn };
        let architecture = self.model.architecture();
        let mut decoder = Decoder::new(architecture, &*self.model, pool, options)?;
        decoder.prefill(&tokens[known..], &mut self.cache, None, cancel)?;
        self.read.extend_from_slice(&tokens[known..]);
        let mut proposals = Vec::with_capacity(most);
        loop {
            let token = greedy(decoder.logits())?;
            proposals.push(token);
            if proposals.len() == most {
                break;
            }
            decoder.decode(token, &mut self.cache, None, cancel)?;
            self.read.push(token);
        }
        self.model.check()?;
        Ok(proposals)
    }
}
