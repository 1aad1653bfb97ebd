//! One session with a daemon: handshake, scripts in order, cancel, and the calls beside them.
//!
//! Scripts of one session run one after the other, so [`Statements`] borrows its [`Client`] until
//! it is dropped. Dropping it early cancels the script; what is still on its way is skipped by the
//! next one. A connection that breaks ends the answer with an [`Event::Error`] of code
//! [`StatementError::CONNECTION_LOST`]; the client is then [`Client::is_lost`].

use std::time::Duration;

use crate::error::{CallError, ConnectError};
use crate::event::{
    BenchEvent, BenchRequest, DaemonStatus, Event, GenerateEvent, GenerateRequest, Logits,
    LogitsRequest, Notice, StatementError, Summary, Welcome,
};
use crate::target::Target;
use crate::token::Token;
use crate::transport;
use crate::value::{Column, Row, Value};
use crate::wire::{Frame, FrameSender, Frames, Link, Measurements, Tokens};

/// Room for everything in an Execute frame apart from its script, in bytes.
const FRAME_OVERHEAD_BYTES: usize = 1 << 20;

/// How a session is opened.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Name and version of the program, for the daemon's log.
    pub client: String,
    /// How long connecting and the handshake may take, each.
    pub timeout: Duration,
    /// Who calls, for daemons that want to know.
    pub token: Option<Token>,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            client: concat!("larql-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout: Duration::from_secs(10),
            token: None,
        }
    }
}

/// How a script is run.
#[derive(Clone, Debug, Default)]
pub struct ExecuteOptions {
    /// Relative paths in statements are resolved against this directory.
    pub working_directory: String,
    /// The script fails after this much time, counted by the daemon; none: it may run forever.
    pub deadline: Option<Duration>,
    /// The values of `$1`, `$2` …
    pub parameters: Vec<Value>,
}

impl ExecuteOptions {
    /// Options whose working directory is the process's own, if it has one that is text.
    pub fn here() -> ExecuteOptions {
        ExecuteOptions { working_directory: working_directory(), ..ExecuteOptions::default() }
    }
}

/// The process's working directory; empty if it has none that is text.
pub(crate) fn working_directory() -> String {
    std::env::current_dir()
        .ok()
        .and_then(|path| path.into_os_string().into_string().ok())
        .unwrap_or_default()
}

/// One session with a daemon.
pub struct Client {
    link: Link,
    sender: FrameSender,
    frames: Frames,
    welcome: Welcome,
    id_next: u64,
    lost: bool,
}

