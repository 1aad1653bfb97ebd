//! Edits above a model's weights, as the decoder sees them: features that are replaced, added or
//! hidden, low-rank updates of down projections, and keys that retrieve an answer.
//!
//! An [`Overlay`] is immutable and belongs to the sequences whose [`KvCache`](super::KvCache) carries
//! it: sequences with different overlays, or with none, share a pass. The base's kernels run
//! untouched over the base's weights, whatever their format. A feature that is replaced or hidden is
//! silenced between activation and down projection, and what the edited rows contribute is added in
//! `f32`: so a sequence without an overlay gets the bits that it would get in a build without this
//! module, and taking an edit away leaves the bits of the edits that remain.
//!
//! An added feature widens the layer's dense network, or stands beside the experts where there is no
//! dense one. A replaced feature of an expert counts where and as much as its expert does. A sparse
//! walk uses its K strongest features of the base, and all edited ones.
//!
//! Elsewhere: how edits are computed (`edit`), how their contributions are added (`ffn::edits`), what
//! an answer that was retrieved does to logits ([`super::retrieval`]), how they are kept (`larql-storage`).

use std::collections::{BTreeMap, BTreeSet};

use super::{Architecture, Matrix, Orientation, Role, WeightKey, Weights};
use crate::kernels::activation::{clamped_swiglu, gated};
use crate::kernels::dot;

/// Why edits do not fit a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayError {
    /// A layer that the model does not have.
    #[error("layer {layer} is beyond the model's {layers} layers")]
    Layer {
        /// The layer.
        layer: usize,
        /// How many there are.
        layers: usize,
    },
    /// A vector of another length than the model's.
    #[error("{what} of layer {layer} has {found} numbers, expected {expected}")]
    Length {
        /// Which vector.
        what: &'static str,
        /// Of which layer.
        layer: usize,
        /// Its length.
        found: usize,
        /// What it should be.
        expected: usize,
    },
    /// An added feature without one of its vectors.
    #[error("feature {feature} of layer {layer} is new and lacks its {what} vector")]
    Incomplete {
        /// The layer.
        layer: usize,
        /// The feature.
        feature: usize,
        /// Which vector.
        what: &'static str,
    },
    /// The base's row is needed and not here.
    #[error("the weights lack {key}, which an edit keeps")]
    MissingTensor {
        /// Which tensor.
        key: WeightKey,
    },
}

/// The vectors of one feature: `None` keeps what the base has.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FeatureRows<'r> {
    /// `[hidden]`
    pub gate: Option<&'r [f32]>,
    /// `[hidden]`; means nothing in a plain network.
    pub up: Option<&'r [f32]>,
    /// `[hidden]`
    pub down: Option<&'r [f32]>,
}

/// Edits of one model; see the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overlay {
    layers: BTreeMap<usize, LayerEdits>,
    /// By layer, in order of addition.
    keys: BTreeMap<usize, Vec<Key>>,
}

/// Edits of one layer's feed-forward networks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct LayerEdits {
    /// Features of the base that add nothing.
    pub(super) silenced: BTreeSet<usize>,
    /// Edited rows by the network that they are of; `None` for the dense one, and for features
    /// beside experts.
    pub(super) rows: BTreeMap<Option<u32>, EditedRows>,
    /// Updates of the down projections.
    pub(super) updates: Vec<LowRank>,
}

/// Edited features of one network, in ascending order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct EditedRows {
    /// Their numbers in the layer.
    pub(super) features: Vec<usize>,
    /// `[features, hidden]`, as all three; `ups` is empty in a plain network.
    pub(super) gates: Vec<f32>,
    pub(super) ups: Vec<f32>,
    pub(super) downs: Vec<f32>,
    /// What the base adds to gates and ups of features that are not new: `[features]`.
    pub(super) gate_bias: Vec<f32>,
    pub(super) up_bias: Vec<f32>,
}

/// `left^T right` is added to a layer's down projections.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LowRank {
    /// `[rank, hidden]`
    pub(super) left: Vec<f32>,
    /// `[rank, features]`, over all features of the base.
    pub(super) right: Vec<f32>,
    pub(super) rank: usize,
}

