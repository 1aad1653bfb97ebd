//! A session at another daemon: what `USE REMOTE` puts in a session's way.
//!
//! From then on the session's statements are sent there as they are written and their answers passed on
//! as they come, until another USE. Only USE, SET and RESET concern this daemon as well. What the other
//! daemon allows is decided by who this daemon is there, which is why only administrators of this one
//! may send it.
//!
//! Promises: a statement runs there or fails, never here instead; a cancel and a deadline reach it; an
//! answer that breaks off is an error; nothing of it is held but the frame on its way.
//!
//! Elsewhere: the protocol's client (`larql-client`), the session that owns this (`engine`).

use std::time::{Duration, Instant};

use larql_client::{
    Client, ConnectOptions, Event, ExecuteOptions, StatementError, Statements, Summary, Target,
    Token,
};
use larql_compute::cpu::Cancel;
use larql_planner::value::{Column, ColumnType, Value};
use tokio::runtime::Handle;

use crate::exec::{self, Output, OutputSink, SinkClosed};
use crate::failure::{CODES, Failure, code};

/// How long connecting and the handshake may take, each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a waiting statement looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(20);
/// How long the other daemon may take to end what was cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// A session at another daemon.
pub struct Remote {
    client: Client,
    target: Target,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("target", &self.target).finish_non_exhaustive()
    }
}

/// One statement to run elsewhere.
#[derive(Debug)]
pub struct Request<'r> {
    /// Its text.
    pub text: &'r str,
    /// Its index in the script.
    pub statement: u32,
    /// Where its text begins in the script; `None` where it was written anew.
    pub offset: Option<usize>,
    /// What relative paths are relative to, where both daemons see the same files.
    pub directory: String,
}

impl Remote {
    /// Opens a session at a daemon: `unix:///path` or `grpc://host:port`, perhaps with the name of a mount
    /// to use there (`unix:///path#atlas`, `grpc://127.0.0.1:7878/atlas`).
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for what is no such URL; `CONNECTION` or what the daemon answers where it
    /// cannot be reached or wants no session; what its USE answers.
    pub fn connect(url: &str, token: Option<Token>, cancel: &Cancel) -> Result<Self, Failure> {
        let (authority, mount) = split_mount(url);
        let target: Target = authority.parse().map_err(|error: larql_client::TargetError| {
            Failure::new(code::INVALID_PARAMETER, error.to_string())
                .hint("USE REMOTE \"grpc://host:port/mount\" or \"unix:///path#mount\"")
        })?;
        cancel.check()?;
        let options = ConnectOptions {
            client: concat!("larqld/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout: CONNECT_TIMEOUT,
            token,
        };
        let runtime = runtime()?;
        let client = runtime.block_on(Client::connect(&target, options)).map_err(|error| {
            Failure::new(known_code(error.code()).unwrap_or(code::CONNECTION), error.to_string())
                .hint(error.hint())
        })?;
        let mut remote = Self { client, target };
        if let Some(mount) = mount {
            let answer = remote
                .client
                .query(format!("USE {}", larql_client::quote(mount)), ExecuteOptions::default());
            runtime.block_on(answer).map_err(|error| remote.failure(error, None))?;
        }
        Ok(remote)
    }

    /// Who answers there, for people.
    pub fn described(&self) -> String {
        let welcome = self.client.welcome();
        format!("{} at {}, as {}", welcome.server, self.target, welcome.role)
    }

    /// Whether both daemons see the same files.
    pub fn is_on_this_machine(&self) -> bool {
        matches!(self.target, Target::Unix(_))
    }

    /// Runs a statement there and passes its answer on.
    ///
    /// # Errors
    /// What it answers there; `CONNECTION` where it broke off; when cancelled.
    pub fn run(
        &mut self,
        request: Request<'_>,
        cancel: &Cancel,
        sink: &dyn OutputSink,
    ) -> Result<exec::Summary, Failure> {
        let runtime = runtime()?;
        let Request { text, statement, offset, directory } = request;
        let options = ExecuteOptions { working_directory: directory, ..ExecuteOptions::default() };
        let mut answer = self.client.execute(text, options);
        let passed_on = pass_on(&runtime, &mut answer, statement, cancel, sink);
        drop(answer);
        match passed_on? {
            Ok(summary) => Ok(summary),
            Err(error) => Err(self.failure(error, offset)),
        }
    }

    /// What the other daemon answered, as this one's failure.
    fn failure(&self, error: StatementError, offset: Option<usize>) -> Failure {
        let StatementError { code: remote_code, message, hint, position, .. } = error;
        let (code, message) = match known_code(&remote_code) {
            Some(code) => (code, message),
            None => (code::PROTOCOL, format!("{} answered {remote_code}: {message}", self.target)),
        };
        let mut failure = Failure::new(code, message).hint(hint);
        if code == code::CONNECTION {
            failure = failure.hint(format!(
                "USE REMOTE {} again, or USE a mount of this daemon",
                larql_client::quote(&self.target.to_string())
            ));
        }
        if let (Some(position), Some(offset)) = (position, offset) {
            let start = offset.saturating_add(position.offset as usize);
            failure = failure.at(start..start.saturating_add(position.length as usize));
        }
        failure
    }
}

/// Passes the events of one statement's answer on, up to the end of its script.
fn pass_on(
    runtime: &Handle,
    answer: &mut Statements<'_>,
    statement: u32,
    cancel: &Cancel,
    sink: &dyn OutputSink,
) -> Result<Result<exec::Summary, StatementError>, Failure> {
    let mut outcome = None;
    // Why nobody wants the answer any more, and until when the other daemon may say that it is over.
    let mut stopped: Option<(Failure, Instant)> = None;
    loop {
        let next =
            runtime.block_on(async { tokio::time::timeout(CANCEL_POLL, answer.next()).await });
        if stopped.is_none()
            && let Err(stop) = cancel.check()
        {
            answer.cancel();
            stopped = Some((stop.into(), Instant::now() + CANCEL_GRACE));
        }
        let event = match (next, &stopped) {
            (Ok(Some(event)), _) => event,
            (Ok(None), _) => break,
            (Err(_), Some((_, until))) if Instant::now() >= *until => break,
            (Err(_), _) => continue,
        };
        let output = match event {
            Event::Finished { .. } => break,
            Event::Error(error) => {
                let lost = error.is_connection_lost();
                outcome = Some(Err(error));
                if lost {
                    break;
                }
                continue;
            }
            Event::Summary(summary) => {
                outcome = Some(Ok(summary_of(summary)));
                continue;
            }
            event => match output(event, statement) {
                Some(output) if stopped.is_none() => output,
                _ => continue,
            },
        };
        sink.send(output).map_err(|SinkClosed| Failure::cancelled())?;
    }
    match (stopped, outcome) {
        (Some((failure, _)), _) => Err(failure),
        (None, Some(outcome)) => Ok(outcome),
        (None, None) => Err(Failure::new(
            code::PROTOCOL,
            "the other daemon ended its answer without a summary or an error",
        )),
    }
}

/// A piece of an answer that is passed on as it is.
fn output(event: Event, statement: u32) -> Option<Output> {
    Some(match event {
        Event::Schema { tag, columns, .. } => Output::Schema {
            statement,
            tag: tag.into(),
            columns: columns.into_iter().map(column).collect(),
        },
        Event::Rows(rows) => {
            Output::Rows(rows.into_iter().map(|row| row.into_iter().map(value).collect()).collect())
        }
        Event::Notice(notice) => Output::Notice { message: notice.message, hint: notice.hint },
        Event::Progress(progress) => Output::Progress {
            stage: progress.stage.into(),
            done: progress.done,
            total: progress.total,
            unit: progress.unit.into(),
        },
        Event::Summary(_) | Event::Error(_) | Event::Finished { .. } => return None,
    })
}

fn summary_of(summary: Summary) -> exec::Summary {
    let seconds = (summary.milliseconds / 1e3).max(0.0);
    exec::Summary {
        rows: summary.rows,
        bytes_touched: summary.bytes_touched,
        elapsed: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        base_hash: summary.base_hash,
        branch: summary.branch,
        lsn: summary.lsn,
        mount: summary.mount,
    }
}

fn column(column: larql_client::Column) -> Column {
    use larql_client::ColumnType as Theirs;
    let kind = match column.column_type {
        Theirs::Integer => ColumnType::Integer,
        Theirs::Real => ColumnType::Real,
        Theirs::Boolean => ColumnType::Boolean,
        Theirs::List => ColumnType::List,
        // No daemon makes columns of objects.
        Theirs::Text | Theirs::Object | Theirs::Unspecified => ColumnType::Text,
    };
    Column::new(column.name, kind)
}

fn value(value: larql_client::Value) -> Value {
    use larql_client::Value as Theirs;
    match value {
        Theirs::Null => Value::Null,
        Theirs::Text(text) => Value::text(text),
        Theirs::Integer(integer) => Value::Integer(integer),
        Theirs::Real(real) => Value::Real(real),
        Theirs::Score(score) => Value::Score(score),
        Theirs::Boolean(truth) => Value::Boolean(truth),
        Theirs::List(values) => Value::List(values.into_iter().map(self::value).collect()),
        // No daemon sends any: rows have none.
        Theirs::Object(_) => Value::Null,
    }
}

/// The code of that name that this daemon has too.
fn known_code(name: &str) -> Option<&'static str> {
    CODES.iter().map(|(code, _)| *code).find(|code| *code == name)
}

