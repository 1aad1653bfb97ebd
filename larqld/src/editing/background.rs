//! What edits of a base are made against: how the inputs of the layers that are edited are distributed, and what
//! their networks do. Kept while base and labels stay what they are; measured anew where an edit looks at more.

use std::collections::HashSet;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::edit::{Captured, Editor, Moments, Preserved};
use larql_storage::overlay::Mode;

use super::other_prompts::{Elsewhere, made_up};
use super::prompts::Prompter;
use super::text::{About, Asked};
use crate::failure::Failure;
use crate::mounts::Model;

/// Learned prompts that are read.
const PROMPTS: usize = 768;
/// How much the last position of a prompt counts against one within it.
const LAST_WEIGHT: f64 = 4.0;
/// Prompts that are read at a time.
const BATCH: usize = 32;

/// How a base behaves where nothing is edited.
#[derive(Debug)]
pub struct Background {
    /// The layers that were looked at, ascending.
    pub layers: Vec<usize>,
    /// Moments of their inputs.
    pub moments: Vec<Moments>,
    /// Moments of their activations; none where no edit by MEMIT asked for them.
    pub preserved: Vec<Preserved>,
    /// Their inputs in many texts; none where no edit by COMPOSE asked for them.
    elsewhere: Option<Elsewhere>,
}

/// What is looked at beside the moments of inputs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Looks {
    /// Moments of activations, which updates are solved against.
    pub activations: bool,
    /// Inputs in many texts, which features are kept off.
    pub elsewhere: bool,
}

impl Looks {
    /// What edits of a mode are made against.
    pub fn of(mode: Mode) -> Self {
        Self { activations: mode == Mode::Memit, elsewhere: mode == Mode::Compose }
    }

    /// What either looks at.
    pub fn or(self, other: Self) -> Self {
        Self {
            activations: self.activations || other.activations,
            elsewhere: self.elsewhere || other.elsewhere,
        }
    }
}

impl Background {
    /// Measures a base at some layers.
    ///
    /// # Errors
    /// As passes of the model.
    pub fn measure(
        model: &Model,
        prompter: &Prompter<'_>,
        layers: &[usize],
        looks: Looks,
        pool: &Pool,
        cancel: &Cancel,
    ) -> Result<Self, Failure> {
        let architecture = model.architecture();
        let hidden = architecture.hidden_size;
        let looked_at = if looks.activations { layers } else { &[] };
        let mut measured = Self {
            layers: layers.to_vec(),
            moments: layers.iter().map(|_| Moments::new(hidden)).collect(),
            preserved: looked_at
                .iter()
                .map(|&layer| Preserved::new(architecture.features(layer)))
                .collect(),
            elsewhere: looks.elsewhere.then(|| Elsewhere::new(layers.len(), hidden)),
        };
        let mut editor = Editor::new(architecture, model, pool, None, cancel)?;
        let mut read = |texts: &[Asked], activations: bool, take: &mut Take<'_>| {
            for batch in texts.chunks(BATCH) {
                let tokens: Vec<&[u32]> = batch.iter().map(|asked| &*asked.tokens).collect();
                let found = editor.capture(&tokens, layers, true, activations)?;
                batch.iter().zip(found).for_each(|(asked, positions)| take(asked, &positions));
            }
            Ok::<(), Failure>(())
        };
        read(&prompter.texts()?, looks.activations, &mut |asked, positions| {
            for captured in positions {
                measured.count(captured, 1.0);
                measured.preserve(captured);
            }
            measured.keep(&asked.about, positions.iter());
        })?;
        if looks.elsewhere || looks.activations {
            let mut turn = 0;
            read(&made_up(prompter, architecture)?, looks.activations, &mut |asked, positions| {
                let Some((last, within)) = positions.split_last() else { return };
                measured.preserve(last);
                // What is within a prompt stands within many: one position of each.
                let one = within.get(turn % within.len().max(1));
                turn += 1;
                measured.keep(&asked.about, one.into_iter().chain([last]));
            })?;
        }
        read(&prompter.corpus(PROMPTS)?, looks.activations, &mut |asked, positions| {
            let Some((last, within)) = positions.split_last() else { return };
            within.iter().for_each(|captured| measured.count(captured, 1.0));
            measured.count(last, LAST_WEIGHT);
            measured.preserve(last);
            measured.keep(&asked.about, positions.iter());
        })?;
        Ok(measured)
    }

    fn count(&mut self, captured: &Captured, weight: f64) {
        let moments = self.moments.iter_mut().zip(&captured.inputs);
        moments.for_each(|(moments, input)| moments.add(input, weight));
    }

    fn preserve(&mut self, captured: &Captured) {
        let preserved = self.preserved.iter_mut().zip(&captured.activations);
        preserved.for_each(|(preserved, activations)| preserved.add(activations));
    }

    fn keep<'c>(&mut self, about: &About, positions: impl Iterator<Item = &'c Captured>) {
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.add(about, positions);
        }
    }

    /// The place of a layer among those that were looked at.
    pub fn place(&self, layer: usize) -> Option<usize> {
        self.layers.iter().position(|&of| of == layer)
    }

    /// Whether all of that was looked at.
    pub fn has(&self, looks: Looks) -> bool {
        (!looks.activations || !self.preserved.is_empty())
            && (!looks.elsewhere || self.elsewhere.is_some())
    }

    /// What was looked at, and that too.
    pub fn with(&self, looks: Looks) -> Looks {
        Looks {
            activations: looks.activations || !self.preserved.is_empty(),
            elsewhere: looks.elsewhere || self.elsewhere.is_some(),
        }
    }

    /// Inputs at the place of a layer where nothing is said about an entity: rows of `[hidden]`.
    pub fn elsewhere(&self, place: usize, entity: &str) -> Vec<&[f32]> {
        self.elsewhere.as_ref().map_or_else(Vec::new, |all| all.without(place, entity))
    }
}

/// The prompts that a base is looked at by, beside ordinary text: whoever judges edits has to know.
///
/// # Errors
/// What the tokenizer refuses.
pub fn prompts_read(model: &Model, prompter: &Prompter<'_>) -> Result<HashSet<Vec<u32>>, Failure> {
    let made_up = made_up(prompter, model.architecture())?;
    Ok(prompter.corpus(PROMPTS)?.into_iter().chain(made_up).map(|asked| asked.tokens).collect())
}

/// What is made of a text, given the inputs at its positions.
type Take<'t> = dyn FnMut(&Asked, &[Captured]) + 't;
