//! What changes do, and whether that is allowed.

use std::sync::Arc;

use larql_planner::syntax::ast::Harm;
use larql_storage::overlay::{Fact, Mode, Operation, Overlay, Slot};

use super::super::Work;
use super::heaviest::{Change, Changes};
use crate::editing::applied::{Applied, Identity};
use crate::editing::prompts::{FactPrompts, Prompter};
use crate::editing::receipt::{self, Receipt};
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// Changes of one patch whose prompts are looked for: more than a receipt has room for.
const SUBJECTS_MAX: usize = 16;
/// Prompts of what a model is asked otherwise, beside a feature that nothing is known of.
const CORPUS: usize = 8;

/// What one change became.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    pub(super) entity: Option<String>,
    pub(super) relation: Option<String>,
    pub(super) target: Option<String>,
    pub(super) mode: Mode,
    /// By which prompts it is measured, and the token whose probability is told.
    pub(super) asked: Option<(FactPrompts, u32)>,
    pub(super) operations: Vec<Operation>,
}

impl Changed {
    /// The change of a fact.
    pub(super) fn of(fact: &Fact, mode: Mode, asked: Option<(FactPrompts, u32)>) -> Self {
        Self {
            entity: Some(fact.entity.clone()),
            relation: Some(fact.relation.clone()),
            target: Some(fact.target.clone()),
            mode,
            asked,
            operations: Vec::new(),
        }
    }

    /// What may do less harm.
    fn remedy(&self) -> &'static str {
        let is_stated = self.operations.iter().any(|operation| match operation {
            Operation::SetKnn(_) | Operation::LowRank(_) => true,
            Operation::SetFeature(set) => set.target.is_some(),
            _ => false,
        });
        match self.mode {
            _ if !is_stated => "a larger budget, or leave it as it is",
            Mode::Knn => "try another layer, or a larger budget",
            Mode::Compose => "try MODE KNN, another layer, a smaller ALPHA, or a larger budget",
            Mode::Memit => {
                "try MODE KNN or COMPOSE, another layer, a smaller ALPHA, or a larger budget"
            }
            Mode::Rows => "a larger budget, or INSERT the fact",
        }
    }

    /// What it changes, in words.
    fn words(&self) -> String {
        match (&self.relation, &self.entity, self.operations.first()) {
            (Some(relation), Some(entity), _) => format!("the {relation:?} of {entity:?}"),
            (_, _, Some(Operation::HideFeature(slot))) => {
                format!("feature {} of layer {}", slot.feature, slot.layer)
            }
            _ => "the change".to_owned(),
        }
    }
}

/// Measures what was made, unless the statement is without a receipt.
///
/// # Errors
/// `HARM` beyond the budget; `MISSING_COMPONENT` where there is a budget and the model cannot run.
pub(super) fn receipts(
    work: &Work<'_>,
    model: &Arc<Model>,
    made: &[Changed],
    (earlier, stored): (&Overlay, &Overlay),
    harm: Option<Harm>,
) -> Result<Vec<Option<Receipt>>, Failure> {
    let unmeasured = || Ok(made.iter().map(|_| None).collect());
    if harm == Some(Harm::WithoutReceipt) || made.iter().all(|made| made.asked.is_none()) {
        return unmeasured();
    }
    if !is_measurable(work, model, harm)? {
        return unmeasured();
    }
    let before = Applied::new(model, earlier.clone(), Identity::default())?;
    let after = Applied::new(model, stored.clone(), Identity::default())?;
    let (pool, cancel) = (work.engine().pool(), work.cancel);
    let mut receipts = Vec::with_capacity(made.len());
    for made in made {
        let Some((prompts, target)) = &made.asked else {
            receipts.push(None);
            continue;
        };
        cancel.check()?;
        let measured =
            receipt::measure(model, (prompts, *target), (&before, &after), pool, cancel)?;
        check(&measured, harm, (made.words(), made.remedy()))?;
        receipts.push(Some(measured));
    }
    if let Some(cost) = receipts.iter().flatten().map(|receipt| receipt.cost).reduce(f64::max) {
        tell_cost(work, cost)?;
    }
    let measured = receipts.iter().flatten().count();
    tell_unmeasured(work, measured, made.len())?;
    Ok(receipts)
}

fn tell_cost(work: &Work<'_>, cost: f64) -> Result<(), Failure> {
    let message = format!("the receipt read {cost:.1} times the tokens of the edit's prompt");
    work.notice(message, "")
}

/// Says where a receipt, and a budget with it, is not about every change.
fn tell_unmeasured(work: &Work<'_>, measured: usize, all: usize) -> Result<(), Failure> {
    if measured == all {
        return Ok(());
    }
    let message = format!("changes measured: {measured} of {all}");
    work.notice(
        message,
        "INFER what matters, or CREATE ASSERTION: REMOVE PATCH and DELETE take edits back",
    )
}

/// Whether the model can run; says so where it cannot and nobody depends on it.
///
/// # Errors
/// `MISSING_COMPONENT` where there is a budget.
fn is_measurable(work: &Work<'_>, model: &Model, harm: Option<Harm>) -> Result<bool, Failure> {
    match model.require_inference() {
        Ok(_) => Ok(true),
        Err(failure) if harm.is_some() => Err(failure),
        Err(failure) => {
            work.notice("nothing was measured: the model cannot run", failure.hint)?;
            Ok(false)
        }
    }
}

