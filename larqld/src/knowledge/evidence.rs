//! What a relation's templates say of an entity, and how far that is to be believed.
//!
//! Several templates ask for the same thing; the answer with most weight stands, and how likely the
//! model held it, how many templates agree on it, how well they did on known facts and whether the
//! entity is of a kind that has the relation are the signals of its confidence.

use larql_storage::vindex::knowledge::{RelationRecord, is_storable};
use serde::{Deserialize, Serialize};

use super::answer::{fill, is_same, object_range};
use super::prober::{Completion, Prober};
use crate::failure::Failure;

/// Signals of a probe's confidence, in the order of [`Evidence::signals`].
pub const PROBE_SIGNALS: usize = 5;
/// Tokens beyond a relation's longest known object that a completion may have: leads, and objects
/// longer than any that is known.
const TOKENS_BEYOND: u32 = 3;
/// Log-probabilities below this are as good as none.
const LOG_PROBABILITY_MIN: f64 = -6.0;

/// A question: does this entity have this relation, and to what?
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// The entity.
    pub entity: &'q str,
    /// The relation's index.
    pub relation: usize,
    /// The readout's score that the entity can have the relation.
    pub applicability: f32,
}

/// An answer with what speaks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The relation's index.
    pub relation: usize,
    /// The object, as the model writes it.
    pub target: String,
    /// The prompt up to the object.
    pub prompt: Vec<u32>,
    /// The object's first token.
    pub token: u32,
    /// Applicability, mean and least log-probability of the object's tokens, share of templates that
    /// agree, log-odds of the relation's accuracy.
    pub signals: [f64; PROBE_SIGNALS],
}

struct Answer {
    target: String,
    template: usize,
    prompt: Vec<u32>,
    token: u32,
    mean: f64,
    least: f64,
}

/// Asks all questions, many at a time; `None` where the model says nothing that could be an object.
///
/// # Errors
/// As [`Prober::complete`].
pub fn gather(
    prober: &mut Prober<'_>,
    relations: &[RelationRecord],
    questions: &[Question<'_>],
) -> Result<Vec<Option<Evidence>>, Failure> {
    let mut prompts = Vec::new();
    let mut of = Vec::new();
    let mut tokens_max = 1;
    for (index, question) in questions.iter().enumerate() {
        let Some(relation) = relations.get(question.relation) else { continue };
        tokens_max = tokens_max.max(relation.object_tokens_max + TOKENS_BEYOND);
        for (template, record) in relation.templates.iter().enumerate() {
            if let Some(tokens) = prober.tokens(&fill(&record.text, question.entity))? {
                prompts.push(tokens);
                of.push((index, template));
            }
        }
    }
    let completions = prober.complete(&prompts, tokens_max as usize)?;
    let mut answers: Vec<Vec<Answer>> = questions.iter().map(|_| Vec::new()).collect();
    for ((&(index, template), prompt), completion) in of.iter().zip(&prompts).zip(&completions) {
        let relation = &relations[questions[index].relation];
        answers[index].extend(answer(prober, relation, template, prompt, completion)?);
    }
    let judged = questions
        .iter()
        .zip(answers)
        .map(|(question, answers)| judge(question, relations.get(question.relation)?, answers));
    Ok(judged.collect())
}

/// What one template's completion says.
fn answer(
    prober: &Prober<'_>,
    relation: &RelationRecord,
    template: usize,
    prompt: &[u32],
    completion: &Completion,
) -> Result<Option<Answer>, Failure> {
    let Completion { tokens, log_probabilities } = completion;
    let text = prober.continuation(prompt, tokens)?;
    let leads = &relation.templates[template].leads;
    let range = object_range(&text, leads, &relation.followers, relation.initials);
    let Some(range) = range.filter(|range| is_storable(&text[range.clone()])) else {
        return Ok(None);
    };
    // The tokens whose text the object is.
    let (mut first, mut end) = (None, tokens.len());
    for count in 1..=tokens.len() {
        let length = prober.continuation(prompt, &tokens[..count])?.len();
        if first.is_none() && length > range.start {
            first = Some(count - 1);
        }
        if length >= range.end {
            end = count;
            break;
        }
    }
    let Some(first) = first.filter(|&first| first < end) else { return Ok(None) };
    let object = &log_probabilities[first..end];
    Ok(Some(Answer {
        target: text[range].to_owned(),
        template,
        prompt: [prompt, &tokens[..first]].concat(),
        token: tokens[first],
        mean: (object.iter().sum::<f64>() / object.len() as f64).max(LOG_PROBABILITY_MIN),
        least: object.iter().copied().fold(0.0, f64::min).max(LOG_PROBABILITY_MIN),
    }))
}

/// Chooses among the answers of a question's templates.
fn judge(
    question: &Question<'_>,
    relation: &RelationRecord,
    answers: Vec<Answer>,
) -> Option<Evidence> {
    let templates = relation.templates.len();
    let weight = |answer: &Answer| {
        answer.mean.exp() * relation.templates[answer.template].accuracy.max(0.01)
    };
    let total = |target: &str| -> f64 {
        answers.iter().filter(|other| is_same(&other.target, target)).map(weight).sum()
    };
    let best = answers.iter().max_by(|a, b| {
        total(&a.target)
            .total_cmp(&total(&b.target))
            .then(weight(a).total_cmp(&weight(b)))
            .then(b.template.cmp(&a.template))
    })?;
    if is_same(&best.target, question.entity) && templates > 1 {
        // A name that repeats itself is an answer only where all templates say so.
        let agreeing = answers.iter().filter(|other| is_same(&other.target, &best.target)).count();
        if agreeing < templates {
            return None;
        }
    }
    let agreeing = answers.iter().filter(|other| is_same(&other.target, &best.target)).count();
    let accuracy = relation.accuracy.clamp(0.02, 0.98);
    Some(Evidence {
        relation: question.relation,
        target: best.target.clone(),
        prompt: best.prompt.clone(),
        token: best.token,
        signals: [
            f64::from(question.applicability).clamp(-0.5, 1.5),
            best.mean,
            best.least,
            // One template cannot agree with itself.
            (agreeing as f64 + 0.5) / (templates as f64 + 1.0),
            (accuracy / (1.0 - accuracy)).ln(),
        ],
    })
}
