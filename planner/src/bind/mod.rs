//! Names resolved against the catalog, types checked: from AST to a logical plan.

pub mod aggregate;
pub mod error;
pub mod expression;
pub mod prepared;

mod binder;
mod compile;
mod diff;
mod edit;
mod generate;
mod grouping;
mod history;
mod index;
mod inference;
mod pipe;
mod rebalance;
mod scope;
mod select;
mod source;
mod statement;
mod system;
mod trace;
mod transaction;
mod verify_edge;
mod write;

pub use aggregate::{Aggregate, AggregateFunction};
pub use error::BindError;
pub use statement::{Bound, Context, bind};
