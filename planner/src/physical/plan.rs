//! The physical plan: how an answer is computed. A tree of nodes; the daemon runs each operator.
//!
//! Rows flow from children to parents. A feature source produces exactly the columns it is asked
//! for, in that order; expressions above refer to their child's columns by index. Sources produce
//! rows by layer ascending and, within a layer, in the order their documentation names, so that
//! another access path changes the bytes touched and not the rows.

use std::sync::Arc;

use super::generate::Generate;
pub use super::index::{CreateIndex, GateIndexScan, IndexMethod, PostingLookup};
pub use super::jobs::{Compile, Diff, Extract, FileFormat, Label, Level, Quantisation, Write};
use super::trace::Trace;
use super::transaction::Transaction;
pub use super::weight_type::WeightType;
use crate::bind::Aggregate;
use crate::bind::expression::Expression;
use crate::bind::prepared::Prepared;
use crate::catalog::Bands;
use crate::explain::RuleStep;
use crate::layers::{LayerSet, Slot};
pub use crate::settings::EdgeSources;
use crate::settings::SettingChange;
pub use crate::syntax::ast::{
    CompileConflict, CompileFormat, ExtractComponent, ExtractDtype, IndexTarget,
};
use crate::syntax::{Span, SpannedStatement};
use crate::value::{Column, ColumnType};

/// One operator with its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Unique in the plan; the root is 0, then in pre-order.
    pub id: u32,
    /// What it does.
    pub operator: Operator,
    /// Its inputs.
    pub children: Vec<Node>,
    /// What it is expected to produce and to cost, its inputs not counted.
    pub estimate: Estimate,
    /// The columns of the rows it produces.
    pub columns: Vec<Column>,
    /// What EXPLAIN should say beside the operands, where there is something.
    pub note: Option<&'static str>,
}

impl Node {
    /// A node that is neither numbered nor estimated yet.
    pub fn new(operator: Operator, children: Vec<Self>, columns: Vec<Column>) -> Self {
        Self { id: 0, operator, children, estimate: Estimate::default(), columns, note: None }
    }

    /// Visits the node and everything below, parents first.
    pub fn visit<'a>(&'a self, see: &mut dyn FnMut(&'a Node, Option<u32>)) {
        fn walk<'a>(
            node: &'a Node,
            parent: Option<u32>,
            see: &mut dyn FnMut(&'a Node, Option<u32>),
        ) {
            see(node, parent);
            for child in &node.children {
                walk(child, Some(node.id), see);
            }
        }
        walk(self, None, see);
    }
}

/// What an operator is expected to produce and to cost by itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Estimate {
    /// Rows out.
    pub rows: f64,
    /// Bytes of weights and metadata read.
    pub bytes: f64,
    /// Milliseconds of this operator alone.
    pub ms: f64,
}

