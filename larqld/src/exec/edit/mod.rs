//! INSERT, UPDATE, DELETE and MERGE: edges become operations, the receipt says what they do, and the log keeps them.
//!
//! DELETE and UPDATE read the rows of EDGES for which their condition is true ([`chosen`]) and change exactly
//! those ([`change`]). An edit is taken back; a fact that the base answers is spoken against; a feature
//! is hidden or given another down vector. MERGE is [`merge`]. What an edit replaces goes by [`taken_back`]; what changes do
//! is measured, and stopped, by [`receipts`], of many changes the [`heaviest`].
//!
//! Elsewhere: vectors (`editing::maker`), the way to the log (`exec::transaction`).

mod change;
mod chosen;
mod heaviest;
mod merge;
mod receipts;
mod taken_back;

use std::collections::HashSet;
use std::sync::Arc;

use larql_planner::physical::edit::{Edit, InsertFacts};
use larql_planner::syntax::ast::{Harm, InsertMode};
use larql_planner::value::Value;
use larql_storage::overlay::{Fact, Mode, Operation, SetFeature};

use receipts::{Changed, receipts};
pub(super) use receipts::{Sum, of_operations};

use super::mount_row::integer;
use super::transaction::edit;
use super::{Operator, Row, Work};
use crate::editing::background::Looks;
use crate::editing::maker::Maker;
use crate::editing::making::{Manner, looked_at, make};
use crate::editing::prompts::Prompter;
use crate::editing::receipt::Receipt;
use crate::editing::stated::pair;
use crate::failure::{Failure, code};
use crate::knowledge::Knowledge;
use crate::mounts::Model;

/// The mode of INSERT where the statement names none: the one that was measured to be best at all that was
/// measured (`docs/benchmarks/edits.md`, ADR 17).
const DEFAULT_MODE: InsertMode = InsertMode::Knn;

/// Runs a statement that edits.
pub(super) struct RunEdit {
    statement: Option<Edit>,
    /// The edges that it is about; none for INSERT.
    input: Option<Box<dyn Operator>>,
}

impl RunEdit {
    pub(super) fn new(statement: Edit, input: Option<Box<dyn Operator>>) -> Self {
        Self { statement: Some(statement), input }
    }
}

impl Operator for RunEdit {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(statement) = self.statement.take() else { return Ok(None) };
        let mut chosen = || match self.input.take() {
            Some(mut input) => chosen::Chosen::read(&mut *input, work),
            None => Ok(chosen::Chosen::default()),
        };
        let rows = match statement {
            Edit::Insert(statement) => insert(work, &statement)?,
            Edit::Merge(merge) => merge::merge(work, &merge)?,
            Edit::Delete { harm } => {
                let chosen = chosen()?;
                change::delete(work, &chosen, harm)?
            }
            Edit::Update { set, harm } => {
                let chosen = chosen()?;
                change::update(work, &chosen, set, harm)?
            }
        };
        Ok((!rows.is_empty()).then_some(rows))
    }
}

/// What a statement changes beside the facts that it makes known.
#[derive(Default)]
struct OtherChanges {
    operations: Vec<Operation>,
    made: Vec<Changed>,
}

/// What makes operations for a model, once its base was looked at in those layers.
///
/// # Errors
/// As passes of the model.
fn maker<'m>(
    work: &Work<'m>,
    model: &'m Model,
    knowledge: Option<&'m Knowledge>,
    layers: &[usize],
    looks: Looks,
) -> Result<Maker<'m>, Failure> {
    model.require_inference()?;
    let (pool, cancel) = (work.engine().pool(), work.cancel);
    let prompter = Prompter::new(model, knowledge);
    let kept = model.kept_edits();
    let background = kept.background(model, &prompter, layers, looks, pool, cancel)?;
    Maker::new(model, prompter, background, pool, cancel)
}

/// Whether no two facts are of one entity and relation, in whatever case these are written.
fn told_once(facts: &[Fact]) -> Result<(), Failure> {
    let mut told = HashSet::new();
    let Some(twice) = facts.iter().find(|fact| !told.insert(pair(&fact.entity, &fact.relation)))
    else {
        return Ok(());
    };
    let message = format!("{:?} of {:?} is given twice", twice.relation, twice.entity);
    Err(Failure::new(code::INVALID_PARAMETER, message).hint("give each fact once"))
}

/// Facts that are made known in one manner.
struct Known {
    facts: Vec<Fact>,
    manner: Manner,
}

