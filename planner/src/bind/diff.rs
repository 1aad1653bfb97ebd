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
/// Nothing in use where a side is CURRENT; LIMIT of a patch.
pub(super) fn bind(request: &ast::Diff, catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let side = |reference: &ast::Reference| match reference {
        ast::Reference::Named(name) => Ok(Some(name.value.clone())),
        ast::Reference::Current if catalog.current().is_some() => Ok(None),
        ast::Reference::Current => Err(BindError::NothingInUse),
    };
    if let (Some(patch), Some(_)) = (&request.into_patch, request.limit) {
        return Err(BindError::Meaningless {
            what: "a patch of some of the differences makes neither of the models".to_owned(),
            span: Some(patch.span),
            hint: "leave out LIMIT; LAYER and RELATION choose".to_owned(),
        });
    }
    let operator = Operator::Diff(Diff {
        left: side(&request.left)?,
        right: side(&request.right)?,
        layer: request.layer.as_ref().map(|layer| layer.value),
        relation: request.relation.as_ref().map(|relation| relation.value.clone()),
        into_patch: request.into_patch.as_ref().map(|patch| patch.value.clone()),
    });
    let plan = limited(Plan::leaf(operator, &DIFF_COLUMNS), request.limit, 0);
    let required_role = if request.into_patch.is_some() { Role::Editor } else { Role::Reader };
    Ok(Bound { plan, tag: "DIFF", required_role, mount: catalog.current() })
}
