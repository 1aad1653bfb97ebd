//! What changes do, and whether that is allowed.

use std::sync::Arc;

use larql_planner::syntax::ast::Harm;
use larql_storage::overlay::{Fact, Mode, Operation, Overlay, Slot};

use super::super::Work;
use crate::editing::applied::{Applied, Identity};
use crate::editing::prompts::{FactPrompts, Prompter};
use crate::editing::receipt::{self, Receipt};
use crate::editing::stated::Stated;
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// Features of one statement whose change is measured, each by what leans on it.
const FEATURES_MAX: usize = 16;
/// Prompts of what a model is asked otherwise, beside a feature that nothing is known of.
const CORPUS: usize = 8;

/// What one change became.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) entity: Option<String>,
    pub(super) relation: Option<String>,
    pub(super) target: Option<String>,
    pub(super) mode: Mode,
    /// By which prompts it is measured, and the token whose probability is told.
    pub(super) asked: Option<(FactPrompts, u32)>,
    pub(super) operations: Vec<Operation>,
}

impl Made {
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
    made: &[Made],
    (earlier, stored): (&Overlay, &Overlay),
    harm: Option<Harm>,
) -> Result<Vec<Option<Receipt>>, Failure> {
    let unmeasured = || Ok(made.iter().map(|_| None).collect());
    if harm == Some(Harm::WithoutReceipt) || made.iter().all(|made| made.asked.is_none()) {
        return unmeasured();
    }
    if let Err(failure) = model.require_inference() {
        if harm.is_some() {
            return Err(failure);
        }
        work.notice("nothing was measured: the model cannot run", failure.hint)?;
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
        let measured = receipt::measure(model, prompts, *target, (&before, &after), pool, cancel)?;
        check(&measured, harm, || made.words())?;
        receipts.push(Some(measured));
    }
    if let Some(cost) = receipts.iter().flatten().map(|receipt| receipt.cost).reduce(f64::max) {
        let message = format!("the receipt read {cost:.1} times the tokens of the edit's prompt");
        work.notice(message, "")?;
    }
    Ok(receipts)
}

/// Refuses harm beyond a budget.
fn check(measured: &Receipt, harm: Option<Harm>, what: impl Fn() -> String) -> Result<(), Failure> {
    let Some(Harm::Max { budget, points }) = harm else { return Ok(()) };
    let budget = if points { budget / 100.0 } else { budget };
    if measured.harm() <= budget {
        return Ok(());
    }
    let message = format!(
        "{} would cost a neighbour {:.1} points of probability, and {:.1} are allowed; nothing was changed",
        what(),
        100.0 * measured.harm(),
        100.0 * budget
    );
    Err(Failure::new(code::HARM, message)
        .hint("try MODE KNN, another layer, a smaller ALPHA, or a larger budget"))
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
    let others = prompter.corpus(CORPUS)?;
    let prompts = FactPrompts { fact: vec![fact], entities: others, ..FactPrompts::default() };
    Ok(Some(prompts).zip(token(target)))
}

/// What many changes do together.
#[derive(Debug, Clone, Default)]
pub(in crate::exec) struct Sum {
    /// Mean probabilities of the targets, before and after.
    pub(in crate::exec) probabilities: Option<(f64, f64)>,
    /// As the `harm` column shows it.
    pub(in crate::exec) harm: Option<String>,
}

