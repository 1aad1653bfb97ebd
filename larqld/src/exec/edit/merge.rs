//! MERGE: what another model says otherwise, and its edits, become edits of the mount in use.
//!
//! The other model is its base with the edits of its branch `main`. A feature that differs in any of its vectors
//! is carried with all three; one that this model does not have takes a free number, and so do features that
//! state a fact, because their numbers mean nothing elsewhere. Retrieved facts and updates of matrices are
//! carried as they are. A conflict is a feature that both have, or an entity and a relation of which both state
//! something, differently.
//!
//! Promises: what was merged once is not merged again; where this model keeps its own nothing of the other's is
//! left half.

use std::sync::Arc;

use larql_compute::model::{Role, feature_row};
use larql_planner::physical::edit::MergeModel;
use larql_planner::syntax::ast::MergeConflict;
use larql_planner::value::Value;
use larql_storage::overlay::{
    Fact, FeatureDelta, LowRank, Mode, Operation, Overlay, SetFeature, Slot, Vector,
};
use larql_storage::store::MAIN;

use super::super::mount_row::integer;
use super::super::transaction::edit;
use super::super::{Row, Work};
use super::receipts::of_operations;
use super::taken_back::of_pairs;
use crate::editing::maker::free_slot;
use crate::editing::stated::{Stated, is_same_pair};
use crate::failure::{Failure, code};
use crate::mounts::{Model, edited_features};

/// Bytes of vectors that one statement carries at most.
const BYTES_MAX: usize = 256 << 20;

/// A model under edits.
struct Side<'m> {
    model: &'m Model,
    overlay: Overlay,
}

/// Gate, up and down of a feature; `None` where the network has no such vector.
type Rows = [Option<Vector>; 3];

const ROLES: [Role; 3] = [Role::Gate, Role::Up, Role::Down];

impl Side<'_> {
    fn delta(&self, slot: Slot) -> Option<&Arc<FeatureDelta>> {
        self.overlay.feature(slot)
    }

    /// Whether the feature states a fact, or speaks against one.
    fn states(&self, slot: Slot) -> bool {
        self.delta(slot).is_some_and(|delta| delta.entity.is_some() && delta.relation.is_some())
    }

    /// The vectors of a feature; `None` where there is none, or it is hidden.
    fn rows(&self, slot: Slot) -> Result<Option<Rows>, Failure> {
        let delta = self.delta(slot);
        let in_base = u64::from(slot.feature) < self.model.features(slot.layer);
        if delta.is_none() && !in_base || delta.is_some_and(|delta| delta.hidden) {
            return Ok(None);
        }
        let architecture = self.model.architecture();
        let (layer, feature) = (slot.layer as usize, slot.feature as usize);
        let gated = architecture.layer(layer).ffn.dense.is_none_or(|dense| dense.gated);
        let edited = |role: Role| -> Option<Vector> {
            let delta = delta?;
            match role {
                Role::Gate => delta.gate.clone(),
                Role::Up => delta.up.clone(),
                _ => delta.down.clone(),
            }
        };
        let mut rows: Rows = Default::default();
        for (row, role) in rows.iter_mut().zip(ROLES) {
            if role == Role::Up && !gated {
                continue;
            }
            *row = match edited(role) {
                Some(vector) => Some(vector),
                None if in_base => {
                    let vector = feature_row(architecture, self.model, role, layer, feature);
                    let missing = |error: &dyn std::fmt::Display| {
                        Failure::new(code::MISSING_COMPONENT, error.to_string())
                    };
                    Some(vector.map_err(|error| missing(&error))?.into())
                }
                None => None,
            };
        }
        Ok(Some(rows))
    }

    /// The logit of a base feature's first output token.
    fn logit(&self, slot: Slot) -> Option<f32> {
        let tokens = self.model.down_meta()?.feature(slot.layer, slot.feature)?;
        tokens.tokens().next().map(|(_, logit)| logit)
    }

    /// What edits say that a feature's row is worth.
    fn confidence(&self, slot: Slot) -> Option<f32> {
        self.delta(slot).and_then(|delta| delta.confidence)
    }
}

/// What a merge becomes.
struct Merge<'m> {
    source: Side<'m>,
    target: Side<'m>,
    rule: MergeConflict,
    operations: Vec<Operation>,
    features: u64,
    facts: u64,
    conflicts: u64,
    bytes: usize,
}

