//! Edits as standard tensors: what a model with an overlay is as a model without one.
//!
//! A feature that is replaced gets its row, column and nothing else; one that is hidden gets a down vector of
//! zeros; a low-rank update is added to the down projection. Features that edits added take slots that are
//! free (hidden by an edit, or 0 in the base); for the others every layer becomes wider alike, because
//! configurations have one number for all, and what no edit fills is 0. Where a layer has experts only, an added
//! feature is put into every one of them, which is the same where the experts' weights add up to 1, and refused
//! where they do not.
//!
//! Promises: the numbers are those of the decoder's overlay (`compute::model::Overlay`), up to rounding of the
//! type that they are written in. Nothing is copied: [`EditedMatrix`] reads the base and puts edits over it, a
//! block at a time.
//!
//! Elsewhere: types and files (`pipeline::compile`), what is retrieved and has no place in weights
//! (`editing::keys_as_features`).

mod matrix;
mod widen;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use larql_compute::cpu::Cancel;
use larql_compute::model::{
    Architecture, ExpertsDescription, Network, Role, RouterScoring, WeightKey, Weights, feature_row,
};
use larql_storage::overlay::{FeatureDelta, Overlay, Slot};

pub use self::matrix::EditedMatrix;
use self::matrix::{MatrixEdits, Update};
use self::widen::{Wanted, widen};
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// The projections of a network that have a vector for each feature.
const PROJECTIONS: [Role; 3] = [Role::Gate, Role::Up, Role::Down];
/// The biases that have a number for each feature.
const BIASES: [Role; 2] = [Role::GateBias, Role::UpBias];

/// A model with edits in its weights.
#[derive(Debug)]
pub struct EditedModel<'m> {
    model: &'m Model,
    architecture: Architecture,
    config: Option<Vec<u8>>,
    matrices: BTreeMap<WeightKey, MatrixEdits>,
    /// Features whose bias is 0 now, by the bias.
    biases: BTreeMap<WeightKey, BTreeSet<usize>>,
    /// Where features that edits added went; those in every expert are named by the first.
    placed: BTreeMap<Slot, u32>,
    taken: usize,
}

/// What edits want of one layer.
#[derive(Debug, Default)]
struct LayerPlan {
    /// Vectors by the network, the feature in it and the projection.
    rows: BTreeMap<(Option<u32>, usize), FeatureVectors>,
    hidden: BTreeSet<usize>,
    added: Vec<(u32, FeatureVectors)>,
}

/// A feature's gate, up and down, as far as edits set them.
type FeatureVectors = [Option<Arc<[f32]>>; 3];

impl<'m> EditedModel<'m> {
    /// Puts edits into the weights of a model. What is retrieved is left out: it is no weight.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` where edits do not fit the model, `MISSING_COMPONENT` where it lacks weights,
    /// `UNSUPPORTED_FORMAT` where its family cannot state them.
    pub fn new(model: &'m Model, stored: &Overlay, cancel: &Cancel) -> Result<Self, Failure> {
        let base = model.architecture();
        let mut edited = Self {
            model,
            architecture: base.clone(),
            config: None,
            matrices: BTreeMap::new(),
            biases: BTreeMap::new(),
            placed: BTreeMap::new(),
            taken: 0,
        };
        let changes = |delta: &FeatureDelta| {
            delta.hidden || delta.gate.is_some() || delta.up.is_some() || delta.down.is_some()
        };
        if stored.features().any(|(_, delta)| changes(delta)) || stored.low_rank().next().is_some()
        {
            model.require_inference()?;
        }
        let updated: BTreeSet<u32> = stored.low_rank().map(|delta| delta.update.layer).collect();
        let mut plans: BTreeMap<u32, LayerPlan> = BTreeMap::new();
        for (slot, delta) in stored.features().filter(|(_, delta)| changes(delta)) {
            edited.check_layer(slot.layer)?;
            let plan = plans.entry(slot.layer).or_default();
            edited.plan_feature(plan, slot, delta, updated.contains(&slot.layer))?;
        }
        let mut wanted = Wanted::of(base);
        let fresh = wanted.clone();
        for (&layer, plan) in &mut plans {
            cancel.check()?;
            edited.place_added(layer, plan, updated.contains(&layer), &mut wanted)?;
        }
        if wanted != fresh {
            let config = model.side_file("config.json")?.ok_or_else(|| {
                let message = format!("{} has no config.json", model.path().display());
                Failure::new(code::UNSUPPORTED_FORMAT, message)
                    .hint("edits that replace features need no wider layer")
            })?;
            let (config, wider) = widen(model.path(), &config, base, &wanted)?;
            (edited.config, edited.architecture) = (Some(config), wider);
        }
        edited.enter(&plans, stored)?;
        Ok(edited)
    }

