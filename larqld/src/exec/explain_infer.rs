//! EXPLAIN INFER: the features that act at the last token of a prompt.
//!
//! A hook keeps what entered each layer's feed-forward network at the last position, and the
//! activations that came of it; the gate scores of that input rank the features, those of edits among them.
//! With attention it keeps the weights of that position's heads too.

use std::collections::BTreeMap;

use larql_compute::kernels::top_k::{top_k, top_k_by_magnitude};
use larql_compute::model::{Hook, Network, Precision, Role, WeightKey, Weights as _};
use larql_planner::layers::LayerSet;
use larql_planner::physical::plan::{self, FeatureColumn};
use larql_planner::value::Value;

use super::edited_gates;
use super::feature_row::{FeatureRows, Hit};
use super::gate_scan::network_scores;
use super::output_tokens::OutputTokens;
use super::{Operator, Row, Work};
use crate::failure::Failure;
use crate::inference::{self, Run};
use crate::mounts::Model;
use crate::text::Tokenizer;

/// Runs the prompt, then gives one layer a batch.
pub(super) struct ExplainInfer {
    explain: plan::ExplainInfer,
    /// Layers yet to be given, with what was captured of them.
    captured: Option<std::collections::btree_map::IntoIter<u32, Captured>>,
    /// The prompt.
    tokens: Vec<u32>,
}

#[derive(Debug, Default)]
struct Captured {
    input: Vec<f32>,
    activations: Vec<f32>,
    /// Of each head, of each position; empty where nobody asked.
    attention: Vec<f32>,
}

/// Keeps the last position of some layers.
struct CaptureFfn<'a> {
    layers: &'a LayerSet,
    last: usize,
    /// The position whose attention is kept.
    attention: Option<usize>,
    captured: BTreeMap<u32, Captured>,
}

impl Hook for CaptureFfn<'_> {
    fn begin(&mut self, position_first: usize, count: usize) {
        self.last = position_first + count - 1;
    }

    fn wants_attention_weights(&self, layer: usize, position: usize) -> bool {
        self.attention == Some(position) && self.layers.contains(layer as u32)
    }

    fn attention_weights(&mut self, layer: usize, _position: usize, weights: &[f32]) {
        self.captured.entry(layer as u32).or_default().attention = weights.to_vec();
    }

    fn ffn_in(&mut self, layer: usize, input: &mut [f32]) {
        let layer = layer as u32;
        if self.layers.contains(layer) {
            self.captured.entry(layer).or_default().input = input.to_vec();
        }
    }

    fn activations(&mut self, layer: usize, position: usize, activations: &mut [f32]) {
        let layer = layer as u32;
        if position == self.last && self.layers.contains(layer) {
            self.captured.entry(layer).or_default().activations = activations.to_vec();
        }
    }
}

/// What the experts of a layer read, where they have a norm of their own beside the dense network's
/// (Gemma 4). Both are the same normed stream under other weights, so the one tells the other.
fn experts_input(model: &Model, layer: u32, dense: &[f32]) -> Option<Vec<f32>> {
    let architecture = model.architecture();
    let experts = architecture.layer(layer as usize).ffn.experts.as_ref()?;
    if !experts.own_norms {
        return None;
    }
    let weight = |role| model.vector(WeightKey::layer(role, layer as usize));
    let (from, to) = (weight(Role::FfnNorm)?, weight(Role::PreExpertsNorm)?);
    let offset = architecture.norm.offset;
    let scale = |(&from, &to): (&f32, &f32)| match from + offset {
        // A weight of 0 leaves nothing to tell from.
        0.0 => 0.0,
        from => (to + offset) / from,
    };
    let scales = from.iter().zip(to.iter()).map(scale);
    Some(dense.iter().zip(scales).map(|(value, scale)| value * scale).collect())
}

/// The rows that say where the heads look: the `top` positions of all heads together, then each head's
/// own best.
fn attention_rows(
    layer: u32,
    weights: &[f32],
    tokens: &[u32],
    top: usize,
    columns: &[FeatureColumn],
    tokenizer: &Tokenizer,
) -> Vec<Row> {
    let positions = tokens.len();
    let heads = weights.len() / positions.max(1);
    let row = |head: Option<usize>, (position, weight): (usize, f32)| -> Row {
        let integer = |number: usize| Value::Integer(number as i64);
        let cell = |column: &FeatureColumn| match column {
            FeatureColumn::Layer => Value::Integer(layer.into()),
            FeatureColumn::Head => head.map_or(Value::Null, integer),
            FeatureColumn::Position => integer(position),
            FeatureColumn::Token => Value::Text(tokenizer.word(tokens[position])),
            FeatureColumn::Weight => Value::Score(weight),
            _ => Value::Null,
        };
        columns.iter().map(cell).collect()
    };
    let mut together = vec![0.0; positions];
    for head in weights.chunks_exact(positions) {
        together.iter_mut().zip(head).for_each(|(sum, weight)| *sum += weight / heads as f32);
    }
    let best = top_k(&together, top).into_iter().map(|best| row(None, best));
    let each = weights
        .chunks_exact(positions)
        .enumerate()
        .flat_map(|(head, weights)| top_k(weights, 1).into_iter().map(move |best| (head, best)));
    best.chain(each.map(|(head, best)| row(Some(head), best))).collect()
}

