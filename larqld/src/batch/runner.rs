//! The thread that advances the requests of one model, step after step.
//!
//! It decides nothing by itself: `admission` says who starts, `schedule` what a step feeds, jobs what
//! becomes of logits. Here they meet the decoder, the pages and the clock.
//!
//! Locks are taken in the order registry, then queue, and neither is held while something computes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    DecodeError, Decoder, DecoderOptions, KvCache, KvPages, Match, PAGE_POSITIONS, PassMeters,
    Precision, Segment, SharedPage,
};
use parking_lot::{Condvar, Mutex};

use super::admission::{self, House, Running, Verdict};
use super::job::Job;
use super::prefix::{Namespace, Page, PrefixIndex};
use super::queue::{FairQueue, Pushed};
use super::schedule::{self, Candidate, Feed, Plan, pages};
use super::{Limits, Network, Runners, State, address, overloaded, shutting_down};
use crate::editing::applied::Identity;
use crate::failure::{Failure, code};
use crate::mounts::Model;
use crate::session::Principal;

/// How long a runner keeps its model and its prefixes when nobody asks.
const IDLE: Duration = Duration::from_secs(300);
/// How often clients that do not read are looked at while there is nothing else to do.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Page for SharedPage {
    fn is_shared(&self) -> bool {
        Self::is_shared(self)
    }
}

/// What a runner shares with those who ask.
#[derive(Debug)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    news: Condvar,
    pages: KvPages,
    queue_max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Inbox {
    waiting: FairQueue<Principal, Job>,
    /// Those who lost their places in the queue.
    displaced: Vec<Job>,
    draining: bool,
    retired: bool,
}

impl Shared {
    pub(super) fn new(queue_max: usize, pages: KvPages) -> Self {
        let inbox = Inbox {
            waiting: FairQueue::new(queue_max),
            displaced: Vec::new(),
            draining: false,
            retired: false,
        };
        Self {
            inbox: Mutex::new(inbox),
            news: Condvar::new(),
            pages,
            queue_max,
            state: Mutex::default(),
        }
    }

    /// The memory for keys and values.
    pub(super) fn pages(&self) -> &KvPages {
        &self.pages
    }

    pub(super) fn state(&self) -> State {
        let waiting = self.inbox.lock().waiting.len();
        State { waiting, ..self.state.lock().clone() }
    }

    /// Puts a job into the queue; who is displaced by it hears of that from the runner.
    pub(super) fn push(&self, job: Job) -> Pushed<()> {
        let mut inbox = self.inbox.lock();
        let principal = job.principal.clone();
        let pushed = match inbox.waiting.push(&principal, job) {
            Pushed::Queued => Pushed::Queued,
            Pushed::Refused(_) => Pushed::Refused(()),
            Pushed::Displaced(job) => {
                inbox.displaced.push(job);
                Pushed::Displaced(())
            }
        };
        self.news.notify_one();
        pushed
    }

    pub(super) fn drain(&self) {
        self.inbox.lock().draining = true;
        self.news.notify_one();
    }

    pub(super) fn retire(&self) {
        self.inbox.lock().retired = true;
        self.news.notify_one();
    }
}

/// A sequence that has a place and a cache.
struct Active {
    job: Job,
    cache: KvCache,
    /// The step in which it last got a quantum of its prompt.
    served: u64,
}

impl Active {
    fn candidate(&self) -> Candidate {
        let next = self.job.next(self.cache.len());
        Candidate {
            cached: self.cache.len(),
            tokens: next.tokens,
            decodes: next.decodes,
            paused: self.job.is_paused(),
            served: self.served,
        }
    }
}

/// A model at work on all who ask for it.
pub(super) struct Runner {
    model: Arc<Model>,
    pool: Arc<Pool>,
    network: Network,
    limits: Limits,
    shared: Arc<Shared>,
    registry: Arc<Mutex<Runners>>,
    prefixes: PrefixIndex<SharedPage>,
    /// Oldest first.
    running: Vec<Active>,
    /// Without a place: their clients have not read what there is.
    parked: Vec<Job>,
    state: State,
}

