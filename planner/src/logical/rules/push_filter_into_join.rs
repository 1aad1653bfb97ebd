//! `Filter` over `Join` becomes the join's own condition, of which [`super::push_join_condition`] hands
//! to each input what is about that input alone. Joins are inner ones, so it is the same question.

use super::Rule;
use crate::bind::expression::Expression;
use crate::logical::Plan;

#[derive(Debug)]
pub struct PushFilterIntoJoin;

impl Rule for PushFilterIntoJoin {
    fn name(&self) -> &'static str {
        "push_filter_into_join"
    }

    fn rewrite(&self, plan: &Plan) -> Option<Plan> {
        let Plan::Filter { predicate, input } = plan else { return None };
        let Plan::Join { on, inputs } = &**input else { return None };
        let conjuncts = on.iter().chain([predicate]).cloned().flat_map(Expression::conjuncts);
        let on = Expression::conjunction(conjuncts.collect());
        Some(Plan::Join { on, inputs: inputs.clone() })
    }
}
