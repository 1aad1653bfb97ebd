//! One generation without I/O: which tokens to feed next, and what to do with their logits.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{Match, retrieval};
use larql_compute::sample::{Sampler, log_probabilities};

use super::speculation::{Acceptance, Proposer};
use super::stop::StopFilter;
use super::{Prompt, Reason, Request, TOKENS_MAX};
use crate::editing::applied::Applied;
use crate::failure::Failure;
use crate::inference;
use crate::mounts::Model;
use crate::text::{Guide, TextStream};

/// A token that was made, or text that was left at the end.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenEvent {
    /// The token; `None` for text that became whole after the last one.
    pub id: Option<u32>,
    /// The whole characters that it completed; may be empty.
    pub text: String,
    /// How likely the token was, where the request asks for it.
    pub logprobs: Option<Logprobs>,
}

impl TokenEvent {
    /// Text without a token.
    pub(super) fn text(text: String) -> Self {
        Self { id: None, text, logprobs: None }
    }
}

/// How likely a token was, and what else was.
///
/// Natural logarithms of probabilities in the model's own distribution: the logits' softmax, before
/// bias, penalties, temperature, filters and constraint.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// The token's.
    pub chosen: f32,
    /// The most likely tokens', best first; the token itself may be among them.
    pub alternatives: Vec<Alternative>,
}

/// A token that was likely.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    /// The token.
    pub id: u32,
    /// What it stands for by itself.
    pub text: String,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}

/// What came of one step.
#[derive(Debug)]
pub struct Advance {
    /// How many of the tokens fed are now part of the sequence; the cache must forget the others.
    /// At least 1.
    pub kept: usize,
    /// What to give out, in order.
    pub events: Vec<TokenEvent>,
    /// Why it ended; while `None`, [`Sequence::feed`] says what to run next.
    pub finished: Option<Reason>,
}

/// One generation as a state machine: a driver runs the model, the sequence decides.
///
/// A driver reads [`Sequence::feed`], runs those tokens at the end of the sequence's cache, and hands
/// the logits to [`Sequence::advance`], until it says that the generation has ended:
///
/// 1. First `feed` is the prompt, in as many passes as the driver likes; only the last token's
///    logits are wanted.
/// 2. From then on it is the token made last and, with speculation, tokens that may follow it. The
///    logits of each are wanted. `kept` of them stay: the driver truncates its cache by the rest.
///
/// What is made depends on the logits and the request only, so that whatever else shares a pass
/// changes nothing.
#[derive(Debug)]
pub struct Sequence {
    model: Arc<Model>,
    /// The prompt and what was made.
    tokens: Vec<u32>,
    prompt: usize,
    /// The token made last and the proposals after it; empty before the first.
    feed: Vec<u32>,
    /// Tokens that may be made, by the request and by the context's room.
    most: usize,
    /// Why it ends when `most` are made.
    at_most: Reason,
    ends: Vec<u32>,
    sampler: Sampler,
    guide: Option<Guide>,
    logprobs: Option<usize>,
    edits: Arc<Applied>,
    /// What is left to write of an answer that was retrieved.
    answer: VecDeque<u32>,
    text: TextStream,
    stop: StopFilter,
    /// The most tokens to guess at a time, and how many to guess next.
    proposals_max: usize,
    proposals_next: usize,
    acceptance: Acceptance,
}

