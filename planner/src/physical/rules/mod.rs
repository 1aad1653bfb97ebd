//! Rewrites that choose how: each may look at costs and settings. One rule a file.

mod entity_lookup;
mod gate_index;
mod gate_slots;
mod hash_join;
mod posting_lookup;
mod slot_lookup;
mod slots;
mod top_n;

use super::{Context, Node};
use crate::explain::{RuleTrace, tree};

/// One rewrite of one node.
pub trait Rule {
    /// The rule's name, in EXPLAIN (RULES).
    fn name(&self) -> &'static str;
    /// The better node in place of `node`, if the rule applies and pays.
    fn rewrite(&self, node: &Node, context: &Context<'_>) -> Option<Node>;
}

/// In the order in which they are tried.
const RULES: &[&dyn Rule] = &[
    &slot_lookup::SlotLookupRule,
    &gate_slots::GateSlotsRule,
    &posting_lookup::PostingLookupRule,
    &entity_lookup::EntityLookupRule,
    &gate_index::GateIndexRule,
    &hash_join::HashJoinRule,
    &top_n::TopNRule,
];

/// The names of all rules.
pub fn names() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.name())
}

/// More passes than any plan needs; a rule that never stops would be found here.
const PASSES_MAX: usize = 1 << 16;

/// Applies every rule wherever it fits until none does, noting each change.
pub fn rewrite(mut node: Node, context: &Context<'_>, trace: &mut RuleTrace) -> Node {
    for rule in RULES {
        let before = node.columns.clone();
        let mut passes = 0;
        while apply(*rule, &mut node, context) {
            assert_eq!(node.columns, before, "{} changed the output columns", rule.name());
            trace.note(rule.name(), || tree(&node));
            passes += 1;
            assert!(passes < PASSES_MAX, "{} does not come to an end", rule.name());
        }
    }
    node
}

/// Applies a rule to the topmost node that it fits.
fn apply(rule: &dyn Rule, node: &mut Node, context: &Context<'_>) -> bool {
    if let Some(better) = rule.rewrite(node, context) {
        *node = better;
        return true;
    }
    node.children.iter_mut().any(|child| apply(rule, child, context))
}
