//! A fact as features of its own: a gate that answers to the fact alone, and a down vector that adds
//! what the network should answer.

use super::selector::Selector;

/// Steepness of a gate: the activation is near 0 wherever the selector is a little below its zero.
const STEEPNESS: f32 = 24.0;
/// How far a selector rises from where a fact's features begin to answer to where they answer in full.
pub(super) const RISE: f32 = 0.3;

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

/// Makes two features that together add `push` where a selector is well above `threshold`, half of it
/// there, and next to nothing well below: one rises from a little below the threshold on, the other
/// takes back what is beyond the push from a little above.
///
/// # Shapes
/// `push`: `[hidden]`.
pub fn compose(
    layer: usize,
    selector: &Selector,
    push: &[f32],
    threshold: f32,
) -> [ComposedFeature; 2] {
    let ramp = |zero: f32, sign: f32| ComposedFeature {
        layer,
        gate: selector.above(zero, STEEPNESS),
        up: selector.constant.clone(),
        down: push.iter().map(|x| sign * x / (STEEPNESS * RISE)).collect(),
    };
    [ramp(threshold - RISE / 2.0, 1.0), ramp(threshold + RISE / 2.0, -1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::selector::Unseen;

    #[test]
    fn two_features_are_a_step_where_the_selector_says_the_fact() {
        let selector = Selector {
            direction: vec![1.0, 0.0],
            constant: vec![0.0, 1.0],
            unseen: Unseen::default(),
            elsewhere: None,
        };
        let features = compose(3, &selector, &[2.0, -4.0], 0.2);
        for (says, part) in [(-1.0, 0.0), (0.0, 0.0), (0.2, 0.5), (0.4, 1.0), (1.0, 1.0)] {
            let mut sum = [0.0; 2];
            for feature in &features {
                let gate = feature.gate[0] * says + feature.gate[1];
                let activation = gate.max(0.0) * feature.up[1];
                sum.iter_mut().zip(&feature.down).for_each(|(sum, x)| *sum += activation * x);
            }
            for (found, whole) in sum.iter().zip([2.0, -4.0]) {
                assert!((found - part * whole).abs() < 1e-4, "{says}: {sum:?}");
            }
        }
    }
}
