//! From what to how: each logical node becomes the operator that does it most directly. Physical
//! rules then choose better access paths.

use crate::logical::Plan;
use crate::physical::plan::Node;

/// Lowers a logical plan. Ids and estimates come later.
pub fn lower(mut plan: Plan) -> Node {
    let columns = plan.columns();
    let operator = plan.direct_operator();
    let children = plan
        .inputs_mut()
        .iter_mut()
        .map(|input| {
            let taken = std::mem::replace(input, Plan::Concatenate { inputs: Vec::new() });
            lower(taken)
        })
        .collect();
    Node::new(operator, children, columns)
}
