//! Whether a base is too coarse for its gates to be ranked by: measured from the stored rows, whoever
//! wrote them and whatever they were made from.
//!
//! What is measured: the share of the ten strongest features of a word, among a sample of the features
//! of some layers, that would stay if the rows had been rounded otherwise by as much
//! (`compute::browse::strongest_kept`). It says how steady the order of hits is; it says nothing of
//! what rounding did to the model's answers.

use larql_compute::browse::strongest_kept;
use larql_compute::cpu::Cancel;
use larql_compute::model::{Orientation, Role, WeightKey, Weights as _};
use larql_compute::quant::{Dtype, MatrixView};

use super::Model;
use crate::failure::Failure;

/// Bits of an element up to which a format is coarse.
const COARSE_BITS_MAX: f64 = 5.0;
/// Layers, features of each and words that are sampled.
const LAYERS: usize = 4;
const FEATURES: usize = 768;
const WORDS: usize = 24;
/// The strongest features that are compared.
const TOP: usize = 10;
/// The share below which users are told: there, less than 0.8 of what two such answers hold together
/// is in both (their Jaccard index).
const STEADY_MIN: f64 = 8.0 / 9.0;

/// What users are told of a base whose share of strongest features is this; `None` where it is steady.
pub fn unsteady(kept: Option<f64>) -> Option<(String, &'static str)> {
    let kept = kept.filter(|&kept| kept < STEADY_MIN)?;
    let message = format!(
        "gates are stored coarsely: of the {TOP} strongest features of a word, {:.1} would stay if they had been rounded otherwise",
        kept * TOP as f64
    );
    Some((message, "take the order of close gate scores lightly; QUANT Q8_0 or DTYPE F16 keeps it"))
}

/// The share of the strongest features that another rounding would keep; `None` where gates are not
/// coarse, or not here.
///
/// # Errors
/// When cancelled.
pub fn strongest_features_kept(model: &Model, cancel: &Cancel) -> Result<Option<f64>, Failure> {
    let table = model.matrix(WeightKey::model(Role::Embedding));
    let Some(table) = table.filter(|table| table.orientation == Orientation::OutIn) else {
        return Ok(None);
    };
    let layers: Vec<u32> =
        (0..model.layers()).filter(|&layer| !coarse_gates(model, layer).is_empty()).collect();
    let words = spread(WORDS, table.view.rows()).map(|row| row_of(&table.view, row));
    let words: Vec<Vec<f32>> = words.collect();
    let mut shares = Vec::new();
    for layer in spread(LAYERS, layers.len()).map(|at| layers[at]) {
        cancel.check()?;
        let gates = coarse_gates(model, layer);
        let total: usize = gates.iter().map(MatrixView::rows).sum();
        let rows = spread(FEATURES, total).filter_map(|mut row| {
            let gates = gates.iter().find(|gates| {
                let here = row < gates.rows();
                row -= if here { 0 } else { gates.rows() };
                here
            })?;
            Some(row_of(gates, row))
        });
        shares.push(strongest_kept(&rows.collect::<Vec<_>>(), &words, TOP));
    }
    let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    Ok((!shares.is_empty()).then_some(mean))
}

/// The gates of a layer whose rows are features in a coarse format.
fn coarse_gates(model: &Model, layer: u32) -> Vec<MatrixView<'_>> {
    let gates = model.gates(layer).map(|(_, gates)| gates);
    let gates = gates
        .filter(|gates| gates.orientation == Orientation::OutIn && is_coarse(gates.view.dtype()));
    gates.map(|gates| gates.view).collect()
}

fn is_coarse(dtype: Dtype) -> bool {
    let (elements, bytes) = dtype.block();
    (bytes * 8) as f64 / elements as f64 <= COARSE_BITS_MAX
}

/// Up to `count` numbers below `total`, evenly.
fn spread(count: usize, total: usize) -> impl Iterator<Item = usize> {
    let count = count.min(total);
    (0..count).map(move |index| (index as u128 * total as u128 / count as u128) as usize)
}

fn row_of(view: &MatrixView<'_>, row: usize) -> Vec<f32> {
    let mut numbers = vec![0.0; view.columns()];
    view.row_f32(row, &mut numbers);
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_about_four_bits_are_coarse_and_no_others() {
        for dtype in [Dtype::Q4_0, Dtype::Q4K, Dtype::Fp4, Dtype::MxFp4, Dtype::U4, Dtype::Q3K] {
            assert!(is_coarse(dtype), "{dtype}");
        }
        for dtype in [Dtype::F16, Dtype::Q8_0, Dtype::Q6K, Dtype::Q5K, Dtype::F8E4M3, Dtype::U8] {
            assert!(!is_coarse(dtype), "{dtype}");
        }
    }
}
