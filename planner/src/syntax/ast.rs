//! The abstract syntax tree: what was written, before any name is resolved.
//!
//! Every statement of the grammar has a variant, served or not. Options that may repeat keep the
//! last one written. Equality ignores spans, so that a printed and parsed statement equals itself.

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

/// `EXTRACT`
#[derive(Debug, Clone, PartialEq)]
pub struct Extract {
    /// The checkpoint.
    pub source: Literal,
    /// The vindex to write.
    pub destination: Literal,
    /// `COMPONENTS …`
    pub components: Option<Vec<ExtractComponent>>,
    /// `LAYERS a-b`
    pub layers: Option<Spanned<Range>>,
    /// `WITH …`
    pub level: Option<ExtractLevel>,
    /// `DTYPE …`
    pub dtype: Option<ExtractDtype>,
    /// `QUANT …`
    pub quant: Option<Spanned<ExtractQuant>>,
    /// `DOWN Q4K`
    pub down_q4k: Flag,
    /// `DROP GATE VECTORS`
    pub drop_gate_vectors: Flag,
    /// `WITHOUT LABELS`
    pub without_labels: bool,
    /// `OVERWRITE`
    pub overwrite: bool,
    /// `RESUME`
    pub resume: bool,
}

/// A part named after `COMPONENTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtractComponent {
    /// `FFN_GATE`
    FfnGate,
    /// `FFN_DOWN`
    FfnDown,
    /// `FFN_UP`
    FfnUp,
    /// `EMBEDDINGS`
    Embeddings,
    /// `ATTN_OV`
    AttentionOv,
    /// `ATTN_QK`
    AttentionQk,
}

/// The level after `WITH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtractLevel {
    /// `ATTENTION`
    Attention,
    /// `INFERENCE`
    Inference,
    /// `ALL`
    All,
    /// `WEIGHTS`: the common core's other word for `ALL`.
    Weights,
}

/// The type of written weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtractDtype {
    /// `F16`
    F16,
    /// `F32`
    F32,
    /// `SOURCE`: as in the checkpoint.
    Source,
}

/// The block format after `QUANT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtractQuant {
    /// `Q4K`, also `Q4_K`
    Q4K,
    /// `Q8_0`
    Q8_0,
    /// `FP4`
    Fp4,
    /// `FP8`
    Fp8,
}

/// `COMPILE`
#[derive(Debug, Clone, PartialEq)]
pub struct Compile {
    /// What is compiled.
    pub source: Reference,
    /// `MODEL`, else `VINDEX`.
    pub into_model: bool,
    /// The directory or file to write.
    pub destination: Literal,
    /// `FORMAT …`
    pub format: Option<CompileFormat>,
    /// `DTYPE …`: the type of the written weights, by its name.
    pub dtype: Option<Name>,
    /// `ON CONFLICT …`
    pub conflict: Option<CompileConflict>,
    /// `OVERWRITE`
    pub overwrite: bool,
    /// `VERIFY`
    pub verify: bool,
}

/// `CURRENT` or a string.
#[derive(Debug, Clone, PartialEq)]
pub enum Reference {
    /// The mount in use.
    Current,
    /// A name or path.
    Named(Literal),
}

/// The file format of a compiled model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompileFormat {
    /// `SAFETENSORS`
    Safetensors,
    /// `GGUF`
    Gguf,
}

/// Which of two patches wins a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompileConflict {
    /// `LAST_WINS`
    LastWins,
    /// `HIGHEST_CONFIDENCE`
    HighestConfidence,
    /// `FAIL`
    Fail,
}

/// Which side of a merge wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MergeConflict {
    /// `KEEP_SOURCE`
    KeepSource,
    /// `KEEP_TARGET`
    KeepTarget,
    /// `HIGHEST_CONFIDENCE`
    HighestConfidence,
}

/// `DIFF`
#[derive(Debug, Clone, PartialEq)]
pub struct Diff {
    /// The old side.
    pub left: Reference,
    /// The new side.
    pub right: Reference,
    /// `LAYER n`
    pub layer: Option<LayerNumber>,
    /// `RELATION name`
    pub relation: Option<Literal>,
    /// `LIMIT n`
    pub limit: Option<u64>,
    /// `INTO PATCH name`
    pub into_patch: Option<Literal>,
}

