//! A client's session as a state machine: frames and time in, actions out.
//!
//! The machine decides what the protocol allows: that Hello comes first and in time, that versions
//! meet, that scripts run one after the other in the order of their arrival, that a cancel reaches a
//! running or a queued script, that a client that is gone leaves nothing running, and that draining
//! lets what runs come to its end. It holds no socket, task, clock or lock; `server::grpc` turns its
//! crank, and so can a test.
//!
//! Elsewhere: what a script does (`exec`), bytes on the wire (`server`).

mod frame;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use frame::{ClientFrame, Hello, Refusal, Script, Welcome};

use crate::failure::{Failure, code};

/// How long a client may take to say Hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How many scripts may wait behind the running one.
pub const QUEUE_MAX: usize = 64;

/// What a session may do. Each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads knowledge: DESCRIBE, WALK, SELECT, SHOW, STATS.
    Reader,
    /// Also runs the model: INFER, generation.
    Infer,
    /// Also edits knowledge.
    Editor,
    /// Also mounts, extracts and administers.
    Admin,
}

impl Role {
    /// The role's name, as in configuration and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Infer => "infer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Reader, Self::Infer, Self::Editor, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
}

/// Who a caller is, for as long as it is nobody else: what one principal computed is shared with no other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A user of this machine, over the unix socket.
    Uid(u32),
    /// Who shows the token of that name.
    Token(Arc<str>),
    /// Any caller on the loopback interface that shows no token.
    Loopback,
    /// The daemon itself, for benches.
    Daemon,
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Token(name) => f.write_str(name),
            Self::Loopback => f.write_str("loopback"),
            Self::Daemon => f.write_str("larqld"),
        }
    }
}

/// Refuses what a role does not allow: the one place where roles decide.
///
/// # Errors
/// `FORBIDDEN`, naming `what` and both roles.
pub fn require(role: Role, required: Role, what: &str) -> Result<(), Failure> {
    if role >= required {
        return Ok(());
    }
    let message =
        format!("{what} needs the role {}, this caller has {}", required.as_str(), role.as_str());
    Err(Failure::new(code::FORBIDDEN, message)
        .hint("connect over the unix socket, or show a token of that role"))
}

/// What the machine asks its surroundings to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Send the handshake's answer.
    Welcome(Welcome),
    /// Send a refusal; a [`Action::Close`] follows.
    Refuse(Refusal),
    /// Begin this script; answer with [`Session::handle_finished`] when it is over.
    Start(Script),
    /// Tell the running script to stop.
    Stop {
        /// The script's id.
        id: u64,
    },
    /// Answer a script that will not run.
    Fail {
        /// The script's id.
        id: u64,
        /// Why it will not run.
        failure: Failure,
    },
    /// End the stream.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Waiting for Hello until the given time.
    New {
        until: Option<Instant>,
    },
    Open,
    /// The client sends nothing more; what it sent is finished first.
    Finishing,
    Closed,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    id: u64,
    role: Role,
    state: State,
    running: Option<u64>,
    stopping: bool,
    queue: VecDeque<Script>,
    actions: VecDeque<Action>,
}