/// What a node does. A new access path or statement is a new variant.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Operator {
    /// Every feature that has output tokens, of whole layers; rows by (layer, feature).
    FeatureScan(FeatureScan),
    /// The named features, those that exist and have output tokens; rows by (layer, feature).
    SlotLookup(SlotLookup),
    /// What [`Operator::FeatureScan`] gives of the features that an index lists under some texts.
    PostingLookup(PostingLookup),
    /// What [`Operator::EntityCount`] gives over a scan of all layers, from an index of targets.
    EntityLookup {
        /// The index's name.
        index: String,
    },
    /// Gate scores of a query against whole layers; the best K of each layer by magnitude.
    GateScan(GateScan),
    /// What [`Operator::GateScan`] gives, found by an index that says which gates need scoring.
    GateIndexScan(GateIndexScan),
    /// Gate scores of a query against the named slots only. Chosen only where K cannot bind (K is
    /// absent or at least the layer's number of features), because a rank needs the whole layer.
    GateSlots(GateSlots),
    /// Gate scores of an entity against one layer; rows by magnitude descending.
    Nearest(Nearest),
    /// One row without columns.
    OneRow,
    /// Rows of a table that the catalog knows, in the table's order.
    TableScan(TableScan),
    /// Every pair of rows of two children for which the condition is true; by the order of the first
    /// child, then of the second, which is held in memory.
    NestedLoopJoin {
        /// Over the columns of the first child, then of the second; `None` for all pairs.
        on: Option<Expression>,
    },
    /// Pairs of rows of two children that agree in keys, in the order of [`Operator::NestedLoopJoin`].
    /// The second child is held in memory, by its keys. NULL agrees with nothing.
    HashJoin(HashJoin),
    /// One row a group: the keys, then the aggregates; rows by key. Without keys there is one row,
    /// even of no input.
    Aggregate {
        /// What rows of one group have in common, over the child's columns.
        keys: Vec<Expression>,
        /// What is computed of each group.
        aggregates: Vec<Aggregate>,
    },
    /// Runs a statement for each row of the first child and gives what it answers, in order. The
    /// second child is the statement's plan for some row; it is shown and never run.
    ForEach(ForEach),
    /// Keeps rows for which the predicate is true (neither false nor NULL).
    Filter {
        /// Over the child's columns; boolean.
        predicate: Expression,
    },
    /// Computes one expression a column.
    Project {
        /// Over the child's columns, one an output column.
        expressions: Vec<Expression>,
    },
    /// Sorts stably; NULL last in either direction.
    Sort {
        /// Most significant first.
        keys: Vec<SortKey>,
    },
    /// The first rows of a stable sort, in bounded memory: what `Limit` over `Sort` gives.
    TopN {
        /// Most significant first.
        keys: Vec<SortKey>,
        /// How many rows to give.
        count: u64,
        /// How many rows of the sorted input to skip first.
        offset: u64,
    },
    /// Skips, then passes rows; stops its input when done.
    Limit {
        /// How many rows to give; `None` for all.
        count: Option<u64>,
        /// How many rows to skip first.
        offset: u64,
    },
    /// Drops rows equal to an earlier row; the first stays in place.
    Distinct,
    /// All rows of the first child, then of the second, and so on.
    Concatenate,
    /// Groups gate hits by target into edges.
    DescribeEdges(DescribeEdges),
    /// Distinct targets that are content tokens starting with an upper-case or title-case letter of
    /// any script; rows by count descending, then by target.
    EntityCount,
    /// Counts features by relation; rows by count descending, then by relation; the unlabelled
    /// features as one row with a NULL relation, last. A relation that labels know edges of is there
    /// without features, too.
    RelationCount(RelationCount),
    /// One row a layer.
    LayerStatistics {
        /// Which layers.
        layers: LayerSet,
    },
    /// Models that could be mounted: directories with a vindex or a checkpoint.
    ShowModels,
    /// What is mounted.
    ShowMounts,
    /// Who is connected.
    ShowSessions,
    /// What runs and what ran lately.
    ShowStatements,
    /// What is kept of plans and answers.
    ShowCaches,
    /// Tables of facts.
    ShowTables,
    /// The transactions of the session's branch that are in force.
    ShowPatches,
    /// The branches of the mount in use.
    ShowBranches,
    /// INSERT, DELETE, UPDATE.
    Edit(super::edit::Edit),
    /// Composed features whose answers are brought into a band of probabilities.
    Rebalance(super::edit::Rebalance),
    /// The records of the log of the mount in use.
    ShowWal,
    /// The assertions of the session's branch.
    ShowAssertions,
    /// Infers every one of them.
    CheckAssertions,
    /// Infers a prompt without some of the edits, and without others.
    Blame(super::edit::Blame),
    /// Moves facts down a tier.
    Compact(super::edit::Compact),
    /// What lies in which tier.
    CompactStatus,
    /// Begins, ends and names transactions, patches and branches.
    Transaction(Transaction),
    /// Ends a session.
    Kill {
        /// Its number.
        session: u64,
    },
    /// Name and value of what is known about a mount.
    Statistics {
        /// The mount's name.
        mount: String,
    },
    /// The next token of a prompt.
    Infer(Infer),
    /// The features that act while a prompt is inferred.
    ExplainInfer(ExplainInfer),
    /// A prompt continued, token by token.
    Generate(Generate),
    /// The residual stream of a prompt, layer by layer.
    Trace(Trace),
    /// The same from a file; rows as [`Trace`]'s of all positions.
    TraceOpen {
        /// The path as written.
        path: String,
    },
    /// Chooses what the session works on.
    Use(Use),
    /// Mounts a directory.
    Mount {
        /// Path or reference as written.
        path: String,
        /// Its name; by default derived from the path.
        name: Option<String>,
    },
    /// Unmounts by name.
    Unmount {
        /// The mount's name.
        name: String,
    },
    /// Writes a vindex from a checkpoint.
    Extract(Extract),
    /// Writes a model's files from a mount.
    Compile(Compile),
    /// Features in which two models differ, a row each, by layer and feature.
    Diff(Diff),
    /// Learns labels for the mount in use.
    Label(Label),
    /// The edges that labels know.
    KnownEdges(KnownEdges),
    /// Edges that edits state.
    EditedEdges(EditedEdges),
    /// Measures what an edge loses without its feature.
    VerifyEdge(VerifyEdge),
    /// Makes an index of the mount in use.
    CreateIndex(CreateIndex),
    /// Removes an index of the mount in use.
    DropIndex {
        /// Its name.
        name: String,
    },
    /// Makes statistics and indexes of the mount in use anew.
    Analyze,
    /// The indexes of the mount in use.
    ShowIndexes,
    /// Checks every file of a vindex against its checksum.
    VerifyVindex {
        /// The vindex directory as written.
        path: String,
    },
    /// Changes a setting of the session; the value is already checked.
    Set(SettingChange),
    /// Takes a setting back to its default.
    Reset {
        /// The setting's name.
        name: &'static str,
    },
    /// Shows one setting, or all with `None`.
    ShowSetting {
        /// The setting's name.
        name: Option<&'static str>,
    },
    /// Writes its input's rows to a file.
    Write(Write),
    /// Makes a table of facts from a file.
    CreateTable {
        /// The table's name.
        name: String,
        /// The file, as written.
        file: String,
    },
    /// Forgets a table of facts.
    DropTable {
        /// The table's name.
        name: String,
    },
    /// Keeps a statement of the session under a name.
    Prepare {
        /// The name.
        name: String,
        /// The statement, checked.
        prepared: Arc<Prepared>,
    },
    /// Forgets a prepared statement.
    Deallocate {
        /// Its name.
        name: String,
    },
    /// An answer that is kept; its child, which would find it again, does not run.
    CachedAnswer {
        /// How many rows it has.
        rows: u64,
    },
    /// Shows its child's plan; with `analyze` runs it first.
    Explain(Explain),
}

