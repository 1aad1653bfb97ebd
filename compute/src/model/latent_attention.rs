//! Multi-head latent attention: queries, keys and values of DeepSeek through low-rank projections.
//!
//! What comes out is what plain attention takes: a query and a key of `nope_dim + rope_dim`
//! numbers for each head, and a value of `value_dim`. The last `rope_dim` numbers of a key turn
//! with the position and are the same in all heads. The cache holds the expanded keys and values;
//! keeping the low-rank ones instead would save memory and is not done here.
//!
//! Source: DeepSeek-V2 (arXiv:2405.04434), section 2.1.

use super::block::Block;
use super::lookup::Lookup;
use super::projection::Projection;
use super::rotation::Rotation;
use super::{AttentionDescription, DecodeError, LatentDescription, Role, WeightKey};
use crate::kernels::rms_norm::rms_norm_in_place;

/// Epsilon of the norms between the halves, the same in every published model.
const EPSILON: f32 = 1e-6;

/// The projections of one layer.
pub(super) struct LatentProjections<'a> {
    latent: LatentDescription,
    query_down: Option<Down<'a>>,
    /// The second half, or the whole projection where there is only one.
    query: Projection<'a>,
    kv_down: Down<'a>,
    kv_up: Projection<'a>,
}

/// Numbers of one block, kept between layers and calls; rows are positions.
#[derive(Default)]
pub(super) struct LatentBuffers {
    low: Vec<f32>,
    both: Vec<f32>,
    shared: Vec<f32>,
    expanded: Vec<f32>,
}

/// The first half of a low-rank projection, and the weight of the norm after it.
struct Down<'a> {
    projection: Projection<'a>,
    norm: Vec<f32>,
}

impl<'a> LatentProjections<'a> {
    /// Looks up and checks a layer's tensors.
    ///
    /// # Errors
    /// `MissingTensor` and `Shape`.
    pub(super) fn new(
        lookup: &Lookup<'a>,
        layer: usize,
        latent: LatentDescription,
    ) -> Result<LatentProjections<'a>, DecodeError> {
        let key = |role| WeightKey::layer(role, layer);
        let up = |role| {
            Ok::<_, DecodeError>(Projection { matrix: lookup.matrix(key(role))?, bias: None })
        };
        let down = |role, bias, norm| {
            let projection = lookup.projection(key(role), bias)?;
            Ok::<_, DecodeError>(Down { projection, norm: lookup.norm(key(norm))? })
        };
        let query_down = match latent.query_rank {
            Some(_) => Some(down(Role::QueryDown, Role::QueryDownBias, Role::QueryDownNorm)?),
            None => None,
        };
        Ok(LatentProjections {
            latent,
            query: up(if query_down.is_some() { Role::QueryUp } else { Role::Query })?,
            query_down,
            kv_down: down(Role::KvDown, Role::KvDownBias, Role::KvDownNorm)?,
            kv_up: up(Role::KvUp)?,
        })
    }

    /// Writes queries, keys and values of a block, turned, and returns the bytes of weights read.
    ///
    /// # Shapes
    /// `normed`: `[n, hidden]`; `queries`, `keys`: `[n, heads * head_dim]`; `values`:
    /// `[n, heads * value_dim]`.
    /// # Errors
    /// `Cancelled`.
    pub(super) fn project(
        &self,
        block: Block<'_>,
        rotation: Option<&Rotation>,
        description: &AttentionDescription,
        normed: &[f32],
        (queries, keys, values): (&mut [f32], &mut [f32], &mut [f32]),
        LatentBuffers { low, both, shared, expanded }: &mut LatentBuffers,
    ) -> Result<u64, DecodeError> {
        let &AttentionDescription { heads, head_dim, value_dim, .. } = description;
        let LatentDescription { kv_rank, nope_dim, rope_dim, .. } = self.latent;
        let positions = queries.len() / (heads * head_dim);
        let turn = |position: usize, numbers: &mut [f32]| {
            if let Some(rotation) = rotation {
                rotation.rotate(position, numbers);
            }
        };

        // Of each position what keys and values share, and the part of the keys that turns.
        both.resize(positions * (kv_rank + rope_dim), 0.0);
        let kv_down = &self.kv_down.projection;
        let mut bytes = match &self.query_down {
            None => block.project_together([(&self.query, queries), (kv_down, both)], normed)?,
            Some(Down { projection, norm }) => {
                low.resize(positions * norm.len(), 0.0);
                let bytes = block.project_together([(projection, low), (kv_down, both)], normed)?;
                let rows = low.chunks_exact_mut(norm.len());
                rows.for_each(|row| rms_norm_in_place(row, norm, EPSILON));
                bytes + block.project(&self.query, low, queries)?
            }
        };
        for (index, head) in queries.chunks_exact_mut(head_dim).enumerate() {
            turn(index / heads, &mut head[nope_dim..]);
        }

        shared.clear();
        for (position, row) in both.chunks_exact_mut(kv_rank + rope_dim).enumerate() {
            let (low, turning) = row.split_at_mut(kv_rank);
            rms_norm_in_place(low, &self.kv_down.norm, EPSILON);
            shared.extend_from_slice(low);
            turn(position, turning);
        }
        expanded.resize(positions * heads * (nope_dim + value_dim), 0.0);
        bytes += block.project(&self.kv_up, shared, expanded)?;
        let rows = keys.chunks_exact_mut(head_dim).zip(values.chunks_exact_mut(value_dim));
        let expanded = expanded.chunks_exact(nope_dim + value_dim);
        for (index, ((key, value), expanded)) in rows.zip(expanded).enumerate() {
            let turning = &both[index / heads * (kv_rank + rope_dim) + kv_rank..][..rope_dim];
            key[..nope_dim].copy_from_slice(&expanded[..nope_dim]);
            key[nope_dim..].copy_from_slice(turning);
            value.copy_from_slice(&expanded[nope_dim..]);
        }
        Ok(bytes)
    }
}
