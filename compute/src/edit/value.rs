//! What the networks of some layers should add at the last token of a fact's prompts for its target to
//! follow.
//!
//! Each step reads the last tokens with the pushes that there are, and moves them along the gradient
//! of the target's log-probability. The gradient follows the residual stream back to each network's
//! output, through its norm; what later layers make of a push is not in the gradient but in the next
//! reading. Several layers are pushed together, because a norm of the output bounds what one of them
//! can add.

use super::EditError;
use super::editor::{Editor, Prefixes};

/// Steps at most.
const STEPS: usize = 16;
/// Length of a step, in parts of the longer of a push and the outputs that it is added to.
const STEP: f32 = 0.3;
/// How much of a step is the one before.
const MOMENTUM: f32 = 0.7;

/// When pushes are strong enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Enough {
    /// The probability that the target must reach, in full strength and at the part `weak` of it.
    pub probability: f64,
    /// A phrasing that was not seen selects the fact less clearly.
    pub weak: f32,
}

impl Enough {
    /// For features, which answer in steps.
    pub const OF_FEATURES: Self = Self { probability: 0.9, weak: 0.5 };
    /// For updates, which answer everything in proportion: what is pushed further is felt by others, too.
    pub const OF_UPDATES: Self = Self { probability: 0.6, weak: 0.8 };
}

/// Pushes that make a target likely.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// The layers.
    pub layers: Vec<usize>,
    /// What their networks should add: `[layers][hidden]`.
    pub pushes: Vec<Vec<f32>>,
    /// What they are given where they do, prompt by prompt: `[layers][prompts][hidden]`.
    pub inputs: Vec<Vec<Vec<f32>>>,
    /// The activations there: `[layers][prompts][features]`.
    pub activations: Vec<Vec<Vec<f32>>>,
    /// The target's least probability over the prompts, at full strength.
    pub probability: f64,
}

impl Editor<'_> {
    /// Finds pushes at the last tokens of `prompts` that let `target` follow.
    ///
    /// # Errors
    /// `NoPrompts`; as [`Decoder::forward`](crate::model::Decoder::forward).
    pub fn values(
        &mut self,
        prompts: &[&[u32]],
        target: u32,
        layers: &[usize],
        enough: Enough,
    ) -> Result<Values, EditError> {
        if prompts.is_empty() {
            return Err(EditError::NoPrompts);
        }
        let hidden = self.architecture.hidden_size;
        let twice: Vec<&[u32]> = prompts.iter().chain(prompts).copied().collect();
        let mut prefixes: Prefixes = self.prefixes(&twice)?;
        let strength = |row: usize| if row < prompts.len() { 1.0 } else { enough.weak };
        let targets = vec![target; twice.len()];
        let mut pushes = vec![vec![0.0; hidden]; layers.len()];
        let mut momentum = pushes.clone();
        let mut best: Option<(f64, Values)> = None;
        for step in 0..=STEPS {
            let rows: Vec<Vec<f32>> = pushes
                .iter()
                .map(|push| {
                    let rows = 0..twice.len();
                    rows.flat_map(|row| push.iter().map(move |x| x * strength(row))).collect()
                })
                .collect();
            let found = self.push(&mut prefixes, layers, &rows)?;
            let gradients = self.decoder.token_gradients(
                &found.streams,
                &found.logits,
                &targets,
                self.cancel,
            )?;
            let least = |rows: std::ops::Range<usize>| {
                let each = gradients[rows].iter().map(|row| row.log_probability);
                each.fold(f64::INFINITY, f64::min).exp()
            };
            let (full, less) = (least(0..prompts.len()), least(prompts.len()..twice.len()));
            let score: f64 = gradients.iter().map(|row| row.log_probability.max(-20.0)).sum();
            if step > 0 && best.as_ref().is_none_or(|(known, _)| score > *known) {
                let strong = |rows: &Vec<f32>| -> Vec<Vec<f32>> {
                    let width = (rows.len() / twice.len()).max(1);
                    rows.chunks_exact(width).take(prompts.len()).map(<[f32]>::to_vec).collect()
                };
                let values = Values {
                    layers: layers.to_vec(),
                    pushes: pushes.clone(),
                    inputs: found.inputs.iter().map(strong).collect(),
                    activations: found.activations.iter().map(strong).collect(),
                    probability: full,
                };
                best = Some((score, values));
            }
            if step == STEPS || step > 0 && full.min(less) >= enough.probability {
                break;
            }
            for (place, &layer) in layers.iter().enumerate() {
                let mut sum = vec![0.0; hidden];
                let mut size = 0.0;
                for (row, gradient) in gradients.iter().enumerate() {
                    let output = &found.outputs[place][row * hidden..(row + 1) * hidden];
                    let by = self.decoder.network_gradient(layer, output, &gradient.by_stream);
                    let weight = strength(row);
                    sum.iter_mut().zip(by).for_each(|(sum, by)| *sum += weight * by);
                    let base = output.iter().zip(&pushes[place]);
                    let base = base.map(|(output, push)| output - weight * push);
                    size += base.map(|x| x * x).sum::<f32>().sqrt() / twice.len() as f32;
                }
                let length = norm(&sum).max(f32::MIN_POSITIVE);
                let fade = 1.0 - step as f32 / STEPS as f32;
                let step = STEP * norm(&pushes[place]).max(size) * fade;
                for ((momentum, push), by) in
                    momentum[place].iter_mut().zip(&mut pushes[place]).zip(&sum)
                {
                    *momentum = MOMENTUM * *momentum + (1.0 - MOMENTUM) * by / length;
                    *push += step * *momentum;
                }
            }
        }
        best.map(|(_, values)| values).ok_or(EditError::NoPrompts)
    }
}

fn norm(row: &[f32]) -> f32 {
    row.iter().map(|x| x * x).sum::<f32>().sqrt()
}
