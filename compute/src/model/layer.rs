//! One layer: its tensors outside the feed-forward network, and what is done with them.
//!
//! The halves are separate, because hooks stand between them: [`Layer::attend`] ends with the
//! output projection, and what follows the feed-forward network is [`Layer::add_layer_input`].

use std::borrow::Cow;

use super::attention::{Heads, attend};
use super::attention_weights::weights as attention_weights;
use super::block::Block;
use super::kv_cache::LayerCache;
use super::latent_attention::{LatentBuffers, LatentProjections};
use super::lookup::Lookup;
use super::norm::Norm;
use super::paged_attention;
use super::projection::Projection;
use super::rotation::Rotation;
use super::{
    AttentionDescription, DecodeError, Hook, LayerDescription, QueryKeyNorm, Role, Segment,
    WeightKey,
};
use crate::cpu::Pool;
use crate::kernels::Activation;
use crate::kernels::rms_norm::{rms_norm_in_place, unit_rms_norm_in_place};

/// Rows that are normed and turned in one task.
const ROWS_A_TASK: usize = 8;

/// Numbers of one block in attention, kept between layers and calls; rows are positions.
#[derive(Default)]
pub(super) struct AttentionBuffers {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    heads: Vec<f32>,
    latent: LatentBuffers,
    plan: paged_attention::Plan,
    /// What a layer's own embedding goes through.
    gates: Vec<f32>,
    more: Vec<f32>,
}

/// One layer's norms and projections.
pub(super) struct Layer<'a> {
    index: usize,
    description: &'a LayerDescription,
    pub(super) attention_norm: Option<Norm<'a>>,
    query_key_value: QueryKeyValue<'a>,
    sinks: Option<Cow<'a, [f32]>>,
    output: Projection<'a>,
    pub(super) post_attention_norm: Option<Norm<'a>>,
    pub(super) ffn_norm: Option<Norm<'a>>,
    pub(super) post_ffn_norm: Option<Norm<'a>>,
    input: Option<LayerInput<'a>>,
    scalar: Option<f32>,
    /// Index into the decoder's rotations.
    rotation: Option<usize>,
}

/// Where queries, keys and values come from.
enum QueryKeyValue<'a> {
    Whole(Box<WholeProjections<'a>>),
    Latent(Box<LatentProjections<'a>>),
}

/// A projection each for queries, keys and values.
struct WholeProjections<'a> {
    /// Epsilon of the norms of heads.
    epsilon: f32,
    query: Projection<'a>,
    query_norm: Option<Vec<f32>>,
    /// None where another layer's keys are read.
    key: Option<Projection<'a>>,
    key_norm: Option<Vec<f32>>,
    /// None where another layer's values are read, or where values are keys.
    value: Option<Projection<'a>>,
}

/// How the layer's own embedding enters the stream (Gemma 4).
struct LayerInput<'a> {
    gate: Projection<'a>,
    activation: Activation,
    projection: Projection<'a>,
    norm: Option<Norm<'a>>,
}

