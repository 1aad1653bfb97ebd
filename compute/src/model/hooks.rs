//! Seeing and changing the residual stream while a model runs.
//!
//! A decoder without a hook does no work for hooks. With one, positions come in blocks: `begin`
//! announces a block, then its layers follow in order; every slice is the block's, row-major, and
//! what a hook writes into it is what the model goes on with.

use std::collections::BTreeSet;

/// Called at the seams of every layer; each method does nothing unless it is written.
///
/// # Shapes
/// `n` positions of the block, `d` the hidden size, slices `[n, d]` row-major.
pub trait Hook {
    /// Whether a block may have rows of several sequences. `begin` then tells the first row's
    /// position, from which positions count on, row by row, whatever sequence a row is of.
    fn takes_rows(&self) -> bool {
        false
    }

    /// A block of `count` positions begins at `position_first` (0 is the start of the context).
    fn begin(&mut self, position_first: usize, count: usize) {
        let _ = (position_first, count);
    }

    /// The residual stream as it enters the layer.
    fn pre_layer(&mut self, layer: usize, residual: &mut [f32]) {
        let _ = (layer, residual);
    }

    /// Whether [`attention_weights`](Hook::attention_weights) is to hear of a position in a layer.
    fn wants_attention_weights(&self, layer: usize, position: usize) -> bool {
        let _ = (layer, position);
        false
    }

    /// How much each head of a position attends to each position up to its own: `[heads, position + 1]`,
    /// 0 for what its window leaves out. A head's weights add up to 1, less what a sink takes. They
    /// are for looking at: attention has been computed already.
    fn attention_weights(&mut self, layer: usize, position: usize, weights: &[f32]) {
        let _ = (layer, position, weights);
    }

    /// What attention is about to add to the stream (after its output norm, where there is one).
    fn attention_out(&mut self, layer: usize, output: &mut [f32]) {
        let _ = (layer, output);
    }

    /// The normed input of the feed-forward network.
    fn ffn_in(&mut self, layer: usize, input: &mut [f32]) {
        let _ = (layer, input);
    }

    /// `activation(gate) * up` of one position, one number a feature, before the down projection.
    ///
    /// `position` counts from the start of the context. A sparse network shows 0 for the features
    /// that it left out, and goes on with those that are not 0 afterwards.
    fn activations(&mut self, layer: usize, position: usize, activations: &mut [f32]) {
        let _ = (layer, position, activations);
    }

    /// What the feed-forward network returns, before its output norm.
    fn network_out(&mut self, layer: usize, output: &mut [f32]) {
        let _ = (layer, output);
    }

    /// What the feed-forward network is about to add to the stream (after its output norm).
    fn ffn_out(&mut self, layer: usize, output: &mut [f32]) {
        let _ = (layer, output);
    }

    /// What the layer's own embedding is about to add to the stream, in models that have one (Gemma
    /// 4); the layer's scalar is applied to the stream after it.
    fn layer_input_out(&mut self, layer: usize, output: &mut [f32]) {
        let _ = (layer, output);
    }

    /// The residual stream as it leaves the layer.
    fn post_layer(&mut self, layer: usize, residual: &mut [f32]) {
        let _ = (layer, residual);
    }
}

/// Keeps the last position's residual stream: what entered layer 0, and what left each layer.
#[derive(Debug, Clone, Default)]
pub struct CaptureResiduals {
    input: Vec<f32>,
    layers: Vec<Vec<f32>>,
    count: usize,
}

impl CaptureResiduals {
    /// An empty capture.
    pub fn new() -> CaptureResiduals {
        CaptureResiduals::default()
    }

    /// The stream as it entered layer 0: the scaled embedding; empty before the first block.
    pub fn input(&self) -> &[f32] {
        &self.input
    }

    /// The stream after each layer, in order.
    pub fn layers(&self) -> &[Vec<f32>] {
        &self.layers
    }

