//! INSERT, UPDATE and DELETE: facts become operations, the receipt says what they do, and the log keeps them.

use std::sync::Arc;

use larql_planner::physical::edit::{Edit, EditedRows, InsertFacts};
use larql_planner::syntax::ast::{Harm, InsertMode};
use larql_planner::value::Value;
use larql_storage::overlay::{DeleteKnn, Fact, Mode, Operation, Overlay as Stored, SetFeature};

use super::mount_row::integer;
use super::transaction::edit;
use super::{Operator, Row, Work};
use crate::editing::applied::{Applied, Identity};
use crate::editing::layers;
use crate::editing::maker::{Maker, PRESERVED_WEIGHT, Wanted};
use crate::editing::prompts::{FactPrompts, Prompter};
use crate::editing::receipt::{self, Receipt};
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// The mode of INSERT where the statement names none: of 25 facts of the bundled model and 20 of another
/// the one that answered paraphrases as often as any and kept the most of an entity's other facts. No
/// page records that yet.
const DEFAULT_MODE: InsertMode = InsertMode::Compose;

/// Runs a statement that edits.
pub(super) struct RunEdit {
    statement: Option<Edit>,
}

impl RunEdit {
    pub(super) fn new(statement: Edit) -> Self {
        Self { statement: Some(statement) }
    }
}

impl Operator for RunEdit {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(statement) = self.statement.take() else { return Ok(None) };
        let rows = match statement {
            Edit::Insert(insert) => store(work, &insert, Vec::new())?,
            Edit::Delete(rows) => delete(work, &rows)?,
            Edit::Update(rows, target) => update(work, &rows, target)?,
        };
        Ok((!rows.is_empty()).then_some(rows))
    }
}

/// What one fact became.
struct Made {
    fact: Fact,
    mode: Mode,
    prompts: FactPrompts,
    target: Option<u32>,
    operations: Vec<Operation>,
}

/// Makes facts known, after taking others back, and returns a row for each.
fn store(
    work: &mut Work<'_>,
    insert: &InsertFacts,
    mut before: Vec<Operation>,
) -> Result<Vec<Row>, Failure> {
    if insert.facts.iter().flatten().any(String::is_empty) {
        let message = "a fact is made of texts that are not NULL";
        return Err(Failure::new(code::INVALID_PARAMETER, message)
            .hint("give an entity, a relation and a target"));
    }
    let model = work.model()?;
    let engine = work.engine().clone();
    let (pool, cancel) = (engine.pool(), work.cancel);
    let mode = insert.mode.unwrap_or(DEFAULT_MODE);
    let layers: Option<Vec<usize>> =
        insert.layers.map(|(first, last)| (first as usize..=last as usize).collect());
    let knowledge = model.knowledge();
    let prompter = Prompter::new(&model, knowledge.as_deref());
    let looked_at = layers.clone().unwrap_or_else(|| match mode {
        InsertMode::Knn => vec![layers::of_keys(model.architecture())],
        _ => layers::of_weights(model.architecture()),
    });
    let background = model.kept_edits().background(
        &model,
        &prompter,
        &looked_at,
        mode == InsertMode::Memit,
        pool,
        cancel,
    )?;
    let earlier = work.view().overlay().clone();
    let mut stored = earlier.clone();
    let wanted = |fact: &Fact| Wanted {
        fact: fact.clone(),
        layers: layers.clone(),
        alpha: insert.alpha as f32,
        confidence: insert.confidence.map(|confidence| confidence as f32),
    };
    let facts = insert.facts.iter().map(|[entity, relation, target]| Fact {
        entity: entity.clone(),
        relation: relation.clone(),
        target: target.clone(),
    });
    let facts: Vec<Fact> = facts.collect();
    for fact in &facts {
        before.extend(taken_back(&stored, |known| {
            known.entity == fact.entity && known.relation == fact.relation
        }));
    }
    before.iter().for_each(|operation| stored.apply(operation, u64::MAX));
    let mut made = Vec::with_capacity(facts.len());
    let mut maker =
        Maker::new(&model, Prompter::new(&model, knowledge.as_deref()), background, pool, cancel)?;
    let mut all = before;
    for fact in &facts {
        cancel.check()?;
        let prompts = prompter.of(&fact.entity, &fact.relation)?;
        let (mode, operations) = match mode {
            InsertMode::Knn => (Mode::Knn, vec![maker.knn(&wanted(fact), &prompts)?]),
            InsertMode::Compose => {
                (Mode::Compose, maker.compose(&wanted(fact), &prompts, &stored)?)
            }
            InsertMode::Memit => (Mode::Memit, Vec::new()),
        };
        operations.iter().for_each(|operation| stored.apply(operation, u64::MAX));
        all.extend(operations.iter().cloned());
        let target = prompter.answer_tokens(&fact.target)?.first().copied();
        made.push(Made { fact: fact.clone(), mode, prompts, target, operations });
    }
    if mode == InsertMode::Memit {
        let batch: Vec<(Wanted, FactPrompts)> =
            made.iter().map(|made| (wanted(&made.fact), made.prompts.clone())).collect();
        let first = earlier.low_rank().map(|delta| delta.update.id + 1).max().unwrap_or(1);
        let operations = maker.memit(&batch, true, PRESERVED_WEIGHT, first)?;
        for (made, operations) in made.iter_mut().zip(operations) {
            operations.iter().for_each(|operation| stored.apply(operation, u64::MAX));
            all.extend(operations.iter().cloned());
            made.operations = operations;
        }
    }
    drop(maker);
    let receipts = receipts(work, &model, &made, (&earlier, &stored), insert.harm)?;
    let lsn = edit(work, all)?;
    let rows = made.iter().zip(&receipts).map(|(made, receipt)| row(made, receipt.as_ref(), lsn));
    Ok(rows.collect())
}