impl Sequence {
    /// Checks the request and turns its prompt into tokens.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for options that make no sense, `EMPTY_TEXT` for a prompt without tokens,
    /// `LIMIT` for one that is too long or a constraint that is too large, `MISSING_COMPONENT` where
    /// the model lacks what it takes.
    pub fn new(model: &Arc<Model>, request: &Request) -> Result<Self, Failure> {
        request.check()?;
        let tokens = prompt_tokens(model, &request.prompt)?;
        let vocabulary = model.architecture().vocabulary_size;
        let sampler = Sampler::new(request.sampler.clone(), &tokens, vocabulary)?;
        let guide = match &request.constraint {
            Some(constraint) => Some(model.guides()?.guide(constraint)?),
            None => None,
        };
        let proposals = request.speculation.as_ref().map_or(0, |speculation| speculation.reach());
        let room = model.architecture().context_max - tokens.len();
        let wanted = if request.tokens_max == 0 { TOKENS_MAX } else { request.tokens_max } as usize;
        Ok(Self {
            model: model.clone(),
            prompt: tokens.len(),
            feed: Vec::new(),
            most: room.min(wanted),
            at_most: if room < wanted { Reason::Context } else { Reason::Length },
            ends: model.end_tokens()?,
            sampler,
            guide,
            logprobs: request.logprobs,
            edits: request.edits.clone(),
            answer: VecDeque::new(),
            text: TextStream::new(&tokens),
            stop: StopFilter::new(request.stop.clone()),
            proposals_max: proposals,
            proposals_next: proposals,
            acceptance: Acceptance::default(),
            tokens,
        })
    }