impl Session {
    /// A session of a caller with that role, before its handshake.
    pub fn new(id: u64, role: Role, now: Instant) -> Self {
        Self {
            id,
            role,
            state: State::New { until: now.checked_add(HELLO_TIMEOUT) },
            running: None,
            stopping: false,
            queue: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// The session's id, unique in the daemon's life.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Takes a frame from the client.
    pub fn handle_frame(&mut self, frame: ClientFrame, _now: Instant) {
        match (self.state, frame) {
            (State::Closed, _) => {}
            (State::New { .. }, ClientFrame::Hello(hello)) => self.greet(&hello),
            (State::New { .. }, _) => self.refuse(code::PROTOCOL, "the first frame must be Hello"),
            (_, ClientFrame::Hello(_)) => self.refuse(code::PROTOCOL, "Hello was already said"),
            (_, ClientFrame::Execute(script)) => self.enqueue(script),
            (_, ClientFrame::Cancel { id }) => self.cancel(id),
            (_, ClientFrame::Unknown) => self.refuse(code::PROTOCOL, "an empty or unknown frame"),
        }
    }

    /// Takes the news that the running script is over.
    pub fn handle_finished(&mut self, id: u64) {
        debug_assert_eq!(self.running, Some(id), "a script ended that was not running");
        self.running = None;
        self.stopping = false;
        if self.state != State::Closed {
            self.start_next();
        }
    }

    /// The client closed its sending side in good order: what it asked for is finished.
    pub fn handle_half_close(&mut self) {
        match self.state {
            State::New { .. } => self.close(),
            State::Open => {
                self.state = State::Finishing;
                self.start_next();
            }
            State::Finishing | State::Closed => {}
        }
    }

    /// The client is gone: nothing of its is worth going on with.
    pub fn handle_gone(&mut self) {
        self.queue.clear();
        if let Some(id) = self.running {
            self.stop(id);
        }
        self.close();
    }

    /// Somebody ended the session: nothing goes on, and the client is told.
    pub fn handle_end(&mut self) {
        if self.state != State::Closed {
            self.refuse(code::CANCELLED, "the session was ended by KILL");
        }
    }

    /// The daemon is about to stop: the running script may end, queued ones are refused.
    pub fn handle_drain(&mut self) {
        for script in std::mem::take(&mut self.queue) {
            let failure = Failure::new(code::SHUTTING_DOWN, "the daemon is shutting down")
                .hint("run the script again when it is back");
            self.actions.push_back(Action::Fail { id: script.id, failure });
        }
        match self.state {
            State::New { .. } => self.refuse(code::SHUTTING_DOWN, "the daemon is shutting down"),
            State::Open => {
                self.state = State::Finishing;
                self.start_next();
            }
            State::Finishing | State::Closed => {}
        }
    }

    /// Takes the time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let State::New { until: Some(until) } = self.state
            && now >= until
        {
            self.refuse(code::PROTOCOL, "no Hello came");
        }
    }

    /// When [`Session::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::New { until } => until,
            _ => None,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn greet(&mut self, hello: &Hello) {
        let version = hello.version_max.min(larql_proto::VERSION_MAX);
        if version < hello.version_min.max(larql_proto::VERSION_MIN) {
            let message = format!(
                "the client speaks protocol versions {} to {}, this daemon {} to {}",
                hello.version_min,
                hello.version_max,
                larql_proto::VERSION_MIN,
                larql_proto::VERSION_MAX
            );
            self.refuse(code::PROTOCOL, &message);
            return;
        }
        self.state = State::Open;
        let welcome = Welcome { version, session_id: self.id, role: self.role };
        self.actions.push_back(Action::Welcome(welcome));
    }

    fn enqueue(&mut self, script: Script) {
        if self.state == State::Finishing {
            let failure = Failure::new(code::SHUTTING_DOWN, "the session is ending");
            self.actions.push_back(Action::Fail { id: script.id, failure });
        } else if self.queue.len() >= QUEUE_MAX {
            let failure =
                Failure::new(code::OVERLOADED, format!("{QUEUE_MAX} scripts wait already"))
                    .hint("wait for answers before sending more");
            self.actions.push_back(Action::Fail { id: script.id, failure });
        } else {
            self.queue.push_back(script);
            self.start_next();
        }
    }

    fn cancel(&mut self, id: u64) {
        if self.running == Some(id) {
            self.stop(id);
        } else if let Some(index) = self.queue.iter().position(|script| script.id == id) {
            self.queue.remove(index);
            self.actions.push_back(Action::Fail { id, failure: Failure::cancelled() });
        }
    }

    fn stop(&mut self, id: u64) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.actions.push_back(Action::Stop { id });
        }
    }

    fn start_next(&mut self) {
        if self.running.is_some() {
            return;
        }
        if let Some(script) = self.queue.pop_front() {
            self.running = Some(script.id);
            self.actions.push_back(Action::Start(script));
        } else if self.state == State::Finishing {
            self.close();
        }
    }

    fn refuse(&mut self, code: &'static str, message: &str) {
        let refusal = Refusal {
            code,
            message: message.to_owned(),
            hint: match code {
                code::PROTOCOL => "use a client of the same release as the daemon".to_owned(),
                _ => String::new(),
            },
        };
        self.actions.push_back(Action::Refuse(refusal));
        if let Some(id) = self.running {
            self.stop(id);
        }
        self.queue.clear();
        self.close();
    }

    fn close(&mut self) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.actions.push_back(Action::Close);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version_min: u32, version_max: u32) -> ClientFrame {
        ClientFrame::Hello(Hello { version_min, version_max, client: "test".to_owned() })
    }

    fn script(id: u64) -> ClientFrame {
        ClientFrame::Execute(Script { id, ..Script::default() })
    }

    fn actions(session: &mut Session) -> Vec<Action> {
        std::iter::from_fn(|| session.poll_action()).collect()
    }

    fn open_session() -> (Session, Instant) {
        let now = Instant::now();
        let mut session = Session::new(7, Role::Admin, now);
        session.handle_frame(hello(1, 1), now);
        assert!(
            matches!(&actions(&mut session)[..], [Action::Welcome(w)] if w.version == 1 && w.session_id == 7)
        );
        (session, now)
    }

    #[test]
    fn scripts_run_one_after_the_other_in_the_order_they_came() {
        let (mut session, now) = open_session();
        session.handle_frame(script(1), now);
        session.handle_frame(script(2), now);
        assert!(matches!(&actions(&mut session)[..], [Action::Start(s)] if s.id == 1));
        session.handle_finished(1);
        assert!(matches!(&actions(&mut session)[..], [Action::Start(s)] if s.id == 2));
    }

    #[test]
    fn a_script_before_hello_is_refused() {
        let now = Instant::now();
        let mut session = Session::new(1, Role::Admin, now);
        session.handle_frame(script(1), now);
        assert!(
            matches!(&actions(&mut session)[..], [Action::Refuse(r), Action::Close] if r.code == code::PROTOCOL)
        );
    }

    #[test]
    fn versions_that_do_not_meet_are_refused_by_number() {
        let now = Instant::now();
        let mut session = Session::new(1, Role::Admin, now);
        session.handle_frame(hello(7, 9), now);
        let actions = actions(&mut session);
        assert!(
            matches!(&actions[..], [Action::Refuse(r), Action::Close] if r.message.contains("7 to 9")),
            "{actions:?}"
        );
    }

    #[test]
    fn a_newer_client_is_answered_with_our_newest_version() {
        let now = Instant::now();
        let mut session = Session::new(1, Role::Admin, now);
        session.handle_frame(hello(1, 99), now);
        assert!(
            matches!(&actions(&mut session)[..], [Action::Welcome(w)] if w.version == larql_proto::VERSION_MAX)
        );
    }

    #[test]
    fn a_client_that_says_nothing_is_refused_in_time() {
        let now = Instant::now();
        let mut session = Session::new(1, Role::Admin, now);
        assert_eq!(session.poll_timeout(), Some(now + HELLO_TIMEOUT));
        session.handle_timeout(now + HELLO_TIMEOUT / 2);
        assert_eq!(session.poll_action(), None);
        session.handle_timeout(now + HELLO_TIMEOUT);
        assert!(matches!(&actions(&mut session)[..], [Action::Refuse(_), Action::Close]));
    }

    #[test]
    fn cancel_stops_the_running_script_once() {
        let (mut session, now) = open_session();
        session.handle_frame(script(1), now);
        actions(&mut session);
        session.handle_frame(ClientFrame::Cancel { id: 1 }, now);
        session.handle_frame(ClientFrame::Cancel { id: 1 }, now);
        assert_eq!(actions(&mut session), [Action::Stop { id: 1 }]);
    }

    #[test]
    fn cancel_of_a_queued_script_answers_it_and_leaves_the_others() {
        let (mut session, now) = open_session();
        for id in 1..4 {
            session.handle_frame(script(id), now);
        }
        actions(&mut session);
        session.handle_frame(ClientFrame::Cancel { id: 2 }, now);
        assert!(
            matches!(&actions(&mut session)[..], [Action::Fail { id: 2, failure }] if failure.code == code::CANCELLED)
        );
        session.handle_finished(1);
        assert!(matches!(&actions(&mut session)[..], [Action::Start(s)] if s.id == 3));
    }

    #[test]
    fn a_client_that_is_gone_leaves_nothing_running_or_queued() {
        let (mut session, now) = open_session();
        session.handle_frame(script(1), now);
        session.handle_frame(script(2), now);
        actions(&mut session);
        session.handle_gone();
        assert_eq!(actions(&mut session), [Action::Stop { id: 1 }, Action::Close]);
        session.handle_finished(1);
        assert_eq!(session.poll_action(), None);
    }

    #[test]
    fn a_session_that_is_ended_stops_what_runs_tells_its_client_and_closes() {
        let (mut session, now) = open_session();
        session.handle_frame(script(1), now);
        session.handle_frame(script(2), now);
        actions(&mut session);
        session.handle_end();
        let told = actions(&mut session);
        let [Action::Refuse(refusal), Action::Stop { id: 1 }, Action::Close] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(refusal.code, code::CANCELLED);
        session.handle_end();
        assert_eq!(session.poll_action(), None);
    }

    #[test]
    fn a_half_closed_session_finishes_what_was_asked() {
        let (mut session, now) = open_session();
        session.handle_frame(script(1), now);
        session.handle_frame(script(2), now);
        session.handle_half_close();
        assert!(matches!(&actions(&mut session)[..], [Action::Start(_)]));
        session.handle_finished(1);
        assert!(matches!(&actions(&mut session)[..], [Action::Start(_)]));
        session.handle_finished(2);
        assert_eq!(actions(&mut session), [Action::Close]);
    }

    #[test]
    fn draining_ends_an_idle_session_and_lets_a_running_script_end() {
        let (mut session, _) = open_session();
        session.handle_drain();
        assert_eq!(actions(&mut session), [Action::Close]);

        let (mut session, now) = open_session();
        session.handle_frame(script(1), now);
        session.handle_frame(script(2), now);
        actions(&mut session);
        session.handle_drain();
        assert!(matches!(&actions(&mut session)[..], [Action::Fail { id: 2, .. }]));
        session.handle_finished(1);
        assert_eq!(actions(&mut session), [Action::Close]);
    }

    #[test]
    fn a_queue_that_is_full_refuses_the_next_script_and_keeps_the_rest() {
        let (mut session, now) = open_session();
        for id in 0..QUEUE_MAX as u64 + 2 {
            session.handle_frame(script(id), now);
        }
        let last = actions(&mut session).pop();
        assert!(
            matches!(last, Some(Action::Fail { id, .. }) if id == QUEUE_MAX as u64 + 1),
            "{last:?}"
        );
    }
}
