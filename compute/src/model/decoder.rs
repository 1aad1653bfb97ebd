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

use std::borrow::Cow;

use super::attention::attend;
use super::projection::project;
use super::rotation::Rotation;
use super::{
    Architecture, DenseFfn, Ffn, FfnContext, Hook, KvCache, Matrix, Orientation, Role, WeightKey,
    Weights,
};
use crate::cpu::{Cancel, Cancelled, Pool};
use crate::kernels::activation::softcap;
use crate::kernels::matmul::release_scratch;
use crate::kernels::rms_norm::{rms_norm, rms_norm_in_place};

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
    embedding: Matrix<'a>,
    unembedding: Matrix<'a>,
    final_norm_weight: Vec<f32>,
    layers: Vec<LayerWeights<'a>>,
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

/// What one layer's attention and norms use; norm weights have the family's offset added.
struct LayerWeights<'a> {
    attention_norm: Vec<f32>,
    query: Matrix<'a>,
    query_bias: Option<Cow<'a, [f32]>>,
    query_norm: Option<Vec<f32>>,
    key: Matrix<'a>,
    key_bias: Option<Cow<'a, [f32]>>,
    key_norm: Option<Vec<f32>>,
    value: Matrix<'a>,
    value_bias: Option<Cow<'a, [f32]>>,
    output: Matrix<'a>,
    output_bias: Option<Cow<'a, [f32]>>,
    post_attention_norm: Option<Vec<f32>>,
    ffn_norm: Vec<f32>,
    post_ffn_norm: Option<Vec<f32>>,
    /// Index into the decoder's `rotations`.
    rotation: Option<usize>,
}