    /// The model that it runs on.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The prompt's tokens, at least one.
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt]
    }

    /// The edits that it is made under.
    pub fn edits(&self) -> &Arc<Applied> {
        &self.edits
    }

    /// The prompt and the tokens made so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens made so far, the end token not counted.
    pub fn generated(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    /// The most positions that the sequence's cache will have to hold.
    pub fn positions_max(&self) -> usize {
        self.prompt + self.most
    }

    /// Makes no more than fits into so many positions: with less room than the context has, the
    /// generation ends as it does when the context is full. A number of tokens that was asked for
    /// stays as it is, to be refused where it does not fit.
    pub fn limit_positions(&mut self, positions: usize) {
        if self.at_most == Reason::Context && positions > self.prompt {
            self.most = self.most.min(positions - self.prompt);
        }
    }

    /// What to run next: the prompt, later the token made last and the proposals after it.
    pub fn feed(&self) -> &[u32] {
        if self.feed.is_empty() { self.prompt() } else { &self.feed }
    }

    /// How guesses fared so far.
    pub fn acceptance(&self) -> Acceptance {
        self.acceptance
    }

    /// Lets `proposer` guess what may follow, to be run and verified with the token made last; does
    /// nothing before the first token, or for a request without speculation.
    ///
    /// # Errors
    /// As [`Proposer::propose`].
    pub fn propose(
        &mut self,
        proposer: &mut dyn Proposer,
        pool: &Arc<Pool>,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        // The verified row behind the last guess makes a token too.
        let most = self.proposals_next.min((self.most - self.generated()).saturating_sub(1));
        if self.feed.len() != 1 || most == 0 {
            return Ok(());
        }
        let mut proposals = proposer.propose(&self.tokens, most, pool, cancel)?;
        proposals.truncate(most);
        let vocabulary = self.model.architecture().vocabulary_size;
        let known = proposals.iter().take_while(|&&token| (token as usize) < vocabulary).count();
        proposals.truncate(known);
        if let Some(guide) = &mut self.guide {
            proposals.truncate(guide.agrees(&proposals));
        }
        self.feed.extend(proposals);
        Ok(())
    }

    /// Takes the logits and chooses what follows.
    ///
    /// # Shapes
    /// `logits`: `[rows, vocabulary]`; after the prompt one row, that of its last token, and then a
    /// row for each token of [`Sequence::feed`]. `matches`: what keys of the edits found, row by row;
    /// empty where there are none.
    /// # Errors
    /// `DAMAGED` when the logits are no numbers; the generation cannot go on after an error.
    pub fn advance(&mut self, logits: &[f32], matches: &[Vec<Match>]) -> Result<Advance, Failure> {
        let vocabulary = self.model.architecture().vocabulary_size;
        assert_eq!(logits.len(), self.feed.len().max(1) * vocabulary, "a row for each token fed");
        let fed = std::mem::take(&mut self.feed);
        let mut advance = Advance { kept: 0, events: Vec::new(), finished: None };
        for (row, logits) in logits.chunks_exact(vocabulary).enumerate() {
            advance.kept = row + 1;
            let matches = matches.get(row).map_or(&[][..], Vec::as_slice);
            advance.finished = self.step(logits, matches, &mut advance.events)?;
            // A proposal that is not what was chosen takes everything after it along.
            if advance.finished.is_some() || fed.get(row + 1) != self.tokens.last() {
                break;
            }
        }
        self.count_proposals(fed.len().saturating_sub(1), advance.kept - 1);
        match advance.finished {
            Some(_) => self.release(&mut advance.events)?,
            None => self.feed.extend(self.tokens.last()),
        }
        Ok(advance)
    }

    /// Takes note of how guesses fared: right ones ask for more, a wrong one for fewer.
    fn count_proposals(&mut self, proposed: usize, accepted: usize) {
        if proposed == 0 {
            return;
        }
        self.acceptance.proposed += proposed;
        self.acceptance.accepted += accepted;
        let next = if accepted == proposed { 2 * proposed } else { accepted + 1 };
        self.proposals_next = next.min(self.proposals_max);
    }

    /// Chooses one token.
    fn step(
        &mut self,
        logits: &[f32],
        matches: &[Match],
        events: &mut Vec<TokenEvent>,
    ) -> Result<Option<Reason>, Failure> {
        if self.most == 0 {
            return Ok(Some(self.at_most));
        }
        let allowed = match &mut self.guide {
            Some(guide) => Some(guide.allowed()?),
            None => None,
        };
        if self.answer.is_empty()
            && let Some(knn) = self.edits.retrieved(&self.model, &self.tokens, matches)?
        {
            self.answer = knn.set.target_ids.iter().copied().collect();
        }
        let next = self.answer.pop_front();
        let logits: Cow<'_, [f32]> = match next {
            None => logits.into(),
            Some(next) => {
                let mut logits = logits.to_vec();
                retrieval::force(&mut logits, next);
                logits.into()
            }
        };
        let logits = &*logits;
        let token = self.sampler.sample(logits, allowed)?;
        // A constraint may forbid the answer.
        if next.is_some_and(|next| next != token) {
            self.answer.clear();
        }
        if self.ends.binary_search(&token).is_ok() {
            return Ok(Some(Reason::Stop));
        }
        self.tokens.push(token);
        let text = self.text.push(self.model.tokenizer()?, token)?;
        let logprobs = self.logprobs.map(|count| self.logprobs(logits, token, count));
        let event = TokenEvent { id: Some(token), text, logprobs: logprobs.transpose()? };
        if self.stop.push(event, events) {
            self.text.clear();
            return Ok(Some(Reason::Stop));
        }
        if let Some(guide) = &mut self.guide {
            guide.accept(token)?;
            if guide.is_finished()? {
                return Ok(Some(Reason::Stop));
            }
        }
        Ok((self.generated() == self.most).then_some(self.at_most))
    }

    fn logprobs(&self, logits: &[f32], token: u32, count: usize) -> Result<Logprobs, Failure> {
        let tokenizer = self.model.tokenizer()?;
        let (chosen, alternatives) = log_probabilities(logits, token, count);
        let named = alternatives.into_iter().map(|found| Alternative {
            id: found.token,
            text: tokenizer.decode(&[found.token], false).unwrap_or_default(),
            logprob: found.value,
        });
        Ok(Logprobs { chosen: chosen.value, alternatives: named.collect() })
    }

    /// Gives out what was held back, at the end.
    fn release(&mut self, events: &mut Vec<TokenEvent>) -> Result<(), Failure> {
        let rest = self.text.finish(self.model.tokenizer()?)?;
        if !rest.is_empty() && self.stop.push(TokenEvent::text(rest), events) {
            return Ok(());
        }
        self.stop.release(events);
        Ok(())
    }
}

/// The tokens of a prompt, or of a chat through the model's template.
fn prompt_tokens(model: &Model, prompt: &Prompt) -> Result<Vec<u32>, Failure> {
    let chat = match prompt {
        Prompt::Text(text) => return inference::prompt_tokens(model, text),
        Prompt::Chat(chat) => chat,
    };
    let rendered = model.chat_template()?.render(chat, true)?;
    // The template writes the model's markers itself.
    let tokens = model.tokenizer()?.encode(&rendered, false)?;
    inference::check_tokens(model, &tokens, 0)?;
    Ok(tokens)
}
