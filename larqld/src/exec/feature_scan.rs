//! Feature sources without a query: whole layers, or slots by number.

use larql_planner::layers::Slot;
use larql_planner::physical::plan;

use super::feature_row::{FeatureRows, Hit};
use super::{BATCH_ROWS, Operator, Row, Work};
use crate::failure::Failure;

/// Every feature that has output tokens, by layer and feature.
pub(super) struct FeatureScan {
    scan: plan::FeatureScan,
    layers: std::vec::IntoIter<u32>,
    layer: Option<u32>,
    next_feature: u64,
    given: u64,
}

impl FeatureScan {
    pub(super) fn new(scan: plan::FeatureScan) -> Self {
        let mut layers = scan.layers.iter().collect::<Vec<_>>().into_iter();
        let layer = layers.next();
        Self { scan, layers, layer, next_feature: 0, given: 0 }
    }
}

impl Operator for FeatureScan {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let model = work.model()?;
        let mut rows = FeatureRows::new(&model, &self.scan.columns, None)?;
        let mut batch = Vec::new();
        while let Some(layer) = self.layer {
            work.cancel.check()?;
            let features = model.features(layer);
            while self.next_feature < features && batch.len() < BATCH_ROWS {
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
            if batch.len() >= BATCH_ROWS || self.layer.is_none() {
                break;
            }
            self.layer = self.layers.next();
            self.next_feature = 0;
        }
        rows.finish(work);
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
        let mut rows = FeatureRows::new(&model, &self.lookup.columns, None)?;
        let mut batch = Vec::new();
        while let Some(&Slot { layer, feature }) = self.lookup.slots.get(self.next)
            && batch.len() < BATCH_ROWS
        {
            self.next += 1;
            if feature < model.features(layer) {
                batch.extend(rows.row(layer, feature as u32, Hit::default(), true));
            }
        }
        rows.finish(work);
        Ok((!batch.is_empty()).then_some(batch))
    }
}
