//! The logical plan: what a statement asks, as a tree of relations.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use crate::bind::Aggregate;
use crate::bind::expression::Expression;
use crate::layers::LayerSet;
use crate::physical::edit::Edit;
use crate::physical::plan::{
    DescribeEdges, ExplainInfer, FeatureColumn, ForEach, Infer, Operator, QueryVector,
    RelationCount, SortKey, TableScan, Write,
};
use crate::value::{Column, ColumnType};

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// Features that have output tokens, by (layer, feature).
    Features {
        /// Of these layers.
        layers: LayerSet,
        /// At most so many.
        rows_max: Option<u64>,
        /// With these columns.
        columns: Vec<FeatureColumn>,
    },
    /// The gates that answer a query best, layer by layer.
    GateHits {
        /// What is looked up.
        query: QueryVector,
        /// In these layers.
        layers: LayerSet,
        /// At most so many a layer.
        k: Option<u64>,
        /// With at least this z.
        z_min: Option<f64>,
        /// Without hits that have no output tokens.
        tokens_required: bool,
        /// An index that misses some may be used.
        approximate: bool,
        /// With these columns.
        columns: Vec<FeatureColumn>,
    },
    /// Features of one layer by nearness to an entity.
    Nearest {
        /// The entity.
        entity: Arc<str>,
        /// The layer.
        layer: u32,
        /// At most so many.
        k: Option<u64>,
        /// With these columns.
        columns: Vec<FeatureColumn>,
    },
    /// One row without columns: what a SELECT without FROM computes from.
    OneRow,
    /// Rows of a table that the catalog knows.
    TableScan {
        /// Which table, and which of its columns.
        scan: TableScan,
        /// Those columns.
        columns: Vec<Column>,
    },
    /// Pairs of rows of two inputs, in the order of the first, then of the second.
    Join {
        /// Over the columns of the first input, then of the second; `None` for all pairs.
        on: Option<Expression>,
        /// The inputs.
        inputs: Box<[Self; 2]>,
    },
    /// One row a group: the keys, then the aggregates; by key. Without keys there is one group, even
    /// of no row.
    Aggregate {
        /// What rows of one group have in common, over the input's columns.
        keys: Vec<Expression>,
        /// What is computed of each group.
        aggregates: Vec<Aggregate>,
        /// Names and types of keys and aggregates.
        columns: Vec<Column>,
        /// Which rows.
        input: Box<Self>,
    },
    /// A statement run for each row of the first input; the second shows its plan.
    ForEach {
        /// What is run.
        each: ForEach,
        /// The rows, and what is run as planned for some row.
        inputs: Box<[Self; 2]>,
    },
    /// Rows for which the predicate is true.
    Filter {
        /// Over the input's columns.
        predicate: Expression,
        /// Which rows.
        input: Box<Self>,
    },
    /// Computed columns.
    Project {
        /// One a column, over the input's columns.
        expressions: Vec<Expression>,
        /// Their names and types.
        columns: Vec<Column>,
        /// Which rows.
        input: Box<Self>,
    },
    /// Rows in order.
    Sort {
        /// Most significant first.
        keys: Vec<SortKey>,
        /// Which rows.
        input: Box<Self>,
    },
    /// Some of the rows.
    Limit {
        /// How many; `None` for all.
        count: Option<u64>,
        /// After so many.
        offset: u64,
        /// Of which rows.
        input: Box<Self>,
    },
    /// Rows without repeats.
    Distinct {
        /// Which rows.
        input: Box<Self>,
    },
    /// Rows of one input after another.
    Concatenate {
        /// At least one, all with the same columns.
        inputs: Vec<Self>,
    },
    /// Gate hits grouped into edges.
    DescribeEdges {
        /// How.
        edges: DescribeEdges,
        /// The hits.
        input: Box<Self>,
    },
    /// Targets that look like names, counted.
    EntityCount {
        /// The features.
        input: Box<Self>,
    },
    /// Features counted by relation.
    RelationCount {
        /// How.
        count: RelationCount,
        /// The features.
        input: Box<Self>,
    },
    /// Rows written to a file; one row tells of it.
    Write {
        /// Where and how.
        write: Write,
        /// Which rows.
        input: Box<Self>,
    },
    /// Edges that are changed; a row tells of each change.
    Edit {
        /// How.
        edit: Edit,
        /// Which edges: rows of EDGES.
        input: Box<Self>,
    },
    /// The next token.
    Infer(Infer),
    /// The features at work in inference.
    ExplainInfer(ExplainInfer),
    /// Anything that can be done in one way only.
    Leaf {
        /// The operator that does it.
        operator: Operator,
        /// The columns it answers.
        columns: Vec<Column>,
    },
}

