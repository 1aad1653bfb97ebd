//! The seam of the feed-forward network: normed input in, output out, however it is computed.
//!
//! An [`Ffn`] sees neither attention nor what became of its output. It says how many bytes of
//! weights it read, because that is what an answer costs.
//!
//! A layer has a dense network, routed experts, or both; to [`DenseFfn`] and [`WalkFfn`] they are
//! networks alike, each run for the positions that `experts` assigns to it.

mod dense;
mod experts;
mod router;
mod walk;

use std::borrow::Cow;
use std::cell::RefCell;

use super::projection::project;
use super::{Architecture, DecodeError, Hook, Matrix, Precision, Role, WeightKey, Weights};
use crate::cpu::{Cancel, Pool};
use crate::kernels::quantised::ServingScratch;

pub use dense::DenseFfn;
pub use walk::WalkFfn;

pub(super) use dense::release_scratch;

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
    /// Memory of products that is kept from call to call.
    pub(super) scratch: &'a RefCell<ServingScratch>,
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

    /// Projects rows and adds the bias that belongs to the role, if the model has one there.
    fn project(&self, key: WeightKey, x: &[f32], out: &mut [f32]) -> Result<u64, DecodeError> {
        let bias = match key.role {
            Role::Gate => self.vector(key.with(Role::GateBias))?,
            Role::Up => self.vector(key.with(Role::UpBias))?,
            Role::Down => self.vector(key.with(Role::DownBias))?,
            Role::Router => self.vector(key.with(Role::RouterBias))?,
            _ => None,
        };
        // Choices and shares must not depend on how many positions are computed together.
        let precision = match key.role {
            Role::Router | Role::SharedExpertGate => Precision::Exact,
            _ => self.precision,
        };
        let matrix = self.matrix(key)?;
        let how = (precision, &mut *self.scratch.borrow_mut(), self.cancel);
        project(self.pool, how, &matrix, bias.as_deref(), x, out)
    }
}