impl Runner {
    /// Starts the thread.
    ///
    /// # Errors
    /// `OVERLOADED` when the system refuses a thread.
    pub(super) fn start(
        model: Arc<Model>,
        pool: &Arc<Pool>,
        network: Network,
        limits: Limits,
        shared: &Arc<Shared>,
        registry: &Arc<Mutex<Runners>>,
    ) -> Result<(), Failure> {
        let state = State {
            model: model.path().display().to_string(),
            pages_max: shared.pages.pages_max(),
            ..State::default()
        };
        *shared.state.lock() = state.clone();
        let runner = Self {
            model,
            pool: pool.clone(),
            network,
            limits,
            shared: shared.clone(),
            registry: registry.clone(),
            prefixes: PrefixIndex::new(PAGE_POSITIONS),
            running: Vec::new(),
            parked: Vec::new(),
            state,
        };
        let thread = std::thread::Builder::new().name("batch".to_owned());
        let started = thread.spawn(move || runner.run());
        started.map(drop).map_err(|error| {
            Failure::new(code::OVERLOADED, format!("the system gives no thread: {error}"))
                .hint("end something else that runs")
        })
    }

    fn run(mut self) {
        tracing::debug!(model = self.state.model, "runner starts");
        let (model, pool, network) = (self.model.clone(), self.pool.clone(), (self.network)());
        loop {
            let options = DecoderOptions { precision: Precision::Serving, ffn: &*network };
            let decoder = Decoder::new(model.architecture(), &*model, &pool, options);
            let end = match decoder {
                Ok(mut decoder) => {
                    let serve = AssertUnwindSafe(|| self.serve(&mut decoder));
                    catch_unwind(serve).unwrap_or(End::Failed)
                }
                Err(error) => self.refuse_everybody(&error.into()),
            };
            match end {
                End::Over if self.close() => break,
                End::Over => {}
                End::Panicked => tracing::error!(model = self.state.model, "a pass panicked"),
                End::Failed => {
                    tracing::error!(model = self.state.model, "the runner panicked");
                    self.fail_everybody(&defect());
                    self.prefixes.clear();
                }
            }
        }
        tracing::debug!(?self.state, "runner ends");
    }

    /// Advances whoever is there, until nobody has asked for a while.
    fn serve(&mut self, decoder: &mut Decoder<'_>) -> End {
        loop {
            self.settle();
            self.admit();
            match self.step(decoder) {
                Stepped::Advanced => {}
                Stepped::Panicked => return End::Panicked,
                Stepped::Nobody => {
                    if self.wait() {
                        return End::Over;
                    }
                }
            }
        }
    }

    /// Answers whoever asks with the same failure, until nobody has asked for a while.
    fn refuse_everybody(&mut self, failure: &Failure) -> End {
        loop {
            self.fail_everybody(failure);
            self.settle();
            if self.wait() {
                return End::Over;
            }
        }
    }

    /// Lets go who is done, cancelled, late, gone or refused, and sends what can be sent.
    fn settle(&mut self) {
        let mut inbox = self.shared.inbox.lock();
        for mut job in std::mem::take(&mut inbox.displaced) {
            job.fail(overloaded(self.shared.queue_max));
            self.parked.push(job);
        }
        let draining = inbox.draining;
        let leaves = |job: &Job| job.cancel.check().is_err() || draining && job.is_new_generation();
        let leaving = inbox.waiting.take_if(leaves);
        drop(inbox);
        for mut job in leaving {
            job.fail(match job.cancel.check() {
                Err(cancelled) => cancelled.into(),
                Ok(()) => shutting_down(),
            });
            self.parked.push(job);
        }
        for active in &mut self.running {
            if let Err(cancelled) = active.job.cancel.check() {
                active.job.fail(cancelled.into());
            }
        }
        for index in (0..self.running.len()).rev() {
            if self.running[index].job.is_over() {
                let active = self.running.remove(index);
                let job = self.release(active);
                self.parked.push(job);
            }
        }
        // Who hears of an end should not find the ended among the running.
        self.tell();
        self.deliver();
        self.tell();
    }

    /// Sends what clients have room for. Who was parked for that goes on in turn.
    fn deliver(&mut self) {
        for active in &mut self.running {
            active.job.deliver();
        }
        for mut job in std::mem::take(&mut self.parked) {
            if let Err(cancelled) = job.cancel.check() {
                job.fail(cancelled.into());
            }
            job.deliver();
            if job.is_paused() {
                self.parked.push(job);
            } else if !job.is_over() {
                let principal = job.principal.clone();
                self.shared.inbox.lock().waiting.push_front(&principal, job);
            }
        }
        let paused = self.running.iter().filter(|active| active.job.is_paused()).count();
        self.state.paused = paused + self.parked.len();
    }

