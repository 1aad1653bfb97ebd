//! The one forward pass: tokens in, logits out, for every family.
//!
//! Prefill runs a prompt through every layer in blocks of positions, decode runs one token; both
//! are the same walk over the layers and fill the KV cache. What differs between models is asked
//! of the [`Architecture`]; what differs between ways to run the feed-forward network is behind
//! [`Ffn`].
//!
//! Promises: nothing is written before the request is known to fit; after an error the cache is as
//! long as it was; results do not depend on the number of threads. In [`Precision::Exact`] a
//! number is computed in the same way in prefill and decode, so that both give the same bits.

use super::embedding::Embedding;
use super::layer::{AttentionBuffers, Block, Layer};
use super::lookup::Lookup;
use super::norm::Norm;
use super::projection::Projection;
use super::rotation::Rotation;
use super::{Architecture, DenseFfn, Ffn, FfnContext, Hook, KvCache, Role, WeightKey, Weights};
use crate::cpu::{Cancel, Cancelled, Pool};
use crate::kernels::activation::softcap;
use crate::kernels::matmul::release_scratch;

/// Positions that go through the layers together: bounds scratch memory and the time to a cancel.
const BLOCK_POSITIONS: usize = 256;

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
    /// Activations and sums in `f32`, every number as if its position were alone.
    #[default]
    Exact,
    /// Prompts as products of tiles: much faster, the same but for rounding.
    Serving,
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
    rotations: Vec<Rotation>,
    buffers: Buffers,
    logits: Vec<f32>,
    residual: Vec<f32>,
    normed: Vec<f32>,
    bytes_touched: u64,
    _scratch: ThreadScratch,
}

/// Gives back the scratch memory that kernels keep between the calls of a thread. A server has a
/// thread for each of many sessions, and all but a few of them are at rest.
struct ThreadScratch;

impl Drop for ThreadScratch {
    fn drop(&mut self) {
        release_scratch();
        super::ffn::release_scratch();
    }
}

