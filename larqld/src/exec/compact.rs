//! COMPACT MINOR, COMPACT MAJOR and SHOW COMPACT STATUS.

use std::collections::{BTreeSet, HashSet};

use larql_planner::physical::edit::Compact;
use larql_planner::value::Value;
use larql_storage::overlay::{Mode, Operation, Overlay, Vector};
use larql_storage::store::{CheckpointKind, Compaction, CompactionKind, Record};

use super::mount_row::integer;
use super::rows::Ready;
use super::transaction::{here, mounted, outside, record_now};
use super::{Operator, Row, Work};
use crate::editing::background::Looks;
use crate::editing::compaction::{self, Compactor, Outcome, Target};
use crate::editing::layers;
use crate::editing::maker::{Maker, PRESERVED_WEIGHT};
use crate::editing::prompts::Prompter;
use crate::edits::require_vindex;
use crate::failure::Failure;

/// Runs a COMPACT.
pub(super) struct RunCompact {
    statement: Option<Compact>,
}

impl RunCompact {
    pub(super) fn new(statement: Compact) -> Self {
        Self { statement: Some(statement) }
    }
}

impl Operator for RunCompact {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(statement) = self.statement.take() else { return Ok(None) };
        outside(work, "COMPACT")?;
        let mounted = mounted(work)?;
        require_vindex(&mounted.model, &mounted.name)?;
        let outcomes = move_facts(work, statement)?;
        let (tiers, kind) = match statement {
            Compact::Minor => ("retrieved", CompactionKind::Minor),
            Compact::Major { full: false, .. } => ("composed", CompactionKind::Major),
            Compact::Major { full: true, .. } => ("stored", CompactionKind::Major),
        };
        if outcomes.is_empty() {
            work.notice(format!("no {tiers} fact is there to move"), "SHOW COMPACT STATUS")?;
        }
        let lsn = match outcomes.iter().any(|one| one.moved.is_some()) {
            true => Some(commit(work, &outcomes, kind)?),
            false => None,
        };
        forget(work, kind)?;
        let rows: Vec<Row> = outcomes.iter().map(|outcome| row(outcome, lsn)).collect();
        Ok((!rows.is_empty()).then_some(rows))
    }
}

/// Makes everything that moves, and finds out what of it answers; nothing is committed yet.
fn move_facts(work: &Work<'_>, statement: Compact) -> Result<Vec<Outcome>, Failure> {
    let Some(branch) = work.view().branch().cloned() else { return Ok(Vec::new()) };
    let (target, tiers) = match statement {
        Compact::Minor => (Target::Compose, &[Mode::Knn][..]),
        Compact::Major { full, lambda } => {
            const ALL: [Mode; 3] = [Mode::Compose, Mode::Knn, Mode::Memit];
            let tiers = if full { &ALL[..] } else { &ALL[..1] };
            (Target::Memit { weight: lambda.unwrap_or(PRESERVED_WEIGHT) }, tiers)
        }
    };
    let facts = compaction::facts(&branch, tiers);
    if facts.is_empty() {
        return Ok(Vec::new());
    }
    let model = work.model()?;
    let (pool, cancel) = (work.engine().pool(), work.cancel);
    let knowledge = model.knowledge();
    let prompter = Prompter::new(&model, knowledge.as_deref());
    let background = model.kept_edits().background(
        &model,
        &prompter,
        &layers::of_weights(model.architecture()),
        Looks::of(if target == Target::Compose { Mode::Compose } else { Mode::Memit }),
        pool,
        cancel,
    )?;
    let of_maker = Prompter::new(&model, knowledge.as_deref());
    let mut maker = Maker::new(&model, of_maker, background, pool, cancel)?;
    let compactor = Compactor { model: &model, prompter: &prompter, pool, cancel };
    compactor.run(&branch, facts, target, &mut maker, |done, all| {
        work.progress("compact", done as u64, all as u64, "facts")
    })
}

fn commit(work: &mut Work<'_>, outcomes: &[Outcome], kind: CompactionKind) -> Result<u64, Failure> {
    let mounted = mounted(work)?;
    let branch = work.view().branch().cloned().ok_or_else(Failure::cancelled)?;
    let (facts, made): (Vec<_>, Vec<_>) =
        outcomes.iter().map(|one| (one.kept.clone(), one.moved.clone())).unzip();
    let record = Record::Compact(Compaction {
        branch: branch.name.clone(),
        kind,
        rewrites: compaction::rewrites(&branch, &facts, &made),
        provenance: here(work, &mounted),
    });
    record_now(work, &mounted, record)
}

