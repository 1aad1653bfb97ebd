//! What indexes of gates have in common: what they are asked, the exact scores of what they found, and
//! how much of the exact answer that is.
//!
//! Elsewhere: the indexes themselves ([`super::sketch`], [`super::hnsw`]), the scan that they stand for
//! (`exec::gate_scan`).

use std::fmt;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::kernels::top_k::{rank, top_k_by_magnitude};
use larql_compute::model::{Matrix, Orientation, Role, WeightKey, Weights as _};
use larql_planner::catalog::GateReads;

use crate::failure::{Failure, code};
use crate::inference::gate_scores;
use crate::mounts::Model;

/// Embeddings that recall is measured with.
pub(super) const RECALL_QUERIES: usize = 16;
/// What is asked for of each in each layer.
pub(super) const RECALL_WANTED: Wanted = Wanted { k: 20, score_min: None };

/// What is looked for in a layer.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// At most so many, the best by magnitude.
    pub k: usize,
    /// What a score must reach to be of use, if that is known: hits that do not may be left out.
    pub score_min: Option<f64>,
}

/// What was found in a layer.
#[derive(Debug, Default)]
pub struct Found {
    /// Features with their exact scores, the best by magnitude first.
    pub hits: Vec<(usize, f32)>,
    /// Bytes of index and gates that were read.
    pub bytes: u64,
}

/// An index that finds the gates which answer a query most strongly.
pub trait GateSearch: fmt::Debug + Send + Sync {
    /// What it reads for a query, as plans count it.
    fn reads(&self) -> GateReads;

    /// The best gates of a layer for a query, with the scores that [`gate_scores`] gives.
    ///
    /// # Errors
    /// `DAMAGED` where the index is not what was written; when cancelled.
    fn best(
        &self,
        with: (&Model, &Pool),
        layer: u32,
        vector: &[f32],
        wanted: Wanted,
        cancel: &Cancel,
    ) -> Result<Found, Failure>;
}

/// Whether every gate of a model is a row of numbers as wide as the model.
pub(super) fn in_rows(model: &Model) -> bool {
    let columns = model.architecture().hidden_size;
    (0..model.layers()).flat_map(|layer| model.gates(layer)).all(|(_, gates)| {
        gates.orientation == Orientation::OutIn && gates.view.columns() == columns
    })
}

/// Scores some features of a layer, in ascending order, with the scan's own arithmetic, and keeps the
/// best `k`.
pub(super) fn score_exactly(
    (model, pool): (&Model, &Pool),
    layer: u32,
    candidates: &[usize],
    (vector, k): (&[f32], usize),
    cancel: &Cancel,
) -> Result<Found, Failure> {
    let mut found = Found { hits: Vec::with_capacity(candidates.len()), bytes: 0 };
    // Networks follow one another as candidates do.
    let mut networks = model.gates(layer);
    let mut current = networks.next();
    for &feature in candidates {
        while let Some((network, _)) = &current
            && feature >= network.first + network.features
        {
            current = networks.next();
        }
        let Some((network, gates)) = &current else { break };
        let within = feature - network.first;
        let one = Matrix { view: gates.view.rows_range(within..within + 1), ..*gates };
        if let [score] = gate_scores(pool, &one, vector, cancel)?[..] {
            found.hits.push((feature, score));
            found.bytes += one.view.bytes_touched();
        }
    }
    found.hits.retain(|(_, score)| !score.is_nan());
    found.hits.sort_unstable_by(|a, b| rank((a.0, a.1.abs()), (b.0, b.1.abs())));
    found.hits.truncate(k);
    Ok(found)
}

/// Evenly spaced rows of the embedding, as entities look their gates up. `part` of 4 chooses other rows.
///
/// # Errors
/// `MISSING_COMPONENT` where the mount has no embeddings.
pub(super) fn embeddings(
    model: &Model,
    count: usize,
    part: usize,
) -> Result<Vec<Vec<f32>>, Failure> {
    let table = model.matrix(WeightKey::model(Role::Embedding)).ok_or_else(|| {
        Failure::new(code::MISSING_COMPONENT, "the mount has no embeddings to measure recall with")
    })?;
    let scale = model.architecture().embed_scale;
    let count = count.min(table.view.rows());
    let row = |index: usize| {
        let mut query = vec![0.0; table.view.columns()];
        table.view.row_f32((4 * index + part) * table.view.rows() / (4 * count), &mut query);
        query.iter_mut().for_each(|value| *value *= scale);
        query
    };
    Ok((0..count).map(row).collect())
}

/// The hits of the scan that recall is measured against.
pub(super) fn exact_hits(
    (model, pool): (&Model, &Pool),
    layer: u32,
    query: &[f32],
    cancel: &Cancel,
) -> Result<Vec<(usize, f32)>, Failure> {
    let mut scores = Vec::new();
    for (_, gates) in model.gates(layer) {
        scores.extend(gate_scores(pool, &gates, query, cancel)?);
    }
    Ok(top_k_by_magnitude(&scores, RECALL_WANTED.k))
}

/// How many of the scan's hits were found.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Recall {
    expected: usize,
    found: usize,
}

impl Recall {
    /// Counts one answer.
    pub(super) fn count(&mut self, exact: &[(usize, f32)], found: &[(usize, f32)]) {
        self.expected += exact.len();
        self.found += exact.iter().filter(|hit| found.contains(hit)).count();
    }

    /// The share of all hits that were found; `None` where there were none.
    pub(super) fn share(self) -> Option<f64> {
        (self.expected > 0).then(|| self.found as f64 / self.expected as f64)
    }
}
