//! Rewrites that are always right, whatever they cost. One rule a file.

mod limit_into_scan;
mod merge_filters;
mod prune_columns;
mod push_filter_below_project;
mod push_filter_into_concatenate;
mod push_filter_into_join;
mod push_join_condition;
mod push_layer_range;

use super::Plan;
use crate::explain::RuleTrace;

/// One rewrite of one node.
pub trait Rule {
    /// The rule's name, in EXPLAIN (RULES).
    fn name(&self) -> &'static str;
    /// The better plan in place of `plan`, if the rule applies to this node.
    fn rewrite(&self, plan: &Plan) -> Option<Plan>;
}

/// In the order in which they are tried.
const RULES: &[&dyn Rule] = &[
    // Conditions first go down to the sources that they are about, together where they meet.
    &merge_filters::MergeFilters,
    &push_filter_below_project::PushFilterBelowProject,
    &push_filter_into_concatenate::PushFilterIntoConcatenate,
    &push_filter_into_join::PushFilterIntoJoin,
    &push_join_condition::PushJoinCondition,
    // Before the limit, because what it removes from a filter lets a limit reach the scan.
    &push_layer_range::PushLayerRange,
    &limit_into_scan::LimitIntoScan,
    // Last, when no column is needed by a predicate that has been pushed away.
    &prune_columns::PruneColumns,
];

/// The names of all rules.
pub fn names() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.name())
}

/// More changes than any plan needs; a rule that never stops would be found here.
const CHANGES_MAX: usize = 1 << 16;

/// Applies every rule wherever it fits until none does, noting each change. After a change the first
/// rules are tried first again, so that what it brought together is dealt with before it moves on.
pub fn rewrite(mut plan: Plan, trace: &mut RuleTrace) -> Plan {
    let columns = plan.columns();
    for _ in 0..CHANGES_MAX {
        let Some(rule) = RULES.iter().find(|rule| apply(**rule, &mut plan)) else { return plan };
        assert_eq!(plan.columns(), columns, "{} changed the output columns", rule.name());
        trace.note(rule.name(), || plan.to_string());
    }
    panic!("rules do not come to an end");
}

/// Applies a rule to the topmost node that it fits.
fn apply(rule: &dyn Rule, plan: &mut Plan) -> bool {
    if let Some(better) = rule.rewrite(plan) {
        *plan = better;
        return true;
    }
    plan.inputs_mut().iter_mut().any(|input| apply(rule, input))
}
