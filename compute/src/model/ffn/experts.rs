//! Which positions of a block go through which networks of a layer, and how the networks' outputs
//! become one.
//!
//! Positions are grouped by expert, so that an expert's weights are read once for a block. A
//! position's experts are added in ascending order whatever else is in the block, so that prefill
//! and decode give the same bits.
//!
//! Elsewhere: choosing the experts (`router`), computing activations (`dense`, `walk`).

use std::borrow::Cow;
use std::ops::Range;

use super::FfnContext;
use super::router::route;
use crate::kernels::activation::{clamped_swiglu, gated};
use crate::kernels::rms_norm::{rms_norm, rms_norm_in_place};
use crate::model::{DecodeError, FfnDescription, Hook, Network, Role, WeightKey};

/// Activations that make a task of some microseconds.
const ACTIVATIONS_A_TASK: usize = 2048;

/// A network and the positions that go through it.
pub(super) struct Share {
    /// The network.
    pub network: Network,
    /// The positions, ascending; all of the block for the dense network.
    pub positions: Vec<usize>,
    /// Factor on the network's output at each of them; empty where it is 1.
    weights: Vec<f32>,
    /// Where its activations begin in the block's buffers, a row of features for each position.
    first: usize,
}

impl Share {
    /// The place of its activations in the block's buffers.
    pub fn activations(&self) -> Range<usize> {
        self.first..self.first + self.positions.len() * self.network.features
    }

    /// The place of one position's activations, if it goes through this network.
    pub fn row(&self, position: usize) -> Option<Range<usize>> {
        let row = match self.network.expert {
            None => position,
            Some(_) => self.positions.binary_search(&position).ok()?,
        };
        let first = self.first + row * self.network.features;
        Some(first..first + self.network.features)
    }
}

/// The networks that run for a block of positions.
pub(super) struct Assignment<'i> {
    layer: usize,
    ffn: FfnDescription,
    hidden: usize,
    /// The networks, in the order of their features: the dense one, then experts.
    pub shares: Vec<Share>,
    /// What the dense network reads.
    input: &'i [f32],
    /// What the experts read.
    experts_input: Cow<'i, [f32]>,
    /// Bytes of weights read to find out.
    pub bytes: u64,
}

