//! The one forward pass: tokens in, logits out, for every family.
//!
//! Prefill runs a prompt through every layer in blocks of positions, decode runs one token; both
//! are the same walk over the layers and fill the KV cache. What differs between models is asked
//! of the [`Architecture`]; what differs between ways to run the feed-forward network is behind
//! [`Ffn`].
//!
//! Tokens come in segments, one for each sequence; the rows of all segments go through the layers
//! together, and attention runs for each alone.
//!
//! Promises: nothing is written before the request is known to fit; after an error every cache is
//! as long as it was; a position's numbers depend on its own sequence alone, so that prefill,
//! decode, and batches of either give the same bits.

mod edited;
mod gradient;
mod readout;

use std::cell::RefCell;
use std::time::Instant;

use super::block::{Block, Part};
use super::embedding::Embedding;
use super::ffn::{FfnBuffers, LayerWeights};
use super::layer::{AttentionBuffers, Layer};
use super::lookup::Lookup;
use super::meter::{Meter, PassMeters};
use super::norm::Norm;
use super::projection::Projection;
use super::rotation::Rotation;
use super::{
    Architecture, DenseFfn, Ffn, FfnContext, Hook, KvCache, Match, Role, WeightKey, Weights,
};
use crate::cpu::release_scratch;
use crate::cpu::{Cancel, Cancelled, Pool};
use crate::kernels::activation::softcap;
use crate::kernels::quantised::ServingScratch;

pub use gradient::TokenGradient;
pub use readout::TokenReadout;

/// Positions that go through the layers together: bounds scratch memory and the time to a cancel.
const BLOCK_POSITIONS: usize = 256;
/// Additions that make a task of some microseconds.
const NUMBERS_A_TASK: usize = 32 << 10;
/// Rows whose logits are computed together where every row's are asked for, one at a time.
const LOGITS_ROWS: usize = 32;

/// Why a model did not answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The weights lack a tensor that the model needs.
    #[error("the weights lack {key}")]
    MissingTensor {
        /// Which one.
        key: WeightKey,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{key} has shape {found:?}, but the configuration asks for {expected:?}")]
    Shape {
        /// Which one.
        key: WeightKey,
        /// The shape that the configuration implies (projections `[outputs, inputs]`).
        expected: Vec<usize>,
        /// The shape that it has.
        found: Vec<usize>,
    },
    /// No token was given.
    #[error("the prompt is empty; give at least one token")]
    EmptyPrompt,
    /// A token that is no row of the embedding.
    #[error(
        "token {token} is outside the vocabulary of {vocabulary}; is the tokenizer of another model?"
    )]
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// The tokens do not fit into what is left of the context.
    #[error(
        "the context holds {capacity} positions, but {needed} are needed; shorten the prompt or ask for less"
    )]
    ContextFull {
        /// Positions that the cache can hold in all.
        capacity: usize,
        /// Positions that the request would take in all.
        needed: usize,
    },
    /// The cache was made for a model of another shape.
    #[error("the KV cache was made for another model; make a new one for this model")]
    ForeignCache,
    /// The pages that sequences share are held by others.
    #[error(
        "{needed} pages of keys and values are needed, but {free} are free; wait for others to end or give the cache more memory"
    )]
    PagesExhausted {
        /// Pages that the request takes.
        needed: usize,
        /// Pages that nobody holds.
        free: usize,
    },
    /// The system refused memory for the cache.
    #[error("no memory for a KV cache of {positions} positions; ask for a smaller context")]
    Memory {
        /// Positions that were needed.
        positions: usize,
    },
    /// The work was stopped.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// How to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Activations and sums in `f32`, over the dequantised weights.
    #[default]
    Exact,
    /// Activations rounded to 8 bits where weights are quantised: much faster.
    ///
    /// In either precision a position's numbers depend on its own sequence alone: not on what
    /// shares the pass, on how a prompt is cut into calls, or on threads. (Where a model has other
    /// rotary frequencies for long contexts, a cache of rows goes by the call's end, as the
    /// reference implementation does; a paged one by its capacity.)
    Serving,
}

