//! `Project` over filters, sorts and limits over a feature source asks the source only for the
//! columns that somebody reads, so that output tokens nobody wants are not decoded.

use super::Rule;
use crate::bind::expression::{ColumnIndex, Expression};
use crate::logical::Plan;
use crate::physical::plan::FeatureColumn;

#[derive(Debug)]
pub struct PruneColumns;

impl Rule for PruneColumns {
    fn name(&self) -> &'static str {
        "prune_columns"
    }

    fn rewrite(&self, plan: &Plan) -> Option<Plan> {
        let Plan::Project { expressions, columns, input } = plan else { return None };
        let mut used: Vec<ColumnIndex> = expressions.iter().flat_map(Expression::columns).collect();
        let available = collect(input, &mut used)?;
        used.sort_unstable();
        used.dedup();
        if used.len() == available {
            return None;
        }
        let new = |old: ColumnIndex| {
            used.binary_search(&old)
                .unwrap_or_else(|_| unreachable!("column {old} is read and was not collected"))
        };
        let mut input = input.clone();
        prune(&mut input, &used, &new);
        let expressions = expressions.iter().map(|expression| expression.renumber(&new)).collect();
        Some(Plan::Project { expressions, columns: columns.clone(), input })
    }
}

/// Adds the columns that the nodes between here and the source read; gives how many columns the
/// source has, if the chain ends in one.
fn collect(plan: &Plan, used: &mut Vec<ColumnIndex>) -> Option<usize> {
    match plan {
        Plan::Features { columns, .. }
        | Plan::GateHits { columns, .. }
        | Plan::Nearest { columns, .. } => Some(columns.len()),
        Plan::ExplainInfer(explain) => Some(explain.columns.len()),
        Plan::Filter { predicate, input } => {
            used.extend(predicate.columns());
            collect(input, used)
        }
        Plan::Sort { keys, input } => {
            used.extend(keys.iter().flat_map(|key| key.expression.columns()));
            collect(input, used)
        }
        Plan::Limit { input, .. } => collect(input, used),
        _ => None,
    }
}

fn prune(plan: &mut Plan, used: &[ColumnIndex], new: &dyn Fn(ColumnIndex) -> ColumnIndex) {
    let keep = |columns: &mut Vec<FeatureColumn>| {
        *columns = used.iter().map(|index| columns[*index]).collect();
    };
    match plan {
        Plan::Features { columns, .. }
        | Plan::GateHits { columns, .. }
        | Plan::Nearest { columns, .. } => keep(columns),
        Plan::ExplainInfer(explain) => keep(&mut explain.columns),
        Plan::Filter { predicate, input } => {
            *predicate = predicate.renumber(new);
            prune(input, used, new);
        }
        Plan::Sort { keys, input } => {
            keys.iter_mut().for_each(|key| key.expression = key.expression.renumber(new));
            prune(input, used, new);
        }
        Plan::Limit { input, .. } => prune(input, used, new),
        _ => {}
    }
}