/// `USE`
#[derive(Debug, Clone, PartialEq)]
pub enum Use {
    /// A mount, vindex or `CURRENT`, perhaps on another branch.
    Vindex {
        /// What to use.
        reference: Reference,
        /// `BRANCH name`
        branch: Option<Name>,
    },
    /// `USE MODEL path`
    Model {
        /// The checkpoint directory.
        path: Literal,
        /// `AUTO_EXTRACT`
        auto_extract: Flag,
    },
    /// `USE REMOTE url`
    Remote(Literal),
}

/// `WALK`
#[derive(Debug, Clone, PartialEq)]
pub struct Walk {
    /// The prompt.
    pub prompt: Text,
    /// `TOP n`
    pub top: Option<u64>,
    /// `LAYERS a-b`; `LAYERS ALL` is `None`.
    pub layers: Option<Spanned<Range>>,
    /// `MODE …`
    pub mode: Option<Spanned<WalkMode>>,
    /// `COMPARE`
    pub compare: Flag,
}

/// The mode of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalkMode {
    /// Gate scores with output tokens and labels.
    Hybrid,
    /// Gate scores alone.
    Pure,
    /// Not a walk at all.
    Dense,
}

/// `INFER`
#[derive(Debug, Clone, PartialEq)]
pub struct Infer {
    /// The prompt.
    pub prompt: Text,
    /// `TOP n`
    pub top: Option<u64>,
    /// `COMPARE`
    pub compare: Flag,
}

/// `DESCRIBE`
#[derive(Debug, Clone, PartialEq)]
pub struct Describe {
    /// What is described.
    pub entity: Text,
    /// Which layers; by default the knowledge band.
    pub layers: Option<LayerChoice>,
    /// `RELATIONS ONLY`
    pub relations_only: bool,
    /// `VERBOSE`, `BRIEF` or `RAW`
    pub display: Option<Display>,
    /// `STREAM`
    pub stream: bool,
    /// `LIMIT n`
    pub limit: Option<u64>,
}

/// Which layers a statement reads.
#[derive(Debug, Clone, PartialEq)]
pub enum LayerChoice {
    /// `AT LAYER n`
    At(LayerNumber),
    /// `ALL LAYERS`
    All,
    /// `SYNTAX`, `KNOWLEDGE` or `OUTPUT`
    Band(Band),
}

/// A band of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Band {
    /// The first layers.
    Syntax,
    /// The middle layers.
    Knowledge,
    /// The last layers.
    Output,
}

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Display {
    /// `BRIEF`
    Brief,
    /// `VERBOSE`
    Verbose,
    /// `RAW`
    Raw,
}

/// Bare `EXPLAIN WALK` and `EXPLAIN INFER`.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainFeatures {
    /// `INFER`, else `WALK`.
    pub infer: bool,
    /// The prompt.
    pub prompt: Text,
    /// `LAYERS a-b`
    pub layers: Option<Spanned<Range>>,
    /// A band or `ALL LAYERS`.
    pub band: Option<Option<Band>>,
    /// `VERBOSE`
    pub verbose: bool,
    /// `TOP n`
    pub top: Option<u64>,
    /// `RELATIONS ONLY`
    pub relations_only: bool,
    /// `WITH ATTENTION`
    pub with_attention: Flag,
}

/// `EXPLAIN` that answers a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    /// `ANALYZE`
    pub analyze: bool,
    /// `FORMAT …`
    pub format: ExplainFormat,
    /// `RULES`
    pub rules: bool,
    /// What is explained.
    pub statement: SpannedStatement,
}

/// How a plan is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ExplainFormat {
    /// One row an operator.
    #[default]
    Text,
    /// One row with one JSON document.
    Json,
}

/// `TRACE`
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The prompt.
    pub prompt: Text,
    /// `FOR token`
    pub target: Option<Text>,
    /// `DECOMPOSE`
    pub decompose: bool,
    /// `LAYERS a-b`
    pub layers: Option<Spanned<Range>>,
    /// `POSITIONS`: all, else the last.
    pub all_positions: Option<bool>,
    /// `SAVE file`
    pub save: Option<Literal>,
    /// `DIFF prompt`
    pub diff: Option<Text>,
}