/// Runs the statement.
pub(super) fn merge(work: &mut Work<'_>, merge: &MergeModel) -> Result<Vec<Row>, Failure> {
    let model = work.model()?;
    let place = work.place();
    if let Some(into) = &merge.into {
        let named = work.engine().find_model(into, &place)?;
        if named.model.path() != model.path() {
            let message = format!("{into:?} is not the mount in use, and MERGE edits that");
            return Err(Failure::new(code::INVALID_PARAMETER, message)
                .hint(format!("USE \"{into}\", then MERGE without INTO")));
        }
    }
    let other = work.engine().find_model(&merge.source, &place)?.model.clone();
    require_same_shape(&other, &model)?;
    other.require_inference()?;
    model.require_inference()?;
    let overlay = work.engine().edits().view(other.base_hash(), MAIN)?.overlay().clone();
    let mut state = Merge {
        source: Side { model: &other, overlay },
        target: Side { model: &model, overlay: work.view().overlay().clone() },
        rule: merge.conflict,
        operations: Vec::new(),
        features: 0,
        facts: 0,
        conflicts: 0,
        bytes: 0,
    };
    state.base_features(work)?;
    state.added_features(work)?;
    state.stated_facts()?;
    let Merge { operations, features, facts, conflicts, .. } = state;
    if operations.is_empty() {
        work.notice(
            "nothing is to be merged: the models say the same, or this one keeps its own",
            "",
        )?;
    }
    let sum = of_operations(work, &operations, merge.harm)?;
    let lsn = edit(work, operations)?;
    let (before, after) = sum.probabilities.unzip();
    let real = |number: Option<f64>| number.map_or(Value::Null, Value::Real);
    Ok(vec![vec![
        Value::text(merge.source.as_str()),
        integer(features),
        integer(facts),
        integer(conflicts),
        lsn.map_or(Value::Null, integer),
        real(before),
        real(after),
        sum.harm.map_or(Value::Null, Value::text),
    ]])
}

fn require_same_shape(source: &Model, target: &Model) -> Result<(), Failure> {
    let shape = |model: &Model| {
        let architecture = model.architecture();
        (model.layers(), architecture.hidden_size, architecture.vocabulary_size)
    };
    let (from, into) = (shape(source), shape(target));
    let experts = |model: &Model| {
        (0..model.layers()).any(|layer| model.architecture().networks(layer as usize).len() > 1)
    };
    let narrower = (0..target.layers()).find(|&layer| {
        source.features(layer) < target.features(layer)
            || experts(target) && source.features(layer) != target.features(layer)
    });
    if from == into && narrower.is_none() {
        return Ok(());
    }
    let message = match narrower {
        Some(layer) if from == into => format!(
            "layer {layer} has {} features there and {} here",
            source.features(layer),
            target.features(layer)
        ),
        _ => format!(
            "models of other shapes: {} layers of width {} with {} tokens, and {} of {} with {}",
            from.0, from.1, from.2, into.0, into.1, into.2
        ),
    };
    Err(Failure::new(code::INVALID_PARAMETER, message)
        .hint("MERGE takes what an edited or further trained model of the same shape says"))
}

