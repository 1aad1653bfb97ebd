//! Names resolved against the catalog, types checked: from AST to a logical plan.

pub mod error;
pub mod expression;

mod compile;
mod scope;
mod select;
mod statement;
mod trace;

pub use error::BindError;
pub use statement::{Bound, Context, bind};
