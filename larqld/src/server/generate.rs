//! The Generate service: streams tokens as they are made.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use larql_compute::cpu::Cancel;
use larql_proto::v1 as wire;
use larql_proto::v1::generate_server::Generate;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::admission::Admission;
use super::listen::Caller;
use super::{cancel_when_gone, convert, guarded};
use larql_storage::store::MAIN;

use crate::batch;
use crate::editing::applied::Identity;
use crate::engine::{self, Engine};
use crate::failure::Failure;
use crate::generation::speculation::SpeculationKind;
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
        let cancel = match convert::call_deadline(request.metadata(), Instant::now()) {
            Some(deadline) => Cancel::new().with_deadline(deadline),
            None => Cancel::new(),
        };
        let message = request.into_inner();
        let (events, receiver) = mpsc::channel(EVENTS_AHEAD);
        let engine = self.engine.clone();
        let guard = cancel_when_gone(&events, &cancel);
        let task = engine.begin_task();
        let held = Box::new((guard, task, place));
        tokio::task::spawn_blocking(move || {
            let begun = guarded(|| begin(&engine, message, &caller, &cancel, &events, held));
            if let Err(failure) = begun {
                let _ = events.blocking_send(Err(failure));
            }
        });
        let events = ReceiverStream::new(receiver).map(|event| match event {
            Ok(event) => Ok(convert::generate_event(event)),
            Err(failure) => Err(convert::status(&failure)),
        });
        Ok(Response::new(Box::pin(events)))
    }
}

/// Begins a generation, whose end, good or bad, comes with its events.
fn begin(
    engine: &Engine,
    message: wire::GenerateRequest,
    caller: &Caller,
    cancel: &Cancel,
    events: &batch::Events,
    held: Box<dyn Any + Send>,
) -> Result<(), Failure> {
    let (model, directory, mut request) = convert::generate_request(message)?;
    let from = engine::Place {
        directory: directory.as_deref(),
        role: caller.role,
        owner: caller.owner,
        cancel,
    };
    let model = &engine.find_model(&model, &from)?.model;
    if let Some(SpeculationKind::Draft(name)) = request.speculation.as_ref().map(|each| &each.kind)
    {
        request.draft = Some(engine.find_model(name, &from)?.model.clone());
    }
    let view = engine.edits().view(model.base_hash(), MAIN)?;
    let identity = Identity::of(view.identity());
    request.edits = model.kept_edits().applied(model, view.overlay(), &identity)?;
    let batching = engine.batching();
    batching.generate(model, &caller.principal, &request, cancel, events.clone(), held)
}
