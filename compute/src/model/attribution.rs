//! Which features made a prediction: hooks that keep or silence single features, and the share that
//! each has in a logit.
//!
//! Elsewhere: the seams ([`super::hooks`]), and who asks (`larqld/src/knowledge`).

use super::{Hook, Matrix, Orientation};
use crate::cpu::{Cancel, Cancelled, Pool};
use crate::kernels::gate_scan::gate_scan;
use crate::kernels::matvec_transposed;

/// What the feed-forward network of one layer did at one position.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerFeatures {
    /// Its normed input: `[hidden]`.
    pub input: Vec<f32>,
    /// `activation(gate) * up`, one a feature.
    pub activations: Vec<f32>,
    /// What it added to the stream, after its output norm: `[hidden]`.
    pub output: Vec<f32>,
    /// The stream as it left the layer: `[hidden]`.
    pub residual: Vec<f32>,
}

/// Where a block's rows are among all rows of a pass, which may be of several sequences.
#[derive(Debug, Clone, Copy, Default)]
struct Rows {
    first: usize,
    count: usize,
    position_first: usize,
}

impl Rows {
    fn begin(&mut self, position_first: usize, count: usize) {
        *self = Rows { first: self.first + self.count, count, position_first };
    }

    /// The row that a hook is told the position of.
    fn at(&self, position: usize) -> usize {
        self.first + position - self.position_first
    }
}

/// Keeps what every layer's feed-forward network did at every row of a pass.
#[derive(Debug, Clone, Default)]
pub struct CaptureFeatures {
    rows: Vec<Vec<LayerFeatures>>,
    block: Rows,
}

impl CaptureFeatures {
    /// An empty capture.
    pub fn new() -> CaptureFeatures {
        CaptureFeatures::default()
    }

    /// What was kept, by row (in the order of the segments' tokens) and layer.
    pub fn into_rows(self) -> Vec<Vec<LayerFeatures>> {
        self.rows
    }

    fn of(&mut self, row: usize, layer: usize) -> &mut LayerFeatures {
        if self.rows.len() <= row {
            self.rows.resize_with(row + 1, Vec::new);
        }
        let layers = &mut self.rows[row];
        if layers.len() <= layer {
            layers.resize_with(layer + 1, LayerFeatures::default);
        }
        &mut layers[layer]
    }

    fn keep(
        &mut self,
        layer: usize,
        numbers: &[f32],
        place: fn(&mut LayerFeatures) -> &mut Vec<f32>,
    ) {
        let width = numbers.len() / self.block.count.max(1);
        for (index, row) in numbers.chunks_exact(width.max(1)).enumerate() {
            *place(self.of(self.block.first + index, layer)) = row.to_vec();
        }
    }
}

impl Hook for CaptureFeatures {
    fn takes_rows(&self) -> bool {
        true
    }

    fn begin(&mut self, position_first: usize, count: usize) {
        self.block.begin(position_first, count);
    }

    fn ffn_in(&mut self, layer: usize, input: &mut [f32]) {
        self.keep(layer, input, |features| &mut features.input);
    }

    fn activations(&mut self, layer: usize, position: usize, activations: &mut [f32]) {
        let row = self.block.at(position);
        self.of(row, layer).activations = activations.to_vec();
    }

    fn ffn_out(&mut self, layer: usize, output: &mut [f32]) {
        self.keep(layer, output, |features| &mut features.output);
    }

    fn post_layer(&mut self, layer: usize, residual: &mut [f32]) {
        self.keep(layer, residual, |features| &mut features.residual);
    }
}

/// Silences features: their activation is 0. Each of several sets has so many rows of a pass.
#[derive(Debug, Clone, Default)]
pub struct AblateFeatures {
    /// Layer and feature of each; set `i` is silent in the rows from `i * rows_each` on.
    sets: Vec<Vec<(usize, usize)>>,
    rows_each: usize,
    block: Rows,
}

impl AblateFeatures {
    /// Sets of layers and features, each for `rows_each` rows (at least 1).
    pub fn new(sets: Vec<Vec<(usize, usize)>>, rows_each: usize) -> AblateFeatures {
        AblateFeatures { sets, rows_each: rows_each.max(1), block: Rows::default() }
    }
}

impl Hook for AblateFeatures {
    fn takes_rows(&self) -> bool {
        true
    }

    fn begin(&mut self, position_first: usize, count: usize) {
        self.block.begin(position_first, count);
    }

    fn activations(&mut self, layer: usize, position: usize, activations: &mut [f32]) {
        let set = self.sets.get(self.block.at(position) / self.rows_each);
        for &(_, feature) in set.into_iter().flatten().filter(|&&(of, _)| of == layer) {
            if let Some(activation) = activations.get_mut(feature) {
                *activation = 0.0;
            }
        }
    }
}

/// Lets every layer's feed-forward network read one vector by itself: what enters a layer is
/// replaced by it, and attention adds nothing.
#[derive(Debug, Clone, Default)]
pub struct IsolateLayers {
    inputs: Vec<Vec<f32>>,
    block: Rows,
}

impl IsolateLayers {
    /// What each row of a pass gets in every layer: `[rows][hidden]`.
    pub fn new(inputs: Vec<Vec<f32>>) -> IsolateLayers {
        IsolateLayers { inputs, block: Rows::default() }
    }
}

impl Hook for IsolateLayers {
    fn takes_rows(&self) -> bool {
        true
    }

    fn begin(&mut self, position_first: usize, count: usize) {
        self.block.begin(position_first, count);
    }

