//! `Filter(a)` over `Filter(b)` becomes `Filter(b AND a)`, so that rules see all conditions at once.

use super::Rule;
use crate::bind::expression::Expression;
use crate::logical::Plan;

#[derive(Debug)]
pub struct MergeFilters;

impl Rule for MergeFilters {
    fn name(&self) -> &'static str {
        "merge_filters"
    }

    fn rewrite(&self, plan: &Plan) -> Option<Plan> {
        let Plan::Filter { predicate: above, input } = plan else { return None };
        let Plan::Filter { predicate: below, input } = &**input else { return None };
        let conjuncts = [below, above].into_iter().cloned().flat_map(Expression::conjuncts);
        let predicate = Expression::conjunction(conjuncts.collect())?;
        Some(Plan::Filter { predicate, input: input.clone() })
    }
}
