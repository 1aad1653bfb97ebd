//! From a slot (layer, feature) to the columns that a plan asks of it, as the edits that the statement sees
//! leave it.
//!
//! A feature that edits hide, or that speaks against a fact, is no row. Of one that they replaced or added,
//! what they state goes before what its vectors say.

use std::sync::Arc;

use larql_compute::kernels::dot;
use larql_planner::physical::plan::FeatureColumn;
use larql_planner::value::Value;
use larql_storage::overlay::{self as stored, FeatureDelta, Overlay};
use larql_storage::vindex::InputToken;

use super::gate_scan::entity_vector;
use super::output_tokens::OutputTokens;
use super::{Row, Work};
use crate::editing::stated::Stated;
use crate::failure::Failure;
use crate::knowledge::shown_confidence;
use crate::mounts::Model;
use crate::text::Tokenizer;

/// Standard deviations above its layer's mean at which a gate's strongest input token is taken to be
/// the entity of an edge. The same measure and default as DESCRIBE's own threshold.
const ENTITY_Z_MIN: f64 = 4.0;

/// What a query found about a slot, beside what is stored of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hit {
    /// The gate's signed score.
    pub score: Option<f32>,
    /// The activation in a forward pass.
    pub activation: Option<f32>,
}

/// Produces rows of features.
pub(super) struct FeatureRows<'a> {
    model: &'a Model,
    /// The edits that the statement sees.
    overlay: Overlay,
    tokenizer: &'a Tokenizer,
    columns: &'a [FeatureColumn],
    /// The queried entity, which every row then has.
    entity: Option<Value>,
    /// What edits state, where rows are edges: the base's edges that this hides are no rows.
    stated: Option<Stated>,
    /// Output tokens where nobody stores them.
    computed: &'a OutputTokens,
    bytes: u64,
}

