//! What a model answers under edits: whether a prompt is followed by an expected text, and how probable that is.
//!
//! Many questions share passes, each under edits of its own; the answers are, bit for bit, those that INFER and
//! greedy generation give under the same edits (docs/adr/0008).

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::learn::log_probability;
use larql_compute::model::{
    Decoder, DecoderOptions, DenseFfn, KvCache, LogitsWanted, Precision, Segment,
};
use larql_compute::sample::greedy;

use super::applied::Applied;
use crate::failure::Failure;
use crate::inference::{self, check_logits, check_tokens, prompt_tokens};
use crate::mounts::Model;

/// Questions that share a pass.
const ASKED_AT_ONCE: usize = 16;
/// Tokens of an expected text at most.
pub const EXPECTED_TOKENS_MAX: usize = 64;

/// A prompt and what should follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    prompt: Vec<u32>,
    /// The expected tokens, after a space and without; none asks for whatever is likeliest.
    ways: Vec<Vec<u32>>,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The likeliest tokens, as far as they are the expected ones and one further; of a fact that is retrieved
    /// instead, all.
    pub tokens: Vec<u32>,
    /// Whether all of them are the expected ones.
    pub is_expected: bool,
    /// The probability of everything that was expected; of the likeliest token where nothing was.
    pub probability: f64,
}

impl Answer {
    /// The tokens as text.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn text(&self, model: &Model) -> Result<String, Failure> {
        Ok(model.tokenizer()?.decode(&self.tokens, false)?.trim().to_owned())
    }
}

impl Question {
    /// A prompt, and the text that should follow, as its own word or right behind.
    ///
    /// # Errors
    /// `EMPTY_TEXT` where either has no token; `LIMIT` for an expected text of too many tokens, or both for too
    /// many for the model.
    pub fn new(model: &Model, prompt: &str, expected: Option<&str>) -> Result<Self, Failure> {
        let prompt = prompt_tokens(model, prompt)?;
        let mut ways: Vec<Vec<u32>> = Vec::new();
        if let Some(expected) = expected {
            let expected = expected.trim();
            // Of a tokenizer that marks beginnings, only what stands after something else counts.
            let before = encoded(model, "a")?;
            for text in [format!("a {expected}"), format!("a{expected}")] {
                let whole = encoded(model, &text)?;
                if let Some(way) = whole.strip_prefix(&before[..])
                    && !way.is_empty()
                    && !expected.is_empty()
                    && ways.iter().all(|known| known != way)
                {
                    ways.push(way.to_vec());
                }
            }
            let longest = ways.iter().map(Vec::len).max().unwrap_or(0);
            if longest == 0 {
                let message = format!("{expected:?} has no token in the vocabulary");
                return Err(
                    Failure::new(crate::failure::code::EMPTY_TEXT, message).hint("write a word")
                );
            }
            if longest > EXPECTED_TOKENS_MAX {
                let message = format!(
                    "the answer has {longest} tokens, and at most {EXPECTED_TOKENS_MAX} are compared"
                );
                return Err(Failure::new(crate::failure::code::LIMIT, message)
                    .hint("expect the beginning of it"));
            }
            check_tokens(model, &prompt, longest)?;
        }
        Ok(Self { prompt, ways })
    }

    /// The same prompt, and tokens that should follow.
    #[must_use]
    pub fn followed_by(self, expected: Vec<u32>) -> Self {
        Self { ways: vec![expected], ..self }
    }

    /// A prompt of tokens, and tokens that should follow.
    pub fn of_tokens(prompt: Vec<u32>, expected: Vec<u32>) -> Self {
        Self { prompt, ways: vec![expected] }
    }
}

/// A text's tokens without those that end it.
fn encoded(model: &Model, text: &str) -> Result<Vec<u32>, Failure> {
    let mut tokens = model.tokenizer()?.encode(text, true)?;
    let ends = model.end_tokens()?;
    while tokens.len() > 1 && tokens.last().is_some_and(|last| ends.contains(last)) {
        tokens.pop();
    }
    Ok(tokens)
}

/// Asks questions, each under edits of its own.
///
/// # Errors
/// As passes of the model; when cancelled.
pub fn ask(
    model: &Model,
    asked: &[(&Question, &Applied)],
    pool: &Pool,
    cancel: &Cancel,
) -> Result<Vec<Answer>, Failure> {
    model.require_inference()?;
    let mut answers = Vec::with_capacity(asked.len());
    let options = DecoderOptions { precision: Precision::Serving, ffn: &DenseFfn };
    let mut decoder = Decoder::new(model.architecture(), model, pool, options)?;
    for some in asked.chunks(ASKED_AT_ONCE) {
        cancel.check()?;
        answers.extend(ask_together(model, &mut decoder, some, cancel)?);
    }
    Ok(answers)
}

