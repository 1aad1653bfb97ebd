//! How an answer is computed: the plan that the daemon runs, and rules that choose access paths.

pub mod edit;
pub mod generate;
pub mod index;
pub mod jobs;
pub mod plan;
pub mod rules;
pub mod trace;
pub mod transaction;

mod weight_type;
mod words;

pub use plan::{Estimate, Node, Operator};

use crate::catalog::{CostConstants, Mount, Settings};

/// What physical rules and estimates may look at.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The mount that is read, if any.
    pub mount: Option<&'a dyn Mount>,
    /// The session's settings.
    pub settings: &'a Settings,
    /// The machine's constants.
    pub costs: &'a CostConstants,
}