    fn pre_layer(&mut self, _layer: usize, residual: &mut [f32]) {
        let width = residual.len() / self.block.count.max(1);
        let inputs = self.inputs.iter().skip(self.block.first);
        for (row, input) in residual.chunks_exact_mut(width.max(1)).zip(inputs) {
            row.copy_from_slice(input);
        }
    }

    fn attention_out(&mut self, _layer: usize, output: &mut [f32]) {
        output.fill(0.0);
    }
}

/// Returns the product of a matrix with a vector, whichever way it is stored.
///
/// # Shapes
/// `vector`: `[inputs]`; result: `[outputs]`.
/// # Errors
/// `Cancelled`, asked between tiles.
pub fn product(
    pool: &Pool,
    matrix: &Matrix<'_>,
    vector: &[f32],
    cancel: &Cancel,
) -> Result<Vec<f32>, Cancelled> {
    let rows_are_outputs = matrix.orientation == Orientation::OutIn;
    either_way(pool, matrix, rows_are_outputs, matrix.outputs(), vector, cancel)
}

/// Returns the product of a matrix's transpose with a vector, whichever way it is stored.
///
/// # Shapes
/// `vector`: `[outputs]`; result: `[inputs]`.
/// # Errors
/// As [`product`].
pub fn product_transposed(
    pool: &Pool,
    matrix: &Matrix<'_>,
    vector: &[f32],
    cancel: &Cancel,
) -> Result<Vec<f32>, Cancelled> {
    let rows_are_inputs = matrix.orientation == Orientation::InOut;
    either_way(pool, matrix, rows_are_inputs, matrix.inputs(), vector, cancel)
}

fn either_way(
    pool: &Pool,
    matrix: &Matrix<'_>,
    by_rows: bool,
    length: usize,
    vector: &[f32],
    cancel: &Cancel,
) -> Result<Vec<f32>, Cancelled> {
    if by_rows {
        return gate_scan(pool, &matrix.view, vector, cancel);
    }
    cancel.check()?;
    let mut out = vec![0.0; length];
    matvec_transposed(pool, &matrix.view, vector, &mut out);
    Ok(out)
}

/// Returns `output[i] / input[i]`: what an elementwise normalisation multiplied each number with, 0
/// where the input is too small to tell.
///
/// # Shapes
/// Both `[n]`; panics if they differ.
pub fn elementwise_scale(input: &[f32], output: &[f32]) -> Vec<f32> {
    assert_eq!(input.len(), output.len(), "a normalisation changed the length");
    let most = input.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let scale = |(&x, &y): (&f32, &f32)| if x.abs() > most * 1e-5 { y / x } else { 0.0 };
    input.iter().zip(output).map(scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::MatrixView;

    #[test]
    fn products_do_not_depend_on_how_the_matrix_lies() {
        let number = |i: usize| ((i * 29 % 31) as f32 - 15.0) / 8.0;
        let (outputs, inputs) = (7, 5);
        let rows: Vec<f32> = (0..outputs * inputs).map(number).collect();
        let turned: Vec<f32> =
            (0..outputs * inputs).map(|i| rows[i % outputs * inputs + i / outputs]).collect();
        let (pool, cancel) = (Pool::new(2), Cancel::new());
        let (x, y): (Vec<f32>, Vec<f32>) =
            ((0..inputs).map(number).collect(), (0..outputs).map(number).collect());
        let as_is = Matrix {
            view: MatrixView::from_f32(outputs, inputs, &rows).unwrap(),
            orientation: Orientation::OutIn,
        };
        let other_way = Matrix {
            view: MatrixView::from_f32(inputs, outputs, &turned).unwrap(),
            orientation: Orientation::InOut,
        };
        let close = |a: Vec<f32>, b: Vec<f32>| {
            assert_eq!(a.len(), b.len());
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
        };
        close(
            product(&pool, &as_is, &x, &cancel).unwrap(),
            product(&pool, &other_way, &x, &cancel).unwrap(),
        );
        close(
            product_transposed(&pool, &as_is, &y, &cancel).unwrap(),
            product_transposed(&pool, &other_way, &y, &cancel).unwrap(),
        );
    }

    #[test]
    fn each_set_is_silent_in_its_rows_of_its_layer_and_nowhere_else() {
        let mut hook = AblateFeatures::new(vec![vec![(1, 2), (1, 99)], vec![(1, 0)]], 2);
        // A pass of four rows in two blocks; positions go on from each block's first.
        for (first, count, silent) in
            [(7, 3, [Some(2), Some(2), Some(0)].as_slice()), (9, 1, &[Some(0)])]
        {
            hook.begin(first, count);
            for (row, &silent) in silent.iter().enumerate() {
                for layer in 0..2 {
                    let mut activations = vec![1.0; 4];
                    hook.activations(layer, first + row, &mut activations);
                    let found = activations.iter().position(|&x| x == 0.0);
                    assert_eq!(found, silent.filter(|_| layer == 1), "row {row} from {first}");
                }
            }
        }
    }

    #[test]
    fn rows_of_several_blocks_are_kept_in_order() {
        let mut hook = CaptureFeatures::new();
        for (first, rows) in [(4, &[1.0, 2.0, 3.0, 4.0][..]), (0, &[5.0, 6.0])] {
            hook.begin(first, rows.len() / 2);
            hook.ffn_in(0, &mut rows.to_vec());
            for (row, numbers) in rows.chunks(2).enumerate() {
                hook.activations(0, first + row, &mut [numbers[0]]);
            }
        }
        let rows = hook.into_rows();
        let inputs: Vec<_> = rows.iter().map(|layers| layers[0].input.clone()).collect();
        assert_eq!(inputs, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
        assert!(rows.iter().all(|layers| layers[0].activations == [layers[0].input[0]]));
    }
}