/// Measures what was made, unless the statement is without a receipt.
///
/// # Errors
/// `HARM` beyond the budget.
fn receipts(
    work: &Work<'_>,
    model: &Arc<Model>,
    made: &[Made],
    (earlier, stored): (&Stored, &Stored),
    harm: Option<Harm>,
) -> Result<Vec<Option<Receipt>>, Failure> {
    if harm == Some(Harm::WithoutReceipt) {
        return Ok(made.iter().map(|_| None).collect());
    }
    let before = Applied::new(model, earlier.clone(), Identity::default())?;
    let after = Applied::new(model, stored.clone(), Identity::default())?;
    let mut receipts = Vec::with_capacity(made.len());
    for made in made {
        let Some(target) = made.target else {
            receipts.push(None);
            continue;
        };
        let (pool, cancel) = (work.engine().pool(), work.cancel);
        let measured =
            receipt::measure(model, &made.prompts, target, (&before, &after), pool, cancel)?;
        if let Some(Harm::Max { budget, points }) = harm {
            let budget = if points { budget / 100.0 } else { budget };
            if measured.harm() > budget {
                let message = format!(
                    "{:?} of {:?} would cost a neighbour {:.1} points of probability, and {:.1} are allowed; nothing was changed",
                    made.fact.relation,
                    made.fact.entity,
                    100.0 * measured.harm(),
                    100.0 * budget
                );
                return Err(Failure::new(code::HARM, message)
                    .hint("try MODE KNN, another layer, a smaller ALPHA, or a larger budget"));
            }
        }
        receipts.push(Some(measured));
    }
    if let Some(cost) = receipts.iter().flatten().map(|receipt| receipt.cost).reduce(f64::max) {
        let message = format!("the receipt read {cost:.1} times the tokens of the edit's prompt");
        work.notice(message, "")?;
    }
    Ok(receipts)
}

fn row(made: &Made, receipt: Option<&Receipt>, lsn: Option<u64>) -> Row {
    let slots = made.operations.iter().filter_map(|operation| match operation {
        Operation::SetFeature(SetFeature { slot, .. }) => Some((slot.layer, Some(slot.feature))),
        Operation::SetKnn(knn) => Some((knn.layer, None)),
        Operation::LowRank(update) => Some((update.layer, None)),
        _ => None,
    });
    let slots: Vec<(u32, Option<u32>)> = slots.collect();
    let mut layers: Vec<u32> = slots.iter().map(|slot| slot.0).collect();
    layers.dedup();
    let list = |numbers: &mut dyn Iterator<Item = u32>| {
        Value::List(numbers.map(|number| Value::Integer(number.into())).collect())
    };
    let real = |number: Option<f64>| number.map_or(Value::Null, Value::Real);
    let text = |text: &str| Value::text(text.to_owned());
    vec![
        text(&made.fact.entity),
        text(&made.fact.relation),
        text(&made.fact.target),
        text(made.mode.name()),
        list(&mut layers.iter().copied()),
        list(&mut slots.iter().filter_map(|slot| slot.1)),
        lsn.map_or(Value::Null, integer),
        real(receipt.map(|receipt| receipt.before)),
        real(receipt.map(|receipt| receipt.after)),
        receipt.map_or(Value::Null, |receipt| text(&receipt.to_json())),
    ]
}

/// Operations that take back every edit whose fact is one of those asked for.
fn taken_back(stored: &Stored, asked: impl Fn(&Fact) -> bool) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (slot, delta) in stored.features() {
        if let (Some(entity), Some(relation)) = (&delta.entity, &delta.relation) {
            let fact = Fact {
                entity: entity.clone(),
                relation: relation.clone(),
                target: delta.target.clone().unwrap_or_default(),
            };
            if asked(&fact) {
                operations.push(Operation::RestoreFeature(slot));
            }
        }
    }
    for knn in stored.knn().filter(|knn| asked(&knn.set.fact)) {
        let Fact { entity, relation, .. } = knn.set.fact.clone();
        operations.push(Operation::DeleteKnn(DeleteKnn { entity, relation }));
    }
    // An update that states other facts too stays: it cannot be taken apart.
    let updates = stored.low_rank().filter(|delta| delta.update.facts.iter().all(&asked));
    operations.extend(updates.map(|delta| Operation::DropLowRank { id: delta.update.id }));
    operations
}