impl Plan {
    /// The columns of its rows.
    pub fn columns(&self) -> Vec<Column> {
        match self {
            Self::Features { columns, .. }
            | Self::GateHits { columns, .. }
            | Self::Nearest { columns, .. } => {
                columns.iter().map(|column| column.column()).collect()
            }
            Self::Filter { input, .. }
            | Self::Sort { input, .. }
            | Self::Limit { input, .. }
            | Self::Distinct { input } => input.columns(),
            Self::Project { columns, .. }
            | Self::Leaf { columns, .. }
            | Self::TableScan { columns, .. }
            | Self::Aggregate { columns, .. } => columns.clone(),
            Self::OneRow => Vec::new(),
            Self::Join { inputs, .. } => inputs.iter().flat_map(Self::columns).collect(),
            Self::ForEach { inputs, .. } => inputs[1].columns(),
            Self::Concatenate { inputs } => inputs.first().map(Self::columns).unwrap_or_default(),
            Self::Write { .. } => named(&WRITE_COLUMNS),
            Self::Edit { .. } => named(&EDIT_COLUMNS),
            Self::DescribeEdges { .. } => named(&DESCRIBE_COLUMNS),
            Self::EntityCount { .. } => named(&ENTITY_COLUMNS),
            Self::RelationCount { count, .. } => {
                let mut columns = named(&RELATION_COLUMNS);
                columns.extend(count.examples.then(|| Column::new("examples", ColumnType::List)));
                columns
            }
            Self::Infer(infer) => {
                let mut columns = named(&INFER_COLUMNS);
                columns.extend(infer.compare.then(|| Column::new("ffn", ColumnType::Text)));
                columns
            }
            Self::ExplainInfer(explain) => {
                explain.columns.iter().map(|column| column.column()).collect()
            }
        }
    }

    /// The plans it reads.
    pub fn inputs(&self) -> &[Self] {
        match self {
            Self::Features { .. }
            | Self::GateHits { .. }
            | Self::Nearest { .. }
            | Self::OneRow
            | Self::TableScan { .. }
            | Self::Infer(_)
            | Self::ExplainInfer(_)
            | Self::Leaf { .. } => &[],
            Self::Filter { input, .. }
            | Self::Project { input, .. }
            | Self::Sort { input, .. }
            | Self::Limit { input, .. }
            | Self::Distinct { input }
            | Self::Write { input, .. }
            | Self::Edit { input, .. }
            | Self::Aggregate { input, .. }
            | Self::DescribeEdges { input, .. }
            | Self::EntityCount { input }
            | Self::RelationCount { input, .. } => std::slice::from_ref(input),
            Self::Concatenate { inputs } => inputs,
            Self::Join { inputs, .. } | Self::ForEach { inputs, .. } => &inputs[..],
        }
    }

    /// The plans it reads, to be rewritten.
    pub fn inputs_mut(&mut self) -> &mut [Self] {
        match self {
            Self::Features { .. }
            | Self::GateHits { .. }
            | Self::Nearest { .. }
            | Self::OneRow
            | Self::TableScan { .. }
            | Self::Infer(_)
            | Self::ExplainInfer(_)
            | Self::Leaf { .. } => &mut [],
            Self::Filter { input, .. }
            | Self::Project { input, .. }
            | Self::Sort { input, .. }
            | Self::Limit { input, .. }
            | Self::Distinct { input }
            | Self::Write { input, .. }
            | Self::Edit { input, .. }
            | Self::Aggregate { input, .. }
            | Self::DescribeEdges { input, .. }
            | Self::EntityCount { input }
            | Self::RelationCount { input, .. } => std::slice::from_mut(input),
            Self::Concatenate { inputs } => inputs,
            Self::Join { inputs, .. } | Self::ForEach { inputs, .. } => &mut inputs[..],
        }
    }

