//! From a fact to the operations that make a model answer it.
//!
//! Vectors are found on the base, whatever else is edited, so that an edit is the same in whatever
//! order edits are made; that it answers is checked with the others in place.

use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::edit::{EditError, Editor, Examples, Selector, closed_form, compose};
use larql_compute::kernels::dot;
use larql_storage::overlay::{
    Fact, LowRank, Matrix, Mode, Operation, Overlay as Stored, SetFeature, SetKnn, Slot,
};

use super::applied::{Applied, Identity};
use super::background::Background;
use super::layers;
use super::prompts::{FactPrompts, Prompter};
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// Where a selector's response counts as the fact, between 0 (elsewhere) and 1 (its prompts).
const KEY_THRESHOLD: f32 = 0.3;
/// Where a composed feature begins to answer, on the same scale.
pub(super) const GATE_THRESHOLD: f32 = 0.1;
/// Prompts of a fact whose tokens must follow without help for none to be given.
const FOLLOWING: f64 = 0.9;
/// How much what a base does otherwise counts against the keys of MEMIT.
pub const PRESERVED_WEIGHT: f64 = 1.0;

/// A fact to be known.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Entity, relation and target.
    pub fact: Fact,
    /// The layers to edit; `None` for those that fit the mode.
    pub layers: Option<Vec<usize>>,
    /// A factor on what composed features and updates add.
    pub alpha: f32,
    /// What the row is to show as confidence.
    pub confidence: Option<f32>,
}

/// Makes operations for one model.
pub struct Maker<'a> {
    model: &'a Model,
    pub(super) prompter: Prompter<'a>,
    background: Arc<Background>,
    pub(super) editor: Editor<'a>,
}

/// What a fact's prompts look like to the networks of some layers.
pub(super) struct Study {
    layers: Vec<usize>,
    /// `[layers][prompts][hidden]`, each.
    fact: Vec<Vec<Vec<f32>>>,
    relations: Vec<Vec<Vec<f32>>>,
    entities: Vec<Vec<Vec<f32>>>,
}

impl<'a> Maker<'a> {
    /// For a model and what was measured of its base.
    ///
    /// # Errors
    /// As passes of the model.
    pub fn new(
        model: &'a Model,
        prompter: Prompter<'a>,
        background: Arc<Background>,
        pool: &'a Pool,
        cancel: &'a Cancel,
    ) -> Result<Self, Failure> {
        model.require_inference()?;
        let editor = Editor::new(model.architecture(), model, pool, None, cancel)?;
        Ok(Self { model, prompter, background, editor })
    }

    /// A key that retrieves the fact.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` where it cannot be told from others; as passes of the model.
    pub fn knn(&mut self, wanted: &Wanted, prompts: &FactPrompts) -> Result<Operation, Failure> {
        let layer = match wanted.layers.as_deref() {
            Some([.., last]) => *last,
            _ => layers::of_keys(self.model.architecture()),
        };
        let target_ids = self.prompter.answer_tokens(&wanted.fact.target)?;
        let study = self.study(&[layer], prompts, &[])?;
        let selector = self.selector(&study, 0, &[])?;
        let length = dot(&selector.direction, &selector.direction).sqrt();
        let cosine = |input: &Vec<f32>| {
            selector.response(input) / (length * dot(input, input).sqrt()).max(f32::MIN_POSITIVE)
        };
        let mean = study.fact[0].iter().map(cosine).sum::<f32>() / study.fact[0].len() as f32;
        let entity = &wanted.fact.entity;
        let tokenizer = self.model.tokenizer()?;
        let mut entity_ids = vec![self.prompter.answer_tokens(entity)?];
        let alone = tokenizer.encode(entity.trim(), false)?;
        if !alone.is_empty() && !entity_ids.contains(&alone) {
            entity_ids.push(alone);
        }
        Ok(Operation::SetKnn(SetKnn {
            layer: layer as u32,
            key: selector.direction.into(),
            threshold: KEY_THRESHOLD * mean,
            fact: wanted.fact.clone(),
            entity_ids,
            target_ids,
            confidence: wanted.confidence,
        }))
    }

