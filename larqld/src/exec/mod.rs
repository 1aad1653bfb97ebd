//! Running plans: one file a physical operator, rows out in batches.
//!
//! [`run_script`] is the spine: text to statements (planner), each statement to a plan (planner), the
//! plan to operators (here), their batches to the client as they come. An operator pulls from its
//! children and answers `None` when it has no more. [`Work`] is what operators share: the mount that
//! the statement began with, the cancel token, and the meters that EXPLAIN ANALYZE and the summary
//! read.
//!
//! Promises: a statement answers from the model that it was planned on, from its first row to its
//! last; the first batch leaves before the second is computed; a cancel is seen between batches and
//! inside every kernel; a panic in an operator fails its statement and nothing else.
//!
//! Elsewhere: who may run what when (`session`), long jobs (`pipeline`), generation (`generate`).

mod aggregate;
mod assertions;
mod auto_extract;
mod blame;
mod caches;
mod command;
mod compact;
mod compile;
mod create_table;
mod describe;
mod diff;
mod edit;
mod edited_edges;
mod edited_gates;
mod entity_count;
mod explain;
mod explain_infer;
mod extract;
mod feature_row;
mod feature_scan;
mod for_each;
mod gate_scan;
mod generate;
mod indexes;
mod infer;
mod join;
mod known_edges;
mod label;
mod layer_statistics;
mod mount_row;
mod output;
mod output_tokens;
mod posting_lookup;
mod rebalance;
mod relation_count;
mod rows;
mod sessions;
mod show;
mod show_tables;
mod statistics;
mod table_scan;
mod trace;
mod transaction;
mod verify;
mod verify_edge;
mod work;
mod write;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use larql_compute::cpu::Cancel;
use larql_planner::Planned;
use larql_planner::bind::prepared::with_values;
use larql_planner::moment;
use larql_planner::physical::plan::{Node, Operator as Physical};
use larql_planner::syntax::ast::{Parameter, Statement};
use larql_planner::syntax::{SpannedStatement, parse_script};
use parking_lot::Mutex;

pub(crate) use gate_scan::entity_vector;
pub use output::{Output, OutputSink, Row, SinkClosed, Summary};
pub(crate) use work::row_bytes;
pub use work::{Meter, Work};

use crate::cache::{Kept, Key, Recorder, is_cacheable};
use crate::engine::{CatalogSnapshot, SessionContext};
use crate::failure::{Failure, code};
use crate::remote::{self, Remote};
use crate::session::{self, Role, Script};

/// Rows that one batch holds at most.
pub const BATCH_ROWS: usize = 256;

/// A running operator.
pub trait Operator {
    /// The next rows, never an empty batch; `None` when there are no more.
    ///
    /// # Errors
    /// Whatever ends the statement.
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure>;
}

/// Runs a script and sends its answer to `sink`. Never panics.
pub fn run_script(
    context: &SessionContext,
    script: &Script,
    cancel: &Cancel,
    sink: &dyn OutputSink,
) {
    let (mut answered, mut failed) = (0, false);
    let parsed = parse_script(&script.text).map_err(Failure::from);
    let parsed = parsed.and_then(|statements| match unused_parameter(&statements, script) {
        Some(failure) => Err(failure),
        None => Ok(statements),
    });
    match parsed {
        Err(failure) => {
            failed = true;
            let _ = sink.send(Output::Failure { statement: 0, failure });
        }
        Ok(statements) => {
            for (index, statement) in statements.iter().enumerate() {
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                let run = AssertUnwindSafe(|| {
                    run_statement(context, script, index, statement, cancel, sink)
                });
                let result = std::panic::catch_unwind(run).unwrap_or_else(|_| {
                    Err(Failure::new(
                        code::INTERNAL,
                        "the statement met a defect of larqld; the daemon goes on",
                    )
                    .hint("please report the statement and the daemon's log"))
                });
                answered += 1;
                context.engine().count_statement();
                if let Err(failure) = result {
                    failed = true;
                    let stop = failure.code == code::CANCELLED
                        || !context.state().settings.continue_on_error();
                    tracing::debug!(
                        session = context.id(),
                        code = failure.code,
                        "statement failed"
                    );
                    if sink.send(Output::Failure { statement: index, failure }).is_err() || stop {
                        break;
                    }
                }
            }
        }
    }
    let _ = sink.send(Output::Finished { statements: answered, failed });
}

