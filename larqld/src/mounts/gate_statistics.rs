//! Mean and spread of a layer's gate scores over a sample of the vocabulary: what a score is judged
//! against.
//!
//! EXTRACT stores them. Where nobody did (a checkpoint that is used as it is, a vindex that another
//! program wrote), [`Model`](super::Model) learns those of a layer when they are first needed, with
//! the same samples and the same products, from the gates as they are stored.

use std::sync::OnceLock;

use larql_compute::browse::score_statistics;
use larql_compute::cpu::{Cancel, Cancelled, Pool};
use larql_compute::model::{Matrix, Orientation};
use larql_compute::quant::MatrixView;
use larql_storage::vindex::LayerScores;

use crate::failure::{Failure, code};

/// Vocabulary rows whose gate scores make a layer's statistics.
pub const STATISTICS_SAMPLES: usize = 1000;
/// Bytes of gates, in f32, that are turned at once where a row is no feature.
const TURNED_BYTES: usize = 16 << 20;

/// What is known of a layer before any score.
pub const NO_SCORES: LayerScores = LayerScores { mean: 0.0, deviation: 0.0, samples: 0 };

/// Scaled embeddings of evenly spaced tokens, against which gates are scored.
#[derive(Debug)]
pub struct Samples {
    /// `[samples, hidden]`.
    queries: Vec<f32>,
}

impl Samples {
    /// Takes the samples from a table `[vocabulary, hidden]` whose rows the model multiplies by
    /// `scale`.
    pub fn of(embedding: &MatrixView<'_>, scale: f32) -> Self {
        let (vocabulary, hidden) = (embedding.rows(), embedding.columns());
        let samples = STATISTICS_SAMPLES.min(vocabulary);
        let mut queries = vec![0.0; samples * hidden];
        for (index, query) in queries.chunks_exact_mut(hidden.max(1)).enumerate() {
            let row = (index as u128 * vocabulary as u128 / samples as u128) as usize;
            embedding.row_f32(row, query);
            query.iter_mut().for_each(|value| *value *= scale);
        }
        Self { queries }
    }

    /// Scores some more gates of a layer, `[features, hidden]`, and joins them to what is known.
    ///
    /// # Errors
    /// When cancelled.
    pub fn add(
        &self,
        known: &mut LayerScores,
        gates: &MatrixView<'_>,
        pool: &Pool,
        cancel: &Cancel,
    ) -> Result<(), Cancelled> {
        let (mean, deviation) = score_statistics(pool, gates, &self.queries, cancel)?;
        let samples = (self.queries.len() / gates.columns().max(1) * gates.rows()) as u64;
        *known = joined(known, &LayerScores { mean, deviation, samples });
        Ok(())
    }

    /// [`Samples::add`] for a network's gates whichever way they are stored.
    fn add_matrix(
        &self,
        known: &mut LayerScores,
        gates: &Matrix<'_>,
        pool: &Pool,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        if gates.orientation == Orientation::OutIn {
            return Ok(self.add(known, &gates.view, pool, cancel)?);
        }
        let (hidden, features) = (gates.view.rows(), gates.view.columns());
        let block = (TURNED_BYTES / (hidden.max(1) * size_of::<f32>())).max(1);
        for first in (0..features).step_by(block) {
            cancel.check()?;
            let range = first..features.min(first + block);
            let mut numbers = vec![0.0; range.len() * hidden];
            let mut strip = vec![0.0; range.len()];
            for input in 0..hidden {
                gates.view.part_f32(input, range.clone(), &mut strip);
                for (row, &value) in numbers.chunks_exact_mut(hidden).zip(&strip) {
                    row[input] = value;
                }
            }
            let view = MatrixView::from_f32(range.len(), hidden, &numbers)
                .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
            self.add(known, &view, pool, cancel)?;
        }
        Ok(())
    }
}

