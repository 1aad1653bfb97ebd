//! A projection with the edits that are made in it, read a block at a time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use larql_compute::model::{Matrix, Orientation};

/// What edits change in one projection of a network.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct MatrixEdits {
    /// Features that the projection has with the edits.
    pub(super) features: usize,
    /// Features that the base stores: those beyond are 0 unless a row says otherwise.
    pub(super) stored: usize,
    /// Whether a feature is an input (down), and not an output (gate, up).
    pub(super) is_down: bool,
    /// Vectors of features that are the edits' own: `[hidden]` each.
    pub(super) rows: BTreeMap<usize, Arc<[f32]>>,
    /// What is added to a down projection, where no row replaces it.
    pub(super) updates: Vec<Update>,
}

/// `left^T right` is added to a down projection.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Update {
    /// `[rank, hidden]`.
    pub(super) left: Arc<[f32]>,
    /// `[rank, stored]`, over the features of one network.
    pub(super) right: Vec<f32>,
    pub(super) rank: usize,
}

impl MatrixEdits {
    /// Features whose vectors differ from the base's, ascending.
    pub(super) fn changed(&self) -> Vec<usize> {
        let of_updates = (0..self.stored).filter(|&feature| {
            self.updates.iter().any(|update| {
                (0..update.rank).any(|rank| update.right[rank * self.stored + feature] != 0.0)
            })
        });
        let mut changed: Vec<usize> = of_updates.chain(self.rows.keys().copied()).collect();
        changed.sort_unstable();
        changed.dedup();
        changed
    }
}

/// A projection as it is with edits.
#[derive(Debug, Clone, Copy)]
pub struct EditedMatrix<'a> {
    matrix: Matrix<'a>,
    edits: Option<&'a MatrixEdits>,
}

impl<'a> EditedMatrix<'a> {
    /// A projection that nothing is edited in.
    pub fn unedited(matrix: Matrix<'a>) -> Self {
        Self { matrix, edits: None }
    }

    pub(super) fn new(matrix: Matrix<'a>, edits: &'a MatrixEdits) -> Self {
        Self { matrix, edits: Some(edits) }
    }

    /// The base's projection.
    pub fn base(&self) -> &Matrix<'a> {
        &self.matrix
    }

    /// Whether a low-rank update is in it, so that hardly any number is the base's.
    pub fn is_updated(&self) -> bool {
        self.edits.is_some_and(|edits| !edits.updates.is_empty())
    }

    /// Whether anything but zeros was added to the base's numbers.
    pub fn has_new_numbers(&self) -> bool {
        self.edits.is_some_and(|edits| !edits.rows.is_empty() || !edits.updates.is_empty())
    }

    /// The stored bytes of a feature, where they are its vector, whole and as the base has it.
    pub fn stored_feature(&self, feature: usize, is_down: bool) -> Option<&'a [u8]> {
        let by_rows = (self.matrix.orientation == Orientation::OutIn) != is_down;
        let of_base = self.edits.is_none_or(|edits| {
            feature < edits.stored && edits.updates.is_empty() && !edits.rows.contains_key(&feature)
        });
        let plain = self.matrix.view.has_plain_rows();
        (by_rows && of_base && plain).then(|| self.matrix.view.row(feature))
    }

    /// The stored bytes of an output, where they are its row as the base has it.
    pub(in crate::pipeline) fn stored_output(&self, output: usize) -> Option<&'a [u8]> {
        let of_base = self.edits.is_none_or(|edits| {
            !edits.is_down && output < edits.stored && !edits.rows.contains_key(&output)
        });
        (of_base && self.matrix.orientation == Orientation::OutIn)
            .then(|| self.matrix.view.row(output))
    }

    /// Numbers of some outputs for some inputs, whichever way the matrix lies.
    ///
    /// # Shapes
    /// `out`: `[outputs, inputs]`.
    pub fn read(&self, outputs: Range<usize>, inputs: Range<usize>, out: &mut [f32]) {
        let Some(edits) = self.edits else { return read(&self.matrix, outputs, inputs, out) };
        match edits.is_down {
            false => self.read_rows(edits, outputs, inputs, out),
            true => self.read_down(edits, outputs, inputs, out),
        }
    }

    /// Vectors of some features.
    ///
    /// # Shapes
    /// `out`: `[features, hidden]`.
    pub fn read_features(
        &self,
        features: Range<usize>,
        hidden: usize,
        is_down: bool,
        out: &mut [f32],
    ) {
        if !is_down {
            return self.read(features, 0..hidden, out);
        }
        let count = features.len();
        let mut turned = vec![0.0; out.len()];
        self.read(0..hidden, features, &mut turned);
        for (output, row) in turned.chunks_exact(count.max(1)).enumerate() {
            for (feature, &value) in row.iter().enumerate() {
                out[feature * hidden + output] = value;
            }
        }
    }

    fn read_rows(
        &self,
        edits: &MatrixEdits,
        outputs: Range<usize>,
        inputs: Range<usize>,
        out: &mut [f32],
    ) {
        let (width, stored) = (inputs.len(), within(&outputs, edits.stored));
        let (base, new) = out.split_at_mut(stored.len() * width);
        read(&self.matrix, stored, inputs.clone(), base);
        new.fill(0.0);
        for (&feature, row) in edits.rows.range(outputs.clone()) {
            let at = (feature - outputs.start) * width;
            out[at..at + width].copy_from_slice(&row[inputs.clone()]);
        }
    }

    fn read_down(
        &self,
        edits: &MatrixEdits,
        outputs: Range<usize>,
        inputs: Range<usize>,
        out: &mut [f32],
    ) {
        let (width, stored) = (inputs.len(), within(&inputs, edits.stored));
        if stored.len() == width {
            read(&self.matrix, outputs.clone(), inputs.clone(), out);
        } else {
            let mut base = vec![0.0; outputs.len() * stored.len()];
            read(&self.matrix, outputs.clone(), stored.clone(), &mut base);
            out.fill(0.0);
            let rows = out.chunks_exact_mut(width.max(1));
            for (out, base) in rows.zip(base.chunks_exact(stored.len().max(1))) {
                out[..base.len()].copy_from_slice(base);
            }
        }
        for update in &edits.updates {
            let hidden = update.left.len() / update.rank.max(1);
            for rank in 0..update.rank {
                let right = &update.right[rank * edits.stored..][stored.clone()];
                for (output, out) in outputs.clone().zip(out.chunks_exact_mut(width.max(1))) {
                    let factor = update.left[rank * hidden + output];
                    out.iter_mut().zip(right).for_each(|(out, right)| *out += factor * right);
                }
            }
        }
        for (&feature, row) in edits.rows.range(inputs.clone()) {
            let column = feature - inputs.start;
            for (output, out) in outputs.clone().zip(out.chunks_exact_mut(width.max(1))) {
                out[column] = row[output];
            }
        }
    }
}