    fn check_layer(&self, layer: u32) -> Result<(), Failure> {
        let layers = self.model.layers();
        if layer < layers {
            return Ok(());
        }
        let message = format!("an edit is of layer {layer}, and the model has {layers}");
        Err(Failure::new(code::INVALID_PARAMETER, message).hint("it was made for another base"))
    }

    /// The vectors of one feature that is replaced, hidden or added.
    fn plan_feature(
        &self,
        plan: &mut LayerPlan,
        slot: Slot,
        delta: &FeatureDelta,
        is_updated: bool,
    ) -> Result<(), Failure> {
        let base = self.model.architecture();
        let (layer, feature) = (slot.layer as usize, slot.feature as usize);
        let mut vectors = [delta.gate.clone(), delta.up.clone(), delta.down.clone()];
        let wrong = vectors.iter().flatten().find(|row| row.len() != base.hidden_size);
        if let Some(row) = wrong {
            let message = format!(
                "feature {feature} of layer {layer} has a vector of {} numbers, the model is {} wide",
                row.len(),
                base.hidden_size
            );
            return Err(Failure::new(code::INVALID_PARAMETER, message));
        }
        if feature >= base.features(layer) {
            if !delta.hidden {
                plan.added.push((slot.feature, vectors));
            }
            return Ok(());
        }
        let network = network_of(base, layer, feature).unwrap_or(Network {
            expert: None,
            first: 0,
            features: base.features(layer),
        });
        let within = feature - network.first;
        if delta.hidden {
            vectors = [None, None, Some(vec![0.0; base.hidden_size].into())];
            if network.expert.is_none() {
                plan.hidden.insert(within);
            }
        } else if vectors[2].is_none() && is_updated {
            // An update does not reach what an edit replaced.
            let row =
                feature_row(base, self.model, Role::Down, layer, feature).map_err(|error| {
                    Failure::new(code::MISSING_COMPONENT, error.to_string())
                        .hint("EXTRACT … WITH INFERENCE")
                })?;
            vectors[2] = Some(row.into());
        }
        plan.rows.insert((network.expert, within), vectors);
        Ok(())
    }

    /// Finds a place for each feature that edits added, in free slots or beyond the base's.
    fn place_added(
        &mut self,
        layer: u32,
        plan: &mut LayerPlan,
        is_updated: bool,
        wanted: &mut Wanted,
    ) -> Result<(), Failure> {
        if plan.added.is_empty() {
            return Ok(());
        }
        let base = self.model.architecture();
        let ffn = base.layer(layer as usize).ffn;
        let gated = ffn.dense.is_none_or(|dense| dense.gated);
        // As in passes, what was changed of a feature that is not there any more adds nothing.
        plan.added.retain(|(_, [gate, up, down])| {
            gate.is_some() && down.is_some() && (!gated || up.is_some())
        });
        let added = std::mem::take(&mut plan.added);
        if added.is_empty() {
            return Ok(());
        }
        let (Some(dense), _) = (ffn.dense, ffn.experts) else {
            let experts = ffn.experts.filter(adds_up).ok_or_else(|| beside_experts(base, layer))?;
            wanted.experts[layer as usize] += added.len();
            for (index, (feature, vectors)) in added.into_iter().enumerate() {
                let within = experts.features + index;
                for expert in 0..experts.count {
                    plan.rows.insert((Some(expert as u32), within), vectors.clone());
                }
                self.placed.insert(Slot { layer, feature }, within as u32);
            }
            return Ok(());
        };
        let mut free = plan.hidden.clone();
        if !is_updated {
            let empty = self.empty_features(layer, dense.features);
            free.extend(empty.filter(|&within| !plan.rows.contains_key(&(None, within))));
        }
        let beyond = added.len().saturating_sub(free.len());
        wanted.dense[layer as usize] += beyond;
        self.taken += added.len() - beyond;
        let places = free.into_iter().chain(dense.features..);
        for ((feature, vectors), within) in added.into_iter().zip(places) {
            plan.rows.insert((None, within), vectors);
            self.placed.insert(Slot { layer, feature }, within as u32);
            if within < dense.features && dense.bias {
                for role in BIASES {
                    let key = WeightKey { role, layer: Some(layer), expert: None };
                    self.biases.entry(key).or_default().insert(within);
                }
            }
        }
        Ok(())
    }