    /// Lets in who fits, in turn.
    fn admit(&mut self) {
        loop {
            let shared = self.shared.clone();
            let mut inbox = shared.inbox.lock();
            let Some((principal, job)) = inbox.waiting.peek() else { return };
            let namespace = namespace(&self.model, job);
            let tokens = job.tokens();
            // At least one token is left to be read: its logits say how to go on.
            let known = self.prefixes.find(&namespace, &tokens[..tokens.len() - 1]);
            let cache = self.shared.pages.cache_from(&known, job.positions_max());
            let cache = cache.with_overlay(job.edits().overlay.clone());
            drop(known);
            let needed =
                pages(tokens.len() + 1, PAGE_POSITIONS) - pages(cache.len(), PAGE_POSITIONS);
            let running: Vec<Running<'_, Principal>> = self
                .running
                .iter()
                .map(|active| Running {
                    principal: &active.job.principal,
                    paused: active.job.is_paused(),
                })
                .collect();
            let waiting: Vec<&Principal> = inbox.waiting.principals().collect();
            let house = House {
                running: &running,
                waiting: &waiting,
                places: self.limits.sequences_max,
                pages: self.pages_available(needed + running.len()),
            };
            match admission::admit(principal, needed, &house) {
                Verdict::Wait => return,
                Verdict::Preempt(index) => {
                    drop((inbox, cache));
                    self.preempt(index);
                }
                Verdict::Start => {
                    let Some((_, job)) = inbox.waiting.pop() else { return };
                    drop(inbox);
                    self.state.tokens_reused += cache.len() as u64;
                    self.running.push(Active { job, cache, served: 0 });
                }
            }
        }
    }

    /// Pages that are free, only remembered or only guessed for, as far as it matters to somebody who
    /// needs so many.
    fn pages_available(&self, needed: usize) -> usize {
        let pages = &self.shared.pages;
        let free = pages.pages_free();
        if free >= needed {
            return free;
        }
        let guesses: usize =
            self.running.iter().map(|active| active.job.guess_memory().bytes).sum();
        let guesses = (pages.bytes_free() + guesses) / pages.page_bytes().max(1) - free;
        free + guesses + self.prefixes.reclaimable()
    }

    /// One pass over the weights for whoever can go on.
    fn step(&mut self, decoder: &mut Decoder<'_>) -> Stepped {
        if !self.propose() {
            return Stepped::Advanced;
        }
        let feeds = loop {
            let candidates: Vec<Candidate> = self.running.iter().map(Active::candidate).collect();
            let most = candidates.iter().map(|each| 2 + each.tokens / PAGE_POSITIONS).sum();
            let limits = schedule::Limits {
                pages: self.pages_available(most),
                page_positions: PAGE_POSITIONS,
                prefill_tokens_max: self.limits.prefill_tokens_max,
            };
            match schedule::plan(&candidates, limits) {
                Plan::Preempt(index) => self.preempt(index),
                Plan::Feed(feeds) => break feeds,
            }
        };
        if feeds.is_empty() {
            return self.refuse_the_impossible();
        }
        self.make_room(&feeds);
        self.state.steps += 1;
        let before = decoder.meters().clone();
        let cancel = self.cancel_of_all(&feeds);
        let mut segments = segments(&mut self.running, &feeds);
        let pass = AssertUnwindSafe(|| decoder.forward(&mut segments, None, &cancel));
        let outcome = catch_unwind(pass);
        drop(segments);
        match outcome {
            Ok(Ok(())) => {}
            // Everybody was cancelled; who was, is let go next.
            Ok(Err(DecodeError::Cancelled(_))) => return Stepped::Advanced,
            Ok(Err(error)) => {
                self.fail_fed(&feeds, &error.into());
                return Stepped::Advanced;
            }
            Err(_) => {
                self.fail_fed(&feeds, &defect());
                return Stepped::Panicked;
            }
        }
        if let Err(failure) = self.model.check() {
            // What was computed over weights that changed is of no use to anybody.
            self.fail_everybody(&failure);
            self.prefixes.clear();
            return Stepped::Advanced;
        }
        let meters = decoder.meters().since(&before);
        self.state.bytes_touched += meters.total().bytes;
        for (segment, feed) in feeds.iter().enumerate() {
            let outputs = (decoder.segment_logits(segment), decoder.segment_matches(segment));
            self.advance(feed, outputs, &meters);
        }
        Stepped::Advanced
    }