/// What an input is compared with.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    entry: u32,
    /// Of length 1: `[hidden]`.
    direction: Vec<f32>,
    threshold: f32,
}

/// A key that an input was close enough to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// The number of the entry, as it was given to [`OverlayBuilder::key`].
    pub entry: u32,
    /// By how much the cosine is above the entry's threshold.
    pub margin: f32,
}

impl Overlay {
    /// Whether nothing is edited.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty() && self.keys.is_empty()
    }

    /// Memory that its numbers take, in bytes.
    pub fn bytes(&self) -> usize {
        let of_layer = |edits: &LayerEdits| {
            let rows = edits.rows.values().map(|rows| {
                let biases = rows.gate_bias.len() + rows.up_bias.len();
                rows.gates.len() + rows.ups.len() + rows.downs.len() + biases
            });
            let updates = edits.updates.iter().map(|update| update.left.len() + update.right.len());
            rows.chain(updates).sum::<usize>()
        };
        let keys = self.keys.values().flatten().map(|key| key.direction.len());
        let numbers = self.layers.values().map(of_layer).chain(keys).sum::<usize>();
        numbers * size_of::<f32>()
    }

    /// Features that are added to a layer: as many as the highest number is beyond the base's.
    pub fn features_added(&self, architecture: &Architecture, layer: usize) -> usize {
        let edited = self.layers.get(&layer).into_iter();
        let features = edited.flat_map(|edits| edits.rows.values()).flat_map(|rows| &rows.features);
        let end = features.copied().max().map_or(0, |most| most + 1);
        end.saturating_sub(architecture.features(layer))
    }

    /// What an edited feature is activated by for an input of its network, 0 for one that is hidden, whether
    /// or not a router would choose its expert; `None` for a feature that is as in the base.
    ///
    /// # Shapes
    /// `input`: `[hidden]`.
    pub fn activation(
        &self,
        architecture: &Architecture,
        layer: usize,
        feature: usize,
        input: &[f32],
    ) -> Option<f32> {
        let edits = self.layers.get(&layer)?;
        let edited = edits.rows.iter().find_map(|(expert, rows)| {
            Some((*expert, rows, rows.features.binary_search(&feature).ok()?))
        });
        let Some((expert, rows, at)) = edited else {
            return edits.silenced.contains(&feature).then_some(0.0);
        };
        let row = |rows: &[f32]| dot(&rows[at * input.len()..(at + 1) * input.len()], input);
        let mut gate = [row(&rows.gates) + rows.gate_bias[at]];
        let function = architecture.activation;
        if rows.ups.is_empty() {
            return Some(function.apply(gate[0]));
        }
        let up = [row(&rows.ups) + rows.up_bias[at]];
        let clamp = architecture.layer(layer).ffn.experts.as_ref().and_then(|of| of.clamp);
        match clamp.filter(|_| expert.is_some()) {
            Some(clamp) => clamped_swiglu(clamp.limit, clamp.alpha, &mut gate, &up),
            None => gated(function, &mut gate, &up),
        }
        Some(gate[0])
    }

    /// The edits of a layer's networks.
    pub(super) fn layer(&self, layer: usize) -> Option<&LayerEdits> {
        self.layers.get(&layer)
    }

    /// Whether a layer's inputs are compared with keys.
    pub(super) fn has_keys(&self, layer: usize) -> bool {
        self.keys.contains_key(&layer)
    }

    /// Whether any layer's are.
    pub fn retrieves(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Adds the entries whose keys at a layer are close enough to the input of its networks.
    ///
    /// # Shapes
    /// `input`: `[hidden]`.
    pub(super) fn find(&self, layer: usize, input: &[f32], found: &mut Vec<Match>) {
        let length = dot(input, input).sqrt();
        for key in self.keys.get(&layer).into_iter().flatten().filter(|_| length > 0.0) {
            let margin = dot(&key.direction, input) / length - key.threshold;
            if margin > 0.0 {
                found.push(Match { entry: key.entry, margin });
            }
        }
    }
}

