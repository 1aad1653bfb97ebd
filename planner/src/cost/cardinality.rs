//! Cardinality: how many rows come out of an operator.

use super::selectivity::{EQUAL, selectivity};
use crate::bind::expression::Expression;
use crate::catalog::{IndexTarget, Mount};
use crate::layers::LayerSet;
use crate::physical::Context;
use crate::physical::plan::{FeatureColumn, GateIndexScan, Node, Operator};
use crate::physical::trace::Trace;

/// The share of the K best hits of a layer that pass a threshold on z.
const PASSES_Z: f64 = 0.1;
/// The share of rows that are left when repeats are dropped.
const DISTINCT: f64 = 0.5;
/// The number of groups for each row that is grouped.
const GROUPS: f64 = 0.1;
/// The share of targets that look like names, each counted once.
const ENTITIES: f64 = 0.1;
/// The number of relations that a labelled vindex has.
const RELATIONS: f64 = 20.0;

/// The number of edges that labels know of an entity, and of all.
const ENTITY_EDGES: f64 = 6.0;
const KNOWN_EDGES: f64 = 1000.0;

/// The number of gate hits of some layers.
pub fn gate_hits(mount: &dyn Mount, layers: &LayerSet, k: Option<u64>, has_threshold: bool) -> f64 {
    let hits: f64 =
        layers.iter().map(|layer| mount.features(layer).min(k.unwrap_or(u64::MAX)) as f64).sum();
    if has_threshold { hits * PASSES_Z } else { hits }
}

/// Rows out of a node whose children give `rows_in` together.
pub(super) fn rows_out(node: &Node, rows_in: f64, context: &Context<'_>) -> f64 {
    let from_mount = |rows: &dyn Fn(&dyn Mount) -> f64| context.mount.map_or(0.0, rows);
    match &node.operator {
        Operator::FeatureScan(scan) => {
            let all = from_mount(&|mount| gate_hits(mount, &scan.layers, None, false));
            scan.rows_max.map_or(all, |rows| all.min(rows as f64))
        }
        Operator::SlotLookup(lookup) => lookup.slots.len() as f64,
        Operator::PostingLookup(lookup) => from_mount(&|mount| {
            let lists = mount.postings(lookup.of);
            lists.map_or(0.0, |lists| lists.count(&lookup.texts, &lookup.layers) as f64)
        }),
        Operator::EntityLookup { .. } => from_mount(&|mount| target_keys(mount) * ENTITIES),
        Operator::GateScan(scan) | Operator::GateIndexScan(GateIndexScan { scan, .. }) => {
            from_mount(&|mount| gate_hits(mount, &scan.layers, scan.k, scan.z_min.is_some()))
        }
        Operator::GateSlots(scan) => {
            let slots = scan.slots.len() as f64;
            if scan.z_min.is_some() { slots * PASSES_Z } else { slots }
        }
        Operator::Nearest(nearest) => {
            let layer = LayerSet::one(nearest.layer);
            from_mount(&|mount| gate_hits(mount, &layer, nearest.k, false))
        }
        Operator::OneRow | Operator::CreateTable { .. } | Operator::Write(_) => 1.0,
        Operator::TableScan(scan) => scan.rows as f64,
        Operator::NestedLoopJoin { on } => pairs(node) * on.as_ref().map_or(1.0, selectivity),
        Operator::HashJoin(join) => {
            let keys = pairs(node) * EQUAL.powi(join.keys.len().min(8) as i32);
            keys * join.rest.as_ref().map_or(1.0, selectivity)
        }
        Operator::Aggregate { keys, .. } if keys.is_empty() => 1.0,
        Operator::Aggregate { .. } => rows_in * GROUPS,
        Operator::ForEach(_) => pairs(node),
        Operator::Filter { predicate } => rows_in * kept(predicate, node),
        Operator::Limit { count, offset } => limited(rows_in, count.unwrap_or(u64::MAX), *offset),
        Operator::TopN { count, offset, .. } => limited(rows_in, *count, *offset),
        Operator::Distinct => rows_in * DISTINCT,
        Operator::DescribeEdges(edges) => {
            let grouped = rows_in * DISTINCT;
            edges.limit.map_or(grouped, |limit| grouped.min(limit as f64))
        }
        Operator::EditedEdges(_) => ENTITY_EDGES,
        Operator::KnownEdges(known) => match known.entity {
            Some(_) => ENTITY_EDGES,
            None => KNOWN_EDGES,
        },
        Operator::EntityCount => rows_in * ENTITIES,
        Operator::RelationCount(_) => rows_in.min(RELATIONS),
        Operator::LayerStatistics { layers } => layers.count() as f64,
        Operator::CachedAnswer { rows } => *rows as f64,
        Operator::Infer(infer) => infer.top as f64,
        Operator::ExplainInfer(explain) => explain.layers.count() as f64 * explain.top as f64,
        Operator::Generate(generate) => generate.tokens_max as f64,
        Operator::Trace(trace) => {
            let rows = trace.layers.count() + usize::from(trace.decompose);
            rows as f64 * traced_positions(trace)
        }
        Operator::TraceOpen { .. } => from_mount(&|mount| f64::from(mount.layers())),
        Operator::Project { .. } | Operator::Sort { .. } | Operator::Concatenate => rows_in,
        Operator::Use(_)
        | Operator::Mount { .. }
        | Operator::Extract(_)
        | Operator::Label(_)
        | Operator::VerifyEdge(_)
        | Operator::CreateIndex(_)
        | Operator::Analyze
        | Operator::ShowIndexes
        | Operator::ShowPatches
        | Operator::ShowBranches
        | Operator::Edit(_)
        | Operator::Rebalance(_)
        | Operator::ShowWal
        | Operator::ShowAssertions
        | Operator::CheckAssertions
        | Operator::Compact(_)
        | Operator::Transaction(_)
        | Operator::Compile(_) => 1.0,
        Operator::Blame(blame) => blame.top as f64,
        // Three tiers and the log.
        Operator::CompactStatus => 4.0,
        Operator::ShowSetting { name } => {
            if name.is_some() {
                1.0
            } else {
                crate::settings::SETTINGS.len() as f64
            }
        }
        Operator::ShowModels
        | Operator::ShowMounts
        | Operator::ShowSessions
        | Operator::ShowStatements
        | Operator::ShowCaches
        | Operator::ShowTables
        | Operator::Kill { .. }
        | Operator::Statistics { .. }
        | Operator::VerifyVindex { .. }
        | Operator::Diff(_)
        | Operator::Unmount { .. }
        | Operator::DropIndex { .. }
        | Operator::Set(_)
        | Operator::Reset { .. }
        | Operator::Prepare { .. }
        | Operator::DropTable { .. }
        | Operator::Deallocate { .. }
        | Operator::Explain(_) => 0.0,
    }
}

