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

/// Keeps what every layer's feed-forward network did at the last position.
#[derive(Debug, Clone, Default)]
pub struct CaptureFeatures {
    layers: Vec<LayerFeatures>,
    last: usize,
    count: usize,
}

impl CaptureFeatures {
    /// An empty capture.
    pub fn new() -> CaptureFeatures {
        CaptureFeatures::default()
    }

    /// What was kept, one a layer that has run.
    pub fn layers(&self) -> &[LayerFeatures] {
        &self.layers
    }

    fn of(&mut self, layer: usize) -> &mut LayerFeatures {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, LayerFeatures::default);
        }
        &mut self.layers[layer]
    }

    fn row(&self, rows: &[f32]) -> Vec<f32> {
        rows[rows.len() - rows.len() / self.count.max(1)..].to_vec()
    }
}

impl Hook for CaptureFeatures {
    fn begin(&mut self, position_first: usize, count: usize) {
        (self.last, self.count) = (position_first + count - 1, count);
    }

    fn ffn_in(&mut self, layer: usize, input: &mut [f32]) {
        let row = self.row(input);
        self.of(layer).input = row;
    }

    fn activations(&mut self, layer: usize, position: usize, activations: &mut [f32]) {
        if position == self.last {
            self.of(layer).activations = activations.to_vec();
        }
    }

    fn ffn_out(&mut self, layer: usize, output: &mut [f32]) {
        let row = self.row(output);
        self.of(layer).output = row;
    }

    fn post_layer(&mut self, layer: usize, residual: &mut [f32]) {
        let row = self.row(residual);
        self.of(layer).residual = row;
    }
}

/// Silences features: their activation is 0 from a position on.
#[derive(Debug, Clone, Default)]
pub struct AblateFeatures {
    /// Layer and feature of each.
    pub features: Vec<(usize, usize)>,
    /// The first position at which they are silent.
    pub position_first: usize,
}

impl Hook for AblateFeatures {
    fn activations(&mut self, layer: usize, position: usize, activations: &mut [f32]) {
        if position < self.position_first {
            return;
        }
        for &(_, feature) in self.features.iter().filter(|&&(of, _)| of == layer) {
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
    /// What every position of every layer gets: `[hidden]`.
    pub input: Vec<f32>,
}

impl Hook for IsolateLayers {
    fn pre_layer(&mut self, _layer: usize, residual: &mut [f32]) {
        for row in residual.chunks_exact_mut(self.input.len().max(1)) {
            row.copy_from_slice(&self.input);
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
    fn ablation_silences_its_features_from_its_position_on_and_no_other() {
        let mut hook = AblateFeatures { features: vec![(1, 2), (1, 99)], position_first: 3 };
        for (layer, position, silent) in [(1, 3, true), (1, 2, false), (0, 3, false)] {
            let mut activations = vec![1.0; 4];
            hook.activations(layer, position, &mut activations);
            assert_eq!(activations[2] == 0.0, silent, "layer {layer}, position {position}");
            assert_eq!(
                activations.iter().filter(|&&x| x == 1.0).count(),
                if silent { 3 } else { 4 }
            );
        }
    }
}
