//! A fact as features of its own: a gate that answers to the fact alone, and a down vector that adds
//! what the network should answer.

use super::selector::Selector;

/// Steepness of a gate: the activation is then near 0 wherever the selector is below its threshold.
const STEEPNESS: f32 = 16.0;

/// The vectors of a feature, each `[hidden]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ComposedFeature {
    /// The layer.
    pub layer: usize,
    /// Its gate vector.
    pub gate: Vec<f32>,
    /// Its up vector; means nothing in a plain network.
    pub up: Vec<f32>,
    /// Its down vector.
    pub down: Vec<f32>,
}

/// Makes a feature that adds `push` where a selector says 1, in proportion above `threshold`, and
/// next to nothing below.
///
/// # Shapes
/// `push`: `[hidden]`.
pub fn compose(layer: usize, selector: &Selector, push: &[f32], threshold: f32) -> ComposedFeature {
    let gate = selector.above(threshold).iter().map(|x| x * STEEPNESS).collect();
    let down = push.iter().map(|x| x / STEEPNESS).collect();
    ComposedFeature { layer, gate, up: selector.constant.clone(), down }
}
