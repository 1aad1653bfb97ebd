//! `EntityCount` over a scan of every layer becomes `EntityLookup`, where an index lists targets and that
//! costs less: its lists are as long as the counts that are asked for.

use super::{Context, Rule};
use crate::catalog::IndexTarget;
use crate::cost::total_ms;
use crate::layers::LayerSet;
use crate::physical::plan::{Node, Operator};
use crate::settings::AccessPath;

#[derive(Debug)]
pub struct EntityLookupRule;

impl Rule for EntityLookupRule {
    fn name(&self) -> &'static str {
        "entity_lookup"
    }

    fn rewrite(&self, node: &Node, context: &Context<'_>) -> Option<Node> {
        let choice = context.settings.allows(AccessPath::Postings)?;
        let Operator::EntityCount = &node.operator else { return None };
        let [input] = node.children.as_slice() else { return None };
        let Operator::FeatureScan(scan) = &input.operator else { return None };
        let mount = context.mount?;
        if scan.rows_max.is_some() || scan.layers != LayerSet::all(mount.layers()) {
            return None;
        }
        let index = mount.postings(IndexTarget::Targets)?.name().to_owned();
        let better = Operator::EntityLookup { index };
        let better = Node::new(better, Vec::new(), node.columns.clone());
        (choice.is_forced() || total_ms(&better, context) < total_ms(node, context))
            .then_some(better)
    }
}
