//! Continuous batching: generations and inferences of one model advance together, one pass over the
//! weights for all of them.
//!
//! Each model in use has a runner: a thread with a decoder, pages of keys and values, and an index of
//! the prefixes that they stand for. A request waits in the model's queue (`queue`, bounded, fair
//! between principals), starts when there is a place and there are pages (`admission`), and takes part
//! in every step (`schedule`) until it is done, is cancelled, or its client is gone. Requests come and
//! go between steps; nobody waits for somebody else's end.
//!
//! Promises: a request's tokens are those that it would get alone, whoever shares its steps and however
//! often it gave way, because a row of the serving pass depends on its own sequence only; a cancel or
//! a deadline counts at the next step, and within a pass that nobody else shares; a client that does
//! not read pauses its own sequence and no other; prefixes are shared within one principal and never
//! across; a request that could never fit is refused before any work; a panic fails the requests that
//! took part in the step and no other; memory for keys and values is bounded for each model.
//!
//! Elsewhere: what a generation does with logits (`generation`), the pass (`compute::model::Decoder`),
//! pages (`compute::model::KvPages`), streams to clients (`server::generate`).

mod admission;
mod job;
mod prefix;
mod queue;
mod runner;
mod schedule;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{DenseFfn, Ffn, KvPages, KvType, PAGE_POSITIONS};
use parking_lot::Mutex;

pub use job::{Event, Events, Inferred};

use crate::editing::applied::Applied;
use crate::failure::{Failure, code};
use crate::generation::{self, Sequence};
use crate::mounts::Model;
use crate::session::Principal;
use job::{Job, Task};
use queue::Pushed;
use runner::{Runner, Shared};

/// The limits of a batch; configuration has them under the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How keys and values are kept.
    pub kv_type: KvType,
    /// Memory for keys and values of one model.
    pub kv_cache_bytes: usize,
    /// Sequences of one model that advance together.
    pub sequences_max: usize,
    /// Requests that may wait for one model.
    pub queue_max: usize,
    /// Tokens of prompts that one step reads.
    pub prefill_tokens_max: usize,
}

/// What a model's runner is doing and has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The model's path.
    pub model: String,
    /// Sequences that have a place.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests whose clients have not read what there is.
    pub paused: usize,
    /// Pages of keys and values in memory that hold something; those of draft models, which are of
    /// another size, as so many as they take the place of.
    pub pages_used: usize,
    /// Of those, pages that only the index of prefixes holds: they go when others are needed.
    pub pages_reusable: usize,
    /// Pages that there may be.
    pub pages_max: usize,
    /// Passes over the weights.
    pub steps: u64,
    /// Weights that those read, in bytes.
    pub bytes_touched: u64,
    /// Prompt tokens computed, those of sequences that gave way and went on included.
    pub tokens_prefilled: u64,
    /// Prompt tokens whose pages were there already.
    pub tokens_reused: u64,
    /// Tokens decoded: rows of sequences that had begun to answer.
    pub tokens_decoded: u64,
    /// Sequences that gave way to others.
    pub preemptions: u64,
}

/// The runners of all models.
#[derive(Debug)]
pub struct Batching {
    limits: Limits,
    pool: Arc<Pool>,
    /// Makes what computes the feed-forward networks of a runner's passes.
    network: Network,
    runners: Arc<Mutex<Runners>>,
    draining: AtomicBool,
}

/// Makes a feed-forward network's way to compute.
type Network = fn() -> Box<dyn Ffn>;

/// Runners by the address of their model, which they keep alive.
type Runners = HashMap<usize, Arc<Shared>>;

impl Batching {
    /// No runner yet.
    pub fn new(limits: Limits, pool: Arc<Pool>) -> Self {
        Self::with_network(limits, pool, || Box::new(DenseFfn))
    }

    fn with_network(limits: Limits, pool: Arc<Pool>, network: Network) -> Self {
        let runners = Arc::default();
        Self { limits, pool, network, runners, draining: AtomicBool::new(false) }
    }

    /// Begins a generation; its events, the failure that ends it included, go to `events`. `held` is
    /// dropped when the request is over.
    ///
    /// # Errors
    /// What is wrong with the request itself, as [`Sequence::new`]; `LIMIT` when it could never fit,
    /// `OVERLOADED` when too many wait, `SHUTTING_DOWN`.
    pub fn generate(
        &self,
        model: &Arc<Model>,
        principal: &Principal,
        request: &generation::Request,
        cancel: &Cancel,
        events: Events,
        held: Box<dyn Any + Send>,
    ) -> Result<(), Failure> {
        model.require_inference()?;
        let mut sequence = Box::new(Sequence::new(model, request)?);
        sequence.limit_positions(self.positions_max(model, request.draft.as_deref()));
        let proposer = match &request.speculation {
            Some(speculation) => Some(speculation.proposer(&sequence, request.draft.as_ref())?),
            None => None,
        };
        let task = Task::Generate { sequence, proposer, events };
        self.submit(model, Job::new(principal.clone(), cancel.clone(), task, held))
    }

