//! From a slot (layer, feature) to the columns that a plan asks of it.

use std::sync::Arc;

use larql_planner::physical::plan::FeatureColumn;
use larql_planner::value::Value;
use larql_storage::vindex::InputToken;

use super::output_tokens::OutputTokens;
use super::{Row, Work};
use crate::failure::Failure;
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
    tokenizer: &'a Tokenizer,
    columns: &'a [FeatureColumn],
    /// The queried entity, which every row then has.
    entity: Option<Value>,
    /// Output tokens where the model stores none.
    computed: &'a OutputTokens,
    bytes: u64,
}

impl<'a> FeatureRows<'a> {
    /// Rows of `columns` over `model`, for a query of `entity` if there is one. Where the model stores no
    /// output tokens, those of the features asked about have been `computed`.
    pub(super) fn new(
        model: &'a Model,
        columns: &'a [FeatureColumn],
        entity: Option<Arc<str>>,
        computed: &'a OutputTokens,
    ) -> Result<Self, Failure> {
        let tokenizer = model.tokenizer()?;
        Ok(Self { model, tokenizer, columns, entity: entity.map(Value::Text), computed, bytes: 0 })
    }

    /// Counts what was read under the running operator.
    pub(super) fn finish(self, work: &mut Work<'_>) {
        work.touch(self.bytes);
    }

    /// The row of a slot; `None` where `tokens_required` and the feature has no output tokens.
    pub(super) fn row(
        &mut self,
        layer: u32,
        feature: u32,
        hit: Hit,
        tokens_required: bool,
    ) -> Option<Row> {
        let reads_tokens =
            tokens_required || self.columns.iter().any(|column| column.reads_down_meta());
        let tokens = if reads_tokens { self.tokens(layer, feature) } else { Vec::new() };
        if tokens_required && tokens.is_empty() {
            return None;
        }
        let row = self.columns.iter().map(|&column| match column {
            FeatureColumn::Layer => Value::Integer(layer.into()),
            FeatureColumn::Feature => Value::Integer(feature.into()),
            FeatureColumn::Entity => self
                .entity
                .clone()
                .or_else(|| self.input_token(layer, feature))
                .unwrap_or(Value::Null),
            FeatureColumn::Relation => {
                self.model.label(layer, feature).map_or(Value::Null, Value::Text)
            }
            FeatureColumn::Target => {
                tokens.first().map_or(Value::Null, |(word, _)| Value::Text(word.clone()))
            }
            FeatureColumn::Logit => {
                tokens.first().map_or(Value::Null, |(_, logit)| Value::Score(*logit))
            }
            FeatureColumn::TopTokens => {
                Value::List(tokens.iter().map(|(word, _)| Value::Text(word.clone())).collect())
            }
            FeatureColumn::GateScore => match (hit.score, &self.entity) {
                (Some(score), _) => Value::Score(score),
                (None, None) => self.input_score(layer, feature).map_or(Value::Null, Value::Score),
                (None, Some(_)) => Value::Null,
            },
            FeatureColumn::Z => hit
                .score
                .and_then(|score| z(self.model, layer, score))
                .map_or(Value::Null, Value::Real),
            FeatureColumn::Confidence => Value::Null,
            FeatureColumn::Source => match hit {
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
    fn tokens(&mut self, layer: u32, feature: u32) -> Vec<(Arc<str>, f32)> {
        let found: Vec<(u32, f32)> = match self.model.down_meta() {
            None => self.computed.get(layer, feature).to_vec(),
            Some(meta) => {
                self.bytes += meta.record_bytes() as u64;
                meta.feature(layer, feature).map_or_else(Vec::new, |found| found.tokens().collect())
            }
        };
        let words = found.into_iter().map(|(id, logit)| (self.tokenizer.word(id), logit));
        words.filter(|(word, _)| !word.is_empty()).collect()
    }

    /// The strongest input token of the feature's gate, where one stands out.
    fn input_token(&self, layer: u32, feature: u32) -> Option<Value> {
        let (id, _) = self.standing_out(layer, feature)?;
        Some(self.tokenizer.word(id)).filter(|word| !word.is_empty()).map(Value::Text)
    }

    fn input_score(&self, layer: u32, feature: u32) -> Option<f32> {
        self.standing_out(layer, feature).map(|(_, score)| score)
    }

    fn standing_out(&self, layer: u32, feature: u32) -> Option<(u32, f32)> {
        let InputToken { token_id, score } = self.model.gate_meta()?.feature(layer, feature)?;
        (score > 0.0 && z(self.model, layer, score)? >= ENTITY_Z_MIN).then_some((token_id, score))
    }
}

/// A gate score in standard deviations of its layer's scores; `None` without statistics.
pub(super) fn z(model: &Model, layer: u32, score: f32) -> Option<f64> {
    let (mean, deviation) = model.gate_scores(layer)?;
    (deviation > 0.0).then(|| (f64::from(score) - mean) / deviation)
}
