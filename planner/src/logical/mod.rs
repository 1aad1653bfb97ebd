//! What is asked, before it is decided how: the plan that rules rewrite without knowing costs.

pub mod plan;
pub mod rules;

pub use plan::Plan;