    /// Features that answer the fact, on top of what is stored.
    ///
    /// # Errors
    /// As [`Maker::knn`].
    pub fn compose(
        &mut self,
        wanted: &Wanted,
        prompts: &FactPrompts,
        stored: &Stored,
    ) -> Result<Vec<Operation>, Failure> {
        let layers = self.weight_layers(wanted);
        let target_ids = self.prompter.answer_tokens(&wanted.fact.target)?;
        let mut operations: Vec<Operation> = Vec::new();
        let mut stored = stored.clone();
        for count in 0..target_ids.len() {
            let (before, token) = (&target_ids[..count], target_ids[count]);
            if count > 0 && self.follows(&stored, prompts, before, token)? {
                continue;
            }
            let asked = after(&prompts.fact, before);
            let asked: Vec<&[u32]> = asked.iter().map(Vec::as_slice).collect();
            self.editor.set_overlay(None);
            let values = self.editor.values(&asked, token, &layers).map_err(failure)?;
            let study = self.study(&layers, prompts, before)?;
            for (place, &layer) in layers.iter().enumerate() {
                let selector = self.selector(&study, place, &values.inputs[place])?;
                let push: Vec<f32> =
                    values.pushes[place].iter().map(|x| x * wanted.alpha).collect();
                let feature = compose(layer, &selector, &push, GATE_THRESHOLD);
                let operation = Operation::SetFeature(SetFeature {
                    slot: free_slot(self.model, &stored, layer),
                    gate: Some(feature.gate.into()),
                    up: self.is_gated(layer).then(|| feature.up.into()),
                    down: Some(feature.down.into()),
                    entity: Some(wanted.fact.entity.clone()),
                    relation: Some(wanted.fact.relation.clone()),
                    target: Some(wanted.fact.target.clone()),
                    target_ids: target_ids.clone(),
                    confidence: wanted.confidence,
                    mode: Mode::Compose,
                });
                stored.apply(&operation, 0);
                operations.push(operation);
            }
        }
        Ok(operations)
    }

    /// An update of each layer's down projection for each fact; together they answer all of them.
    ///
    /// They are solved for together, and each can be taken back by itself: what is known otherwise counts `weight`
    /// times as much as the facts.
    ///
    /// # Errors
    /// As [`Maker::knn`].
    pub fn memit(
        &mut self,
        wanted: &[(Wanted, FactPrompts)],
        confined: bool,
        weight: f64,
        id_first: u64,
    ) -> Result<Vec<Vec<Operation>>, Failure> {
        let Some((first, _)) = wanted.first() else { return Ok(Vec::new()) };
        let layers = self.weight_layers(first);
        let mut keys: Vec<Vec<Vec<f32>>> = vec![Vec::new(); layers.len()];
        let mut changes: Vec<Vec<Vec<f32>>> = vec![Vec::new(); layers.len()];
        // How many of the keys there are once a fact has its own.
        let mut ends = Vec::with_capacity(wanted.len());
        self.editor.set_overlay(None);
        for (one, prompts) in wanted {
            let target_ids = self.prompter.answer_tokens(&one.fact.target)?;
            for (count, &token) in target_ids.iter().enumerate() {
                let before = &target_ids[..count];
                if count > 0 && self.follows(&Stored::default(), prompts, before, token)? {
                    continue;
                }
                let asked = after(&prompts.fact, before);
                let asked: Vec<&[u32]> = asked.iter().map(Vec::as_slice).collect();
                let values = self.editor.values(&asked, token, &layers).map_err(failure)?;
                for place in 0..layers.len() {
                    for key in &values.activations[place] {
                        keys[place].push(key.clone());
                        let push = values.pushes[place].iter().map(|x| x * one.alpha).collect();
                        changes[place].push(push);
                    }
                }
            }
            ends.push(keys.first().map_or(0, Vec::len));
        }
        let mut operations: Vec<Vec<Operation>> = vec![Vec::new(); wanted.len()];
        let mut id = id_first;
        for (place, &layer) in layers.iter().enumerate() {
            let Some(at) = self.background.place(layer) else { continue };
            let Some(preserved) = self.background.preserved.get(at) else { continue };
            let free = match confined {
                true => {
                    Some(preserved.free_directions().map_err(EditError::from).map_err(failure)?)
                }
                false => None,
            };
            fn rows(rows: &[Vec<f32>]) -> Vec<&[f32]> {
                rows.iter().map(Vec::as_slice).collect()
            }
            let (keys, changes) = (rows(&keys[place]), rows(&changes[place]));
            let update = closed_form(&keys, &changes, preserved, weight, free.as_deref());
            let update = update.map_err(EditError::from).map_err(failure)?;
            // A row of either side belongs to one key, and so to one fact.
            let (hidden, features) =
                (update.left.len() / update.rank.max(1), update.right.len() / update.rank.max(1));
            let mut begin = 0;
            for (fact, &end) in ends.iter().enumerate() {
                operations[fact].push(Operation::LowRank(LowRank {
                    id,
                    layer: layer as u32,
                    matrix: Matrix::Down,
                    rank: (end - begin) as u32,
                    left: update.left[begin * hidden..end * hidden].into(),
                    right: update.right[begin * features..end * features].into(),
                    facts: vec![wanted[fact].0.fact.clone()],
                }));
                (id, begin) = (id + 1, end);
            }
        }
        Ok(operations)
    }

