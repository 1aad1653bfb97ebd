//! The seam of the feed-forward network: normed input in, output out, however it is computed.
//!
//! An [`Ffn`] sees neither attention nor the residual stream. It says how many bytes of weights
//! it read, because that is what an answer costs.

use std::borrow::Cow;
use std::cell::RefCell;

use super::projection::project;
use super::{
    Architecture, DecodeError, Hook, Matrix, Orientation, Precision, Role, WeightKey, Weights,
};
use crate::cpu::{Cancel, Pool};
use crate::kernels::activation::gated;
use crate::kernels::{matvec_rows, top_k_by_magnitude};

/// What a feed-forward network may use.
pub struct FfnContext<'a> {
    /// The model's weights.
    pub weights: &'a dyn Weights,
    /// The threads to compute on.
    pub pool: &'a Pool,
    /// The model's description.
    pub architecture: &'a Architecture,
    /// How to compute.
    pub precision: Precision,
    /// Where in the context the first position of the input stands.
    pub position_first: usize,
    /// To be asked between tiles.
    pub cancel: &'a Cancel,
}

/// A way to compute the feed-forward network of a layer.
pub trait Ffn: Send + Sync {
    /// Writes the network's output and returns the bytes of weights that were read.
    ///
    /// `observe` sees (and may change) the activations of every position, in order.
    ///
    /// # Shapes
    /// `input` (normed) and `out`: `[positions, hidden]`.
    /// # Errors
    /// `MissingTensor` where a weight is lacking, `Cancelled`.
    fn forward(
        &self,
        layer: usize,
        input: &[f32],
        positions: usize,
        out: &mut [f32],
        context: &FfnContext<'_>,
        observe: Option<&mut dyn Hook>,
    ) -> Result<u64, DecodeError>;

    /// Whether the network reads the tensors of a role from [`FfnContext::weights`]: a decoder
    /// checks at its start that they are there. All that a feed-forward network has, unless it says otherwise.
    fn reads(&self, role: Role) -> bool {
        let _ = role;
        true
    }
}

/// Every feature of every layer: the model as it was trained.
#[derive(Debug, Clone, Copy, Default)]
pub struct DenseFfn;

/// Only the features whose gates answer most strongly.
///
/// For each position the `k` features with the largest magnitude of the gate score (before the
/// activation; of equal ones the lowest index) are used, all others add nothing. All gate rows are
/// read, and the rows of the other two projections only where they are used. With `k` of `None` or
/// as many as there are, the result is that of [`DenseFfn`] but for rounding.
#[derive(Debug, Clone, Copy, Default)]
pub struct WalkFfn {
    /// Features used, `None` for all.
    pub k: Option<usize>,
}