impl Merge<'_> {
    /// Counts vectors that are carried.
    fn carry(&mut self, operation: Operation) -> Result<(), Failure> {
        self.bytes += operation.vectors().map(|vector| size_of_val(&**vector)).sum::<usize>();
        if self.bytes > BYTES_MAX {
            let message =
                format!("the models differ in more than {} MiB of vectors", BYTES_MAX >> 20);
            return Err(Failure::new(code::LIMIT, message)
                .hint("DIFF shows where; USE the other model instead"));
        }
        self.operations.push(operation);
        Ok(())
    }

    /// Whether the other model's side of a conflict is taken.
    fn takes(&mut self, theirs: Option<f32>, ours: Option<f32>) -> bool {
        self.conflicts += 1;
        match self.rule {
            MergeConflict::KeepSource => true,
            MergeConflict::KeepTarget => false,
            // What says nothing of its confidence is worth less than what does; between equals ours stays.
            MergeConflict::HighestConfidence => theirs.unwrap_or(-1.0) > ours.unwrap_or(-1.0),
        }
    }

    /// Features that both bases have.
    fn base_features(&mut self, work: &Work<'_>) -> Result<(), Failure> {
        let same_weights = self.source.model.base_hash() == self.target.model.base_hash();
        for layer in 0..self.target.model.layers() {
            let count = self.target.model.features(layer) as u32;
            let edited = |side: &Side<'_>| -> Vec<u32> {
                side.overlay.features_of(layer).map(|(slot, _)| slot.feature).collect()
            };
            let mut numbers: Vec<u32> = match same_weights {
                // Of the same weights only what was edited can differ.
                true => [edited(&self.source), edited(&self.target)].concat(),
                false => (0..count).collect(),
            };
            numbers.retain(|&feature| feature < count);
            numbers.sort_unstable();
            numbers.dedup();
            for feature in numbers {
                work.cancel.check()?;
                let slot = Slot { layer, feature };
                let (theirs, ours) = (self.source.rows(slot)?, self.target.rows(slot)?);
                if theirs == ours || self.source.states(slot) {
                    continue;
                }
                // Which of two models of the same weights changed a feature is known: an edit of ours is no
                // difference of theirs.
                if same_weights && self.source.delta(slot).is_none() {
                    continue;
                }
                let is_conflict =
                    ours.is_some() && !(same_weights && self.target.delta(slot).is_none());
                let confidences = match (self.source.confidence(slot), self.target.confidence(slot))
                {
                    // Where nobody stated a confidence, the stronger feature is the surer one.
                    (None, None) => (self.source.logit(slot), self.target.logit(slot)),
                    stated => stated,
                };
                if is_conflict && !self.takes(confidences.0, confidences.1) {
                    continue;
                }
                self.features += 1;
                let operation = match theirs {
                    None => Operation::HideFeature(slot),
                    Some(rows) => Operation::SetFeature(self.set(slot, slot, rows)),
                };
                self.carry(operation)?;
            }
        }
        Ok(())
    }

    /// A feature of the other model as one of this; `from` is its number there.
    fn set(&self, slot: Slot, from: Slot, [gate, up, down]: Rows) -> SetFeature {
        let delta = self.source.delta(from).cloned().unwrap_or_default();
        let label = self.source.model.label(from.layer, from.feature);
        SetFeature {
            slot,
            gate,
            up,
            down,
            entity: delta.entity.clone(),
            relation: delta.relation.clone().or_else(|| label.map(|label| label.to_string())),
            target: delta.target.clone(),
            target_ids: delta.target_ids.clone(),
            confidence: delta.confidence,
            mode: delta.mode.unwrap_or(Mode::Rows),
        }
    }

    /// Features that this base does not have and that state no fact.
    fn added_features(&mut self, work: &Work<'_>) -> Result<(), Failure> {
        let mut there = self.target.overlay.clone();
        for layer in 0..self.target.model.layers() {
            let count = self.target.model.features(layer);
            let end = edited_features(self.source.model, &self.source.overlay, layer);
            for feature in count..end {
                work.cancel.check()?;
                let from = Slot { layer, feature: feature as u32 };
                if self.source.states(from) {
                    continue;
                }
                let Some(rows) = self.source.rows(from)? else { continue };
                if self.has(layer, &rows)? {
                    continue;
                }
                let slot = free_slot(self.target.model, &there, layer as usize);
                let operation = Operation::SetFeature(self.set(slot, from, rows));
                there.apply(&operation, u64::MAX);
                self.features += 1;
                self.carry(operation)?;
            }
        }
        Ok(())
    }

    /// Whether this model has a feature of those vectors beyond its base.
    fn has(&self, layer: u32, rows: &Rows) -> Result<bool, Failure> {
        let base = self.target.model.features(layer);
        for (slot, _) in self.target.overlay.features_of(layer) {
            if u64::from(slot.feature) >= base && self.target.rows(slot)?.as_ref() == Some(rows) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the other model's edits say of facts, pair by pair.
    fn stated_facts(&mut self) -> Result<(), Failure> {
        let ours = Stated::of(&self.target.overlay);
        let mut there = self.target.overlay.clone();
        self.operations.iter().for_each(|operation| there.apply(operation, u64::MAX));
        let mut taken: Vec<Fact> = Vec::new();
        let mut added: Vec<Operation> = Vec::new();
        let features: Vec<(Slot, Arc<FeatureDelta>)> =
            self.source.overlay.features().map(|(slot, delta)| (slot, delta.clone())).collect();
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (slot, delta) in &features {
            if let (true, Some(entity), Some(relation)) =
                (self.source.states(*slot), &delta.entity, &delta.relation)
                && !pairs.contains(&(entity.clone(), relation.clone()))
            {
                pairs.push((entity.clone(), relation.clone()));
            }
        }
        for (entity, relation) in pairs {
            let of_pair: Vec<Slot> = features
                .iter()
                .filter(|(_, delta)| {
                    delta.entity.as_ref() == Some(&entity)
                        && delta.relation.as_ref() == Some(&relation)
                })
                .map(|(slot, _)| *slot)
                .collect();
            let mut is_there = true;
            for &slot in &of_pair {
                let rows = self.source.rows(slot)?.unwrap_or_default();
                is_there &= self.has(slot.layer, &rows)?;
            }
            let confidence = of_pair.iter().find_map(|&slot| self.source.confidence(slot));
            if is_there || !self.settle(&ours, &entity, &relation, confidence, &mut taken) {
                continue;
            }
            for from in of_pair {
                let Some(rows) = self.source.rows(from)? else { continue };
                let slot = free_slot(self.target.model, &there, from.layer as usize);
                let operation = Operation::SetFeature(self.set(slot, from, rows));
                there.apply(&operation, u64::MAX);
                added.push(operation);
            }
        }
        let knn: Vec<_> = self.source.overlay.knn().cloned().collect();
        for knn in knn {
            let fact = &knn.set.fact;
            let same = self.target.overlay.fact(&fact.entity, &fact.relation);
            let is_there = same.is_some_and(|ours| ours.set == knn.set);
            let confidence = knn.set.confidence;
            if !is_there && self.settle(&ours, &fact.entity, &fact.relation, confidence, &mut taken)
            {
                added.push(Operation::SetKnn(knn.set.clone()));
            }
        }
        let mut id = self.target.overlay.free_update();
        let updates: Vec<LowRank> =
            self.source.overlay.low_rank().map(|delta| delta.update.clone()).collect();
        let mut settled: Vec<(Vec<Fact>, bool)> = Vec::new();
        for update in updates {
            let is_same = |ours: &LowRank| {
                let parts = |of: &LowRank| (of.layer, of.left.clone(), of.right.clone());
                parts(ours) == parts(&update)
            };
            if self.target.overlay.low_rank().any(|ours| is_same(&ours.update)) {
                continue;
            }
            // The updates of one statement go together.
            let known = settled.iter().find(|(facts, _)| *facts == update.facts);
            let is_taken = match known {
                Some((_, is_taken)) => *is_taken,
                None => {
                    let mut is_taken = true;
                    for fact in &update.facts {
                        let sure = update.confidence;
                        is_taken &=
                            self.settle(&ours, &fact.entity, &fact.relation, sure, &mut taken);
                    }
                    settled.push((update.facts.clone(), is_taken));
                    is_taken
                }
            };
            if is_taken {
                added.push(Operation::LowRank(LowRank { id, ..update }));
                id += 1;
            }
        }
        let gone = of_pairs(&self.target.overlay, &taken);
        if gone.restates() {
            let message = "what this model states together with other facts would be replaced";
            return Err(Failure::new(code::CONFLICT, message)
                .hint("DELETE those facts first, or MERGE … ON CONFLICT KEEP_TARGET"));
        }
        self.operations.extend(gone.into_operations());
        added.into_iter().try_for_each(|operation| self.carry(operation))
    }

    /// Whether what the other model states of a pair is taken; what this one says of it is then taken back.
    fn settle(
        &mut self,
        ours: &Stated,
        entity: &str,
        relation: &str,
        confidence: Option<f32>,
        taken: &mut Vec<Fact>,
    ) -> bool {
        let is_conflict = ours.speaks_of(entity, relation);
        let own = ours
            .of_entity(entity)
            .find(|edge| is_same_pair((entity, &edge.fact.relation), (entity, relation)));
        let own = own.and_then(|edge| edge.confidence);
        if is_conflict && !self.takes(confidence, own) {
            return false;
        }
        self.facts += 1;
        let (entity, relation) = (entity.to_owned(), relation.to_owned());
        taken.push(Fact { entity, relation, target: String::new() });
        true
    }
}
