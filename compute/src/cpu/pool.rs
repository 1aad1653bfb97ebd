//! The threads that run kernels: started once, shared by every caller of the process.
//!
//! A caller brings a number of tasks and a function; it takes part itself, helpers join while
//! tasks are left (`shares` deals them), and `run` returns when all are done. Callers from several
//! threads are served one after another in the order of their arrival (a ticket). A helper spins
//! for a moment between two jobs and then sleeps, so that a decode's many small products wake
//! nobody, and an idle daemon burns nothing. On a machine of several memory nodes helpers keep to
//! nodes (`nodes`); callers, whose threads are not ours, are left where they are.
//!
//! Invariants: the function is never called after `run` has returned; a panic in a task reaches
//! the caller and nobody else; a task that itself calls `run` gets its tasks run in place.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};

use super::nodes;
use super::shares::Shares;

/// How often a helper looks for work before it sleeps: some tens of microseconds.
const SPINS_BEFORE_SLEEP: u32 = 10_000;
/// How often a caller looks whether its helpers are done before it yields the processor.
const SPINS_BEFORE_YIELD: u32 = 2_000;

/// The thread that the caller is; helpers count from 1.
const CALLER: usize = 0;

type Task<'f> = dyn Fn(usize) + Sync + 'f;

/// The process's compute threads.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// `epoch << 32 | OPEN? | helpers inside`: one word, so that a helper joins a job only while
    /// it is open, and a caller that closed it knows who is still inside.
    state: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    shares: Shares,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
    tickets: Mutex<Tickets>,
}

#[derive(Clone, Copy)]
struct Job(*const Task<'static>);

#[derive(Default)]
struct Tickets {
    next: u64,
    serving: u64,
    /// Who holds the tickets from `serving + 1` on. Each is woken for its own turn only: waking
    /// all of hundreds of sessions at every product would cost more than the products.
    waiting: VecDeque<Thread>,
}

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const EPOCH: u64 = 1 << 32;

// SAFETY: `job` is written only by the caller whose turn it is, while the state is closed and
// nobody is inside; it is read only by helpers that joined the open state (acquire after release).
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `job` is to a function that is `Sync`.
unsafe impl Send for Shared {}

thread_local! {
    static INSIDE_A_TASK: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// Starts a pool that computes on so many threads, the caller among them; 0 takes one for
    /// each physical core that the process may use.
    pub fn new(threads: usize) -> Pool {
        let wanted = if threads == 0 { physical_cores() } else { threads };
        let nodes = nodes::nodes();
        let threads_nodes = nodes::spread(wanted.max(1), &nodes);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            shares: Shares::new(&threads_nodes),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            tickets: Mutex::new(Tickets::default()),
        });
        // A thread that the system refuses is one helper less, not a failure: the caller alone
        // can run every task.
        let helpers = (1..wanted)
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                let builder = std::thread::Builder::new().name(format!("compute-{index}"));
                let processors = nodes.get(threads_nodes[index]).cloned();
                let help = move || {
                    if let Some(processors) = processors {
                        nodes::bind(&processors);
                    }
                    shared.help(index);
                };
                builder.spawn(help).ok()
            })
            .collect();
        Pool { shared, helpers }
    }

    /// How many threads compute, the caller among them.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `run(0)` … `run(tasks - 1)`, each once, in no promised order, and returns when all
    /// have returned. Neighbours mostly go to one thread, one after the other.
    ///
    /// # Panics
    /// Passes on the first panic of a task; tasks not yet begun are then left out.
    pub fn run(&self, tasks: usize, run: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.helpers.is_empty() || INSIDE_A_TASK.get() {
            return (0..tasks).for_each(run);
        }
        let shared = &*self.shared;
        let turn = shared.wait_for_turn();
        // SAFETY: only the lifetime changes; `finish` below waits until no helper is inside the
        // job and none can join, before this frame (and what `run` borrows) goes away.
        let run_forever =
            unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(run) };
        // SAFETY: the turn is ours and the last job is finished, so nobody reads or writes `job`.
        unsafe { *shared.job.get() = Some(Job(run_forever)) };
        shared.shares.deal(tasks);
        let epoch = (shared.state.load(Ordering::Relaxed) & !(EPOCH - 1)).wrapping_add(EPOCH);
        shared.state.store(epoch | OPEN, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
        shared.work(CALLER, Job(run_forever));
        let panic = shared.finish();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Cuts `out` into chunks of `chunk` elements (the last may be shorter) and calls
    /// `run(first_element, chunk)` for each; panics if `chunk` is 0.
    pub fn run_chunks<T: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        run: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        assert!(chunk > 0, "chunks of no elements");
        let length = out.len();
        let out = Disjoint::new(out);
        self.run(length.div_ceil(chunk), &|task| {
            let first = task * chunk;
            // SAFETY: chunks of different tasks do not overlap, and each task runs once.
            run(first, unsafe { out.slice(first, chunk.min(length - first)) });
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for helper in self.helpers.drain(..) {
            // A helper catches the panics of tasks, so it has none of its own to report.
            let _ = helper.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

/// Holds the pool for one caller; dropping it serves the next ticket.
struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut tickets = lock(&self.0.tickets);
        tickets.serving += 1;
        if let Some(next) = tickets.waiting.pop_front() {
            next.unpark();
        }
    }
}

impl Shared {
    fn wait_for_turn(&self) -> Turn<'_> {
        let mut tickets = lock(&self.tickets);
        let mine = tickets.next;
        tickets.next += 1;
        if tickets.serving != mine {
            tickets.waiting.push_back(std::thread::current());
            while tickets.serving != mine {
                drop(tickets);
                std::thread::park();
                tickets = lock(&self.tickets);
            }
        }
        Turn(self)
    }

    /// Takes tasks until none is left.
    fn work(&self, thread: usize, job: Job) {
        INSIDE_A_TASK.set(true);
        while let Some(task) = self.shares.take(thread) {
            // SAFETY: the caller of `run` stays in its frame until `finish` saw everybody out.
            let run = unsafe { &*job.0 };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(task))) {
                self.shares.stop();
                lock(&self.panic).get_or_insert(panic);
            }
        }
        INSIDE_A_TASK.set(false);
    }

    /// Closes the job, waits for the helpers inside and takes the panic, if there was one.
    fn finish(&self) -> Option<Box<dyn Any + Send>> {
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while self.state.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        lock(&self.panic).take()
    }

    /// A helper's life.
    fn help(&self, thread: usize) {
        let mut seen = 0;
        let mut spins = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN != 0 && state & !(EPOCH - 1) != seen {
                let joined = self.state.compare_exchange(
                    state,
                    state + 1,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                if joined.is_err() {
                    continue;
                }
                seen = state & !(EPOCH - 1);
                // SAFETY: we are counted inside an open job: it was written before the state
                // opened, and is not written again until we leave.
                let job = unsafe { *self.job.get() };
                self.work(thread, job.expect("an open state has a job"));
                self.state.fetch_sub(1, Ordering::AcqRel);
                spins = 0;
            } else if spins < SPINS_BEFORE_SLEEP {
                spins += 1;
                std::hint::spin_loop();
            } else {
                self.sleep_unless_there_is_work(seen);
                spins = 0;
            }
        }
    }

    fn sleep_unless_there_is_work(&self, seen: u64) {
        let guard = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let state = self.state.load(Ordering::SeqCst);
        let work = state & OPEN != 0 && state & !(EPOCH - 1) != seen;
        if !work && !self.stop.load(Ordering::SeqCst) {
            drop(self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner));
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// No data guarded here can be left half-written by a panic, so a poisoned lock is as good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A slice that tasks write in parts that do not overlap.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    length: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out only what its users promise to be disjoint, and `T` may be sent.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Disjoint<'a, T> {
        Disjoint { start: slice.as_mut_ptr(), length: slice.len(), owner: PhantomData }
    }

    /// A part of the slice; panics outside of it.
    ///
    /// # Safety
    /// No two parts that are alive at one time may overlap.
    #[allow(clippy::mut_from_ref, reason = "the caller promises that parts do not overlap")]
    pub(crate) unsafe fn slice(&self, first: usize, count: usize) -> &mut [T] {
        assert!(first <= self.length && count <= self.length - first, "outside the slice");
        // SAFETY: within the slice by the check, not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), count) }
    }
}