/// Numbers of one block, kept between calls; rows are positions.
#[derive(Default)]
struct Buffers {
    stream: Vec<f32>,
    normed: Vec<f32>,
    attention: AttentionBuffers,
    output: Vec<f32>,
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
        for index in 0..architecture.layers() {
            lookup.check_ffn(options.ffn, index)?;
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
            rotations,
            buffers: Buffers::default(),
            logits: Vec::new(),
            residual: Vec::new(),
            normed: Vec::new(),
            bytes_touched: 0,
            _scratch: ThreadScratch,
        })
    }

    /// Runs tokens through every layer, fills the KV cache and computes the last one's logits.
    ///
    /// # Shapes
    /// `tokens`: `[n]`, at least one; `cache`: room for `n` more positions.
    /// # Errors
    /// `EmptyPrompt`, `TokenOutOfRange`, `ContextFull` and `Memory` before anything is written;
    /// `Cancelled`, asked between tiles. After any of them `cache` is as long as on entry, and there are
    /// no logits.
    pub fn prefill(
        &mut self,
        tokens: &[u32],
        cache: &mut KvCache,
        hook: Option<&mut dyn Hook>,
        cancel: &Cancel,
    ) -> Result<(), DecodeError> {
        self.run(tokens, cache, hook, cancel, None)
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
        self.run(tokens, cache, hook, cancel, Some(each))
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
        self.run(&[token], cache, hook, cancel, None)
    }

    /// Logits of the last position, after the final cap: `[vocabulary]`, empty before the first
    /// run and after an error.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The residual stream of the last position after the last layer: `[hidden]`, or empty.
    pub fn residual(&self) -> &[f32] {
        &self.residual
    }

    /// The last position after the final norm, which the unembedding reads: `[hidden]`, or empty.
    pub fn final_norm(&self) -> &[f32] {
        &self.normed
    }

    /// Bytes of weights read since the decoder was made.
    pub fn bytes_touched(&self) -> u64 {
        self.bytes_touched
    }

    fn run(
        &mut self,
        tokens: &[u32],
        cache: &mut KvCache,
        mut hook: Option<&mut dyn Hook>,
        cancel: &Cancel,
        each: EachLogits<'_>,
    ) -> Result<(), DecodeError> {
        self.logits.clear();
        self.residual.clear();
        self.normed.clear();
        self.check(tokens, cache)?;
        cancel.check()?;
        let length = cache.len();
        // A hook that panicked may have left rows of a block that never counted.
        cache.truncate(length);
        let positions = length + tokens.len();
        cache.reserve(tokens.len()).map_err(|_| DecodeError::Memory { positions })?;
        let result = self.run_blocks(tokens, cache, &mut hook, cancel, each);
        if result.is_err() {
            cache.truncate(length);
            self.logits.clear();
            self.residual.clear();
            self.normed.clear();
        }
        result
    }

    fn check(&self, tokens: &[u32], cache: &KvCache) -> Result<(), DecodeError> {
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
        tokens: &[u32],
        cache: &mut KvCache,
        hook: &mut Option<&mut dyn Hook>,
        cancel: &Cancel,
        mut each: EachLogits<'_>,
    ) -> Result<(), DecodeError> {
        let hidden = self.architecture.hidden_size;
        let length = cache.len() + tokens.len();
        let mut buffers = std::mem::take(&mut self.buffers);
        for block in tokens.chunks(BLOCK_POSITIONS) {
            let first = cache.len();
            for rotation in &mut self.rotations {
                rotation.turn_to(first, block.len(), length);
            }
            let at = self.block(first, cancel);
            let Buffers { stream, inputs, .. } = &mut buffers;
            self.bytes_touched += self.embedding.enter(at, block, stream, inputs)?;
            if let Some(hook) = hook {
                hook.begin(first, block.len());
            }
            for layer in 0..self.layers.len() {
                self.run_layer(layer, first, &mut buffers, cache, hook, cancel)?;
            }
            cache.advance(block.len());
            if let Some(each) = &mut each {
                for (index, row) in buffers.stream.chunks_exact(hidden).enumerate() {
                    self.finish(row, cancel)?;
                    each(first + index, &self.logits);
                }
            }
        }
        if each.is_none() {
            let last = buffers.stream.len() - hidden;
            self.finish(&buffers.stream[last..], cancel)?;
        }
        self.buffers = buffers;
        Ok(())
    }

    fn block<'r>(&'r self, first: usize, cancel: &'r Cancel) -> Block<'r> {
        let (pool, precision) = (self.pool, self.options.precision);
        Block { pool, precision, rotations: &self.rotations, first, cancel }
    }

    fn run_layer(
        &mut self,
        index: usize,
        first: usize,
        buffers: &mut Buffers,
        cache: &mut KvCache,
        hook: &mut Option<&mut dyn Hook>,
        cancel: &Cancel,
    ) -> Result<(), DecodeError> {
        cancel.check()?;
        let Buffers { stream, normed, attention, output, inputs } = buffers;
        let (layer, block) = (&self.layers[index], self.block(first, cancel));
        if let Some(hook) = hook {
            hook.pre_layer(index, stream);
        }
        normed.resize(stream.len(), 0.0);
        output.resize(stream.len(), 0.0);
        norm_into(self.pool, &layer.attention_norm, stream, normed);
        let mut bytes = layer.attend(block, normed, attention, cache, output)?;
        self.end_half(&layer.post_attention_norm, output);
        if let Some(hook) = hook {
            hook.attention_out(index, output);
        }
        add(stream, output);

        // In a parallel layer the network reads what attention has read.
        if !self.architecture.layer(index).parallel {
            norm_into(self.pool, &layer.ffn_norm, stream, normed);
        }
        if let Some(hook) = hook {
            hook.ffn_in(index, normed);
        }
        let context = FfnContext {
            weights: self.weights,
            pool: self.pool,
            architecture: self.architecture,
            precision: self.options.precision,
            position_first: first,
            stream,
            cancel,
        };
        let observe = hook.as_mut().map(|hook| &mut **hook as &mut dyn Hook);
        let positions = stream.len() / self.architecture.hidden_size;
        bytes += self.options.ffn.forward(index, normed, positions, output, &context, observe)?;
        self.end_half(&layer.post_ffn_norm, output);
        if let Some(hook) = hook {
            hook.ffn_out(index, output);
        }
        add(stream, output);
        bytes += layer.add_layer_input(block, inputs, stream)?;
        if let Some(hook) = hook {
            hook.post_layer(index, stream);
        }
        self.bytes_touched += bytes;
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

    /// Keeps a position's final stream, its norm and its logits.
    fn finish(&mut self, stream: &[f32], cancel: &Cancel) -> Result<(), DecodeError> {
        self.residual.clear();
        self.residual.extend_from_slice(stream);
        self.normed.resize(stream.len(), 0.0);
        norm_into(self.pool, &self.final_norm, stream, &mut self.normed);
        let mut logits = std::mem::take(&mut self.logits);
        logits.resize(self.architecture.vocabulary_size, 0.0);
        let block = self.block(0, cancel);
        self.bytes_touched += block.project(&self.unembedding, &self.normed, &mut logits)?;
        self.logits = logits;
        let scale = self.architecture.logits_scale;
        if scale != 1.0 {
            self.logits.iter_mut().for_each(|logit| *logit *= scale);
        }
        if let Some(cap) = self.architecture.final_softcap {
            softcap(cap, &mut self.logits);
        }
        Ok(())
    }
}

/// Norms every position's row, or copies the rows where the model has no norm there.
fn norm_into(pool: &Pool, norm: &Option<Norm<'_>>, rows: &[f32], out: &mut [f32]) {
    match norm {
        Some(norm) => norm.rows(pool, rows, out),
        None => out.copy_from_slice(rows),
    }
}

fn add(stream: &mut [f32], output: &[f32]) {
    stream.iter_mut().zip(output).for_each(|(stream, output)| *stream += output);
}