    /// Lets tokens be guessed for those who go on by one. False when that ended somebody.
    fn propose(&mut self) -> bool {
        let mut fine = true;
        for index in 0..self.running.len() {
            let Active { job, cache, .. } = &self.running[index];
            let goes_on = job.next(cache.len()).decodes && !job.is_paused();
            if !goes_on || job.is_over() {
                continue;
            }
            self.forget_prefixes_for(job.guess_bytes_needed());
            let job = &mut self.running[index].job;
            let propose = AssertUnwindSafe(|| job.propose(&self.pool));
            if catch_unwind(propose).is_err() {
                job.fail(defect());
            }
            fine &= !job.is_over();
        }
        fine
    }

    /// Frees memory for guesses, if forgetting prefixes that nobody uses is enough for it.
    fn forget_prefixes_for(&mut self, needed: usize) {
        let pages = &self.shared.pages;
        let lacking = needed.saturating_sub(pages.bytes_free());
        if lacking > 0 && lacking <= self.prefixes.reclaimable() * pages.page_bytes() {
            while pages.bytes_free() < needed && self.prefixes.drop_oldest() {}
        }
    }

    /// Ends the guesses for the youngest sequence that has memory for them. False when none has.
    fn stop_a_guesser(&mut self) -> bool {
        let guesser = self.running.iter_mut().rfind(|active| active.job.guess_memory().bytes > 0);
        guesser.map(|active| active.job.stop_guessing()).is_some()
    }

    /// Hands a sequence its part of the step's outcome.
    fn advance(
        &mut self,
        feed: &Feed,
        (logits, matches): (&[f32], &[Vec<Match>]),
        meters: &PassMeters,
    ) {
        let active = &mut self.running[feed.index];
        let cached = active.cache.len() - feed.tokens;
        let Active { job, cache, served } = active;
        job.touch(meters);
        let (decodes, answers) = (job.next(cached).decodes, job.answers_after(cached, feed.tokens));
        match decodes {
            true => self.state.tokens_decoded += feed.tokens as u64,
            false => self.state.tokens_prefilled += feed.tokens as u64,
        }
        if feed.quantum {
            *served = self.state.steps;
        }
        if answers {
            let advance =
                AssertUnwindSafe(|| job.advance(&self.model, logits, matches, feed.tokens));
            match catch_unwind(advance) {
                Ok(kept) => cache.truncate(cached + kept),
                Err(_) => job.fail(defect()),
            }
            if !decodes {
                // Others may have asked the same in the meantime.
                remember(&mut self.prefixes, &self.model, active);
            }
        }
    }

    /// Frees what the step will take: least recently used prefixes first, and then guesses.
    fn make_room(&mut self, feeds: &[Feed]) {
        let needed: usize = feeds
            .iter()
            .map(|feed| {
                let cached = self.running[feed.index].cache.len();
                pages(cached + feed.tokens, PAGE_POSITIONS) - pages(cached, PAGE_POSITIONS)
            })
            .sum();
        while self.shared.pages.pages_free() < needed {
            let unused = self.prefixes.reclaimable() > 0;
            let freed = unused && self.prefixes.drop_oldest()
                || self.stop_a_guesser()
                || self.prefixes.drop_oldest();
            if !freed {
                break;
            }
        }
    }

    /// The stop sign of a step: when nobody is left who wants it, it ends at once.
    fn cancel_of_all(&self, feeds: &[Feed]) -> Cancel {
        let tokens: Vec<Cancel> =
            feeds.iter().map(|feed| self.running[feed.index].job.cancel.clone()).collect();
        Cancel::when_all(&tokens)
    }

    /// Nobody can go on. That a sequence which is alone cannot is a defect: it would have been refused.
    fn refuse_the_impossible(&mut self) -> Stepped {
        let stuck = self.running.iter_mut().find(|active| !active.job.is_paused());
        match stuck {
            None => Stepped::Nobody,
            Some(active) => {
                active.job.fail(defect());
                Stepped::Advanced
            }
        }
    }