/// The number of examples in a row of SHOW RELATIONS WITH EXAMPLES.
pub const RELATION_EXAMPLES: usize = 5;

/// A column that a feature source can produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeatureColumn {
    /// The layer (integer).
    Layer,
    /// The feature within its layer (integer).
    Feature,
    /// The queried entity where there is one, else the strongest input token of the feature's gate,
    /// or NULL (text).
    Entity,
    /// The feature's label, or NULL (text).
    Relation,
    /// The top output token (text); NULL where the feature has none.
    Target,
    /// The top output token's logit (score).
    Logit,
    /// The output tokens, best first (list of text).
    TopTokens,
    /// The signed dot product of the query and the gate (score); NULL without a query.
    GateScore,
    /// The gate score in standard deviations of its layer's scores (real); NULL without statistics.
    Z,
    /// Calibrated probability (real); NULL until calibration exists.
    Confidence,
    /// Where the row comes from: `patch` of what was edited, `gate` with a query, else NULL (text).
    Source,
    /// The feature's activation in a forward pass (score).
    Activation,
    /// The attention head that a row is about; NULL for all heads together (integer).
    Head,
    /// The position that is attended to (integer).
    Position,
    /// The prompt's token there (text).
    Token,
    /// How much it is attended to, from 0 to 1 (score).
    Weight,
}