/// The part of a URL that names a daemon, and that which names one of its mounts.
fn split_mount(url: &str) -> (&str, Option<&str>) {
    // A socket's path has slashes of its own.
    let (scheme, separator) = match url.starts_with("unix://") {
        true => ("unix://", '#'),
        false => ("grpc://", '/'),
    };
    let Some(rest) = url.strip_prefix(scheme) else { return (url, None) };
    match rest.split_once(separator) {
        Some((authority, mount)) => {
            (&url[..scheme.len() + authority.len()], Some(mount).filter(|mount| !mount.is_empty()))
        }
        None => (url, None),
    }
}

fn runtime() -> Result<Handle, Failure> {
    Handle::try_current()
        .map_err(|_| Failure::new(code::INTERNAL, "there is no runtime to connect from"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_the_port_names_a_mount() {
        let cases = [
            ("grpc://127.0.0.1:7878", ("grpc://127.0.0.1:7878", None)),
            ("grpc://127.0.0.1:7878/", ("grpc://127.0.0.1:7878", None)),
            ("grpc://[::1]:7878/a/b", ("grpc://[::1]:7878", Some("a/b"))),
            ("unix:///run/larqld.sock", ("unix:///run/larqld.sock", None)),
            ("unix:///run/larqld.sock#atlas", ("unix:///run/larqld.sock", Some("atlas"))),
            ("http://a/b", ("http://a/b", None)),
        ];
        for (url, expected) in cases {
            assert_eq!(split_mount(url), expected, "{url}");
        }
    }

    #[test]
    fn codes_of_newer_daemons_are_not_taken_for_our_own() {
        assert_eq!(known_code("42601"), Some(code::SYNTAX));
        assert_eq!(known_code("ZZ999"), None);
    }
}
