//! Moving facts down a tier: which there are, what says the same one tier below, and whether it still answers.
//!
//! Retrieved facts (L0) become composed features (L1), and those become closed-form updates (L2). Every
//! transaction is rewritten by itself, so that REMOVE PATCH and BLAME go on to mean what they did; nothing but
//! facts that are in force is touched. A fact that answers fewer of its prompts than before stays where it was.
//!
//! Elsewhere: vectors (`maker`), what answers (`ask`), durability (`storage::store`, `Record::Compact`).

use std::collections::{BTreeMap, HashSet};

use larql_compute::cpu::{Cancel, Pool};
use larql_storage::overlay::{DeleteKnn, Fact, Mode, Operation, Overlay as Stored, Slot, Touched};
use larql_storage::store::{Branch, Rewrite};

use super::applied::{Applied, Identity};
use super::ask::{Question, ask};
use super::maker::{Maker, Wanted};
use super::prompts::{FactPrompts, Prompter};
use crate::failure::Failure;
use crate::mounts::Model;

/// Prompts of a fact that are asked before and after.
const ASKED_MAX: usize = 12;
/// The part of the prompts answered before that must be answered after.
const STILL_ANSWERED: f64 = 0.9;
/// How often facts that do not answer are put back, and the others asked again.
const ROUNDS_MAX: usize = 8;

/// A fact in force, and where it is said.
#[derive(Debug, Clone)]
pub struct Kept {
    /// What it says.
    pub fact: Fact,
    /// The tier it is in.
    pub mode: Mode,
    confidence: Option<f32>,
    /// The transaction, by its index among those of the branch.
    transaction: usize,
    /// Its operations in it.
    operations: Vec<usize>,
}

/// What became of a fact.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Where it was.
    pub kept: Kept,
    /// What it is now; none where it stays.
    pub moved: Option<Vec<Operation>>,
    /// The part of its prompts that it answered.
    pub before: f64,
    /// The part that it answers as it is kept now.
    pub after: f64,
}

/// The tier to move facts to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Composed features.
    Compose,
    /// Closed-form updates, with the weight of what is known otherwise.
    Memit {
        /// As of [`Maker::memit`].
        weight: f64,
    },
}

/// The facts of a branch in some tiers.
pub fn facts(branch: &Branch, tiers: &[Mode]) -> Vec<Kept> {
    let overlay = branch.overlay();
    let mut found: Vec<Kept> = Vec::new();
    for (transaction, one) in branch.transactions().enumerate() {
        let first = found.len();
        for (index, operation) in one.commit.operations.iter().enumerate() {
            let Some((fact, mode, confidence)) = stated(overlay, one.lsn, operation) else {
                continue;
            };
            if !tiers.contains(&mode) {
                continue;
            }
            let same = |kept: &&mut Kept| kept.fact == fact && kept.mode == mode;
            match found[first..].iter_mut().find(same) {
                Some(kept) => kept.operations.push(index),
                None => found.push(Kept {
                    fact,
                    mode,
                    confidence,
                    transaction,
                    operations: vec![index],
                }),
            }
        }
    }
    found
}