    fn last<'a>(&self, rows: &'a [f32]) -> &'a [f32] {
        &rows[rows.len() - rows.len() / self.count.max(1)..]
    }
}

impl Hook for CaptureResiduals {
    fn begin(&mut self, _position_first: usize, count: usize) {
        self.count = count;
        self.layers.clear();
    }

    fn pre_layer(&mut self, layer: usize, residual: &mut [f32]) {
        if layer == 0 {
            self.input = self.last(residual).to_vec();
        }
    }

    fn post_layer(&mut self, _layer: usize, residual: &mut [f32]) {
        let row = self.last(residual).to_vec();
        self.layers.push(row);
    }
}

/// Takes the feed-forward network of some layers out of the model.
#[derive(Debug, Clone, Default)]
pub struct ZeroFfn {
    /// The layers whose network adds nothing.
    pub layers: BTreeSet<usize>,
}

impl ZeroFfn {
    /// For these layers.
    pub fn new(layers: impl IntoIterator<Item = usize>) -> ZeroFfn {
        ZeroFfn { layers: layers.into_iter().collect() }
    }
}

impl Hook for ZeroFfn {
    fn ffn_out(&mut self, layer: usize, output: &mut [f32]) {
        if self.layers.contains(&layer) {
            output.fill(0.0);
        }
    }
}

/// Several hooks as one: each sees what those before it wrote.
#[derive(Default)]
pub struct Compose<'a> {
    hooks: Vec<&'a mut dyn Hook>,
}

impl<'a> Compose<'a> {
    /// In this order.
    pub fn new(hooks: Vec<&'a mut dyn Hook>) -> Compose<'a> {
        Compose { hooks }
    }
}

impl Hook for Compose<'_> {
    fn takes_rows(&self) -> bool {
        self.hooks.iter().all(|hook| hook.takes_rows())
    }

    fn begin(&mut self, position_first: usize, count: usize) {
        self.hooks.iter_mut().for_each(|hook| hook.begin(position_first, count));
    }

    fn pre_layer(&mut self, layer: usize, residual: &mut [f32]) {
        self.hooks.iter_mut().for_each(|hook| hook.pre_layer(layer, residual));
    }

    fn wants_attention_weights(&self, layer: usize, position: usize) -> bool {
        self.hooks.iter().any(|hook| hook.wants_attention_weights(layer, position))
    }

    fn attention_weights(&mut self, layer: usize, position: usize, weights: &[f32]) {
        for hook in &mut self.hooks {
            if hook.wants_attention_weights(layer, position) {
                hook.attention_weights(layer, position, weights);
            }
        }
    }

    fn attention_out(&mut self, layer: usize, output: &mut [f32]) {
        self.hooks.iter_mut().for_each(|hook| hook.attention_out(layer, output));
    }

    fn ffn_in(&mut self, layer: usize, input: &mut [f32]) {
        self.hooks.iter_mut().for_each(|hook| hook.ffn_in(layer, input));
    }

    fn activations(&mut self, layer: usize, position: usize, activations: &mut [f32]) {
        self.hooks.iter_mut().for_each(|hook| hook.activations(layer, position, activations));
    }

    fn network_out(&mut self, layer: usize, output: &mut [f32]) {
        self.hooks.iter_mut().for_each(|hook| hook.network_out(layer, output));
    }

    fn ffn_out(&mut self, layer: usize, output: &mut [f32]) {
        self.hooks.iter_mut().for_each(|hook| hook.ffn_out(layer, output));
    }

    fn layer_input_out(&mut self, layer: usize, output: &mut [f32]) {
        self.hooks.iter_mut().for_each(|hook| hook.layer_input_out(layer, output));
    }

    fn post_layer(&mut self, layer: usize, residual: &mut [f32]) {
        self.hooks.iter_mut().for_each(|hook| hook.post_layer(layer, residual));
    }
}
