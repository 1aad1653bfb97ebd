//! What a plan costs: bytes touched over measured bandwidth, plus operations over measured rates.

mod cardinality;
mod model;
mod selectivity;

pub use cardinality::gate_hits;
pub use model::{CostConstants, estimate_tree, total_ms};
pub use selectivity::selectivity;