thread_local! {
    /// Gate and up numbers of a block, kept between layers.
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Gives back what the calling thread keeps between layers.
pub(super) fn release_scratch() {
    drop(SCRATCH.take());
}

impl Ffn for DenseFfn {
    fn forward(
        &self,
        layer: usize,
        input: &[f32],
        positions: usize,
        out: &mut [f32],
        context: &FfnContext<'_>,
        observe: Option<&mut dyn Hook>,
    ) -> Result<u64, DecodeError> {
        let key = |role| WeightKey::layer(role, layer);
        let features = context.architecture.features(layer);
        let (mut gate, mut up) = SCRATCH.take();
        gate.resize(positions * features, 0.0);
        up.resize(positions * features, 0.0);
        let mut bytes = context.project(key(Role::Gate), Role::GateBias, input, &mut gate)?;
        bytes += context.project(key(Role::Up), Role::UpBias, input, &mut up)?;
        let activation = context.architecture.activation;
        context.pool.run_chunks(&mut gate, ACTIVATIONS_A_TASK, &|first, gate| {
            gated(activation, gate, &up[first..first + gate.len()]);
        });
        if let Some(hook) = observe {
            for (index, activations) in gate.chunks_exact_mut(features).enumerate() {
                hook.activations(layer, context.position_first + index, activations);
            }
        }
        bytes += context.project(key(Role::Down), Role::DownBias, &gate, out)?;
        SCRATCH.set((gate, up));
        Ok(bytes)
    }
}

/// Activations that make a task of some microseconds.
const ACTIVATIONS_A_TASK: usize = 2048;

impl Ffn for WalkFfn {
    fn forward(
        &self,
        layer: usize,
        input: &[f32],
        positions: usize,
        out: &mut [f32],
        context: &FfnContext<'_>,
        mut observe: Option<&mut dyn Hook>,
    ) -> Result<u64, DecodeError> {
        let key = |role| WeightKey::layer(role, layer);
        let features = context.architecture.features(layer);
        let hidden = context.architecture.hidden_size;
        let k = self.k.unwrap_or(features).min(features);
        let up = context.matrix(key(Role::Up))?;
        let up_bias = context.bias(key(Role::UpBias))?;
        let mut scores = vec![0.0; positions * features];
        let mut bytes = context.project(key(Role::Gate), Role::GateBias, input, &mut scores)?;
        let mut activations = vec![0.0; features];
        for position in 0..positions {
            let row = position * hidden..(position + 1) * hidden;
            let input = &input[row.clone()];
            let scores = &scores[position * features..(position + 1) * features];
            let mut chosen: Vec<usize> = match k == features {
                true => (0..features).collect(),
                false => top_k_by_magnitude(scores, k).into_iter().map(|(f, _)| f).collect(),
            };
            // Rows are read in the order in which they lie.
            chosen.sort_unstable();
            let mut ups = vec![0.0; chosen.len()];
            match up.orientation {
                Orientation::OutIn => {
                    matvec_rows(context.pool, &up.view, &chosen, input, &mut ups);
                    bytes += (chosen.len() * up.view.row_bytes()) as u64;
                }
                Orientation::InOut => {
                    let mut all = vec![0.0; features];
                    bytes += project(
                        context.pool,
                        context.precision,
                        &up,
                        None,
                        input,
                        &mut all,
                        context.cancel,
                    )?;
                    ups.iter_mut().zip(&chosen).for_each(|(up, &feature)| *up = all[feature]);
                }
            }
            activations.fill(0.0);
            for (&feature, up) in chosen.iter().zip(ups) {
                let up = up + up_bias.as_deref().map_or(0.0, |bias| bias[feature]);
                activations[feature] = context.architecture.activation.apply(scores[feature]) * up;
            }
            if let Some(hook) = &mut observe {
                hook.activations(layer, context.position_first + position, &mut activations);
            }
            let whole =
                context.project(key(Role::Down), Role::DownBias, &activations, &mut out[row])?;
            // A feature-major projection reads a row for each activation that is not 0.
            let down = context.matrix(key(Role::Down))?;
            bytes += match down.orientation {
                Orientation::OutIn => whole,
                Orientation::InOut => {
                    let read = activations.iter().filter(|activation| **activation != 0.0).count();
                    (read * down.view.row_bytes()) as u64
                }
            };
        }
        Ok(bytes)
    }
}

impl<'a> FfnContext<'a> {
    /// A projection.
    ///
    /// # Errors
    /// `MissingTensor` if the weights lack it.
    pub fn matrix(&self, key: WeightKey) -> Result<Matrix<'a>, DecodeError> {
        self.weights.matrix(key).ok_or(DecodeError::MissingTensor { key })
    }

    /// A bias, or `None` if the model has none there.
    ///
    /// # Errors
    /// `MissingTensor` if the model has one and the weights lack it.
    pub fn bias(&self, key: WeightKey) -> Result<Option<Cow<'a, [f32]>>, DecodeError> {
        match self.architecture.shape(key) {
            None => Ok(None),
            Some(_) => {
                let found = self.weights.vector(key);
                found.map(Some).ok_or(DecodeError::MissingTensor { key })
            }
        }
    }

    /// Writes a projection of `x` with its bias and returns the bytes that were read.
    fn project(
        &self,
        key: WeightKey,
        bias: Role,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<u64, DecodeError> {
        let matrix = self.matrix(key)?;
        let bias = self.bias(key.with(bias))?;
        project(self.pool, self.precision, &matrix, bias.as_deref(), x, out, self.cancel)
    }
}
