//! Facts that are retrieved, as features: what a file that holds weights only can state of them.

use larql_compute::cpu::{Cancel, Pool};
use larql_storage::overlay::{DeleteKnn, Fact, Mode, Operation, Overlay};

use super::applied::{Applied, Identity};
use super::background::Looks;
use super::layers;
use super::maker::{Maker, Wanted};
use super::prompts::Prompter;
use super::survival::{Exam, ask};
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// Edits without anything that is retrieved.
#[derive(Debug)]
pub struct Lowered {
    /// The edits.
    pub stored: Overlay,
    /// Facts that became features.
    pub lowered: usize,
    /// Those of them that the model does not answer by these, as far as it can be asked.
    pub lost: Vec<Fact>,
}

/// Composes features for every fact that is retrieved.
///
/// # Errors
/// As passes of the model. A fact that cannot be told from others is lost, and no error.
pub fn lower(
    model: &Model,
    stored: &Overlay,
    pool: &Pool,
    cancel: &Cancel,
) -> Result<Lowered, Failure> {
    let retrieved: Vec<_> = stored.knn().map(|knn| knn.set.clone()).collect();
    let mut lowered =
        Lowered { stored: stored.clone(), lowered: retrieved.len(), lost: Vec::new() };
    if retrieved.is_empty() {
        return Ok(lowered);
    }
    let knowledge = model.knowledge();
    let prompter = Prompter::new(model, knowledge.as_deref());
    let looked_at = layers::of_weights(model.architecture());
    let background = model.kept_edits().background(
        model,
        &prompter,
        &looked_at,
        Looks::of(Mode::Compose),
        pool,
        cancel,
    )?;
    let own = Prompter::new(model, knowledge.as_deref());
    let mut maker = Maker::new(model, own, background, pool, cancel)?;
    let mut facts = Vec::with_capacity(retrieved.len());
    for knn in retrieved {
        cancel.check()?;
        let prompts = maker.prompts(&knn.fact.entity, &knn.fact.relation)?;
        lowered.stored.apply(&Operation::DeleteKnn(DeleteKnn::of(&knn.fact)), u64::MAX);
        let wanted =
            Wanted { fact: knn.fact.clone(), layers: None, alpha: 1.0, confidence: knn.confidence };
        match maker.compose(&wanted, &prompts, &lowered.stored) {
            Ok(operations) => {
                operations.iter().for_each(|one| lowered.stored.apply(one, u64::MAX));
                facts.push(knn.fact);
            }
            Err(failure) if failure.code == code::INVALID_PARAMETER => lowered.lost.push(knn.fact),
            Err(failure) => return Err(failure),
        }
    }
    drop(maker);
    let applied = Applied::new(model, lowered.stored.clone(), Identity::default())?;
    let exam = Exam::new(model, facts)?;
    let answers = ask(model, &applied, &exam, pool, cancel)?;
    // Of what makes no question nobody can say that it is answered.
    lowered.lost.extend(exam.unasked.into_iter().map(|(fact, _)| fact));
    let asked = exam.questions.into_iter().zip(answers.right);
    lowered.lost.extend(asked.filter(|(_, right)| !right).map(|(question, _)| question.fact));
    Ok(lowered)
}