impl FeatureColumn {
    /// The column's name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Feature => "feature",
            Self::Entity => "entity",
            Self::Relation => "relation",
            Self::Target => "target",
            Self::Logit => "logit",
            Self::TopTokens => "top_tokens",
            Self::GateScore => "gate_score",
            Self::Z => "z",
            Self::Confidence => "confidence",
            Self::Source => "source",
            Self::Activation => "activation",
            Self::Head => "head",
            Self::Position => "position",
            Self::Token => "token",
            Self::Weight => "weight",
        }
    }

    /// The type of its values.
    pub fn kind(self) -> ColumnType {
        match self {
            Self::Layer | Self::Feature | Self::Head | Self::Position => ColumnType::Integer,
            Self::Entity | Self::Relation | Self::Target | Self::Source | Self::Token => {
                ColumnType::Text
            }
            Self::Logit
            | Self::GateScore
            | Self::Z
            | Self::Confidence
            | Self::Activation
            | Self::Weight => ColumnType::Real,
            Self::TopTokens => ColumnType::List,
        }
    }

    /// Whether producing it reads the feature's record of output tokens.
    pub fn reads_down_meta(self) -> bool {
        matches!(self, Self::Target | Self::Logit | Self::TopTokens)
    }

    /// Name and type together.
    pub fn column(self) -> Column {
        Column::new(self.name(), self.kind())
    }
}

/// Operands of [`Operator::FeatureScan`].
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureScan {
    /// Which layers.
    pub layers: LayerSet,
    /// Stop after so many rows.
    pub rows_max: Option<u64>,
    /// The columns to produce.
    pub columns: Vec<FeatureColumn>,
}

/// Operands of [`Operator::SlotLookup`].
#[derive(Debug, Clone, PartialEq)]
pub struct SlotLookup {
    /// The slots, ascending, without repeats, all within the model.
    pub slots: Vec<Slot>,
    /// The columns to produce.
    pub columns: Vec<FeatureColumn>,
}

/// Operands of [`Operator::TableScan`].
#[derive(Debug, Clone, PartialEq)]
pub struct TableScan {
    /// The table's schema, if it was written.
    pub schema: Option<String>,
    /// The table's name.
    pub name: String,
    /// The columns to produce, by their number in the table.
    pub columns: Vec<usize>,
    /// How many rows it has.
    pub rows: u64,
}

/// Operands of [`Operator::HashJoin`].
#[derive(Debug, Clone, PartialEq)]
pub struct HashJoin {
    /// Pairs that must be equal: over the first child's columns, and over the second child's.
    pub keys: Vec<(Expression, Expression)>,
    /// What else must be true, over the columns of the first child, then of the second.
    pub rest: Option<Expression>,
}

/// Operands of [`Operator::ForEach`].
#[derive(Debug, Clone, PartialEq)]
pub struct ForEach {
    /// The statement, with `$name` for columns of the row.
    pub statement: Arc<SpannedStatement>,
    /// The columns that it names.
    pub columns: Vec<BoundColumn>,
}

/// A column of a row that a statement names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundColumn {
    /// As the statement writes it, without its sign.
    pub name: String,
    /// Which column of the row.
    pub index: usize,
    /// It stands for a text somewhere, so that a row with NULL there runs nothing.
    pub is_text: bool,
}

/// The vector whose dot product with a gate is its score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryVector {
    /// Mean of `embed_scale · E[id]` over the text's tokens, tokenised without special tokens.
    Entity(Arc<str>),
    /// `embed_scale · E[id]` of the last token of the text, tokenised with special tokens.
    LastToken(Arc<str>),
}

/// Operands of [`Operator::GateScan`]. Rows: by layer ascending; within a layer by magnitude of the
/// gate score descending, ties by feature ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct GateScan {
    /// What is looked up.
    pub query: QueryVector,
    /// Which layers.
    pub layers: LayerSet,
    /// At most so many hits a layer, the best by magnitude; `None` for all.
    pub k: Option<u64>,
    /// After K: keep hits with score > 0 and z ≥ this.
    pub z_min: Option<f64>,
    /// After K: drop hits of features without output tokens.
    pub tokens_required: bool,
    /// APPROX: an index that misses some hits may be used.
    pub approximate: bool,
    /// The columns to produce.
    pub columns: Vec<FeatureColumn>,
}

