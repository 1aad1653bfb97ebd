//! Keeping what every layer adds to the residual stream.

use super::Hook;

/// What one layer did with the positions of a block. Rows are positions.
///
/// # Shapes
/// All `[n, hidden]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerTrace {
    /// What attention added.
    pub attention: Vec<f32>,
    /// What the feed-forward network added, and the layer's own embedding in models that have one.
    pub network: Vec<f32>,
    /// The stream as it left the layer.
    pub residual: Vec<f32>,
}

/// Keeps one block of positions: what entered layer 0, and what each layer did. The next block takes
/// its place, so whoever wants all positions runs them block by block.
#[derive(Debug, Clone, Default)]
pub struct CaptureTrace {
    position_first: usize,
    count: usize,
    input: Vec<f32>,
    layers: Vec<LayerTrace>,
}

impl CaptureTrace {
    /// Nothing yet.
    pub fn new() -> CaptureTrace {
        CaptureTrace::default()
    }

    /// Where in its context the block begins.
    pub fn position_first(&self) -> usize {
        self.position_first
    }

    /// Positions of the block.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The stream as it entered layer 0: `[n, hidden]`.
    pub fn input(&self) -> &[f32] {
        &self.input
    }

    /// The layers, in order.
    pub fn layers(&self) -> &[LayerTrace] {
        &self.layers
    }

    fn layer(&mut self, layer: usize) -> &mut LayerTrace {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, LayerTrace::default);
        }
        &mut self.layers[layer]
    }
}

fn keep(place: &mut Vec<f32>, rows: &[f32]) {
    place.clear();
    place.extend_from_slice(rows);
}

impl Hook for CaptureTrace {
    fn begin(&mut self, position_first: usize, count: usize) {
        (self.position_first, self.count) = (position_first, count);
    }

    fn pre_layer(&mut self, layer: usize, residual: &mut [f32]) {
        if layer == 0 {
            keep(&mut self.input, residual);
        }
    }

    fn attention_out(&mut self, layer: usize, output: &mut [f32]) {
        keep(&mut self.layer(layer).attention, output);
    }

    fn ffn_out(&mut self, layer: usize, output: &mut [f32]) {
        keep(&mut self.layer(layer).network, output);
    }

    fn layer_input_out(&mut self, layer: usize, output: &mut [f32]) {
        let network = &mut self.layer(layer).network;
        network.iter_mut().zip(&*output).for_each(|(network, output)| *network += output);
    }

    fn post_layer(&mut self, layer: usize, residual: &mut [f32]) {
        keep(&mut self.layer(layer).residual, residual);
    }
}
