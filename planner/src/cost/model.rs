//! The cost model, and every constant in it.
//!
//! A plan's time is bytes read over bandwidth, plus operations over their rate, plus random reads
//! times latency, plus rows times what a row costs on its way up.

use super::cardinality::{gate_hits, pairs, rows_out, target_keys};
use crate::catalog::{GateReads, IndexTarget};
use crate::layers::LayerSet;
use crate::physical::plan::{FeatureColumn, FfnPath, GateIndexScan, Node, Operator};
use crate::physical::{Context, Estimate};

/// What this machine's reads and operations cost. The daemon measures them; the defaults are those
/// of two cores of a small server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostConstants {
    /// Sequential reads of mapped weights, bytes a second.
    pub bandwidth_bytes_per_s: f64,
    /// Multiply-adds of a gate scan or a matrix product, a second.
    pub operations_per_s: f64,
    /// One read at a place not read before, milliseconds.
    pub random_read_ms: f64,
    /// One row through one operator, milliseconds.
    pub row_ms: f64,
    /// Decoding one feature's output tokens to text, milliseconds.
    pub decode_tokens_ms: f64,
}

impl Default for CostConstants {
    fn default() -> Self {
        Self {
            bandwidth_bytes_per_s: 8.0e9,
            operations_per_s: 1.6e10,
            random_read_ms: 2.0e-3,
            row_ms: 2.0e-4,
            decode_tokens_ms: 1.0e-3,
        }
    }
}

/// Rows whose logits one pass over the unembedding computes.
const TRACE_ROWS_AT_ONCE: f64 = 32.0;

/// The share of gates that a sketch cannot tell from hits.
const SCORED_AGAIN: f64 = 0.005;
/// What judging one of a sketch's gates takes, in multiply-adds.
const JUDGED: f64 = 160.0;
/// What a product of codes takes, all its terms together, in multiply-adds of a scan.
const CODES: f64 = 0.4;

/// Bytes of a feature in a posting list.
const POSTING_BYTES: f64 = 12.0;

/// Fills in the estimate of every node, inputs first.
pub fn estimate_tree(node: &mut Node, context: &Context<'_>) {
    node.children.iter_mut().for_each(|child| estimate_tree(child, context));
    node.estimate = estimate(node, context);
    if computed_tokens(node, context) > 0.0 {
        node.note = Some("output tokens computed from the weights");
    }
}

/// The milliseconds of a plan: its nodes' together.
pub fn total_ms(node: &Node, context: &Context<'_>) -> f64 {
    let mut copy = node.clone();
    estimate_tree(&mut copy, context);
    let mut total = 0.0;
    copy.visit(&mut |node, _| total += node.estimate.ms);
    total
}

/// What one operator costs by itself; its children are estimated already.
fn estimate(node: &Node, context: &Context<'_>) -> Estimate {
    let rows_in: f64 = node.children.iter().map(|child| child.estimate.rows).sum();
    let rows = rows_out(node, rows_in, context);
    let work = work(node, rows, rows_in, context);
    let costs = context.costs;
    let seconds =
        work.bytes / costs.bandwidth_bytes_per_s + work.operations / costs.operations_per_s;
    let ms = seconds * 1e3
        + work.random_reads * costs.random_read_ms
        + work.token_lists * costs.decode_tokens_ms
        + (rows + rows_in) * costs.row_ms;
    Estimate { rows, bytes: work.bytes, ms }
}

/// What an operator does, in units that constants turn into time.
#[derive(Debug, Default)]
struct Work {
    bytes: f64,
    operations: f64,
    random_reads: f64,
    token_lists: f64,
}

/// Features whose output tokens are computed in one pass over the unembedding.
const TOKENS_AT_ONCE: f64 = 4096.0;

/// Features whose output tokens have to be computed for a node, because the mount stores none.
fn computed_tokens(node: &Node, context: &Context<'_>) -> f64 {
    let Some(mount) = context.mount.filter(|mount| mount.computes_output_tokens()) else {
        return 0.0;
    };
    let reads = |columns: &[FeatureColumn]| columns.iter().any(|column| column.reads_down_meta());
    let hits = |layers: &LayerSet, k| gate_hits(mount, layers, k, false);
    match &node.operator {
        Operator::FeatureScan(scan) => {
            let all = hits(&scan.layers, None);
            scan.rows_max.map_or(all, |rows| all.min(rows as f64))
        }
        Operator::SlotLookup(lookup) => lookup.slots.len() as f64,
        Operator::GateScan(scan) | Operator::GateIndexScan(GateIndexScan { scan, .. })
            if scan.tokens_required || reads(&scan.columns) =>
        {
            hits(&scan.layers, scan.k)
        }
        Operator::GateSlots(scan) if scan.tokens_required || reads(&scan.columns) => {
            scan.slots.len() as f64
        }
        Operator::Nearest(nearest) => hits(&LayerSet::one(nearest.layer), nearest.k),
        Operator::ExplainInfer(explain) if reads(&explain.columns) => {
            hits(&explain.layers, Some(explain.top))
        }
        _ => 0.0,
    }
}

