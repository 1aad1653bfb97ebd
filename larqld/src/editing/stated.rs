//! What edits state, as edges, and which edges of the base they hide.
//!
//! An edit speaks for its (entity, relation): of what several state of the same, the latest stands, and the
//! base's edges of that entity and relation are no longer edges. So it is with a feature that edits hide,
//! replace or relabel: what was known to lean on it is known no more. A confidence alone changes neither what a
//! feature does nor what it says, and hides nothing.
//!
//! Elsewhere: how edits answer ([`super::applied`]), rows (`exec::edited_edges`, `exec::feature_row`).

use std::collections::{HashMap, HashSet};

use larql_storage::overlay::{Fact, FeatureDelta, Overlay, Slot, Stating, Vector, compared};

/// An edge that an edit states.
#[derive(Debug, Clone, PartialEq)]
pub struct StatedEdge {
    /// What is stated.
    pub fact: Fact,
    /// Where.
    pub layer: u32,
    /// The feature; `None` of what is retrieved and of updates of a matrix.
    pub feature: Option<u32>,
    /// What answers.
    pub source: StatedBy,
    /// As it was given.
    pub confidence: Option<f32>,
    /// The feature's gate, where the edit has one of its own.
    pub gate: Option<Vector>,
}

/// What answers an edge that an edit states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatedBy {
    /// A retrieved fact.
    Knn,
    /// A feature's rows.
    Rows,
    /// The update of a matrix of that name.
    Update(u64),
}

impl StatedBy {
    /// The word in the `source` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Knn => "knn",
            Self::Rows | Self::Update(_) => "patch",
        }
    }
}

/// An entity and a relation, as they are compared.
pub type Pair = (String, String);

/// An entity and a relation, as they are compared: trimmed, in one case.
pub fn pair(entity: &str, relation: &str) -> Pair {
    (compared(entity), compared(relation))
}

/// Whether two facts are of one entity and relation, in whatever case these are written.
pub fn is_same_pair(a: (&str, &str), b: (&str, &str)) -> bool {
    pair(a.0, a.1) == pair(b.0, b.1)
}

/// What an overlay states and hides.
#[derive(Debug, Clone, Default)]
pub struct Stated {
    edges: Vec<StatedEdge>,
    pairs: HashSet<Pair>,
    /// The features that edits say something of, and whether that is more than how sure it is.
    slots: HashMap<Slot, bool>,
}

