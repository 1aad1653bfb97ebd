//! Why no session could be opened, and why a call outside a session failed.

/// Why no session could be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("could not reach a daemon at {target}: {reason}")]
    Unreachable {
        /// Where.
        target: String,
        /// What the system said, innermost cause.
        reason: String,
        /// Nobody listens (no socket, or a stale one), so a daemon may be started there.
        nobody_listens: bool,
    },
    /// Somebody listens but did not answer in time.
    #[error("the daemon at {target} did not answer within {seconds} s")]
    Timeout {
        /// Where.
        target: String,
        /// How long we waited, in seconds.
        seconds: u64,
    },
    /// Somebody answers, but not in our protocol.
    #[error("{target} does not answer as a larqld: {reason}")]
    Handshake {
        /// Where.
        target: String,
        /// What went wrong.
        reason: String,
    },
    /// The daemon refused the session.
    #[error("the daemon at {target} refused the session: {message}")]
    Refused {
        /// Where.
        target: String,
        /// Five characters, after SQLSTATE.
        code: String,
        /// Why.
        message: String,
        /// What to do; may be empty.
        hint: String,
        /// The protocol versions that it speaks, oldest and newest.
        versions: (u32, u32),
    },
}

impl ConnectError {
    /// True if nobody listens at the target, so that a daemon may be started there.
    pub fn nobody_listens(&self) -> bool {
        matches!(self, ConnectError::Unreachable { nobody_listens: true, .. })
    }

    /// Five characters, after SQLSTATE.
    pub fn code(&self) -> &str {
        match self {
            ConnectError::Refused { code, .. } if !code.is_empty() => code,
            ConnectError::Handshake { .. } => "08P01",
            ConnectError::Refused { .. } => "08004",
            ConnectError::Unreachable { .. } | ConnectError::Timeout { .. } => "08001",
        }
    }

    /// What to do about it; may be empty.
    pub fn hint(&self) -> String {
        match self {
            ConnectError::Refused { hint, .. } if !hint.is_empty() => hint.clone(),
            ConnectError::Refused { versions: (oldest, newest), .. } if *newest > 0 => format!(
                "the daemon speaks protocol versions {oldest} to {newest}, this client {} to {}: \
                 bring both to one release",
                larql_proto::VERSION_MIN,
                larql_proto::VERSION_MAX
            ),
            ConnectError::Unreachable { nobody_listens: true, .. } => {
                "start one with: larqld --data-dir DIR".to_owned()
            }
            _ => String::new(),
        }
    }
}

/// Why a call outside a script failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct CallError {
    /// Five characters, after SQLSTATE.
    pub code: String,
    /// What failed, with what.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}
