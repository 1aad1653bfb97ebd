//! Operands of transactions, patches, branches and assertions.

use crate::syntax::ast::{Harm, Moment};

/// What [`super::Operator::Transaction`] does.
#[derive(Debug, Clone, PartialEq)]
pub enum Transaction {
    /// Begins one.
    Begin,
    /// Begins one that is a patch of that name or path.
    BeginPatch(String),
    /// Makes it durable and visible.
    Commit,
    /// Ends it, or goes back to a savepoint.
    Rollback(Option<String>),
    /// Remembers how far it is.
    Savepoint(String),
    /// Makes it durable as a patch, and writes the patch's file; under another name where one is given.
    SavePatch(Option<String>),
    /// Applies a patch's file.
    ApplyPatch {
        /// What harm is allowed.
        harm: Option<Harm>,
        /// Its name or path.
        patch: String,
        /// Even to another base.
        force: bool,
    },
    /// Takes an applied patch back.
    RemovePatch(String),
    /// Begins a branch.
    CreateBranch {
        /// Its name.
        name: String,
        /// Its parent; by default the session's branch.
        from: Option<String>,
        /// The parent's moment; by default now.
        at: Option<Moment>,
    },
    /// Ends a branch.
    DropBranch(String),
    /// Says what an INFER is to answer from now on.
    CreateAssertion {
        /// Its name.
        name: String,
        /// The prompt.
        prompt: String,
        /// The answer.
        expected: String,
        /// The least probability that it is to have.
        at_least: Option<f64>,
    },
    /// Ends that.
    DropAssertion(String),
}

impl Transaction {
    /// The statement's first keywords.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Begin => "BEGIN",
            Self::BeginPatch(_) => "BEGIN PATCH",
            Self::Commit => "COMMIT",
            Self::Rollback(_) => "ROLLBACK",
            Self::Savepoint(_) => "SAVEPOINT",
            Self::SavePatch(_) => "SAVE PATCH",
            Self::ApplyPatch { .. } => "APPLY PATCH",
            Self::RemovePatch(_) => "REMOVE PATCH",
            Self::CreateBranch { .. } => "CREATE BRANCH",
            Self::DropBranch(_) => "DROP BRANCH",
            Self::CreateAssertion { .. } => "CREATE ASSERTION",
            Self::DropAssertion(_) => "DROP ASSERTION",
        }
    }

    /// Whether it answers the patch that it made, as SHOW PATCHES would.
    pub fn answers_patch(&self) -> bool {
        matches!(self, Self::SavePatch(_) | Self::ApplyPatch { .. })
    }
}
