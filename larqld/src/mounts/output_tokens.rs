//! Output tokens of features where nobody stored them: computed from a checkpoint's weights, by the
//! definition by which EXTRACT computes them, for the features that a statement asks about.
//!
//! Each call reads the table of the vocabulary once, so features are asked about many at a time.

use std::ops::Range;

use larql_compute::browse::{TokenList, top_tokens};
use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{Orientation, Role, WeightKey, Weights as _};
use larql_compute::quant::MatrixView;
use larql_planner::catalog::Component;

use super::{Model, Source};
use crate::failure::{Failure, code};
use crate::pipeline::Rows;
use crate::pipeline::extract::TOKENS_PER_FEATURE;

/// Features whose tokens are computed at once, so that their vectors take bounded memory.
pub const FEATURES_AT_ONCE: usize = 4096;

impl Model {
    /// Whether output tokens of features are computed when they are asked for.
    pub fn computes_output_tokens(&self) -> bool {
        matches!(self.source(), Source::Checkpoint(_))
            && self.has(Component::Down)
            && self.output_table().is_some()
    }

    /// The table that output tokens are found in.
    fn output_table(&self) -> Option<MatrixView<'_>> {
        let architecture = self.architecture();
        let role = match architecture.tied_embeddings {
            true => Role::Embedding,
            false => Role::Unembedding,
        };
        let table = self.matrix(WeightKey::model(role))?;
        let fits = table.orientation == Orientation::OutIn
            && table.view.columns() == architecture.hidden_size;
        fits.then_some(table.view)
    }

    /// The output tokens of some features of a layer, in the order asked for, and the bytes that were
    /// read for them.
    ///
    /// # Errors
    /// `MISSING_COMPONENT` where they cannot be computed; `DAMAGED`; when cancelled.
    pub fn compute_output_tokens(
        &self,
        layer: u32,
        features: &[u32],
        pool: &Pool,
        cancel: &Cancel,
    ) -> Result<(Vec<TokenList>, u64), Failure> {
        let missing = || {
            let path = self.path().display();
            let message = format!("{path}: output tokens of layer {layer} cannot be computed");
            Failure::new(code::MISSING_COMPONENT, message)
        };
        let table = self.output_table().ok_or_else(missing)?;
        let hidden = self.architecture().hidden_size;
        let (mut lists, mut bytes) = (Vec::with_capacity(features.len()), 0);
        for features in features.chunks(FEATURES_AT_ONCE) {
            cancel.check()?;
            let mut vectors = vec![0.0; features.len() * hidden];
            for run in runs(features) {
                let out = &mut vectors[run.start * hidden..run.end * hidden];
                self.read_down(layer, features[run.start], out).ok_or_else(missing)??;
                cancel.check()?;
            }
            let view = MatrixView::from_f32(features.len(), hidden, &vectors)
                .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
            lists.extend(top_tokens(pool, &table, &view, TOKENS_PER_FEATURE, cancel)?);
            bytes += table.bytes_touched() + size_of_val(&*vectors) as u64;
        }
        Ok((lists, bytes))
    }

    /// The output tokens of vectors that are no features of the base, and the bytes that were read for
    /// them; `None` where the vocabulary's table is not here.
    ///
    /// # Shapes
    /// `vectors`: `[n, hidden]`, `n` at least 1.
    /// # Errors
    /// When cancelled.
    pub fn output_tokens_of(
        &self,
        vectors: &[f32],
        pool: &Pool,
        cancel: &Cancel,
    ) -> Result<Option<(Vec<TokenList>, u64)>, Failure> {
        let Some(table) = self.output_table() else { return Ok(None) };
        let hidden = self.architecture().hidden_size;
        let view = MatrixView::from_f32(vectors.len() / hidden, hidden, vectors)
            .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
        let lists = top_tokens(pool, &table, &view, TOKENS_PER_FEATURE, cancel)?;
        Ok(Some((lists, table.bytes_touched() + size_of_val(vectors) as u64)))
    }

    /// Reads the down vectors of features that follow one another in one network, `first` the first of
    /// them. `None` where there are no such features.
    fn read_down(&self, layer: u32, first: u32, out: &mut [f32]) -> Option<Result<(), Failure>> {
        let Source::Checkpoint(source) = self.source() else { return None };
        let hidden = self.architecture().hidden_size;
        let (mut first, mut out) = (first as usize, out);
        while !out.is_empty() {
            let networks = self.architecture().networks(layer as usize);
            let network = networks.into_iter().find(|network| {
                (network.first..network.first + network.features).contains(&first)
            })?;
            let key = WeightKey { role: Role::Down, layer: Some(layer), expert: network.expert };
            let rows = match Rows::of(source, source.weight(key)?, Orientation::InOut) {
                Ok(rows) => rows,
                Err(failure) => return Some(Err(failure)),
            };
            let within = first - network.first;
            let count = (out.len() / hidden).min(network.features - within);
            let (part, rest) = out.split_at_mut(count * hidden);
            rows.read(within..within + count, part);
            (first, out) = (first + count, rest);
        }
        Some(Ok(()))
    }
}

/// Ranges of the list within which each feature follows the one before.
fn runs(features: &[u32]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, &feature) in features.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if features[index - 1].checked_add(1) == Some(feature) => run.end = index + 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_follow_one_another_are_read_together() {
        assert_eq!(runs(&[3, 4, 5, 9, 7, 8]), [0..3, 3..4, 4..6]);
        assert!(runs(&[]).is_empty());
    }
}
