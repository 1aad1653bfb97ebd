//! Rewrites that are always right, whatever they cost. One rule a file.

mod limit_into_scan;
mod prune_columns;
mod push_layer_range;

use super::Plan;
use crate::explain::RuleStep;

/// One rewrite of one node.
pub trait Rule {
    /// The rule's name, in EXPLAIN (RULES).
    fn name(&self) -> &'static str;
    /// The better plan in place of `plan`, if the rule applies to this node.
    fn rewrite(&self, plan: &Plan) -> Option<Plan>;
}

/// In the order in which they are tried.
const RULES: &[&dyn Rule] = &[
    // First, because what it removes from a filter lets a limit reach the scan.
    &push_layer_range::PushLayerRange,
    &limit_into_scan::LimitIntoScan,
    // Last, when no column is needed by a predicate that has been pushed away.
    &prune_columns::PruneColumns,
];

/// More passes than any plan needs; a rule that never stops would be found here.
const PASSES_MAX: usize = 32;

/// Applies every rule wherever it fits until none does, noting each change.
pub fn rewrite(mut plan: Plan, trace: &mut Vec<RuleStep>) -> Plan {
    for rule in RULES {
        let before = plan.columns();
        let mut passes = 0;
        while apply(*rule, &mut plan) {
            assert_eq!(plan.columns(), before, "{} changed the output columns", rule.name());
            trace.push(RuleStep::new(rule.name(), plan.to_string()));
            passes += 1;
            assert!(passes < PASSES_MAX, "{} does not come to an end", rule.name());
        }
    }
    plan
}

/// Applies a rule to the topmost node that it fits.
fn apply(rule: &dyn Rule, plan: &mut Plan) -> bool {
    if let Some(better) = rule.rewrite(plan) {
        *plan = better;
        return true;
    }
    plan.inputs_mut().iter_mut().any(|input| apply(rule, input))
}
