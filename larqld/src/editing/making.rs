//! What a statement makes of its facts: the operations of each, on top of what is stored.

use larql_compute::cpu::Cancel;
use larql_storage::overlay::{Fact, Mode, Operation, Overlay as Stored};

use super::layers;
use super::maker::{Maker, PRESERVED_WEIGHT, Wanted};
use super::prompts::FactPrompts;
use crate::failure::Failure;
use crate::mounts::Model;

/// How facts are to be made known.
#[derive(Debug, Clone, PartialEq)]
pub struct Manner {
    /// By what.
    pub mode: Mode,
    /// The layers to edit; `None` for those that fit the mode.
    pub layers: Option<Vec<usize>>,
    /// A factor on what composed features and updates add.
    pub alpha: f32,
    /// What the rows are to show as confidence.
    pub confidence: Option<f32>,
}

impl Manner {
    /// A mode with nothing said besides.
    pub fn of(mode: Mode) -> Self {
        Self { mode, layers: None, alpha: 1.0, confidence: None }
    }
}

/// What one fact became.
#[derive(Debug, Clone)]
pub struct Made {
    /// Where it is asked for.
    pub prompts: FactPrompts,
    /// The first token of its target.
    pub target: Option<u32>,
    /// What was made.
    pub operations: Vec<Operation>,
}

/// The layers that facts are edited in.
pub fn looked_at(model: &Model, manner: &Manner) -> Vec<usize> {
    manner.layers.clone().unwrap_or_else(|| match manner.mode {
        Mode::Knn => vec![layers::of_keys(model.architecture())],
        _ => layers::of_weights(model.architecture()),
    })
}

/// Makes facts known on top of `stored`, which then has them, and returns what each became, in their
/// order. Updates are numbered from `update_first` on.
///
/// # Errors
/// `INVALID_PARAMETER` where a fact cannot be told from others; as passes of the model.
pub fn make(
    maker: &mut Maker<'_>,
    facts: &[Fact],
    manner: &Manner,
    stored: &mut Stored,
    update_first: u64,
    cancel: &Cancel,
) -> Result<Vec<Made>, Failure> {
    let wanted = |fact: &Fact| Wanted {
        fact: fact.clone(),
        layers: manner.layers.clone(),
        alpha: manner.alpha,
        confidence: manner.confidence,
    };
    let mut made = Vec::with_capacity(facts.len());
    for fact in facts {
        cancel.check()?;
        let mut prompts = maker.prompts(&fact.entity, &fact.relation)?;
        let operations = match manner.mode {
            Mode::Knn => vec![maker.knn(&wanted(fact), &prompts)?],
            Mode::Memit => Vec::new(),
            _ => maker.compose(&wanted(fact), &prompts, stored)?,
        };
        prompts.sort_by_risk(&maker.unseen.relations, &maker.unseen.entities);
        operations.iter().for_each(|operation| stored.apply(operation, u64::MAX));
        let target = maker.prompter.answer_tokens(&fact.target)?.first().copied();
        made.push(Made { prompts, target, operations });
    }
    if manner.mode == Mode::Memit {
        let batch: Vec<(Wanted, FactPrompts)> =
            facts.iter().map(wanted).zip(made.iter().map(|made| made.prompts.clone())).collect();
        let operations = maker.memit(&batch, stored, true, PRESERVED_WEIGHT, update_first)?;
        for (made, operations) in made.iter_mut().zip(operations) {
            operations.iter().for_each(|operation| stored.apply(operation, u64::MAX));
            made.operations = operations;
        }
    }
    Ok(made)
}
