//! Statements and clauses that parse and are not served yet: the one place that says so.
//!
//! A statement or clause leaves this table when its operator lands.

use crate::syntax::ast::Statement;
use crate::syntax::{Span, SpannedStatement};

/// A statement or clause that is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not supported yet")]
pub struct Unsupported {
    /// The statement or clause, as its words.
    pub what: &'static str,
    /// Where.
    pub span: Span,
    /// What can be done instead.
    pub hint: Option<&'static str>,
}

impl Unsupported {
    /// Five characters, after SQLSTATE.
    pub const CODE: &'static str = "0A000";
}

/// Refuses what is not served, with its place.
///
/// # Errors
/// The first statement or clause that is not served.
pub fn check(spanned: &SpannedStatement) -> Result<(), Unsupported> {
    let refuse = |what, hint| Err(Unsupported { what, span: spanned.span, hint: Some(hint) });
    match &spanned.statement {
        Statement::Explain(explain) => match explain.statement.statement {
            Statement::Explain(_) => Err(Unsupported {
                what: "EXPLAIN of EXPLAIN",
                span: explain.statement.span,
                hint: Some("explain the statement itself"),
            }),
            _ => check(&explain.statement),
        },
        Statement::Pipe(stages) => stages.iter().try_for_each(check),
        Statement::Prepare { statement, .. } | Statement::Copy { statement, .. } => {
            check(statement)
        }
        Statement::AsOf { .. } => refuse("AS OF here", "write it after the statement that reads"),
        // Whatever is not listed is served.
        _ => Ok(()),
    }
}
