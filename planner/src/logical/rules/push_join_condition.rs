//! Conditions of a `Join` that are about one input alone filter that input, so that fewer rows meet.

use super::Rule;
use crate::bind::expression::Expression;
use crate::logical::Plan;

#[derive(Debug)]
pub struct PushJoinCondition;

impl Rule for PushJoinCondition {
    fn name(&self) -> &'static str {
        "push_join_condition"
    }

    fn rewrite(&self, plan: &Plan) -> Option<Plan> {
        let Plan::Join { on: Some(on), inputs } = plan else { return None };
        let width = inputs[0].columns().len();
        let (mut left, mut right, mut both) = (Vec::new(), Vec::new(), Vec::new());
        for conjunct in on.clone().conjuncts() {
            let columns = conjunct.columns();
            // A condition about nothing is about the first input: without its rows there are none.
            if columns.iter().all(|index| *index < width) {
                left.push(conjunct);
            } else if columns.iter().all(|index| *index >= width) {
                right.push(conjunct.renumber(&|index| index - width));
            } else {
                both.push(conjunct);
            }
        }
        if left.is_empty() && right.is_empty() {
            return None;
        }
        let filtered = |predicates, input: &Plan| match Expression::conjunction(predicates) {
            Some(predicate) => Plan::Filter { predicate, input: Box::new(input.clone()) },
            None => input.clone(),
        };
        let inputs = Box::new([filtered(left, &inputs[0]), filtered(right, &inputs[1])]);
        Some(Plan::Join { on: Expression::conjunction(both), inputs })
    }
}
