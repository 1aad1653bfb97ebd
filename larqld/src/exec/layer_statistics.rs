//! SHOW LAYERS: one row a layer, as edits leave it.

use std::collections::HashMap;

use larql_planner::catalog::Bands;
use larql_planner::layers::LayerSet;
use larql_planner::value::Value;

use super::edited_gates;
use super::mount_row::integer;
use super::output_tokens::OutputTokens;
use super::{Operator, Row, Work};
use crate::failure::Failure;
use crate::mounts::Model;
use crate::text::is_content;

/// Gives one layer a batch, since each reads all records of its features.
pub(super) struct LayerStatistics {
    layers: std::vec::IntoIter<u32>,
}

impl LayerStatistics {
    pub(super) fn new(layers: LayerSet) -> Self {
        Self { layers: layers.iter().collect::<Vec<_>>().into_iter() }
    }
}

impl Operator for LayerStatistics {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(layer) = self.layers.next() else { return Ok(None) };
        work.cancel.check()?;
        let model = work.model()?;
        let (with_tokens, top_target) = targets(work, &model, layer)?;
        model.learn_gate_scores(layer, work.engine().pool(), work.cancel)?;
        let (mean, deviation) = match model.gate_scores(layer) {
            Some((mean, deviation)) => (Value::Score(mean as f32), Value::Score(deviation as f32)),
            None => (Value::Null, Value::Null),
        };
        Ok(Some(vec![vec![
            integer(layer.into()),
            band(model.bands(), layer).map_or(Value::Null, Value::text),
            integer(edited_gates::features(&model, work.view().overlay(), layer)),
            with_tokens,
            top_target,
            mean,
            deviation,
        ]]))
    }
}

/// How many features have output tokens, and the content token that most of them promote first.
fn targets(work: &mut Work<'_>, model: &Model, layer: u32) -> Result<(Value, Value), Failure> {
    let Some(meta) = model.down_meta() else { return Ok((Value::Null, Value::Null)) };
    let tokenizer = model.tokenizer()?;
    let overlay = work.view().overlay().clone();
    let edited: Vec<u32> = overlay
        .features_of(layer)
        .filter(|(_, delta)| delta.hidden || delta.down.is_some())
        .map(|(slot, _)| slot.feature)
        .collect();
    let mut computed = OutputTokens::default();
    computed.prepare(work, model, layer, edited.iter().copied())?;
    let mut count = 0;
    let mut tops: HashMap<u32, u64> = HashMap::new();
    let mut offer = |mut tokens: std::slice::Iter<'_, (u32, f32)>| {
        if let Some((id, _)) = tokens.find(|(id, _)| !tokenizer.word(*id).is_empty()) {
            count += 1;
            *tops.entry(*id).or_default() += 1;
        }
    };
    let mut list = Vec::new();
    for feature in 0..meta.features(layer) {
        if edited.binary_search(&feature).is_err()
            && let Some(tokens) = meta.feature(layer, feature)
        {
            list.clear();
            list.extend(tokens.tokens());
            offer(list.iter());
        }
    }
    // Those of hidden features were not computed.
    for &feature in &edited {
        offer(computed.get(layer, feature).iter());
    }
    work.touch(u64::from(meta.features(layer)) * meta.record_bytes() as u64);
    let content = tops
        .into_iter()
        .filter(|(id, _)| !tokenizer.is_special(*id) && is_content(&tokenizer.word(*id)));
    let top = content.max_by(|(a, a_count), (b, b_count)| a_count.cmp(b_count).then(b.cmp(a)));
    Ok((integer(count), top.map_or(Value::Null, |(id, _)| Value::Text(tokenizer.word(id)))))
}

fn band(bands: Option<Bands>, layer: u32) -> Option<&'static str> {
    let bands = bands?;
    let within = |(first, last): (u32, u32)| (first..=last).contains(&layer);
    [("syntax", bands.syntax), ("knowledge", bands.knowledge), ("output", bands.output)]
        .into_iter()
        .find(|(_, band)| within(*band))
        .map(|(name, _)| name)
}
