//! Keys and values as rows of `f32` in growing buffers: what exact runs read.

use std::collections::TryReserveError;

use super::Widths;

/// One layer: a row of numbers for each position, in both; none where the layer reads another's.
#[derive(Debug, Clone, Default)]
struct Layer {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// The rows of every layer.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    layers: Vec<Layer>,
}

impl Rows {
    pub(super) fn new(layers: usize) -> Rows {
        Rows { layers: (0..layers).map(|_| Layer::default()).collect() }
    }

    pub(super) fn truncate(&mut self, widths: &[Widths], positions: usize) {
        for (layer, widths) in self.layers.iter_mut().zip(widths) {
            layer.keys.truncate(positions * widths.keys);
            layer.values.truncate(positions * widths.values);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let numbers = |layer: &Layer| layer.keys.capacity() + layer.values.capacity();
        self.layers.iter().map(numbers).sum::<usize>() * size_of::<f32>()
    }

    /// Makes room for `needed` positions. Buffers grow by half of `length`, so that a long
    /// generation copies each row a few times only, and never beyond `positions_max`.
    pub(super) fn reserve(
        &mut self,
        widths: &[Widths],
        (length, needed, positions_max): (usize, usize, usize),
    ) -> Result<(), TryReserveError> {
        let rows = needed.max(length + length / 2).min(positions_max);
        for (Layer { keys, values }, widths) in self.layers.iter_mut().zip(widths) {
            for (buffer, width) in [(keys, widths.keys), (values, widths.values)] {
                if buffer.capacity() < needed * width {
                    buffer.try_reserve_exact(rows * width - buffer.len())?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn append(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let layer = &mut self.layers[layer];
        layer.keys.extend_from_slice(keys);
        layer.values.extend_from_slice(values);
    }

    /// Keys and values of a layer: `[positions, key_width]` and `[positions, value_width]`.
    pub(super) fn layer(&self, layer: usize) -> (&[f32], &[f32]) {
        (&self.layers[layer].keys, &self.layers[layer].values)
    }
}
