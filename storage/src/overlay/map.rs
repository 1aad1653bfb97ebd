//! What operations amount to, as persistent maps.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::check::ADDED_MAX;
use super::names::compared;
use super::operation::{
    Describe, Fact, LowRank, Mode, Operation, SetFeature, SetKnn, Slot, Vector,
};

/// What the overlay says of one feature; a part that is `None` is as in the base.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FeatureDelta {
    /// It contributes nothing, and is no row.
    pub hidden: bool,
    /// `[hidden]`
    pub gate: Option<Vector>,
    /// `[hidden]`
    pub up: Option<Vector>,
    /// `[hidden]`
    pub down: Option<Vector>,
    /// What it is about.
    pub entity: Option<String>,
    /// Which relation.
    pub relation: Option<String>,
    /// What it answers.
    pub target: Option<String>,
    /// The answer's tokens.
    pub target_ids: Vec<u32>,
    /// 0 to 1.
    pub confidence: Option<f32>,
    /// What set its rows; `None` while none is set.
    pub mode: Option<Mode>,
    /// The LSN of its last change.
    pub lsn: u64,
}

/// A fact that is answered by retrieval.
#[derive(Debug, Clone, PartialEq)]
pub struct Knn {
    /// As it was set.
    pub set: SetKnn,
    /// By which LSN.
    pub lsn: u64,
}

/// An update of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRankDelta {
    /// As it was made.
    pub update: LowRank,
    /// By which LSN.
    pub lsn: u64,
}

/// What states a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stating {
    /// A feature.
    Feature(Slot),
    /// The update of a matrix of that name.
    Update(u64),
    /// What is retrieved.
    Knn,
}

/// What an overlay says of one entity and relation, in one place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statement<'a> {
    /// What it is about.
    pub entity: &'a str,
    /// Which relation.
    pub relation: &'a str,
    /// The answer; `None` of a feature that speaks against what the base answers.
    pub target: Option<&'a str>,
    /// Where it is said.
    pub by: Stating,
    /// The layer of that.
    pub layer: u32,
    /// 0 to 1.
    pub confidence: Option<f32>,
    /// The LSN that said it.
    pub lsn: u64,
}

impl Statement<'_> {
    /// The fact that it states, if it states one.
    pub fn fact(&self) -> Option<Fact> {
        let [entity, relation, target] =
            [self.entity, self.relation, self.target?].map(str::to_owned);
        Some(Fact { entity, relation, target })
    }
}

/// Deltas above a base. Clones share what they have in common.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    features: RedBlackTreeMapSync<Slot, Arc<FeatureDelta>>,
    /// By entity and relation, as names are compared.
    knn: RedBlackTreeMapSync<(String, String), Arc<Knn>>,
    low_rank: RedBlackTreeMapSync<u64, Arc<LowRankDelta>>,
    /// Beyond every feature of a layer that was ever set, and every update that ever was: what one operation
    /// took back, another may bring back, and must find its number as it left it.
    features_end: RedBlackTreeMapSync<u32, u32>,
    updates_end: u64,
}

impl Overlay {
    /// Whether nothing differs from the base.
    pub fn is_empty(&self) -> bool {
        self.features.is_empty() && self.knn.is_empty() && self.low_rank.is_empty()
    }

    /// Every feature that differs, by layer and feature.
    pub fn features(&self) -> impl Iterator<Item = (Slot, &Arc<FeatureDelta>)> {
        self.features.iter().map(|(slot, delta)| (*slot, delta))
    }

    /// The features of one layer that differ, in order.
    pub fn features_of(&self, layer: u32) -> impl Iterator<Item = (Slot, &Arc<FeatureDelta>)> {
        let slots = Slot { layer, feature: 0 }..=Slot { layer, feature: u32::MAX };
        self.features.range(slots).map(|(slot, delta)| (*slot, delta))
    }

