//! What an overlay changes in a block: features of the base that fall silent, and contributions of
//! edited rows and of updates, added to the networks' outputs in `f32`.
//!
//! Contributions are added before what the family does to a network's output (its weight, its norm),
//! so that an edit above the weights is the same edit made in the weights.

use std::borrow::Cow;
use std::ops::Range;

use super::FfnContext;
use super::experts::{Assignment, Share};
use crate::kernels::activation::gated;
use crate::kernels::dot;
use crate::model::overlay::{EditedRows, LayerEdits, LowRank};
use crate::model::projection::Projection;
use crate::model::{DecodeError, Matrix, Orientation};
use crate::quant::MatrixView;

/// Rows of a block whose sequence has edits in this layer.
#[derive(Debug, Clone)]
pub(in crate::model) struct RowEdits<'e> {
    /// Which rows.
    pub(in crate::model) rows: Range<usize>,
    /// Their edits.
    pub(in crate::model) edits: &'e LayerEdits,
}

impl Assignment<'_> {
    /// Silences the features of the base that are replaced or hidden.
    pub(super) fn silence(&self, activations: &mut [f32]) {
        for RowEdits { rows, edits } in self.context().edits {
            for &feature in &edits.silenced {
                for share in self.shares {
                    let Some(within) = feature.checked_sub(share.network.first) else { continue };
                    if within >= share.network.features {
                        continue;
                    }
                    for position in rows.clone() {
                        if let Some(row) = self.row(share, position) {
                            activations[row.start + within] = 0.0;
                        }
                    }
                }
            }
        }
    }

    /// Adds to the outputs of networks of one kind what edits contribute there; returns the bytes of
    /// edits read.
    ///
    /// # Shapes
    /// As the `down` of [`Assignment::add_up`].
    pub(super) fn add_edits(
        &self,
        shares: &[Share],
        activations: &[f32],
        out: &mut [f32],
    ) -> Result<u64, DecodeError> {
        let context = self.context();
        if context.edits.is_empty() {
            return Ok(0);
        }
        let hidden = context.architecture.hidden_size;
        let (mut bytes, mut activations, mut out) = (0, activations, out);
        for share in shares {
            let (own, later) = activations.split_at(share.activations().len());
            let (outputs, rest) = out.split_at_mut(share.count() * hidden);
            (activations, out) = (later, rest);
            let positions = self.positions(share);
            for RowEdits { rows, edits } in context.edits {
                let first = positions.partition_point(|&position| position < rows.start);
                let end = positions.partition_point(|&position| position < rows.end);
                if first == end {
                    continue;
                }
                let outputs = &mut outputs[first * hidden..end * hidden];
                if let Some(rows) = edits.rows.get(&share.network.expert) {
                    let mut input = Vec::with_capacity(outputs.len());
                    for &position in &positions[first..end] {
                        input.extend_from_slice(self.input_row(share, position));
                    }
                    bytes += add_rows(context, rows, &input, outputs, &|gates, ups| {
                        self.activate_exactly(share, gates, ups);
                    })?;
                }
                let features = share.network.features;
                let own = &own[first * features..end * features];
                for update in &edits.updates {
                    bytes += add_update(update, share, own, outputs, hidden);
                }
            }
        }
        Ok(bytes)
    }

    /// Adds what features beside experts contribute, where the layer has no dense network.
    ///
    /// # Shapes
    /// `out`: `[positions, hidden]`.
    pub(super) fn add_beside(&self, input: &[f32], out: &mut [f32]) -> Result<u64, DecodeError> {
        let context = self.context();
        let dense = context.architecture.layer(self.layer()).ffn.dense;
        if context.edits.is_empty() || dense.is_some() {
            return Ok(0);
        }
        let hidden = context.architecture.hidden_size;
        let mut bytes = 0;
        for RowEdits { rows, edits } in context.edits {
            let Some(edited) = edits.rows.get(&None) else { continue };
            let place = rows.start * hidden..rows.end * hidden;
            let (input, out) = (&input[place.clone()], &mut out[place]);
            let function = context.architecture.activation;
            bytes += add_rows(context, edited, input, out, &|gates, ups| {
                gated(function, gates, ups);
            })?;
        }
        Ok(bytes)
    }
}

/// Adds `activation(gates x, ups x) downs` to every row of `out`.
///
/// # Shapes
/// `input` and `out`: `[n, hidden]`.
fn add_rows(
    context: &FfnContext<'_>,
    rows: &EditedRows,
    input: &[f32],
    out: &mut [f32],
    activate: &dyn Fn(&mut [f32], &[f32]),
) -> Result<u64, DecodeError> {
    let (features, hidden) = (rows.features.len(), context.architecture.hidden_size);
    let positions = input.len() / hidden;
    let projection = |numbers, orientation, bias: Option<&'_ [f32]>| {
        let view = MatrixView::from_f32(features, hidden, numbers);
        let matrix = Matrix { view: view.expect("rows of the model's width"), orientation };
        Projection { matrix, bias: bias.map(|bias| Cow::Owned(bias.to_vec())) }
    };
    let mut gates = vec![0.0; positions * features];
    let gate = projection(&rows.gates, Orientation::OutIn, Some(&rows.gate_bias));
    let mut bytes = context.project_exactly(&gate, input, &mut gates)?;
    let mut ups = Vec::new();
    if !rows.ups.is_empty() {
        ups.resize(gates.len(), 0.0);
        let up = projection(&rows.ups, Orientation::OutIn, Some(&rows.up_bias));
        bytes += context.project_exactly(&up, input, &mut ups)?;
    }
    activate(&mut gates, &ups);
    let mut added = vec![0.0; out.len()];
    let down = projection(&rows.downs, Orientation::InOut, None);
    bytes += context.project_exactly(&down, &gates, &mut added)?;
    out.iter_mut().zip(&added).for_each(|(out, added)| *out += added);
    Ok(bytes)
}

/// Adds what an update of the down projections makes of a network's activations.
fn add_update(
    update: &LowRank,
    share: &Share,
    activations: &[f32],
    out: &mut [f32],
    hidden: usize,
) -> u64 {
    let features = share.network.features;
    let width = update.right.len() / update.rank.max(1);
    let rows = out.chunks_exact_mut(hidden).zip(activations.chunks_exact(features));
    for (out, activations) in rows {
        for rank in 0..update.rank {
            let right = &update.right[rank * width + share.network.first..][..features];
            let factor = dot(right, activations);
            let left = &update.left[rank * hidden..(rank + 1) * hidden];
            out.iter_mut().zip(left).for_each(|(out, left)| *out += factor * left);
        }
    }
    (size_of::<f32>() * update.rank * (features + hidden)) as u64
}