/// Refuses a parameter that no statement of the script has a place for.
fn unused_parameter(statements: &[SpannedStatement], script: &Script) -> Option<Failure> {
    let given = script.parameters.len();
    if given == 0 {
        return None;
    }
    let mut used = vec![false; given];
    for (parameter, _) in statements.iter().flat_map(SpannedStatement::parameters) {
        if let Parameter::Position(position) = parameter
            && let Some(used) = (position as usize).checked_sub(1).and_then(|at| used.get_mut(at))
        {
            *used = true;
        }
    }
    let unused = used.iter().position(|used| !used)? + 1;
    let message = format!("{given} parameters are given, and nothing has a place for ${unused}");
    Some(Failure::new(code::PROTOCOL, message).hint("give as many values as the statements take"))
}

fn run_statement(
    context: &SessionContext,
    script: &Script,
    index: u32,
    statement: &SpannedStatement,
    cancel: &Cancel,
    sink: &dyn OutputSink,
) -> Result<(), Failure> {
    let began = Instant::now();
    cancel.check()?;
    let text = &script.text[statement.span.start as usize..statement.span.end as usize];
    let mut running = context.begin_statement(text);
    let remote = context.state().remote.clone();
    let outcome = match remote.filter(|_| !matches!(statement.statement, Statement::Use(_))) {
        Some(remote) => remotely(&remote, context, script, index, statement, cancel, sink),
        None => auto_extract::before(context, statement, cancel, sink).and_then(|told| {
            let sink = auto_extract::Behind::new(sink, told);
            answer_statement(context, script, index, statement, cancel, &sink, began)
        }),
    };
    match &outcome {
        Ok(summary) => running.end(summary.rows, summary.bytes_touched, None),
        Err(failure) => running.end(0, 0, Some(failure.code)),
    }
    sink.send(Output::Summary(outcome?)).map_err(|SinkClosed| Failure::cancelled())
}

/// Runs a statement where the session was sent; settings are changed here as well.
fn remotely(
    remote: &Mutex<Remote>,
    context: &SessionContext,
    script: &Script,
    index: u32,
    statement: &SpannedStatement,
    cancel: &Cancel,
    sink: &dyn OutputSink,
) -> Result<Summary, Failure> {
    let began = Instant::now();
    let span = statement.span.start as usize..statement.span.end as usize;
    // Values would be refused there where the statement has no place for all of them.
    let printed = match script.parameters.is_empty() {
        true => None,
        false => Some(
            with_values(statement, &script.parameters)
                .map_err(|error| Failure::from(larql_planner::PlanError::from(error)))?
                .to_string(),
        ),
    };
    let mut remote = remote.lock();
    let directory = script.working_directory.as_ref().filter(|_| remote.is_on_this_machine());
    let request = remote::Request {
        text: printed.as_deref().unwrap_or(&script.text[span.clone()]),
        statement: index,
        offset: printed.is_none().then_some(span.start),
        directory: directory.map_or_else(String::new, |path| path.display().to_string()),
    };
    let summary = remote.run(request, cancel, sink)?;
    if matches!(statement.statement, Statement::Set { .. } | Statement::Reset(_)) {
        answer_statement(context, script, index, statement, cancel, &Nowhere, began)?;
    }
    Ok(summary)
}

/// Takes what nobody is to hear.
struct Nowhere;

impl OutputSink for Nowhere {
    fn send(&self, _: Output) -> Result<(), SinkClosed> {
        Ok(())
    }
}

