//! Which positions of a block go through which networks of a layer, and how the networks' outputs
//! become one.
//!
//! Positions are grouped by expert, so that an expert's weights are read once for a block. A
//! position's experts are added in ascending order whatever else is in the block, so that prefill
//! and decode give the same bits.
//!
//! Elsewhere: choosing the experts (`router`), computing activations (`dense`, `walk`).

use std::ops::Range;

use super::FfnContext;
use super::router::{Choice, RouterBuffers, route};
use super::weights::NetworkWeights;
use crate::kernels::activation::{clamped_swiglu, gated, gated_by_lanes};
use crate::kernels::rms_norm::{rms_norm, rms_norm_in_place};
use crate::model::{DecodeError, FfnDescription, Hook, Network, Precision};

/// Activations that make a task of some microseconds.
const ACTIVATIONS_A_TASK: usize = 2048;

/// A network and the positions that go through it.
#[derive(Debug, Clone)]
pub(super) struct Share {
    /// Index of the network among the layer's.
    index: usize,
    /// The network.
    pub(super) network: Network,
    /// Its positions, a part of the list of all shares': ascending; all of the block for the dense
    /// network.
    rows: Range<usize>,
    /// Where its activations begin in the block's buffers, a row of features for each position.
    first: usize,
}

impl Share {
    /// How many positions go through it.
    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    /// Its first place in the list of all shares' positions.
    pub(super) fn first_row(&self) -> usize {
        self.rows.start
    }

    /// The place of its activations in the block's buffers.
    pub(super) fn activations(&self) -> Range<usize> {
        self.first..self.first + self.rows.len() * self.network.features
    }
}

/// Lists that are kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Lists {
    shares: Vec<Share>,
    /// Positions of all shares, one share after another.
    positions: Vec<usize>,
    /// The factor on a network's output at each of them; the dense network's are 1 where it has
    /// no gate.
    weights: Vec<f32>,
    /// What the experts read, where it is not what the dense network does.
    experts_input: Vec<f32>,
    choices: Vec<Choice>,
    router: RouterBuffers,
    /// The experts' outputs, and their sum.
    outputs: Vec<f32>,
    sum: Vec<f32>,
}

/// The networks that run for a block of positions.
pub(super) struct Assignment<'i> {
    context: &'i FfnContext<'i>,
    layer: usize,
    ffn: FfnDescription,
    hidden: usize,
    /// The networks, in the order of their features: the dense one, then experts.
    pub(super) shares: &'i [Share],
    positions: &'i [usize],
    weights: &'i [f32],
    /// What the dense network reads.
    input: &'i [f32],
    /// What the experts read.
    experts_input: &'i [f32],
    /// Bytes of weights read to find out.
    pub(super) bytes: u64,
}

/// Memory for the outputs of experts and their sum.
pub(super) type Sums<'b> = (&'b mut Vec<f32>, &'b mut Vec<f32>);

impl<'i> Assignment<'i> {
    /// Asks the layer's router, if it has one; also lends memory for the sums.
    ///
    /// # Shapes
    /// `input` (normed): `[positions, hidden]`.
    /// # Errors
    /// `MissingTensor`, `Cancelled`.
    pub(super) fn new(
        layer: usize,
        input: &'i [f32],
        context: &'i FfnContext<'i>,
        lists: &'i mut Lists,
    ) -> Result<(Assignment<'i>, Sums<'i>), DecodeError> {
        let hidden = context.architecture.hidden_size;
        let positions = input.len() / hidden;
        let ffn = context.architecture.layer(layer).ffn;
        lists.shares.clear();
        lists.positions.clear();
        lists.weights.clear();
        lists.choices.clear();
        let mut bytes = 0;
        let own_input = context.layer.pre_experts_norm.as_deref();
        if let Some(experts) = ffn.experts {
            bytes += route(layer, &experts, input, context, &mut lists.router, &mut lists.choices)?;
            if let Some(weight) = own_input {
                lists.experts_input.resize(context.stream.len(), 0.0);
                let stream = context.stream.chunks_exact(hidden);
                for (row, stream) in lists.experts_input.chunks_exact_mut(hidden).zip(stream) {
                    rms_norm(stream, weight, context.architecture.norm.epsilon, row);
                }
            }
        }
        let mut first = 0;
        for (index, NetworkWeights { network, .. }) in context.layer.networks.iter().enumerate() {
            let begin = lists.positions.len();
            match network.expert {
                None => {
                    lists.positions.extend(0..positions);
                    lists.weights.resize(positions, 1.0);
                    bytes += dense_weights(input, context, &mut lists.weights)?;
                }
                Some(expert) => {
                    let used = ffn.experts.map_or(1, |experts| experts.used);
                    let chosen = |(_, choice): &(usize, &Choice)| choice.expert == expert as usize;
                    for (index, choice) in lists.choices.iter().enumerate().filter(chosen) {
                        lists.positions.push(index / used);
                        lists.weights.push(choice.weight);
                    }
                }
            }
            let rows = begin..lists.positions.len();
            if !rows.is_empty() {
                let share = Share { index, network: *network, rows, first };
                first = share.activations().end;
                lists.shares.push(share);
            }
        }
        let Lists { shares, positions, weights, experts_input, outputs, sum, .. } = lists;
        let experts_input = if own_input.is_some() { &**experts_input } else { input };
        let assignment = Assignment {
            context,
            layer,
            ffn,
            hidden,
            shares,
            positions,
            weights,
            input,
            experts_input,
            bytes,
        };
        Ok((assignment, (outputs, sum)))
    }