/// Makes the facts of an INSERT known.
fn insert(work: &mut Work<'_>, insert: &InsertFacts) -> Result<Vec<Row>, Failure> {
    if insert.facts.iter().flatten().any(String::is_empty) {
        let message = "a fact is made of texts that are not NULL";
        return Err(Failure::new(code::INVALID_PARAMETER, message)
            .hint("give an entity, a relation and a target"));
    }
    let manner = Manner {
        mode: match insert.mode.unwrap_or(DEFAULT_MODE) {
            InsertMode::Knn => Mode::Knn,
            InsertMode::Compose => Mode::Compose,
            InsertMode::Memit => Mode::Memit,
        },
        layers: insert.layers.map(|(first, last)| (first as usize..=last as usize).collect()),
        alpha: insert.alpha as f32,
        confidence: insert.confidence.map(|confidence| confidence as f32),
    };
    let facts = insert.facts.iter().map(|[entity, relation, target]| Fact {
        entity: entity.clone(),
        relation: relation.clone(),
        target: target.clone(),
    });
    let facts: Vec<Fact> = facts.collect();
    told_once(&facts)?;
    store(work, &[Known { facts, manner }], OtherChanges::default(), insert.harm)
}

/// Makes facts known in place of what edits said of their entity and relation, changes what else is given, and
/// returns a row for each.
fn store(
    work: &mut Work<'_>,
    known: &[Known],
    other: OtherChanges,
    harm: Option<Harm>,
) -> Result<Vec<Row>, Failure> {
    let model = work.model()?;
    let knowledge = model.knowledge();
    let earlier = work.view().overlay().clone();
    let facts: Vec<Fact> = known.iter().flat_map(|one| &one.facts).cloned().collect();
    let taken = taken_back::of_pairs(&earlier, &facts);
    let looked_at = known.iter().flat_map(|one| looked_at(&model, &one.manner));
    let mut looked_at: Vec<usize> = looked_at.chain(taken.layers()).collect();
    looked_at.sort_unstable();
    looked_at.dedup();
    let looks = Looks { activations: taken.restates(), elsewhere: false };
    let looks = known.iter().fold(looks, |looks, one| looks.or(Looks::of(one.manner.mode)));
    let mut maker = maker(work, &model, knowledge.as_deref(), &looked_at, looks)?;
    let mut stored = earlier.clone();
    let mut all = other.operations;
    all.extend(taken.operations(&mut maker, &earlier)?);
    all.iter().for_each(|operation| stored.apply(operation, u64::MAX));
    let mut made = other.made;
    for Known { facts, manner } in known {
        let first = stored.free_update();
        let found = make(&mut maker, facts, manner, &mut stored, first, work.cancel)?;
        for (fact, found) in facts.iter().zip(found) {
            all.extend(found.operations.iter().cloned());
            let asked = Some(found.prompts).zip(found.target);
            made.push(Changed {
                operations: found.operations,
                ..Changed::of(fact, manner.mode, asked)
            });
        }
    }
    drop(maker);
    finish(work, &model, (&earlier, &stored), all, &made, harm)
}

/// Measures, commits, and tells of each change.
fn finish(
    work: &mut Work<'_>,
    model: &Arc<Model>,
    (earlier, stored): (&larql_storage::overlay::Overlay, &larql_storage::overlay::Overlay),
    operations: Vec<Operation>,
    made: &[Changed],
    harm: Option<Harm>,
) -> Result<Vec<Row>, Failure> {
    let receipts = receipts(work, model, made, (earlier, stored), harm)?;
    let lsn = edit(work, operations)?;
    let rows = made.iter().zip(&receipts).map(|(made, receipt)| row(made, receipt.as_ref(), lsn));
    Ok(rows.collect())
}

fn row(made: &Changed, receipt: Option<&Receipt>, lsn: Option<u64>) -> Row {
    let slots = made.operations.iter().filter_map(|operation| match operation {
        Operation::SetFeature(SetFeature { slot, .. }) | Operation::HideFeature(slot) => {
            Some((slot.layer, Some(slot.feature)))
        }
        Operation::SetKnn(knn) => Some((knn.layer, None)),
        Operation::LowRank(update) => Some((update.layer, None)),
        Operation::Describe(describe) => Some((describe.slot.layer, Some(describe.slot.feature))),
        _ => None,
    });
    let slots: Vec<(u32, Option<u32>)> = slots.collect();
    let mut layers: Vec<u32> = slots.iter().map(|slot| slot.0).collect();
    layers.sort_unstable();
    layers.dedup();
    let list = |numbers: &mut dyn Iterator<Item = u32>| {
        Value::List(numbers.map(|number| Value::Integer(number.into())).collect())
    };
    let real = |number: Option<f64>| number.map_or(Value::Null, Value::Real);
    let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::text);
    vec![
        text(&made.entity),
        text(&made.relation),
        text(&made.target),
        Value::text(made.mode.name()),
        list(&mut layers.iter().copied()),
        list(&mut slots.iter().filter_map(|slot| slot.1)),
        lsn.map_or(Value::Null, integer),
        real(receipt.map(|receipt| receipt.before)),
        real(receipt.map(|receipt| receipt.after)),
        receipt.map_or(Value::Null, |receipt| Value::text(receipt.to_json())),
    ]
}
