//! Guessing by a smaller model with the same vocabulary.
//!
//! The draft model keeps its decoder for the whole generation, and its keys and values in pages beside
//! those of the model that it guesses for. They are worth less than anybody's answer: where pages are
//! short it has none, and guesses nothing.

use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    DecodeError, Decoder, DecoderOptions, DenseFfn, KvCache, KvPages, Precision,
};
use larql_compute::sample::greedy;
use self_cell::self_cell;

use super::super::Sequence;
use super::{Memory, PROPOSALS_MAX, Proposer};
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// A draft model with the cache of what it read so far.
pub struct Draft {
    model: Arc<Model>,
    decoder: Option<OwnedDecoder>,
    /// Pages of its shape, and what it holds of them; none before it is told where they are.
    kept: Option<(KvPages, KvCache)>,
    positions_max: usize,
    /// The tokens in the cache.
    read: Vec<u32>,
}

/// What a decoder borrows.
struct Borrowed {
    model: Arc<Model>,
    pool: Arc<Pool>,
}

self_cell!(
    /// A decoder with the model and the threads that it runs on.
    struct OwnedDecoder {
        owner: Borrowed,
        #[not_covariant]
        dependent: Decoder,
    }
);

impl OwnedDecoder {
    fn of(model: &Arc<Model>, pool: &Arc<Pool>) -> Result<Self, DecodeError> {
        let borrowed = Borrowed { model: model.clone(), pool: pool.clone() };
        Self::try_new(borrowed, |Borrowed { model, pool }| {
            let options = DecoderOptions { precision: Precision::Serving, ffn: &DenseFfn };
            Decoder::new(model.architecture(), &**model, pool, options)
        })
    }
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
        Ok(Self { model, decoder: None, kept: None, positions_max, read: Vec::new() })
    }

    /// Reads what is new in `tokens` and guesses what follows; stops short where pages are lacking.
    fn guess(&mut self, tokens: &[u32], most: usize, cancel: &Cancel) -> Result<Vec<u32>, Failure> {
        let (Some((_, cache)), Some(decoder)) = (&mut self.kept, &mut self.decoder) else {
            return Ok(Vec::new());
        };
        let read = &mut self.read;
        // What was guessed wrong is forgotten; the last token is always read, for its logits.
        let known = read.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let known = known.min(tokens.len() - 1);
        cache.truncate(known);
        read.truncate(known);
        decoder.with_dependent_mut(|_, decoder| {
            let mut proposals = Vec::with_capacity(most);
            let mut next = &tokens[known..];
            let mut last;
            loop {
                match decoder.prefill(next, cache, None, cancel) {
                    Ok(()) => read.extend_from_slice(next),
                    Err(DecodeError::PagesExhausted { .. }) => return Ok(proposals),
                    Err(error) => return Err(error.into()),
                }
                last = [greedy(decoder.logits())?];
                proposals.push(last[0]);
                if proposals.len() == most {
                    return Ok(proposals);
                }
                next = &last;
            }
        })
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
        pool: &Arc<Pool>,
        cancel: &Cancel,
    ) -> Result<Vec<u32>, Failure> {
        let most = most.min(PROPOSALS_MAX).min(self.positions_max.saturating_sub(tokens.len()));
        if most == 0 || tokens.is_empty() {
            return Ok(Vec::new());
        }
        if self.decoder.is_none() {
            self.decoder = Some(OwnedDecoder::of(&self.model, pool)?);
        }
        let proposals = self.guess(tokens, most, cancel)?;
        self.model.check()?;
        Ok(proposals)
    }

    fn keep_in(&mut self, pages: &KvPages) {
        let own = pages.beside(self.model.architecture());
        let cache = own.cache(self.positions_max);
        self.kept = Some((own, cache));
    }

    fn memory(&self) -> Memory {
        let memory = |(_, cache): &(_, KvCache)| Memory {
            bytes: cache.bytes(),
            bytes_max: cache.bytes_max(),
        };
        self.kept.as_ref().map(memory).unwrap_or_default()
    }

    fn bytes_needed(&self, tokens: usize) -> usize {
        let needed = |(pages, cache): &(KvPages, KvCache)| {
            let positions = (tokens + PROPOSALS_MAX).min(self.positions_max);
            let more = positions.saturating_sub(cache.len());
            cache.pages_needed(more) * pages.page_bytes()
        };
        self.kept.as_ref().map_or(0, needed)
    }

    fn release(&mut self) {
        if let Some((_, cache)) = &mut self.kept {
            cache.truncate(0);
        }
        self.read.clear();
    }
}
