//! What the operators of one statement share, and what each of them did.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use larql_compute::cpu::Cancel;
use larql_compute::model::PassMeters;
use larql_planner::physical::plan::Node;
use larql_planner::syntax::Span;
use larql_planner::value::Value;
use larql_storage::file::Files;

use super::{Operator, Output, OutputSink, Row, Summary};
use crate::cache::{Answer, Key};
use crate::editing::applied::{Applied, Identity};
use crate::edits::View;
use crate::engine::{CatalogSnapshot, Engine, Place, SessionContext};
use crate::failure::{Failure, code};
use crate::knowledge::{Asker, Edges, Knowledge, Source};
use crate::mounts::{Model, Mounted};
use crate::session::Script;

/// Bytes of rows that one statement may hold at a time to sort, group, join or compare them.
const ROWS_BYTES_MAX: usize = 512 << 20;

/// About how much memory a row takes; a text that rows share counts for each of them.
pub(crate) fn row_bytes(row: &[Value]) -> usize {
    fn beyond(value: &Value) -> usize {
        match value {
            Value::Text(text) => text.len(),
            Value::List(values) => row_bytes(values),
            _ => 0,
        }
    }
    size_of::<Row>() + size_of_val(row) + row.iter().map(beyond).sum::<usize>()
}

/// What one operator did, its inputs included in the time and left out of the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Meter {
    /// Rows given.
    pub rows: u64,
    /// Bytes of weights and indexes read by the operator itself.
    pub bytes: u64,
    /// Time in the operator and below it.
    pub elapsed: Duration,
}

/// What the operators of one statement share.
pub struct Work<'a> {
    /// The session.
    pub context: &'a SessionContext,
    /// The catalog as the statement was planned against it.
    snapshot: &'a CatalogSnapshot,
    /// The mount that the statement was planned on; USE and EXTRACT replace it for the summary.
    pub mounted: Option<Arc<Mounted>>,
    /// What the statement sees of the mount's edits.
    view: Arc<View>,
    /// Says when to stop.
    pub cancel: &'a Cancel,
    sink: &'a dyn OutputSink,
    script: &'a Script,
    /// By node id.
    meters: Vec<Meter>,
    /// What passes of the model took, by node id; none for nodes that ran no pass.
    passes: Vec<Option<PassMeters>>,
    /// The node whose operator runs now.
    running: usize,
    /// Bytes of rows held.
    held: usize,
}

impl<'a> Work<'a> {
    /// The work of a statement with that plan.
    pub fn new(
        context: &'a SessionContext,
        snapshot: &'a CatalogSnapshot,
        script: &'a Script,
        cancel: &'a Cancel,
        sink: &'a dyn OutputSink,
        plan: &Node,
    ) -> Self {
        let mut nodes = 0;
        plan.visit(&mut |node, _| nodes = nodes.max(node.id as usize + 1));
        Self {
            context,
            snapshot,
            mounted: snapshot.current.clone(),
            // Who needs the branch that is gone was refused before.
            view: snapshot.edits.clone().unwrap_or_default(),
            cancel,
            sink,
            script,
            meters: vec![Meter::default(); nodes],
            passes: vec![None; nodes],
            running: 0,
            held: 0,
        }
    }

