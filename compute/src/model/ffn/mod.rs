//! The seam of the feed-forward network: normed input in, output out, however it is computed.
//!
//! An [`Ffn`] sees neither attention nor what became of its output. It says how many bytes of
//! weights it read, because that is what an answer costs.
//!
//! A layer has a dense network, routed experts, or both; to [`DenseFfn`] and [`WalkFfn`] they are
//! networks alike, each run for the positions that `experts` assigns to it.

mod dense;
mod edits;
mod experts;
mod router;
mod walk;
mod weights;

use std::borrow::Cow;
use std::cell::RefCell;

use super::projection::{Projection, project_together};
use super::{Architecture, DecodeError, Hook, Matrix, Precision, Role, WeightKey, Weights};
use crate::cpu::{Cancel, Pool};
use crate::kernels::quantised::{GroupScratch, ServingScratch};

pub use dense::DenseFfn;
pub use walk::WalkFfn;

pub(super) use self::edits::RowEdits;
use self::experts::Lists;
pub(super) use self::weights::LayerWeights;

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
    /// The residual stream that the input was normed from, `[positions, hidden]`: some routers and
    /// experts norm it themselves.
    pub stream: &'a [f32],
    /// To be asked between tiles.
    pub cancel: &'a Cancel,
    /// Rows whose sequences have edits in this layer.
    pub(super) edits: &'a [RowEdits<'a>],
    /// The layer's tensors, looked up.
    pub(super) layer: &'a LayerWeights<'a>,
    /// Memory that is kept from call to call.
    pub(super) scratch: &'a RefCell<ServingScratch>,
    pub(super) buffers: &'a RefCell<FfnBuffers>,
}

/// Numbers of a block, kept between layers and calls.
#[derive(Debug, Default)]
pub(super) struct FfnBuffers {
    lists: Lists,
    activations: Vec<f32>,
    ups: Vec<f32>,
    /// Rows of the input that go through one network, or some.
    gathered: Vec<f32>,
    groups: GroupScratch,
}

/// A way to compute the feed-forward networks of a layer.
pub trait Ffn: Send + Sync {
    /// Writes the networks' output and returns the bytes of weights that were read.
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

impl<'a> FfnContext<'a> {
    /// A projection.
    ///
    /// # Errors
    /// `MissingTensor` if the weights lack it.
    pub fn matrix(&self, key: WeightKey) -> Result<Matrix<'a>, DecodeError> {
        self.weights.matrix(key).ok_or(DecodeError::MissingTensor { key })
    }

    /// A bias or another vector, or `None` if the model has none there.
    ///
    /// # Errors
    /// `MissingTensor` if the model has one and the weights lack it.
    pub fn vector(&self, key: WeightKey) -> Result<Option<Cow<'a, [f32]>>, DecodeError> {
        if self.architecture.shape(key).is_none() {
            return Ok(None);
        }
        self.weights.vector(key).map(Some).ok_or(DecodeError::MissingTensor { key })
    }

    /// Projects rows, adds the biases, and returns the bytes read.
    fn project_together<const N: usize>(
        &self,
        projections: [(&Projection<'_>, &mut [f32]); N],
        x: &[f32],
    ) -> Result<u64, DecodeError> {
        let how = (self.precision, &mut *self.scratch.borrow_mut(), self.cancel);
        project_together(self.pool, how, projections.map(|(tensor, out)| tensor.with(out)), x)
    }

    /// As [`project_together`](FfnContext::project_together) in any precision as in `Exact`:
    /// choices and shares are not to be rounded.
    fn project_exactly(
        &self,
        projection: &Projection<'_>,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<u64, DecodeError> {
        let how = (Precision::Exact, &mut *self.scratch.borrow_mut(), self.cancel);
        project_together(self.pool, how, [projection.with(out)], x)
    }
}
