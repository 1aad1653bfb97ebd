//! `NestedLoopJoin` on equalities between its inputs becomes `HashJoin`: each row meets only those that
//! agree with it. Also where few rows are expected: hashing them costs little, and comparing every
//! pair where the estimate was wrong costs much.

use super::{Context, Rule};
use crate::bind::expression::{ComparisonOperator, Expression};
use crate::physical::plan::{HashJoin, Node, Operator};

#[derive(Debug)]
pub struct HashJoinRule;

impl Rule for HashJoinRule {
    fn name(&self) -> &'static str {
        "hash_join"
    }

    fn rewrite(&self, node: &Node, context: &Context<'_>) -> Option<Node> {
        if !context.settings.enable_hash_join() {
            return None;
        }
        let Operator::NestedLoopJoin { on: Some(on) } = &node.operator else { return None };
        let width = node.children.first()?.columns.len();
        let (mut keys, mut rest) = (Vec::new(), Vec::new());
        for conjunct in on.clone().conjuncts() {
            match equality(&conjunct, width) {
                Some(pair) => keys.push(pair),
                None => rest.push(conjunct),
            }
        }
        if keys.is_empty() {
            return None;
        }
        let join = HashJoin { keys, rest: Expression::conjunction(rest) };
        Some(Node::new(Operator::HashJoin(join), node.children.clone(), node.columns.clone()))
    }
}

/// The two sides of `a = b` where one reads the first input alone, the other the second.
fn equality(conjunct: &Expression, width: usize) -> Option<(Expression, Expression)> {
    let Expression::Comparison { operator: ComparisonOperator::Equal, left, right } = conjunct
    else {
        return None;
    };
    let (a, b) = (left.columns(), right.columns());
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let first = |columns: &[usize]| columns.iter().all(|index| *index < width);
    let second = |columns: &[usize]| columns.iter().all(|index| *index >= width);
    let of_second = |expression: &Expression| expression.renumber(&|index| index - width);
    if first(&a) && second(&b) {
        return Some(((**left).clone(), of_second(right)));
    }
    (second(&a) && first(&b)).then(|| ((**right).clone(), of_second(left)))
}
