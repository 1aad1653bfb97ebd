//! How an answer is computed: the plan that the daemon runs, and rules that choose access paths.

pub mod plan;
pub mod rules;

mod describe;

pub use plan::{Estimate, Node, Operator};