/// A question while it is asked.
struct Asking<'q> {
    question: &'q Question,
    edits: &'q Applied,
    cache: KvCache,
    /// The way that is followed, once the first token said which is likelier.
    way: &'q [u32],
    /// What a retrieved fact says.
    retrieved: Vec<u32>,
    answer: Answer,
}

impl<'q> Asking<'q> {
    fn new(model: &Model, question: &'q Question, edits: &'q Applied) -> Self {
        let longest = question.ways.iter().map(Vec::len).max().unwrap_or(1);
        let cache = inference::cache(model, Precision::Serving, question.prompt.len() + longest);
        let cache = cache.with_overlay(edits.overlay.clone());
        let answer = Answer { tokens: Vec::new(), is_expected: true, probability: 1.0 };
        Self { question, edits, cache, way: &[], retrieved: Vec::new(), answer }
    }

    /// What is read in a step; `None` when everything was.
    fn feed(&self, step: usize) -> Option<&'q [u32]> {
        match step {
            0 => Some(&self.question.prompt),
            _ if step < self.way.len() => Some(&self.way[step - 1..step]),
            _ => None,
        }
    }

    /// Looks at what follows after a step.
    fn look(&mut self, step: usize, logits: &[f32]) {
        let probability = |token: u32| log_probability(logits, token as usize).exp();
        let likeliest = greedy(logits).unwrap_or_default();
        if step == 0 {
            let likelier = |a: &&Vec<u32>, b: &&Vec<u32>| {
                probability(a[0]).total_cmp(&probability(b[0])).then(b.len().cmp(&a.len()))
            };
            match self.question.ways.iter().max_by(likelier) {
                Some(way) => self.way = way,
                None => {
                    self.answer.tokens.push(likeliest);
                    self.answer.probability = probability(likeliest);
                    return;
                }
            }
        }
        self.answer.probability *= probability(self.way[step]);
        if self.answer.is_expected {
            self.answer.is_expected = likeliest == self.way[step];
            match self.retrieved.get(step..) {
                // What is retrieved is written to its end.
                Some(rest) if !self.answer.is_expected && rest.first() == Some(&likeliest) => {
                    self.answer.tokens.extend_from_slice(rest);
                }
                _ => self.answer.tokens.push(likeliest),
            }
        }
    }
}

fn ask_together(
    model: &Model,
    decoder: &mut Decoder<'_>,
    some: &[(&Question, &Applied)],
    cancel: &Cancel,
) -> Result<Vec<Answer>, Failure> {
    let mut all: Vec<Asking<'_>> =
        some.iter().map(|(question, edits)| Asking::new(model, question, edits)).collect();
    for step in 0..=EXPECTED_TOKENS_MAX {
        let mut active = Vec::with_capacity(all.len());
        let mut segments: Vec<Segment<'_>> = Vec::with_capacity(all.len());
        for (index, asking) in all.iter_mut().enumerate() {
            if let Some(tokens) = asking.feed(step) {
                active.push(index);
                segments.push(Segment {
                    tokens,
                    cache: &mut asking.cache,
                    logits: LogitsWanted::Last,
                });
            }
        }
        if active.is_empty() {
            break;
        }
        decoder.forward(&mut segments, None, cancel)?;
        drop(segments);
        for (segment, index) in active.into_iter().enumerate() {
            let asking = &mut all[index];
            let mut logits = decoder.segment_logits(segment).to_vec();
            check_logits(model, &logits)?;
            let matches = decoder.segment_matches(segment);
            if step == 0 {
                let matches = matches.last().map_or(&[][..], Vec::as_slice);
                let found = asking.edits.retrieved(model, &asking.question.prompt, matches)?;
                asking.retrieved = found.map_or(Vec::new(), |knn| knn.set.target_ids.clone());
            }
            // A retrieved answer is written to its end as long as it is what is expected.
            if let Some(&token) = asking.retrieved.get(step)
                && asking.retrieved[..step] == asking.way[..step]
            {
                larql_compute::model::retrieval::force(&mut logits, token);
            }
            asking.look(step, &logits);
        }
    }
    Ok(all.into_iter().map(|asking| asking.answer).collect())
}
