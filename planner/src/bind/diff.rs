//! DIFF: which two models, and which of their differences.

use super::BindError;
use super::select::limited;
use super::statement::Bound;
use crate::catalog::Catalog;
use crate::logical::Plan;
use crate::logical::plan::DIFF_COLUMNS;
use crate::physical::plan::{Diff, Operator};
use crate::planned::Role;
use crate::syntax::ast;

/// Binds a DIFF.
///
/// # Errors
/// Nothing in use where a side is CURRENT.
pub(super) fn bind(request: &ast::Diff, catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let side = |reference: &ast::Reference| match reference {
        ast::Reference::Named(name) => Ok(Some(name.value.clone())),
        ast::Reference::Current if catalog.current().is_some() => Ok(None),
        ast::Reference::Current => Err(BindError::NothingInUse),
    };
    let operator = Operator::Diff(Diff {
        left: side(&request.left)?,
        right: side(&request.right)?,
        layer: request.layer.as_ref().map(|layer| layer.value),
        relation: request.relation.as_ref().map(|relation| relation.value.clone()),
    });
    let plan = limited(Plan::leaf(operator, &DIFF_COLUMNS), request.limit, 0);
    Ok(Bound { plan, tag: "DIFF", required_role: Role::Reader, mount: catalog.current() })
}