/// `GENERATE`
#[derive(Debug, Clone, PartialEq)]
pub struct Generate {
    /// The prompt.
    pub prompt: Text,
    /// `MAX n`
    pub tokens_max: Option<u64>,
    /// `TEMPERATURE x`
    pub temperature: Option<f64>,
    /// `TOP_K n`
    pub top_k: Option<u64>,
    /// `TOP_P x`
    pub top_p: Option<f64>,
    /// `SEED n`
    pub seed: Option<u64>,
    /// `STOP text`, each one written.
    pub stop: Vec<Literal>,
}

/// `INSERT`
#[derive(Debug, Clone, PartialEq)]
pub struct Insert {
    /// The columns.
    pub columns: Vec<Name>,
    /// One tuple a row, each as long as the columns.
    pub rows: Vec<Vec<Expression>>,
    /// `AT LAYER n` or `AT LAYERS a-b`
    pub layers: Option<Spanned<Range>>,
    /// `CONFIDENCE x`
    pub confidence: Option<f64>,
    /// `ALPHA x`
    pub alpha: Option<f64>,
    /// `MODE …`
    pub mode: Option<InsertMode>,
    /// The budget of harm.
    pub harm: Option<Harm>,
}

/// How a fact is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InsertMode {
    /// `KNN`
    Knn,
    /// `COMPOSE`
    Compose,
    /// `MEMIT`
    Memit,
}

/// What harm an edit may do to neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Harm {
    /// `WITH MAX HARM x [POINTS]`
    Max {
        /// The budget.
        budget: f64,
        /// In percentage points.
        points: bool,
    },
    /// `WITHOUT RECEIPT`: not measured.
    WithoutReceipt,
}

/// What an index covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexTarget {
    /// `GATES`
    Gates,
    /// `TARGETS`
    Targets,
    /// `LABELS`
    Labels,
}

/// `SHOW`
#[derive(Debug, Clone, PartialEq)]
pub enum Show {
    /// `RELATIONS …`
    Relations {
        /// `AT LAYER n`
        layer: Option<LayerNumber>,
        /// `WITH EXAMPLES`
        examples: bool,
        /// `VERBOSE`, `BRIEF` or `RAW`
        display: Option<Spanned<Display>>,
    },
    /// `LAYERS [a-b]`
    Layers(Option<Spanned<Range>>),
    /// `FEATURES n …`
    Features {
        /// The layer.
        layer: LayerNumber,
        /// `WHERE …`
        filter: Option<Expression>,
        /// `LIMIT n`
        limit: Option<u64>,
    },
    /// `ENTITIES …`
    Entities {
        /// `AT LAYER n`
        layer: Option<LayerNumber>,
        /// `LIMIT n`
        limit: Option<u64>,
    },
    /// `MODELS`
    Models,
    /// `MOUNTS`
    Mounts,
    /// `PATCHES`
    Patches,
    /// `COMPACT STATUS`
    CompactStatus,
    /// `BRANCHES`
    Branches,
    /// `ASSERTIONS`
    Assertions,
    /// `INDEXES`
    Indexes,
    /// `SESSIONS`
    Sessions,
    /// A setting by name; `ALL` shows every one.
    Setting(Name),
}

/// A value after `SET name =`.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingLiteral {
    /// A string or a bare word.
    Word(String),
    /// An integer.
    Integer(i64),
    /// A real.
    Real(f64),
}

/// `SELECT`
#[derive(Debug, Clone, PartialEq)]
pub struct Select {
    /// `DISTINCT`
    pub distinct: bool,
    /// What to answer.
    pub items: Vec<SelectItem>,
    /// `FROM`; only a later stage of a pipe may leave it out.
    pub from: Option<Source>,
    /// `JOIN …`
    pub joins: Vec<Join>,
    /// `NEAREST TO … AT LAYER …`
    pub nearest: Option<Spanned<NearestTo>>,
    /// `WHERE …`
    pub filter: Option<Expression>,
    /// `GROUP BY …`
    pub group_by: Vec<Expression>,
    /// `HAVING …`
    pub having: Option<Expression>,
    /// `ORDER BY …`
    pub order_by: Vec<OrderKey>,
    /// `LIMIT n`
    pub limit: Option<u64>,
    /// `OFFSET n`
    pub offset: Option<u64>,
    /// `APPROX`
    pub approximate: Flag,
}