    /// Reads a prompt under edits and waits for the logits of its last token.
    ///
    /// # Errors
    /// As [`Batching::generate`]; `CANCELLED`; `DAMAGED` when the logits are no numbers.
    pub fn infer(
        &self,
        model: &Arc<Model>,
        principal: &Principal,
        tokens: Vec<u32>,
        edits: &Arc<Applied>,
        cancel: &Cancel,
    ) -> Result<Inferred, Failure> {
        model.require_inference()?;
        let (answer, answered) = mpsc::sync_channel(1);
        let task = Task::Infer { tokens, edits: edits.clone(), answer };
        self.submit(model, Job::new(principal.clone(), cancel.clone(), task, Box::new(())))?;
        let lost = |_| Failure::new(code::INTERNAL, "the model's runner met a defect of larqld");
        answered.recv().map_err(lost)?
    }

    /// What every runner is doing.
    pub fn states(&self) -> Vec<State> {
        let mut states: Vec<State> =
            self.runners.lock().values().map(|shared| shared.state()).collect();
        states.sort_by(|a, b| a.model.cmp(&b.model));
        states
    }

    /// The daemon is about to stop: what runs may end, generations that wait are refused.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        for shared in self.runners.lock().values() {
            shared.drain();
        }
    }

    /// Nobody will ask for this model any more: its runner ends when what runs has ended.
    pub fn retire(&self, model: &Arc<Model>) {
        if let Some(shared) = self.runners.lock().get(&address(model)) {
            shared.retire();
        }
    }

    /// Pages for the model's caches, as many as its share of memory allows.
    fn pages(&self, model: &Model) -> KvPages {
        KvPages::new(model.architecture(), self.limits.kv_type, self.limits.kv_cache_bytes)
    }

    /// The longest sequence for which there are pages, those of a draft model that reads along included.
    fn positions_max(&self, model: &Model, draft: Option<&Model>) -> usize {
        let pages = self.pages(model);
        let (mut both, mut beside) = (pages.page_bytes(), 0);
        if let Some(draft) = draft {
            let own = pages.beside(draft.architecture());
            let whole = own.pages_for(draft.architecture().context_max);
            both += own.page_bytes();
            // Beyond its own context a draft model reads no further.
            if pages.bytes_max() / both.max(1) > whole {
                (both, beside) = (pages.page_bytes(), whole * own.page_bytes());
            }
        }
        let pages = (pages.bytes_max() - beside) / both.max(1);
        pages.saturating_mul(PAGE_POSITIONS)
    }

    fn submit(&self, model: &Arc<Model>, mut job: Job) -> Result<(), Failure> {
        let needed = schedule::pages(job.positions_max(), PAGE_POSITIONS);
        let mut runners = self.runners.lock();
        if self.draining.load(Ordering::Acquire) && job.is_new_generation() {
            return Err(shutting_down());
        }
        let shared = match runners.get(&address(model)) {
            Some(shared) => shared.clone(),
            None => {
                let shared = Arc::new(Shared::new(self.limits.queue_max, self.pages(model)));
                let (pool, registry) = (&self.pool, &self.runners);
                Runner::start(model.clone(), pool, self.network, self.limits, &shared, registry)?;
                runners.insert(address(model), shared.clone());
                shared
            }
        };
        job.keep_guesses_in(shared.pages());
        self.check_room(shared.pages(), needed, &job)?;
        match shared.push(job) {
            Pushed::Queued | Pushed::Displaced(_) => Ok(()),
            Pushed::Refused(_) => Err(overloaded(self.limits.queue_max)),
        }
    }

    /// Refuses a request that could not go on even alone.
    fn check_room(&self, pages: &KvPages, needed: usize, job: &Job) -> Result<(), Failure> {
        let (positions, pages_max) = (job.positions_max(), pages.pages_max());
        let guesses = job.guess_memory().bytes_max;
        let limit = self.limits.kv_cache_bytes >> 20;
        if needed > pages_max {
            let message = format!(
                "{positions} positions take {needed} pages of keys and values, and there may be \
                 {pages_max}"
            );
            return Err(Failure::new(code::LIMIT, message)
                .hint(format!("ask for less, or raise kv_cache_mb, which is {limit}")));
        }
        let own = needed * pages.page_bytes();
        if guesses > pages.bytes_max() - own {
            let mebibytes = |bytes: usize| bytes.div_ceil(1 << 20);
            let message = format!(
                "{positions} positions take {} MiB of keys and values, those of the draft model {} \
                 MiB, and there may be {limit}",
                mebibytes(own),
                mebibytes(guesses)
            );
            return Err(Failure::new(code::LIMIT, message).hint(format!(
                "ask for less, leave out the draft model, or raise kv_cache_mb, which is {limit}"
            )));
        }
        Ok(())
    }
}

/// A model's identity while it lives: its runner keeps it alive.
fn address(model: &Arc<Model>) -> usize {
    Arc::as_ptr(model) as usize
}

fn overloaded(queue_max: usize) -> Failure {
    Failure::new(code::OVERLOADED, format!("{queue_max} requests wait for this model already"))
        .hint("try again later, or raise generate_queue_max")
}

fn shutting_down() -> Failure {
    Failure::new(code::SHUTTING_DOWN, "the daemon is shutting down")
        .hint("ask again when it is back")
}
