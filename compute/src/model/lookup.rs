//! Tensors by key, checked against the description before anything is computed.

use std::borrow::Cow;

use super::norm::Norm;
use super::projection::Projection;
use super::{Architecture, DecodeError, Matrix, Orientation, Role, WeightKey, Weights};

/// Asks the weights for what the description says there is.
pub(super) struct Lookup<'a> {
    pub(super) architecture: &'a Architecture,
    pub(super) weights: &'a dyn Weights,
}

impl<'a> Lookup<'a> {
    /// A projection.
    ///
    /// # Errors
    /// `MissingTensor` and `Shape`, as for all that follow.
    pub(super) fn matrix(&self, key: WeightKey) -> Result<Matrix<'a>, DecodeError> {
        let matrix = self.weights.matrix(key).ok_or(DecodeError::MissingTensor { key })?;
        self.check(key, vec![matrix.outputs(), matrix.inputs()])?;
        Ok(matrix)
    }

    /// A projection with its bias, where the model has one.
    pub(super) fn projection(
        &self,
        key: WeightKey,
        bias: Role,
    ) -> Result<Projection<'a>, DecodeError> {
        let bias = self.optional_vector(key.with(bias))?;
        Ok(Projection { matrix: self.matrix(key)?, bias })
    }

    /// A projection that only some models have there.
    pub(super) fn optional_projection(
        &self,
        key: WeightKey,
        bias: Role,
    ) -> Result<Option<Projection<'a>>, DecodeError> {
        match self.architecture.shape(key) {
            Some(_) => self.projection(key, bias).map(Some),
            None => Ok(None),
        }
    }

    /// An embedding, whose rows must be tokens or positions.
    pub(super) fn table(&self, role: Role) -> Result<Matrix<'a>, DecodeError> {
        let key = WeightKey::model(role);
        let matrix = self.matrix(key)?;
        if matrix.orientation != Orientation::OutIn {
            let expected = self.architecture.shape(key).unwrap_or_default();
            let found = expected.iter().rev().copied().collect();
            return Err(DecodeError::Shape { key, expected, found });
        }
        Ok(matrix)
    }

    fn vector(&self, key: WeightKey) -> Result<Cow<'a, [f32]>, DecodeError> {
        let vector = self.weights.vector(key).ok_or(DecodeError::MissingTensor { key })?;
        self.check(key, vec![vector.len()])?;
        Ok(vector)
    }

    /// A vector that only some models have there.
    pub(super) fn optional_vector(
        &self,
        key: WeightKey,
    ) -> Result<Option<Cow<'a, [f32]>>, DecodeError> {
        match self.architecture.shape(key) {
            Some(_) => self.vector(key).map(Some),
            None => Ok(None),
        }
    }

    /// The weight of a norm, with the family's offset added.
    pub(super) fn norm(&self, key: WeightKey) -> Result<Vec<f32>, DecodeError> {
        let mut weight = self.vector(key)?.into_owned();
        weight.iter_mut().for_each(|weight| *weight += self.architecture.norm.offset);
        Ok(weight)
    }

    /// The weight of a norm that only some models have there, with the family's offset added.
    pub(super) fn optional_norm(&self, key: WeightKey) -> Result<Option<Vec<f32>>, DecodeError> {
        match self.architecture.shape(key) {
            Some(_) => self.norm(key).map(Some),
            None => Ok(None),
        }
    }

    /// A norm of the stream, with its bias, where the model has one.
    pub(super) fn stream_norm(
        &self,
        key: WeightKey,
        bias: Option<Role>,
    ) -> Result<Option<Norm<'a>>, DecodeError> {
        let Some(weight) = self.optional_norm(key)? else { return Ok(None) };
        let bias = match bias {
            Some(bias) => self.optional_vector(key.with(bias))?,
            None => None,
        };
        Ok(Some(Norm::new(&self.architecture.norm, weight, bias)))
    }

    fn check(&self, key: WeightKey, found: Vec<usize>) -> Result<(), DecodeError> {
        let expected = self.architecture.shape(key).unwrap_or_default();
        match found == expected {
            true => Ok(()),
            false => Err(DecodeError::Shape { key, expected, found }),
        }
    }
}
