//! REBALANCE: composed facts that answer too faintly get larger down vectors, those that drown their neighbours
//! smaller ones.
//!
//! Every round asks all facts under the edits as they would be, so that what one does to another is seen; the
//! outcome is one transaction of features with new down vectors, which passes read as any other.

use std::collections::BTreeMap;

use larql_planner::physical::edit::Rebalance;
use larql_planner::value::Value;
use larql_storage::overlay::{Fact, Mode, Operation, Overlay, SetFeature, Slot};

use super::mount_row::integer;
use super::transaction::edit;
use super::{Operator, Row, Work};
use crate::editing::applied::{Applied, Identity};
use crate::editing::survival::{Exam, ask};
use crate::failure::Failure;

/// What a step makes of a down vector.
const LOWER: f32 = 0.85;
const RAISE: f32 = 1.15;
/// How far a down vector may go from what it was.
const SCALE_MIN: f32 = 0.1;
const SCALE_MAX: f32 = 8.0;

/// Runs the statement.
pub(super) struct RunRebalance {
    band: Option<Rebalance>,
}

impl RunRebalance {
    pub(super) fn new(band: Rebalance) -> Self {
        Self { band: Some(band) }
    }
}

/// A fact with the features that state it.
struct Composed {
    fact: Fact,
    slots: Vec<Slot>,
    scale: f32,
}

impl Operator for RunRebalance {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(band) = self.band.take() else { return Ok(None) };
        let rows = rebalance(work, band)?;
        Ok((!rows.is_empty()).then_some(rows))
    }
}

fn rebalance(work: &mut Work<'_>, band: Rebalance) -> Result<Vec<Row>, Failure> {
    let model = work.model()?;
    let stored = work.view().overlay().clone();
    let mut composed = composed(&stored);
    if composed.is_empty() {
        work.notice("no edit is a composed feature; nothing was changed", "INSERT … MODE COMPOSE")?;
        return Ok(Vec::new());
    }
    let exam = Exam::new(&model, composed.iter().map(|one| one.fact.clone()).collect())?;
    // Facts that make no question stay as they are.
    if let Some((message, hint)) = exam.told_unasked() {
        work.notice(message, hint)?;
    }
    composed.retain(|one| exam.questions.iter().any(|question| question.fact == one.fact));
    let engine = work.engine().clone();
    let probabilities = |work: &Work<'_>, edits: &Overlay| -> Result<Vec<f64>, Failure> {
        let applied = Applied::new(&model, edits.clone(), Identity::default())?;
        Ok(ask(&model, &applied, &exam, engine.pool(), work.cancel)?.probabilities)
    };
    let before = probabilities(work, &stored)?;
    let (mut now, mut rounds) = (before.clone(), 0);
    while rounds < band.rounds {
        work.cancel.check()?;
        work.progress("rebalancing", rounds, band.rounds, "rounds")?;
        let mut moved = false;
        for (one, &probability) in composed.iter_mut().zip(&now) {
            let scale = if probability > band.ceiling {
                (one.scale * LOWER).max(SCALE_MIN)
            } else if probability < band.floor {
                (one.scale * RAISE).min(SCALE_MAX)
            } else {
                continue;
            };
            moved |= scale != one.scale;
            one.scale = scale;
        }
        if !moved {
            break;
        }
        let mut edits = stored.clone();
        for operation in operations(&stored, &composed) {
            edits.apply(&operation, u64::MAX);
        }
        now = probabilities(work, &edits)?;
        rounds += 1;
    }
    let operations = operations(&stored, &composed);
    let lsn = match operations.is_empty() {
        true => None,
        false => edit(work, operations)?,
    };
    let within = |probability: f64| (band.floor..=band.ceiling).contains(&probability);
    let outside = now.iter().filter(|&&probability| !within(probability)).count();
    let message = format!("facts outside the band: {outside} of {}; rounds: {rounds}", now.len());
    work.notice(message, if outside > 0 { "UNTIL CONVERGED, or a wider band" } else { "" })?;
    let rows = composed.iter().zip(before.iter().zip(&now)).map(|(one, (&before, &after))| {
        let status = match (within(after), one.scale) {
            (true, 1.0) => "within",
            (true, scale) if scale > 1.0 => "raised",
            (true, _) => "lowered",
            (false, _) => "out of reach",
        };
        vec![
            Value::text(one.fact.entity.clone()),
            Value::text(one.fact.relation.clone()),
            Value::text(one.fact.target.clone()),
            Value::Real(before),
            Value::Real(after),
            Value::Real(one.scale.into()),
            Value::text(status),
            lsn.map_or(Value::Null, integer),
        ]
    });
    Ok(rows.collect())
}

/// The facts that composed features state, in the order in which they are asked.
fn composed(stored: &Overlay) -> Vec<Composed> {
    let mut facts: BTreeMap<Fact, Vec<Slot>> = BTreeMap::new();
    for (slot, delta) in stored.features() {
        let stated = delta.entity.clone().zip(delta.relation.clone()).zip(delta.target.clone());
        if let (Some(Mode::Compose), Some(((entity, relation), target))) = (delta.mode, stated) {
            facts.entry(Fact { entity, relation, target }).or_default().push(slot);
        }
    }
    let composed = facts.into_iter().map(|(fact, slots)| Composed { fact, slots, scale: 1.0 });
    composed.collect()
}

/// The features with their new down vectors.
fn operations(stored: &Overlay, composed: &[Composed]) -> Vec<Operation> {
    let mut operations = Vec::new();
    for one in composed.iter().filter(|one| one.scale != 1.0) {
        for &slot in &one.slots {
            let Some(delta) = stored.feature(slot) else { continue };
            let Some(down) = &delta.down else { continue };
            operations.push(Operation::SetFeature(SetFeature {
                slot,
                gate: None,
                up: None,
                down: Some(down.iter().map(|number| number * one.scale).collect()),
                entity: delta.entity.clone(),
                relation: delta.relation.clone(),
                target: delta.target.clone(),
                target_ids: delta.target_ids.clone(),
                confidence: delta.confidence,
                mode: Mode::Compose,
            }));
        }
    }
    operations
}