    /// Features of the dense network whose down vector is 0: they answer nothing.
    fn empty_features(&self, layer: u32, features: usize) -> impl Iterator<Item = usize> + 'm {
        let key = WeightKey { role: Role::Down, layer: Some(layer), expert: None };
        let (model, hidden) = (self.model, self.model.architecture().hidden_size);
        let matrix = model.matrix(key).map(EditedMatrix::unedited);
        let block = (EMPTY_NUMBERS / hidden.max(1)).clamp(1, features.max(1));
        matrix.into_iter().flat_map(move |matrix| {
            (0..features).step_by(block).flat_map(move |first| {
                let range = first..features.min(first + block);
                let mut vectors = vec![0.0; range.len() * hidden];
                matrix.read_features(range, hidden, true, &mut vectors);
                let rows = vectors.chunks_exact(hidden.max(1)).enumerate();
                let empty = rows.filter(|(_, row)| row.iter().all(|&number| number == 0.0));
                empty.map(|(at, _)| first + at).collect::<Vec<_>>()
            })
        })
    }

    /// Turns plans into edits of projections, now that it is known how wide these are.
    fn enter(&mut self, plans: &BTreeMap<u32, LayerPlan>, stored: &Overlay) -> Result<(), Failure> {
        let base = self.model.architecture();
        for layer in 0..self.model.layers() {
            let old = base.networks(layer as usize);
            let new = self.architecture.networks(layer as usize);
            for (old, new) in old.iter().zip(&new) {
                for role in PROJECTIONS {
                    let key = WeightKey { role, layer: Some(layer), expert: new.expert };
                    if self.architecture.shape(key).is_none() || self.model.matrix(key).is_none() {
                        continue;
                    }
                    let edits = self.edits_of(key, *old, *new, plans.get(&layer), stored)?;
                    if edits.features != edits.stored
                        || !edits.rows.is_empty()
                        || !edits.updates.is_empty()
                    {
                        self.matrices.insert(key, edits);
                    }
                }
                if old.features != new.features {
                    for role in BIASES {
                        let key = WeightKey { role, layer: Some(layer), expert: new.expert };
                        if self.architecture.shape(key).is_some() {
                            self.biases.entry(key).or_default();
                        }
                    }
                }
            }
        }
        // Numbers of features count across a layer's networks.
        for (slot, within) in &mut self.placed {
            let networks = self.architecture.networks(slot.layer as usize);
            *within += networks.first().map_or(0, |network| network.first as u32);
        }
        Ok(())
    }

    fn edits_of(
        &self,
        key: WeightKey,
        old: Network,
        new: Network,
        plan: Option<&LayerPlan>,
        stored: &Overlay,
    ) -> Result<MatrixEdits, Failure> {
        let is_down = key.role == Role::Down;
        let projection = PROJECTIONS.iter().position(|&role| role == key.role).unwrap_or_default();
        let mut edits = MatrixEdits {
            features: new.features,
            stored: old.features,
            is_down,
            rows: BTreeMap::new(),
            updates: Vec::new(),
        };
        for ((expert, within), vectors) in plan.into_iter().flat_map(|plan| &plan.rows) {
            if let (true, Some(row)) = (*expert == key.expert, &vectors[projection]) {
                edits.rows.insert(*within, row.clone());
            }
        }
        let all = self.model.architecture().features(key.layer.unwrap_or_default() as usize);
        for delta in
            stored.low_rank().filter(|delta| is_down && Some(delta.update.layer) == key.layer)
        {
            let (update, rank) = (&delta.update, delta.update.rank as usize);
            let width = update.right.len() / rank.max(1);
            if width < all || update.left.len() != rank * self.model.architecture().hidden_size {
                let message =
                    format!("update {} of layer {} is of another shape", update.id, update.layer);
                return Err(Failure::new(code::INVALID_PARAMETER, message)
                    .hint("it was made for another base"));
            }
            let part = old.first..old.first + old.features;
            let right = update.right.chunks_exact(width.max(1)).flat_map(|row| &row[part.clone()]);
            let right = right.copied().collect();
            edits.updates.push(Update { left: update.left.clone(), right, rank });
        }
        Ok(edits)
    }

    /// The model that is edited.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// What the model is with the edits: as wide as they need.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The configuration that says so; `None` where the model's own still holds.
    pub fn config(&self) -> Option<&[u8]> {
        self.config.as_deref()
    }

    /// Whether edits change a weight's numbers or shape.
    pub fn changes(&self, key: WeightKey) -> bool {
        self.matrices.contains_key(&key) || self.biases.contains_key(&key)
    }

    /// Whether edits change anything.
    pub fn is_changed(&self) -> bool {
        !self.matrices.is_empty() || !self.biases.is_empty()
    }

    /// A projection with its edits.
    pub fn matrix(&self, key: WeightKey) -> Option<EditedMatrix<'_>> {
        let matrix = self.model.matrix(key)?;
        Some(match self.matrices.get(&key) {
            Some(edits) => EditedMatrix::new(matrix, edits),
            None => EditedMatrix::unedited(matrix),
        })
    }

    /// A bias or norm with its edits.
    pub fn vector(&self, key: WeightKey) -> Option<Vec<f32>> {
        let mut values = self.model.vector(key)?.into_owned();
        if let Some(empty) = self.biases.get(&key) {
            let length = self.architecture.shape(key).map_or(values.len(), |shape| shape[0]);
            values.resize(length, 0.0);
            empty.iter().filter(|&&at| at < length).for_each(|&at| values[at] = 0.0);
        }
        Some(values)
    }

    /// The feature of the base that a feature is, edited or not; `None` for one that edits added, or that only
    /// fills a wider layer.
    pub fn origin(&self, layer: u32, feature: u32) -> Option<u32> {
        let new = network_of(&self.architecture, layer as usize, feature as usize)?;
        let networks = self.model.architecture().networks(layer as usize);
        let old = networks.iter().find(|old| old.expert == new.expert)?;
        let within = feature as usize - new.first;
        let is_taken = new.expert.is_none()
            && self.placed.iter().any(|(slot, &place)| slot.layer == layer && place == feature);
        (within < old.features && !is_taken).then(|| (old.first + within) as u32)
    }

    /// Where a feature of the base, or one that edits added, is now.
    pub fn place(&self, slot: Slot) -> Option<u32> {
        if let Some(&place) = self.placed.get(&slot) {
            return Some(place);
        }
        let old =
            network_of(self.model.architecture(), slot.layer as usize, slot.feature as usize)?;
        let networks = self.architecture.networks(slot.layer as usize);
        let new = networks.iter().find(|new| new.expert == old.expert)?;
        Some((new.first + slot.feature as usize - old.first) as u32)
    }

    /// Features of a layer whose vector in a projection is not the base's, ascending.
    pub fn changed_features(&self, layer: u32, role: Role) -> Vec<u32> {
        let networks = self.architecture.networks(layer as usize).into_iter();
        let changed = networks.flat_map(|network| {
            let key = WeightKey { role, layer: Some(layer), expert: network.expert };
            let changed = self.matrices.get(&key).map(MatrixEdits::changed).unwrap_or_default();
            changed.into_iter().map(move |within| (network.first + within) as u32)
        });
        changed.collect()
    }

    /// What became of features that edits added: how the shape changed, which slots were taken.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let widths = |model: &Architecture| {
            let layers = 0..model.layers();
            layers.map(|layer| model.features(layer)).max().unwrap_or(0)
        };
        let (old, new) = (widths(self.model.architecture()), widths(&self.architecture));
        if old != new {
            notes.push(format!(
                "every layer is wider, by what the edits added and whole blocks: {old} features became {new}"
            ));
        }
        if self.taken > 0 {
            notes.push(format!("free slots that features of edits took: {}", self.taken));
        }
        notes
    }
}

/// Numbers that are looked at together for features that are 0.
const EMPTY_NUMBERS: usize = 1 << 20;

/// The network of a layer that a feature is of.
fn network_of(model: &Architecture, layer: usize, feature: usize) -> Option<Network> {
    let networks = model.networks(layer).into_iter();
    networks.into_iter().find(|of| (of.first..of.first + of.features).contains(&feature))
}

/// Whether what every expert adds is added once, whichever are chosen.
fn adds_up(experts: &ExpertsDescription) -> bool {
    let router = &experts.router;
    let sums_to_1 =
        router.normalise || (router.softmax_after && router.scoring == RouterScoring::Softmax);
    sums_to_1
        && router.scale == 1.0
        && !router.expert_scale
        && !experts.own_norms
        && experts.clamp.is_none()
}

fn beside_experts(base: &Architecture, layer: u32) -> Failure {
    let message = format!(
        "layer {layer} of this {} model has experts only, and theirs are not networks that a feature beside \
         them can be part of",
        base.family()
    );
    Failure::new(code::UNSUPPORTED_FORMAT, message)
        .hint("INSERT … MODE MEMIT changes the experts' own features, which can be compiled")
}