/// Numbers of one block, kept between calls; rows are positions.
#[derive(Default)]
struct Buffers {
    stream: Vec<f32>,
    normed: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    heads: Vec<f32>,
    output: Vec<f32>,
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
        let embedding = lookup.table(Role::Embedding)?;
        let unembedding = match architecture.tied_embeddings {
            true => embedding,
            false => lookup.matrix(WeightKey::model(Role::Unembedding))?,
        };
        let mut rotations: Vec<Rotation> = Vec::new();
        let mut layers = Vec::with_capacity(architecture.layers());
        for index in 0..architecture.layers() {
            let key = |role| WeightKey::layer(role, index);
            lookup.check_ffn(options.ffn, index)?;
            let attention = &architecture.layer(index).attention;
            let rotation = attention.rope.as_ref().map(|rope| {
                let known = rotations.iter().position(|known| known.is(rope, attention.head_dim));
                known.unwrap_or_else(|| {
                    rotations.push(Rotation::new(rope, attention.head_dim));
                    rotations.len() - 1
                })
            });
            layers.push(LayerWeights {
                attention_norm: lookup.norm(key(Role::AttentionNorm))?,
                query: lookup.matrix(key(Role::Query))?,
                query_bias: lookup.optional_vector(key(Role::QueryBias))?,
                query_norm: lookup.optional_norm(key(Role::QueryNorm))?,
                key: lookup.matrix(key(Role::Key))?,
                key_bias: lookup.optional_vector(key(Role::KeyBias))?,
                key_norm: lookup.optional_norm(key(Role::KeyNorm))?,
                value: lookup.matrix(key(Role::Value))?,
                value_bias: lookup.optional_vector(key(Role::ValueBias))?,
                output: lookup.matrix(key(Role::Output))?,
                output_bias: lookup.optional_vector(key(Role::OutputBias))?,
                post_attention_norm: lookup.optional_norm(key(Role::PostAttentionNorm))?,
                ffn_norm: lookup.norm(key(Role::FfnNorm))?,
                post_ffn_norm: lookup.optional_norm(key(Role::PostFfnNorm))?,
                rotation,
            });
        }
        let final_norm_weight = lookup.norm(WeightKey::model(Role::FinalNorm))?;
        Ok(Decoder {
            architecture,
            weights,
            pool,
            options,
            embedding,
            unembedding,
            final_norm_weight,
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
            self.embed(block, &mut buffers.stream);
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

    fn embed(&mut self, tokens: &[u32], stream: &mut Vec<f32>) {
        let hidden = self.architecture.hidden_size;
        stream.resize(tokens.len() * hidden, 0.0);
        let view = &self.embedding.view;
        for (row, &token) in stream.chunks_exact_mut(hidden).zip(tokens) {
            view.row_f32(token as usize, row);
            if self.architecture.embed_scale != 1.0 {
                row.iter_mut().for_each(|number| *number *= self.architecture.embed_scale);
            }
        }
        self.bytes_touched += (tokens.len() * view.row_bytes()) as u64;
    }

    fn run_layer(
        &mut self,
        layer: usize,
        first: usize,
        buffers: &mut Buffers,
        cache: &mut KvCache,
        hook: &mut Option<&mut dyn Hook>,
        cancel: &Cancel,
    ) -> Result<(), DecodeError> {
        cancel.check()?;
        let Buffers { stream, normed, output, .. } = buffers;
        let hidden = self.architecture.hidden_size;
        let epsilon = self.architecture.norm.epsilon;
        let weights = &self.layers[layer];
        if let Some(hook) = hook {
            hook.pre_layer(layer, stream);
        }
        normed.resize(stream.len(), 0.0);
        output.resize(stream.len(), 0.0);
        norm_rows(self.pool, stream, &weights.attention_norm, epsilon, normed);
        self.bytes_touched += self.attend(layer, first, buffers, cache, cancel)?;

        let Buffers { stream, normed, output, .. } = buffers;
        if let Some(weight) = &weights.post_attention_norm {
            norm_rows_in_place(self.pool, output, weight, epsilon);
        }
        if let Some(hook) = hook {
            hook.attention_out(layer, output);
        }
        add(stream, output);

        norm_rows(self.pool, stream, &weights.ffn_norm, epsilon, normed);
        if let Some(hook) = hook {
            hook.ffn_in(layer, normed);
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
        let positions = stream.len() / hidden;
        self.bytes_touched +=
            self.options.ffn.forward(layer, normed, positions, output, &context, observe)?;
        if let Some(weight) = &weights.post_ffn_norm {
            norm_rows_in_place(self.pool, output, weight, epsilon);
        }
        if let Some(hook) = hook {
            hook.ffn_out(layer, output);
        }
        add(stream, output);
        if let Some(hook) = hook {
            hook.post_layer(layer, stream);
        }
        Ok(())
    }

    /// Attention from the normed stream to the output projection; returns bytes of weights read.
    fn attend(
        &self,
        layer: usize,
        first: usize,
        buffers: &mut Buffers,
        cache: &mut KvCache,
        cancel: &Cancel,
    ) -> Result<u64, DecodeError> {
        let Buffers { normed, queries, keys, values, heads, output, .. } = buffers;
        let description = &self.architecture.layer(layer).attention;
        let weights = &self.layers[layer];
        let positions = normed.len() / self.architecture.hidden_size;
        let query_width = description.query_width();
        let key_width = description.key_width();
        queries.resize(positions * query_width, 0.0);
        heads.resize(positions * query_width, 0.0);
        keys.resize(positions * key_width, 0.0);
        values.resize(positions * key_width, 0.0);
        let project = |matrix: &Matrix, bias: &Option<Cow<[f32]>>, x: &[f32], out: &mut [f32]| {
            let precision = self.options.precision;
            project(self.pool, precision, matrix, bias.as_deref(), x, out, cancel)
        };
        let mut bytes = project(&weights.query, &weights.query_bias, normed, queries)?;
        bytes += project(&weights.key, &weights.key_bias, normed, keys)?;
        bytes += project(&weights.value, &weights.value_bias, normed, values)?;
        let rotation = weights.rotation.map(|rotation| &self.rotations[rotation]);
        let prepare = |rows: &mut [f32], width: usize, norm: &Option<Vec<f32>>| {
            for (index, row) in rows.chunks_exact_mut(width).enumerate() {
                for head in row.chunks_exact_mut(description.head_dim) {
                    if let Some(weight) = norm {
                        rms_norm_in_place(head, weight, self.architecture.norm.epsilon);
                    }
                    if let Some(rotation) = rotation {
                        rotation.rotate(index, head);
                    }
                }
            }
        };
        prepare(queries, query_width, &weights.query_norm);
        prepare(keys, key_width, &weights.key_norm);
        cache.append(layer, keys, values);
        attend(self.pool, description, queries, cache.rows(layer), first, heads, cancel)?;
        bytes += project(&weights.output, &weights.output_bias, heads, output)?;
        Ok(bytes)
    }

    /// Keeps a position's final stream, its norm and its logits.
    fn finish(&mut self, stream: &[f32], cancel: &Cancel) -> Result<(), DecodeError> {
        self.residual.clear();
        self.residual.extend_from_slice(stream);
        self.normed.resize(stream.len(), 0.0);
        let epsilon = self.architecture.norm.epsilon;
        rms_norm(stream, &self.final_norm_weight, epsilon, &mut self.normed);
        self.logits.resize(self.architecture.vocabulary_size, 0.0);
        self.bytes_touched += project(
            self.pool,
            self.options.precision,
            &self.unembedding,
            None,
            &self.normed,
            &mut self.logits,
            cancel,
        )?;
        if let Some(cap) = self.architecture.final_softcap {
            softcap(cap, &mut self.logits);
        }
        Ok(())
    }
}

/// Norms every position's row, each alone.
fn norm_rows(pool: &Pool, rows: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = weight.len();
    pool.run_chunks(out, width, &|first, out| {
        rms_norm(&rows[first..first + width], weight, epsilon, out);
    });
}

fn norm_rows_in_place(pool: &Pool, rows: &mut [f32], weight: &[f32], epsilon: f32) {
    pool.run_chunks(rows, weight.len(), &|_, row| rms_norm_in_place(row, weight, epsilon));
}

fn add(stream: &mut [f32], output: &[f32]) {
    stream.iter_mut().zip(output).for_each(|(stream, output)| *stream += output);
}

/// Tensors by key, checked against the architecture.
struct Lookup<'a> {
    architecture: &'a Architecture,
    weights: &'a dyn Weights,
}

impl<'a> Lookup<'a> {
    fn matrix(&self, key: WeightKey) -> Result<Matrix<'a>, DecodeError> {
        let matrix = self.weights.matrix(key).ok_or(DecodeError::MissingTensor { key })?;
        let found = vec![matrix.outputs(), matrix.inputs()];
        self.check(key, found)?;
        Ok(matrix)
    }

    /// An embedding, whose rows must be tokens.
    fn table(&self, role: Role) -> Result<Matrix<'a>, DecodeError> {
        let key = WeightKey::model(role);
        let matrix = self.matrix(key)?;
        if matrix.orientation != Orientation::OutIn {
            let expected = self.architecture.shape(key).unwrap_or_default();
            let found = expected.iter().rev().copied().collect();
            return Err(DecodeError::Shape { key, expected, found });
        }
        Ok(matrix)
    }

