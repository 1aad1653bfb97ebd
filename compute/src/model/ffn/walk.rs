//! A sparse walk: only the features whose gates answer most strongly.

use super::experts::{Assignment, Share};
use super::{Ffn, FfnBuffers, FfnContext};
use crate::kernels::{matvec_rows, top_k_by_magnitude};
use crate::model::{DecodeError, Hook, Orientation, Role, WeightKey};

/// Only the features whose gates answer most strongly.
///
/// For each position the `k` features with the largest magnitude of the gate score (before the
/// activation; of equal ones the lowest index) are used, all others add nothing. They are chosen
/// among all networks that run for the position. All gate rows of these are read, and the rows of
/// the other two projections only where they are used. With `k` of `None` or as many as there are,
/// the result is that of [`DenseFfn`](super::DenseFfn) but for rounding.
#[derive(Debug, Clone, Copy, Default)]
pub struct WalkFfn {
    /// Features used, `None` for all.
    pub k: Option<usize>,
}

impl Ffn for WalkFfn {
    fn forward(
        &self,
        layer: usize,
        input: &[f32],
        positions: usize,
        out: &mut [f32],
        context: &FfnContext<'_>,
        observe: Option<&mut dyn Hook>,
    ) -> Result<u64, DecodeError> {
        let mut buffers = context.buffers.take();
        let FfnBuffers { lists, gathered, .. } = &mut buffers;
        let (assignment, sums) = Assignment::new(layer, input, context, lists)?;
        let mut bytes = assignment.bytes;
        let mut scores = vec![0.0; assignment.activations()];
        for share in assignment.shares {
            let tensors = assignment.tensors(share);
            let gate = tensors.gate.as_ref().ok_or(missing(Role::Gate, layer, share))?;
            let scores = &mut scores[share.activations()];
            bytes +=
                context.project_together([(gate, scores)], assignment.input(share, gathered))?;
        }
        let mut activations = vec![0.0; scores.len()];
        for position in 0..positions {
            for (share, features) in self.chosen(&assignment, position, &scores) {
                let row = assignment.row(share, position);
                let row = row.expect("a chosen feature is of a network that runs");
                let mut gate: Vec<f32> =
                    features.iter().map(|feature| scores[row.start + feature]).collect();
                let (up, read) = up_rows(layer, &assignment, share, position, &features, context)?;
                bytes += read;
                assignment.activate(share, &mut gate, &up);
                for (feature, activation) in features.iter().zip(gate) {
                    activations[row.start + feature] = activation;
                }
            }
        }
        assignment.silence(&mut activations);
        if let Some(hook) = observe {
            assignment.show(&mut activations, hook);
        }
        bytes += assignment.add_up(&activations, out, sums, |shares, activations, out| {
            let (mut bytes, hidden) = (0, context.architecture.hidden_size);
            let (all, outputs) = (activations, out);
            let (mut activations, mut out) = (all, &mut *outputs);
            for share in shares {
                let (own, later) = activations.split_at(share.activations().len());
                let (place, rest) = out.split_at_mut(share.count() * hidden);
                (activations, out) = (later, rest);
                let tensors = assignment.tensors(share);
                let down = tensors.down.as_ref().ok_or(missing(Role::Down, layer, share))?;
                let whole = context.project_together([(down, place)], own)?;
                // A feature-major projection reads a row for each activation that is not 0.
                bytes += match down.matrix.orientation {
                    Orientation::OutIn => whole,
                    Orientation::InOut => {
                        let read = own.iter().filter(|activation| **activation != 0.0).count();
                        (read * down.matrix.view.row_bytes()) as u64
                    }
                };
            }
            Ok(bytes + assignment.add_edits(shares, all, outputs)?)
        })?;
        bytes += assignment.add_beside(input, out)?;
        context.buffers.replace(buffers);
        Ok(bytes)
    }
}

impl WalkFfn {
    /// The features used at a position, by network, ascending: rows are read in the order in which
    /// they lie.
    fn chosen<'s>(
        &self,
        assignment: &'s Assignment<'_>,
        position: usize,
        scores: &[f32],
    ) -> Vec<(&'s Share, Vec<usize>)> {
        let running = assignment.shares.iter();
        let running = running.filter_map(|share| Some((share, assignment.row(share, position)?)));
        let running: Vec<_> = running.collect();
        let together: Vec<f32> =
            running.iter().flat_map(|(_, row)| &scores[row.clone()]).copied().collect();
        let mut chosen: Vec<usize> = match self.k {
            Some(k) if k < together.len() => {
                top_k_by_magnitude(&together, k).into_iter().map(|(index, _)| index).collect()
            }
            _ => (0..together.len()).collect(),
        };
        chosen.sort_unstable();
        let mut before = 0;
        let mut rest = chosen.as_slice();
        let mut found = Vec::with_capacity(running.len());
        for (share, row) in running {
            let after = before + row.len();
            let (here, later) = rest.split_at(rest.partition_point(|&index| index < after));
            found.push((share, here.iter().map(|index| index - before).collect()));
            (before, rest) = (after, later);
        }
        found
    }
}

fn missing(role: Role, layer: usize, share: &Share) -> DecodeError {
    let key = WeightKey { role, layer: Some(layer as u32), expert: share.network.expert };
    DecodeError::MissingTensor { key }
}

/// The up projection of some features at one position, and the bytes read; empty where the network
/// has none.
fn up_rows(
    layer: usize,
    assignment: &Assignment<'_>,
    share: &Share,
    position: usize,
    features: &[usize],
    context: &FfnContext<'_>,
) -> Result<(Vec<f32>, u64), DecodeError> {
    if !assignment.has_up(share) {
        return Ok((Vec::new(), 0));
    }
    let input = assignment.input_row(share, position);
    let tensors = assignment.tensors(share);
    let projection = tensors.up.as_ref().ok_or(missing(Role::Up, layer, share))?;
    let up = &projection.matrix;
    match up.orientation {
        Orientation::OutIn => {
            let mut rows = vec![0.0; features.len()];
            matvec_rows(context.pool, &up.view, features, input, &mut rows);
            if let Some(bias) = &projection.bias {
                rows.iter_mut().zip(features).for_each(|(up, &feature)| *up += bias[feature]);
            }
            Ok((rows, (features.len() * up.view.row_bytes()) as u64))
        }
        Orientation::InOut => {
            let mut all = vec![0.0; share.network.features];
            let bytes = context.project_together([(projection, &mut all)], input)?;
            Ok((features.iter().map(|&feature| all[feature]).collect(), bytes))
        }
    }
}
