//! `Filter(feature = n AND rest)` over `GateScan` becomes `Filter(rest)` over `GateSlots`, where K
//! cannot bind: with K absent or at least as large as every layer, each gate is a hit by itself and
//! no rank needs the rest of the layer. Otherwise the scan stays, because the rows would differ.

use super::slots::pinned;
use super::{Context, Rule};
use crate::cost::total_ms;
use crate::physical::plan::{GateSlots, Node, Operator};
use crate::settings::AccessPath;

#[derive(Debug)]
pub struct GateSlotsRule;

impl Rule for GateSlotsRule {
    fn name(&self) -> &'static str {
        "gate_slots"
    }

    fn rewrite(&self, node: &Node, context: &Context<'_>) -> Option<Node> {
        let choice = context.settings.allows(AccessPath::Slots)?;
        if !context.settings.enable_gate_slots() {
            return None;
        }
        let Operator::Filter { predicate } = &node.operator else { return None };
        let [input] = node.children.as_slice() else { return None };
        let Operator::GateScan(scan) = &input.operator else { return None };
        let mount = context.mount?;
        let binds = |k: u64| scan.layers.iter().any(|layer| mount.features_edited(layer) > k);
        if scan.k.is_some_and(binds) {
            return None;
        }
        let (slots, rest) = pinned(predicate, &scan.columns, &scan.layers, mount)?;
        let lookup = Operator::GateSlots(GateSlots {
            query: scan.query.clone(),
            slots,
            z_min: scan.z_min,
            tokens_required: scan.tokens_required,
            columns: scan.columns.clone(),
        });
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
