//! One request in the batch: what it feeds, what it does with logits, and how its answer goes out.
//!
//! A job never waits for its client. What the client's channel has no room for is kept here, and the
//! job is paused until it is gone.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{KvPages, LogitsWanted, Match, PassMeters};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::editing::applied::Applied;
use crate::failure::Failure;
use crate::generation::speculation::{Memory, Proposer};
use crate::generation::{Finished, Sequence, TokenEvent};
use crate::inference;
use crate::mounts::Model;
use crate::session::Principal;

/// What a generation tells its client.
#[derive(Debug)]
pub enum Event {
    /// A token, or text that was left at the end.
    Token(TokenEvent),
    /// The end.
    Done {
        /// How it ended.
        finished: Finished,
        /// The weights that made the tokens.
        base_hash: String,
        /// What the passes with its tokens took; others may have shared them.
        meters: PassMeters,
    },
}

/// Where a generation's events go: as many wait there as the client may be behind.
pub type Events = mpsc::Sender<Result<Event, Failure>>;

/// What a prompt gave.
#[derive(Debug)]
pub struct Inferred {
    /// `[vocabulary]`, of the last token.
    pub logits: Vec<f32>,
    /// The token that an edit retrieved, whose logit was made the largest.
    pub retrieved: Option<u32>,
    /// What the passes with this prompt took; others may have shared them.
    pub meters: PassMeters,
}

/// What is asked for.
#[derive(Debug)]
pub(super) enum Task {
    /// Tokens, one after the other.
    Generate {
        /// The generation.
        sequence: Box<Sequence>,
        /// Who guesses for it.
        proposer: Option<Box<dyn Proposer>>,
        /// Where its events go.
        events: Events,
    },
    /// The logits of a prompt's last token.
    Infer {
        /// The prompt.
        tokens: Vec<u32>,
        /// The edits that it is read under.
        edits: Arc<Applied>,
        /// Where they go; has room for them.
        answer: SyncSender<Result<Inferred, Failure>>,
    },
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Job {
    /// Whose it is.
    pub(super) principal: Principal,
    /// Says when to stop.
    pub(super) cancel: Cancel,
    task: Task,
    /// What the client has no room for yet.
    unsent: VecDeque<Result<Event, Failure>>,
    over: bool,
    submitted: Instant,
    /// When the prompt was read.
    first: Option<Instant>,
    meters: PassMeters,
    /// Goes when the job goes: places and guards of the call.
    _held: Box<dyn Any + Send>,
}

/// What a job feeds next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    /// How many tokens.
    pub(super) tokens: usize,
    /// Whether they go together, and the logits of each are wanted.
    pub(super) decodes: bool,
}

impl Job {
    pub(super) fn new(
        principal: Principal,
        cancel: Cancel,
        task: Task,
        held: Box<dyn Any + Send>,
    ) -> Self {
        Self {
            principal,
            cancel,
            task,
            unsent: VecDeque::new(),
            over: false,
            submitted: Instant::now(),
            first: None,
            meters: PassMeters::default(),
            _held: held,
        }
    }

    /// The prompt and the tokens made so far.
    pub(super) fn tokens(&self) -> &[u32] {
        match &self.task {
            Task::Generate { sequence, .. } => sequence.tokens(),
            Task::Infer { tokens, .. } => tokens,
        }
    }

    /// The edits that it sees.
    pub(super) fn edits(&self) -> &Arc<Applied> {
        match &self.task {
            Task::Generate { sequence, .. } => sequence.edits(),
            Task::Infer { edits, .. } => edits,
        }
    }

    /// Positions that its cache may have to hold.
    pub(super) fn positions_max(&self) -> usize {
        match &self.task {
            Task::Generate { sequence, .. } => sequence.positions_max(),
            Task::Infer { tokens, .. } => tokens.len(),
        }
    }

    /// Whether nothing was computed for it yet that its client has heard of.
    pub(super) fn is_new_generation(&self) -> bool {
        matches!(&self.task, Task::Generate { .. }) && self.first.is_none()
    }

    /// What comes after `cached` positions.
    pub(super) fn next(&self, cached: usize) -> Next {
        let (known, feed) = match &self.task {
            Task::Generate { sequence, .. } if sequence.generated() > 0 => {
                (sequence.tokens().len() - 1, sequence.feed().len())
            }
            _ => (self.tokens().len(), 0),
        };
        match known.saturating_sub(cached) {
            0 => Next { tokens: feed, decodes: true },
            prompt => Next { tokens: prompt, decodes: false },
        }
    }

    /// `count` tokens after `cached` positions, and whose logits are wanted.
    pub(super) fn feed(&self, cached: usize, count: usize) -> (&[u32], LogitsWanted) {
        let next = self.next(cached);
        match &self.task {
            Task::Generate { sequence, .. } if next.decodes => (sequence.feed(), LogitsWanted::All),
            _ => {
                let wanted = match self.answers_after(cached, count) {
                    true => LogitsWanted::Last,
                    false => LogitsWanted::None,
                };
                (&self.tokens()[cached..cached + count], wanted)
            }
        }
    }

