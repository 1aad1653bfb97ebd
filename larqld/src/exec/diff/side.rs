//! One side of a comparison: a model, with edits or without.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use larql_compute::model::{Matrix, Network, Orientation, Role, WeightKey, Weights as _};
use larql_storage::overlay::{Fact, FeatureDelta, Overlay, Slot};

use crate::editing::stated::{Pair, Stated, pair};
use crate::exec::Work;
use crate::failure::{Failure, code};
use crate::mounts::{Model, Mounted};

/// A fact that is known, as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub(super) entity: Arc<str>,
    pub(super) relation: Arc<str>,
    pub(super) target: Arc<str>,
}

/// A model and its edits.
pub(super) struct Side {
    pub(super) name: String,
    pub(super) model: Arc<Model>,
    pub(super) stored: Overlay,
}

impl Side {
    /// What lies there.
    pub(super) fn named(mounted: Arc<Mounted>) -> Self {
        let (name, model) = (mounted.name.clone(), mounted.model.clone());
        Self { name, model, stored: Overlay::default() }
    }

    /// What the session sees.
    pub(super) fn current(work: &Work<'_>) -> Result<Self, Failure> {
        let mounted = work.mounted.as_ref().ok_or_else(|| {
            Failure::new(code::NO_MOUNT_IN_USE, "no mount is in use").hint("USE \"name\"")
        })?;
        let (name, model) = (mounted.name.clone(), mounted.model.clone());
        Ok(Self { name, model, stored: work.view().overlay().clone() })
    }

    /// Layers and width.
    pub(super) fn shape(&self) -> (u32, usize) {
        (self.model.layers(), self.model.architecture().hidden_size)
    }

    /// Features of a layer, those that edits added among them.
    pub(super) fn features(&self, layer: u32) -> u64 {
        let base = self.model.features(layer);
        let last = self.stored.features_of(layer).last();
        base.max(last.map_or(0, |(slot, _)| u64::from(slot.feature) + 1))
    }

    fn delta(&self, layer: u32, feature: u32) -> Option<&Arc<FeatureDelta>> {
        self.stored.feature(Slot { layer, feature })
    }

    /// Whether an edit hides a feature, or it is a gap between features that edits added.
    pub(super) fn is_hidden(&self, layer: u32, feature: u32) -> bool {
        match self.delta(layer, feature) {
            Some(delta) => delta.hidden,
            None => u64::from(feature) >= self.model.features(layer),
        }
    }

    /// Whether no vector of this side can differ from the other's: of the same weights only labels and what was
    /// computed of weights can.
    pub(super) fn has_same_vectors(&self, other: &Self) -> bool {
        let edits = |side: &Self| {
            side.stored.features().next().is_some() || side.stored.low_rank().next().is_some()
        };
        self.model.base_hash() == other.model.base_hash() && !edits(self) && !edits(other)
    }

    /// What is known, by entity and relation as they are compared: what LABEL learned, but for what edits hide or
    /// speak against, and what edits state.
    pub(super) fn facts(&self) -> BTreeMap<Pair, Known> {
        let stated = Stated::of(&self.stored);
        let mut facts = BTreeMap::new();
        if let Some(knowledge) = self.model.knowledge() {
            let file = knowledge.file();
            for entity in &file.entities {
                for edge in &entity.edges {
                    let Some(relation) = knowledge.relation(edge.relation) else { continue };
                    if stated.hides(&entity.name, relation, (edge.layer, edge.feature)) {
                        continue;
                    }
                    // The most certain is the answer.
                    facts.entry(pair(&entity.name, relation)).or_insert_with(|| {
                        let [entity, relation, target] =
                            [&entity.name, relation, &edge.target].map(Arc::from);
                        Known { entity, relation, target }
                    });
                }
            }
        }
        facts.extend(stated.edges().map(|edge| {
            let Fact { entity, relation, target } = &edge.fact;
            let pair = pair(entity, relation);
            let [entity, relation, target] =
                [entity, relation, target].map(|text| text.as_str().into());
            (pair, Known { entity, relation, target })
        }));
        facts
    }
}