    /// What is said of one feature.
    pub fn feature(&self, slot: Slot) -> Option<&Arc<FeatureDelta>> {
        self.features.get(&slot)
    }

    /// The facts answered by retrieval, by entity and relation.
    pub fn knn(&self) -> impl Iterator<Item = &Arc<Knn>> {
        self.knn.values()
    }

    /// What is retrieved for one entity and relation, however these are written.
    pub fn fact(&self, entity: &str, relation: &str) -> Option<&Arc<Knn>> {
        self.knn.get(&(compared(entity), compared(relation)))
    }

    /// The updates of matrices, in the order in which they are added.
    pub fn low_rank(&self) -> impl Iterator<Item = &Arc<LowRankDelta>> {
        self.low_rank.values()
    }

    /// Everything that is said of facts: by features, then by updates of matrices, then by what is retrieved.
    pub fn statements(&self) -> impl Iterator<Item = Statement<'_>> {
        let of_features = self.features.iter().filter_map(|(slot, delta)| {
            Some(Statement {
                entity: delta.entity.as_deref()?,
                relation: delta.relation.as_deref()?,
                target: delta.target.as_deref(),
                by: Stating::Feature(*slot),
                layer: slot.layer,
                confidence: delta.confidence,
                lsn: delta.lsn,
            })
        });
        let of_updates = self.low_rank.values().flat_map(|delta| {
            delta.update.facts.iter().map(|fact| Statement {
                entity: &fact.entity,
                relation: &fact.relation,
                target: Some(&fact.target),
                by: Stating::Update(delta.update.id),
                layer: delta.update.layer,
                confidence: delta.update.confidence,
                lsn: delta.lsn,
            })
        });
        let retrieved = self.knn.values().map(|knn| Statement {
            entity: &knn.set.fact.entity,
            relation: &knn.set.fact.relation,
            target: Some(&knn.set.fact.target),
            by: Stating::Knn,
            layer: knn.set.layer,
            confidence: knn.set.confidence,
            lsn: knn.lsn,
        });
        of_features.chain(of_updates).chain(retrieved)
    }

    /// A feature beyond the base's of a layer that no operation has named yet.
    ///
    /// Where somebody named the last that a layer may have, it is the first that nothing is said of.
    pub fn free_feature(&self, layer: u32, base: u32) -> u32 {
        let end = self.features_end.get(&layer).copied().unwrap_or(0).max(base);
        if end < base.saturating_add(ADDED_MAX) {
            return end;
        }
        let mut feature = base;
        for (slot, _) in self.features_of(layer) {
            if slot.feature == feature {
                feature += 1;
            }
        }
        feature
    }

    /// A name of an update that no operation has used yet.
    pub fn free_update(&self) -> u64 {
        self.updates_end.max(1)
    }

    /// How many features, retrieved facts and updates differ.
    pub fn len(&self) -> usize {
        self.features.size() + self.knn.size() + self.low_rank.size()
    }

    /// The overlay after an operation of that LSN.
    pub fn apply(&mut self, operation: &Operation, lsn: u64) {
        match operation {
            Operation::SetFeature(set) => {
                self.change(set.slot, lsn, |delta| set_feature(delta, set));
            }
            Operation::HideFeature(slot) => {
                // Nothing of it is left: a later operation that shows it starts from the base.
                let hidden = FeatureDelta { hidden: true, lsn, ..FeatureDelta::default() };
                self.features.insert_mut(*slot, Arc::new(hidden));
            }
            Operation::RestoreFeature(slot) => _ = self.features.remove_mut(slot),
            Operation::SetKnn(set) => {
                let key = (compared(&set.fact.entity), compared(&set.fact.relation));
                self.knn.insert_mut(key, Arc::new(Knn { set: set.clone(), lsn }));
            }
            Operation::DeleteKnn(knn) => {
                self.knn.remove_mut(&(compared(&knn.entity), compared(&knn.relation)));
            }
            Operation::LowRank(update) => {
                let delta = LowRankDelta { update: update.clone(), lsn };
                self.low_rank.insert_mut(update.id, Arc::new(delta));
                self.updates_end = self.updates_end.max(update.id.saturating_add(1));
            }
            Operation::DropLowRank { id } => _ = self.low_rank.remove_mut(id),
            Operation::Describe(describe) => {
                self.change(describe.slot, lsn, |delta| relabel(delta, describe));
            }
        }
    }

    fn change(&mut self, slot: Slot, lsn: u64, change: impl FnOnce(&mut FeatureDelta)) {
        let end = self.features_end.get(&slot.layer).copied().unwrap_or(0);
        if slot.feature >= end {
            self.features_end.insert_mut(slot.layer, slot.feature.saturating_add(1));
        }
        let mut delta = self.features.get(&slot).map(|there| (**there).clone()).unwrap_or_default();
        change(&mut delta);
        delta.lsn = lsn;
        self.features.insert_mut(slot, Arc::new(delta));
    }
}

