//! Whether facts are answered, by one model and by another: what became of edits in files.
//!
//! A fact counts as answered where each token of its target is the likeliest after the plainest prompt of the
//! fact and the tokens before it. Drift is what a text that has nothing to do with edits takes more, in bits a
//! token.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::learn::log_probability;
use larql_compute::model::{
    Decoder, DecoderOptions, DenseFfn, KvCache, KvPages, KvType, LogitsWanted, Precision, Segment,
    retrieval,
};
use larql_compute::sample::greedy;
use larql_storage::overlay::{Fact, Overlay};

use super::applied::Applied;
use super::prompts::Prompter;
use super::text::HELD_OUT;
use crate::failure::{Failure, code};
use crate::mounts::Model;
use crate::text::counted;

/// Prompts that are read together.
const PROMPTS_AT_ONCE: usize = 8;
/// Tokens of the text that are read.
const TEXT_TOKENS: usize = 256;

/// A fact as it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The fact.
    pub fact: Fact,
    /// The tokens of its plainest prompt.
    prompt: Vec<u32>,
    /// What must follow.
    target: Vec<u32>,
}

/// What a model is asked: facts, and a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Exam {
    /// The facts.
    pub questions: Vec<Question>,
    /// Facts that make no question, and why: nothing is known of whether they are answered.
    pub unasked: Vec<(Fact, String)>,
    text: Vec<u32>,
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// Whether each question was answered as its fact says.
    pub right: Vec<bool>,
    /// The probability of each answer's first token.
    pub probabilities: Vec<f64>,
    /// What a token of the text takes, in bits.
    pub bits_per_token: f64,
}

/// Every fact that edits state, once, in order.
pub fn facts_of(stored: &Overlay) -> Vec<Fact> {
    let mut facts: Vec<Fact> = stored.statements().filter_map(|one| one.fact()).collect();
    facts.sort();
    facts.dedup();
    facts
}

impl Exam {
    /// What is to be told of facts that are not asked; `None` where all are.
    pub fn told_unasked(&self) -> Option<(String, String)> {
        let (fact, why) = self.unasked.first()?;
        let message = format!(
            "no question is known for {}: whether they are answered is not known",
            counted(self.unasked.len(), "fact")
        );
        let Fact { entity, relation, .. } = fact;
        Some((message, format!("the first is the {relation:?} of {entity:?}: {why}")))
    }

    /// Questions after facts, as a model's tokenizer and labels make them.
    ///
    /// # Errors
    /// What is wrong with the model, and not with a fact.
    pub fn new(model: &Model, facts: Vec<Fact>) -> Result<Self, Failure> {
        let knowledge = model.knowledge();
        let prompter = Prompter::new(model, knowledge.as_deref());
        let (mut questions, mut unasked) = (Vec::with_capacity(facts.len()), Vec::new());
        for fact in facts {
            let asked = prompter
                .of(&fact.entity, &fact.relation)
                .and_then(|prompts| Ok((prompts, prompter.answer_tokens(&fact.target)?)));
            let (prompts, target) = match asked {
                Ok(asked) => asked,
                Err(failure)
                    if [code::INTERNAL, code::DAMAGED, code::CANCELLED].contains(&failure.code) =>
                {
                    return Err(failure);
                }
                Err(failure) => {
                    unasked.push((fact, failure.message));
                    continue;
                }
            };
            match prompts.fact.into_iter().next() {
                Some(prompt) => questions.push(Question { fact, prompt, target }),
                None => unasked.push((fact, "nothing asks for it".to_owned())),
            }
        }
        let mut text = model.tokenizer()?.encode(HELD_OUT, true)?;
        text.truncate(TEXT_TOKENS);
        Ok(Self { questions, unasked, text })
    }
}

/// Asks a model under edits.
///
/// # Errors
/// As passes of the model.
pub fn ask(
    model: &Model,
    edits: &Applied,
    exam: &Exam,
    pool: &Pool,
    cancel: &Cancel,
) -> Result<Answers, Failure> {
    let options = DecoderOptions { precision: Precision::Serving, ffn: &DenseFfn };
    let architecture = model.architecture();
    let mut decoder = Decoder::new(architecture, model, pool, options)?;
    let whole = |question: &Question| [&question.prompt[..], &question.target].concat();
    let mut asked: Vec<(usize, Vec<u32>)> =
        exam.questions.iter().map(|one| (one.prompt.len(), whole(one))).collect();
    asked.push((1, exam.text.clone()));
    let mut right = Vec::with_capacity(asked.len());
    let mut probabilities = Vec::with_capacity(asked.len());
    let mut bits = 0.0;
    for batch in asked.chunks(PROMPTS_AT_ONCE) {
        let longest = batch.iter().map(|(_, tokens)| tokens.len()).max().unwrap_or(1);
        let pages = KvPages::for_caches(architecture, KvType::default(), batch.len(), longest);
        let mut caches: Vec<KvCache> = batch
            .iter()
            .map(|(_, tokens)| pages.cache(tokens.len()).with_overlay(edits.overlay.clone()))
            .collect();
        let mut segments: Vec<Segment<'_>> = batch
            .iter()
            .zip(&mut caches)
            .map(|((_, tokens), cache)| Segment { tokens, cache, logits: LogitsWanted::All })
            .collect();
        decoder.forward(&mut segments, None, cancel)?;
        for (segment, (prompt, tokens)) in batch.iter().enumerate() {
            let logits = decoder.segment_logits(segment).chunks_exact(architecture.vocabulary_size);
            let found = decoder.segment_matches(segment);
            let (mut answered, mut nats, mut first) = (true, 0.0, None);
            // What is left of an answer that is retrieved: it is written to its end.
            let mut answer: &[u32] = &[];
            for (row, logits) in logits.enumerate().take(tokens.len() - 1).skip(prompt - 1) {
                let matches = found.get(row).map_or(&[][..], Vec::as_slice);
                let mut logits = logits.to_vec();
                let next = tokens[row + 1];
                if answer.is_empty() {
                    let found = edits.retrieved(model, &tokens[..=row], matches)?;
                    answer = found.map_or(&[], |knn| &knn.set.target_ids);
                }
                if let Some((&token, rest)) = answer.split_first() {
                    retrieval::force(&mut logits, token);
                    answer = if token == next { rest } else { &[] };
                }
                answered &= greedy(&logits).ok() == Some(next);
                let likely = log_probability(&logits, next as usize);
                first.get_or_insert(likely.exp());
                nats -= likely;
            }
            right.push(answered);
            probabilities.push(first.unwrap_or_default());
            bits = nats / std::f64::consts::LN_2 / (tokens.len().max(2) - 1) as f64;
        }
    }
    // The text was the last.
    right.pop();
    probabilities.pop();
    Ok(Answers { right, probabilities, bits_per_token: bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_that_make_no_question_are_counted_and_the_first_is_told_with_its_reason() {
        let mut exam = Exam { questions: Vec::new(), unasked: Vec::new(), text: Vec::new() };
        assert_eq!(exam.told_unasked(), None);
        for entity in ["Chad", "Mali"] {
            let (entity, relation, target) = (entity.into(), "capital".into(), String::new());
            exam.unasked.push((Fact { entity, relation, target }, "it has no token".into()));
        }
        let (message, hint) = exam.told_unasked().expect("there are two");
        assert!(message.contains("for 2 facts:"), "{message}");
        assert_eq!(hint, r#"the first is the "capital" of "Chad": it has no token"#);
    }
}
