//! The edges that DELETE and UPDATE are about: rows of EDGES, sorted by what they are.

use larql_planner::value::Value;
use larql_storage::overlay::{Fact, Mode, Slot};

use super::super::{Operator, Row, Work};
use crate::editing::stated::{Stated, StatedBy};
use crate::failure::{Failure, code};
use crate::knowledge::answer::is_same;

/// Edges that one statement changes at most.
const EDGES_MAX: usize = 4096;

/// A feature that a row is about and that states no fact.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Feature {
    pub(super) slot: Slot,
    /// As the row shows them.
    pub(super) entity: Option<String>,
    pub(super) relation: Option<String>,
    pub(super) target: Option<String>,
    /// Whether an edit set it: taking that back is deleting it.
    pub(super) is_edited: bool,
}

/// A fact that edits state.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Edited {
    pub(super) fact: Fact,
    pub(super) mode: Mode,
    /// The features that were chosen of it; none where it is retrieved or an update's.
    pub(super) slots: Vec<Slot>,
}

/// What rows of EDGES are about; nothing twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Chosen {
    /// What edits state.
    pub(super) edited: Vec<Edited>,
    /// Edges of the base that labels know.
    pub(super) known: Vec<Fact>,
    /// Features.
    pub(super) features: Vec<Feature>,
}

impl Chosen {
    /// Reads all rows of an operator.
    ///
    /// # Errors
    /// `LIMIT` for more than [`EDGES_MAX`]; as the operator.
    pub(super) fn read(input: &mut dyn Operator, work: &mut Work<'_>) -> Result<Self, Failure> {
        let mut rows: Vec<Row> = Vec::new();
        while let Some(batch) = input.next(work)? {
            work.cancel.check()?;
            rows.extend(batch);
            if rows.len() > EDGES_MAX {
                let message = format!("the condition is true for more than {EDGES_MAX} edges");
                return Err(Failure::new(code::LIMIT, message).hint(
                    "SELECT with the same WHERE shows them; narrow it, or add source = 'patch'",
                ));
            }
        }
        let stated = Stated::of(work.view().overlay());
        let mut chosen = Self::default();
        for row in &rows {
            chosen.add(row, &stated, work)?;
        }
        Ok(chosen)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.edited.is_empty() && self.known.is_empty() && self.features.is_empty()
    }

    fn add(&mut self, row: &Row, stated: &Stated, work: &Work<'_>) -> Result<(), Failure> {
        let text = |at: usize| match row.get(at) {
            Some(Value::Text(text)) => Some(text.to_string()),
            _ => None,
        };
        let number = |at: usize| match row.get(at) {
            Some(Value::Integer(number)) => u32::try_from(*number).ok(),
            _ => None,
        };
        let (entity, relation, target) = (text(0), text(1), text(2));
        let Some(layer) = number(3) else { return Ok(()) };
        let slot = number(4).map(|feature| Slot { layer, feature });
        match (slot, text(8).as_deref()) {
            (None, _) => {
                // A retrieved fact or an update: the edit that the row shows.
                let says = |fact: &Fact| {
                    let same =
                        |a: &str, b: &Option<String>| b.as_deref().is_some_and(|b| is_same(a, b));
                    same(&fact.entity, &entity)
                        && same(&fact.relation, &relation)
                        && Some(&*fact.target) == target.as_deref()
                };
                let edge = stated.edges().find(|edge| edge.feature.is_none() && says(&edge.fact));
                if let Some(edge) = edge {
                    let mode = match edge.source {
                        StatedBy::Knn => Mode::Knn,
                        _ => Mode::Memit,
                    };
                    self.edited(edge.fact.clone(), mode, None);
                }
            }
            (Some(slot), Some("patch")) => {
                let delta = work.view().overlay().feature(slot).cloned();
                let delta = delta.unwrap_or_default();
                match (&delta.entity, &delta.relation, &delta.target) {
                    (Some(entity), Some(relation), Some(target)) => {
                        let fact = Fact {
                            entity: entity.clone(),
                            relation: relation.clone(),
                            target: target.clone(),
                        };
                        self.edited(fact, delta.mode.unwrap_or(Mode::Rows), Some(slot));
                    }
                    _ => self.feature(Feature { slot, entity, relation, target, is_edited: true }),
                }
            }
            (Some(_), Some("probe" | "residual")) => {
                if let (Some(entity), Some(relation), Some(target)) = (entity, relation, target) {
                    let fact = Fact { entity, relation, target };
                    if !self.known.contains(&fact) {
                        self.known.push(fact);
                    }
                }
            }
            (Some(slot), _) => {
                self.feature(Feature { slot, entity, relation, target, is_edited: false });
            }
        }
        Ok(())
    }

    fn edited(&mut self, fact: Fact, mode: Mode, slot: Option<Slot>) {
        let at = self.edited.iter().position(|one| one.fact == fact && one.mode == mode);
        let at = at.unwrap_or_else(|| {
            self.edited.push(Edited { fact, mode, slots: Vec::new() });
            self.edited.len() - 1
        });
        let slots = &mut self.edited[at].slots;
        slots.extend(slot.filter(|slot| !slots.contains(slot)));
    }

    fn feature(&mut self, feature: Feature) {
        if self.features.iter().all(|known| known.slot != feature.slot) {
            self.features.push(feature);
        }
    }
}