/// Which logits a segment wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogitsWanted {
    /// None: its tokens only fill the cache.
    None,
    /// Those of its last token.
    #[default]
    Last,
    /// Those of every token.
    All,
}

/// The next tokens of one sequence.
#[derive(Debug)]
pub struct Segment<'s> {
    /// The tokens, at least one.
    pub tokens: &'s [u32],
    /// What the sequence has read so far; the tokens are added.
    pub cache: &'s mut KvCache,
    /// Which logits are wanted.
    pub logits: LogitsWanted,
}

/// How a decoder runs a model.
#[derive(Clone, Copy)]
pub struct DecoderOptions<'a> {
    /// How to compute.
    pub precision: Precision,
    /// How to run the feed-forward networks.
    pub ffn: &'a dyn Ffn,
}

impl Default for DecoderOptions<'_> {
    fn default() -> Self {
        DecoderOptions { precision: Precision::Exact, ffn: &DenseFfn }
    }
}

/// A model that is ready to run; one for each sequence at a time, sharing weights and pool.
pub struct Decoder<'a> {
    architecture: &'a Architecture,
    weights: &'a dyn Weights,
    pool: &'a Pool,
    options: DecoderOptions<'a>,
    embedding: Embedding<'a>,
    unembedding: Projection<'a>,
    final_norm: Option<Norm<'a>>,
    layers: Vec<Layer<'a>>,
    networks: Vec<LayerWeights<'a>>,
    rotations: Vec<Rotation>,
    buffers: Buffers,
    outputs: Outputs,
    scratch: RefCell<ServingScratch>,
    ffn_buffers: RefCell<FfnBuffers>,
    meters: PassMeters,
    _scratch: ThreadScratch,
}

/// What a run leaves.
#[derive(Default)]
struct Outputs {
    /// `[rows, vocabulary]`, and whatever an earlier run left after them.
    logits: Vec<f32>,
    rows: usize,
    /// The first of each segment's rows, and the first after them.
    segments: Vec<(usize, usize)>,
    /// What keys found for each of the rows; none where nothing is looked for.
    matches: Vec<Vec<Match>>,
    residual: Vec<f32>,
    normed: Vec<f32>,
    /// Rows of the stream whose logits are wanted, of all segments.
    wanted: Vec<f32>,
    /// The same, normed.
    finals: Vec<f32>,
}

/// Gives back the scratch memory that kernels keep between the calls of a thread. A server has a
/// thread for each of many sessions, and all but a few of them are at rest.
struct ThreadScratch;

impl Drop for ThreadScratch {
    fn drop(&mut self) {
        release_scratch();
    }
}

/// Numbers of one block, kept between calls; rows are positions.
#[derive(Default)]
struct Buffers {
    /// Positions of each segment's cache before the run.
    lengths: Vec<usize>,
    parts: Vec<Part>,
    tokens: Vec<u32>,
    stream: Vec<f32>,
    normed: Vec<f32>,
    attention: AttentionBuffers,
    output: Vec<f32>,
    /// What keys found for each row; empty where nothing is looked for.
    matches: Vec<Vec<Match>>,
    /// What the layers' own embeddings bring in, where the model has them.
    inputs: Vec<f32>,
}

/// Hears the logits of every position: its index in the context, and the logits.
type EachLogits<'e> = Option<&'e mut dyn FnMut(usize, &[f32])>;