/// What a node does, the computing of output tokens included.
fn work(node: &Node, rows: f64, rows_in: f64, context: &Context<'_>) -> Work {
    let mut work = operator_work(node, rows, rows_in, context);
    let computed = computed_tokens(node, context);
    if let Some(mount) = context.mount
        && computed > 0.0
    {
        let layers = f64::from(mount.layers());
        let passes = (computed / TOKENS_AT_ONCE).max(layers.min(computed)).ceil();
        work.bytes += passes * mount.unembedding_bytes() as f64;
        work.operations += computed * mount.vocabulary_size() as f64 * mount.hidden_size() as f64;
    }
    work
}

fn operator_work(node: &Node, rows: f64, rows_in: f64, context: &Context<'_>) -> Work {
    let Some(mount) = context.mount else { return of_rows(node, rows_in) };
    let record_bytes = mount.down_meta_record_bytes() as f64;
    let row_bytes =
        |layer: u32| mount.gate_bytes(layer) as f64 / (mount.features(layer).max(1)) as f64;
    let hidden = mount.hidden_size() as f64;
    match &node.operator {
        Operator::FeatureScan(scan) => {
            let features: f64 = scan.layers.iter().map(|layer| mount.features(layer) as f64).sum();
            let read = scan.rows_max.map_or(features, |rows| features.min(rows as f64));
            let decoded = scan.columns.iter().any(|column| column.reads_down_meta());
            Work {
                bytes: read * record_bytes,
                token_lists: if decoded { read } else { 0.0 },
                ..Work::default()
            }
        }
        Operator::PostingLookup(lookup) => {
            // The texts are found by halving, then the features are read.
            let halvings = target_keys(mount).max(2.0).log2() * lookup.texts.len() as f64;
            let decoded = lookup.columns.iter().any(|column| column.reads_down_meta());
            Work {
                bytes: rows * (POSTING_BYTES + record_bytes),
                operations: halvings * 8.0,
                random_reads: rows,
                token_lists: if decoded { rows } else { 0.0 },
            }
        }
        // All lists are walked through once, and each of their texts is looked at.
        Operator::EntityLookup { .. } => {
            let lists = mount.postings(IndexTarget::Targets);
            let (keys, entries) = lists.map_or((0, 0), |lists| (lists.keys(), lists.entries()));
            Work {
                bytes: entries as f64 * POSTING_BYTES,
                operations: entries as f64 + keys as f64 * 64.0,
                ..Work::default()
            }
        }
        Operator::SlotLookup(lookup) => {
            let slots = lookup.slots.len() as f64;
            Work {
                bytes: slots * record_bytes,
                random_reads: slots,
                token_lists: slots,
                ..Work::default()
            }
        }
        Operator::GateScan(scan) => {
            let gates: f64 = scan.layers.iter().map(|layer| mount.gate_bytes(layer) as f64).sum();
            let features: f64 = scan.layers.iter().map(|layer| mount.features(layer) as f64).sum();
            Work {
                bytes: gates + rows * record_bytes,
                operations: features * hidden,
                random_reads: rows,
                token_lists: rows,
            }
        }
        Operator::GateIndexScan(GateIndexScan { index, scan }) => {
            let features: f64 = scan.layers.iter().map(|layer| mount.features(layer) as f64).sum();
            let gates: f64 = scan.layers.iter().map(|layer| mount.gate_bytes(layer) as f64).sum();
            let indexes = mount.gate_indexes();
            let reads = indexes.iter().find(|found| found.name == *index).map(|found| found.reads);
            let (judged, scored) = match reads.unwrap_or(GateReads::EachGate { row_bytes: 0 }) {
                // Each gate is judged by its bound, and those that may be hits are scored: without a
                // threshold all that are asked for, and some.
                GateReads::EachGate { row_bytes } => {
                    let hits = match scan.z_min {
                        Some(_) => 0.0,
                        None => gate_hits(mount, &scan.layers, scan.k, false),
                    };
                    let judged = Work {
                        bytes: features * row_bytes as f64,
                        operations: features * (hidden * CODES + JUDGED),
                        ..Work::default()
                    };
                    (judged, features * SCORED_AGAIN + hits)
                }
                GateReads::SomeGates { share } => (Work::default(), features * share),
            };
            let scored = scored.min(features);
            let share = scored / features.max(1.0);
            Work {
                bytes: judged.bytes + gates * share + rows * record_bytes,
                operations: judged.operations + scored * hidden,
                random_reads: rows + scored,
                token_lists: rows,
            }
        }
        Operator::GateSlots(scan) => {
            let gates: f64 = scan.slots.iter().map(|slot| row_bytes(slot.layer)).sum();
            let slots = scan.slots.len() as f64;
            Work {
                bytes: gates + rows * record_bytes,
                operations: slots * hidden,
                random_reads: slots + rows,
                token_lists: rows,
            }
        }
        Operator::Nearest(nearest) => Work {
            bytes: mount.gate_bytes(nearest.layer) as f64 + rows * record_bytes,
            operations: mount.features(nearest.layer) as f64 * hidden,
            random_reads: rows,
            token_lists: rows,
        },
        Operator::LayerStatistics { layers } => {
            let features: f64 = layers.iter().map(|layer| mount.features(layer) as f64).sum();
            Work { bytes: features * record_bytes, ..Work::default() }
        }
        Operator::Infer(infer) => forward(mount, infer.ffn, true),
        Operator::ExplainInfer(explain) => {
            let forward = forward(mount, explain.ffn, false);
            Work {
                bytes: forward.bytes + rows * record_bytes,
                random_reads: rows,
                token_lists: rows,
                ..forward
            }
        }
        // A pass with all edits, and at least one without each that is named.
        Operator::Blame(_) | Operator::CheckAssertions => {
            let one = forward(mount, FfnPath::Dense, true);
            Work {
                bytes: one.bytes * (rows + 1.0),
                operations: one.operations * (rows + 1.0),
                ..one
            }
        }
        // A pass for the prompt, and one for each token after the first.
        Operator::Generate(generate) => {
            let one = forward(mount, generate.ffn, true);
            Work { bytes: one.bytes * rows, operations: one.operations * rows, ..one }
        }
        // The model's end reads every row, many rows at a time.
        Operator::Trace(trace) => {
            let forward = forward(mount, trace.ffn, true);
            let passes = if trace.other.is_some() { 2.0 } else { 1.0 };
            let ends = rows * mount.unembedding_bytes() as f64;
            let bytes = passes * (forward.bytes + ends / TRACE_ROWS_AT_ONCE);
            let operations = passes * (forward.operations + ends / 2.0);
            Work { bytes, operations, ..Work::default() }
        }
        Operator::TraceOpen { .. } => {
            let ends = rows * mount.unembedding_bytes() as f64;
            let bytes = ends / TRACE_ROWS_AT_ONCE;
            Work { bytes, operations: ends / 2.0, ..Work::default() }
        }
        _ => of_rows(node, rows_in),
    }
}