/// Refuses harm beyond a budget.
fn check(
    measured: &Receipt,
    harm: Option<Harm>,
    (what, remedy): (String, &str),
) -> Result<(), Failure> {
    let Some(Harm::Max { budget, points }) = harm else { return Ok(()) };
    let budget = if points { budget / 100.0 } else { budget };
    if measured.harm() <= budget {
        return Ok(());
    }
    let points = |part: f64| match 100.0 * part {
        points if points > 0.0 && points < 0.05 => "less than 0.1".to_owned(),
        points => format!("{points:.1}"),
    };
    let message = format!(
        "{} would cost a neighbour {} points of probability, and {} are allowed; nothing was changed",
        what,
        points(measured.harm()),
        points(budget)
    );
    Err(Failure::new(code::HARM, message).hint(remedy))
}

/// The prompts by which the change of a feature is measured: those of a fact that is known to lean on it, else
/// `text` by itself beside what the model is asked otherwise.
///
/// # Errors
/// What the tokenizer refuses.
pub(super) fn of_feature(
    model: &Model,
    prompter: &Prompter<'_>,
    slot: Slot,
    (text, target): (&str, &str),
) -> Result<Option<(FactPrompts, u32)>, Failure> {
    let token =
        |target: &str| prompter.answer_tokens(target).ok().and_then(|ids| ids.first().copied());
    if let Some(knowledge) = model.knowledge() {
        let edges = knowledge.file().entities.iter();
        let mut edges = edges.flat_map(|of| of.edges.iter().map(|edge| (&*of.name, edge)));
        let leans =
            edges.find(|(_, edge)| (edge.layer, edge.feature) == (slot.layer, slot.feature));
        if let Some((entity, edge)) = leans
            && let Some(relation) = knowledge.relation(edge.relation)
        {
            return Ok(Some(prompter.of(entity, relation)?).zip(token(&edge.target)));
        }
    }
    let Some(fact) = prompter.tokens(text)?.filter(|tokens| tokens.len() > 1) else {
        return Ok(None);
    };
    let others = prompter.corpus(CORPUS)?.into_iter().map(|asked| asked.tokens).collect();
    let prompts = FactPrompts { fact: vec![fact], entities: others, ..FactPrompts::default() };
    Ok(Some(prompts).zip(token(target)))
}

/// What many changes do together.
#[derive(Debug, Clone, Default)]
pub(in crate::exec) struct Sum {
    /// The probabilities of the target of the change that weighs most, before and after.
    pub(in crate::exec) probabilities: Option<(f64, f64)>,
    /// As the `harm` column shows it.
    pub(in crate::exec) harm: Option<String>,
}

/// Measures operations that somebody made before, of a patch or taken from another model, for what one edit costs:
/// those that weigh most.
///
/// # Errors
/// `HARM` beyond the budget; `MISSING_COMPONENT` where there is a budget and the model cannot run.
pub(in crate::exec) fn of_operations(
    work: &Work<'_>,
    operations: &[Operation],
    harm: Option<Harm>,
) -> Result<Sum, Failure> {
    let model = work.model()?;
    if harm == Some(Harm::WithoutReceipt) || operations.is_empty() {
        return Ok(Sum::default());
    }
    let earlier = work.view().overlay().clone();
    let mut stored = earlier.clone();
    operations.iter().for_each(|operation| stored.apply(operation, u64::MAX));
    let knowledge = model.knowledge();
    let prompter = Prompter::new(&model, knowledge.as_deref());
    let changes = Changes::of(&model, operations, (&earlier, &stored)).by_weight();
    let mut made: Vec<Changed> = Vec::new();
    for change in &changes {
        if made.len() == SUBJECTS_MAX {
            break;
        }
        work.cancel.check()?;
        let one = match change {
            Change::Fact(fact) => {
                let Ok(prompts) = prompter.of(&fact.entity, &fact.relation) else { continue };
                let target = prompter.answer_tokens(&fact.target).ok();
                let target = target.and_then(|ids| ids.first().copied());
                Changed::of(fact, Mode::Rows, Some(prompts).zip(target))
            }
            Change::Feature(slot) => {
                let target = stored.feature(*slot).and_then(|delta| delta.target.clone());
                let target = target.unwrap_or_else(|| "the".to_owned());
                let asked = of_feature(&model, &prompter, *slot, ("The name of the", &target))?;
                Changed {
                    asked,
                    operations: vec![Operation::HideFeature(*slot)],
                    entity: None,
                    relation: None,
                    target: None,
                    mode: Mode::Rows,
                }
            }
        };
        made.extend(one.asked.is_some().then_some(one));
    }
    if !is_measurable(work, &model, harm)? || made.is_empty() {
        return Ok(Sum::default());
    }
    let before = Applied::new(&model, earlier, Identity::default())?;
    let after = Applied::new(&model, stored, Identity::default())?;
    let subjects: Vec<receipt::Subject<'_>> = made
        .iter()
        .filter_map(|made| made.asked.as_ref())
        .map(|(prompts, target)| (prompts, *target))
        .collect();
    let (pool, cancel) = (work.engine().pool(), work.cancel);
    let (receipt, measured) =
        receipt::measure_together(&model, &subjects, (&before, &after), pool, cancel)?;
    let what = match &changes[..] {
        [_] => made[0].words(),
        _ => "what is changed together".to_owned(),
    };
    check(&receipt, harm, (what, "a larger budget, or a patch without what harms"))?;
    tell_cost(work, receipt.cost)?;
    tell_unmeasured(work, measured.len(), changes.len())?;
    let facts = measured.iter().filter_map(|&at| made.get(at));
    let facts = facts.filter(|made| made.relation.is_some());
    let facts: Vec<_> = facts
        .map(|made| {
            serde_json::json!({
                "entity": made.entity,
                "relation": made.relation,
                "target": made.target,
            })
        })
        .collect();
    let mut told = receipt.told();
    told["changes"] = changes.len().into();
    told["measured"] = measured.len().into();
    told["facts"] = facts.into();
    Ok(Sum { probabilities: Some((receipt.before, receipt.after)), harm: Some(told.to_string()) })
}