/// Operands of [`Operator::GateSlots`]; rows in the order of [`GateScan`].
#[derive(Debug, Clone, PartialEq)]
pub struct GateSlots {
    /// What is looked up.
    pub query: QueryVector,
    /// The slots, ascending, without repeats, all within the model.
    pub slots: Vec<Slot>,
    /// As in [`GateScan::z_min`].
    pub z_min: Option<f64>,
    /// As in [`GateScan::tokens_required`].
    pub tokens_required: bool,
    /// The columns to produce.
    pub columns: Vec<FeatureColumn>,
}

/// Operands of [`Operator::Nearest`]: features with output tokens, by magnitude of the gate score
/// descending, ties by feature ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// The entity looked up, as in [`QueryVector::Entity`].
    pub entity: Arc<str>,
    /// The layer.
    pub layer: u32,
    /// At most so many rows; `None` for all, in order.
    pub k: Option<u64>,
    /// The columns to produce.
    pub columns: Vec<FeatureColumn>,
}

/// Operands of [`Operator::EditedEdges`].
#[derive(Debug, Clone, PartialEq)]
pub struct EditedEdges {
    /// All that edits state of this entity; `None` for what they state of any without a feature, which a
    /// scan of features does not have.
    pub entity: Option<Arc<str>>,
    /// The columns to produce.
    pub columns: Vec<FeatureColumn>,
}

/// Operands of [`Operator::KnownEdges`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownEdges {
    /// Only those of this entity, which is asked for where labels do not know it.
    pub entity: Option<Arc<str>>,
    /// The columns to produce.
    pub columns: Vec<FeatureColumn>,
}

/// Operands of [`Operator::VerifyEdge`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyEdge {
    /// The entity; always given.
    pub entity: Option<String>,
    /// The relation; without it the bare name is the prompt.
    pub relation: Option<String>,
    /// The object; without it what the model answers.
    pub target: Option<String>,
    /// Layer and feature; without them the feature that the edge leans on most.
    pub slot: Option<(u32, u32)>,
}

/// Operands of [`Operator::DescribeEdges`]. The child is a gate scan that produces
/// [`DESCRIBE_INPUT`], in that order.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribeEdges {
    /// The entity; a target equal to it (case-folded) is dropped.
    pub entity: Arc<str>,
    /// How much is shown.
    pub display: Display,
    /// The bands that divide rows; without them all rows are knowledge.
    pub bands: Option<Bands>,
    /// At most so many rows of each band.
    pub caps: BandCaps,
    /// The layers that were asked for, which an edge's feature must then be of.
    pub layers: Option<LayerSet>,
    /// Where edges come from.
    pub sources: EdgeSources,
    /// The least confidence at which an edge's relation is claimed.
    pub confidence_min: f64,
    /// Keep labelled rows only.
    pub relations_only: bool,
    /// Say which experts the router chose, where there are any.
    pub experts: bool,
    /// At most so many rows altogether.
    pub limit: Option<u64>,
    /// Give the rows of each layer as soon as it is scanned: each target once, as the first hit that
    /// shows it, instead of grouped over all layers. Caps and `limit` apply.
    pub stream: bool,
}

/// The columns that [`Operator::DescribeEdges`] reads from its child.
pub const DESCRIBE_INPUT: [FeatureColumn; 7] = [
    FeatureColumn::Layer,
    FeatureColumn::Feature,
    FeatureColumn::GateScore,
    FeatureColumn::Z,
    FeatureColumn::Target,
    FeatureColumn::Relation,
    FeatureColumn::TopTokens,
];

/// The columns that [`Operator::EntityCount`] reads from its child.
pub const ENTITY_COUNT_INPUT: [FeatureColumn; 2] = [FeatureColumn::Target, FeatureColumn::Logit];

/// The columns that [`Operator::RelationCount`] reads from its child; the last where it counts clusters.
pub const RELATION_COUNT_INPUT: [FeatureColumn; 5] = [
    FeatureColumn::Layer,
    FeatureColumn::Relation,
    FeatureColumn::Target,
    FeatureColumn::Logit,
    FeatureColumn::Feature,
];