/// The statistics of two sets of scores together.
fn joined(a: &LayerScores, b: &LayerScores) -> LayerScores {
    let samples = a.samples + b.samples;
    if a.samples == 0 || b.samples == 0 {
        return if a.samples == 0 { *b } else { *a };
    }
    let (of_a, of_b) = (a.samples as f64, b.samples as f64);
    let (share, apart) = (of_b / samples as f64, b.mean - a.mean);
    let squares =
        a.deviation.powi(2) * of_a + b.deviation.powi(2) * of_b + apart.powi(2) * of_a * share;
    LayerScores {
        mean: a.mean + apart * share,
        deviation: (squares / samples as f64).sqrt(),
        samples,
    }
}

/// The statistics of a model's layers, each learned once.
#[derive(Debug)]
pub struct Learned {
    layers: Vec<OnceLock<LayerScores>>,
}

impl Learned {
    /// Nothing is known of any layer yet.
    pub fn new(layers: u32) -> Self {
        Self { layers: (0..layers).map(|_| OnceLock::new()).collect() }
    }

    /// What is known of a layer by now.
    pub fn get(&self, layer: u32) -> Option<LayerScores> {
        self.layers.get(layer as usize)?.get().copied()
    }

    /// Scores the gates of a layer, unless that was done before.
    ///
    /// # Errors
    /// When cancelled, and then the next statement begins anew.
    pub fn learn<'a>(
        &self,
        layer: u32,
        (embedding, scale): (&MatrixView<'_>, f32),
        gates: impl Iterator<Item = Matrix<'a>>,
        pool: &Pool,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        let Some(known) = self.layers.get(layer as usize) else { return Ok(()) };
        if known.get().is_some() {
            return Ok(());
        }
        let samples = Samples::of(embedding, scale);
        let mut scores = NO_SCORES;
        for gates in gates {
            samples.add_matrix(&mut scores, &gates, pool, cancel)?;
        }
        // Where two statements learn at once, they learn the same.
        known.get_or_init(|| scores);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_parts_join_to_those_of_the_whole() {
        let of = |values: &[f64]| {
            let samples = values.len() as f64;
            let mean = values.iter().sum::<f64>() / samples;
            let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / samples;
            LayerScores { mean, deviation: square.sqrt(), samples: values.len() as u64 }
        };
        let values = [3.0, -1.0, 4.0, 1.5, -5.0, 9.0, 2.0, 6.5];
        for cut in 1..values.len() {
            let found = joined(&joined(&NO_SCORES, &of(&values[..cut])), &of(&values[cut..]));
            let whole = of(&values);
            assert!((found.mean - whole.mean).abs() < 1e-12, "{cut}: {found:?}");
            assert!((found.deviation - whole.deviation).abs() < 1e-12, "{cut}: {found:?}");
            assert_eq!(found.samples, whole.samples);
        }
    }

    #[test]
    fn gates_stored_either_way_have_the_same_statistics() {
        let (features, hidden) = (37, 12);
        let number = |index: usize| ((index * 37 % 101) as f32 - 50.0) / 50.0;
        let rows: Vec<f32> = (0..features * hidden).map(number).collect();
        let turned: Vec<f32> = (0..features * hidden)
            .map(|index| rows[index % features * hidden + index / features])
            .collect();
        let table: Vec<f32> = (0..20 * hidden).map(|index| number(index + 7)).collect();
        let table = MatrixView::from_f32(20, hidden, &table).unwrap();
        let matrix = |rows, columns, numbers, orientation| {
            let view = MatrixView::from_f32(rows, columns, numbers).unwrap();
            Matrix { view, orientation }
        };
        let (pool, cancel) = (Pool::new(2), Cancel::new());
        let learned = [
            matrix(features, hidden, &rows, Orientation::OutIn),
            matrix(hidden, features, &turned, Orientation::InOut),
        ]
        .map(|gates| {
            let learned = Learned::new(1);
            learned.learn(0, (&table, 2.0), [gates].into_iter(), &pool, &cancel).unwrap();
            learned.get(0).unwrap()
        });
        assert_eq!(learned[0], learned[1]);
        assert_eq!(learned[0].samples, 20 * 37);
        assert!(learned[0].deviation > 0.0, "{learned:?}");
    }
}