impl<'a> Layer<'a> {
    /// Looks up a layer's tensors, and its rotary embedding among those that are known.
    ///
    /// # Errors
    /// `MissingTensor` and `Shape`.
    pub(super) fn new(
        lookup: &Lookup<'a>,
        index: usize,
        rotations: &mut Vec<Rotation>,
    ) -> Result<Layer<'a>, DecodeError> {
        let architecture = lookup.architecture;
        let description = architecture.layer(index);
        let attention = &description.attention;
        let key = |role| WeightKey::layer(role, index);
        let rotation = attention.rope.as_ref().map(|rope| {
            let known = rotations.iter().position(|known| known.is(rope, attention.head_dim));
            known.unwrap_or_else(|| {
                rotations.push(Rotation::new(rope, attention.head_dim));
                rotations.len() - 1
            })
        });
        let input = match architecture.per_layer_embedding {
            None => None,
            Some(_) => Some(LayerInput {
                gate: Projection { matrix: lookup.matrix(key(Role::PerLayerGate))?, bias: None },
                activation: architecture.activation,
                projection: Projection {
                    matrix: lookup.matrix(key(Role::PerLayerProjection))?,
                    bias: None,
                },
                norm: lookup.stream_norm(key(Role::PostPerLayerNorm), None)?,
            }),
        };
        let scalar = lookup.optional_vector(key(Role::LayerScalar))?.map(|scalar| scalar[0]);
        Ok(Layer {
            index,
            description,
            attention_norm: lookup
                .stream_norm(key(Role::AttentionNorm), Some(Role::AttentionNormBias))?,
            query_key_value: match attention.latent {
                Some(latent) => {
                    QueryKeyValue::Latent(Box::new(LatentProjections::new(lookup, index, latent)?))
                }
                None => QueryKeyValue::Whole(Box::new(WholeProjections::new(lookup, index)?)),
            },
            sinks: lookup.optional_vector(key(Role::Sinks))?,
            output: lookup.projection(key(Role::Output), Role::OutputBias)?,
            post_attention_norm: lookup.stream_norm(key(Role::PostAttentionNorm), None)?,
            ffn_norm: lookup.stream_norm(key(Role::FfnNorm), Some(Role::FfnNormBias))?,
            post_ffn_norm: lookup.stream_norm(key(Role::PostFfnNorm), None)?,
            input,
            scalar,
            rotation,
        })
    }

    /// Attention from the normed stream to the output projection; returns bytes of weights read.
    ///
    /// # Shapes
    /// `normed`, `output`: `[n, hidden]`.
    pub(super) fn attend(
        &self,
        block: Block<'_>,
        normed: &[f32],
        buffers: &mut AttentionBuffers,
        segments: &mut [Segment<'_>],
        output: &mut [f32],
        hook: Option<&mut dyn Hook>,
    ) -> Result<u64, DecodeError> {
        let AttentionBuffers { queries, keys, values, heads, latent: low_rank, plan, .. } = buffers;
        let description = &self.description.attention;
        let positions = normed.len() / self.output.matrix.outputs();
        queries.resize(positions * description.query_width(), 0.0);
        keys.resize(positions * description.key_width(), 0.0);
        values.resize(positions * description.value_width(), 0.0);
        heads.resize(positions * description.output_width(), 0.0);
        let rotation = self.rotation.map(|rotation| &block.rotations[rotation]);
        let rows = (&mut queries[..], &mut keys[..], &mut values[..]);
        let mut bytes = match &self.query_key_value {
            QueryKeyValue::Whole(whole) => {
                whole.project(block, rotation, description, normed, rows)?
            }
            QueryKeyValue::Latent(latent) => {
                latent.project(block, rotation, description, normed, rows, low_rank)?
            }
        };
        if description.kv_from.is_none() {
            for part in block.parts {
                let keys = part.of(keys, description.key_width());
                let values = part.of(values, description.value_width());
                let cache = &mut segments[part.segment].cache;
                cache.write(block.pool, self.index, part.first, keys, values);
            }
        }
        let source = description.kv_from.unwrap_or(self.index);
        let (segments, sinks) = (&*segments, self.sinks.as_deref());
        for part in block.parts {
            if let LayerCache::Rows(keys, values) = segments[part.segment].cache.layer(source) {
                let queries = part.of(queries, description.query_width());
                let heads = part.of_mut(heads, description.output_width());
                let input = Heads { queries, keys, values, sinks };
                attend(block.pool, description, &input, part.first, heads, block.cancel)?;
            }
        }
        let pages = |segment: usize| match segments[segment].cache.layer(source) {
            LayerCache::Paged(pages) => Some(pages),
            LayerCache::Rows(..) => None,
        };
        paged_attention::attend(block, description, &pages, queries, sinks, heads, plan)?;
        if let Some(hook) = hook {
            let mut weights = Vec::new();
            for part in block.parts {
                let width = description.query_width();
                let rows = part.of(queries, width).chunks_exact(width);
                for (position, query) in (part.first..).zip(rows) {
                    if hook.wants_attention_weights(self.index, position) {
                        let cache = segments[part.segment].cache.layer(source);
                        let known = &mut weights;
                        attention_weights(description, query, &cache, position, sinks, known);
                        hook.attention_weights(self.index, position, known);
                    }
                }
            }
        }
        bytes += block.project(&self.output, heads, output)?;
        Ok(bytes)
    }

    /// The factor on the stream as it leaves the layer.
    pub(super) fn scalar(&self) -> f32 {
        self.scalar.unwrap_or(1.0)
    }

    /// What follows the feed-forward network: the layer's own embedding and its scalar, where the
    /// model has them. Returns bytes of weights read.
    ///
    /// # Shapes
    /// `stream`: `[n, hidden]`; `inputs`: `[n, layers * width]`.
    pub(super) fn add_layer_input(
        &self,
        block: Block<'_>,
        inputs: &[f32],
        AttentionBuffers { gates, more, .. }: &mut AttentionBuffers,
        stream: &mut [f32],
        hook: Option<&mut dyn Hook>,
    ) -> Result<u64, DecodeError> {
        let mut bytes = 0;
        if let Some(LayerInput { gate, activation, projection, norm }) = &self.input {
            let (hidden, width) = (gate.matrix.inputs(), gate.matrix.outputs());
            let positions = stream.len() / hidden;
            gates.resize(positions * width, 0.0);
            bytes += block.project(gate, stream, gates)?;
            let rows = inputs.chunks_exact(inputs.len() / positions);
            for (gates, inputs) in gates.chunks_exact_mut(width).zip(rows) {
                let own = &inputs[self.index * width..(self.index + 1) * width];
                for (gate, input) in gates.iter_mut().zip(own) {
                    *gate = activation.apply(*gate) * input;
                }
            }
            more.resize(stream.len(), 0.0);
            bytes += block.project(projection, gates, more)?;
            if let Some(norm) = norm {
                norm.rows_in_place(block.pool, more);
            }
            if let Some(hook) = hook {
                hook.layer_input_out(self.index, more);
            }
            stream.iter_mut().zip(&*more).for_each(|(stream, more)| *stream += more);
        }
        if let Some(scalar) = self.scalar {
            stream.iter_mut().for_each(|number| *number *= scalar);
        }
        Ok(bytes)
    }
}