/// Physical cores that this process may use: a second hardware thread adds no arithmetic.
fn physical_cores() -> usize {
    let permitted = std::thread::available_parallelism().map_or(1, usize::from);
    let mut cores = std::collections::BTreeSet::new();
    for cpu in 0.. {
        let folder = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).ok();
        match (read("physical_package_id"), read("core_id")) {
            (Some(package), Some(core)) => cores.insert((package, core)),
            _ => break,
        };
    }
    if cores.is_empty() { permitted } else { permitted.min(cores.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_for_any_number_of_threads_and_tasks() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn many_callers_share_the_pool_and_each_gets_its_own_sums() {
        let pool = Pool::new(3);
        std::thread::scope(|scope| {
            for caller in 0..8_usize {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..300 {
                        let sum = AtomicUsize::new(0);
                        pool.run(17, &|task| {
                            sum.fetch_add(task * caller + round, Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), 136 * caller + 17 * round);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_its_caller_and_the_pool_goes_on() {
        let pool = Pool::new(4);
        for round in 0..50 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(64, &|task| assert!(task != round, "task {task} fails"));
            }));
            let message = *caught.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(message, format!("task {round} fails"));
            let done = AtomicUsize::new(0);
            pool.run(64, &|_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 64);
        }
    }

    #[test]
    fn a_task_may_call_the_pool_that_runs_it() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        pool.run(8, &|_| {
            pool.run(8, &|inner| {
                sum.fetch_add(inner, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 8 * 28);
    }

    #[test]
    fn helpers_wake_from_sleep_for_a_later_job() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            // Two tasks that wait for each other end only if two threads run them.
            let barrier = std::sync::Barrier::new(2);
            pool.run(2, &|_| {
                barrier.wait();
            });
        }
    }

    #[test]
    fn chunks_cover_the_slice_without_overlap() {
        let pool = Pool::new(2);
        let mut out = vec![0; 1003];
        pool.run_chunks(&mut out, 64, &|first, chunk| {
            for (offset, value) in chunk.iter_mut().enumerate() {
                *value += first + offset;
            }
        });
        assert!(out.iter().enumerate().all(|(index, &value)| index == value));
    }

    #[test]
    fn zero_threads_means_at_least_one_and_at_most_those_permitted() {
        let permitted = std::thread::available_parallelism().unwrap().get();
        assert!((1..=permitted).contains(&Pool::new(0).threads()));
    }
}
