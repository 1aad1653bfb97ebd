//! The kinds of statement by name, so that a list that must miss none can be held against them.

use super::Statement;

/// Names every kind; one that is missing does not compile.
macro_rules! kinds {
    ($($kind:ident),* $(,)?) => {
        impl Statement {
            /// The names of all kinds of statement.
            pub const KINDS: &[&str] = &[$(stringify!($kind)),*];

            /// The name of this statement's kind.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$kind { .. } => stringify!($kind)),*
                }
            }
        }
    };
}

kinds!(
    Extract,
    Compile,
    Diff,
    Use,
    Mount,
    Unmount,
    Walk,
    Infer,
    Select,
    Describe,
    ExplainFeatures,
    Explain,
    Trace,
    TraceOpen,
    Generate,
    Insert,
    Delete,
    Update,
    Merge,
    Rebalance,
    CompactMinor,
    CompactMajor,
    Begin,
    BeginPatch,
    Commit,
    Rollback,
    Savepoint,
    SavePatch,
    ApplyPatch,
    RemovePatch,
    CreateBranch,
    DropBranch,
    AsOf,
    Blame,
    CreateAssertion,
    DropAssertion,
    CheckAssertions,
    Label,
    VerifyEdge,
    VerifyVindex,
    Show,
    Stats,
    Set,
    Reset,
    Prepare,
    Execute,
    Deallocate,
    CreateTable,
    DropTable,
    Analyze,
    CreateIndex,
    DropIndex,
    Copy,
    Export,
    Kill,
    Pipe,
);