impl<'a> WholeProjections<'a> {
    fn new(lookup: &Lookup<'a>, layer: usize) -> Result<WholeProjections<'a>, DecodeError> {
        let key = |role| WeightKey::layer(role, layer);
        Ok(WholeProjections {
            epsilon: lookup.architecture.norm.epsilon,
            query: lookup.projection(key(Role::Query), Role::QueryBias)?,
            query_norm: lookup.optional_norm(key(Role::QueryNorm))?,
            key: lookup.optional_projection(key(Role::Key), Role::KeyBias)?,
            key_norm: lookup.optional_norm(key(Role::KeyNorm))?,
            value: lookup.optional_projection(key(Role::Value), Role::ValueBias)?,
        })
    }

    /// Writes queries, keys and values of a block, normed and turned, and returns the bytes of
    /// weights read.
    fn project(
        &self,
        block: Block<'_>,
        rotation: Option<&Rotation>,
        description: &AttentionDescription,
        normed: &[f32],
        (queries, keys, values): (&mut [f32], &mut [f32], &mut [f32]),
    ) -> Result<u64, DecodeError> {
        let query = &self.query;
        let bytes = match (&self.key, &self.value) {
            (None, _) => block.project(query, normed, queries)?,
            (Some(key), Some(value)) => {
                let together = [(query, &mut *queries), (key, &mut *keys), (value, &mut *values)];
                block.project_together(together, normed)?
            }
            (Some(key), None) => {
                let together = [(query, &mut *queries), (key, &mut *keys)];
                let bytes = block.project_together(together, normed)?;
                values.copy_from_slice(keys);
                bytes
            }
        };
        let width = description.query_width();
        self.prepare(block.pool, rotation, description, width, &self.query_norm, queries);
        if self.key.is_some() {
            if description.value_norm {
                let heads = values.chunks_exact_mut(description.value_dim);
                heads.for_each(|head| unit_rms_norm_in_place(head, self.epsilon));
            }
            let width = description.key_width();
            self.prepare(block.pool, rotation, description, width, &self.key_norm, keys);
        }
        Ok(bytes)
    }

    /// Norms and turns the queries or keys of a block.
    fn prepare(
        &self,
        pool: &Pool,
        rotation: Option<&Rotation>,
        description: &AttentionDescription,
        width: usize,
        norm: &Option<Vec<f32>>,
        rows: &mut [f32],
    ) {
        let &AttentionDescription { head_dim, query_key_norm, .. } = description;
        pool.run_chunks(rows, ROWS_A_TASK * width, &|first, rows| {
            for (index, row) in rows.chunks_exact_mut(width).enumerate() {
                if let (Some(weight), QueryKeyNorm::Projection) = (norm, query_key_norm) {
                    rms_norm_in_place(row, weight, self.epsilon);
                }
                for head in row.chunks_exact_mut(head_dim) {
                    if let (Some(weight), QueryKeyNorm::Head) = (norm, query_key_norm) {
                        rms_norm_in_place(head, weight, self.epsilon);
                    }
                    if let Some(rotation) = rotation {
                        rotation.rotate(first / width + index, head);
                    }
                }
            }
        });
    }
}
