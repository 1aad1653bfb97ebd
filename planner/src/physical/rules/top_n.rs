//! `Limit(n)` over `Sort` becomes `TopN(n)`: the rows wanted are kept, not all of them.

use super::{Context, Rule};
use crate::physical::plan::{Node, Operator};

#[derive(Debug)]
pub struct TopNRule;

/// Beyond so many rows a full sort is as good, and keeps no heap of that size by promise.
const ROWS_MAX: u64 = 1 << 20;

impl Rule for TopNRule {
    fn name(&self) -> &'static str {
        "top_n"
    }

    fn rewrite(&self, node: &Node, _: &Context<'_>) -> Option<Node> {
        let Operator::Limit { count: Some(count), offset } = node.operator else { return None };
        let [sort] = node.children.as_slice() else { return None };
        let Operator::Sort { keys } = &sort.operator else { return None };
        if count.saturating_add(offset) > ROWS_MAX {
            return None;
        }
        let operator = Operator::TopN { keys: keys.clone(), count, offset };
        Some(Node::new(operator, sort.children.clone(), node.columns.clone()))
    }
}