impl<'a> FeatureRows<'a> {
    /// Rows of `columns` over `model` under edits, for a query of `entity` if there is one. Where nobody
    /// stores output tokens, those of the features asked about have been `computed`.
    pub(super) fn new(
        (model, overlay): (&'a Model, &Overlay),
        columns: &'a [FeatureColumn],
        entity: Option<Arc<str>>,
        computed: &'a OutputTokens,
    ) -> Result<Self, Failure> {
        let tokenizer = model.tokenizer()?;
        let edges = [FeatureColumn::Entity, FeatureColumn::Relation, FeatureColumn::Source];
        let are_edges = edges.iter().all(|column| columns.contains(column));
        let stated = (are_edges && !overlay.is_empty()).then(|| Stated::of(overlay));
        let (overlay, entity) = (overlay.clone(), entity.map(Value::Text));
        Ok(Self { model, overlay, tokenizer, columns, entity, stated, computed, bytes: 0 })
    }

    /// Counts what was read under the running operator.
    pub(super) fn finish(self, work: &mut Work<'_>) {
        work.touch(self.bytes);
    }

    /// The row of a slot; `None` where there is no such feature under the edits, and where
    /// `tokens_required` and it has no output tokens or speaks against a fact.
    pub(super) fn row(
        &mut self,
        layer: u32,
        feature: u32,
        hit: Hit,
        tokens_required: bool,
    ) -> Option<Row> {
        let delta = self.overlay.feature(stored::Slot { layer, feature }).cloned();
        let delta = delta.as_deref();
        match delta {
            None if u64::from(feature) >= self.model.features(layer) => return None,
            Some(delta) if delta.hidden => return None,
            Some(delta) if tokens_required && is_against(delta) => return None,
            _ => {}
        }
        let reads_tokens =
            tokens_required || self.columns.iter().any(|column| column.reads_down_meta());
        let tokens = if reads_tokens { self.tokens(layer, feature, delta) } else { Vec::new() };
        if delta.is_none() && self.is_hidden_edge(layer, feature) {
            return None;
        }
        let stated = delta.and_then(|delta| delta.target.as_deref());
        if tokens_required && tokens.is_empty() && stated.is_none() {
            return None;
        }
        let row = self.columns.iter().map(|&column| match column {
            FeatureColumn::Layer => Value::Integer(layer.into()),
            FeatureColumn::Feature => Value::Integer(feature.into()),
            FeatureColumn::Entity => self
                .entity
                .clone()
                .or_else(|| self.input_token(layer, feature, delta))
                .unwrap_or(Value::Null),
            FeatureColumn::Relation => {
                let stated = delta.and_then(|delta| delta.relation.as_deref()).map(Arc::from);
                let label = stated.or_else(|| self.model.label(layer, feature));
                label.map_or(Value::Null, Value::Text)
            }
            FeatureColumn::Target => match stated {
                Some(target) => Value::text(target),
                None => tokens.first().map_or(Value::Null, |(word, _)| Value::Text(word.clone())),
            },
            FeatureColumn::Logit => {
                tokens.first().map_or(Value::Null, |(_, logit)| Value::Score(*logit))
            }
            FeatureColumn::TopTokens => {
                Value::List(tokens.iter().map(|(word, _)| Value::Text(word.clone())).collect())
            }
            FeatureColumn::GateScore => match (hit.score, &self.entity) {
                (Some(score), _) => Value::Score(score),
                (None, None) => {
                    self.input_score(layer, feature, delta).map_or(Value::Null, Value::Score)
                }
                (None, Some(_)) => Value::Null,
            },
            FeatureColumn::Z => hit
                .score
                .and_then(|score| z(self.model, layer, score))
                .map_or(Value::Null, Value::Real),
            FeatureColumn::Confidence => delta
                .and_then(|delta| delta.confidence)
                .map_or(Value::Null, |confidence| Value::Real(shown_confidence(confidence))),
            FeatureColumn::Source => match hit {
                _ if delta.is_some() => Value::text("patch"),
                Hit { activation: Some(_), .. } => Value::text("residual"),
                Hit { score: Some(_), .. } => Value::text("gate"),
                _ => Value::Null,
            },
            FeatureColumn::Head
            | FeatureColumn::Position
            | FeatureColumn::Token
            | FeatureColumn::Weight => Value::Null,
            FeatureColumn::Activation => hit.activation.map_or(Value::Null, Value::Score),
        });
        Some(row.collect())
    }

    /// The output tokens that show a word, best first, with their logits.
    fn tokens(
        &mut self,
        layer: u32,
        feature: u32,
        delta: Option<&FeatureDelta>,
    ) -> Vec<(Arc<str>, f32)> {
        let replaced = delta.is_some_and(|delta| delta.down.is_some());
        let found: Vec<(u32, f32)> = match self.model.down_meta().filter(|_| !replaced) {
            None => self.computed.get(layer, feature).to_vec(),
            Some(meta) => {
                self.bytes += meta.record_bytes() as u64;
                meta.feature(layer, feature).map_or_else(Vec::new, |found| found.tokens().collect())
            }
        };
        let words = found.into_iter().map(|(id, logit)| (self.tokenizer.word(id), logit));
        words.filter(|(word, _)| !word.is_empty()).collect()
    }

    /// Whether edits speak of what a feature of the base says as an edge.
    fn is_hidden_edge(&self, layer: u32, feature: u32) -> bool {
        let Some(stated) = &self.stated else { return false };
        let Some(relation) = self.model.label(layer, feature) else { return false };
        let entity = self.entity.clone().or_else(|| self.input_token(layer, feature, None));
        matches!(entity, Some(Value::Text(entity)) if stated.speaks_of(&entity, &relation))
    }

    /// What the feature is stated to be about, else the strongest input token of its gate, where one stands
    /// out. Nobody looked for that of a gate that was replaced.
    fn input_token(&self, layer: u32, feature: u32, delta: Option<&FeatureDelta>) -> Option<Value> {
        if let Some(entity) = delta.and_then(|delta| delta.entity.as_deref()) {
            return Some(Value::text(entity));
        }
        let (id, _) = self.standing_out(layer, feature, delta)?;
        Some(self.tokenizer.word(id)).filter(|word| !word.is_empty()).map(Value::Text)
    }

    fn input_score(&self, layer: u32, feature: u32, delta: Option<&FeatureDelta>) -> Option<f32> {
        if let Some(entity) = delta.and_then(|delta| delta.entity.as_deref()) {
            return dot_with(self.model, delta?.gate.as_deref()?, entity);
        }
        self.standing_out(layer, feature, delta).map(|(_, score)| score)
    }

    fn standing_out(
        &self,
        layer: u32,
        feature: u32,
        delta: Option<&FeatureDelta>,
    ) -> Option<(u32, f32)> {
        if delta.is_some_and(|delta| delta.gate.is_some()) {
            return None;
        }
        let InputToken { token_id, score } = self.model.gate_meta()?.feature(layer, feature)?;
        (score > 0.0 && z(self.model, layer, score)? >= ENTITY_Z_MIN).then_some((token_id, score))
    }
}

/// Whether a feature was added to speak against what the base answers: it states no target.
pub(super) fn is_against(delta: &FeatureDelta) -> bool {
    delta.entity.is_some() && delta.relation.is_some() && delta.target.is_none()
}

/// The product of a gate and an entity's embedding; `None` for a name without tokens.
pub(super) fn dot_with(model: &Model, gate: &[f32], entity: &str) -> Option<f32> {
    let vector = entity_vector(model, entity).ok()?;
    (vector.len() == gate.len()).then(|| dot(gate, &vector))
}

/// A gate score in standard deviations of its layer's scores; `None` without statistics.
pub(super) fn z(model: &Model, layer: u32, score: f32) -> Option<f64> {
    let (mean, deviation) = model.gate_scores(layer)?;
    (deviation > 0.0).then(|| (f64::from(score) - mean) / deviation)
}