/// Measures operations that somebody made before: of a patch, or taken from another model.
///
/// # Errors
/// As [`receipts`].
pub(in crate::exec) fn of_operations(
    work: &Work<'_>,
    operations: &[Operation],
    harm: Option<Harm>,
) -> Result<Sum, Failure> {
    let model = work.model()?;
    if harm == Some(Harm::WithoutReceipt) {
        return Ok(Sum::default());
    }
    let earlier = work.view().overlay().clone();
    let mut stored = earlier.clone();
    operations.iter().for_each(|operation| stored.apply(operation, u64::MAX));
    let knowledge = model.knowledge();
    let prompter = Prompter::new(&model, knowledge.as_deref());
    let mut made: Vec<Made> = Vec::new();
    for fact in changed(&earlier, &stored) {
        let Ok(prompts) = prompter.of(&fact.entity, &fact.relation) else { continue };
        let target = prompter.answer_tokens(&fact.target).ok();
        let target = target.and_then(|ids| ids.first().copied());
        made.push(Made::of(&fact, Mode::Rows, Some(prompts).zip(target)));
    }
    let mut features = 0;
    for operation in operations {
        let slot = match operation {
            Operation::HideFeature(slot) => *slot,
            Operation::SetFeature(set) if set.entity.is_none() || set.relation.is_none() => {
                set.slot
            }
            _ => continue,
        };
        features += 1;
        if features > FEATURES_MAX {
            continue;
        }
        let delta = stored.feature(slot).and_then(|delta| delta.target.clone());
        let target = delta.unwrap_or_else(|| "the".to_owned());
        let asked = of_feature(&model, &prompter, slot, ("The name of the", &target))?;
        made.push(Made {
            entity: None,
            relation: None,
            target: None,
            mode: Mode::Rows,
            asked,
            operations: vec![operation.clone()],
        });
    }
    if features > FEATURES_MAX {
        let message = format!("{FEATURES_MAX} of {features} features were measured");
        work.notice(message, "")?;
    }
    let receipts = receipts(work, &model, &made, (&earlier, &stored), harm)?;
    Ok(sum(&made, &receipts))
}

/// The facts that are stated otherwise than before; of those that are stated no more, as they were.
fn changed(earlier: &Overlay, stored: &Overlay) -> Vec<Fact> {
    let facts = |overlay: &Overlay| -> Vec<Fact> {
        let mut facts: Vec<Fact> =
            Stated::of(overlay).edges().map(|edge| edge.fact.clone()).collect();
        facts.dedup();
        facts
    };
    let (before, after) = (facts(earlier), facts(stored));
    let is_of = |facts: &[Fact], fact: &Fact| {
        facts.iter().any(|one| one.entity == fact.entity && one.relation == fact.relation)
    };
    let new = after.iter().filter(|fact| before.binary_search(fact).is_err());
    let gone = before.iter().filter(|fact| !is_of(&after, fact));
    new.chain(gone).cloned().collect()
}

fn sum(made: &[Made], receipts: &[Option<Receipt>]) -> Sum {
    let measured: Vec<(&Made, &Receipt)> =
        made.iter().zip(receipts).filter_map(|(made, one)| Some((made, one.as_ref()?))).collect();
    if measured.is_empty() {
        return Sum::default();
    }
    let count = measured.len() as f64;
    let mean = |value: fn(&Receipt) -> f64| {
        measured.iter().map(|(_, receipt)| value(receipt)).sum::<f64>() / count
    };
    let points = |probability: f64| (probability * 1e4).round() / 100.0;
    let worst = measured.iter().map(|(_, receipt)| receipt.harm()).fold(0.0, f64::max);
    let facts = measured.iter().filter(|(made, _)| made.relation.is_some());
    let facts: Vec<_> = facts
        .map(|(made, receipt)| {
            serde_json::json!({
                "entity": made.entity,
                "relation": made.relation,
                "target": made.target,
                "before": receipt.before,
                "after": receipt.after,
                "worst_points": points(receipt.harm()),
            })
        })
        .collect();
    let neighbours: usize = measured.iter().map(|(_, receipt)| receipt.losses.len()).sum();
    let changed: usize = measured.iter().map(|(_, receipt)| receipt.changed).sum();
    let harm = serde_json::json!({
        "worst_points": points(worst),
        "neighbours": neighbours,
        "neighbours_changed": changed,
        "facts": facts,
        "drift_bits_per_token": mean(|receipt| receipt.drift),
        "cost": (mean(|receipt| receipt.cost) * 10.0).round() / 10.0,
    });
    Sum {
        probabilities: Some((mean(|receipt| receipt.before), mean(|receipt| receipt.after))),
        harm: Some(harm.to_string()),
    }
}