/// The work of operators that read rows and no weights.
fn of_rows(node: &Node, rows_in: f64) -> Work {
    match &node.operator {
        // n log n comparisons, each about as dear as eight multiply-adds.
        Operator::Sort { .. } | Operator::TopN { .. } => {
            let comparisons = rows_in * rows_in.max(2.0).log2();
            Work { operations: comparisons * 8.0, ..Work::default() }
        }
        // One evaluation a pair, as dear as a comparison.
        Operator::NestedLoopJoin { .. } => {
            Work { operations: pairs(node) * 8.0, ..Work::default() }
        }
        // Each row is hashed once and found once.
        Operator::HashJoin(_) | Operator::Aggregate { .. } => {
            Work { operations: rows_in * 64.0, ..Work::default() }
        }
        _ => Work::default(),
    }
}

/// One pass of one token through the model.
fn forward(mount: &dyn crate::catalog::Mount, ffn: FfnPath, unembed: bool) -> Work {
    let mut bytes = if unembed { mount.unembedding_bytes() as f64 } else { 0.0 };
    for layer in 0..mount.layers() {
        let whole = mount.ffn_bytes(layer) as f64;
        let gates = mount.gate_bytes(layer) as f64;
        bytes += mount.attention_bytes(layer) as f64;
        bytes += match ffn {
            FfnPath::Dense | FfnPath::Walk { k: None } => whole,
            FfnPath::Walk { k: Some(k) } => {
                let features = mount.features(layer).max(1) as f64;
                gates + (whole - gates).max(0.0) * (k as f64 / features).min(1.0)
            }
        };
    }
    // A weight of two bytes takes one multiply-add.
    Work { bytes, operations: bytes / 2.0, ..Work::default() }
}