impl Client {
    /// Connects and opens a session.
    ///
    /// # Errors
    /// `Unreachable` if nobody answers, `Timeout` if somebody is too slow, `Handshake` if it is no
    /// larqld, `Refused` if no protocol version is common or the daemon wants no session.
    pub async fn connect(target: &Target, options: ConnectOptions) -> Result<Client, ConnectError> {
        let channel = transport::connect(target, options.timeout).await?;
        let link = Link::new(channel, options.token.as_ref());
        let handshake = open(link, options.client, target);
        match tokio::time::timeout(options.timeout, handshake).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout {
                target: target.to_string(),
                seconds: options.timeout.as_secs(),
            }),
        }
    }

    /// What the daemon said when the session opened.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// True once the connection broke: every further script fails at once.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Sends a script; its answer arrives through the returned [`Statements`].
    pub fn execute(
        &mut self,
        script: impl Into<String>,
        options: ExecuteOptions,
    ) -> Statements<'_> {
        let script = script.into();
        let id = self.id_next;
        self.id_next += 1;
        let limit = larql_proto::REQUEST_BYTES_MAX - FRAME_OVERHEAD_BYTES;
        let refusal = (script.len() > limit).then(|| StatementError {
            code: "54000".to_owned(),
            message: format!(
                "the script is {} bytes, one message holds at most {limit}",
                script.len()
            ),
            hint: "split it into several scripts".to_owned(),
            position: None,
            statement: 0,
        });
        if refusal.is_none() {
            let deadline_ms = options.deadline.map_or(0, |deadline| {
                u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX).max(1)
            });
            let sent = self.sender.execute(
                id,
                script,
                options.working_directory,
                deadline_ms,
                options.parameters,
            );
            self.lost |= !sent;
        }
        Statements { client: self, id, refusal, over: false }
    }

    /// Runs a script and collects its answers: for small answers, and tests.
    ///
    /// # Errors
    /// The error of the first statement that failed.
    pub async fn query(
        &mut self,
        script: impl Into<String>,
        options: ExecuteOptions,
    ) -> Result<Vec<Answer>, StatementError> {
        let mut answers: Vec<Answer> = Vec::new();
        let mut statements = self.execute(script, options);
        while let Some(event) = statements.next().await {
            match (event, answers.last_mut()) {
                (Event::Schema { tag, columns, .. }, _) => {
                    answers.push(Answer { tag, columns, ..Answer::default() });
                }
                (Event::Error(error), _) => return Err(error),
                (Event::Rows(rows), Some(answer)) => answer.rows.extend(rows),
                (Event::Notice(notice), Some(answer)) => answer.notices.push(notice),
                (Event::Summary(summary), Some(answer)) => answer.summary = summary,
                // Progress is for the impatient, and nothing else comes outside a statement.
                _ => {}
            }
        }
        Ok(answers)
    }

    /// Starts a generation; dropping it stops the computation.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn generate(&self, request: GenerateRequest) -> Result<Generation, CallError> {
        Ok(Generation { tokens: self.link.generate(request).await? })
    }

    /// Asks for the daemon's own state.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn status(&self) -> Result<DaemonStatus, CallError> {
        self.link.status().await
    }

    /// Does one of `status`, `verify`, `export`, `import` and `salvage` with the log of a model's edits; returns
    /// names and values.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn wal(
        &self,
        action: &str,
        model: &str,
        path: Option<&str>,
    ) -> Result<Vec<(String, String)>, CallError> {
        self.link.wal(action, model, path.unwrap_or_default()).await
    }

    /// Has a model that is bundled in the daemon written to its data directory; returns the path.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn unpack_bundled(&self, name: &str) -> Result<String, CallError> {
        self.link.unpack_bundled(name.to_owned()).await
    }

    /// Runs token ids and returns what reference checks compare.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn logits(&self, request: LogitsRequest) -> Result<Logits, CallError> {
        self.link.logits(request).await
    }

    /// Measures a model on the daemon's machine: `progress` hears each line, the result is one JSON
    /// object.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn bench(
        &self,
        request: BenchRequest,
        mut progress: impl FnMut(&str),
    ) -> Result<String, CallError> {
        let mut events: Measurements = self.link.bench(request).await?;
        while let Some(event) = events.next().await? {
            match event {
                BenchEvent::Progress(line) => progress(&line),
                BenchEvent::Json(json) => return Ok(json),
            }
        }
        Err(CallError {
            code: "08P01".to_owned(),
            message: "the measurement ended without a result".to_owned(),
            hint: String::new(),
        })
    }

    /// Asks for the names of all mounts.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn names(&self) -> Result<Vec<String>, CallError> {
        self.link.names().await
    }

    /// A handle that asks for names while the session is busy.
    #[cfg(feature = "program")]
    pub(crate) fn link(&self) -> Link {
        self.link.clone()
    }
}