/// The part of a range that is below an end.
fn within(range: &Range<usize>, end: usize) -> Range<usize> {
    range.start.min(end)..range.end.min(end)
}

/// Numbers of some outputs for some inputs of a stored projection: `out[output][input]`.
fn read(matrix: &Matrix<'_>, outputs: Range<usize>, inputs: Range<usize>, out: &mut [f32]) {
    let width = inputs.len();
    if out.is_empty() {
        return;
    }
    match matrix.orientation {
        Orientation::OutIn => {
            for (output, out) in outputs.zip(out.chunks_exact_mut(width.max(1))) {
                matrix.view.part_f32(output, inputs.clone(), out);
            }
        }
        Orientation::InOut => {
            let mut part = vec![0.0; outputs.len()];
            for (column, input) in inputs.enumerate() {
                matrix.view.part_f32(input, outputs.clone(), &mut part);
                for (row, value) in part.iter().enumerate() {
                    out[row * width + column] = *value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use larql_compute::quant::MatrixView;

    use super::*;

    /// 3 features of width 2, as a gate `[features, hidden]` and as a down `[hidden, features]`.
    const ROWS: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    const COLUMNS: [f32; 6] = [1.0, 3.0, 5.0, 2.0, 4.0, 6.0];

    fn edits(is_down: bool) -> MatrixEdits {
        let rows = [(1, [9.0, 8.0].into()), (4, [7.0, 6.0].into())].into();
        MatrixEdits { features: 5, stored: 3, is_down, rows, updates: Vec::new() }
    }

    fn features(matrix: &EditedMatrix<'_>, is_down: bool) -> Vec<f32> {
        let mut out = vec![f32::NAN; 10];
        matrix.read_features(0..5, 2, is_down, &mut out);
        // A block at a time is the same as all at once.
        for first in 0..4 {
            let mut part = vec![f32::NAN; 4];
            matrix.read_features(first..first + 2, 2, is_down, &mut part);
            assert_eq!(part, out[2 * first..2 * first + 4]);
        }
        out
    }

    #[test]
    fn rows_are_replaced_and_added_whichever_way_the_matrix_lies() {
        let expected = [1.0, 2.0, 9.0, 8.0, 5.0, 6.0, 0.0, 0.0, 7.0, 6.0];
        let by_rows = MatrixView::from_f32(3, 2, &ROWS).unwrap();
        let by_columns = MatrixView::from_f32(2, 3, &COLUMNS).unwrap();
        for (view, orientation, is_down) in [
            (by_rows, Orientation::OutIn, false),
            (by_columns, Orientation::InOut, false),
            (by_rows, Orientation::InOut, true),
            (by_columns, Orientation::OutIn, true),
        ] {
            let edits = edits(is_down);
            let matrix = EditedMatrix::new(Matrix { view, orientation }, &edits);
            assert_eq!(features(&matrix, is_down), expected);
            assert_eq!(edits.changed(), [1, 4]);
        }
    }

    #[test]
    fn an_update_is_added_where_no_row_replaces_it() {
        let mut edits = edits(true);
        let update = Update { left: [1.0, 10.0].into(), right: vec![1.0, 1.0, 2.0], rank: 1 };
        edits.updates.push(update);
        let view = MatrixView::from_f32(3, 2, &ROWS).unwrap();
        let matrix = EditedMatrix::new(Matrix { view, orientation: Orientation::InOut }, &edits);
        let expected = [2.0, 12.0, 9.0, 8.0, 7.0, 26.0, 0.0, 0.0, 7.0, 6.0];
        assert_eq!(features(&matrix, true), expected);
        assert_eq!(edits.changed(), [0, 1, 2, 4]);
        assert!(matrix.stored_feature(0, true).is_none());
    }
}
