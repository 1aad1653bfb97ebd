//! The Generate service: streams tokens as they are made.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use larql_compute::cpu::Cancel;
use larql_proto::v1 as wire;
use larql_proto::v1::generate_server::Generate;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::admission::Admission;
use super::listen::Caller;
use super::{cancel_when_gone, convert, guarded};
use crate::engine::{self, Engine};
use crate::failure::Failure;
use crate::generation;
use crate::session::Role;

/// Events that may wait for a client that reads slowly.
const EVENTS_AHEAD: usize = 32;

/// The service.
#[derive(Debug, Clone)]
pub struct Generation {
    engine: Arc<Engine>,
    door: Admission,
}

impl Generation {
    /// A service over the engine.
    pub(super) fn new(engine: Arc<Engine>, door: Admission) -> Self {
        Self { engine, door }
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<wire::GenerateEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Generate for Generation {
    type GenerateStream = Events;

    async fn generate(
        &self,
        request: Request<wire::GenerateRequest>,
    ) -> Result<Response<Events>, Status> {
        let (caller, place) = self.door.admit(&request, Role::Infer, "generation")?;
        let message = request.into_inner();
        let (events, receiver) = mpsc::channel(EVENTS_AHEAD);
        let cancel = Cancel::new();
        let engine = self.engine.clone();
        let guard = cancel_when_gone(&events, &cancel);
        let task = engine.begin_task();
        tokio::task::spawn_blocking(move || {
            let _held = (guard, task, place);
            let result = guarded(|| run(&engine, message, &caller, &cancel, &events));
            let _ = events.blocking_send(result.map_err(|failure| convert::status(&failure)));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Generates; the tokens go into `events`, the end is returned.
fn run(
    engine: &Engine,
    message: wire::GenerateRequest,
    caller: &Caller,
    cancel: &Cancel,
    events: &mpsc::Sender<Result<wire::GenerateEvent, Status>>,
) -> Result<wire::GenerateEvent, Failure> {
    let (model, directory, request) = convert::generate_request(message)?;
    let from = engine::Place {
        directory: directory.as_deref(),
        role: caller.role,
        owner: caller.owner,
        cancel,
    };
    let mounted = engine.find_model(&model, &from)?;
    let pool = engine.pool();
    let done =
        generation::generate(&mounted.model, pool, &request, cancel, &mut |event| match events
            .blocking_send(Ok(convert::token(event)))
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })?;
    Ok(convert::generated(&done, mounted.model.base_hash()))
}
