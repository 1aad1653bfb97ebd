//! Whether a model's embedding is its unembedding too, where the configuration says so.
//!
//! What a checkpoint holds goes before what its configuration says, as in transformers
//! (`PreTrainedModel.tie_weights`): two tensors of other numbers are two weights. Numbers decide, not
//! bytes, and only such a checkpoint has them read when it is opened, up to the first that differs.
//!
//! Elsewhere: a checkpoint that holds the matrix under the unembedding's name alone, whose embedding is
//! found there (`Architecture::tensors`).

use larql_compute::model::{Architecture, Naming, Role, WeightKey};

use super::Weight;
use super::resolve::{Resolved, Resolver};
use crate::failure::Failure;

/// What is said of a checkpoint whose configuration is contradicted.
pub(super) const NOTE: &str = "config.json ties embedding and unembedding, and the checkpoint holds two \
                               different matrices: both are used";

/// Whether one matrix serves as both, in a model whose configuration says so.
///
/// # Errors
/// What is wrong with either tensor.
pub(super) fn holds(
    resolver: &Resolver<'_>,
    architecture: &Architecture,
    naming: Naming,
) -> Result<bool, Failure> {
    let find = |role| -> Result<Option<Weight>, Failure> {
        let key = WeightKey::model(role);
        let spec = architecture.tensors(naming).into_iter().find(|spec| spec.key == key);
        Ok(match spec {
            Some(spec) => resolver.resolve(&spec)?.map(Weight::new),
            None => None,
        })
    };
    let (Some(embedding), Some(unembedding)) = (find(Role::Embedding)?, find(Role::Unembedding)?)
    else {
        return Ok(true);
    };
    Ok(same_numbers(resolver, &embedding, &unembedding))
}

/// Whether a weight lies where another does: a tied model's only matrix under its second name.
pub(super) fn is_there(weights: &[Weight], found: &Resolved) -> bool {
    let mut others = weights.iter().map(|weight| &weight.resolved);
    others.any(|other| other.part == found.part && other.positions().eq(found.positions()))
}

fn same_numbers(resolver: &Resolver<'_>, one: &Weight, other: &Weight) -> bool {
    if one.resolved.positions().eq(other.resolved.positions()) {
        return true;
    }
    let (Some(one), Some(other)) =
        (one.matrix(resolver.checkpoint), other.matrix(resolver.checkpoint))
    else {
        return false;
    };
    let (one, other) = (one.view, other.view);
    if one.rows() != other.rows() || one.columns() != other.columns() {
        return false;
    }
    let plain = one.dtype() == other.dtype() && one.dtype().is_plain();
    let same_bytes = plain && one.contiguous_bytes() == other.contiguous_bytes();
    let mut rows = [vec![0.0; one.columns()], vec![0.0; one.columns()]];
    same_bytes
        || (0..one.rows()).all(|row| {
            one.row_f32(row, &mut rows[0]);
            other.row_f32(row, &mut rows[1]);
            rows[0] == rows[1]
        })
}