    /// Whether feeding `count` tokens after `cached` positions gives logits that the job waits for.
    pub(super) fn answers_after(&self, cached: usize, count: usize) -> bool {
        let next = self.next(cached);
        let resumes =
            matches!(&self.task, Task::Generate { sequence, .. } if sequence.generated() > 0);
        next.decodes || !resumes && count == next.tokens
    }

    fn proposer(&self) -> Option<&dyn Proposer> {
        match &self.task {
            Task::Generate { proposer, .. } => proposer.as_deref(),
            Task::Infer { .. } => None,
        }
    }

    /// Says in which memory guesses are kept.
    pub(super) fn keep_guesses_in(&mut self, pages: &KvPages) {
        if let Task::Generate { proposer: Some(proposer), .. } = &mut self.task {
            proposer.keep_in(pages);
        }
    }

    /// Memory that whoever guesses for it holds, and may come to hold.
    pub(super) fn guess_memory(&self) -> Memory {
        self.proposer().map(Proposer::memory).unwrap_or_default()
    }

    /// Bytes that whoever guesses for it takes to guess what comes next.
    pub(super) fn guess_bytes_needed(&self) -> usize {
        self.proposer().map_or(0, |proposer| proposer.bytes_needed(self.tokens().len()))
    }

    /// Gives back the memory of whoever guesses for it, until it goes on.
    pub(super) fn release_guesses(&mut self) {
        if let Task::Generate { proposer: Some(proposer), .. } = &mut self.task {
            proposer.release();
        }
    }

    /// Goes on without guesses.
    pub(super) fn stop_guessing(&mut self) {
        if let Task::Generate { proposer, .. } = &mut self.task {
            *proposer = None;
        }
    }

    /// Lets tokens be guessed that are verified with the next one.
    pub(super) fn propose(&mut self, pool: &Arc<Pool>) {
        let Task::Generate { sequence, proposer: Some(proposer), .. } = &mut self.task else {
            return;
        };
        if let Err(failure) = sequence.propose(&mut **proposer, pool, &self.cancel) {
            self.fail(failure);
        }
    }

    /// Counts what a pass with this job took.
    pub(super) fn touch(&mut self, meters: &PassMeters) {
        self.meters += meters;
    }

    /// Takes the logits of what was fed; returns how many of the tokens fed stay.
    pub(super) fn advance(
        &mut self,
        model: &Model,
        logits: &[f32],
        matches: &[Vec<Match>],
        fed: usize,
    ) -> usize {
        let read = self.first.is_none();
        if read && let Err(failure) = inference::check_logits(model, logits) {
            self.fail(failure);
            return fed;
        }
        let first = *self.first.get_or_insert_with(Instant::now);
        match &mut self.task {
            Task::Infer { tokens, edits, answer } => {
                let meters = std::mem::take(&mut self.meters);
                let mut logits = logits.to_vec();
                let matches = matches.last().map_or(&[][..], Vec::as_slice);
                let inferred = edits.force(model, tokens, matches, &mut logits);
                let inferred = inferred.map(|retrieved| Inferred { logits, retrieved, meters });
                let _ = answer.try_send(inferred);
                self.over = true;
                fed
            }
            Task::Generate { sequence, .. } => match sequence.advance(logits, matches) {
                Err(failure) => {
                    self.fail(failure);
                    fed
                }
                Ok(advance) => {
                    self.unsent
                        .extend(advance.events.into_iter().map(|event| Ok(Event::Token(event))));
                    if let Some(reason) = advance.finished {
                        let finished = Finished {
                            reason,
                            prompt_tokens: sequence.prompt().len(),
                            generated_tokens: sequence.generated(),
                            prefill: first - self.submitted,
                            decode: first.elapsed(),
                            acceptance: sequence.acceptance(),
                        };
                        let base_hash = model.base_hash().to_owned();
                        let meters = std::mem::take(&mut self.meters);
                        self.unsent.push_back(Ok(Event::Done { finished, base_hash, meters }));
                        self.over = true;
                    }
                    if read { fed } else { advance.kept }
                }
            },
        }
    }

    /// Ends the job with a failure, after what is still unsent.
    pub(super) fn fail(&mut self, failure: Failure) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.stop_guessing();
        match &self.task {
            Task::Infer { answer, .. } => {
                let _ = answer.try_send(Err(failure));
            }
            Task::Generate { .. } => self.unsent.push_back(Err(failure)),
        }
    }

    /// Sends what the client has room for. Whoever is gone is owed nothing more.
    pub(super) fn deliver(&mut self) {
        let Task::Generate { events, .. } = &self.task else { return };
        while let Some(event) = self.unsent.pop_front() {
            match events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.unsent.push_front(event);
                    return;
                }
                Err(TrySendError::Closed(_)) => {
                    self.unsent.clear();
                    self.over = true;
                }
            }
        }
    }

    /// Whether it waits for its client to read.
    pub(super) fn is_paused(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether nothing more is computed for it.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}
