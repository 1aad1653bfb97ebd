//! The Session service: one task a session, which turns the crank of `session::Session`.
//!
//! Frames from the client go into the machine; its actions become frames to the client or a script
//! on a blocking thread. A script writes its answer straight into the client's bounded channel, so a
//! client that reads slowly slows its own script down and nobody else; a client that is gone closes
//! the channel, which the task sees at once and tells the script to stop.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larql_compute::cpu::Cancel;
use larql_proto::v1 as wire;
use larql_proto::v1::session_server::Session as SessionService;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::admission::{Admission, Place};
use super::convert;
use super::listen::Caller;
use crate::engine::{Engine, SessionContext};
use crate::exec::{Output, OutputSink, SinkClosed};
use crate::session::{Action, Role, Script, Session};

/// Frames that may wait for a client that reads slowly, before its script has to wait.
const FRAMES_AHEAD: usize = 8;

/// The service.
#[derive(Debug, Clone)]
pub struct Sessions {
    engine: Arc<Engine>,
    door: Admission,
    drain: watch::Receiver<bool>,
    next_id: Arc<AtomicU64>,
}

impl Sessions {
    /// A service over the engine.
    pub(super) fn new(engine: Arc<Engine>, door: Admission, drain: watch::Receiver<bool>) -> Self {
        Self { engine, door, drain, next_id: Arc::new(AtomicU64::new(1)) }
    }
}

type Frames = Pin<Box<dyn Stream<Item = Result<wire::ServerFrame, Status>> + Send>>;

#[tonic::async_trait]
impl SessionService for Sessions {
    type OpenStream = Frames;

    async fn open(
        &self,
        request: Request<Streaming<wire::ClientFrame>>,
    ) -> Result<Response<Frames>, Status> {
        let (caller, place) = self.door.admit(&request, Role::Reader, "a session")?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (frames, receiver) = mpsc::channel(FRAMES_AHEAD);
        let drive = Drive {
            session: Session::new(id, caller.role, Instant::now()),
            context: self.engine.open_session(id, &caller.principal, caller.role, caller.owner),
            frames,
            running: None,
            _place: place,
        };
        let inbound = request.into_inner();
        tokio::spawn(drive.run(inbound, self.drain.clone(), caller));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// A script on its thread.
struct Running {
    id: u64,
    cancel: Cancel,
    over: oneshot::Receiver<()>,
}

struct Drive {
    session: Session,
    context: SessionContext,
    frames: mpsc::Sender<Result<wire::ServerFrame, Status>>,
    running: Option<Running>,
    _place: Place,
}

impl Drive {
    async fn run(
        mut self,
        mut inbound: Streaming<wire::ClientFrame>,
        mut drain: watch::Receiver<bool>,
        caller: Caller,
    ) {
        tracing::debug!(session = self.session.id(), caller = %caller.principal, "session opened");
        let (mut reading, mut draining, mut gone) = (true, false, false);
        let (context, mut ended) = (self.context.clone(), false);
        loop {
            if !self.perform_actions().await {
                break;
            }
            let timeout = self.session.poll_timeout().map(tokio::time::Instant::from_std);
            let idle = tokio::time::Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                () = finished(&mut self.running) => {
                    if let Some(running) = self.running.take() {
                        self.session.handle_finished(running.id);
                    }
                }
                () = context.until_ended(), if !ended => {
                    ended = true;
                    self.session.handle_end();
                }
                () = self.frames.closed(), if !gone => {
                    gone = true;
                    self.session.handle_gone();
                }
                frame = inbound.message(), if reading => match frame {
                    Ok(Some(frame)) => {
                        let now = Instant::now();
                        self.session.handle_frame(convert::client_frame(frame, now), now);
                    }
                    Ok(None) => {
                        reading = false;
                        self.session.handle_half_close();
                    }
                    Err(_) => {
                        reading = false;
                        self.session.handle_gone();
                    }
                },
                changed = drain.wait_for(|&draining| draining), if !draining => {
                    draining = true;
                    drop(changed);
                    self.session.handle_drain();
                }
                () = tokio::time::sleep_until(timeout.unwrap_or(idle)) => {
                    self.session.handle_timeout(Instant::now());
                }
            }
        }
        // The machine is closed; a script that still runs was told to stop, and holds the session's
        // place until it has.
        if let Some(running) = self.running.take() {
            running.cancel.cancel();
            let _ = running.over.await;
        }
        tracing::debug!(session = self.session.id(), "session closed");
    }

    /// Does what the machine asks; false when it asks to end the stream.
    async fn perform_actions(&mut self) -> bool {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Welcome(welcome) => self.send(convert::welcome(&welcome)).await,
                Action::Refuse(refusal) => {
                    tracing::info!(
                        session = self.session.id(),
                        code = refusal.code,
                        "refused: {}",
                        refusal.message
                    );
                    self.send(convert::refused(&refusal)).await;
                }
                Action::Fail { id, failure } => {
                    self.send(convert::failure(id, 0, "", &failure)).await;
                    self.send(convert::finished(id, 0, true)).await;
                }
                Action::Stop { id } => {
                    if let Some(running) = self.running.as_ref().filter(|running| running.id == id)
                    {
                        running.cancel.cancel();
                    }
                }
                Action::Start(script) => self.start(script),
                Action::Close => return false,
            }
        }
        true
    }

    async fn send(&self, frame: wire::ServerFrame) {
        // A closed channel is noticed by `closed()` in the loop.
        let _ = self.frames.send(Ok(frame)).await;
    }

    fn start(&mut self, script: Script) {
        let cancel = match script.deadline {
            Some(deadline) => Cancel::new().with_deadline(deadline),
            None => Cancel::new(),
        };
        let (tell, over) = oneshot::channel();
        self.running = Some(Running { id: script.id, cancel: cancel.clone(), over });
        let sink =
            FrameSink { id: script.id, text: script.text.clone(), frames: self.frames.clone() };
        let context = self.context.clone();
        tokio::task::spawn_blocking(move || {
            // Dropping `tell` says as much as sending: the script is over, even by a panic.
            let _tell = tell;
            crate::exec::run_script(&context, &script, &cancel, &sink);
        });
    }
}

async fn finished(running: &mut Option<Running>) {
    match running {
        Some(running) => {
            let _ = (&mut running.over).await;
        }
        None => std::future::pending().await,
    }
}

/// Sends a script's answer to its client; blocks its thread while the client has enough to read.
struct FrameSink {
    id: u64,
    text: String,
    frames: mpsc::Sender<Result<wire::ServerFrame, Status>>,
}

impl OutputSink for FrameSink {
    fn send(&self, output: Output) -> Result<(), SinkClosed> {
        let frame = convert::output(self.id, &self.text, output);
        self.frames.blocking_send(Ok(frame)).map_err(|_| SinkClosed)
    }
}