    /// What the networks may use.
    pub(super) fn context(&self) -> &'i FfnContext<'i> {
        self.context
    }

    /// The layer.
    pub(super) fn layer(&self) -> usize {
        self.layer
    }

    /// The tensors of a network.
    pub(super) fn tensors(&self, share: &Share) -> &'i NetworkWeights<'i> {
        &self.context.layer.networks[share.index]
    }

    /// The shares of the dense network, if there is one, and those of experts.
    pub(super) fn split(&self) -> (Option<&'i Share>, &'i [Share]) {
        match self.shares.split_first() {
            Some((dense, experts)) if dense.network.expert.is_none() => (Some(dense), experts),
            _ => (None, self.shares),
        }
    }

    /// Activations of all networks together.
    pub(super) fn activations(&self) -> usize {
        self.shares.last().map_or(0, |share| share.activations().end)
    }

    /// The positions of a share.
    pub(super) fn positions(&self, share: &Share) -> &'i [usize] {
        &self.positions[share.rows.clone()]
    }

    /// The place of one position's activations, if it goes through this network.
    pub(super) fn row(&self, share: &Share, position: usize) -> Option<Range<usize>> {
        let row = self.positions(share).binary_search(&position).ok()?;
        let first = share.first + row * share.network.features;
        Some(first..first + share.network.features)
    }

    /// Whether a network has an up projection beside its gate.
    pub(super) fn has_up(&self, share: &Share) -> bool {
        share.network.expert.is_some() || self.ffn.dense.is_some_and(|dense| dense.gated)
    }

    /// What the networks of a share's kind read, a row for each position of the block.
    pub(super) fn rows(&self, share: &Share) -> &'i [f32] {
        if share.network.expert.is_some() { self.experts_input } else { self.input }
    }

    /// The input of a network at one position.
    pub(super) fn input_row(&self, share: &Share, position: usize) -> &'i [f32] {
        &self.rows(share)[position * self.hidden..(position + 1) * self.hidden]
    }

    /// The input of a network, a row for each of its positions; gathered in `memory` where they
    /// are not all.
    pub(super) fn input<'m>(&self, share: &Share, memory: &'m mut Vec<f32>) -> &'m [f32]
    where
        'i: 'm,
    {
        let rows = self.rows(share);
        if share.count() * self.hidden == rows.len() {
            return rows;
        }
        memory.clear();
        for &position in self.positions(share) {
            memory.extend_from_slice(self.input_row(share, position));
        }
        memory
    }

    /// Turns networks' gates into activations, in place; `up` is as long, or empty where the
    /// networks have no up projection. The networks are of the share's kind.
    pub(super) fn activate(&self, share: &Share, gate: &mut [f32], up: &[f32]) {
        let context = self.context;
        let function = context.architecture.activation;
        let clamp = self.ffn.experts.and_then(|experts| experts.clamp);
        let clamp = clamp.filter(|_| share.network.expert.is_some());
        let (has_up, precision) = (self.has_up(share), context.precision);
        context.pool.run_chunks(gate, ACTIVATIONS_A_TASK, &|first, gate| {
            if !has_up {
                return gate.iter_mut().for_each(|gate| *gate = function.apply(*gate));
            }
            let up = &up[first..first + gate.len()];
            match (clamp, precision) {
                (Some(clamp), _) => clamped_swiglu(clamp.limit, clamp.alpha, gate, up),
                (None, Precision::Exact) => gated(function, gate, up),
                (None, Precision::Serving) => gated_by_lanes(function, gate, up),
            }
        });
    }

    /// As [`activate`](Assignment::activate) in any precision as in `Exact`.
    pub(super) fn activate_exactly(&self, share: &Share, gate: &mut [f32], up: &[f32]) {
        let function = self.context.architecture.activation;
        let clamp = self.ffn.experts.and_then(|experts| experts.clamp);
        match clamp.filter(|_| share.network.expert.is_some()) {
            Some(clamp) => clamped_swiglu(clamp.limit, clamp.alpha, gate, up),
            None if self.has_up(share) => gated(function, gate, up),
            None => gate.iter_mut().for_each(|gate| *gate = function.apply(*gate)),
        }
    }

    /// Shows every position's activations to a hook, and takes over what it changed; networks that
    /// do not run show 0, and what is written there is lost.
    pub(super) fn show(&self, activations: &mut [f32], hook: &mut dyn Hook) {
        let context = self.context;
        let mut whole = vec![0.0; context.architecture.features(self.layer)];
        for position in 0..self.input.len() / self.hidden {
            let places = |share: &Share| {
                let features = share.network.first..share.network.first + share.network.features;
                self.row(share, position).map(|row| (row, features))
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
    /// `out`: `[positions, hidden]`; `down` is given networks of one kind, one after another,
    /// their activations, and the place of their outputs, `[their positions, hidden]`.
    /// # Errors
    /// `MissingTensor`, `Cancelled`.
    pub(super) fn add_up(
        &self,
        activations: &[f32],
        out: &mut [f32],
        (outputs, sum): Sums<'_>,
        mut down: impl FnMut(&[Share], &[f32], &mut [f32]) -> Result<u64, DecodeError>,
    ) -> Result<u64, DecodeError> {
        let hidden = self.hidden;
        let epsilon = self.context.architecture.norm.epsilon;
        let mut bytes = 0;
        let (dense, experts) = self.split();
        match dense {
            Some(dense) => {
                let activations = &activations[dense.activations()];
                bytes += down(std::slice::from_ref(dense), activations, out)?;
                if self.context.layer.shared_gate.is_some() {
                    let weights = &self.weights[dense.rows.clone()];
                    for (row, weight) in out.chunks_exact_mut(hidden).zip(weights) {
                        row.iter_mut().for_each(|number| *number *= weight);
                    }
                }
                if let Some(weight) = &self.context.layer.post_dense_norm {
                    let rows = out.chunks_exact_mut(hidden);
                    rows.for_each(|row| rms_norm_in_place(row, weight, epsilon));
                }
            }
            None => out.fill(0.0),
        }
        let (Some(first), Some(last)) = (experts.first(), experts.last()) else {
            return Ok(bytes);
        };
        sum.clear();
        sum.resize(out.len(), 0.0);
        let rows = first.rows.start..last.rows.end;
        outputs.resize(rows.len() * hidden, 0.0);
        bytes += down(experts, &activations[first.first..last.activations().end], outputs)?;
        let weighted = self.positions[rows.clone()].iter().zip(&self.weights[rows]);
        for ((&position, weight), output) in weighted.zip(outputs.chunks_exact(hidden)) {
            let row = &mut sum[position * hidden..(position + 1) * hidden];
            row.iter_mut().zip(output).for_each(|(sum, output)| *sum += weight * output);
        }
        if let Some(weight) = &self.context.layer.post_experts_norm {
            let rows = sum.chunks_exact_mut(hidden);
            rows.for_each(|row| rms_norm_in_place(row, weight, epsilon));
        }
        out.iter_mut().zip(&*sum).for_each(|(out, sum)| *out += sum);
        Ok(bytes)
    }
}

/// Where the dense network has a gate of its own, the gate's sigmoid is its weight.
fn dense_weights(
    input: &[f32],
    context: &FfnContext<'_>,
    weights: &mut [f32],
) -> Result<u64, DecodeError> {
    let Some(gate) = &context.layer.shared_gate else { return Ok(0) };
    let bytes = context.project_exactly(gate, input, weights)?;
    weights.iter_mut().for_each(|weight| *weight = 1.0 / (1.0 + (-*weight).exp()));
    Ok(bytes)
}
