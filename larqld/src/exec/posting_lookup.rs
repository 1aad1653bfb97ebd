//! Features that an index lists under some texts, and those that edits may have given such a text since.

use larql_planner::layers::Slot;
use larql_planner::physical::plan;

use super::feature_scan::{FeatureScan, SlotLookup};
use super::{Operator, Row, Work};
use crate::failure::Failure;

/// Bytes of a feature in a list.
const POSTING_BYTES: u64 = 12;

/// Looks up lists, then their features; scans where the index has gone since the plan was made. Whatever
/// reads the rows judges them itself, so that both are right.
pub(super) struct PostingLookup {
    lookup: plan::PostingLookup,
    features: Option<Box<dyn Operator>>,
}

impl PostingLookup {
    pub(super) fn new(lookup: plan::PostingLookup) -> Self {
        Self { lookup, features: None }
    }
}

impl Operator for PostingLookup {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let features = match &mut self.features {
            Some(features) => features,
            none => {
                let plan::PostingLookup { of, texts, layers, columns, .. } = self.lookup.clone();
                let lists = work.model()?.indexes().postings(of);
                none.insert(match lists {
                    Some(lists) => {
                        let mut slots = lists.slots(&texts, &layers);
                        work.touch(slots.len() as u64 * POSTING_BYTES);
                        // The index is of the base: whatever was edited is judged by itself.
                        let edited = work.view().overlay().features().map(|(slot, _)| Slot {
                            layer: slot.layer,
                            feature: slot.feature.into(),
                        });
                        slots.extend(edited.filter(|slot| layers.contains(slot.layer)));
                        slots.sort_unstable();
                        slots.dedup();
                        Box::new(SlotLookup::new(plan::SlotLookup { slots, columns }))
                    }
                    None => {
                        let scan = plan::FeatureScan { layers, rows_max: None, columns };
                        Box::new(FeatureScan::new(scan))
                    }
                })
            }
        };
        features.next(work)
    }
}