    fn vector(&self, key: WeightKey) -> Result<Cow<'a, [f32]>, DecodeError> {
        let vector = self.weights.vector(key).ok_or(DecodeError::MissingTensor { key })?;
        self.check(key, vec![vector.len()])?;
        Ok(vector)
    }

    fn norm(&self, key: WeightKey) -> Result<Vec<f32>, DecodeError> {
        let mut weight = self.vector(key)?.into_owned();
        weight.iter_mut().for_each(|weight| *weight += self.architecture.norm.offset);
        Ok(weight)
    }

    /// A vector that only some models have there.
    fn optional_vector(&self, key: WeightKey) -> Result<Option<Cow<'a, [f32]>>, DecodeError> {
        match self.architecture.shape(key) {
            Some(_) => self.vector(key).map(Some),
            None => Ok(None),
        }
    }

    fn optional_norm(&self, key: WeightKey) -> Result<Option<Vec<f32>>, DecodeError> {
        match self.architecture.shape(key) {
            Some(_) => self.norm(key).map(Some),
            None => Ok(None),
        }
    }

    /// Checks that a layer's networks are there, as far as the way to run them reads them.
    fn check_ffn(&self, ffn: &dyn Ffn, layer: usize) -> Result<(), DecodeError> {
        let networks = self.architecture.networks(layer);
        let keys = networks.iter().flat_map(|network| {
            Role::NETWORK.map(|role| WeightKey {
                role,
                layer: Some(layer as u32),
                expert: network.expert,
            })
        });
        for key in keys.filter(|key| ffn.reads(key.role)) {
            match self.architecture.shape(key) {
                Some(shape) if shape.len() == 2 => drop(self.matrix(key)?),
                Some(_) => drop(self.vector(key)?),
                None => {}
            }
        }
        Ok(())
    }

    fn check(&self, key: WeightKey, found: Vec<usize>) -> Result<(), DecodeError> {
        let expected = self.architecture.shape(key).unwrap_or_default();
        match found == expected {
            true => Ok(()),
            false => Err(DecodeError::Shape { key, expected, found }),
        }
    }
}
