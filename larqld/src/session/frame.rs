//! What a client says and is told, in the session's own types.

use std::path::PathBuf;
use std::time::Instant;

use larql_planner::value::Value;

use super::Role;

/// A frame from the client.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientFrame {
    /// The handshake.
    Hello(Hello),
    /// A script to run.
    Execute(Script),
    /// A wish that a script should stop.
    Cancel {
        /// The script's id.
        id: u64,
    },
    /// A frame that this version does not know.
    Unknown,
}

/// The client's side of the handshake.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// The oldest version that the client speaks.
    pub version_min: u32,
    /// The newest version that the client speaks.
    pub version_max: u32,
    /// The client program, for logs.
    pub client: String,
}

/// One or more statements to run in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Script {
    /// The client's number for it.
    pub id: u64,
    /// The text.
    pub text: String,
    /// What relative paths are relative to; `None` where the client named no absolute directory.
    pub working_directory: Option<PathBuf>,
    /// When to give up.
    pub deadline: Option<Instant>,
    /// The values of `$1`, `$2` … in all of its statements.
    pub parameters: Vec<Value>,
}

/// The daemon's side of the handshake.
#[derive(Debug, Clone, PartialEq)]
pub struct Welcome {
    /// The version that both will speak.
    pub version: u32,
    /// The session's number.
    pub session_id: u64,
    /// What the session may do.
    pub role: Role,
}

/// The end of a session that did not go by the rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// One of `failure::CODES`.
    pub code: &'static str,
    /// What was wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}