impl<'i> Assignment<'i> {
    /// Asks the layer's router, if it has one.
    ///
    /// # Shapes
    /// `input` (normed): `[positions, hidden]`.
    /// # Errors
    /// `MissingTensor`, `Cancelled`.
    pub fn new(
        layer: usize,
        input: &'i [f32],
        context: &FfnContext<'_>,
    ) -> Result<Assignment<'i>, DecodeError> {
        let hidden = context.architecture.hidden_size;
        let mut assignment = Assignment {
            layer,
            ffn: context.architecture.layer(layer).ffn,
            hidden,
            shares: Vec::new(),
            input,
            experts_input: Cow::Borrowed(input),
            bytes: 0,
        };
        let positions = input.len() / hidden;
        // Of each expert, its positions and their weights.
        let mut chosen = Vec::new();
        if let Some(experts) = assignment.ffn.experts {
            let (choices, bytes) = route(layer, &experts, input, context)?;
            assignment.bytes = bytes;
            chosen.resize(experts.count, (Vec::new(), Vec::new()));
            for (index, choice) in choices.into_iter().enumerate() {
                chosen[choice.expert].0.push(index / experts.used);
                chosen[choice.expert].1.push(choice.weight);
            }
            if let Some(weight) = assignment.norm(Role::PreExpertsNorm, context)? {
                let mut rows = vec![0.0; context.stream.len()];
                let stream = context.stream.chunks_exact(hidden);
                for (row, stream) in rows.chunks_exact_mut(hidden).zip(stream) {
                    rms_norm(stream, &weight, context.architecture.norm.epsilon, row);
                }
                assignment.experts_input = Cow::Owned(rows);
            }
        }
        let mut first = 0;
        for network in context.architecture.networks(layer) {
            let (positions, weights) = match network.expert {
                None => ((0..positions).collect(), assignment.dense_weights(context)?),
                Some(expert) => std::mem::take(&mut chosen[expert as usize]),
            };
            if !positions.is_empty() {
                let share = Share { network, positions, weights, first };
                first = share.activations().end;
                assignment.shares.push(share);
            }
        }
        Ok(assignment)
    }

    /// Where the dense network has a gate of its own, the gate's sigmoid is its weight.
    fn dense_weights(&mut self, context: &FfnContext<'_>) -> Result<Vec<f32>, DecodeError> {
        if !self.ffn.experts.is_some_and(|experts| experts.shared_gate) {
            return Ok(Vec::new());
        }
        let key = WeightKey::layer(Role::SharedExpertGate, self.layer);
        let mut weights = vec![0.0; self.input.len() / self.hidden];
        self.bytes += context.project(key, self.input, &mut weights)?;
        weights.iter_mut().for_each(|weight| *weight = 1.0 / (1.0 + (-*weight).exp()));
        Ok(weights)
    }

    /// The weight of a norm that some layers have here, the model's offset added.
    fn norm(&self, role: Role, context: &FfnContext<'_>) -> Result<Option<Vec<f32>>, DecodeError> {
        let weight = context.vector(WeightKey::layer(role, self.layer))?;
        let offset = context.architecture.norm.offset;
        Ok(weight.map(|weight| weight.iter().map(|weight| weight + offset).collect()))
    }

    /// Activations of all networks together.
    pub fn activations(&self) -> usize {
        self.shares.last().map_or(0, |share| share.activations().end)
    }

    /// The key of a network's tensor.
    pub fn key(&self, role: Role, share: &Share) -> WeightKey {
        WeightKey { role, layer: Some(self.layer as u32), expert: share.network.expert }
    }

    /// Whether a network has an up projection beside its gate.
    pub fn has_up(&self, share: &Share) -> bool {
        share.network.expert.is_some() || self.ffn.dense.is_some_and(|dense| dense.gated)
    }

    fn rows(&self, share: &Share) -> &[f32] {
        if share.network.expert.is_some() { &self.experts_input } else { self.input }
    }

    /// The input of a network at one position.
    pub fn input_row(&self, share: &Share, position: usize) -> &[f32] {
        &self.rows(share)[position * self.hidden..(position + 1) * self.hidden]
    }

    /// The input of a network, a row for each of its positions.
    pub fn input(&self, share: &Share) -> Cow<'_, [f32]> {
        let rows = self.rows(share);
        if share.positions.len() * self.hidden == rows.len() {
            return Cow::Borrowed(rows);
        }
        let row = |&position: &usize| self.input_row(share, position);
        Cow::Owned(share.positions.iter().flat_map(row).copied().collect())
    }

    /// Turns a network's gate into activations, in place; `up` is as long, or empty where the
    /// network has no up projection.
    pub fn activate(&self, share: &Share, gate: &mut [f32], up: &[f32], context: &FfnContext<'_>) {
        let function = context.architecture.activation;
        let clamp = self.ffn.experts.and_then(|experts| experts.clamp);
        let clamp = clamp.filter(|_| share.network.expert.is_some());
        context.pool.run_chunks(gate, ACTIVATIONS_A_TASK, &|first, gate| {
            if !self.has_up(share) {
                return gate.iter_mut().for_each(|gate| *gate = function.apply(*gate));
            }
            let up = &up[first..first + gate.len()];
            match clamp {
                Some(clamp) => clamped_swiglu(clamp.limit, clamp.alpha, gate, up),
                None => gated(function, gate, up),
            }
        });
    }

    /// Shows every position's activations to a hook, and takes over what it changed; networks that
    /// do not run show 0, and what is written there is lost.
    pub fn show(&self, activations: &mut [f32], hook: &mut dyn Hook, context: &FfnContext<'_>) {
        let mut whole = vec![0.0; context.architecture.features(self.layer)];
        for position in 0..self.input.len() / self.hidden {
            let places = |share: &Share| {
                let features = share.network.first..share.network.first + share.network.features;
                share.row(position).map(|row| (row, features))
            };
            whole.fill(0.0);
            for (row, features) in self.shares.iter().filter_map(places) {
                whole[features].copy_from_slice(&activations[row]);
            }
            hook.activations(self.layer, context.position_first + position, &mut whole);
            for (row, features) in self.shares.iter().filter_map(places) {
                activations[row].copy_from_slice(&whole[features]);
            }
        }
    }

    /// Runs every network's down projection and adds the outputs up: experts by their weights,
    /// then the dense network. Returns the bytes of weights read, as `down` counts them.
    ///
    /// # Shapes
    /// `out`: `[positions, hidden]`; `down` is given a network, its activations, and the place of
    /// its output, `[its positions, hidden]`.
    /// # Errors
    /// `MissingTensor`, `Cancelled`.
    pub fn add_up(
        &self,
        activations: &[f32],
        out: &mut [f32],
        context: &FfnContext<'_>,
        mut down: impl FnMut(&Share, &[f32], &mut [f32]) -> Result<u64, DecodeError>,
    ) -> Result<u64, DecodeError> {
        let hidden = self.hidden;
        let epsilon = context.architecture.norm.epsilon;
        let mut bytes = 0;
        let experts = match self.shares.split_first() {
            Some((dense, experts)) if dense.network.expert.is_none() => {
                bytes += down(dense, &activations[dense.activations()], out)?;
                for (row, weight) in out.chunks_exact_mut(hidden).zip(&dense.weights) {
                    row.iter_mut().for_each(|number| *number *= weight);
                }
                if let Some(weight) = self.norm(Role::PostDenseNorm, context)? {
                    let rows = out.chunks_exact_mut(hidden);
                    rows.for_each(|row| rms_norm_in_place(row, &weight, epsilon));
                }
                experts
            }
            _ => {
                out.fill(0.0);
                &self.shares
            }
        };
        if experts.is_empty() {
            return Ok(bytes);
        }
        let mut sum = vec![0.0; out.len()];
        let mut outputs = Vec::new();
        for share in experts {
            outputs.resize(share.positions.len() * hidden, 0.0);
            bytes += down(share, &activations[share.activations()], &mut outputs)?;
            let rows = share.positions.iter().zip(&share.weights);
            for ((&position, weight), output) in rows.zip(outputs.chunks_exact(hidden)) {
                let row = &mut sum[position * hidden..(position + 1) * hidden];
                row.iter_mut().zip(output).for_each(|(sum, output)| *sum += weight * output);
            }
        }
        if let Some(weight) = self.norm(Role::PostExpertsNorm, context)? {
            let rows = sum.chunks_exact_mut(hidden);
            rows.for_each(|row| rms_norm_in_place(row, &weight, epsilon));
        }
        out.iter_mut().zip(sum).for_each(|(out, sum)| *out += sum);
        Ok(bytes)
    }
}