/// Operands of [`Operator::RelationCount`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationCount {
    /// Add up to [`RELATION_EXAMPLES`] targets, those with the highest logit.
    pub examples: bool,
    /// Count by the clusters that LABEL found without facts, instead of by relation.
    pub raw: bool,
    /// Which layers' edges are counted; the child gives these layers' features.
    pub layers: LayerSet,
}

/// How much DESCRIBE shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Display {
    /// Few rows a band.
    Brief,
    /// Many rows a band.
    Verbose,
    /// As verbose, without labels: relation is NULL.
    Raw,
}

/// The most rows of each band.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BandCaps {
    /// Of the syntax band.
    pub syntax: u64,
    /// Of the knowledge band and of layers outside all bands.
    pub knowledge: u64,
    /// Of the output band.
    pub output: u64,
}

impl Display {
    /// The most rows of each band in this display.
    pub fn caps(self) -> BandCaps {
        match self {
            Self::Brief => BandCaps { syntax: 10, knowledge: 10, output: 5 },
            Self::Verbose | Self::Raw => BandCaps { syntax: 30, knowledge: 30, output: 30 },
        }
    }

    /// The display's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brief => "brief",
            Self::Verbose => "verbose",
            Self::Raw => "raw",
        }
    }
}

/// How the feed-forward part is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FfnPath {
    /// All features, as matrix products.
    Dense,
    /// The K features of each layer whose gates score highest by magnitude; `None` for all.
    Walk {
        /// Features a layer.
        k: Option<u64>,
    },
}

/// Operands of [`Operator::Infer`].
#[derive(Debug, Clone, PartialEq)]
pub struct Infer {
    /// The prompt, tokenised with special tokens.
    pub prompt: Arc<str>,
    /// How many tokens to list.
    pub top: u64,
    /// How the feed-forward part is computed.
    pub ffn: FfnPath,
    /// One of two paths being compared: rows end with a column `ffn`, `dense` or `walk`.
    pub compare: bool,
}

/// Operands of [`Operator::ExplainInfer`]. Rows: by layer ascending; within a layer features by magnitude
/// of the gate score descending, ties by feature ascending. With attention the layer's features are
/// followed by the positions that all heads together attend to most, by weight descending, ties by
/// position ascending, and by the position that each head attends to most, by head ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainInfer {
    /// The prompt, tokenised with special tokens.
    pub prompt: Arc<str>,
    /// Features shown a layer.
    pub top: u64,
    /// Which layers are shown.
    pub layers: LayerSet,
    /// How the feed-forward part is computed.
    pub ffn: FfnPath,
    /// Leave out features that have no output tokens.
    pub tokens_required: bool,
    /// Say where the heads look, `top` positions for all heads together.
    pub attention: bool,
    /// The columns to produce.
    pub columns: Vec<FeatureColumn>,
}

/// Operands of [`Operator::Use`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// A mount by name, or (when no mount has that name) a vindex directory or reference.
    Vindex {
        /// The name or directory.
        reference: String,
        /// One of its branches; by default `main`.
        branch: Option<String>,
    },
    /// A checkpoint directory, used without extraction.
    Model {
        /// The directory.
        path: String,
        /// Whether it becomes a vindex when it is edited.
        auto_extract: bool,
    },
    /// Another daemon.
    Remote(String),
    /// What is in use already.
    Current {
        /// One of its branches; by default the one in use.
        branch: Option<String>,
    },
}

/// One sort key over the child's columns.
#[derive(Debug, Clone, PartialEq)]
pub struct SortKey {
    /// What is sorted by.
    pub expression: Expression,
    /// Largest first.
    pub descending: bool,
}

/// Operands of [`Operator::Explain`]. The child is the plan that is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    /// Rows, or one row of JSON.
    pub format: crate::syntax::ast::ExplainFormat,
    /// Run the child and report what it did.
    pub analyze: bool,
    /// Where the statement that is explained stands in the script.
    pub span: Span,
    /// The plan after each rule that changed it, when asked for (RULES).
    pub rules: Option<Vec<RuleStep>>,
}
