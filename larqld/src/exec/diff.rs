//! DIFF: features in which two models differ, by what they say, by their labels and by their vectors.

use std::ops::Range;
use std::sync::Arc;

use larql_compute::model::{Matrix, Network, Orientation, Role, WeightKey, Weights as _};
use larql_planner::physical::plan;
use larql_planner::value::Value;

use super::mount_row::integer;
use super::{Operator, Row, Work};
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// Features whose vectors are compared at a time.
const FEATURES_AT_ONCE: usize = 64;
/// The vectors of a feature.
const ROLES: [Role; 3] = [Role::Gate, Role::Up, Role::Down];

/// Compares layer by layer.
pub(super) struct Diff {
    diff: plan::Diff,
    /// `None` until it began.
    layers: Option<std::vec::IntoIter<u32>>,
    sides: Option<[Arc<Model>; 2]>,
}

impl Diff {
    pub(super) fn new(diff: plan::Diff) -> Self {
        Self { diff, layers: None, sides: None }
    }

    fn begin(&mut self, work: &Work<'_>) -> Result<(), Failure> {
        let side = |name: &Option<String>| match name {
            Some(name) => Ok(work.engine().find_model(name, &work.place())?.model.clone()),
            None => work.model(),
        };
        let sides = [side(&self.diff.left)?, side(&self.diff.right)?];
        let shape = |model: &Model| (model.layers(), model.architecture().hidden_size);
        let [left, right] = sides.each_ref().map(|model| shape(model));
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
        self.layers = Some(layers.into_iter());
        self.sides = Some(sides);
        Ok(())
    }
}

impl Operator for Diff {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.layers.is_none() {
            self.begin(work)?;
        }
        let (Some(layers), Some(sides)) = (&mut self.layers, &self.sides) else { return Ok(None) };
        for layer in layers {
            let rows = compare(work, sides, layer, self.diff.relation.as_deref())?;
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }
}

/// The features of a layer that differ.
fn compare(
    work: &mut Work<'_>,
    [left, right]: &[Arc<Model>; 2],
    layer: u32,
    relation: Option<&str>,
) -> Result<Vec<Row>, Failure> {
    let counts = [left.features(layer), right.features(layer)];
    // Of the same weights only labels and what was computed of weights can differ.
    let same_weights = left.base_hash() == right.base_hash();
    let vectors = (!same_weights)
        .then(|| ROLES.map(|role| [left, right].map(|model| Vectors::of(model, layer, role))));
    let mut rows = Vec::new();
    let all = counts[0].max(counts[1]) as usize;
    for first in (0..all).step_by(FEATURES_AT_ONCE) {
        work.cancel.check()?;
        let here = first..all.min(first + FEATURES_AT_ONCE);
        let changes: [Vec<Option<f64>>; 3] = match &vectors {
            None => Default::default(),
            Some(vectors) => vectors.each_ref().map(|[left, right]| {
                work.touch(left.row_bytes(here.len()) + right.row_bytes(here.len()));
                changes(left, right, here.clone())
            }),
        };
        for feature in here.clone() {
            let change = |role: usize| changes[role].get(feature - first).copied().flatten();
            let there = counts.map(|count| (feature as u64) < count);
            let said = [left, right].map(|model| Said::of(model, layer, feature as u32));
            let said = said.into_iter().collect::<Result<Vec<Said>, Failure>>()?;
            let [old, new] = &said[..] else { continue };
            let differs = (0..ROLES.len()).any(|role| change(role).is_some_and(|by| by != 0.0));
            let status = match there {
                [true, false] => "removed",
                [false, true] => "added",
                _ if old != new || differs => "changed",
                _ => continue,
            };
            let is_asked = |said: &Said| relation.is_none_or(|name| said.bears(name));
            if !is_asked(old) && !is_asked(new) {
                continue;
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
            rows.push(row);
        }
    }
    Ok(rows)
}

/// What a feature says.
#[derive(Debug, Default, PartialEq)]
struct Said {
    target: Option<Arc<str>>,
    relation: Option<Arc<str>>,
}

impl Said {
    fn of(model: &Model, layer: u32, feature: u32) -> Result<Self, Failure> {
        let target = match model.down_meta().and_then(|meta| meta.feature(layer, feature)) {
            None => None,
            Some(found) => {
                let tokenizer = model.tokenizer()?;
                let mut words = found.tokens().map(|(id, _)| tokenizer.word(id));
                words.find(|word| !word.is_empty())
            }
        };
        Ok(Self { target, relation: model.label(layer, feature) })
    }

    fn bears(&self, name: &str) -> bool {
        self.relation.as_deref() == Some(name)
    }
}

/// One vector of every feature of a layer.
struct Vectors<'m> {
    networks: Vec<(Network, Matrix<'m>)>,
    role: Role,
    hidden: usize,
}

impl<'m> Vectors<'m> {
    fn of(model: &'m Model, layer: u32, role: Role) -> Self {
        let networks = model.architecture().networks(layer as usize).into_iter();
        let networks = networks.filter_map(|network| {
            let key = WeightKey { role, layer: Some(layer), expert: network.expert };
            Some((network, model.matrix(key)?))
        });
        Self { networks: networks.collect(), role, hidden: model.architecture().hidden_size }
    }

    /// About what so many features take.
    fn row_bytes(&self, features: usize) -> u64 {
        let of_all: u64 = self.networks.iter().map(|(_, matrix)| matrix.view.bytes_touched()).sum();
        let count: usize = self.networks.iter().map(|(network, _)| network.features).sum();
        of_all / count.max(1) as u64 * features as u64
    }

    /// The vectors of some features; `None` for those that are not there.
    fn read(&self, features: Range<usize>) -> Vec<Option<Vec<f32>>> {
        let mut found = vec![None; features.len()];
        for (network, matrix) in &self.networks {
            let first = features.start.max(network.first);
            let end = features.end.min(network.first + network.features);
            if first >= end {
                continue;
            }
            let within = first - network.first..end - network.first;
            // A feature is an output of gate and up, and an input of down.
            let is_row = (matrix.orientation == Orientation::OutIn) == (self.role != Role::Down);
            let read = match is_row {
                true => rows(matrix, within),
                false => columns(matrix, within, self.hidden),
            };
            for (at, vector) in (first - features.start..).zip(read) {
                found[at] = Some(vector);
            }
        }
        found
    }
}

fn rows(matrix: &Matrix<'_>, features: Range<usize>) -> Vec<Vec<f32>> {
    let row = |feature| {
        let mut row = vec![0.0; matrix.view.columns()];
        matrix.view.row_f32(feature, &mut row);
        row
    };
    features.map(row).collect()
}

fn columns(matrix: &Matrix<'_>, features: Range<usize>, hidden: usize) -> Vec<Vec<f32>> {
    let mut part = vec![0.0; features.len()];
    let mut found = vec![vec![0.0; hidden.min(matrix.view.rows())]; features.len()];
    for row in 0..hidden.min(matrix.view.rows()) {
        matrix.view.part_f32(row, features.clone(), &mut part);
        for (vector, &value) in found.iter_mut().zip(&part) {
            vector[row] = value;
        }
    }
    found
}

/// How far vectors are apart, by the length of the old one; `None` where a side has none.
fn changes(left: &Vectors<'_>, right: &Vectors<'_>, features: Range<usize>) -> Vec<Option<f64>> {
    let pairs = left.read(features.clone()).into_iter().zip(right.read(features));
    pairs.map(|(old, new)| Some(change(&old?, &new?))).collect()
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
