//! Every feature of every network that runs: the model as it was trained.

use super::experts::{Assignment, Share};
use super::weights::NetworkWeights;
use super::{Ffn, FfnBuffers, FfnContext};
use crate::kernels::quantised::{Group, GroupScratch, group_products};
use crate::model::projection::{Projection, add_bias};
use crate::model::{DecodeError, Hook, Orientation, Precision, Role, WeightKey};

/// Every feature of every network that runs: the model as it was trained.
#[derive(Debug, Clone, Copy, Default)]
pub struct DenseFfn;

/// From so many positions of an expert on, its products run alone, as a larger job.
const GROUP_ROWS_MAX: usize = 3;

impl Ffn for DenseFfn {
    fn forward(
        &self,
        layer: usize,
        input: &[f32],
        _positions: usize,
        out: &mut [f32],
        context: &FfnContext<'_>,
        observe: Option<&mut dyn Hook>,
    ) -> Result<u64, DecodeError> {
        let mut buffers = context.buffers.take();
        let result = run(layer, input, out, context, observe, &mut buffers);
        context.buffers.replace(buffers);
        result
    }
}

fn run(
    layer: usize,
    input: &[f32],
    out: &mut [f32],
    context: &FfnContext<'_>,
    observe: Option<&mut dyn Hook>,
    FfnBuffers { lists, activations, ups, gathered, groups }: &mut FfnBuffers,
) -> Result<u64, DecodeError> {
    let (assignment, sums) = Assignment::new(layer, input, context, lists)?;
    activations.resize(assignment.activations(), 0.0);
    ups.resize(activations.len(), 0.0);
    let mut networks = Networks { layer, assignment: &assignment, context, gathered, groups };
    let mut bytes = assignment.bytes;
    let (dense, experts) = assignment.split();
    for shares in [dense.map_or(&[][..], std::slice::from_ref), experts] {
        let (Some(first), Some(last)) = (shares.first(), shares.last()) else { continue };
        let place = first.activations().start..last.activations().end;
        let (gates, ups) = (&mut activations[place.clone()], &mut ups[place]);
        bytes += networks.gate_and_up(shares, gates, ups)?;
        assignment.activate(first, gates, ups);
    }
    assignment.silence(activations);
    if let Some(hook) = observe {
        assignment.show(activations, hook);
    }
    bytes += assignment.add_up(activations, out, sums, |shares, activations, out| {
        let bytes = networks.down(shares, activations, out)?;
        Ok(bytes + assignment.add_edits(shares, activations, out)?)
    })?;
    Ok(bytes + assignment.add_beside(input, out)?)
}

/// The networks of a layer at work on a block.
struct Networks<'n, 'i> {
    layer: usize,
    assignment: &'n Assignment<'i>,
    context: &'n FfnContext<'i>,
    gathered: &'n mut Vec<f32>,
    groups: &'n mut GroupScratch,
}

