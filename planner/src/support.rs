//! Statements and clauses that parse and are not served yet: the one place that says so.
//!
//! A statement or clause leaves this table when its operator lands.

use crate::syntax::ast::{Harm, Show, Statement};
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

const EDITS: &str = "this version reads and infers; edits come with transactions";
const HISTORY: &str = "this version keeps no history yet";

/// Refuses what is not served, with its place.
///
/// # Errors
/// The first statement or clause that is not served.
pub fn check(spanned: &SpannedStatement) -> Result<(), Unsupported> {
    let refuse = |what, hint| Err(Unsupported { what, span: spanned.span, hint: Some(hint) });
    match &spanned.statement {
        Statement::Extract(_) | Statement::Use(_) => Ok(()),
        Statement::Explain(explain) => match explain.statement.statement {
            Statement::Explain(_) => Err(Unsupported {
                what: "EXPLAIN of EXPLAIN",
                span: explain.statement.span,
                hint: Some("explain the statement itself"),
            }),
            _ => check(&explain.statement),
        },
        Statement::Show(show) => check_show(show, spanned.span),
        Statement::Pipe(stages) => stages.iter().try_for_each(check),
        Statement::Prepare { statement, .. } | Statement::Copy { statement, .. } => {
            check(statement)
        }
        Statement::Select(_)
        | Statement::Walk(_)
        | Statement::Generate(_)
        | Statement::Kill(_)
        | Statement::ExplainFeatures(_)
        | Statement::Infer(_)
        | Statement::Describe(_)
        | Statement::Execute { .. }
        | Statement::Export { .. }
        | Statement::CreateTable { .. }
        | Statement::DropTable(_)
        | Statement::Deallocate(_)
        | Statement::Mount { .. }
        | Statement::Unmount(_)
        | Statement::Label { .. }
        | Statement::VerifyEdge(_)
        | Statement::Stats(_)
        | Statement::Set { .. }
        | Statement::Reset(_)
        | Statement::VerifyVindex(_) => Ok(()),

        Statement::Insert(_) | Statement::Delete { .. } | Statement::Update { .. } => Ok(()),
        Statement::Merge { .. } => refuse("MERGE", EDITS),
        Statement::Rebalance { .. } => refuse("REBALANCE", EDITS),
        Statement::CompactMinor => refuse("COMPACT MINOR", EDITS),
        Statement::CompactMajor { .. } => refuse("COMPACT MAJOR", EDITS),
        Statement::ApplyPatch { harm: Some(Harm::Max { .. }), .. } => {
            refuse("MAX HARM of APPLY PATCH", "apply it to a branch, and look at what it changes")
        }
        Statement::Begin
        | Statement::BeginPatch(_)
        | Statement::Commit
        | Statement::Rollback(_)
        | Statement::Savepoint(_)
        | Statement::SavePatch(_)
        | Statement::ApplyPatch { .. }
        | Statement::RemovePatch(_)
        | Statement::CreateBranch { .. }
        | Statement::DropBranch(_) => Ok(()),
        Statement::CreateAssertion { .. } => refuse("CREATE ASSERTION", EDITS),
        Statement::DropAssertion(_) => refuse("DROP ASSERTION", EDITS),
        Statement::CheckAssertions => refuse("CHECK ASSERTIONS", EDITS),
        Statement::Compile(_) => Ok(()),
        Statement::Diff(diff) => match &diff.into_patch {
            Some(patch) => Err(Unsupported {
                what: "DIFF … INTO PATCH",
                span: patch.span,
                hint: Some("DIFF without it shows the differences"),
            }),
            None => Ok(()),
        },
        Statement::AsOf { .. } => refuse("AS OF here", "write it after the statement that reads"),
        Statement::Blame { .. } => refuse("BLAME", HISTORY),
        Statement::Trace(_) | Statement::TraceOpen(_) => Ok(()),
        Statement::Analyze | Statement::CreateIndex { .. } | Statement::DropIndex(_) => Ok(()),
    }
}

fn check_show(show: &Show, span: Span) -> Result<(), Unsupported> {
    let refuse = |what, hint| Err(Unsupported { what, span, hint: Some(hint) });
    match show {
        Show::Features { .. }
        | Show::Relations { .. }
        | Show::Layers(_)
        | Show::Entities { .. }
        | Show::Models
        | Show::Mounts
        | Show::Sessions
        | Show::Indexes
        | Show::Patches
        | Show::Branches
        | Show::Setting(_) => Ok(()),
        Show::CompactStatus => refuse("SHOW COMPACT STATUS", EDITS),
        Show::Assertions => refuse("SHOW ASSERTIONS", EDITS),
    }
}