    /// Whether gate hits are looked for somewhere in it.
    pub fn has_gate_hits(&self) -> bool {
        matches!(self, Self::GateHits { .. }) || self.inputs().iter().any(Self::has_gate_hits)
    }

    /// The operator that does this in the most direct way, without its inputs.
    pub fn direct_operator(&self) -> Operator {
        use crate::physical::plan::{FeatureScan, GateScan, Nearest};
        match self.clone() {
            Self::Features { layers, rows_max, columns } => {
                Operator::FeatureScan(FeatureScan { layers, rows_max, columns })
            }
            Self::GateHits { query, layers, k, z_min, tokens_required, approximate, columns } => {
                let scan =
                    GateScan { query, layers, k, z_min, tokens_required, approximate, columns };
                Operator::GateScan(scan)
            }
            Self::Nearest { entity, layer, k, columns } => {
                Operator::Nearest(Nearest { entity, layer, k, columns })
            }
            Self::OneRow => Operator::OneRow,
            Self::TableScan { scan, .. } => Operator::TableScan(scan),
            Self::Join { on, .. } => Operator::NestedLoopJoin { on },
            Self::Aggregate { keys, aggregates, .. } => Operator::Aggregate { keys, aggregates },
            Self::ForEach { each, .. } => Operator::ForEach(each),
            Self::Filter { predicate, .. } => Operator::Filter { predicate },
            Self::Project { expressions, .. } => Operator::Project { expressions },
            Self::Sort { keys, .. } => Operator::Sort { keys },
            Self::Limit { count, offset, .. } => Operator::Limit { count, offset },
            Self::Distinct { .. } => Operator::Distinct,
            Self::Write { write, .. } => Operator::Write(write),
            Self::Edit { edit, .. } => Operator::Edit(edit),
            Self::Concatenate { .. } => Operator::Concatenate,
            Self::DescribeEdges { edges, .. } => Operator::DescribeEdges(edges),
            Self::EntityCount { .. } => Operator::EntityCount,
            Self::RelationCount { count, .. } => Operator::RelationCount(count),
            Self::Infer(infer) => Operator::Infer(infer),
            Self::ExplainInfer(explain) => Operator::ExplainInfer(explain),
            Self::Leaf { operator, .. } => operator,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Features { .. } => "Features",
            Self::GateHits { .. } => "GateHits",
            Self::Join { .. } => "Join",
            _ => "",
        }
    }

    fn write(&self, formatter: &mut Formatter<'_>, depth: usize) -> fmt::Result {
        let operator = self.direct_operator();
        let name = Some(self.name()).filter(|name| !name.is_empty()).unwrap_or(operator.name());
        let columns = self.columns();
        let detail = operator.detail(&columns);
        let line = format!("{}{name} {detail}", "  ".repeat(depth));
        writeln!(formatter, "{}", line.trim_end())?;
        self.inputs().iter().try_for_each(|input| input.write(formatter, depth + 1))
    }
}

impl Display for Plan {
    /// One line a node, inputs indented.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.write(formatter, 0)
    }
}