impl Stated {
    /// Reads an overlay.
    pub fn of(overlay: &Overlay) -> Self {
        let mut stated = Self::default();
        // Of each pair the latest change, what made it and which target it stated.
        type Change = (u64, &'static str, String);
        let mut latest: HashMap<Pair, Change> = HashMap::new();
        let mut edges: Vec<(Pair, &'static str, StatedEdge)> = Vec::new();
        for one in overlay.statements() {
            let (made, source, slot) = match one.by {
                Stating::Feature(slot) => ("rows", StatedBy::Rows, Some(slot)),
                Stating::Update(id) => ("update", StatedBy::Update(id), None),
                Stating::Knn => ("knn", StatedBy::Knn, None),
            };
            let pair = pair(one.entity, one.relation);
            let change = (one.lsn, made, one.target.unwrap_or_default().to_owned());
            let newest = latest.entry(pair.clone()).or_insert_with(|| change.clone());
            if change.0 >= newest.0 {
                *newest = change;
            }
            let edge = one.fact().map(|fact| StatedEdge {
                fact,
                layer: one.layer,
                feature: slot.map(|slot| slot.feature),
                source,
                confidence: one.confidence,
                gate: slot.and_then(|slot| overlay.feature(slot)?.gate.clone()),
            });
            edges.extend(edge.map(|edge| (pair, made, edge)));
        }
        let slots = overlay.features().map(|(slot, delta)| (slot, !is_judged_only(delta)));
        stated.slots.extend(slots);
        edges.retain(|(pair, made, edge)| {
            latest
                .get(pair)
                .is_some_and(|(_, by, target)| by == made && *target == edge.fact.target)
        });
        stated.edges = edges.into_iter().map(|(_, _, edge)| edge).collect();
        stated
            .edges
            .sort_by(|a, b| (&a.fact, a.layer, a.feature).cmp(&(&b.fact, b.layer, b.feature)));
        stated.pairs = latest.into_keys().collect();
        stated
    }

    /// Every edge, by fact and layer.
    pub fn edges(&self) -> impl Iterator<Item = &StatedEdge> {
        self.edges.iter()
    }

    /// The edges of an entity, in whatever case it is written.
    pub fn of_entity(&self, entity: &str) -> impl Iterator<Item = &StatedEdge> {
        let entity = compared(entity);
        self.edges.iter().filter(move |edge| compared(&edge.fact.entity) == entity)
    }

    /// Whether edits say what an entity's relation is, or that it is nothing.
    pub fn speaks_of(&self, entity: &str, relation: &str) -> bool {
        !self.pairs.is_empty() && self.pairs.contains(&pair(entity, relation))
    }

    /// Whether edits hide, replace, add, relabel or judge a feature, whose numbers are those of a row.
    pub fn edits(&self, (layer, feature): (i64, i64)) -> bool {
        let slot = u32::try_from(layer).ok().zip(u32::try_from(feature).ok());
        slot.is_some_and(|(layer, feature)| self.slots.contains_key(&Slot { layer, feature }))
    }

    /// Whether an edge that the base has at a feature is one no more.
    pub fn hides(&self, entity: &str, relation: &str, (layer, feature): (u32, u32)) -> bool {
        let is_other = self.slots.get(&Slot { layer, feature }).is_some_and(|is_other| *is_other);
        is_other || self.speaks_of(entity, relation)
    }
}

/// Whether edits say of a feature how sure it is, and nothing else.
fn is_judged_only(delta: &FeatureDelta) -> bool {
    let says_nothing_else =
        FeatureDelta { confidence: delta.confidence, lsn: delta.lsn, ..FeatureDelta::default() };
    *delta == says_nothing_else
}

#[cfg(test)]
mod tests {
    use larql_storage::overlay::{Describe, LowRank, Matrix, Mode, Operation, SetFeature, SetKnn};

    use super::*;

    fn rows(feature: u32, relation: &str, target: Option<&str>) -> Operation {
        Operation::SetFeature(SetFeature {
            slot: Slot { layer: 1, feature },
            gate: Some([1.0].into()),
            up: None,
            down: Some([1.0].into()),
            entity: Some("France".into()),
            relation: Some(relation.into()),
            target: target.map(str::to_owned),
            target_ids: vec![1],
            confidence: None,
            mode: Mode::Compose,
        })
    }

    fn knn(target: &str) -> Operation {
        let fact =
            Fact { entity: "France".into(), relation: "capital".into(), target: target.into() };
        Operation::SetKnn(SetKnn {
            layer: 2,
            key: [1.0].into(),
            threshold: 0.5,
            fact,
            entity_ids: vec![vec![1]],
            target_ids: vec![1],
            confidence: Some(0.5),
        })
    }

    #[test]
    fn of_what_several_edits_state_of_the_same_the_latest_stands() {
        let mut overlay = Overlay::default();
        overlay.apply(&rows(7, "capital", Some("Lyon")), 1);
        overlay.apply(&knn("Oslo"), 2);
        overlay.apply(&rows(8, "language", Some("Breton")), 2);
        let stated = Stated::of(&overlay);
        let found: Vec<(&str, &str)> =
            stated.edges().map(|edge| (&*edge.fact.target, edge.source.as_str())).collect();
        assert_eq!(found, [("Oslo", "knn"), ("Breton", "patch")]);
        assert_eq!(stated.of_entity(" france").count(), 2);
        assert!(stated.hides("FRANCE", "Capital", (0, 0)) && stated.hides("x", "y", (1, 7)));
        assert!(!stated.hides("France", "continent", (0, 0)));
    }

    #[test]
    fn a_confidence_alone_hides_no_edge_of_the_base() {
        let slot = Slot { layer: 1, feature: 7 };
        let said = |relation: Option<&str>, confidence| {
            let relation = relation.map(str::to_owned);
            Operation::Describe(Describe { slot, relation, target: None, confidence })
        };
        let mut overlay = Overlay::default();
        overlay.apply(&said(None, Some(0.5)), 1);
        let stated = Stated::of(&overlay);
        assert!(!stated.hides("France", "capital", (1, 7)));
        assert!(stated.edits((1, 7)), "its row is still an edit's, and can be taken back");
        overlay.apply(&said(Some("language"), None), 2);
        assert!(Stated::of(&overlay).hides("France", "capital", (1, 7)));
    }

    #[test]
    fn an_update_of_a_matrix_states_its_fact_as_surely_as_it_was_given() {
        let fact =
            Fact { entity: "France".into(), relation: "capital".into(), target: "Lyon".into() };
        let mut overlay = Overlay::default();
        let update = LowRank {
            id: 1,
            layer: 1,
            matrix: Matrix::Down,
            rank: 1,
            left: [1.0].into(),
            right: [1.0].into(),
            facts: vec![fact],
            confidence: Some(0.25),
        };
        overlay.apply(&Operation::LowRank(update), 1);
        let sure: Vec<_> = Stated::of(&overlay).edges().map(|edge| edge.confidence).collect();
        assert_eq!(sure, [Some(0.25)]);
    }

    #[test]
    fn what_was_deleted_hides_the_bases_edge_and_states_none() {
        let mut overlay = Overlay::default();
        overlay.apply(&rows(7, "capital", None), 1);
        let stated = Stated::of(&overlay);
        assert_eq!(stated.edges().count(), 0);
        assert!(stated.speaks_of("France", "capital"));
    }
}