    /// The engine.
    pub fn engine(&self) -> &'a Arc<Engine> {
        self.context.engine()
    }

    /// The model that the statement reads.
    ///
    /// # Errors
    /// `NO_MOUNT_IN_USE`; the planner normally says so before anything runs.
    pub fn model(&self) -> Result<Arc<Model>, Failure> {
        let none =
            || Failure::new(code::NO_MOUNT_IN_USE, "no mount is in use").hint("USE \"name\"");
        self.mounted.as_ref().map(|mounted| mounted.model.clone()).ok_or_else(none)
    }

    /// What the statement sees of the mount's edits.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// What the statement sees of the edits of its mount, ready for passes.
    ///
    /// # Errors
    /// As [`Applied::new`].
    pub fn edits(&self, model: &Model) -> Result<Arc<Applied>, Failure> {
        let identity = Identity::of(self.view.identity());
        model.kept_edits().applied(model, self.view.overlay(), &identity)
    }

    /// Lets the statement see other edits from here on: its own, or those of what it chose.
    pub(crate) fn set_view(&mut self, view: Arc<View>) {
        self.view = view;
    }

    /// The text of the statement that runs.
    pub fn statement_text(&self) -> String {
        self.context.running().map(|running| running.text).unwrap_or_default()
    }

    /// The catalog as the statement was planned against it.
    pub fn snapshot(&self) -> &'a CatalogSnapshot {
        self.snapshot
    }

    /// Counts bytes of rows that the running operator holds on to.
    ///
    /// # Errors
    /// `LIMIT` where the statement would hold more than is allowed.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Failure> {
        self.held = self.held.saturating_add(bytes);
        if self.held <= ROWS_BYTES_MAX {
            return Ok(());
        }
        let message = format!("the statement holds more than {} MiB of rows", ROWS_BYTES_MAX >> 20);
        Err(Failure::new(code::LIMIT, message)
            .hint("narrow the rows with WHERE, add LIMIT, or join with the smaller table last"))
    }

    /// Bytes of rows held now.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Lets go of what was held since there were so many bytes.
    pub fn release_to(&mut self, held: usize) {
        self.held = self.held.min(held);
    }

    /// Counts bytes of weights or indexes that the running operator read.
    pub fn touch(&mut self, bytes: u64) {
        self.meters[self.running].bytes += bytes;
    }

    /// Counts what passes of the model took for the running operator.
    pub fn touch_passes(&mut self, meters: &PassMeters) {
        self.touch(meters.total().bytes);
        *self.passes[self.running].get_or_insert_default() += meters;
    }

    /// The edges that a source has of an entity; what the passes for it took is counted for the running
    /// operator.
    ///
    /// # Errors
    /// As [`Knowledge::edges`].
    pub fn ask(
        &mut self,
        model: &Model,
        knowledge: &Knowledge,
        source: Source,
        entity: &str,
    ) -> Result<Edges, Failure> {
        let principal = self.context.principal();
        let pool = self.engine().pool();
        let asker = Asker { principal, model, pool, cancel: self.cancel };
        let (edges, meters) = knowledge.edges(source, entity, &asker)?;
        if let Some(meters) = meters {
            self.touch_passes(&meters);
        }
        Ok(edges)
    }

    /// What passes of the model took for a node, if it ran any.
    pub fn passes(&self, node: u32) -> Option<&PassMeters> {
        self.passes.get(node as usize)?.as_ref()
    }

    /// What each node did so far, by node id.
    pub fn meters(&self) -> &[Meter] {
        &self.meters
    }

    /// Tells the user something that is not an error.
    ///
    /// # Errors
    /// As a cancel, when the client is gone.
    pub fn notice(
        &self,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Result<(), Failure> {
        let notice = Output::Notice { message: message.into(), hint: hint.into() };
        self.sink.send(notice).map_err(|_| Failure::cancelled())
    }

    /// Tells how far a long job is.
    ///
    /// # Errors
    /// As a cancel, when the client is gone.
    pub fn progress(
        &self,
        stage: &'static str,
        done: u64,
        total: u64,
        unit: &'static str,
    ) -> Result<(), Failure> {
        self.sink
            .send(Output::Progress { stage: stage.into(), done, total, unit: unit.into() })
            .map_err(|_| Failure::cancelled())
    }

    /// The answer that is kept of a statement of the script, as this session would get it now.
    pub fn kept_answer(&self, statement: Span) -> Option<Arc<Answer>> {
        let text = self.script.text.get(statement.start as usize..statement.end as usize)?;
        let key = Key::new(self.context, self.snapshot, text, &self.script.parameters)?;
        self.engine().cache().peek(&key)
    }

    /// A path of the statement, absolute and allowed.
    ///
    /// # Errors
    /// As [`Engine::resolve`].
    pub fn resolve(&self, text: &str) -> Result<PathBuf, Failure> {
        self.engine().resolve(text, self.working_directory(), self.context.owner())
    }

    /// The files that paths of the statement lead to.
    pub fn files(&self) -> Arc<dyn Files> {
        self.engine().files_for(self.context.owner())
    }

    /// Where names of models in the statement come from.
    pub fn place(&self) -> Place<'_> {
        Place {
            directory: self.working_directory(),
            role: self.context.role(),
            owner: self.context.owner(),
            cancel: self.cancel,
        }
    }

    /// The client's directory.
    pub fn working_directory(&self) -> Option<&Path> {
        self.script.working_directory.as_deref()
    }

    /// The statement's summary.
    pub fn summary(&self, rows: u64, elapsed: Duration) -> Summary {
        let mounted = self.mounted.as_ref();
        Summary {
            rows,
            bytes_touched: self.meters.iter().map(|meter| meter.bytes).sum(),
            elapsed,
            base_hash: mounted
                .map(|mounted| mounted.model.base_hash().to_owned())
                .unwrap_or_default(),
            branch: mounted.map(|_| self.view.identity().branch.to_string()).unwrap_or_default(),
            lsn: self.view.identity().lsn,
            mount: mounted.map(|mounted| mounted.name.clone()).unwrap_or_default(),
        }
    }
}

/// Runs an operator under its node's meter.
pub(super) struct Metered {
    node: usize,
    inner: Box<dyn Operator>,
}

impl Metered {
    pub(super) fn new(node: u32, inner: Box<dyn Operator>) -> Self {
        Self { node: node as usize, inner }
    }
}

impl Operator for Metered {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let began = Instant::now();
        let outer = std::mem::replace(&mut work.running, self.node);
        let result = self.inner.next(work);
        work.running = outer;
        let meter = &mut work.meters[self.node];
        meter.elapsed += began.elapsed();
        if let Ok(Some(rows)) = &result {
            meter.rows += rows.len() as u64;
        }
        result
    }
}
