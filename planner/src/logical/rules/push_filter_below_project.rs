//! `Filter` over `Project` becomes `Project` over `Filter`, so that the conditions on a sub-query or on
//! the stage before reach its source. Only where each column that the filter reads is a column or a
//! constant below: nothing is computed twice.

use super::Rule;
use crate::bind::expression::Expression;
use crate::logical::Plan;

#[derive(Debug)]
pub struct PushFilterBelowProject;

impl Rule for PushFilterBelowProject {
    fn name(&self) -> &'static str {
        "push_filter_below_project"
    }

    fn rewrite(&self, plan: &Plan) -> Option<Plan> {
        let Plan::Filter { predicate, input } = plan else { return None };
        let Plan::Project { expressions, columns, input } = &**input else { return None };
        let is_plain = |index: &usize| {
            matches!(
                expressions.get(*index),
                Some(Expression::Column { .. } | Expression::Literal(_))
            )
        };
        let (below, above): (Vec<_>, Vec<_>) = predicate
            .clone()
            .conjuncts()
            .into_iter()
            .partition(|conjunct| conjunct.columns().iter().all(is_plain));
        let mut below = Expression::conjunction(below)?;
        below.replace_columns(&|index| expressions[index].clone());
        let filtered = Plan::Filter { predicate: below, input: input.clone() };
        let projected = Plan::Project {
            expressions: expressions.clone(),
            columns: columns.clone(),
            input: Box::new(filtered),
        };
        Some(match Expression::conjunction(above) {
            Some(predicate) => Plan::Filter { predicate, input: Box::new(projected) },
            None => projected,
        })
    }
}
