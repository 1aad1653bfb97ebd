//! From LQL text to a physical plan: pure functions, no I/O, no async, no clock.
//!
//! The life of a statement here: [`syntax`] turns text into an AST with byte spans, [`bind`]
//! resolves its names against a [`catalog`] and checks types, [`logical`] says what is asked and
//! rewrites it, [`lower`] and [`physical`] say how it runs, [`cost`] chooses between access paths,
//! and [`explain`] shows the outcome. [`plan`] is all of that in one call.
//!
//! The planner owns the traits it needs ([`catalog::Catalog`], [`catalog::Mount`]); whoever runs
//! plans implements them. Statements that parse and are not served are refused in one place,
//! [`support`].
//!
//! Elsewhere: running operators, reading weights, sessions and roles (the daemon).

pub mod bind;
pub mod catalog;
pub mod cost;
pub mod error;
pub mod explain;
pub mod layers;
pub mod logical;
pub mod lower;
pub mod moment;
pub mod nearest_name;
pub mod physical;
pub mod settings;
pub mod support;
pub mod syntax;
pub mod value;

mod planned;

pub use error::PlanError;
pub use planned::{Planned, Role, plan, with_cached_answer};
