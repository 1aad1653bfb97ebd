//! Feature sources with a query: gate scores of whole layers, or of slots, with the gates that edits replaced
//! or added.
//!
//! A layer with edited gates is scanned even where an index lists the base's.

use std::sync::Arc;

use larql_compute::kernels::top_k::top_k_by_magnitude;
use larql_compute::model::{Role, WeightKey, Weights as _};
use larql_planner::layers::{LayerSet, Slot};
use larql_planner::physical::plan::{self, FeatureColumn, QueryVector};
use larql_storage::overlay::{self as stored, Overlay};

use super::edited_gates;
use super::feature_row::{FeatureRows, Hit, z};
use super::output_tokens::OutputTokens;
use super::{Operator, Row, Work};
use crate::failure::{Failure, code};
use crate::indexes::gates::Wanted;
use crate::inference::{gate_score, gate_scores};
use crate::mounts::Model;

/// Hits whose output tokens are looked up together: NEAREST looks at no more than it gives.
const HITS_AT_ONCE: usize = 256;

/// The vector that stands for an entity: the mean scaled embedding of its tokens.
///
/// # Errors
/// As [`query_vector`].
pub(crate) fn entity_vector(model: &Model, entity: &str) -> Result<Vec<f32>, Failure> {
    query_vector(model, &QueryVector::Entity(entity.into()))
}

/// The vector that a query stands for.
///
/// # Errors
/// `EMPTY_TEXT` where the text has no token in the vocabulary.
pub(super) fn query_vector(model: &Model, query: &QueryVector) -> Result<Vec<f32>, Failure> {
    let tokenizer = model.tokenizer()?;
    let (text, ids) = match query {
        QueryVector::Entity(text) => (text, tokenizer.encode(text, false)?),
        QueryVector::LastToken(text) => {
            let ids = tokenizer.encode(text, true)?;
            (text, ids.last().copied().into_iter().collect())
        }
    };
    let embeddings = model
        .matrix(WeightKey::model(Role::Embedding))
        .ok_or_else(|| Failure::new(code::MISSING_COMPONENT, "the mount has no embeddings"))?
        .view;
    let scale = model.architecture().embed_scale;
    let mut sum = vec![0.0_f64; embeddings.columns()];
    let mut row = vec![0.0_f32; embeddings.columns()];
    let mut found = 0_u32;
    for id in ids.into_iter().map(|id| id as usize).filter(|&id| id < embeddings.rows()) {
        embeddings.row_f32(id, &mut row);
        for (sum, &value) in sum.iter_mut().zip(&row) {
            *sum += f64::from(scale * value);
        }
        found += 1;
    }
    if found == 0 {
        return Err(Failure::new(
            code::EMPTY_TEXT,
            format!("{text:?} has no token in the vocabulary"),
        )
        .hint("write some text"));
    }
    Ok(sum.into_iter().map(|sum| (sum / f64::from(found)) as f32).collect())
}

/// The entity that rows of this query have; a prompt is none.
fn entity(query: &QueryVector) -> Option<Arc<str>> {
    match query {
        QueryVector::Entity(text) => Some(text.clone()),
        QueryVector::LastToken(_) => None,
    }
}

/// Whether an edited feature states something of an entity: it is told as such and not as a hit of anything.
fn states(overlay: &Overlay, layer: u32, feature: usize) -> bool {
    let Ok(feature) = u32::try_from(feature) else { return false };
    let delta = overlay.feature(stored::Slot { layer, feature });
    delta.is_some_and(|delta| delta.entity.is_some() && delta.relation.is_some())
}

/// The gate scores of one layer, those of its experts after those of its dense network; none where
/// the layer's gates are not here.
pub(super) fn layer_scores(
    work: &mut Work<'_>,
    model: &Model,
    layer: u32,
    vector: &[f32],
) -> Result<Vec<f32>, Failure> {
    network_scores(work, model, layer, vector, vector)
}

/// As [`layer_scores`], where experts read another vector than the dense network does.
pub(super) fn network_scores(
    work: &mut Work<'_>,
    model: &Model,
    layer: u32,
    dense: &[f32],
    experts: &[f32],
) -> Result<Vec<f32>, Failure> {
    let mut scores = Vec::with_capacity(model.features(layer) as usize);
    for (network, gates) in model.gates(layer) {
        let vector = if network.expert.is_some() { experts } else { dense };
        work.touch(gates.view.bytes_touched());
        scores.extend(gate_scores(work.engine().pool(), &gates, vector, work.cancel)?);
    }
    Ok(scores)
}

