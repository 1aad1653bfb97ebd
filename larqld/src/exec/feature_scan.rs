//! Feature sources without a query: whole layers, or slots by number; as edits leave them.

use larql_planner::layers::Slot;
use larql_planner::physical::plan;

use super::edited_gates;
use super::feature_row::{FeatureRows, Hit};
use super::output_tokens::OutputTokens;
use super::{BATCH_ROWS, Operator, Row, Work};
use crate::failure::Failure;
use crate::mounts::FEATURES_AT_ONCE;

/// Every feature that has output tokens, by layer and feature.
pub(super) struct FeatureScan {
    scan: plan::FeatureScan,
    layers: std::vec::IntoIter<u32>,
    layer: Option<u32>,
    next_feature: u64,
    given: u64,
    computed: OutputTokens,
}

impl FeatureScan {
    pub(super) fn new(scan: plan::FeatureScan) -> Self {
        let mut layers = scan.layers.iter().collect::<Vec<_>>().into_iter();
        let layer = layers.next();
        let computed = OutputTokens::default();
        Self { scan, layers, layer, next_feature: 0, given: 0, computed }
    }
}

impl Operator for FeatureScan {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let model = work.model()?;
        let mut batch = Vec::new();
        while let Some(layer) = self.layer {
            work.cancel.check()?;
            let overlay = work.view().overlay().clone();
            let features = edited_gates::features(&model, &overlay, layer);
            // As many as are computed at once, from a multiple of that, so that none is computed twice.
            let at_once = FEATURES_AT_ONCE as u64;
            let first = self.next_feature / at_once * at_once;
            let end = features.min(first + at_once);
            let end = self
                .scan
                .rows_max
                .map_or(end, |most| end.min(self.next_feature.saturating_add(most).max(first + 1)));
            let block = self.next_feature as u32..end.max(self.next_feature) as u32;
            self.computed.prepare(work, &model, layer, block)?;
            let with = (&*model, &overlay);
            let mut rows = FeatureRows::new(with, &self.scan.columns, None, &self.computed)?;
            while self.next_feature < end && batch.len() < BATCH_ROWS {
                if self.scan.rows_max.is_some_and(|most| self.given >= most) {
                    self.layer = None;
                    break;
                }
                let feature = self.next_feature as u32;
                self.next_feature += 1;
                if let Some(row) = rows.row(layer, feature, Hit::default(), true) {
                    batch.push(row);
                    self.given += 1;
                }
            }
            rows.finish(work);
            if batch.len() >= BATCH_ROWS || self.layer.is_none() {
                break;
            }
            if self.next_feature < features {
                continue;
            }
            self.layer = self.layers.next();
            self.next_feature = 0;
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}

/// The named features, those that have output tokens.
pub(super) struct SlotLookup {
    lookup: plan::SlotLookup,
    next: usize,
}

impl SlotLookup {
    pub(super) fn new(lookup: plan::SlotLookup) -> Self {
        Self { lookup, next: 0 }
    }
}

impl Operator for SlotLookup {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let model = work.model()?;
        let overlay = work.view().overlay().clone();
        let features = |layer| edited_gates::features(&model, &overlay, layer);
        let mut computed = OutputTokens::default();
        let end = self.lookup.slots.len().min(self.next + BATCH_ROWS);
        let wanted = &self.lookup.slots[self.next..end];
        for slots in wanted.chunk_by(|a, b| a.layer == b.layer) {
            let (layer, features) = (slots[0].layer, features(slots[0].layer));
            let there = slots.iter().filter(|slot| slot.feature < features);
            computed.prepare(work, &model, layer, there.map(|slot| slot.feature as u32))?;
        }
        let mut rows =
            FeatureRows::new((&*model, &overlay), &self.lookup.columns, None, &computed)?;
        let mut batch = Vec::new();
        while let Some(&Slot { layer, feature }) = self.lookup.slots[..end].get(self.next) {
            self.next += 1;
            if feature < features(layer) {
                batch.extend(rows.row(layer, feature as u32, Hit::default(), true));
            }
        }
        rows.finish(work);
        Ok((!batch.is_empty()).then_some(batch))
    }
}
