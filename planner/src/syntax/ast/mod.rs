//! The abstract syntax tree: what was written, before any name is resolved.
//!
//! Every statement of the grammar has a variant, served or not. Options that may repeat keep the
//! last one written. Equality ignores spans, so that a printed and parsed statement equals itself.

mod expression;
mod inference;
mod kind;
mod lifecycle;
mod mutation;
mod parameters;
mod query;
mod session;

pub use expression::*;
pub use inference::*;
pub use lifecycle::*;
pub use mutation::*;
pub use parameters::ParameterPlace;
pub use query::*;
pub use session::*;

use super::parser::SpannedStatement;
use super::span::Spanned;

/// A word used as a name.
pub type Name = Spanned<String>;

/// A string literal.
pub type Literal = Spanned<String>;

/// A flag that remembers where it was written.
pub type Flag = Option<Spanned<()>>;

/// A layer number as written.
pub type LayerNumber = Spanned<u32>;

/// One statement.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Statement {
    /// `EXTRACT MODEL … INTO …`
    Extract(Box<Extract>),
    /// `COMPILE … INTO …`
    Compile(Box<Compile>),
    /// `DIFF a b`
    Diff(Box<Diff>),
    /// `USE …`
    Use(Use),
    /// `MOUNT … [AS name]`
    Mount {
        /// Path or reference.
        path: Literal,
        /// The name to mount under.
        name: Option<Name>,
    },
    /// `UNMOUNT name`
    Unmount(Name),
    /// `WALK …`
    Walk(Box<Walk>),
    /// `INFER …`
    Infer(Box<Infer>),
    /// `SELECT …`
    Select(Box<Select>),
    /// `DESCRIBE …`
    Describe(Box<Describe>),
    /// Bare `EXPLAIN WALK …` or `EXPLAIN INFER …`: answers feature rows.
    ExplainFeatures(Box<ExplainFeatures>),
    /// `EXPLAIN` that answers a plan.
    Explain(Box<Explain>),
    /// `TRACE …`
    Trace(Box<Trace>),
    /// `TRACE OPEN file`
    TraceOpen(Literal),
    /// `GENERATE …`
    Generate(Box<Generate>),
    /// `INSERT INTO EDGES …`
    Insert(Box<Insert>),
    /// `DELETE FROM EDGES WHERE …`
    Delete {
        /// Which rows.
        filter: Expression,
        /// The budget of harm.
        harm: Option<Harm>,
    },
    /// `UPDATE EDGES SET … WHERE …`
    Update {
        /// Columns and their new values.
        assignments: Vec<(Name, Expression)>,
        /// Which rows.
        filter: Expression,
        /// The budget of harm.
        harm: Option<Harm>,
    },
    /// `MERGE …`
    Merge {
        /// The vindex merged from.
        source: Literal,
        /// The vindex merged into.
        target: Option<Literal>,
        /// What wins a conflict.
        conflict: Option<MergeConflict>,
        /// The budget of harm.
        harm: Option<Harm>,
    },
    /// `REBALANCE …`
    Rebalance {
        /// `UNTIL CONVERGED`
        until_converged: bool,
        /// `MAX n`
        rounds_max: Option<u64>,
        /// `FLOOR p`
        floor: Option<f64>,
        /// `CEILING p`
        ceiling: Option<f64>,
    },
    /// `COMPACT MINOR`
    CompactMinor,
    /// `COMPACT MAJOR …`
    CompactMajor {
        /// `FULL` or `ALL`
        full: bool,
        /// `WITH LAMBDA = x`
        lambda: Option<f64>,
    },
    /// `BEGIN [TRANSACTION]`
    Begin,
    /// `BEGIN PATCH name`
    BeginPatch(Literal),
    /// `COMMIT`
    Commit,
    /// `ROLLBACK [TO name]`
    Rollback(Option<Name>),
    /// `SAVEPOINT name`
    Savepoint(Name),
    /// `SAVE PATCH [AS name]`
    SavePatch(Option<Literal>),
    /// `APPLY PATCH …`
    ApplyPatch {
        /// Name or path.
        patch: Literal,
        /// Even to another base.
        force: bool,
        /// The budget of harm.
        harm: Option<Harm>,
    },
    /// `REMOVE PATCH name`
    RemovePatch(Literal),
    /// `CREATE BRANCH …`
    CreateBranch {
        /// The new branch.
        name: Name,
        /// Where it starts; by default the current branch.
        from: Option<Name>,
        /// When it starts.
        at: Option<Moment>,
    },
    /// `DROP BRANCH name`
    DropBranch(Name),
    /// `BLAME …`
    Blame {
        /// The prompt.
        prompt: Text,
        /// The answer to blame for.
        target: Option<Text>,
        /// How many operations to name.
        top: Option<u64>,
    },
    /// `CREATE ASSERTION …`
    CreateAssertion {
        /// Its name.
        name: Name,
        /// The prompt inferred.
        prompt: Literal,
        /// The expected answer.
        expected: Literal,
        /// The least probability.
        at_least: Option<f64>,
    },
    /// `DROP ASSERTION name`
    DropAssertion(Name),
    /// `CHECK ASSERTIONS`
    CheckAssertions,
    /// `LABEL [CURRENT] FROM …`
    Label {
        /// A table of facts; `None` for the bundled one.
        facts: Option<Literal>,
        /// Continue an interrupted run.
        resume: bool,
    },
    /// `VERIFY EDGE WHERE …`
    VerifyEdge(Expression),
    /// `VERIFY VINDEX path`
    VerifyVindex(Literal),
    /// `SHOW …`
    Show(Show),
    /// `STATS [name]`
    Stats(Option<Literal>),
    /// `SET name = value`
    Set {
        /// The setting.
        name: Name,
        /// Its new value.
        value: Spanned<SettingLiteral>,
    },
    /// `RESET name`
    Reset(Name),
    /// `PREPARE name AS statement`
    Prepare {
        /// The name to execute it by.
        name: Name,
        /// The statement.
        statement: Box<SpannedStatement>,
    },
    /// `EXECUTE name [(value, …)]`
    Execute {
        /// What was prepared.
        name: Name,
        /// Values of `$1`, `$2` …
        arguments: Vec<Expression>,
    },
    /// `DEALLOCATE name`
    Deallocate(Name),
    /// `CREATE TABLE name FROM file`
    CreateTable {
        /// The table.
        name: Name,
        /// The file of facts.
        file: Literal,
    },
    /// `DROP TABLE name`
    DropTable(Name),
    /// `ANALYZE`
    Analyze,
    /// `CREATE INDEX name ON …`
    CreateIndex {
        /// Its name.
        name: Name,
        /// What is indexed.
        target: IndexTarget,
        /// The method.
        method: Option<Name>,
    },
    /// `DROP INDEX name`
    DropIndex(Name),
    /// `COPY (statement) TO file`
    Copy {
        /// Whose rows.
        statement: Box<SpannedStatement>,
        /// The file.
        file: Literal,
        /// Its format.
        format: Option<Name>,
    },
    /// `EXPORT CURRENT INTO file FORMAT name`
    Export {
        /// The file.
        file: Literal,
        /// Its format.
        format: Name,
    },
    /// `KILL session`
    Kill(u64),
    /// A reading statement `AS OF` a moment of the past.
    AsOf {
        /// What is read.
        statement: Box<SpannedStatement>,
        /// When.
        at: Moment,
    },
    /// `a |> b |> …`: rows flow from each stage to the next.
    Pipe(Vec<SpannedStatement>),
}

/// `LSN n` or `PATCH name` after `AS OF`.
#[derive(Debug, Clone, PartialEq)]
pub enum Moment {
    /// A log sequence number.
    Lsn(u64),
    /// After a patch.
    Patch(Literal),
}

/// Text from a literal, a parameter or a column of the row that flows through a pipe.
pub type Text = Spanned<TextOperand>;

/// See [`Text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextOperand {
    /// A string.
    Literal(String),
    /// `$1` or `$column`.
    Parameter(Parameter),
}

/// `$1` or `$name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    /// A parameter of the script, from 1.
    Position(u32),
    /// A column of the row that flows through a pipe.
    Column(String),
}

/// `a-b`, both inclusive, `first <= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first layer.
    pub first: u32,
    /// The last layer.
    pub last: u32,
}

/// `CURRENT` or a string.
#[derive(Debug, Clone, PartialEq)]
pub enum Reference {
    /// The mount in use.
    Current,
    /// A name or path.
    Named(Literal),
}
