//! Assertions: what an INFER is to answer, checked before anything that edits is committed or compiled.
//!
//! An assertion holds where greedy continuation of its prompt begins with what it expects and, where it names a
//! least probability, that text has it. Promise: the store commits nothing to a branch that has assertions unless
//! they were found to hold with it ([`larql_storage::store::State::check`]).

use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_storage::store::Assertion;

use super::applied::Applied;
use super::ask::{Question, ask};
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// Names of assertions that a failure lists.
const NAMES_SHOWN_MAX: usize = 5;

/// What was found of an assertion.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// Which.
    pub assertion: Arc<Assertion>,
    /// Whether it holds.
    pub holds: bool,
    /// What is answered, as far as it is what is expected and one token on.
    pub answer: String,
    /// The probability of what is expected.
    pub probability: f64,
}

/// Infers what assertions are about, under some edits.
///
/// # Errors
/// `MISSING_COMPONENT` where the model cannot infer; as passes of the model.
pub fn check(
    model: &Model,
    edits: &Applied,
    assertions: &[Arc<Assertion>],
    pool: &Pool,
    cancel: &Cancel,
) -> Result<Vec<Checked>, Failure> {
    let questions: Vec<Question> = assertions
        .iter()
        .map(|one| Question::new(model, &one.prompt, Some(&one.expected)))
        .collect::<Result<_, _>>()?;
    let asked: Vec<_> = questions.iter().map(|question| (question, edits)).collect();
    let answers = ask(model, &asked, pool, cancel)?;
    let checked = assertions.iter().zip(answers).map(|(assertion, answer)| {
        let least = assertion.at_least.unwrap_or(0.0);
        Ok(Checked {
            assertion: assertion.clone(),
            holds: answer.is_expected && answer.probability >= least,
            answer: answer.text(model)?,
            probability: answer.probability,
        })
    });
    checked.collect()
}

/// What to say of the assertions that do not hold; `None` where all do.
pub fn failure(checked: &[Checked]) -> Option<Failure> {
    let failed: Vec<&Checked> = checked.iter().filter(|one| !one.holds).collect();
    let first = failed.first()?;
    let names = failed.iter().take(NAMES_SHOWN_MAX).map(|one| one.assertion.name.as_str());
    let mut names = names.collect::<Vec<_>>().join(", ");
    if failed.len() > NAMES_SHOWN_MAX {
        names += ", …";
    }
    let message = format!(
        "{} of {} assertions do not hold: {names}; {:?} is answered by {:?}, and {:?} has probability {:.4}",
        failed.len(),
        checked.len(),
        first.assertion.prompt,
        first.answer,
        first.assertion.expected,
        first.probability
    );
    Some(
        Failure::new(code::ASSERTION, message).hint(
            "CHECK ASSERTIONS shows them; DROP ASSERTION ends one that is not meant any more",
        ),
    )
}

/// Refuses edits under which an assertion does not hold.
///
/// # Errors
/// `ASSERTION`, with the first one's answer; as [`check`].
pub fn require(
    model: &Model,
    edits: &Applied,
    assertions: &[Arc<Assertion>],
    pool: &Pool,
    cancel: &Cancel,
) -> Result<(), Failure> {
    match failure(&check(model, edits, assertions, pool, cancel)?) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}
