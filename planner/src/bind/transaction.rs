//! BEGIN, COMMIT and what else is about transactions, patches, branches and assertions.

use super::BindError;
use super::edit::checked;
use super::statement::{Bound, Reader, named};
use crate::catalog::{Catalog, INFERENCE_COMPONENTS};
use crate::logical::Plan;
use crate::logical::plan::{APPLIED_COLUMNS, PATCH_COLUMNS};
use crate::physical::plan::Operator;
use crate::physical::transaction::Transaction;
use crate::planned::Role;
use crate::syntax::ast::Statement;

/// What a statement about transactions says; `None` of any other.
pub(super) fn operands(statement: &Statement) -> Option<Transaction> {
    Some(match statement {
        Statement::Begin => Transaction::Begin,
        Statement::BeginPatch(name) => Transaction::BeginPatch(name.value.clone()),
        Statement::Commit => Transaction::Commit,
        Statement::Rollback(name) => Transaction::Rollback(named(name)),
        Statement::Savepoint(name) => Transaction::Savepoint(name.value.clone()),
        Statement::SavePatch(name) => {
            Transaction::SavePatch(name.as_ref().map(|name| name.value.clone()))
        }
        Statement::ApplyPatch { patch, force, harm } => {
            Transaction::ApplyPatch { patch: patch.value.clone(), force: *force, harm: *harm }
        }
        Statement::RemovePatch(name) => Transaction::RemovePatch(name.value.clone()),
        Statement::CreateBranch { name, from, at } => Transaction::CreateBranch {
            name: name.value.clone(),
            from: named(from),
            at: at.clone(),
        },
        Statement::DropBranch(name) => Transaction::DropBranch(name.value.clone()),
        Statement::CreateAssertion { name, prompt, expected, at_least } => {
            Transaction::CreateAssertion {
                name: name.value.clone(),
                prompt: prompt.value.clone(),
                expected: expected.value.clone(),
                at_least: *at_least,
            }
        }
        Statement::DropAssertion(name) => Transaction::DropAssertion(name.value.clone()),
        _ => return None,
    })
}

/// Binds them to the mount in use.
///
/// # Errors
/// Nothing in use; for an assertion, a mount that cannot infer, or a probability that is none.
pub(super) fn bind(operands: Transaction, catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    if let Transaction::CreateAssertion { at_least, .. } = &operands {
        reader.needs(&INFERENCE_COMPONENTS)?;
        if let Some(least) = at_least.filter(|least| !(0.0..=1.0).contains(least)) {
            return Err(BindError::Meaningless {
                what: format!("AT LEAST {least} is no probability"),
                span: None,
                hint: "a probability is from 0 to 1".to_owned(),
            });
        }
    }
    let is_applied = matches!(operands, Transaction::ApplyPatch { .. });
    if let Transaction::ApplyPatch { harm, .. } = &operands {
        checked(*harm, None)?;
    }
    let (tag, answers_patch) = (operands.tag(), operands.answers_patch());
    let operator = Operator::Transaction(operands);
    let plan = if is_applied {
        Plan::leaf(operator, &APPLIED_COLUMNS)
    } else if answers_patch {
        Plan::leaf(operator, &PATCH_COLUMNS)
    } else {
        Plan::leaf(operator, &[])
    };
    Ok(reader.bound(plan, tag, Role::Editor))
}