type NamedColumns<const N: usize> = [(&'static str, ColumnType); N];

fn named<const N: usize>(columns: &NamedColumns<N>) -> Vec<Column> {
    columns.iter().map(|(name, kind)| Column::new(*name, *kind)).collect()
}

/// The columns of DESCRIBE.
pub const DESCRIBE_COLUMNS: NamedColumns<12> = [
    ("entity", ColumnType::Text),
    ("relation", ColumnType::Text),
    ("target", ColumnType::Text),
    ("gate_score", ColumnType::Real),
    ("layer", ColumnType::Integer),
    ("feature", ColumnType::Integer),
    ("layer_min", ColumnType::Integer),
    ("layer_max", ColumnType::Integer),
    ("count", ColumnType::Integer),
    ("also", ColumnType::List),
    ("source", ColumnType::Text),
    ("confidence", ColumnType::Real),
];

/// The columns of ENTITIES and SHOW ENTITIES.
pub const ENTITY_COLUMNS: NamedColumns<3> =
    [("entity", ColumnType::Text), ("count", ColumnType::Integer), ("max_logit", ColumnType::Real)];

/// The columns of SHOW RELATIONS; `examples` (list) follows where asked for.
pub const RELATION_COLUMNS: NamedColumns<5> = [
    ("relation", ColumnType::Text),
    ("count", ColumnType::Integer),
    ("layer_min", ColumnType::Integer),
    ("layer_max", ColumnType::Integer),
    ("edges", ColumnType::Integer),
];

/// The columns of INFER; `ffn` (text) follows with COMPARE.
pub const INFER_COLUMNS: NamedColumns<6> = [
    ("rank", ColumnType::Integer),
    ("token", ColumnType::Text),
    ("token_id", ColumnType::Integer),
    ("probability", ColumnType::Real),
    ("logit", ColumnType::Real),
    ("source", ColumnType::Text),
];

/// The columns of GENERATE.
pub const GENERATE_COLUMNS: NamedColumns<5> = [
    ("position", ColumnType::Integer),
    ("token", ColumnType::Text),
    ("token_id", ColumnType::Integer),
    ("probability", ColumnType::Real),
    ("text", ColumnType::Text),
];

/// The columns of TRACE and TRACE OPEN.
pub const TRACE_COLUMNS: NamedColumns<10> = [
    ("position", ColumnType::Integer),
    ("layer", ColumnType::Integer),
    ("rank", ColumnType::Integer),
    ("probability", ColumnType::Real),
    ("attn_logit", ColumnType::Real),
    ("ffn_logit", ColumnType::Real),
    ("residual_norm", ColumnType::Real),
    ("attn_norm", ColumnType::Real),
    ("ffn_norm", ColumnType::Real),
    ("top_token", ColumnType::Text),
];

/// The columns of SHOW LAYERS. `gate_mean` and `gate_deviation` are the layer's gate score
/// statistics, NULL without them.
pub const LAYER_COLUMNS: NamedColumns<7> = [
    ("layer", ColumnType::Integer),
    ("band", ColumnType::Text),
    ("features", ColumnType::Integer),
    ("features_with_tokens", ColumnType::Integer),
    ("top_target", ColumnType::Text),
    ("gate_mean", ColumnType::Real),
    ("gate_deviation", ColumnType::Real),
];

/// The columns of `larql.caches`: a row for `answers` and one for `plans`, which share `bytes_max`.
pub const CACHE_COLUMNS: NamedColumns<6> = [
    ("name", ColumnType::Text),
    ("entries", ColumnType::Integer),
    ("bytes", ColumnType::Integer),
    ("bytes_max", ColumnType::Integer),
    ("hits", ColumnType::Integer),
    ("misses", ColumnType::Integer),
];

/// The columns of `larql.tables`: a row a table of facts. `path` is the copy that the daemon keeps; what is
/// in a table (`columns`, `rows`, `bytes` of memory) is NULL until somebody reads it.
pub const FACTS_TABLE_COLUMNS: NamedColumns<6> = [
    ("name", ColumnType::Text),
    ("path", ColumnType::Text),
    ("format", ColumnType::Text),
    ("columns", ColumnType::List),
    ("rows", ColumnType::Integer),
    ("bytes", ColumnType::Integer),
];

/// The columns of SHOW INDEXES, CREATE INDEX and ANALYZE. `state` is `ready`, `stale` or `damaged`, the last
/// with the reason; `keys` are texts or vectors, `entries` features; `recall` is NULL where an index finds
/// all that a scan finds.
pub const INDEX_COLUMNS: NamedColumns<8> = [
    ("name", ColumnType::Text),
    ("target", ColumnType::Text),
    ("method", ColumnType::Text),
    ("state", ColumnType::Text),
    ("keys", ColumnType::Integer),
    ("entries", ColumnType::Integer),
    ("bytes", ColumnType::Integer),
    ("recall", ColumnType::Real),
];

/// The columns of VERIFY EDGE.
pub const VERIFY_EDGE_COLUMNS: NamedColumns<10> = [
    ("entity", ColumnType::Text),
    ("relation", ColumnType::Text),
    ("target", ColumnType::Text),
    ("layer", ColumnType::Integer),
    ("feature", ColumnType::Integer),
    ("probability", ColumnType::Real),
    ("probability_without", ColumnType::Real),
    ("loss", ColumnType::Real),
    ("loss_at_random", ColumnType::Real),
    ("confirmed", ColumnType::Boolean),
];

/// The columns of LABEL.
pub const LABEL_COLUMNS: NamedColumns<7> = [
    ("facts", ColumnType::Text),
    ("relations", ColumnType::Integer),
    ("relations_known", ColumnType::Integer),
    ("entities", ColumnType::Integer),
    ("edges", ColumnType::Integer),
    ("features", ColumnType::Integer),
    ("calibration_error", ColumnType::Real),
];

/// The columns of SHOW MODELS.
pub const MODEL_COLUMNS: NamedColumns<6> = [
    ("name", ColumnType::Text),
    ("path", ColumnType::Text),
    ("kind", ColumnType::Text),
    ("level", ColumnType::Text),
    ("layers", ColumnType::Integer),
    ("size_bytes", ColumnType::Integer),
];

/// The columns of SHOW MOUNTS and MOUNT. USE answers no rows, so that what follows it in a script stands alone.
pub const MOUNT_COLUMNS: NamedColumns<8> = [
    ("name", ColumnType::Text),
    ("path", ColumnType::Text),
    ("kind", ColumnType::Text),
    ("level", ColumnType::Text),
    ("layers", ColumnType::Integer),
    ("features", ColumnType::Integer),
    ("base_hash", ColumnType::Text),
    ("in_use", ColumnType::Boolean),
];

/// The columns of SHOW SESSIONS. `age_s` is seconds since the session was opened; `own` marks the session
/// that asks.
pub const SESSION_COLUMNS: NamedColumns<10> = [
    ("id", ColumnType::Integer),
    ("principal", ColumnType::Text),
    ("role", ColumnType::Text),
    ("mount", ColumnType::Text),
    ("state", ColumnType::Text),
    ("statement", ColumnType::Text),
    ("running_ms", ColumnType::Real),
    ("statements", ColumnType::Integer),
    ("age_s", ColumnType::Real),
    ("own", ColumnType::Boolean),
];

/// The columns of `larql.statements`. `age_s` is seconds since the statement began; rows and bytes are NULL
/// while it runs, `code` unless it failed.
pub const STATEMENT_COLUMNS: NamedColumns<9> = [
    ("session", ColumnType::Integer),
    ("principal", ColumnType::Text),
    ("statement", ColumnType::Text),
    ("state", ColumnType::Text),
    ("age_s", ColumnType::Real),
    ("ms", ColumnType::Real),
    ("rows", ColumnType::Integer),
    ("bytes", ColumnType::Integer),
    ("code", ColumnType::Text),
];

/// The columns of INSERT, UPDATE and DELETE, a row for each fact. `lsn` is NULL within a transaction; the
/// probabilities are of the target's first token after the fact's plainest prompt, before and after; these and
/// `harm`, a JSON object, are NULL without a receipt.
pub const EDIT_COLUMNS: NamedColumns<10> = [
    ("entity", ColumnType::Text),
    ("relation", ColumnType::Text),
    ("target", ColumnType::Text),
    ("mode", ColumnType::Text),
    ("layers", ColumnType::List),
    ("features", ColumnType::List),
    ("lsn", ColumnType::Integer),
    ("probability_before", ColumnType::Real),
    ("probability_after", ColumnType::Real),
    ("harm", ColumnType::Text),
];

/// The columns of REBALANCE: a row for each composed fact; `scale` is the factor on its down vectors, `status` is `within`,
/// `raised`, `lowered` or `out of reach`.
pub const REBALANCE_COLUMNS: NamedColumns<8> = [
    ("entity", ColumnType::Text),
    ("relation", ColumnType::Text),
    ("target", ColumnType::Text),
    ("probability_before", ColumnType::Real),
    ("probability_after", ColumnType::Real),
    ("scale", ColumnType::Real),
    ("status", ColumnType::Text),
    ("lsn", ColumnType::Integer),
];

/// The columns of SHOW PATCHES and SAVE PATCH. `name` is NULL for a transaction that is no patch;
/// `bytes` are those of its operations in the log, `applied_at` is in UTC.
pub const PATCH_COLUMNS: NamedColumns<10> = [
    ("name", ColumnType::Text),
    ("branch", ColumnType::Text),
    ("inserts", ColumnType::Integer),
    ("updates", ColumnType::Integer),
    ("deletes", ColumnType::Integer),
    ("bytes", ColumnType::Integer),
    ("lsn", ColumnType::Integer),
    ("applied_at", ColumnType::Text),
    ("author", ColumnType::Text),
    ("base_hash", ColumnType::Text),
];

/// What a receipt adds to a row: probabilities of what is answered, and what harm that does.
const RECEIPT_COLUMNS: NamedColumns<3> = [
    ("probability_before", ColumnType::Real),
    ("probability_after", ColumnType::Real),
    ("harm", ColumnType::Text),
];

/// Columns, and a receipt's after them.
const fn with_receipt<const OWN: usize, const ALL: usize>(
    own: NamedColumns<OWN>,
) -> NamedColumns<ALL> {
    assert!(OWN + RECEIPT_COLUMNS.len() == ALL);
    let mut all = [("", ColumnType::Text); ALL];
    let mut at = 0;
    while at < ALL {
        all[at] = if at < OWN { own[at] } else { RECEIPT_COLUMNS[at - OWN] };
        at += 1;
    }
    all
}

/// The columns of MERGE: how many features and facts were taken over, and how many of both were in conflict; the
/// rest as for APPLY PATCH.
pub const MERGE_COLUMNS: NamedColumns<8> = with_receipt([
    ("source", ColumnType::Text),
    ("features", ColumnType::Integer),
    ("facts", ColumnType::Integer),
    ("conflicts", ColumnType::Integer),
    ("lsn", ColumnType::Integer),
]);

/// The columns of APPLY PATCH: the patch's, the mean probabilities of what it answers, and what harm that does.
pub const APPLIED_COLUMNS: NamedColumns<13> = with_receipt(PATCH_COLUMNS);

/// The columns of SHOW BRANCHES. `origin` and `origin_lsn` are NULL for `main`; `transactions` counts those in
/// force, inherited ones included.
pub const BRANCH_COLUMNS: NamedColumns<6> = [
    ("name", ColumnType::Text),
    ("origin", ColumnType::Text),
    ("origin_lsn", ColumnType::Integer),
    ("lsn", ColumnType::Integer),
    ("transactions", ColumnType::Integer),
    ("current", ColumnType::Boolean),
];

/// The columns of SHOW ASSERTIONS; `at_least` is NULL where the answer alone is asserted.
pub const ASSERTION_COLUMNS: NamedColumns<4> = [
    ("name", ColumnType::Text),
    ("prompt", ColumnType::Text),
    ("expected", ColumnType::Text),
    ("at_least", ColumnType::Real),
];

/// The columns of CHECK ASSERTIONS: what is answered, as far as it is what is expected and one token on, and the
/// probability of all that is expected.
pub const CHECK_COLUMNS: NamedColumns<7> = [
    ("name", ColumnType::Text),
    ("holds", ColumnType::Boolean),
    ("prompt", ColumnType::Text),
    ("expected", ColumnType::Text),
    ("at_least", ColumnType::Real),
    ("answer", ColumnType::Text),
    ("probability", ColumnType::Real),
];

/// The columns of BLAME: a transaction (`operation` is NULL) or one of its operations, from 1; what the answer's
/// probability is, what it is without it, the difference, and what would be answered. `lsn` is NULL for what is
/// not committed yet.
pub const BLAME_COLUMNS: NamedColumns<12> = [
    ("lsn", ColumnType::Integer),
    ("patch", ColumnType::Text),
    ("operation", ColumnType::Integer),
    ("change", ColumnType::Text),
    ("entity", ColumnType::Text),
    ("relation", ColumnType::Text),
    ("target", ColumnType::Text),
    ("author", ColumnType::Text),
    ("probability", ColumnType::Real),
    ("probability_without", ColumnType::Real),
    ("contribution", ColumnType::Real),
    ("answer_without", ColumnType::Text),
];

/// The columns of COMPACT: a fact, how it was and is kept, and the share of its prompts that it answers.
pub const COMPACT_COLUMNS: NamedColumns<10> = [
    ("entity", ColumnType::Text),
    ("relation", ColumnType::Text),
    ("target", ColumnType::Text),
    ("mode_before", ColumnType::Text),
    ("mode", ColumnType::Text),
    ("layers", ColumnType::List),
    ("features", ColumnType::List),
    ("answered_before", ColumnType::Real),
    ("answered", ColumnType::Real),
    ("lsn", ColumnType::Integer),
];

/// The columns of SHOW COMPACT STATUS, a row for each tier and one for the log; `bytes` are those of vectors.
pub const COMPACT_STATUS_COLUMNS: NamedColumns<6> = [
    ("tier", ColumnType::Text),
    ("mode", ColumnType::Text),
    ("entries", ColumnType::Integer),
    ("facts", ColumnType::Integer),
    ("layers", ColumnType::List),
    ("bytes", ColumnType::Integer),
];

/// The columns of `larql.wal`. What a record does not have is NULL, and so is another caller's statement.
pub const WAL_COLUMNS: NamedColumns<8> = [
    ("lsn", ColumnType::Integer),
    ("kind", ColumnType::Text),
    ("branch", ColumnType::Text),
    ("patch", ColumnType::Text),
    ("operations", ColumnType::Integer),
    ("author", ColumnType::Text),
    ("at", ColumnType::Text),
    ("statement", ColumnType::Text),
];

/// The columns of EXTRACT.
pub const EXTRACT_COLUMNS: NamedColumns<7> = [
    ("name", ColumnType::Text),
    ("path", ColumnType::Text),
    ("level", ColumnType::Text),
    ("layers", ColumnType::Integer),
    ("features", ColumnType::Integer),
    ("size_bytes", ColumnType::Integer),
    ("base_hash", ColumnType::Text),
];

/// The columns of DIFF: what the old and the new side say of a feature, and how far each of its vectors
/// moved, by its old length.
pub const DIFF_COLUMNS: NamedColumns<11> = [
    ("layer", ColumnType::Integer),
    ("feature", ColumnType::Integer),
    ("status", ColumnType::Text),
    ("target", ColumnType::Text),
    ("target_new", ColumnType::Text),
    ("relation", ColumnType::Text),
    ("relation_new", ColumnType::Text),
    ("gate_change", ColumnType::Real),
    ("up_change", ColumnType::Real),
    ("down_change", ColumnType::Real),
    ("entity", ColumnType::Text),
];

/// The columns of COMPILE; the last two are null without VERIFY.
pub const COMPILE_COLUMNS: NamedColumns<8> = [
    ("path", ColumnType::Text),
    ("format", ColumnType::Text),
    ("files", ColumnType::Integer),
    ("tensors", ColumnType::Integer),
    ("size_bytes", ColumnType::Integer),
    ("edits", ColumnType::Integer),
    ("edits_answered", ColumnType::Integer),
    ("drift_bits_per_token", ColumnType::Real),
];

/// The columns of VERIFY VINDEX: a file and `ok`, `missing`, `wrong size` or `wrong checksum`.
pub const VERIFY_COLUMNS: NamedColumns<3> =
    [("file", ColumnType::Text), ("status", ColumnType::Text), ("bytes", ColumnType::Integer)];

/// The columns of COPY and EXPORT.
pub const WRITE_COLUMNS: NamedColumns<4> = [
    ("file", ColumnType::Text),
    ("format", ColumnType::Text),
    ("rows", ColumnType::Integer),
    ("bytes", ColumnType::Integer),
];

/// The columns of CREATE TABLE; `columns` has name and type of each.
pub const TABLE_COLUMNS: NamedColumns<3> =
    [("name", ColumnType::Text), ("rows", ColumnType::Integer), ("columns", ColumnType::List)];

/// The columns of STATS.
pub const STATISTICS_COLUMNS: NamedColumns<2> =
    [("name", ColumnType::Text), ("value", ColumnType::Text)];

/// The columns of SHOW of a setting.
pub const SETTING_COLUMNS: NamedColumns<4> = [
    ("name", ColumnType::Text),
    ("value", ColumnType::Text),
    ("default", ColumnType::Text),
    ("help", ColumnType::Text),
];

impl Plan {
    /// A leaf with one of the column lists above.
    pub fn leaf<const N: usize>(operator: Operator, columns: &NamedColumns<N>) -> Self {
        Self::Leaf { operator, columns: named(columns) }
    }
}