impl<'a> Decoder<'a> {
    /// Looks up every tensor and checks its shape.
    ///
    /// # Errors
    /// `MissingTensor` and `Shape` name the tensor by role and layer.
    pub fn new(
        architecture: &'a Architecture,
        weights: &'a dyn Weights,
        pool: &'a Pool,
        options: DecoderOptions<'a>,
    ) -> Result<Decoder<'a>, DecodeError> {
        let lookup = Lookup { architecture, weights };
        let embedding = Embedding::new(&lookup)?;
        let unembedding = match architecture.tied_embeddings {
            true => embedding.tokens(),
            false => lookup.matrix(WeightKey::model(Role::Unembedding))?,
        };
        let bias = lookup.optional_vector(WeightKey::model(Role::UnembeddingBias))?;
        let mut rotations = Vec::new();
        let mut layers = Vec::with_capacity(architecture.layers());
        let mut networks = Vec::with_capacity(architecture.layers());
        for index in 0..architecture.layers() {
            networks.push(LayerWeights::new(&lookup, options.ffn, index)?);
            layers.push(Layer::new(&lookup, index, &mut rotations)?);
        }
        let final_norm =
            lookup.stream_norm(WeightKey::model(Role::FinalNorm), Some(Role::FinalNormBias))?;
        Ok(Decoder {
            architecture,
            weights,
            pool,
            options,
            embedding,
            unembedding: Projection { matrix: unembedding, bias },
            final_norm,
            layers,
            networks,
            rotations,
            buffers: Buffers::default(),
            outputs: Outputs::default(),
            scratch: RefCell::default(),
            ffn_buffers: RefCell::default(),
            meters: PassMeters::new(architecture.layers()),
            _scratch: ThreadScratch,
        })
    }

    /// Runs tokens through every layer, fills the KV cache and computes the last one's logits.
    ///
    /// # Shapes
    /// `tokens`: `[n]`, at least one; `cache`: room for `n` more positions.
    /// # Errors
    /// `EmptyPrompt`, `TokenOutOfRange`, `ContextFull`, `PagesExhausted` and `Memory` before
    /// anything is written; `Cancelled`, asked between tiles. After any of them `cache` is as long
    /// as on entry, and there are no logits.
    pub fn prefill(
        &mut self,
        tokens: &[u32],
        cache: &mut KvCache,
        hook: Option<&mut dyn Hook>,
        cancel: &Cancel,
    ) -> Result<(), DecodeError> {
        self.forward(&mut [Segment { tokens, cache, logits: LogitsWanted::Last }], hook, cancel)
    }

    /// As [`prefill`](Decoder::prefill), and hands the logits of every position to `each`, with
    /// the position's index in the context; `logits` are the last one's afterwards.
    ///
    /// # Errors
    /// As [`prefill`](Decoder::prefill).
    pub fn prefill_all_logits(
        &mut self,
        tokens: &[u32],
        cache: &mut KvCache,
        hook: Option<&mut dyn Hook>,
        cancel: &Cancel,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), DecodeError> {
        let segment = Segment { tokens, cache, logits: LogitsWanted::None };
        self.run(&mut [segment], hook, cancel, Some(each))
    }

    /// Runs one more token.
    ///
    /// # Errors
    /// As [`prefill`](Decoder::prefill).
    pub fn decode(
        &mut self,
        token: u32,
        cache: &mut KvCache,
        hook: Option<&mut dyn Hook>,
        cancel: &Cancel,
    ) -> Result<(), DecodeError> {
        self.prefill(&[token], cache, hook, cancel)
    }

    /// Runs the tokens of several sequences through every layer together, so that the weights are
    /// read once for all, and computes the logits that each wants.
    ///
    /// A sequence gets the same bits as alone and as in any other cut into calls (with paged
    /// caches; see [`Precision`]). No segments are no work.
    ///
    /// # Errors
    /// As [`prefill`](Decoder::prefill), for the first segment that is at fault; every cache is
    /// then as long as on entry.
    /// # Panics
    /// If there is a hook that does not take rows, and not exactly one segment.
    pub fn forward(
        &mut self,
        segments: &mut [Segment<'_>],
        hook: Option<&mut dyn Hook>,
        cancel: &Cancel,
    ) -> Result<(), DecodeError> {
        self.run(segments, hook, cancel, None)
    }

    /// Logits of the last position that wanted some, after the final cap: `[vocabulary]`, empty
    /// before the first run, if none did, and after an error.
    pub fn logits(&self) -> &[f32] {
        let vocabulary = self.architecture.vocabulary_size;
        let end = self.outputs.rows * vocabulary;
        &self.outputs.logits[end.saturating_sub(vocabulary)..end]
    }

    /// Logits of the positions of a segment of the last [`forward`](Decoder::forward) that it
    /// wanted, in order: `[rows, vocabulary]`; empty if there is no such segment, and after an
    /// error.
    pub fn segment_logits(&self, segment: usize) -> &[f32] {
        let vocabulary = self.architecture.vocabulary_size;
        let (first, end) = self.outputs.segments.get(segment).copied().unwrap_or_default();
        &self.outputs.logits[first * vocabulary..end * vocabulary]
    }

    /// What the keys of a segment's overlay found for each of its rows of logits, the closest first;
    /// empty where it has no keys.
    pub fn segment_matches(&self, segment: usize) -> &[Vec<Match>] {
        let (first, end) = self.outputs.segments.get(segment).copied().unwrap_or_default();
        self.outputs.matches.get(first..end).unwrap_or_default()
    }

    /// What keys found for the last row of [`logits`](Decoder::logits).
    pub fn matches(&self) -> &[Match] {
        self.outputs.matches.get(self.outputs.rows.wrapping_sub(1)).map_or(&[], Vec::as_slice)
    }

    /// The residual stream of the last position after the last layer: `[hidden]`, or empty.
    pub fn residual(&self) -> &[f32] {
        &self.outputs.residual
    }

    /// The last position after the final norm, which the unembedding reads: `[hidden]`, or empty.
    pub fn final_norm(&self) -> &[f32] {
        &self.outputs.normed
    }

    /// A row of the stream after the last layer, as the unembedding reads it: `[hidden]`; panics at
    /// another length.
    pub fn final_norm_of(&self, residual: &[f32]) -> Vec<f32> {
        let mut normed = vec![0.0; residual.len()];
        norm_into(self.pool, &self.final_norm, residual, &mut normed);
        normed
    }

    /// Bytes of weights read since the decoder was made.
    pub fn bytes_touched(&self) -> u64 {
        self.meters.total().bytes
    }

    /// What passes took since the decoder was made, part by part.
    pub fn meters(&self) -> &PassMeters {
        &self.meters
    }

    fn run(
        &mut self,
        segments: &mut [Segment<'_>],
        mut hook: Option<&mut dyn Hook>,
        cancel: &Cancel,
        each: EachLogits<'_>,
    ) -> Result<(), DecodeError> {
        let takes_rows = hook.as_ref().is_none_or(|hook| hook.takes_rows());
        assert!(takes_rows || segments.len() == 1, "this hook sees one segment");
        self.outputs.clear();
        for segment in &*segments {
            self.check(segment)?;
        }
        cancel.check()?;
        let mut lengths = std::mem::take(&mut self.buffers.lengths);
        lengths.clear();
        lengths.extend(segments.iter().map(|segment| segment.cache.len()));
        let result = reserve(segments)
            .and_then(|()| self.run_blocks(segments, &lengths, &mut hook, cancel, each));
        if result.is_err() {
            for (segment, &length) in segments.iter_mut().zip(&lengths) {
                segment.cache.truncate(length);
            }
            self.outputs.clear();
        }
        self.buffers.lengths = lengths;
        result
    }

    fn check(&self, Segment { tokens, cache, .. }: &Segment<'_>) -> Result<(), DecodeError> {
        if tokens.is_empty() {
            return Err(DecodeError::EmptyPrompt);
        }
        let vocabulary = self.architecture.vocabulary_size;
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(DecodeError::TokenOutOfRange { token, vocabulary });
        }
        if !cache.fits(self.architecture) {
            return Err(DecodeError::ForeignCache);
        }
        let needed = cache.len().saturating_add(tokens.len());
        if needed > cache.capacity() {
            return Err(DecodeError::ContextFull { capacity: cache.capacity(), needed });
        }
        Ok(())
    }

    fn run_blocks(
        &mut self,
        segments: &mut [Segment<'_>],
        lengths: &[usize],
        hook: &mut Option<&mut dyn Hook>,
        cancel: &Cancel,
        mut each: EachLogits<'_>,
    ) -> Result<(), DecodeError> {
        let mut buffers = std::mem::take(&mut self.buffers);
        let result = (|| {
            while buffers.next_block(segments, lengths) {
                self.run_block(segments, lengths, &mut buffers, hook, cancel)?;
                self.finish_block(segments, lengths, &buffers, cancel, &mut each)?;
            }
            Ok(())
        })();
        self.buffers = buffers;
        result
    }

    /// Runs the rows of `buffers.tokens` through every layer.
    fn run_block(
        &mut self,
        segments: &mut [Segment<'_>],
        lengths: &[usize],
        buffers: &mut Buffers,
        hook: &mut Option<&mut dyn Hook>,
        cancel: &Cancel,
    ) -> Result<(), DecodeError> {
        for rotation in &mut self.rotations {
            rotation.turn_to(&buffers.parts);
        }
        let began = Instant::now();
        let block = self.block(&buffers.parts, cancel);
        let Buffers { tokens, stream, inputs, .. } = buffers;
        let bytes = self.embedding.enter(block, tokens, stream, inputs)?;
        self.meters.embedding += Meter { bytes, elapsed: began.elapsed() };
        if let (Some(hook), Some(part)) = (&mut *hook, buffers.parts.first()) {
            hook.begin(part.first, buffers.tokens.len());
        }
        buffers.begin_matches(segments);
        for layer in 0..self.layers.len() {
            self.run_layer(layer, segments, lengths, buffers, hook, cancel)?;
        }
        for part in &buffers.parts {
            segments[part.segment].cache.advance(part.count);
        }
        Ok(())
    }

    fn block<'r>(&'r self, parts: &'r [Part], cancel: &'r Cancel) -> Block<'r> {
        Block {
            pool: self.pool,
            precision: self.options.precision,
            rotations: &self.rotations,
            parts,
            scratch: &self.scratch,
            cancel,
        }
    }

    fn run_layer(
        &mut self,
        index: usize,
        segments: &mut [Segment<'_>],
        lengths: &[usize],
        buffers: &mut Buffers,
        hook: &mut Option<&mut dyn Hook>,
        cancel: &Cancel,
    ) -> Result<(), DecodeError> {
        cancel.check()?;
        let began = Instant::now();
        let Buffers { parts, stream, normed, attention, output, matches, inputs, .. } = buffers;
        let (layer, block) = (&self.layers[index], self.block(parts, cancel));
        if let Some(hook) = hook {
            hook.pre_layer(index, stream);
        }
        normed.resize(stream.len(), 0.0);
        output.resize(stream.len(), 0.0);
        norm_into(self.pool, &layer.attention_norm, stream, normed);
        let observe = hook.as_mut().map(|hook| &mut **hook as &mut dyn Hook);
        let bytes = layer.attend(block, normed, attention, segments, output, observe)?;
        self.end_half(&layer.post_attention_norm, output);
        if let Some(hook) = hook {
            hook.attention_out(index, output);
        }
        add(self.pool, stream, output);
        let attended = Instant::now();
        let attention_meter = Meter { bytes, elapsed: attended - began };

        // In a parallel layer the network reads what attention has read.
        if !self.architecture.layer(index).parallel {
            norm_into(self.pool, &layer.ffn_norm, stream, normed);
        }
        if let Some(hook) = hook {
            hook.ffn_in(index, normed);
        }
        edited::find(index, segments, lengths, parts, normed, matches);
        let edits = edited::rows(index, segments, parts);
        let context = FfnContext {
            weights: self.weights,
            pool: self.pool,
            architecture: self.architecture,
            precision: self.options.precision,
            position_first: parts[0].first,
            stream,
            cancel,
            edits: &edits,
            layer: &self.networks[index],
            scratch: &self.scratch,
            buffers: &self.ffn_buffers,
        };
        let observe = hook.as_mut().map(|hook| &mut **hook as &mut dyn Hook);
        let positions = stream.len() / self.architecture.hidden_size;
        let mut bytes =
            self.options.ffn.forward(index, normed, positions, output, &context, observe)?;
        if let Some(hook) = hook {
            hook.network_out(index, output);
        }
        self.end_half(&layer.post_ffn_norm, output);
        if let Some(hook) = hook {
            hook.ffn_out(index, output);
        }
        add(self.pool, stream, output);
        let observe = hook.as_mut().map(|hook| &mut **hook as &mut dyn Hook);
        bytes += layer.add_layer_input(block, inputs, attention, stream, observe)?;
        if let Some(hook) = hook {
            hook.post_layer(index, stream);
        }
        let layer = &mut self.meters.layers[index];
        layer.attention += attention_meter;
        layer.network += Meter { bytes, elapsed: attended.elapsed() };
        Ok(())
    }

    /// Makes a half's output what is added to the stream.
    fn end_half(&self, norm: &Option<Norm<'_>>, output: &mut [f32]) {
        if let Some(norm) = norm {
            norm.rows_in_place(self.pool, output);
        }
        let scale = self.architecture.residual_scale;
        if scale != 1.0 {
            output.iter_mut().for_each(|number| *number *= scale);
        }
    }

    /// Computes the logits that segments want of a block's rows, or hands all to `each`; keeps the
    /// residual stream of the last row.
    fn finish_block(
        &mut self,
        segments: &[Segment<'_>],
        lengths: &[usize],
        buffers: &Buffers,
        cancel: &Cancel,
        each: &mut EachLogits<'_>,
    ) -> Result<(), DecodeError> {
        let hidden = self.architecture.hidden_size;
        let stream = &buffers.stream;
        self.outputs.wanted.clear();
        for part in &buffers.parts {
            if let Some(each) = each {
                let rows = part.of(stream, hidden);
                for (chunk, rows) in rows.chunks(LOGITS_ROWS * hidden).enumerate() {
                    self.outputs.rows = 0;
                    self.finish_rows(rows, cancel)?;
                    let vocabulary = self.architecture.vocabulary_size;
                    let logits = self.outputs.logits.chunks_exact(vocabulary);
                    for (index, logits) in logits.take(self.outputs.rows).enumerate() {
                        each(part.first + chunk * LOGITS_ROWS + index, logits);
                    }
                }
                continue;
            }
            let wanted = edited::rows_wanted(segments, lengths, part);
            self.outputs.keep_matches(wanted.clone(), &buffers.matches, hidden);
            let first = self.outputs.rows + self.outputs.wanted.len() / hidden;
            let end = first + wanted.len();
            let wanted = &stream[wanted.start * hidden..wanted.end * hidden];
            self.outputs.wanted.extend_from_slice(wanted);
            match self.outputs.segments.get_mut(part.segment) {
                Some(rows) => rows.1 = end,
                None => self.outputs.segments.push((first, end)),
            }
        }
        // One pass over the unembedding for all.
        let wanted = std::mem::take(&mut self.outputs.wanted);
        let finished = if wanted.is_empty() { Ok(()) } else { self.finish_rows(&wanted, cancel) };
        self.outputs.wanted = wanted;
        finished?;
        let last = &stream[stream.len() - hidden..];
        let Outputs { residual, normed, .. } = &mut self.outputs;
        residual.clear();
        residual.extend_from_slice(last);
        normed.resize(hidden, 0.0);
        norm_into(self.pool, &self.final_norm, last, normed);
        Ok(())
    }

    /// Appends the logits of some rows of the final stream.
    fn finish_rows(&mut self, stream: &[f32], cancel: &Cancel) -> Result<(), DecodeError> {
        let vocabulary = self.architecture.vocabulary_size;
        let began = Instant::now();
        let mut outputs = std::mem::take(&mut self.outputs);
        let Outputs { finals, logits, rows, .. } = &mut outputs;
        finals.resize(stream.len(), 0.0);
        norm_into(self.pool, &self.final_norm, stream, finals);
        let first = *rows * vocabulary;
        *rows += stream.len() / self.architecture.hidden_size;
        logits.resize(logits.len().max(*rows * vocabulary), 0.0);
        let logits = &mut logits[first..*rows * vocabulary];
        let result = self.block(&[], cancel).project(&self.unembedding, finals, logits);
        let scale = self.architecture.logits_scale;
        if scale != 1.0 {
            logits.iter_mut().for_each(|logit| *logit *= scale);
        }
        if let Some(cap) = self.architecture.final_softcap {
            softcap(cap, logits);
        }
        self.outputs = outputs;
        self.meters.unembedding += Meter { bytes: result?, elapsed: began.elapsed() };
        Ok(())
    }
}

/// Makes room in every cache; on an error the caller cuts them back.
fn reserve(segments: &mut [Segment<'_>]) -> Result<(), DecodeError> {
    let mut taken = 0;
    let needed = |segment: &Segment<'_>| segment.cache.pages_needed(segment.tokens.len());
    let all = segments.iter().map(needed).sum();
    for segment in segments {
        // A hook that panicked may have left rows of a block that never counted.
        segment.cache.truncate(segment.cache.len());
        let pages = needed(segment);
        segment.cache.reserve(segment.tokens.len()).map_err(|error| match error {
            DecodeError::PagesExhausted { free, .. } => {
                DecodeError::PagesExhausted { needed: all, free: free + taken }
            }
            other => other,
        })?;
        taken += pages;
    }
    Ok(())
}

impl Buffers {
    /// Cuts the next block out of the segments' tokens; false if there are no more.
    fn next_block(&mut self, segments: &[Segment<'_>], lengths: &[usize]) -> bool {
        self.parts.clear();
        self.tokens.clear();
        for (index, segment) in segments.iter().enumerate() {
            let first = segment.cache.len();
            let done = first - lengths[index];
            let count = (segment.tokens.len() - done).min(BLOCK_POSITIONS - self.tokens.len());
            if count == 0 {
                continue;
            }
            let context = match segment.cache.is_paged() {
                true => segment.cache.capacity(),
                false => lengths[index] + segment.tokens.len(),
            };
            let row = self.tokens.len();
            self.parts.push(Part { segment: index, first, row, count, context });
            self.tokens.extend_from_slice(&segment.tokens[done..done + count]);
        }
        !self.parts.is_empty()
    }
}

impl Outputs {
    fn clear(&mut self) {
        self.rows = 0;
        self.segments.clear();
        self.matches.clear();
        self.residual.clear();
        self.normed.clear();
    }
}

/// Norms every position's row, or copies the rows where the model has no norm there.
fn norm_into(pool: &Pool, norm: &Option<Norm<'_>>, rows: &[f32], out: &mut [f32]) {
    match norm {
        Some(norm) => norm.rows(pool, rows, out),
        None => out.copy_from_slice(rows),
    }
}

fn add(pool: &Pool, stream: &mut [f32], output: &[f32]) {
    pool.run_chunks(stream, NUMBERS_A_TASK, &|first, stream| {
        let output = &output[first..first + stream.len()];
        stream.iter_mut().zip(output).for_each(|(stream, output)| *stream += output);
    });
}