/// Shortens the log: after COMPACT MINOR its records lie in a checkpoint, after COMPACT MAJOR only what they
/// amount to does.
fn forget(work: &Work<'_>, kind: CompactionKind) -> Result<(), Failure> {
    let Some(mounted) = &work.mounted else { return Ok(()) };
    let store = work.engine().edits().existing(mounted.model.base_hash())?;
    let Some(store) = store else { return Ok(()) };
    if kind != CompactionKind::Major {
        return store.checkpoint(CheckpointKind::Whole).map(drop).map_err(Failure::from);
    }
    store.checkpoint(CheckpointKind::Forgetting)?;
    work.notice("history begins now: earlier moments cannot be asked for any more", "")
}

fn list(numbers: impl IntoIterator<Item = u32>) -> Value {
    Value::List(numbers.into_iter().map(|number| Value::Integer(number.into())).collect())
}

fn row(outcome: &Outcome, lsn: Option<u64>) -> Row {
    let kept = &outcome.kept;
    let moved = outcome.moved.as_deref();
    let slots: Vec<(u32, Option<u32>)> = moved
        .into_iter()
        .flatten()
        .filter_map(|operation| match operation {
            Operation::SetFeature(set) => Some((set.slot.layer, Some(set.slot.feature))),
            Operation::LowRank(update) => Some((update.layer, None)),
            _ => None,
        })
        .collect();
    let mode = match moved.and_then(<[_]>::first) {
        Some(Operation::SetFeature(_)) => Mode::Compose,
        Some(_) => Mode::Memit,
        None => kept.mode,
    };
    let layers: BTreeSet<u32> = slots.iter().map(|slot| slot.0).collect();
    vec![
        Value::text(kept.fact.entity.as_str()),
        Value::text(kept.fact.relation.as_str()),
        Value::text(kept.fact.target.as_str()),
        Value::text(kept.mode.name()),
        Value::text(mode.name()),
        list(layers),
        list(slots.iter().filter_map(|slot| slot.1)),
        Value::Real(outcome.before),
        Value::Real(outcome.after),
        moved.and(lsn).map_or(Value::Null, integer),
    ]
}

/// What lies in which tier of the session's branch.
#[derive(Default)]
pub(super) struct CompactStatus {
    ready: Option<Ready>,
}

impl Operator for CompactStatus {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let ready = self.ready.get_or_insert_with(|| Ready::new(status(work)));
        Ok(ready.batch())
    }
}

/// What is counted of a tier.
#[derive(Default)]
struct Tier<'a> {
    entries: u64,
    facts: HashSet<(&'a str, &'a str)>,
    layers: BTreeSet<u32>,
    bytes: u64,
}

impl<'a> Tier<'a> {
    fn add<'v>(
        &mut self,
        layer: u32,
        facts: impl IntoIterator<Item = (&'a str, &'a str)>,
        vectors: impl IntoIterator<Item = &'v Vector>,
    ) {
        self.entries += 1;
        self.facts.extend(facts);
        self.layers.insert(layer);
        self.bytes += vectors.into_iter().map(|vector| size_of_val(&**vector) as u64).sum::<u64>();
    }

    fn row(&self, tier: &'static str, mode: &'static str) -> Row {
        vec![
            Value::text(tier),
            Value::text(mode),
            integer(self.entries),
            integer(self.facts.len() as u64),
            list(self.layers.iter().copied()),
            integer(self.bytes),
        ]
    }
}

fn status(work: &Work<'_>) -> Vec<Row> {
    let view = work.view();
    let overlay: &Overlay = view.overlay();
    let (mut retrieved, mut composed, mut rows, mut updates) =
        (Tier::default(), Tier::default(), Tier::default(), Tier::default());
    for knn in overlay.knn() {
        let fact = (&*knn.set.fact.entity, &*knn.set.fact.relation);
        retrieved.add(knn.set.layer, [fact], [&knn.set.key]);
    }
    for (slot, delta) in overlay.features() {
        let tier = if delta.mode == Some(Mode::Compose) { &mut composed } else { &mut rows };
        let fact = delta.entity.as_deref().zip(delta.relation.as_deref());
        tier.add(slot.layer, fact, [&delta.gate, &delta.up, &delta.down].into_iter().flatten());
    }
    for delta in overlay.low_rank() {
        let update = &delta.update;
        let facts = update.facts.iter().map(|fact| (&*fact.entity, &*fact.relation));
        updates.add(update.layer, facts, [&update.left, &update.right]);
    }
    let records = view.history().map_or(0, |history| history.records().len() as u64);
    let transactions = view.branch().into_iter().flat_map(|branch| branch.transactions());
    vec![
        retrieved.row("L0", Mode::Knn.name()),
        composed.row("L1", Mode::Compose.name()),
        rows.row("L1", Mode::Rows.name()),
        updates.row("L2", Mode::Memit.name()),
        vec![
            Value::text("log"),
            Value::Null,
            integer(records),
            Value::Null,
            Value::Null,
            integer(transactions.map(|one| one.bytes()).sum()),
        ],
    ]
}