/// What a feature says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Said {
    pub(super) entity: Option<Arc<str>>,
    pub(super) target: Option<Arc<str>>,
    pub(super) relation: Option<Arc<str>>,
}

impl Said {
    pub(super) fn of(side: &Side, layer: u32, feature: u32) -> Result<Self, Failure> {
        let model = &side.model;
        let delta = side.delta(layer, feature);
        let edited = |text: fn(&FeatureDelta) -> &Option<String>| {
            delta.and_then(|delta| text(delta).as_deref()).map(Arc::from)
        };
        if delta.is_some_and(|delta| delta.hidden) {
            return Ok(Self::default());
        }
        let target = match model.down_meta().and_then(|meta| meta.feature(layer, feature)) {
            None => None,
            Some(found) => {
                let tokenizer = model.tokenizer()?;
                let mut words = found.tokens().map(|(id, _)| tokenizer.word(id));
                words.find(|word| !word.is_empty())
            }
        };
        Ok(Self {
            entity: edited(|delta| &delta.entity),
            target: edited(|delta| &delta.target).or(target),
            relation: edited(|delta| &delta.relation).or_else(|| model.label(layer, feature)),
        })
    }

    pub(super) fn bears(&self, name: &str) -> bool {
        self.relation.as_deref() == Some(name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.target.is_none() && self.relation.is_none()
    }
}

/// One vector of every feature of a layer.
pub(super) struct Vectors<'m> {
    networks: Vec<(Network, Matrix<'m>)>,
    side: &'m Side,
    layer: u32,
    role: Role,
    hidden: usize,
}

impl<'m> Vectors<'m> {
    pub(super) fn of(side: &'m Side, layer: u32, role: Role) -> Self {
        let model = &side.model;
        let networks = model.architecture().networks(layer as usize).into_iter();
        let networks = networks.filter_map(|network| {
            let key = WeightKey { role, layer: Some(layer), expert: network.expert };
            Some((network, model.matrix(key)?))
        });
        let hidden = model.architecture().hidden_size;
        Self { networks: networks.collect(), side, layer, role, hidden }
    }

    /// About what so many features take.
    pub(super) fn row_bytes(&self, features: usize) -> u64 {
        let of_all: u64 = self.networks.iter().map(|(_, matrix)| matrix.view.bytes_touched()).sum();
        let count: usize = self.networks.iter().map(|(network, _)| network.features).sum();
        of_all / count.max(1) as u64 * features as u64
    }

    /// The vectors of some features, with the edits in them; `None` for those that are not there.
    pub(super) fn read(&self, features: Range<usize>) -> Vec<Option<Vec<f32>>> {
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
        for (feature, vector) in features.zip(&mut found) {
            self.edit(feature, vector);
        }
        found
    }

    fn edit(&self, feature: usize, vector: &mut Option<Vec<f32>>) {
        let delta = self.side.delta(self.layer, feature as u32);
        let own = delta.is_some_and(|delta| delta.mode.is_some() || delta.hidden);
        if self.role == Role::Down && !own {
            let updates = self.side.stored.low_rank().map(|delta| &delta.update);
            for update in updates.filter(|update| update.layer == self.layer) {
                let rank = (update.rank as usize).max(1);
                let width = update.right.len() / rank;
                let Some(vector) = vector.as_mut().filter(|_| feature < width) else { continue };
                for (left, right) in
                    update.left.chunks_exact(self.hidden).zip(update.right.chunks_exact(width))
                {
                    vector
                        .iter_mut()
                        .zip(left)
                        .for_each(|(out, left)| *out += left * right[feature]);
                }
            }
        }
        let Some(delta) = delta else { return };
        let row = match self.role {
            Role::Gate => &delta.gate,
            Role::Up => &delta.up,
            _ => &delta.down,
        };
        match (delta.hidden, row) {
            (true, _) => *vector = None,
            (_, Some(row)) => *vector = Some(row.to_vec()),
            (_, None) => {}
        }
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