/// Puts an [`Overlay`] together, and checks that it fits.
pub struct OverlayBuilder<'m> {
    architecture: &'m Architecture,
    weights: &'m dyn Weights,
    features: BTreeMap<(usize, usize), [Vec<f32>; 3]>,
    overlay: Overlay,
}

impl<'m> OverlayBuilder<'m> {
    /// No edit yet, of a model whose weights give what edits keep.
    pub fn new(architecture: &'m Architecture, weights: &'m dyn Weights) -> OverlayBuilder<'m> {
        OverlayBuilder {
            architecture,
            weights,
            features: BTreeMap::new(),
            overlay: Overlay::default(),
        }
    }

    /// Replaces a feature of the base, or adds one whose number is beyond the base's; whatever was
    /// said of that feature before is forgotten.
    ///
    /// # Errors
    /// `Layer`, `Length`; `Incomplete` for a new feature; `MissingTensor`.
    pub fn set_feature(
        &mut self,
        layer: usize,
        feature: usize,
        rows: FeatureRows<'_>,
    ) -> Result<(), OverlayError> {
        self.check_layer(layer)?;
        let new = feature >= self.architecture.features(layer);
        let gated = self.architecture.layer(layer).ffn.dense.is_none_or(|dense| dense.gated);
        let roles = [
            (Role::Gate, "gate", rows.gate),
            (Role::Up, "up", rows.up),
            (Role::Down, "down", rows.down),
        ];
        let mut vectors: [Vec<f32>; 3] = Default::default();
        for (place, (role, what, row)) in vectors.iter_mut().zip(roles) {
            if role == Role::Up && !gated {
                continue;
            }
            *place = match row {
                Some(row) => {
                    self.check_length(what, layer, row.len(), self.architecture.hidden_size)?;
                    row.to_vec()
                }
                None if new => return Err(OverlayError::Incomplete { layer, feature, what }),
                None => feature_row(self.architecture, self.weights, role, layer, feature)?,
            };
        }
        self.features.insert((layer, feature), vectors);
        if !new {
            self.overlay.layers.entry(layer).or_default().silenced.insert(feature);
        }
        Ok(())
    }

    /// A feature that adds nothing.
    ///
    /// # Errors
    /// `Layer`.
    pub fn hide_feature(&mut self, layer: usize, feature: usize) -> Result<(), OverlayError> {
        self.check_layer(layer)?;
        self.features.remove(&(layer, feature));
        if feature < self.architecture.features(layer) {
            self.overlay.layers.entry(layer).or_default().silenced.insert(feature);
        }
        Ok(())
    }

    /// Adds `left^T right` to a layer's down projections. Where a feature is replaced or hidden it
    /// changes nothing.
    ///
    /// # Shapes
    /// `left`: `[rank, hidden]`, `right`: `[rank, features]`, over the base's features of all networks.
    /// # Errors
    /// `Layer`, `Length`.
    pub fn low_rank(
        &mut self,
        layer: usize,
        rank: usize,
        left: &[f32],
        right: &[f32],
    ) -> Result<(), OverlayError> {
        self.check_layer(layer)?;
        let expected = rank.saturating_mul(self.architecture.hidden_size);
        self.check_length("the left side of an update", layer, left.len(), expected)?;
        let expected = rank.saturating_mul(self.architecture.features(layer));
        self.check_length("the right side of an update", layer, right.len(), expected)?;
        let update = LowRank { left: left.to_vec(), right: right.to_vec(), rank };
        self.overlay.layers.entry(layer).or_default().updates.push(update);
        Ok(())
    }

    /// An entry that is found where the input of a layer's networks has a cosine above `threshold`
    /// with `key`.
    ///
    /// # Errors
    /// `Layer`, `Length`.
    pub fn key(
        &mut self,
        layer: usize,
        entry: u32,
        key: &[f32],
        threshold: f32,
    ) -> Result<(), OverlayError> {
        self.check_layer(layer)?;
        self.check_length("a key", layer, key.len(), self.architecture.hidden_size)?;
        let length = dot(key, key).sqrt();
        if length > 0.0 {
            let direction = key.iter().map(|number| number / length).collect();
            let keys = self.overlay.keys.entry(layer).or_default();
            keys.push(Key { entry, direction, threshold });
        }
        Ok(())
    }

    /// The overlay.
    ///
    /// # Errors
    /// `MissingTensor` where a bias of the base is not here.
    pub fn build(mut self) -> Result<Overlay, OverlayError> {
        for ((layer, feature), [gate, up, down]) in std::mem::take(&mut self.features) {
            let new = feature >= self.architecture.features(layer);
            let expert = self.expert_of(layer, feature);
            let bias = |role| match new {
                true => Ok(0.0),
                false => bias(self.architecture, self.weights, role, layer, feature),
            };
            let (gate_bias, up_bias) = (bias(Role::GateBias)?, bias(Role::UpBias)?);
            let rows = self.overlay.layers.entry(layer).or_default().rows.entry(expert);
            let rows = rows.or_default();
            rows.features.push(feature);
            rows.gates.extend(gate);
            rows.ups.extend(up);
            rows.downs.extend(down);
            rows.gate_bias.push(gate_bias);
            rows.up_bias.push(up_bias);
        }
        Ok(self.overlay)
    }

    fn expert_of(&self, layer: usize, feature: usize) -> Option<u32> {
        let networks = self.architecture.networks(layer);
        let of = networks.iter().find(|of| (of.first..of.first + of.features).contains(&feature));
        of.and_then(|network| network.expert)
    }

    fn check_layer(&self, layer: usize) -> Result<(), OverlayError> {
        let layers = self.architecture.layers();
        if layer < layers { Ok(()) } else { Err(OverlayError::Layer { layer, layers }) }
    }

    fn check_length(
        &self,
        what: &'static str,
        layer: usize,
        found: usize,
        expected: usize,
    ) -> Result<(), OverlayError> {
        match found == expected {
            true => Ok(()),
            false => Err(OverlayError::Length { what, layer, found, expected }),
        }
    }
}