async fn open(link: Link, name: String, target: &Target) -> Result<Client, ConnectError> {
    let handshake = |reason: String| ConnectError::Handshake { target: target.to_string(), reason };
    let failed = |CallError { code, message, hint }: CallError| match &*code {
        // A larqld that knows who calls, and wants no session now.
        "28000" | "53400" | "57P01" => ConnectError::Refused {
            target: target.to_string(),
            code,
            message,
            hint,
            versions: (0, 0),
        },
        _ => handshake(message),
    };
    let (sender, mut frames) = link.open(name).await.map_err(failed)?;
    match frames.next().await.map_err(failed)? {
        Some(Frame::Welcome(welcome)) => {
            let spoken = larql_proto::VERSION_MIN..=larql_proto::VERSION_MAX;
            if !spoken.contains(&welcome.version) {
                return Err(handshake(format!(
                    "it chose protocol version {}, which was not offered",
                    welcome.version
                )));
            }
            Ok(Client { link, sender, frames, welcome, id_next: 1, lost: false })
        }
        Some(Frame::Refused { code, message, hint, versions }) => {
            Err(ConnectError::Refused { target: target.to_string(), code, message, hint, versions })
        }
        Some(_) => Err(handshake("it began with something else than a welcome".to_owned())),
        None => Err(handshake("it closed the stream before a welcome".to_owned())),
    }
}

/// The answer to one script, as it arrives.
pub struct Statements<'a> {
    client: &'a mut Client,
    id: u64,
    /// Why the script was not even sent.
    refusal: Option<StatementError>,
    over: bool,
}

impl Statements<'_> {
    /// Waits for the next event; None after the script is over. Dropping the future loses nothing,
    /// so it may stand in a `select!`.
    pub async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        if let Some(error) = self.refusal.take() {
            self.over = true;
            return Some(Event::Error(error));
        }
        if self.client.lost {
            return Some(self.lose("its other end is gone".to_owned()));
        }
        loop {
            match self.client.frames.next().await {
                Ok(Some(Frame::Event(id, event))) if id == self.id => {
                    self.over = matches!(event, Event::Finished { .. });
                    return Some(event);
                }
                // The rest of a script that was abandoned, or a frame of a newer daemon.
                Ok(Some(_)) => {}
                Ok(None) => return Some(self.lose("the daemon closed the session".to_owned())),
                Err(error) => return Some(self.lose(error.message)),
            }
        }
    }

    /// Asks the daemon to stop this script; it then ends with an error of code 57014.
    pub fn cancel(&self) {
        self.client.sender.cancel(self.id);
    }

    /// A handle that cancels this script from elsewhere.
    pub fn canceller(&self) -> Canceller {
        Canceller { sender: self.client.sender.clone(), id: self.id }
    }

    fn lose(&mut self, reason: String) -> Event {
        self.over = true;
        self.client.lost = true;
        Event::Error(StatementError {
            code: StatementError::CONNECTION_LOST.to_owned(),
            message: format!("lost the connection to the daemon: {reason}"),
            hint: "the session is over; what it had not committed is gone".to_owned(),
            position: None,
            statement: 0,
        })
    }
}

impl Drop for Statements<'_> {
    fn drop(&mut self) {
        if !self.over && self.refusal.is_none() {
            self.cancel();
        }
    }
}

/// Cancels one script from another task.
#[derive(Clone, Debug)]
pub struct Canceller {
    sender: FrameSender,
    id: u64,
}

impl Canceller {
    /// Asks the daemon to stop the script; nothing happens if it is over.
    pub fn cancel(&self) {
        self.sender.cancel(self.id);
    }
}

/// The collected answer of one statement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The statement's first keywords.
    pub tag: String,
    /// The columns of `rows`.
    pub columns: Vec<Column>,
    /// All rows.
    pub rows: Vec<Row>,
    /// All notices.
    pub notices: Vec<Notice>,
    /// What the statement did and which weights answered.
    pub summary: Summary,
}

impl Answer {
    /// Returns the cells of a column, or None if there is no such column.
    pub fn column(&self, name: &str) -> Option<Vec<&Value>> {
        let index = self.columns.iter().position(|column| column.name == name)?;
        self.rows.iter().map(|row| row.get(index)).collect()
    }
}

/// A running generation; dropping it stops the computation.
pub struct Generation {
    tokens: Tokens,
}

impl Generation {
    /// Waits for the next piece; None after `Done`.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn next(&mut self) -> Result<Option<GenerateEvent>, CallError> {
        self.tokens.next().await
    }
}