    /// Takes a running sequence's place and pages; it goes on when its turn comes again.
    fn preempt(&mut self, index: usize) {
        let active = self.running.remove(index);
        let job = self.release(active);
        self.state.preemptions += 1;
        if job.is_paused() || job.is_over() {
            self.parked.push(job);
        } else {
            let principal = job.principal.clone();
            self.shared.inbox.lock().waiting.push_front(&principal, job);
        }
    }

    /// Gives back a sequence's cache, and keeps its whole pages in mind.
    fn release(&mut self, mut active: Active) -> Job {
        remember(&mut self.prefixes, &self.model, &active);
        active.job.release_guesses();
        active.job
    }

    /// Ends those who took part in a step. What their caches hold is not known.
    fn fail_fed(&mut self, feeds: &[Feed], failure: &Failure) {
        for feed in feeds.iter().rev() {
            let mut job = self.running.remove(feed.index).job;
            job.fail(failure.clone());
            self.parked.push(job);
        }
    }

    /// Ends everybody who runs or waits. Their caches are worth nothing.
    fn fail_everybody(&mut self, failure: &Failure) {
        let waiting = self.shared.inbox.lock().waiting.take_if(|_| true);
        let running = std::mem::take(&mut self.running).into_iter().map(|active| active.job);
        for mut job in running.chain(waiting) {
            job.fail(failure.clone());
            self.parked.push(job);
        }
    }

    /// Waits for news. True when none came for so long that the runner should end.
    fn wait(&self) -> bool {
        let mut inbox = self.shared.inbox.lock();
        let quiet = inbox.waiting.is_empty() && inbox.displaced.is_empty();
        if !self.running.is_empty() || !self.parked.is_empty() {
            // Clients that read say nothing about it.
            if quiet {
                self.shared.news.wait_for(&mut inbox, LOOK_AGAIN);
            }
            return false;
        }
        if !quiet {
            return false;
        }
        inbox.retired || self.shared.news.wait_for(&mut inbox, IDLE).timed_out()
    }

    /// Leaves the registry, unless somebody asked in the last moment.
    fn close(&self) -> bool {
        let mut registry = self.registry.lock();
        let inbox = self.shared.inbox.lock();
        let idle = inbox.waiting.is_empty() && inbox.displaced.is_empty();
        if idle && self.parked.is_empty() {
            registry.remove(&address(&self.model));
            return true;
        }
        false
    }

    /// Shows the state to those who ask for it.
    fn tell(&mut self) {
        self.state.running = self.running.len();
        self.state.pages_used = self.state.pages_max - self.shared.pages.pages_free();
        self.state.pages_reusable = self.prefixes.len();
        self.shared.state.lock().clone_from(&self.state);
    }
}

/// How [`Runner::serve`] ended.
enum End {
    /// Nobody asks any more.
    Over,
    /// The decoder is not to be used any more; who was fed to it has been told.
    Panicked,
    /// Nobody can say how far the runner came.
    Failed,
}

/// What a step did.
enum Stepped {
    Advanced,
    Nobody,
    Panicked,
}

fn namespace(model: &Model, job: &Job) -> Namespace {
    let Identity { branch, lsn } = job.edits().identity.clone();
    Namespace {
        principal: job.principal.clone(),
        base_hash: model.base_hash().to_owned(),
        branch,
        lsn,
    }
}

/// Keeps the whole pages of a sequence in mind.
fn remember(prefixes: &mut PrefixIndex<SharedPage>, model: &Model, active: &Active) {
    let namespace = namespace(model, &active.job);
    let tokens = &active.job.tokens()[..active.cache.len()];
    prefixes.insert(&namespace, tokens, active.cache.whole_pages());
}

/// The segments of a step, in the order of `feeds`, which ascend.
fn segments<'r>(running: &'r mut [Active], feeds: &[Feed]) -> Vec<Segment<'r>> {
    let mut feeds = feeds.iter().peekable();
    let mut segments = Vec::new();
    for (index, Active { job, cache, .. }) in running.iter_mut().enumerate() {
        if let Some(feed) = feeds.next_if(|feed| feed.index == index) {
            let (tokens, logits) = job.feed(cache.len(), feed.tokens);
            segments.push(Segment { tokens, cache, logits });
        }
    }
    segments
}

fn defect() -> Failure {
    Failure::new(code::INTERNAL, "the request met a defect of larqld; the daemon goes on")
        .hint("please report the request and the daemon's log")
}
