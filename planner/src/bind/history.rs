//! What is asked of edits that were made: assertions, BLAME and COMPACT.

use super::BindError;
use super::statement::{Bound, Reader, literal};
use crate::catalog::{Catalog, INFERENCE_COMPONENTS};
use crate::logical::Plan;
use crate::logical::plan::{
    ASSERTION_COLUMNS, BLAME_COLUMNS, CHECK_COLUMNS, COMPACT_COLUMNS, COMPACT_STATUS_COLUMNS,
};
use crate::physical::edit::{Blame, Compact};
use crate::physical::plan::Operator;
use crate::planned::Role;
use crate::syntax::Span;
use crate::syntax::ast::Text;

/// Rows of BLAME without TOP.
const BLAME_TOP: u64 = 10;

/// Binds SHOW ASSERTIONS.
///
/// # Errors
/// Nothing in use.
pub(super) fn show_assertions(catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    let plan = Plan::leaf(Operator::ShowAssertions, &ASSERTION_COLUMNS);
    Ok(reader.bound(plan, "SHOW ASSERTIONS", Role::Reader))
}

/// Binds CHECK ASSERTIONS.
///
/// # Errors
/// Nothing in use, or a mount that cannot infer.
pub(super) fn check_assertions(catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    reader.needs(&INFERENCE_COMPONENTS)?;
    let plan = Plan::leaf(Operator::CheckAssertions, &CHECK_COLUMNS);
    Ok(reader.bound(plan, "CHECK ASSERTIONS", Role::Infer))
}

/// Binds a BLAME.
///
/// # Errors
/// Nothing in use, or a mount that cannot infer; a parameter without a value.
pub(super) fn blame(
    prompt: &Text,
    target: Option<&Text>,
    top: Option<u64>,
    catalog: &dyn Catalog,
) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    reader.needs(&INFERENCE_COMPONENTS)?;
    let blame = Blame {
        prompt: literal(prompt)?,
        target: target.map(literal).transpose()?,
        top: top.unwrap_or(BLAME_TOP),
    };
    Ok(reader.bound(Plan::leaf(Operator::Blame(blame), &BLAME_COLUMNS), "BLAME", Role::Infer))
}

/// Binds a COMPACT. One that ends history for everybody is the admin's.
///
/// # Errors
/// Nothing in use, or a mount that cannot infer; a LAMBDA that is no weight.
pub(super) fn compact(
    compact: Compact,
    span: Span,
    catalog: &dyn Catalog,
) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    reader.needs(&INFERENCE_COMPONENTS)?;
    let (tag, role) = match &compact {
        Compact::Minor => ("COMPACT MINOR", Role::Editor),
        Compact::Major { lambda, .. } => {
            if let Some(lambda) = lambda.filter(|x| !(*x > 0.0 && *x <= 1e6)) {
                return Err(BindError::Meaningless {
                    what: format!("LAMBDA {lambda} is not above 0 and at most 1000000"),
                    span: Some(span),
                    hint: "LAMBDA = 1 weighs what the base does as much as the facts".to_owned(),
                });
            }
            ("COMPACT MAJOR", Role::Admin)
        }
    };
    Ok(reader.bound(Plan::leaf(Operator::Compact(compact), &COMPACT_COLUMNS), tag, role))
}

/// Binds SHOW COMPACT STATUS.
///
/// # Errors
/// Nothing in use.
pub(super) fn compact_status(catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    let plan = Plan::leaf(Operator::CompactStatus, &COMPACT_STATUS_COLUMNS);
    Ok(reader.bound(plan, "SHOW COMPACT STATUS", Role::Reader))
}