/// One item of a select list.
#[derive(Debug, Clone, PartialEq)]
pub enum SelectItem {
    /// `*` or `source.*`
    All(Spanned<Option<String>>),
    /// An expression, perhaps renamed.
    Expression {
        /// What to compute.
        expression: Expression,
        /// `AS name`
        alias: Option<Name>,
    },
}

/// A source of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Which rows.
    pub table: Table,
    /// `AS name`
    pub alias: Option<Name>,
}

/// What stands after FROM or JOIN.
#[derive(Debug, Clone, PartialEq)]
pub enum Table {
    /// `EDGES`, `FEATURES`, `ENTITIES`, or a table, perhaps with its schema.
    Named {
        /// Before the dot.
        schema: Option<Name>,
        /// The table.
        name: Name,
    },
    /// A sub-query.
    Select(Spanned<Box<Select>>),
}

/// `JOIN source ON condition`
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// The other source.
    pub source: Source,
    /// `ON …`
    pub on: Expression,
}

/// `NEAREST TO text AT LAYER n`
#[derive(Debug, Clone, PartialEq)]
pub struct NearestTo {
    /// The entity.
    pub entity: Text,
    /// The layer.
    pub layer: LayerNumber,
}

/// One key of ORDER BY.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderKey {
    /// What to sort by.
    pub expression: Expression,
    /// `DESC`
    pub descending: bool,
}

/// An expression with its place.
pub type Expression = Spanned<ExpressionKind>;

/// What an expression is. `AND`, `OR` and chains of arithmetic are flat, so that depth comes from
/// parentheses alone.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpressionKind {
    /// NULL
    Null,
    /// TRUE or FALSE
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A real.
    Real(f64),
    /// A string.
    Text(String),
    /// `$1` or `$column`
    Parameter(Parameter),
    /// A column.
    Column {
        /// Before the dot.
        qualifier: Option<String>,
        /// The column.
        name: String,
    },
    /// `NOT a`
    Not(Box<Expression>),
    /// `a AND b AND …`, at least two.
    And(Vec<Expression>),
    /// `a OR b OR …`, at least two.
    Or(Vec<Expression>),
    /// `a = b` and its like.
    Comparison {
        /// How.
        operator: ComparisonOperator,
        /// Left of the operator.
        left: Box<Expression>,
        /// Right of the operator.
        right: Box<Expression>,
    },
    /// `a [NOT] LIKE b`
    Like {
        /// The text.
        value: Box<Expression>,
        /// The pattern.
        pattern: Box<Expression>,
        /// With NOT.
        negated: bool,
    },
    /// `a [NOT] IN (b, …)`
    InList {
        /// The value.
        value: Box<Expression>,
        /// At least one.
        list: Vec<Expression>,
        /// With NOT.
        negated: bool,
    },
    /// `a [NOT] BETWEEN b AND c`
    Between {
        /// The value.
        value: Box<Expression>,
        /// The least.
        low: Box<Expression>,
        /// The greatest.
        high: Box<Expression>,
        /// With NOT.
        negated: bool,
    },
    /// `a IS [NOT] NULL`
    IsNull {
        /// The value.
        value: Box<Expression>,
        /// With NOT.
        negated: bool,
    },
    /// Operands of one precedence joined from left to right.
    Arithmetic {
        /// The leftmost.
        first: Box<Expression>,
        /// Each operator with its right operand; all additive or all multiplicative.
        rest: Vec<(ArithmeticOperator, Expression)>,
    },
    /// `-a`
    Negate(Box<Expression>),
    /// `name(a, …)` or `name(*)`
    Function {
        /// Its name.
        name: String,
        /// `DISTINCT` before the arguments.
        distinct: bool,
        /// The arguments; `None` for `*`.
        arguments: Option<Vec<Expression>>,
    },
}

/// Operators of comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ComparisonOperator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl ComparisonOperator {
    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// Operators of arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArithmeticOperator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
}

impl ArithmeticOperator {
    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
        }
    }

    /// Whether it is `+` or `-`.
    pub fn is_additive(self) -> bool {
        matches!(self, Self::Add | Self::Subtract)
    }
}