/// The facts stored that a statement is about, and the operations that take them back.
fn found(stored: &Stored, rows: &EditedRows) -> (Vec<Fact>, Vec<Operation>) {
    let mut facts: Vec<Fact> = Vec::new();
    let mut operations = Vec::new();
    let text = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|one| one == has);
    let says = |fact: &Fact| {
        text(&rows.entity, &fact.entity)
            && text(&rows.relation, &fact.relation)
            && text(&rows.target, &fact.target)
    };
    let by_slot = rows.layer.is_some() || rows.feature.is_some();
    for operation in taken_back(stored, says) {
        let (fact, source, layer, feature) = match &operation {
            Operation::RestoreFeature(slot) => {
                let Some(delta) = stored.feature(*slot) else { continue };
                let fact = Fact {
                    entity: delta.entity.clone().unwrap_or_default(),
                    relation: delta.relation.clone().unwrap_or_default(),
                    target: delta.target.clone().unwrap_or_default(),
                };
                (vec![fact], "patch", slot.layer, Some(u64::from(slot.feature)))
            }
            Operation::DeleteKnn(knn) => {
                let Some(knn) = stored.fact(&knn.entity, &knn.relation) else { continue };
                (vec![knn.set.fact.clone()], "knn", knn.set.layer, None)
            }
            Operation::DropLowRank { id } => {
                let delta = stored.low_rank().find(|delta| delta.update.id == *id);
                let Some(delta) = delta else { continue };
                (delta.update.facts.clone(), "patch", delta.update.layer, None)
            }
            _ => continue,
        };
        let fits = text(&rows.source, source)
            && (!by_slot
                || rows.layer.is_none_or(|one| one == layer)
                    && rows.feature.is_none_or(|one| Some(one) == feature));
        if fits {
            for fact in fact.into_iter().filter(|fact| !facts.contains(fact)).collect::<Vec<_>>() {
                facts.push(fact);
            }
            operations.push(operation);
        }
    }
    (facts, operations)
}

/// Takes edits back, and says of each fact what is answered now.
fn delete(work: &mut Work<'_>, rows: &EditedRows) -> Result<Vec<Row>, Failure> {
    let model = work.model()?;
    let earlier = work.view().overlay().clone();
    let (facts, operations) = found(&earlier, rows);
    if facts.is_empty() {
        work.notice(
            "no edit is like that; nothing was changed",
            "SHOW PATCHES lists what is in force",
        )?;
        return Ok(Vec::new());
    }
    let mut stored = earlier.clone();
    operations.iter().for_each(|operation| stored.apply(operation, u64::MAX));
    let knowledge = model.knowledge();
    let prompter = Prompter::new(&model, knowledge.as_deref());
    let mut made = Vec::with_capacity(facts.len());
    for fact in facts {
        let mode = match earlier.fact(&fact.entity, &fact.relation) {
            Some(_) => Mode::Knn,
            None => Mode::Compose,
        };
        made.push(Made {
            prompts: prompter.of(&fact.entity, &fact.relation)?,
            target: prompter.answer_tokens(&fact.target)?.first().copied(),
            operations: Vec::new(),
            mode,
            fact,
        });
    }
    let receipts = receipts(work, &model, &made, (&earlier, &stored), rows.harm)?;
    let lsn = edit(work, operations)?;
    let rows = made.iter().zip(&receipts).map(|(made, receipt)| row(made, receipt.as_ref(), lsn));
    Ok(rows.collect())
}

/// Gives facts another target: those that were edited, or the one that entity and relation name.
fn update(work: &mut Work<'_>, rows: &EditedRows, target: String) -> Result<Vec<Row>, Failure> {
    let earlier = work.view().overlay().clone();
    let (mut facts, operations) = found(&earlier, rows);
    let named = rows.entity.clone().zip(rows.relation.clone());
    if facts.is_empty()
        && let Some((entity, relation)) = named
        && rows.source.is_none()
        && rows.target.is_none()
    {
        facts.push(Fact { entity, relation, target: String::new() });
    }
    if facts.is_empty() {
        work.notice("no edge is like that; nothing was changed", "name an entity and a relation")?;
        return Ok(Vec::new());
    }
    let knn = facts.iter().all(|fact| earlier.fact(&fact.entity, &fact.relation).is_some());
    let insert = InsertFacts {
        facts: facts.into_iter().map(|fact| [fact.entity, fact.relation, target.clone()]).collect(),
        mode: knn.then_some(InsertMode::Knn),
        layers: None,
        confidence: None,
        alpha: 1.0,
        harm: rows.harm,
    };
    store(work, &insert, operations)
}