/// The gate score of one feature, in the same bits as [`layer_scores`]; `None` where there is none.
fn slot_score(
    work: &mut Work<'_>,
    model: &Model,
    slot: Slot,
    vector: &[f32],
) -> Result<Option<f32>, Failure> {
    let Ok(feature) = u32::try_from(slot.feature) else { return Ok(None) };
    let pool = work.engine().pool();
    let found = gate_score(pool, model, slot.layer, feature, vector, work.cancel)?;
    let Some((score, bytes)) = found else { return Ok(None) };
    work.touch(bytes);
    Ok(Some(score))
}

/// Learns what a layer's scores are judged against, if anything asked for depends on it.
fn learn_scores(
    work: &Work<'_>,
    model: &Model,
    layer: u32,
    (z_min, columns): (Option<f64>, &[FeatureColumn]),
) -> Result<(), Failure> {
    if z_min.is_none() && !columns.contains(&FeatureColumn::Z) {
        return Ok(());
    }
    model.learn_gate_scores(layer, work.engine().pool(), work.cancel)
}

/// Whether a hit passes DESCRIBE's relative threshold.
fn passes(model: &Model, layer: u32, score: f32, z_min: Option<f64>) -> bool {
    z_min.is_none_or(|z_min| score > 0.0 && z(model, layer, score).is_some_and(|z| z >= z_min))
}

/// What a score must reach for its z to be at least so much, or a little less.
fn score_min(model: &Model, layer: u32, z_min: f64) -> f64 {
    match model.gate_scores(layer) {
        Some((mean, deviation)) if deviation > 0.0 => {
            let least = z_min.mul_add(deviation, mean);
            least - 1e-9 * (mean.abs() + (z_min * deviation).abs())
        }
        // No z, no hit.
        _ => f64::INFINITY,
    }
}

/// Scores whole layers, one layer a batch.
pub(super) struct GateScan {
    query: QueryVector,
    layers: std::vec::IntoIter<u32>,
    k: Option<u64>,
    z_min: Option<f64>,
    tokens_required: bool,
    /// Whether K counts only features with output tokens, as NEAREST wants.
    k_of_rows: bool,
    columns: Vec<FeatureColumn>,
    /// The name of an index that says which gates need scoring.
    index: Option<String>,
    /// An index was asked for that may miss some.
    approximate: bool,
    vector: Option<Vec<f32>>,
    computed: OutputTokens,
}

impl GateScan {
    pub(super) fn new(scan: plan::GateScan) -> Self {
        Self {
            query: scan.query,
            layers: scan.layers.iter().collect::<Vec<_>>().into_iter(),
            k: scan.k,
            z_min: scan.z_min,
            tokens_required: scan.tokens_required,
            k_of_rows: false,
            columns: scan.columns,
            index: None,
            approximate: scan.approximate,
            vector: None,
            computed: OutputTokens::default(),
        }
    }

    /// The same, found by an index where it is still there.
    pub(super) fn by_index(scan: plan::GateScan, index: String) -> Self {
        Self { index: Some(index), ..Self::new(scan) }
    }

    /// `NEAREST TO … AT LAYER …`: the first rows of one layer.
    pub(super) fn nearest(nearest: plan::Nearest) -> Self {
        Self {
            query: QueryVector::Entity(nearest.entity),
            layers: LayerSet::one(nearest.layer).iter().collect::<Vec<_>>().into_iter(),
            k: nearest.k,
            z_min: None,
            tokens_required: true,
            k_of_rows: true,
            columns: nearest.columns,
            index: None,
            approximate: false,
            vector: None,
            computed: OutputTokens::default(),
        }
    }
}

