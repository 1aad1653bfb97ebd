//! DIFF: what two models differ in: features, by what they say, by their labels and by their vectors; and facts that
//! are known of one and not of the other.
//!
//! CURRENT is a model with its edits as the session sees them; what is named is what lies there, without any. INTO
//! PATCH writes the operations that make the old side answer what the new one does, as far as features and
//! retrieved facts are what they differ in.

mod patch;
mod side;

use std::collections::BTreeSet;
use std::sync::Arc;

use larql_compute::model::Role;
use larql_planner::physical::plan;
use larql_planner::value::Value;

use self::patch::PatchMaker;
use self::side::{Known, Said, Side, Vectors};
use super::mount_row::integer;
use super::{Operator, Row, Work};
use crate::editing::stated::Pair;
use crate::failure::{Failure, code};

/// Features whose vectors are compared at a time.
const FEATURES_AT_ONCE: usize = 64;
/// The vectors of a feature.
const ROLES: [Role; 3] = [Role::Gate, Role::Up, Role::Down];

/// What comes next.
enum Stage {
    Begin,
    Layers(std::vec::IntoIter<u32>),
    Facts,
    Done,
}

/// Compares layer by layer, then what is known.
pub(super) struct Diff {
    diff: plan::Diff,
    stage: Stage,
    sides: Option<[Side; 2]>,
    patch: Option<PatchMaker>,
}

impl Diff {
    pub(super) fn new(diff: plan::Diff) -> Self {
        Self { diff, stage: Stage::Begin, sides: None, patch: None }
    }

    fn begin(&mut self, work: &mut Work<'_>) -> Result<(), Failure> {
        let side = |name: &Option<String>| match name {
            Some(name) => Ok(Side::named(work.engine().find_model(name, &work.place())?)),
            None => Side::current(work),
        };
        let sides = [side(&self.diff.left)?, side(&self.diff.right)?];
        let [left, right] = sides.each_ref().map(Side::shape);
        if left != right {
            let message = format!(
                "models of other shapes: {} layers of width {}, and {} of {}",
                left.0, left.1, right.0, right.1
            );
            return Err(Failure::new(code::INVALID_PARAMETER, message)
                .hint("DIFF compares a model with an edited one"));
        }
        let layers: Vec<u32> = match self.diff.layer {
            None => (0..left.0).collect(),
            Some(layer) if layer < left.0 => vec![layer],
            Some(layer) => {
                let message = format!("there is no layer {layer}");
                let hint = format!("layers are 0 to {}", left.0.saturating_sub(1));
                return Err(Failure::new(code::INVALID_PARAMETER, message).hint(hint));
            }
        };
        if let Some(name) = &self.diff.into_patch {
            self.patch = Some(PatchMaker::new(work, name, &sides)?);
        }
        self.stage = Stage::Layers(layers.into_iter());
        self.sides = Some(sides);
        Ok(())
    }
}

impl Operator for Diff {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if matches!(self.stage, Stage::Begin) {
            self.begin(work)?;
        }
        let relation = self.diff.relation.as_deref();
        loop {
            let Some(sides) = &self.sides else { return Ok(None) };
            let rows = match &mut self.stage {
                Stage::Begin | Stage::Done => return Ok(None),
                Stage::Layers(layers) => match layers.next() {
                    Some(layer) => compare(work, sides, layer, relation, self.patch.as_mut())?,
                    None => {
                        self.stage = Stage::Facts;
                        continue;
                    }
                },
                Stage::Facts => {
                    self.stage = Stage::Done;
                    if let Some(patch) = self.patch.take() {
                        patch.finish(work, sides)?;
                    }
                    match self.diff.layer {
                        Some(_) => Vec::new(),
                        None => facts(sides, relation),
                    }
                }
            };
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
    }
}

