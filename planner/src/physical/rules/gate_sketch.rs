//! `GateScan` becomes `GateSketch` where an index of gates reads less than the gates themselves. An index that
//! misses hits is used where APPROX says so, or where it was measured to find nearly all of them.

use super::{Context, Rule};
use crate::cost::total_ms;
use crate::physical::plan::{GateSketch, Node, Operator};
use crate::settings::AccessPath;

#[derive(Debug)]
pub struct GateSketchRule;

/// The recall from which on an index is as good as the scan.
const RECALL_MIN: f64 = 0.99;

impl Rule for GateSketchRule {
    fn name(&self) -> &'static str {
        "gate_sketch"
    }

    fn rewrite(&self, node: &Node, context: &Context<'_>) -> Option<Node> {
        let choice = context.settings.allows(AccessPath::Sketch)?;
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
        let sketches = indexes.map(|index| {
            let sketch = GateSketch { index: index.name, scan: scan.clone() };
            let columns = node.columns.clone();
            let sketch = Node::new(Operator::GateSketch(sketch), Vec::new(), columns);
            (total_ms(&sketch, context), sketch)
        });
        let (ms, better) = sketches.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (choice.is_forced() || ms < total_ms(node, context)).then_some(better)
    }
}
