//! The processor: its threads and how tasks are dealt to them, its memory nodes, its instruction
//! sets, what a thread keeps from task to task, and the token that stops work.
//!
//! One [`Pool`] serves a whole process. A caller cuts its work into tasks whose results do not
//! depend on who runs them, so that no answer depends on the number of threads.

mod cancel;
mod isa;
mod nodes;
mod pool;
pub mod rates;
mod scratch;
mod shares;
pub mod streaming;

pub use cancel::{Cancel, Cancelled, Reason};
pub use isa::{Isa, IsaError};
pub use pool::Pool;

pub(crate) use isa::{compiled_for_each_isa, fastest};
pub(crate) use pool::Disjoint;
pub(crate) use scratch::{release_scratch, with_scratch};