fn set_feature(delta: &mut FeatureDelta, set: &SetFeature) {
    fn replace<T: Clone>(there: &mut Option<T>, new: &Option<T>) {
        if new.is_some() {
            there.clone_from(new);
        }
    }
    delta.hidden = false;
    replace(&mut delta.gate, &set.gate);
    replace(&mut delta.up, &set.up);
    replace(&mut delta.down, &set.down);
    // A feature states one fact at a time.
    delta.entity.clone_from(&set.entity);
    delta.relation.clone_from(&set.relation);
    delta.target.clone_from(&set.target);
    delta.target_ids.clone_from(&set.target_ids);
    delta.confidence = set.confidence;
    delta.mode = Some(set.mode);
}

fn relabel(delta: &mut FeatureDelta, describe: &Describe) {
    for (there, new) in
        [(&mut delta.relation, &describe.relation), (&mut delta.target, &describe.target)]
    {
        if new.is_some() {
            there.clone_from(new);
        }
    }
    delta.confidence = describe.confidence.or(delta.confidence);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::{DeleteKnn, Matrix};

    fn row(values: &[f32]) -> Option<Vector> {
        Some(values.into())
    }

    fn set(feature: u32, gate: Option<Vector>, down: Option<Vector>) -> Operation {
        Operation::SetFeature(SetFeature {
            slot: Slot { layer: 1, feature },
            gate,
            up: None,
            down,
            entity: Some("France".into()),
            relation: Some("capital".into()),
            target: Some("Lyon".into()),
            target_ids: vec![7],
            confidence: Some(0.9),
            mode: Mode::Compose,
        })
    }

    #[test]
    fn a_later_row_replaces_an_earlier_and_leaves_the_others() {
        let mut overlay = Overlay::default();
        overlay.apply(&set(3, row(&[1.0]), row(&[2.0])), 1);
        overlay.apply(&set(3, None, row(&[4.0])), 2);
        let delta = overlay.feature(Slot { layer: 1, feature: 3 }).unwrap();
        assert_eq!((delta.gate.clone(), delta.down.clone()), (row(&[1.0]), row(&[4.0])));
        assert_eq!(delta.lsn, 2);
        assert_eq!(overlay.features_of(1).count(), 1);
        assert_eq!(overlay.features_of(0).count() + overlay.features_of(2).count(), 0);
    }

    #[test]
    fn a_hidden_feature_that_is_shown_again_starts_from_the_base() {
        let mut overlay = Overlay::default();
        overlay.apply(&set(3, row(&[1.0]), None), 1);
        overlay.apply(&Operation::HideFeature(Slot { layer: 1, feature: 3 }), 2);
        assert!(overlay.feature(Slot { layer: 1, feature: 3 }).unwrap().hidden);
        overlay.apply(&set(3, None, row(&[4.0])), 3);
        let delta = overlay.feature(Slot { layer: 1, feature: 3 }).unwrap();
        assert_eq!((delta.hidden, delta.gate.clone()), (false, None));
    }

    #[test]
    fn a_fact_is_retrieved_and_taken_back_however_its_names_are_written() {
        let set = |entity: &str, target: &str| {
            Operation::SetKnn(SetKnn {
                layer: 1,
                key: [1.0].into(),
                threshold: 0.5,
                fact: Fact {
                    entity: entity.into(),
                    relation: "Capital".into(),
                    target: target.into(),
                },
                entity_ids: vec![vec![1]],
                target_ids: vec![7],
                confidence: None,
            })
        };
        let mut overlay = Overlay::default();
        overlay.apply(&set("São Tomé", "Lyon"), 1);
        overlay.apply(&set("SA\u{303}O TOME\u{301}", "Oslo"), 2);
        let fact = overlay.fact(" são tomé", "CAPITAL").unwrap();
        assert_eq!((&*fact.set.fact.target, overlay.knn().count()), ("Oslo", 1));
        let (entity, relation) = ("são tomé".into(), "capital".into());
        overlay.apply(&Operation::DeleteKnn(DeleteKnn { entity, relation }), 3);
        assert!(overlay.is_empty());
    }

    #[test]
    fn what_was_set_and_taken_back_leaves_nothing() {
        let mut overlay = Overlay::default();
        let fact =
            Fact { entity: "France".into(), relation: "capital".into(), target: "Lyon".into() };
        overlay.apply(&set(3, row(&[1.0]), None), 1);
        overlay.apply(
            &Operation::SetKnn(SetKnn {
                layer: 1,
                key: [1.0].into(),
                threshold: 0.5,
                fact: fact.clone(),
                entity_ids: vec![vec![1]],
                target_ids: vec![7],
                confidence: None,
            }),
            2,
        );
        overlay.apply(
            &Operation::LowRank(LowRank {
                id: 9,
                layer: 1,
                matrix: Matrix::Down,
                rank: 1,
                left: [1.0].into(),
                right: [1.0].into(),
                facts: vec![fact.clone()],
                confidence: None,
            }),
            3,
        );
        let before = overlay.clone();
        assert_eq!(overlay.len(), 3);
        let stated = overlay.statements().map(|one| (one.by, one.lsn, one.fact()));
        let slot = Slot { layer: 1, feature: 3 };
        let by = [(Stating::Feature(slot), 1), (Stating::Update(9), 3), (Stating::Knn, 2)];
        let lyon = Some(fact.clone());
        assert!(stated.eq(by.map(|(by, lsn)| (by, lsn, lyon.clone()))));
        overlay.apply(&Operation::RestoreFeature(slot), 4);
        overlay.apply(&Operation::DeleteKnn(DeleteKnn::of(&fact)), 5);
        overlay.apply(&Operation::DropLowRank { id: 9 }, 6);
        assert!(overlay.is_empty());
        assert_eq!((overlay.free_feature(1, 2), overlay.free_feature(0, 2)), (4, 2));
        assert_eq!(overlay.free_update(), 10, "numbers are not used again");
        assert_eq!(before.len(), 3, "who holds an overlay keeps it as it was");
        let updates = before.low_rank().map(|delta| Operation::LowRank(delta.update.clone()));
        let retrieved = before.knn().map(|knn| Operation::SetKnn(knn.set.clone()));
        let features = [set(3, row(&[1.0]), None), Operation::HideFeature(slot)];
        for operation in updates.chain(retrieved).chain(features) {
            let mut overlay = Overlay::default();
            overlay.apply(&operation, 1);
            assert_eq!(overlay.len(), 1);
            let inverse = operation.inverse().unwrap();
            overlay.apply(&inverse, 2);
            assert!(overlay.is_empty() && inverse.inverse().is_none(), "{inverse:?}");
        }
    }
}