/// The one fact that an operation states, if it is what the overlay has of it.
fn stated(overlay: &Stored, lsn: u64, operation: &Operation) -> Option<(Fact, Mode, Option<f32>)> {
    match operation {
        Operation::SetKnn(knn) => {
            let there = overlay.fact(&knn.fact.entity, &knn.fact.relation)?;
            let live = there.lsn == lsn && there.set == *knn;
            live.then(|| (knn.fact.clone(), Mode::Knn, knn.confidence))
        }
        Operation::SetFeature(set) if set.mode == Mode::Compose => {
            let there = overlay.feature(set.slot)?;
            let live = there.lsn == lsn && !there.hidden && there.target == set.target;
            let fact = Fact {
                entity: set.entity.clone()?,
                relation: set.relation.clone()?,
                target: set.target.clone()?,
            };
            live.then_some((fact, Mode::Compose, set.confidence))
        }
        Operation::LowRank(update) => {
            let there = overlay.low_rank().find(|delta| delta.update.id == update.id)?;
            // One that states several facts cannot be taken apart.
            match (&update.facts[..], there.lsn == lsn) {
                ([fact], true) => Some((fact.clone(), Mode::Memit, update.confidence)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Moves facts of a branch.
pub struct Compactor<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its prompts.
    pub prompter: &'a Prompter<'a>,
    /// Where passes run.
    pub pool: &'a Pool,
    /// Says when to stop.
    pub cancel: &'a Cancel,
}

impl Compactor<'_> {
    /// Finds what says the same in another tier, and which of it answers. `progress` is told how many facts of
    /// how many are made.
    ///
    /// # Errors
    /// As passes of the model; when cancelled.
    pub fn run(
        &self,
        branch: &Branch,
        facts: Vec<Kept>,
        target: Target,
        maker: &mut Maker<'_>,
        mut progress: impl FnMut(usize, usize) -> Result<(), Failure>,
    ) -> Result<Vec<Outcome>, Failure> {
        let mut prompts = Vec::with_capacity(facts.len());
        for kept in &facts {
            prompts.push(maker.prompts(&kept.fact.entity, &kept.fact.relation)?);
        }
        let questions: Vec<Vec<Question>> = facts
            .iter()
            .zip(&prompts)
            .map(|(kept, prompts)| self.questions(&kept.fact, prompts))
            .collect::<Result<_, _>>()?;
        let before = self.answered(&questions, branch.overlay())?;
        let mut unused = Unused::of(self.model, branch);
        let wanted = |kept: &Kept| Wanted {
            fact: kept.fact.clone(),
            layers: None,
            alpha: 1.0,
            confidence: kept.confidence,
        };
        let mut made: Vec<Option<Vec<Operation>>> = match target {
            Target::Compose => {
                let mut stored = branch.overlay().clone();
                let mut made = Vec::with_capacity(facts.len());
                for (index, (kept, prompts)) in facts.iter().zip(&prompts).enumerate() {
                    self.cancel.check()?;
                    stored.apply(&Operation::DeleteKnn(DeleteKnn::of(&kept.fact)), u64::MAX);
                    let operations = maker.compose(&wanted(kept), prompts, &stored);
                    // What cannot be composed is retrieved, as before.
                    let operations = match operations {
                        Ok(operations) => Some(unused.placed(operations)),
                        Err(failure) if failure.code == crate::failure::code::CANCELLED => {
                            return Err(failure);
                        }
                        Err(_) => None,
                    };
                    let now = operations.iter().flatten();
                    now.for_each(|operation| stored.apply(operation, u64::MAX));
                    made.push(operations);
                    progress(index + 1, facts.len())?;
                }
                made
            }
            Target::Memit { weight } => {
                let batch: Vec<(Wanted, FactPrompts)> =
                    facts.iter().map(wanted).zip(prompts.iter().cloned()).collect();
                let mut stays = branch.overlay().clone();
                for update in branch.overlay().low_rank().map(|delta| &delta.update) {
                    let moves = |kept: &Kept| update.facts.contains(&kept.fact);
                    if facts.iter().any(moves) {
                        stays.apply(&Operation::DropLowRank { id: update.id }, u64::MAX);
                    }
                }
                let made = maker.memit(&batch, &stays, true, weight, unused.update)?;
                progress(facts.len(), facts.len())?;
                made.into_iter().map(Some).collect()
            }
        };
        let after = self.settle(branch, &facts, &questions, &before, &mut made)?;
        let outcomes = facts.into_iter().zip(made).zip(before.into_iter().zip(after));
        Ok(outcomes
            .map(|((kept, moved), (before, after))| Outcome { kept, moved, before, after })
            .collect())
    }

    /// Puts back what does not answer, until everything that stays moved does.
    fn settle(
        &self,
        branch: &Branch,
        facts: &[Kept],
        questions: &[Vec<Question>],
        before: &[f64],
        made: &mut [Option<Vec<Operation>>],
    ) -> Result<Vec<f64>, Failure> {
        for _ in 0..ROUNDS_MAX {
            let overlay = rewritten(branch, &rewrites(branch, facts, made));
            let after = self.answered(questions, &overlay)?;
            let mut settled = true;
            for (index, moved) in made.iter_mut().enumerate() {
                if moved.is_some() && after[index] < STILL_ANSWERED * before[index] {
                    (*moved, settled) = (None, false);
                }
            }
            if settled {
                return Ok(after);
            }
        }
        // Facts that depend on one another this much stay together.
        made.fill(None);
        Ok(before.to_vec())
    }

    /// What asks for a fact.
    fn questions(&self, fact: &Fact, prompts: &FactPrompts) -> Result<Vec<Question>, Failure> {
        let expected = self.prompter.answer_tokens(&fact.target)?;
        let asked = prompts.fact.iter().chain(&prompts.paraphrases).take(ASKED_MAX);
        Ok(asked.map(|prompt| Question::of_tokens(prompt.clone(), expected.clone())).collect())
    }

    /// The part of each fact's questions that is answered under some edits.
    fn answered(&self, questions: &[Vec<Question>], overlay: &Stored) -> Result<Vec<f64>, Failure> {
        let edits = Applied::new(self.model, overlay.clone(), Identity::default())?;
        let asked: Vec<_> = questions.iter().flatten().map(|one| (one, &edits)).collect();
        let mut answers = ask(self.model, &asked, self.pool, self.cancel)?.into_iter();
        let parts = questions.iter().map(|of_fact| {
            let right = answers.by_ref().take(of_fact.len()).filter(|answer| answer.is_expected);
            right.count() as f64 / of_fact.len().max(1) as f64
        });
        Ok(parts.collect())
    }
}

/// Numbers that no transaction of a branch names, removed or not: what a rewritten transaction sets, no other
/// transaction changes.
struct Unused {
    /// By layer.
    features: BTreeMap<u32, u32>,
    update: u64,
    base: Vec<u32>,
}

impl Unused {
    fn of(model: &Model, branch: &Branch) -> Self {
        let base = (0..model.layers()).map(|layer| model.features(layer) as u32).collect();
        let mut unused = Self { features: BTreeMap::new(), update: 1, base };
        let operations = branch.transactions().flat_map(|one| one.commit.operations.iter());
        for touched in operations.flat_map(Operation::touched) {
            match touched {
                Touched::Slot(slot) => {
                    let next = unused.features.entry(slot.layer).or_default();
                    *next = (*next).max(slot.feature.saturating_add(1));
                }
                Touched::LowRank(id) => unused.update = unused.update.max(id.saturating_add(1)),
                _ => {}
            }
        }
        unused
    }

    /// Composed features in slots that are unused, which are used from here on.
    fn placed(&mut self, mut operations: Vec<Operation>) -> Vec<Operation> {
        for operation in &mut operations {
            if let Operation::SetFeature(set) = operation {
                let layer = set.slot.layer;
                let base = self.base.get(layer as usize).copied().unwrap_or(0);
                let next = self.features.entry(layer).or_default();
                let feature = (*next).max(base);
                *next = feature.saturating_add(1);
                set.slot = Slot { layer, feature };
            }
        }
        operations
    }
}

/// What transactions become when facts are said as `made`.
pub fn rewrites(branch: &Branch, facts: &[Kept], made: &[Option<Vec<Operation>>]) -> Vec<Rewrite> {
    let mut touched_before: HashSet<Touched> = HashSet::new();
    let mut rewrites = Vec::new();
    for (index, transaction) in branch.transactions().enumerate() {
        let mut operations = Vec::new();
        let mut changes = false;
        for (at, operation) in transaction.commit.operations.iter().enumerate() {
            let of = facts.iter().zip(made).find_map(|(kept, made)| {
                let here = kept.transaction == index && kept.operations.contains(&at);
                made.as_ref().filter(|_| here).map(|made| (kept, made))
            });
            match of {
                None => operations.push(operation.clone()),
                Some((kept, made)) => {
                    changes = true;
                    // Only what an earlier transaction says comes back when this one does not say it any more.
                    let undone = operation.inverse().filter(|undone| {
                        undone.touched().iter().any(|one| touched_before.contains(one))
                    });
                    operations.extend(undone);
                    if kept.operations.first() == Some(&at) {
                        operations.extend(made.iter().cloned());
                    }
                }
            }
            touched_before.extend(operation.touched());
        }
        if changes {
            rewrites.push(Rewrite { lsn: transaction.lsn, operations: operations.into() });
        }
    }
    rewrites
}

/// What a branch amounts to with some transactions rewritten.
fn rewritten(branch: &Branch, rewrites: &[Rewrite]) -> Stored {
    let mut overlay = Stored::default();
    for transaction in branch.transactions() {
        let now = rewrites.iter().find(|rewrite| rewrite.lsn == transaction.lsn);
        let operations = now.map_or(&transaction.commit.operations, |rewrite| &rewrite.operations);
        operations.iter().for_each(|operation| overlay.apply(operation, transaction.lsn));
    }
    overlay
}
