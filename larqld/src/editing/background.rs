//! What edits of a base are made against: how the inputs of its last layers are distributed, and what
//! their networks do. Measured once, and kept while base and labels stay what they are.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::edit::{Editor, Moments, Preserved};

use super::prompts::Prompter;
use super::text::HELD_OUT;
use crate::failure::Failure;
use crate::mounts::Model;

/// Learned prompts that are read.
const PROMPTS: usize = 768;
/// Tokens of the bundled text that are read.
const TEXT_TOKENS: usize = 512;
/// How much the last position of a prompt counts against one within it.
const LAST_WEIGHT: f64 = 4.0;

/// How a base behaves where nothing is edited.
#[derive(Debug)]
pub struct Background {
    /// The layers that were looked at, ascending.
    pub layers: Vec<usize>,
    /// Moments of their inputs.
    pub moments: Vec<Moments>,
    /// Moments of their activations; none where they were not asked for.
    pub preserved: Vec<Preserved>,
}

impl Background {
    /// Measures a base at some layers; what their networks do too where `activations` are wanted.
    ///
    /// # Errors
    /// As passes of the model.
    pub fn measure(
        model: &Model,
        prompter: &Prompter<'_>,
        layers: &[usize],
        activations: bool,
        pool: &Pool,
        cancel: &Cancel,
    ) -> Result<Self, Failure> {
        let architecture = model.architecture();
        let mut editor = Editor::new(architecture, model, pool, None, cancel)?;
        let mut moments: Vec<Moments> =
            layers.iter().map(|_| Moments::new(architecture.hidden_size)).collect();
        let looked_at = if activations { layers } else { &[] };
        let mut preserved: Vec<Preserved> =
            looked_at.iter().map(|&layer| Preserved::new(architecture.features(layer))).collect();
        let prompts = prompter.corpus(PROMPTS)?;
        let text = model.tokenizer()?.encode(HELD_OUT, true)?;
        let text = &text[..text.len().min(TEXT_TOKENS)];
        let pieces: Vec<&[u32]> = text.chunks(48).collect();
        let asked: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        for (prompts, last_weight) in [(&asked, LAST_WEIGHT), (&pieces, 1.0)] {
            for batch in prompts.chunks(32) {
                for positions in editor.capture(batch, layers, true, activations)? {
                    let last = positions.len() - 1;
                    for (position, captured) in positions.iter().enumerate() {
                        let weight = if position == last { last_weight } else { 1.0 };
                        for (place, input) in captured.inputs.iter().enumerate() {
                            moments[place].add(input, weight);
                        }
                        if position == last || last_weight == 1.0 {
                            for (place, activations) in captured.activations.iter().enumerate() {
                                preserved[place].add(activations);
                            }
                        }
                    }
                }
            }
        }
        Ok(Self { layers: layers.to_vec(), moments, preserved })
    }

    /// The place of a layer among those that were looked at.
    pub fn place(&self, layer: usize) -> Option<usize> {
        self.layers.iter().position(|&of| of == layer)
    }
}
