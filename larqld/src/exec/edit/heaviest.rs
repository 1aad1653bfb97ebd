//! What operations that somebody made before change, and which of it weighs most: what a receipt asks about where it
//! cannot ask about everything.
//!
//! A change weighs by the vectors that it brings: a feature by how much it may add at most for an input of length 1, a
//! key by how little must resemble it, an update by the length of its sides. These are not of one kind, so the heaviest
//! of each kind comes before the second of any.

use std::collections::HashMap;

use larql_storage::overlay::{Fact, Operation, Overlay, Slot, Vector};

use crate::editing::stated::{Pair, Stated, pair};
use crate::mounts::Model;

/// Something that is changed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// What is stated of an entity and a relation, or no more.
    Fact(Fact),
    /// A feature that states nothing.
    Feature(Slot),
}

/// What weighs by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Key,
    Rows,
    Update,
    Hidden,
    TakenBack,
}

/// What operations change, each with its weight.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<(Kind, f32, Change)>);

fn length(vector: &Option<Vector>) -> f32 {
    vector.as_ref().map_or(1.0, |vector| vector.iter().map(|x| x * x).sum::<f32>().sqrt())
}

impl Changes {
    /// What operations make of a model whose edits are `earlier`.
    pub(super) fn of(
        model: &Model,
        operations: &[Operation],
        (earlier, stored): (&Overlay, &Overlay),
    ) -> Self {
        let logit = |slot: Slot| {
            let tokens = model.down_meta()?.feature(slot.layer, slot.feature)?;
            tokens.tokens().next().map(|(_, logit)| logit)
        };
        Self::weighed(operations, (earlier, stored), |slot| logit(slot).unwrap_or(0.0))
    }

    fn weighed(
        operations: &[Operation],
        (earlier, stored): (&Overlay, &Overlay),
        hidden: impl Fn(Slot) -> f32,
    ) -> Self {
        let mut pairs: HashMap<Pair, (Kind, f32)> = HashMap::new();
        let mut changes = Vec::new();
        for operation in operations {
            let (facts, kind, weight) = match operation {
                Operation::SetFeature(set) => {
                    let weight = length(&set.gate) * length(&set.up) * length(&set.down);
                    match (&set.entity, &set.relation) {
                        (Some(entity), Some(relation)) => {
                            (vec![pair(entity, relation)], Kind::Rows, weight)
                        }
                        _ => {
                            changes.push((Kind::Rows, weight, Change::Feature(set.slot)));
                            continue;
                        }
                    }
                }
                Operation::HideFeature(slot) => {
                    changes.push((Kind::Hidden, hidden(*slot), Change::Feature(*slot)));
                    continue;
                }
                Operation::SetKnn(knn) => {
                    let fact = &knn.fact;
                    (vec![pair(&fact.entity, &fact.relation)], Kind::Key, 1.0 - knn.threshold)
                }
                Operation::LowRank(update) => {
                    let facts = update.facts.iter();
                    let facts = facts.map(|fact| pair(&fact.entity, &fact.relation)).collect();
                    let sides =
                        [&update.left, &update.right].map(|side| length(&Some(side.clone())));
                    (facts, Kind::Update, sides[0] * sides[1])
                }
                _ => continue,
            };
            for pair in facts {
                let known = pairs.entry(pair).or_insert((kind, 0.0));
                *known = (known.0, known.1 + weight);
            }
        }
        for fact in changed(earlier, stored) {
            let known = pairs.get(&pair(&fact.entity, &fact.relation));
            let (kind, weight) = known.copied().unwrap_or((Kind::TakenBack, 0.0));
            changes.push((kind, weight, Change::Fact(fact)));
        }
        Self(changes)
    }

    /// The heaviest of each kind, then the second of each, and so on.
    pub(super) fn by_weight(mut self) -> Vec<Change> {
        self.0.sort_by(|(a_kind, a, _), (b_kind, b, _)| a_kind.cmp(b_kind).then(b.total_cmp(a)));
        let mut places: HashMap<u8, usize> = HashMap::new();
        let ranked = self.0.into_iter().map(|(kind, _, change)| {
            let place = places.entry(kind as u8).or_default();
            *place += 1;
            (*place, change)
        });
        let mut ranked: Vec<(usize, Change)> = ranked.collect();
        ranked.sort_by_key(|(place, _)| *place);
        ranked.into_iter().map(|(_, change)| change).collect()
    }
}

/// The facts that are stated otherwise than before; of those that are stated no more, as they were.
fn changed(earlier: &Overlay, stored: &Overlay) -> Vec<Fact> {
    let facts = |overlay: &Overlay| -> Vec<Fact> {
        let mut facts: Vec<Fact> =
            Stated::of(overlay).edges().map(|edge| edge.fact.clone()).collect();
        facts.dedup();
        facts
    };
    let (before, after) = (facts(earlier), facts(stored));
    let stays = |fact: &Fact| {
        let at = after
            .partition_point(|one| (&one.entity, &one.relation) < (&fact.entity, &fact.relation));
        after.get(at).is_some_and(|one| one.entity == fact.entity && one.relation == fact.relation)
    };
    let new = after.iter().filter(|fact| before.binary_search(fact).is_err());
    let gone = before.iter().filter(|fact| !stays(fact));
    new.chain(gone).cloned().collect()
}

#[cfg(test)]
mod tests {
    use larql_storage::overlay::SetKnn;

    use super::*;

    fn knn(entity: &str, threshold: f32) -> Operation {
        let fact = Fact { entity: entity.into(), relation: "r".into(), target: "t".into() };
        Operation::SetKnn(SetKnn {
            layer: 0,
            key: [1.0].into(),
            threshold,
            fact,
            entity_ids: Vec::new(),
            target_ids: vec![1],
            confidence: None,
        })
    }

    fn order(operations: &[Operation], earlier: &Overlay) -> Vec<String> {
        let mut stored = earlier.clone();
        operations.iter().for_each(|operation| stored.apply(operation, 2));
        let logit = |slot: Slot| slot.feature as f32;
        let changes = Changes::weighed(operations, (earlier, &stored), logit).by_weight();
        let names = changes.into_iter().map(|change| match change {
            Change::Fact(fact) => fact.entity,
            Change::Feature(slot) => slot.feature.to_string(),
        });
        names.collect()
    }

    #[test]
    fn the_heaviest_of_each_kind_comes_before_the_second_of_any() {
        let hide = |feature| Operation::HideFeature(Slot { layer: 0, feature });
        let operations =
            [knn("narrow", 0.9), hide(3), knn("everything", -1.0), hide(7), knn("wide", 0.1)];
        let expected = ["everything", "7", "wide", "3", "narrow"];
        assert_eq!(order(&operations, &Overlay::default()), expected);
    }

    #[test]
    fn what_is_stated_as_before_is_no_change_and_what_is_gone_is_one() {
        let mut earlier = Overlay::default();
        earlier.apply(&knn("kept", 0.5), 1);
        earlier.apply(&knn("gone", 0.5), 1);
        let gone =
            larql_storage::overlay::DeleteKnn { entity: "gone".into(), relation: "r".into() };
        let operations = [knn("kept", 0.5), Operation::DeleteKnn(gone)];
        assert_eq!(order(&operations, &earlier), ["gone"]);
    }
}
