//! From a fact to the operations that make a model answer it.
//!
//! Pushes and selectors are found on the base, whatever else is edited. Whether a later token of an answer needs
//! features of its own is seen under the edits that are stored, and an update is solved beside earlier ones. What an edit
//! does is measured elsewhere ([`super::receipt`]).

use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::edit::{
    Beside, Care, EditError, Editor, Enough, Examples, KeyedChange, LinearUpdate, Selector, Unseen,
    closed_form, compose,
};
use larql_compute::kernels::dot;
use larql_storage::overlay::{
    Fact, LowRank, Matrix, Mode, Operation, Overlay as Stored, SetFeature, SetKnn, Slot,
};

use super::applied::{Applied, Identity};
use super::background::Background;
use super::layers;
use super::prompts::{FactPrompts, Prompter, SENTENCES_OF_OTHERS};
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// Prompts of a fact whose tokens must follow without help for none to be given.
const FOLLOWING: f64 = 1.0;
/// How much what a base does otherwise counts against the keys of MEMIT, beside what it usually does.
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
    /// What the last selector of a fact's first token says of its neighbours that it has not seen.
    pub(super) unseen: Unseen,
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
        Ok(Self { model, prompter, background, editor, unseen: Unseen::default() })
    }

    /// The prompts of a fact, by sentences that the model was seen to understand.
    ///
    /// # Errors
    /// As [`Prompter::of`]; as passes of the model.
    pub fn prompts(&mut self, entity: &str, relation: &str) -> Result<FactPrompts, Failure> {
        let kept = self.model.kept_edits();
        kept.learn(self.model, &self.prompter, relation, &mut self.editor)?;
        self.prompter.of(entity, relation)
    }

    /// A key that retrieves the fact: it tells the relation from others of the entity, as an answer is given where the
    /// text asks about the entity only.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` where it cannot be told from others; as passes of the model.
    pub fn knn(&mut self, wanted: &Wanted, prompts: &FactPrompts) -> Result<Operation, Failure> {
        let layer = match wanted.layers.as_deref() {
            Some([.., last]) => *last,
            _ => layers::of_keys(self.model.architecture()),
        };
        let target_ids = self.prompter.answer_tokens(&wanted.fact.target)?;
        let study = self.study(&[layer], &prompts.of_relation(), &[])?;
        let selector = self.selector(&study, 0, &[], Vec::new())?;
        self.unseen = Unseen { entities: Vec::new(), ..selector.unseen.clone() };
        self.unseen.relations.truncate(prompts.relations.len());
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
            threshold: selector.threshold(Care::OF_KEYS) * mean,
            key: selector.direction.into(),
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
            let values =
                self.editor.values(&asked, token, &layers, Enough::OF_FEATURES).map_err(failure)?;
            let study = self.study(&layers, prompts, before)?;
            for (place, &layer) in layers.iter().enumerate() {
                let elsewhere = self.elsewhere(layer, &wanted.fact.entity);
                let selector = self.selector(&study, place, &values.inputs[place], elsewhere)?;
                let push: Vec<f32> =
                    values.pushes[place].iter().map(|x| x * wanted.alpha).collect();
                if count == 0 {
                    self.unseen = selector.unseen.clone();
                }
                for feature in
                    compose(layer, &selector, &push, selector.threshold(Care::OF_FEATURES))
                {
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
        }
        Ok(operations)
    }

    /// An update of each layer's down projection for each fact; together they answer all of them.
    ///
    /// They are solved for together, on top of the updates that are `stored`, and each can be taken back by
    /// itself: what is known otherwise counts `weight` times what it usually does.
    ///
    /// # Errors
    /// As [`Maker::knn`].
    pub fn memit(
        &mut self,
        wanted: &[(Wanted, FactPrompts)],
        stored: &Stored,
        confined: bool,
        weight: f64,
        id_first: u64,
    ) -> Result<Vec<Vec<Operation>>, Failure> {
        let Some((first, _)) = wanted.first() else { return Ok(Vec::new()) };
        let layers = self.weight_layers(first);
        // Of each layer: the facts with their keys, and what else is not to be changed.
        let mut facts: Vec<Vec<KeyedChange>> = vec![Vec::new(); layers.len()];
        let mut kept: Vec<Vec<Vec<f32>>> = vec![Vec::new(); layers.len()];
        // How many of the changes there are once a fact has its own.
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
                let values = self
                    .editor
                    .values(&asked, token, &layers, Enough::OF_UPDATES)
                    .map_err(failure)?;
                for (place, facts) in facts.iter_mut().enumerate() {
                    facts.push(KeyedChange {
                        keys: values.activations[place].clone(),
                        change: values.pushes[place].iter().map(|x| x * one.alpha).collect(),
                    });
                }
                let others = after(&[prompts.named(), prompts.entities.clone()].concat(), before);
                let others: Vec<&[u32]> = others.iter().map(Vec::as_slice).collect();
                let captured = self.editor.capture(&others, &layers, false, true);
                let captured = captured.map_err(|error| failure(error.into()))?;
                for captured in captured.into_iter().flatten() {
                    for (kept, activations) in kept.iter_mut().zip(captured.activations) {
                        kept.push(activations);
                    }
                }
            }
            ends.push(facts.first().map_or(0, Vec::len));
        }
        let mut operations: Vec<Vec<Operation>> = vec![Vec::new(); wanted.len()];
        let mut id = id_first;
        for (place, &layer) in layers.iter().enumerate() {
            let Some(at) = self.background.place(layer) else { continue };
            let Some(preserved) = self.background.preserved.get(at) else { continue };
            let earlier: Vec<LinearUpdate> = stored
                .low_rank()
                .filter(|delta| delta.update.layer as usize == layer)
                .map(|delta| LinearUpdate {
                    rank: delta.update.rank as usize,
                    left: delta.update.left.to_vec(),
                    right: delta.update.right.to_vec(),
                })
                .collect();
            let beside = Beside { kept: &kept[place], earlier: &earlier, confined, weight };
            let update = closed_form(&facts[place], preserved, &beside);
            let update = update.map_err(EditError::from).map_err(failure)?;
            // A row of either side belongs to one token of one fact.
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
                    confidence: wanted[fact].0.confidence,
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
            relations: look(&prompts.named())?,
            entities: look(&prompts.entities)?,
            layers: layers.to_vec(),
        })
    }

    /// What a layer's networks are given where nothing is said about an entity.
    pub(super) fn elsewhere(&self, layer: usize, entity: &str) -> Vec<&[f32]> {
        let place = self.background.place(layer);
        place.map_or_else(Vec::new, |place| self.background.elsewhere(place, entity))
    }

    /// Solves for what tells a fact from others at one of the layers studied, and from all that is `elsewhere`;
    /// `more` are inputs that the fact is to be known by, too.
    pub(super) fn selector(
        &self,
        study: &Study,
        place: usize,
        more: &[Vec<f32>],
        elsewhere: Vec<&[f32]>,
    ) -> Result<Selector, Failure> {
        let layer = study.layers[place];
        let at = self.background.place(layer).ok_or_else(|| {
            Failure::new(code::INTERNAL, format!("layer {layer} was not measured"))
        })?;
        fn groups(rows: &[Vec<f32>], size: usize) -> Vec<Vec<&[f32]>> {
            rows.chunks(size).map(|rows| rows.iter().map(Vec::as_slice).collect()).collect()
        }
        let mut fact = groups(&study.fact[place], 1);
        for (group, more) in fact.iter_mut().zip(more) {
            if group[0] != &**more {
                group.push(more);
            }
        }
        let examples = Examples {
            fact,
            relations: groups(&study.relations[place], 1),
            entities: groups(&study.entities[place], SENTENCES_OF_OTHERS),
            elsewhere,
        };
        Selector::solve(layer, &self.background.moments[at], &examples).map_err(failure)
    }
}

/// Prompts with tokens after them.
fn after(prompts: &[Vec<u32>], tokens: &[u32]) -> Vec<Vec<u32>> {
    prompts.iter().map(|prompt| [prompt, tokens].concat()).collect()
}

/// A feature beyond the base's of a layer that edits have not named yet.
pub fn free_slot(model: &Model, stored: &Stored, layer: usize) -> Slot {
    let base = model.architecture().features(layer) as u32;
    let layer = layer as u32;
    Slot { layer, feature: stored.free_feature(layer, base) }
}

/// The failure of an edit that could not be made.
pub(in crate::editing) fn failure(error: EditError) -> Failure {
    match error {
        EditError::Decode(error) => error.into(),
        EditError::Inseparable { .. } | EditError::NoPrompts => {
            Failure::new(code::INVALID_PARAMETER, error.to_string())
                .hint("LABEL learns the relation's sentences; AT LAYER chooses another layer")
        }
        _ => Failure::new(code::DAMAGED, error.to_string()),
    }
}
