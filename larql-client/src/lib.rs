//! The Rust driver of larqld, and the parts that the `larql` program is made of.
//!
//! A [`Client`] is one session with a daemon: it opens the stream, agrees on a protocol version,
//! sends scripts and hands their answers back as typed [`Event`]s while they arrive. Rows are
//! [`Value`]s of our own; what travels on the wire stays in `wire`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use larql_client::{Client, ConnectOptions, Event, ExecuteOptions, Target};
//!
//! let target: Target = "unix:///home/ada/.local/share/larql/run/larqld.sock".parse()?;
//! let mut client = Client::connect(&target, ConnectOptions::default()).await?;
//! let mut statements = client.execute("DESCRIBE \"France\"", ExecuteOptions::default());
//! while let Some(event) = statements.next().await {
//!     if let Event::Rows(rows) = event {
//!         println!("{} rows", rows.len());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Without the feature `program`, what is left is the driver: the daemon itself uses that to be another
//! daemon's client.
//!
//! Elsewhere: where a daemon is found and how one is started ([`start`]), the shell ([`shell`]),
//! the commands of the program ([`cli`]), the protocol itself (`larql-proto`).

#[cfg(feature = "program")]
pub mod cli;
mod client;
mod error;
mod event;
mod quote;
#[cfg(feature = "program")]
pub mod shell;
#[cfg(feature = "program")]
pub mod start;
mod target;
mod token;
mod transport;
mod value;
mod wire;

pub use client::{
    Answer, Canceller, Client, ConnectOptions, ExecuteOptions, Generation, Statements,
};
pub use error::{CallError, ConnectError};
pub use event::{
    Alternative, BatchStatus, BenchEvent, BenchRequest, ChatMessage, Constraint, DaemonStatus,
    Event, GenerateEvent, GenerateRequest, GenerationSummary, LayerResidual, Logits, LogitsRequest,
    Notice, Position, Progress, Speculation, StatementError, Summary, Welcome,
};
pub use quote::{mount_name, quote};
pub use target::{Target, TargetError};
pub use token::{Token, TokenError};
pub use value::{Column, ColumnType, Row, Value};