/// Plans and runs a statement, and sends its rows.
fn answer_statement(
    context: &SessionContext,
    script: &Script,
    index: u32,
    statement: &SpannedStatement,
    cancel: &Cancel,
    sink: &dyn OutputSink,
    began: Instant,
) -> Result<Summary, Failure> {
    let mut snapshot = context.snapshot();
    let (statement, moment) = moment::split(statement).map_err(larql_planner::PlanError::from)?;
    let statement = &statement;
    if let Some(moment) = &moment {
        snapshot.edits = snapshot.edits.and_then(|view| view.as_of(moment).map(Arc::new));
    }
    let cache = context.engine().cache();
    let text = &script.text[statement.span.start as usize..statement.span.end as usize];
    let key = Key::new(context, &snapshot, text, &script.parameters);
    let kept = key.as_ref().and_then(|key| cache.get(key));
    let planned = match &kept {
        Some(kept) => kept.planned.clone(),
        None => {
            let statement = with_values(statement, &script.parameters)
                .map_err(|error| Failure::from(larql_planner::PlanError::from(error)))?;
            Arc::new(larql_planner::plan(&statement, &snapshot)?)
        }
    };
    session::require(context.role(), role(planned.required_role), planned.tag)?;
    if let Some(mounted) = &snapshot.current {
        mounted.model.check()?;
    }
    if moment.is_some() || planned.mount.is_some() {
        snapshot.edits.as_ref().map_err(Clone::clone)?;
    }
    let schema = Output::Schema {
        statement: index,
        tag: planned.tag.into(),
        columns: planned.columns.clone(),
    };
    sink.send(schema).map_err(|SinkClosed| Failure::cancelled())?;
    for message in context.engine().edits().told(context.principal()) {
        let hint = "begin again".to_owned();
        sink.send(Output::Notice { message, hint }).map_err(|SinkClosed| Failure::cancelled())?;
    }
    if let Some(answer) = kept.and_then(|kept| kept.answer) {
        for piece in &answer.pieces {
            sink.send(piece.clone()).map_err(|SinkClosed| Failure::cancelled())?;
        }
        let work = Work::new(context, &snapshot, script, cancel, sink, &planned.physical);
        return Ok(work.summary(answer.rows, began.elapsed()));
    }
    let key = key.filter(|_| is_cacheable(&statement.statement, &planned.physical));
    let recorder = Recorder::new(sink, if key.is_some() { cache.answer_bytes_max() } else { 0 });
    let summary = run_plan(context, &snapshot, script, &planned, cancel, &recorder, began)?;
    if let Some(key) = key {
        let answer = recorder.finish().map(Arc::new);
        cache.keep(key, Kept { planned, answer });
    }
    Ok(summary)
}

/// Runs a plan and sends its rows.
fn run_plan(
    context: &SessionContext,
    snapshot: &CatalogSnapshot,
    script: &Script,
    planned: &Planned,
    cancel: &Cancel,
    sink: &dyn OutputSink,
    began: Instant,
) -> Result<Summary, Failure> {
    let mut work = Work::new(context, snapshot, script, cancel, sink, &planned.physical);
    let mut root = build(&planned.physical)?;
    let mut rows = 0;
    while let Some(batch) = root.next(&mut work)? {
        debug_assert!(!batch.is_empty(), "an operator gave an empty batch");
        cancel.check()?;
        rows += batch.len() as u64;
        if let Some(mounted) = &work.mounted {
            mounted.model.check()?;
        }
        sink.send(Output::Rows(batch)).map_err(|SinkClosed| Failure::cancelled())?;
    }
    Ok(work.summary(rows, began.elapsed()))
}

/// The session's own role for one of the planner's.
fn role(required: larql_planner::Role) -> Role {
    match required {
        larql_planner::Role::Reader => Role::Reader,
        larql_planner::Role::Infer => Role::Infer,
        larql_planner::Role::Editor => Role::Editor,
        larql_planner::Role::Admin => Role::Admin,
    }
}

/// The operators of a plan, each metered under its node's id.
pub(crate) fn build(node: &Node) -> Result<Box<dyn Operator>, Failure> {
    let operator = operator(node, &build)?;
    Ok(Box::new(work::Metered::new(node.id, operator)))
}