    pub(super) fn model(&self) -> &'a Model {
        self.model
    }

    fn weight_layers(&self, wanted: &Wanted) -> Vec<usize> {
        match &wanted.layers {
            Some(layers) => layers.clone(),
            None => layers::of_weights(self.model.architecture()),
        }
    }

    pub(super) fn is_gated(&self, layer: usize) -> bool {
        self.model.architecture().layer(layer).ffn.dense.is_none_or(|dense| dense.gated)
    }

    /// Whether a token follows the fact's prompts and what was answered so far, under these edits.
    fn follows(
        &mut self,
        stored: &Stored,
        prompts: &FactPrompts,
        before: &[u32],
        token: u32,
    ) -> Result<bool, Failure> {
        let applied = Applied::new(self.model, stored.clone(), Identity::default())?;
        self.editor.set_overlay(applied.overlay);
        let asked = after(&prompts.fact, before);
        let asked: Vec<&[u32]> = asked.iter().map(Vec::as_slice).collect();
        let next = self.editor.next_tokens(&asked);
        self.editor.set_overlay(None);
        let following = next?.iter().filter(|&&next| next == token).count();
        Ok(following as f64 >= FOLLOWING * asked.len() as f64)
    }

    /// Looks at a fact's prompts, each followed by what was answered so far.
    pub(super) fn study(
        &mut self,
        layers: &[usize],
        prompts: &FactPrompts,
        before: &[u32],
    ) -> Result<Study, Failure> {
        self.editor.set_overlay(None);
        let mut look = |prompts: &[Vec<u32>]| -> Result<Vec<Vec<Vec<f32>>>, Failure> {
            let asked = after(prompts, before);
            let asked: Vec<&[u32]> = asked.iter().map(Vec::as_slice).collect();
            let captured = self.editor.capture(&asked, layers, false, false)?;
            let mut found = vec![Vec::with_capacity(prompts.len()); layers.len()];
            for mut captured in captured.into_iter().flatten() {
                for (place, input) in captured.inputs.drain(..).enumerate() {
                    found[place].push(input);
                }
            }
            Ok(found)
        };
        Ok(Study {
            fact: look(&prompts.fact)?,
            relations: look(&prompts.relations)?,
            entities: look(&prompts.entities)?,
            layers: layers.to_vec(),
        })
    }

    /// Solves for what tells a fact from others at one of the layers studied; `more` are inputs that
    /// the fact is to be known by, too.
    pub(super) fn selector(
        &self,
        study: &Study,
        place: usize,
        more: &[Vec<f32>],
    ) -> Result<Selector, Failure> {
        let layer = study.layers[place];
        let at = self.background.place(layer).ok_or_else(|| {
            Failure::new(code::INTERNAL, format!("layer {layer} was not measured"))
        })?;
        fn rows(rows: &[Vec<f32>]) -> Vec<&[f32]> {
            rows.iter().map(Vec::as_slice).collect()
        }
        let mut fact = rows(&study.fact[place]);
        fact.extend(rows(more));
        let examples = Examples {
            fact: &fact,
            relations: &rows(&study.relations[place]),
            entities: &rows(&study.entities[place]),
        };
        Selector::solve(layer, &self.background.moments[at], &examples).map_err(failure)
    }
}

/// Prompts with tokens after them.
fn after(prompts: &[Vec<u32>], tokens: &[u32]) -> Vec<Vec<u32>> {
    prompts.iter().map(|prompt| [prompt, tokens].concat()).collect()
}

/// The first feature beyond the base's of a layer that nothing is stored of.
pub fn free_slot(model: &Model, stored: &Stored, layer: usize) -> Slot {
    let base = model.architecture().features(layer) as u32;
    let layer = layer as u32;
    let mut feature = base;
    for (slot, _) in stored.features_of(layer) {
        if slot.feature == feature {
            feature += 1;
        }
    }
    Slot { layer, feature }
}

/// The failure of an edit that could not be made.
pub(super) fn failure(error: EditError) -> Failure {
    match error {
        EditError::Decode(error) => error.into(),
        EditError::Inseparable { .. } | EditError::NoPrompts => {
            Failure::new(code::INVALID_PARAMETER, error.to_string())
                .hint("LABEL learns the relation's sentences; AT LAYER chooses another layer")
        }
        _ => Failure::new(code::DAMAGED, error.to_string()),
    }
}
