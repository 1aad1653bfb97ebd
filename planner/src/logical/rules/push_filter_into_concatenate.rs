//! `Filter(p)` over `Concatenate(a, b)` becomes `Concatenate(Filter(p) over a, Filter(p) over b)`, so
//! that each input can use the condition for a better access path.

use super::Rule;
use crate::logical::Plan;

#[derive(Debug)]
pub struct PushFilterIntoConcatenate;

impl Rule for PushFilterIntoConcatenate {
    fn name(&self) -> &'static str {
        "push_filter_into_concatenate"
    }

    fn rewrite(&self, plan: &Plan) -> Option<Plan> {
        let Plan::Filter { predicate, input } = plan else { return None };
        let Plan::Concatenate { inputs } = &**input else { return None };
        let filtered = |input: &Plan| Plan::Filter {
            predicate: predicate.clone(),
            input: Box::new(input.clone()),
        };
        Some(Plan::Concatenate { inputs: inputs.iter().map(filtered).collect() })
    }
}
