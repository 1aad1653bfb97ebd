//! SHOW SESSIONS, `larql.statements` and KILL: who is connected, what runs and ran, and an end to it.
//!
//! An administrator sees everybody's; anybody else what belongs to the same principal.

use larql_planner::value::Value;

use super::mount_row::integer;
use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::activity::StatementRecord;
use crate::engine::SessionContext;
use crate::failure::{Failure, code};
use crate::session::{Principal, Role};

/// Whether the statement's session may see what belongs to that principal.
fn may_see(work: &Work<'_>, principal: &Principal) -> bool {
    work.context.role() >= Role::Admin || work.context.principal() == principal
}

fn milliseconds(elapsed: std::time::Duration) -> Value {
    Value::Real(elapsed.as_secs_f64() * 1e3)
}

/// The open sessions, by number.
#[derive(Default)]
pub(super) struct ShowSessions {
    ready: Option<Ready>,
}

fn session_row(work: &Work<'_>, session: &SessionContext) -> Row {
    let running = session.running();
    let mount = session.state().current.as_ref().map(|mounted| mounted.name.clone());
    vec![
        integer(session.id()),
        Value::text(session.principal().to_string()),
        Value::text(session.role().as_str()),
        mount.map_or(Value::Null, Value::text),
        Value::text(if running.is_some() { "running" } else { "idle" }),
        running.as_ref().map_or(Value::Null, |record| Value::text(record.text.clone())),
        running.as_ref().map_or(Value::Null, |record| milliseconds(record.began.elapsed())),
        integer(session.statements()),
        Value::Real(session.opened().elapsed().as_secs_f64()),
        Value::Boolean(session.id() == work.context.id()),
    ]
}

impl Operator for ShowSessions {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            let sessions = work.engine().open_sessions();
            let seen = sessions.iter().filter(|session| may_see(work, session.principal()));
            self.ready = Some(Ready::new(seen.map(|session| session_row(work, session)).collect()));
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}

/// Statements that ended lately, oldest first, then those that run, by session.
#[derive(Default)]
pub(super) struct ShowStatements {
    ready: Option<Ready>,
}

fn statement_row(record: StatementRecord) -> Row {
    let state = match &record.ended {
        None => "running",
        Some(end) if end.code.is_some() => "failed",
        Some(_) => "done",
    };
    let elapsed = record.ended.as_ref().map_or(record.began.elapsed(), |end| end.elapsed);
    let end = record.ended.as_ref();
    vec![
        integer(record.session),
        Value::text(record.principal.to_string()),
        Value::text(record.text),
        Value::text(state),
        Value::Real(record.began.elapsed().as_secs_f64()),
        milliseconds(elapsed),
        end.map_or(Value::Null, |end| integer(end.rows)),
        end.map_or(Value::Null, |end| integer(end.bytes)),
        end.and_then(|end| end.code).map_or(Value::Null, Value::text),
    ]
}

impl Operator for ShowStatements {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            let sessions = work.engine().open_sessions();
            let running = sessions.iter().filter_map(SessionContext::running);
            let all = work.engine().recent_statements().into_iter().chain(running);
            let seen = all.filter(|record| may_see(work, &record.principal));
            self.ready = Some(Ready::new(seen.map(statement_row).collect()));
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}

/// Ends another session.
pub(super) struct Kill {
    session: Option<u64>,
}

impl Kill {
    pub(super) fn new(session: u64) -> Self {
        Self { session: Some(session) }
    }
}

impl Operator for Kill {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(id) = self.session.take() else { return Ok(None) };
        if id == work.context.id() {
            return Err(Failure::new(
                code::INVALID_PARAMETER,
                format!("{id} is the session that asks"),
            )
            .hint("leave it: \\q in the shell"));
        }
        let sessions = work.engine().open_sessions();
        let Some(session) = sessions.iter().find(|session| session.id() == id) else {
            return Err(Failure::new(code::UNDEFINED_OBJECT, format!("there is no session {id}"))
                .hint("SHOW SESSIONS lists them"));
        };
        session.end();
        work.notice(format!("session {id} of {} is ended", session.principal()), "")?;
        Ok(None)
    }
}