/// The share of rows that a filter keeps: of what an index listed, those that its texts made it list.
fn kept(predicate: &Expression, node: &Node) -> f64 {
    let Some(Operator::PostingLookup(lookup)) = node.children.first().map(|child| &child.operator)
    else {
        return selectivity(predicate);
    };
    let indexed = match lookup.of {
        IndexTarget::Labels => FeatureColumn::Relation,
        _ => FeatureColumn::Target,
    };
    let at = lookup.columns.iter().position(|column| *column == indexed);
    let others = predicate
        .clone()
        .conjuncts()
        .into_iter()
        .filter(|conjunct| at.is_none_or(|at| conjunct.columns() != [at]));
    others.map(|conjunct| selectivity(&conjunct)).product()
}

/// Distinct targets, as an index of them says.
pub(super) fn target_keys(mount: &dyn Mount) -> f64 {
    mount.postings(IndexTarget::Targets).map_or(0.0, |lists| lists.keys() as f64)
}

/// Positions that a trace has rows of: planning knows no tokens, and a token is some four letters.
pub(super) fn traced_positions(trace: &Trace) -> f64 {
    if trace.all_positions { 1.0 + trace.prompt.chars().count() as f64 / 4.0 } else { 1.0 }
}

/// Pairs of rows of a node's two children.
pub(super) fn pairs(node: &Node) -> f64 {
    node.children.iter().map(|child| child.estimate.rows).product()
}

fn limited(rows: f64, count: u64, offset: u64) -> f64 {
    (rows - offset as f64).clamp(0.0, count as f64)
}