impl<'i> Networks<'_, 'i> {
    fn tensor<'t>(
        &self,
        share: &Share,
        role: Role,
        tensor: impl FnOnce(&'i NetworkWeights<'i>) -> Option<&'t Projection<'i>>,
    ) -> Result<&'t Projection<'i>, DecodeError>
    where
        'i: 't,
    {
        let key = WeightKey { role, layer: Some(self.layer as u32), expert: share.network.expert };
        tensor(self.assignment.tensors(share)).ok_or(DecodeError::MissingTensor { key })
    }

    fn gate(&self, share: &Share) -> Result<&'i Projection<'i>, DecodeError> {
        self.tensor(share, Role::Gate, |tensors| tensors.gate.as_ref())
    }

    fn up(&self, share: &Share) -> Result<&'i Projection<'i>, DecodeError> {
        self.tensor(share, Role::Up, |tensors| tensors.up.as_ref())
    }

    fn down_of(&self, share: &Share) -> Result<&'i Projection<'i>, DecodeError> {
        self.tensor(share, Role::Down, |tensors| tensors.down.as_ref())
    }

    /// Whether experts with few positions each are to run in one job, and can.
    fn together(&self, shares: &[Share], rows_are_outputs: impl Fn(&Share) -> bool) -> bool {
        self.context.precision == Precision::Serving
            && shares.len() > 1
            && shares.iter().all(|share| share.count() <= GROUP_ROWS_MAX && rows_are_outputs(share))
    }

    /// Writes gates and, where networks have such, up numbers; returns the bytes read.
    ///
    /// # Shapes
    /// Both: the shares' rows of features, one share after another.
    fn gate_and_up(
        &mut self,
        shares: &[Share],
        gates: &mut [f32],
        ups: &mut [f32],
    ) -> Result<u64, DecodeError> {
        let outputs = |projection: Option<&Projection<'_>>| {
            projection.is_none_or(|tensor| tensor.matrix.orientation == Orientation::OutIn)
        };
        let both = |share: &Share| {
            let tensors = self.assignment.tensors(share);
            outputs(tensors.gate.as_ref()) && outputs(tensors.up.as_ref())
        };
        if !self.together(shares, both) {
            let (gates, ups) = (pieces(shares, None, gates), pieces(shares, None, ups));
            let mut bytes = 0;
            for ((share, gate), up) in shares.iter().zip(gates).zip(ups) {
                let projection = self.gate(share)?;
                bytes += match self.assignment.has_up(share) {
                    true => {
                        let together = [(projection, gate), (self.up(share)?, up)];
                        let x = self.assignment.input(share, self.gathered);
                        self.context.project_together(together, x)?
                    }
                    false => {
                        let x = self.assignment.input(share, self.gathered);
                        self.context.project_together([(projection, gate)], x)?
                    }
                };
            }
            return Ok(bytes);
        }
        // One position has the same input for all, which then need not be gathered.
        let rows = self.assignment.rows(&shares[0]);
        let hidden = self.context.architecture.hidden_size;
        let alone = rows.len() == hidden;
        self.gathered.clear();
        if !alone {
            for share in shares {
                for &position in self.assignment.positions(share) {
                    self.gathered.extend_from_slice(self.assignment.input_row(share, position));
                }
            }
        }
        let x = if alone { rows } else { &**self.gathered };
        let rows = |first: usize, count: usize| if alone { 0..1 } else { first..first + count };
        let first = shares.first().map_or(0, |share| share.first_row());
        let mut bytes = 0;
        for share in shares {
            bytes += self.gate(share)?.matrix.view.bytes_touched();
            bytes += self.up(share)?.matrix.view.bytes_touched();
        }
        let group = |(share, out, up): (&Share, _, bool)| {
            let tensors = self.assignment.tensors(share);
            let tensor = if up { &tensors.up } else { &tensors.gate };
            let tensor = tensor.as_ref().expect("a tensor that was asked for above");
            let rows = rows(share.first_row() - first, share.count());
            Group { view: tensor.matrix.view, rows, out }
        };
        let of = |up| move |(share, out)| (share, out, up);
        let all = shares.iter().zip(pieces(shares, None, gates)).map(of(false));
        let all = all.chain(shares.iter().zip(pieces(shares, None, ups)).map(of(true)));
        let pool = self.context.pool;
        group_products(pool, all.map(group), hidden, x, self.groups, self.context.cancel)?;
        for (share, gate) in shares.iter().zip(pieces(shares, None, gates)) {
            bias(self.gate(share)?, gate);
        }
        for (share, up) in shares.iter().zip(pieces(shares, None, ups)) {
            bias(self.up(share)?, up);
        }
        Ok(bytes)
    }

    /// Writes the networks' outputs; returns the bytes read.
    ///
    /// # Shapes
    /// `activations`: the shares' rows of features; `out`: their rows of `hidden` numbers.
    fn down(
        &mut self,
        shares: &[Share],
        activations: &[f32],
        out: &mut [f32],
    ) -> Result<u64, DecodeError> {
        let hidden = self.context.architecture.hidden_size;
        let outputs = |share: &Share| {
            let down = self.assignment.tensors(share).down.as_ref();
            down.is_some_and(|down| down.matrix.orientation == Orientation::OutIn)
        };
        let first = shares[0].activations().start;
        let mut bytes = 0;
        if !self.together(shares, outputs) {
            for (share, out) in shares.iter().zip(pieces(shares, Some(hidden), out)) {
                let place = share.activations();
                let activations = &activations[place.start - first..place.end - first];
                let together = [(self.down_of(share)?, out)];
                bytes += self.context.project_together(together, activations)?;
            }
            return Ok(bytes);
        }
        let features = shares[0].network.features;
        let group = |(share, out): (&Share, _)| {
            let down = self.assignment.tensors(share).down.as_ref();
            let view = down.expect("a tensor that was asked for above").matrix.view;
            let row = (share.activations().start - first) / features;
            Group { view, rows: row..row + share.count(), out }
        };
        let groups = shares.iter().zip(pieces(shares, Some(hidden), out)).map(group);
        let (pool, cancel) = (self.context.pool, self.context.cancel);
        group_products(pool, groups, features, activations, self.groups, cancel)?;
        for (share, out) in shares.iter().zip(pieces(shares, Some(hidden), out)) {
            let down = self.down_of(share)?;
            bytes += down.matrix.view.bytes_touched();
            bias(down, out);
        }
        Ok(bytes)
    }
}

fn bias(projection: &Projection<'_>, out: &mut [f32]) {
    if let Some(bias) = &projection.bias {
        add_bias(out, bias);
    }
}

/// The shares' parts of numbers that lie one share after another: rows of `width`, or of the
/// network's features.
fn pieces<'o>(
    shares: &[Share],
    width: Option<usize>,
    mut rest: &'o mut [f32],
) -> impl Iterator<Item = &'o mut [f32]> {
    shares.iter().map(move |share| {
        let count = share.count() * width.unwrap_or(share.network.features);
        let (piece, later) = std::mem::take(&mut rest).split_at_mut(count);
        rest = later;
        piece
    })
}
