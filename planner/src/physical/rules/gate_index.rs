//! `GateScan` becomes `GateIndexScan` where an index of gates reads less than the gates themselves. An index that
//! misses hits is used where APPROX says so, or where it was measured to find nearly all of them.

use super::{Context, Rule};
use crate::catalog::RECALL_MIN;
use crate::cost::total_ms;
use crate::physical::plan::{GateIndexScan, Node, Operator};
use crate::settings::AccessPath;

#[derive(Debug)]
pub struct GateIndexRule;

impl Rule for GateIndexRule {
    fn name(&self) -> &'static str {
        "gate_index"
    }

    fn rewrite(&self, node: &Node, context: &Context<'_>) -> Option<Node> {
        let choice = context.settings.allows(AccessPath::GateIndex)?;
        let Operator::GateScan(scan) = &node.operator else { return None };
        let mount = context.mount?;
        // Where all gates are hits, all of them are scored.
        let k = scan.k?;
        if scan.layers.iter().all(|layer| mount.features(layer) <= k) {
            return None;
        }
        let indexes = mount.gate_indexes().into_iter().filter(|index| {
            scan.approximate || index.recall.is_none_or(|recall| recall >= RECALL_MIN)
        });
        let indexed = indexes.map(|index| {
            let by = GateIndexScan { index: index.name, scan: scan.clone() };
            let columns = node.columns.clone();
            let by = Node::new(Operator::GateIndexScan(by), Vec::new(), columns);
            (total_ms(&by, context), by)
        });
        let (ms, better) = indexed.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (choice.is_forced() || ms < total_ms(node, context)).then_some(better)
    }
}
