//! What computes columns from others (`Project`, `Aggregate`) asks what is below it only for those that
//! somebody reads, so that output tokens nobody wants are not decoded, and joins hold narrow rows.

use super::Rule;
use crate::bind::expression::{ColumnIndex, Expression};
use crate::logical::Plan;
use crate::physical::plan::SortKey;

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
        if kept(input, &needed).len() == input.columns().len() {
            return None;
        }
        let mut plan = plan.clone();
        match &mut plan {
            Plan::Project { expressions, input, .. } => {
                let kept = narrow(input, &needed);
                let new = renumbering(&kept);
                expressions.iter_mut().for_each(|one| *one = one.renumber(&new));
            }
            Plan::Aggregate { keys, aggregates, input, .. } => {
                let kept = narrow(input, &needed);
                let new = renumbering(&kept);
                keys.iter_mut().for_each(|key| *key = key.renumber(&new));
                let arguments = aggregates.iter_mut().filter_map(|one| one.argument.as_mut());
                arguments.for_each(|argument| *argument = argument.renumber(&new));
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

/// The columns (ascending) that are left where the needed ones (ascending) are asked for.
fn kept(plan: &Plan, needed: &[ColumnIndex]) -> Vec<ColumnIndex> {
    match plan {
        Plan::Features { .. }
        | Plan::GateHits { .. }
        | Plan::Nearest { .. }
        | Plan::ExplainInfer(_)
        | Plan::TableScan { .. }
        | Plan::Project { .. } => needed.to_vec(),
        Plan::Filter { predicate, input } => kept(input, &with(needed, predicate.columns())),
        Plan::Sort { keys, input } => kept(input, &with(needed, key_columns(keys))),
        Plan::Limit { input, .. } => kept(input, needed),
        Plan::Join { on, inputs } => {
            let (width, [left, right]) = sides(on.as_ref(), inputs, needed);
            let right = kept(&inputs[1], &right).into_iter().map(|at| at + width);
            kept(&inputs[0], &left).into_iter().chain(right).collect()
        }
        other => (0..other.columns().len()).collect(),
    }
}

fn key_columns(keys: &[SortKey]) -> Vec<ColumnIndex> {
    keys.iter().flat_map(|key| key.expression.columns()).collect()
}

/// What is needed of each input of a join, and how many columns the first has.
fn sides(
    on: Option<&Expression>,
    inputs: &[Plan; 2],
    needed: &[ColumnIndex],
) -> (usize, [Vec<ColumnIndex>; 2]) {
    let width = inputs[0].columns().len();
    let all = with(needed, on.into_iter().flat_map(Expression::columns));
    let (left, right): (Vec<_>, Vec<_>) = all.into_iter().partition(|at| *at < width);
    (width, [left, right.into_iter().map(|at| at - width).collect()])
}

/// Leaves only those columns, and gives which they were.
fn narrow(plan: &mut Plan, needed: &[ColumnIndex]) -> Vec<ColumnIndex> {
    fn keep<T: Clone>(columns: &mut Vec<T>, needed: &[ColumnIndex]) {
        *columns = needed.iter().map(|index| columns[*index].clone()).collect();
    }
    match plan {
        Plan::Features { columns, .. }
        | Plan::GateHits { columns, .. }
        | Plan::Nearest { columns, .. } => keep(columns, needed),
        Plan::ExplainInfer(explain) => keep(&mut explain.columns, needed),
        Plan::TableScan { scan, columns } => {
            keep(columns, needed);
            keep(&mut scan.columns, needed);
        }
        Plan::Project { expressions, columns, .. } => {
            keep(columns, needed);
            keep(expressions, needed);
        }
        Plan::Filter { predicate, input } => {
            let kept = narrow(input, &with(needed, predicate.columns()));
            *predicate = predicate.renumber(&renumbering(&kept));
            return kept;
        }
        Plan::Sort { keys, input } => {
            let kept = narrow(input, &with(needed, key_columns(keys)));
            for key in keys {
                key.expression = key.expression.renumber(&renumbering(&kept));
            }
            return kept;
        }
        Plan::Limit { input, .. } => return narrow(input, needed),
        Plan::Join { on, inputs } => {
            let (width, [left, right]) = sides(on.as_ref(), inputs, needed);
            let [first, second] = &mut **inputs;
            let mut kept = narrow(first, &left);
            kept.extend(narrow(second, &right).into_iter().map(|at| at + width));
            *on = on.as_ref().map(|on| on.renumber(&renumbering(&kept)));
            return kept;
        }
        other => return (0..other.columns().len()).collect(),
    }
    needed.to_vec()
}