/// Whether a feature of the base is one of an expert's.
fn is_of_expert(model: &Model, layer: u32, feature: u32) -> bool {
    let networks = model.architecture().networks(layer as usize);
    let of = |network: &Network| {
        (network.first..network.first + network.features).contains(&(feature as usize))
    };
    networks.iter().find(|network| of(network)).is_some_and(|network| network.expert.is_some())
}

impl ExplainInfer {
    pub(super) fn new(explain: plan::ExplainInfer) -> Self {
        Self { explain, captured: None, tokens: Vec::new() }
    }

    fn capture(
        &self,
        work: &mut Work<'_>,
        tokens: &[u32],
    ) -> Result<BTreeMap<u32, Captured>, Failure> {
        let model = work.model()?;
        let ffn = inference::ffn(self.explain.ffn);
        let mut hook = CaptureFfn {
            layers: &self.explain.layers,
            last: 0,
            attention: self.explain.attention.then(|| tokens.len() - 1),
            captured: BTreeMap::new(),
        };
        let edits = work.edits(&model)?;
        let pool = work.engine().pool();
        let run = Run::new(&model, pool, &*ffn, Precision::Serving, tokens.len())?;
        let mut run = run.under(&edits);
        run.prefill(tokens, Some(&mut hook), work.cancel)?;
        work.touch_passes(run.meters());
        let hidden = model.architecture().hidden_size;
        for captured in hook.captured.values_mut() {
            captured.input.drain(..captured.input.len().saturating_sub(hidden));
        }
        Ok(hook.captured)
    }
}

impl Operator for ExplainInfer {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.captured.is_none() {
            self.tokens = inference::prompt_tokens(&*work.model()?, &self.explain.prompt)?;
            self.captured = Some(self.capture(work, &self.tokens)?.into_iter());
        }
        let model = work.model()?;
        let most = usize::try_from(self.explain.top).unwrap_or(usize::MAX);
        let Some(layers) = &mut self.captured else { return Ok(None) };
        for (layer, captured) in layers.by_ref() {
            work.cancel.check()?;
            let experts = experts_input(&model, layer, &captured.input);
            let experts = experts.as_deref().unwrap_or(&captured.input);
            let mut scores = network_scores(work, &model, layer, &captured.input, experts)?;
            let edits = work.edits(&model)?;
            let read = |feature| match is_of_expert(&model, layer, feature) {
                true => experts,
                false => &captured.input,
            };
            let edited = edited_gates::scores(&edits.stored, layer, read);
            edited_gates::merge(&mut scores, &edited);
            let hits = top_k_by_magnitude(&scores, most.min(scores.len()));
            let mut computed = OutputTokens::default();
            let features = hits.iter().map(|&(feature, _)| feature as u32);
            computed.prepare(work, &model, layer, features)?;
            let mut rows =
                FeatureRows::new((&*model, &edits.stored), &self.explain.columns, None, &computed)?;
            let mut batch = Vec::new();
            for (feature, score) in hits {
                let edited = edits.overlay.as_ref().and_then(|overlay| {
                    let (layer, input) = (layer as usize, read(feature as u32));
                    overlay.activation(model.architecture(), layer, feature, input)
                });
                let activation = edited.or_else(|| captured.activations.get(feature).copied());
                let activation = activation.or(Some(0.0));
                let hit = Hit { score: Some(score), activation };
                batch.extend(rows.row(layer, feature as u32, hit, self.explain.tokens_required));
            }
            rows.finish(work);
            if self.explain.attention {
                let Self { explain, tokens, .. } = self;
                let tokenizer = model.tokenizer()?;
                let weights = &captured.attention;
                batch.extend(attention_rows(
                    layer,
                    weights,
                    tokens,
                    most,
                    &explain.columns,
                    tokenizer,
                ));
            }
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}