/// The operators of a plan, all metered under the node that runs them.
fn build_unmetered(node: &Node) -> Result<Box<dyn Operator>, Failure> {
    operator(node, &build_unmetered)
}

/// Builds the inputs of an operator.
type BuildInput<'a> = &'a dyn Fn(&Node) -> Result<Box<dyn Operator>, Failure>;

/// The operator of a node, over inputs that `build` makes.
fn operator(node: &Node, build: BuildInput<'_>) -> Result<Box<dyn Operator>, Failure> {
    let mut children = node.children.iter();
    let mut child = || match children.next() {
        Some(child) => build(child),
        None => Err(Failure::new(code::INTERNAL, format!("node {} lacks an input", node.id))),
    };
    Ok(match &node.operator {
        Physical::FeatureScan(scan) => Box::new(feature_scan::FeatureScan::new(scan.clone())),
        Physical::SlotLookup(lookup) => Box::new(feature_scan::SlotLookup::new(lookup.clone())),
        Physical::PostingLookup(lookup) => {
            Box::new(posting_lookup::PostingLookup::new(lookup.clone()))
        }
        Physical::EntityLookup { .. } => Box::new(entity_count::EntityLookup::default()),
        Physical::GateScan(scan) => Box::new(gate_scan::GateScan::new(scan.clone())),
        Physical::GateIndexScan(by) => {
            Box::new(gate_scan::GateScan::by_index(by.scan.clone(), by.index.clone()))
        }
        Physical::GateSlots(slots) => Box::new(gate_scan::GateSlots::new(slots.clone())),
        Physical::Nearest(nearest) => Box::new(gate_scan::GateScan::nearest(nearest.clone())),
        Physical::OneRow => Box::new(rows::OneRow::default()),
        Physical::TableScan(scan) => Box::new(table_scan::TableScan::new(scan.clone())),
        Physical::Write(write) => Box::new(write::WriteRows::new(child()?, write.clone())),
        Physical::CreateTable { name, file } => {
            Box::new(create_table::CreateTable::new(name.clone(), file.clone()))
        }
        Physical::NestedLoopJoin { on } => {
            Box::new(join::Join::nested_loop(child()?, child()?, on.clone()))
        }
        Physical::HashJoin(join) => Box::new(join::Join::hash(child()?, child()?, join.clone())),
        Physical::Aggregate { keys, aggregates } => {
            Box::new(aggregate::Aggregate::new(child()?, keys.clone(), aggregates.clone()))
        }
        Physical::ForEach(each) => Box::new(for_each::ForEach::new(child()?, each.clone())),
        Physical::Filter { predicate } => Box::new(rows::Filter::new(child()?, predicate.clone())),
        Physical::Project { expressions } => {
            Box::new(rows::Project::new(child()?, expressions.clone()))
        }
        Physical::Sort { keys } => Box::new(rows::Sort::new(child()?, keys.clone())),
        Physical::TopN { keys, count, offset } => {
            Box::new(rows::TopN::new(child()?, keys.clone(), *count, *offset))
        }
        Physical::Limit { count, offset } => Box::new(rows::Limit::new(child()?, *count, *offset)),
        Physical::Distinct => Box::new(rows::Distinct::new(child()?)),
        Physical::Concatenate => Box::new(rows::Concatenate::new(
            node.children.iter().map(build).collect::<Result<_, _>>()?,
        )),
        Physical::DescribeEdges(describe) => {
            Box::new(describe::DescribeEdges::new(child()?, describe.clone()))
        }
        Physical::EntityCount => Box::new(entity_count::EntityCount::new(child()?)),
        Physical::RelationCount(count) => {
            Box::new(relation_count::RelationCount::new(child()?, count.clone()))
        }
        Physical::LayerStatistics { layers } => {
            Box::new(layer_statistics::LayerStatistics::new(layers.clone()))
        }
        Physical::ShowModels => Box::new(show::ShowModels::default()),
        Physical::ShowSessions => Box::new(sessions::ShowSessions::default()),
        Physical::ShowStatements => Box::new(sessions::ShowStatements::default()),
        Physical::Kill { session } => Box::new(sessions::Kill::new(*session)),
        Physical::ShowPatches => Box::new(transaction::ShowPatches::default()),
        Physical::Edit(statement) => {
            let input = node.children.first().map(|_| child()).transpose()?;
            Box::new(edit::RunEdit::new(statement.clone(), input))
        }
        Physical::ShowBranches => Box::new(transaction::ShowBranches::default()),
        Physical::ShowAssertions => Box::new(assertions::ShowAssertions::default()),
        Physical::CheckAssertions => Box::new(assertions::CheckAssertions::default()),
        Physical::Blame(statement) => Box::new(blame::RunBlame::new(statement.clone())),
        Physical::Compact(statement) => Box::new(compact::RunCompact::new(*statement)),
        Physical::CompactStatus => Box::new(compact::CompactStatus::default()),
        Physical::ShowWal => Box::new(transaction::ShowWal::default()),
        Physical::Transaction(operands) => {
            Box::new(transaction::RunTransaction::new(operands.clone()))
        }
        Physical::ShowCaches => Box::new(caches::ShowCaches::default()),
        Physical::ShowTables => Box::new(show_tables::ShowTables::default()),
        Physical::ShowMounts => Box::new(show::ShowMounts::default()),
        Physical::Statistics { mount } => Box::new(statistics::Statistics::new(mount.clone())),
        Physical::Infer(infer) => Box::new(infer::Infer::new(infer.clone())),
        Physical::ExplainInfer(explain) => {
            Box::new(explain_infer::ExplainInfer::new(explain.clone()))
        }
        Physical::Generate(generate) => Box::new(generate::Generate::new(generate.clone())),
        Physical::Trace(trace) => Box::new(trace::Trace::new(trace.clone())),
        Physical::TraceOpen { path } => Box::new(trace::TraceOpen::new(path.clone())),
        Physical::Extract(extract) => Box::new(extract::Extract::new(extract.clone())),
        Physical::KnownEdges(known) => Box::new(known_edges::KnownEdges::new(known.clone())),
        Physical::EditedEdges(edited) => Box::new(edited_edges::EditedEdges::new(edited.clone())),
        Physical::VerifyEdge(edge) => Box::new(verify_edge::VerifyEdge::new(edge.clone())),
        Physical::Label(label) => Box::new(label::Label::new(label.clone())),
        Physical::Compile(compile) => Box::new(compile::Compile::new(compile.clone())),
        Physical::Rebalance(band) => Box::new(rebalance::RunRebalance::new(*band)),
        Physical::Diff(diff) => Box::new(diff::Diff::new(diff.clone())),
        Physical::CreateIndex(index) => Box::new(indexes::CreateIndex::new(index.clone())),
        Physical::DropIndex { name } => Box::new(indexes::DropIndex::new(name.clone())),
        Physical::Analyze => Box::new(indexes::Analyze::default()),
        Physical::ShowIndexes => Box::new(indexes::ShowIndexes::default()),
        Physical::VerifyVindex { path } => Box::new(verify::VerifyVindex::new(path.clone())),
        Physical::Use(_)
        | Physical::Mount { .. }
        | Physical::Unmount { .. }
        | Physical::Set(_)
        | Physical::Reset { .. }
        | Physical::Prepare { .. }
        | Physical::Deallocate { .. }
        | Physical::DropTable { .. } => Box::new(command::Command::new(node.operator.clone())),
        Physical::ShowSetting { name } => Box::new(show::ShowSetting::new(*name)),
        Physical::Explain(explain) => {
            let plan = node.children.first().cloned();
            let plan = plan.ok_or_else(|| Failure::new(code::INTERNAL, "EXPLAIN of nothing"))?;
            Box::new(explain::Explain::new(explain.clone(), plan))
        }
        other => {
            return Err(Failure::new(code::INTERNAL, format!("no operator runs {other:?}")));
        }
    })
}
