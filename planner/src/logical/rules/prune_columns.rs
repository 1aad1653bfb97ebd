//! What computes columns from others (`Project`, `Aggregate`) asks what is below it only for those that
//! somebody reads, so that output tokens nobody wants are not decoded, and joins hold narrow rows.

use super::Rule;
use crate::bind::expression::{ColumnIndex, Expression};
use crate::logical::Plan;

#[derive(Debug)]
pub struct PruneColumns;

impl Rule for PruneColumns {
    fn name(&self) -> &'static str {
        "prune_columns"
    }

    fn rewrite(&self, plan: &Plan) -> Option<Plan> {
        let (mut needed, input) = match plan {
            Plan::Project { expressions, input, .. } => {
                (expressions.iter().flat_map(Expression::columns).collect::<Vec<_>>(), input)
            }
            Plan::Aggregate { keys, aggregates, input, .. } => {
                let arguments = aggregates.iter().filter_map(|one| one.argument.as_ref());
                (keys.iter().chain(arguments).flat_map(Expression::columns).collect(), input)
            }
            _ => return None,
        };
        needed.sort_unstable();
        needed.dedup();
        let (narrow, kept) = narrowed(input, &needed);
        if kept.len() == input.columns().len() {
            return None;
        }
        let new = renumbering(&kept);
        let mut plan = plan.clone();
        match &mut plan {
            Plan::Project { expressions, input, .. } => {
                expressions.iter_mut().for_each(|one| *one = one.renumber(&new));
                **input = narrow;
            }
            Plan::Aggregate { keys, aggregates, input, .. } => {
                keys.iter_mut().for_each(|key| *key = key.renumber(&new));
                let arguments = aggregates.iter_mut().filter_map(|one| one.argument.as_mut());
                arguments.for_each(|argument| *argument = argument.renumber(&new));
                **input = narrow;
            }
            _ => return None,
        }
        Some(plan)
    }
}

/// Where the kept columns (ascending) stand among themselves.
fn renumbering(kept: &[ColumnIndex]) -> impl Fn(ColumnIndex) -> ColumnIndex + '_ {
    move |old| {
        kept.binary_search(&old)
            .unwrap_or_else(|_| unreachable!("column {old} is read and was not kept"))
    }
}

/// The needed columns with those that an expression reads, ascending.
fn with(needed: &[ColumnIndex], read: impl IntoIterator<Item = ColumnIndex>) -> Vec<ColumnIndex> {
    let mut all: Vec<ColumnIndex> = needed.iter().copied().chain(read).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The plan with at least the needed columns (ascending), and the columns that it kept.
fn narrowed(plan: &Plan, needed: &[ColumnIndex]) -> (Plan, Vec<ColumnIndex>) {
    fn keep<T: Clone>(columns: &mut Vec<T>, needed: &[ColumnIndex]) {
        *columns = needed.iter().map(|index| columns[*index].clone()).collect();
    }
    let mut plan = plan.clone();
    let kept = match &mut plan {
        Plan::Features { columns, .. }
        | Plan::GateHits { columns, .. }
        | Plan::Nearest { columns, .. } => {
            keep(columns, needed);
            needed.to_vec()
        }
        Plan::ExplainInfer(explain) => {
            keep(&mut explain.columns, needed);
            needed.to_vec()
        }
        Plan::TableScan { scan, columns } => {
            keep(columns, needed);
            keep(&mut scan.columns, needed);
            needed.to_vec()
        }
        Plan::Project { expressions, columns, .. } => {
            keep(columns, needed);
            keep(expressions, needed);
            needed.to_vec()
        }
        Plan::Filter { predicate, input } => {
            let (narrow, kept) = narrowed(input, &with(needed, predicate.columns()));
            *predicate = predicate.renumber(&renumbering(&kept));
            **input = narrow;
            kept
        }
        Plan::Sort { keys, input } => {
            let read = keys.iter().flat_map(|key| key.expression.columns());
            let (narrow, kept) = narrowed(input, &with(needed, read));
            for key in keys {
                key.expression = key.expression.renumber(&renumbering(&kept));
            }
            **input = narrow;
            kept
        }
        Plan::Limit { input, .. } => {
            let (narrow, kept) = narrowed(input, needed);
            **input = narrow;
            kept
        }
        Plan::Join { on, inputs } => {
            let width = inputs[0].columns().len();
            let all = with(needed, on.iter().flat_map(Expression::columns));
            let (left, right): (Vec<_>, Vec<_>) = all.into_iter().partition(|at| *at < width);
            let right: Vec<ColumnIndex> = right.into_iter().map(|at| at - width).collect();
            let (left, left_kept) = narrowed(&inputs[0], &left);
            let (right, right_kept) = narrowed(&inputs[1], &right);
            let right_kept = right_kept.into_iter().map(|at| at + width);
            let kept: Vec<ColumnIndex> = left_kept.into_iter().chain(right_kept).collect();
            *on = on.as_ref().map(|on| on.renumber(&renumbering(&kept)));
            **inputs = [left, right];
            kept
        }
        other => (0..other.columns().len()).collect(),
    };
    (plan, kept)
}