/// One feature's gate, up or down vector, as numbers: `[hidden]`.
///
/// # Errors
/// `MissingTensor` where the base has no such row here.
pub fn feature_row(
    architecture: &Architecture,
    weights: &dyn Weights,
    role: Role,
    layer: usize,
    feature: usize,
) -> Result<Vec<f32>, OverlayError> {
    let (key, within) = place(architecture, role, layer, feature);
    let missing = OverlayError::MissingTensor { key };
    let matrix = weights.matrix(key).ok_or_else(|| missing.clone())?;
    // A row of the table is a feature, or a column is.
    let Matrix { view, orientation } = matrix;
    let by_rows = (orientation == Orientation::OutIn) == (role != Role::Down);
    let (features, hidden) = match by_rows {
        true => (view.rows(), view.columns()),
        false => (view.columns(), view.rows()),
    };
    if within >= features {
        return Err(missing);
    }
    let mut row = vec![0.0; hidden];
    match by_rows {
        true => view.row_f32(within, &mut row),
        false => {
            let elements = row.iter_mut().enumerate();
            elements.for_each(|(index, number)| *number = view.element(index, within));
        }
    }
    Ok(row)
}

/// One feature's bias, 0 where the model has none.
fn bias(
    architecture: &Architecture,
    weights: &dyn Weights,
    role: Role,
    layer: usize,
    feature: usize,
) -> Result<f32, OverlayError> {
    let (key, within) = place(architecture, role, layer, feature);
    if architecture.shape(key).is_none() {
        return Ok(0.0);
    }
    let vector = weights.vector(key).ok_or(OverlayError::MissingTensor { key })?;
    vector.get(within).copied().ok_or(OverlayError::MissingTensor { key })
}

/// The tensor that holds a feature of a layer, and the feature's number in it.
fn place(
    architecture: &Architecture,
    role: Role,
    layer: usize,
    feature: usize,
) -> (WeightKey, usize) {
    let networks = architecture.networks(layer);
    let of = networks.iter().find(|of| (of.first..of.first + of.features).contains(&feature));
    let (expert, first) = of.map_or((None, 0), |network| (network.expert, network.first));
    (WeightKey { role, layer: Some(layer as u32), expert }, feature - first)
}