impl Operator for GateScan {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let model = work.model()?;
        let index = self.index.as_ref().and_then(|name| model.indexes().gates(name));
        if self.vector.is_none() {
            self.vector = Some(query_vector(&model, &self.query)?);
            if self.approximate && index.is_none() {
                work.notice(
                    "APPROX changed nothing: the plan uses no index of gates",
                    "CREATE INDEX name ON GATES USING coarse_sketch",
                )?;
            }
        }
        let vector = self.vector.clone().unwrap_or_default();
        for layer in self.layers.by_ref() {
            work.cancel.check()?;
            learn_scores(work, &model, layer, (self.z_min, &self.columns))?;
            let most = self.k.map_or(usize::MAX, |k| usize::try_from(k).unwrap_or(usize::MAX));
            let overlay = work.view().overlay().clone();
            let edited = edited_gates::scores(&overlay, layer, |_| &vector);
            let mut hits = match &index {
                Some(index) if edited.is_empty() => {
                    let score_min = self.z_min.map(|z| score_min(&model, layer, z));
                    let wanted = Wanted { k: most, score_min };
                    let pool = work.engine().pool();
                    let with = (&*model, pool);
                    let found = index.best(with, layer, &vector, wanted, work.cancel)?;
                    work.touch(found.bytes);
                    found.hits
                }
                _ => {
                    let mut scores = layer_scores(work, &model, layer, &vector)?;
                    edited_gates::merge(&mut scores, &edited);
                    let all = scores.len();
                    top_k_by_magnitude(&scores, if self.k_of_rows { all } else { most.min(all) })
                }
            };
            hits.retain(|&(_, score)| passes(&model, layer, score, self.z_min));
            // Where hits are edges, those that edits state stand beside them.
            hits.retain(|&(feature, _)| self.z_min.is_none() || !states(&overlay, layer, feature));
            let reads_tokens =
                self.tokens_required || self.columns.iter().any(|column| column.reads_down_meta());
            let mut batch = Vec::new();
            for hits in hits.chunks(HITS_AT_ONCE) {
                if batch.len() >= most {
                    break;
                }
                if reads_tokens {
                    let features = hits.iter().map(|&(feature, _)| feature as u32);
                    self.computed.prepare(work, &model, layer, features)?;
                }
                let with = (&*model, &overlay);
                let mut rows =
                    FeatureRows::new(with, &self.columns, entity(&self.query), &self.computed)?;
                for &(feature, score) in hits {
                    if batch.len() >= most {
                        break;
                    }
                    let hit = Hit { score: Some(score), activation: None };
                    batch.extend(rows.row(layer, feature as u32, hit, self.tokens_required));
                }
                rows.finish(work);
            }
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

/// Scores named slots only.
pub(super) struct GateSlots {
    slots: plan::GateSlots,
    done: bool,
}

impl GateSlots {
    pub(super) fn new(slots: plan::GateSlots) -> Self {
        Self { slots, done: false }
    }
}

impl Operator for GateSlots {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let model = work.model()?;
        let vector = query_vector(&model, &self.slots.query)?;
        let overlay = work.view().overlay().clone();
        let mut hits: Vec<(Slot, f32)> = Vec::new();
        for &slot in &self.slots.slots {
            work.cancel.check()?;
            learn_scores(work, &model, slot.layer, (self.slots.z_min, &self.slots.columns))?;
            let edited = u32::try_from(slot.feature).ok().and_then(|feature| {
                let slot = stored::Slot { layer: slot.layer, feature };
                edited_gates::score(&overlay, slot, &vector)
            });
            let score = match edited {
                Some(score) => Some(score),
                None => slot_score(work, &model, slot, &vector)?,
            };
            let Some(score) = score else { continue };
            let of_edges = self.slots.z_min.is_some();
            if of_edges && states(&overlay, slot.layer, slot.feature as usize) {
                continue;
            }
            if passes(&model, slot.layer, score, self.slots.z_min) {
                hits.push((slot, score));
            }
        }
        hits.sort_by(|(a, a_score), (b, b_score)| {
            a.layer
                .cmp(&b.layer)
                .then(b_score.abs().total_cmp(&a_score.abs()))
                .then(a.feature.cmp(&b.feature))
        });
        let mut computed = OutputTokens::default();
        for hits in hits.chunk_by(|(a, _), (b, _)| a.layer == b.layer) {
            let features = hits.iter().map(|(slot, _)| slot.feature as u32);
            computed.prepare(work, &model, hits[0].0.layer, features)?;
        }
        let entity = entity(&self.slots.query);
        let with = (&*model, &overlay);
        let mut rows = FeatureRows::new(with, &self.slots.columns, entity, &computed)?;
        let mut batch = Vec::new();
        for (slot, score) in hits {
            let hit = Hit { score: Some(score), activation: None };
            batch.extend(rows.row(
                slot.layer,
                slot.feature as u32,
                hit,
                self.slots.tokens_required,
            ));
        }
        rows.finish(work);
        Ok((!batch.is_empty()).then_some(batch))
    }
}
