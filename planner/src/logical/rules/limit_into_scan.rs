//! `Limit` over a scan (or over columns computed from one) tells the scan when to stop, so that no
//! metadata beyond the last row is read. The limit itself stays where it was.

use super::Rule;
use crate::logical::Plan;

#[derive(Debug)]
pub struct LimitIntoScan;

impl Rule for LimitIntoScan {
    fn name(&self) -> &'static str {
        "limit_into_scan"
    }

    fn rewrite(&self, plan: &Plan) -> Option<Plan> {
        let Plan::Limit { count: Some(count), offset, input } = plan else { return None };
        let rows = count.saturating_add(*offset);
        let mut input = input.clone();
        let scan = match &mut *input {
            Plan::Project { input, .. } => &mut **input,
            other => other,
        };
        let bound = match scan {
            Plan::Features { rows_max, .. } => rows_max,
            Plan::Nearest { k, .. } => k,
            _ => return None,
        };
        if bound.is_some_and(|bound| bound <= rows) {
            return None;
        }
        *bound = Some(rows);
        Some(Plan::Limit { count: Some(*count), offset: *offset, input })
    }
}
