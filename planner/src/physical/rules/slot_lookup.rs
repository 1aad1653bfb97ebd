//! `Filter(feature = n AND rest)` over `FeatureScan` becomes `Filter(rest)` over `SlotLookup`, where
//! that costs less: a few records are read instead of whole layers.

use super::slots::pinned;
use super::{Context, Rule};
use crate::cost::total_ms;
use crate::physical::plan::{Node, Operator, SlotLookup};
use crate::settings::AccessPath;

#[derive(Debug)]
pub struct SlotLookupRule;

impl Rule for SlotLookupRule {
    fn name(&self) -> &'static str {
        "slot_lookup"
    }

    fn rewrite(&self, node: &Node, context: &Context<'_>) -> Option<Node> {
        let choice = context.settings.allows(AccessPath::Slots)?;
        if !context.settings.enable_slot_lookup() {
            return None;
        }
        let Operator::Filter { predicate } = &node.operator else { return None };
        let [input] = node.children.as_slice() else { return None };
        let Operator::FeatureScan(scan) = &input.operator else { return None };
        // A bound on rows counts rows before the filter.
        if scan.rows_max.is_some() {
            return None;
        }
        let (slots, rest) = pinned(predicate, &scan.columns, &scan.layers, context.mount?)?;
        let lookup = Operator::SlotLookup(SlotLookup { slots, columns: scan.columns.clone() });
        let lookup = Node::new(lookup, Vec::new(), input.columns.clone());
        let better = match rest {
            Some(predicate) => {
                Node::new(Operator::Filter { predicate }, vec![lookup], node.columns.clone())
            }
            None => lookup,
        };
        (choice.is_forced() || total_ms(&better, context) < total_ms(node, context))
            .then_some(better)
    }
}