/// The features of a layer that differ.
fn compare(
    work: &mut Work<'_>,
    [left, right]: &[Side; 2],
    layer: u32,
    relation: Option<&str>,
    mut patch: Option<&mut PatchMaker>,
) -> Result<Vec<Row>, Failure> {
    let counts = [left.features(layer), right.features(layer)];
    let vectors = (!left.has_same_vectors(right))
        .then(|| ROLES.map(|role| [left, right].map(|side| Vectors::of(side, layer, role))));
    let mut rows = Vec::new();
    let all = counts[0].max(counts[1]) as usize;
    for first in (0..all).step_by(FEATURES_AT_ONCE) {
        work.cancel.check()?;
        let here = first..all.min(first + FEATURES_AT_ONCE);
        let read = vectors.as_ref().map(|vectors| {
            vectors.each_ref().map(|sides| {
                sides.each_ref().map(|side| {
                    work.touch(side.row_bytes(here.len()));
                    side.read(here.clone())
                })
            })
        });
        for feature in here.clone() {
            let at = feature - first;
            let pair = |role: usize| {
                let [old, new] = read.as_ref().map(|read| &read[role])?;
                Some((old[at].as_deref(), new[at].as_deref()))
            };
            let change = |role: usize| match pair(role)? {
                (Some(old), Some(new)) => Some(change(old, new)),
                _ => None,
            };
            let is_there = |side: &Side, count: u64| {
                (feature as u64) < count && !side.is_hidden(layer, feature as u32)
            };
            let there = [is_there(left, counts[0]), is_there(right, counts[1])];
            let said = [left, right].map(|side| Said::of(side, layer, feature as u32));
            let said = said.into_iter().collect::<Result<Vec<Said>, Failure>>()?;
            let [old, new] = &said[..] else { continue };
            let differs = (0..ROLES.len()).any(|role| change(role).is_some_and(|by| by != 0.0));
            let status = match there {
                [true, false] => "removed",
                // What only fills a wider layer is nothing.
                [false, true] if new.is_empty() && is_zero(pair(2).and_then(|(_, new)| new)) => {
                    continue;
                }
                [false, true] => "added",
                [true, true] if old != new || differs => "changed",
                _ => continue,
            };
            let is_asked = |said: &Said| relation.is_none_or(|name| said.bears(name));
            if !is_asked(old) && !is_asked(new) {
                continue;
            }
            if let Some(patch) = patch.as_deref_mut() {
                let news = [0, 1, 2].map(|role| {
                    let (old, new) = pair(role)?;
                    new.filter(|_| old != new).map(<[f32]>::to_vec)
                });
                patch.feature(work, (layer, feature as u32), there, (old, new), news)?;
            }
            let text = |text: &Option<Arc<str>>| text.clone().map_or(Value::Null, Value::Text);
            let mut row = vec![
                Value::Integer(layer.into()),
                integer(feature as u64),
                Value::text(status),
                text(&old.target),
                text(&new.target),
                text(&old.relation),
                text(&new.relation),
            ];
            row.extend((0..ROLES.len()).map(|role| change(role).map_or(Value::Null, Value::Real)));
            row.push(text(&new.entity.clone().or(old.entity.clone())));
            rows.push(row);
        }
    }
    Ok(rows)
}

fn is_zero(vector: Option<&[f32]>) -> bool {
    vector.is_none_or(|vector| vector.iter().all(|&number| number == 0.0))
}

/// The facts that are known otherwise, or of one side only.
fn facts([left, right]: &[Side; 2], relation: Option<&str>) -> Vec<Row> {
    let (old, new) = (left.facts(), right.facts());
    let pairs: BTreeSet<&Pair> = old.keys().chain(new.keys()).collect();
    let rows = pairs.into_iter().filter_map(|pair| {
        let (was, is) = (old.get(pair), new.get(pair));
        let status = match (was, is) {
            (Some(was), Some(is)) if was.target == is.target => return None,
            (Some(_), Some(_)) => "fact changed",
            (None, _) => "fact added",
            (_, None) => "fact removed",
        };
        let named = [was, is].into_iter().flatten();
        if relation.is_some_and(|name| named.clone().all(|fact| *fact.relation != *name)) {
            return None;
        }
        let text = |side: Option<&Known>, text: fn(&Known) -> &Arc<str>| {
            side.map_or(Value::Null, |fact| Value::Text(text(fact).clone()))
        };
        let mut row = vec![
            Value::Null,
            Value::Null,
            Value::text(status),
            text(was, |fact| &fact.target),
            text(is, |fact| &fact.target),
            text(was, |fact| &fact.relation),
            text(is, |fact| &fact.relation),
        ];
        row.extend([Value::Null, Value::Null, Value::Null]);
        row.push(text(was.or(is), |fact| &fact.entity));
        Some(row)
    });
    rows.collect()
}

/// The length of a difference, by that of the old vector; what is no number is infinitely far.
fn change(old: &[f32], new: &[f32]) -> f64 {
    let square = |value: f64| value * value;
    let apart = old.iter().zip(new).map(|(&a, &b)| square(f64::from(a) - f64::from(b)));
    let (apart, length) =
        (apart.sum::<f64>(), old.iter().map(|&a| square(f64::from(a))).sum::<f64>());
    match (old == new, length > 0.0) {
        (true, _) => 0.0,
        (_, true) if apart.is_finite() => (apart / length).sqrt(),
        _ => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_the_length_of_the_difference_by_that_of_the_old_vector() {
        assert_eq!(change(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(change(&[3.0, 4.0], &[0.0, 0.0]), 1.0);
        assert_eq!(change(&[3.0, 4.0], &[3.0, 9.0]), 1.0);
        assert_eq!(change(&[0.0, 0.0], &[0.0, 0.0]), 0.0);
        assert_eq!(change(&[0.0, 0.0], &[1.0, 0.0]), f64::INFINITY);
        assert_eq!(change(&[f32::NAN], &[1.0]), f64::INFINITY);
    }
}
