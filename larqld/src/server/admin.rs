//! The Admin service: the daemon's state, bundled files, reference output, benchmarks.

use std::pin::Pin;
use std::sync::Arc;

use larql_compute::cpu::Cancel;
use larql_proto::v1 as wire;
use larql_proto::v1::admin_server::Admin;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::grpc::working_directory;
use super::listen::{Caller, Callers};
use super::{cancel_when_gone, status};
use crate::engine::Engine;
use crate::failure::{Failure, code};
use crate::session::Role;
use crate::{bench, bundled, reference};

/// The service.
#[derive(Debug, Clone)]
pub struct Administration {
    engine: Arc<Engine>,
    callers: Arc<Callers>,
}

impl Administration {
    /// A service over the engine.
    pub fn new(engine: Arc<Engine>, callers: Arc<Callers>) -> Self {
        Self { engine, callers }
    }

    fn require<T>(&self, request: &Request<T>, role: Role) -> Result<Caller, Status> {
        let caller = self.callers.identify(request)?;
        if caller.role >= role {
            return Ok(caller);
        }
        let message = format!(
            "this needs the role {}, the caller has {}",
            role.as_str(),
            caller.role.as_str()
        );
        Err(status(&Failure::new(code::FORBIDDEN, message)))
    }
}

type BenchEvents = Pin<Box<dyn Stream<Item = Result<wire::BenchEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Admin for Administration {
    type BenchStream = BenchEvents;

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        self.require(&request, Role::Reader)?;
        let engine = &self.engine;
        Ok(Response::new(wire::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: engine.started().elapsed().as_secs(),
            sessions: u32::try_from(engine.sessions()).unwrap_or(u32::MAX),
            statements: engine.statements(),
            data_dir: engine.data_dir().display().to_string(),
            threads: u32::try_from(engine.pool().threads()).unwrap_or(u32::MAX),
            pid: std::process::id(),
        }))
    }

    async fn unpack_bundled(
        &self,
        request: Request<wire::UnpackBundledRequest>,
    ) -> Result<Response<wire::UnpackBundledResponse>, Status> {
        self.require(&request, Role::Admin)?;
        let engine = self.engine.clone();
        let name = request.into_inner().name;
        let path =
            blocking(move || bundled::unpack(&name, &engine.data_dir().join("models"))).await?;
        Ok(Response::new(wire::UnpackBundledResponse { path: path.display().to_string() }))
    }

    async fn logits(
        &self,
        request: Request<wire::LogitsRequest>,
    ) -> Result<Response<wire::LogitsResponse>, Status> {
        let caller = self.require(&request, Role::Infer)?;
        let engine = self.engine.clone();
        let message = request.into_inner();
        // Dropping this future, as the client going away does, cancels what runs.
        let cancel = Cancel::new();
        let _guard = CancelOnDrop(cancel.clone());
        let _task = engine.begin_task();
        let answer = blocking(move || {
            let base = working_directory(&message.working_directory);
            let mounted = engine.find_model(&message.model, base.as_deref(), caller.owner)?;
            let request = reference::Request {
                token_ids: message.token_ids,
                greedy_tokens: message.greedy_tokens,
                fast: message.fast,
            };
            reference::reference(&mounted.model, engine.pool(), &request, &cancel)
        })
        .await?;
        Ok(Response::new(wire::LogitsResponse {
            logits: answer.logits,
            layers: (0..)
                .zip(answer.layers)
                .map(|(layer, residual)| wire::LayerResidual {
                    layer,
                    norm: residual.norm,
                    first8: residual.first8,
                })
                .collect(),
            greedy: answer.greedy,
        }))
    }

    async fn bench(
        &self,
        request: Request<wire::BenchRequest>,
    ) -> Result<Response<BenchEvents>, Status> {
        let caller = self.require(&request, Role::Infer)?;
        let engine = self.engine.clone();
        let message = request.into_inner();
        let (events, receiver) = mpsc::channel(16);
        let cancel = Cancel::new();
        let guard = cancel_when_gone(&events, &cancel);
        let task = engine.begin_task();
        tokio::task::spawn_blocking(move || {
            let _held = (guard, task);
            let run = || {
                let base = working_directory(&message.working_directory);
                let mounted = engine.find_model(&message.model, base.as_deref(), caller.owner)?;
                let request = bench::Request {
                    kind: message.kind.clone(),
                    tokens: message.tokens,
                    context: message.context,
                    runs: message.runs,
                    threads: message.threads,
                };
                bench::bench(&engine, &mounted, &request, &cancel, &mut |line| {
                    let event =
                        wire::BenchEvent { event: Some(wire::bench_event::Event::Progress(line)) };
                    let _ = events.blocking_send(Ok(event));
                })
            };
            let last = match run() {
                Ok(json) => Ok(wire::BenchEvent {
                    event: Some(wire::bench_event::Event::Json(json.to_string())),
                }),
                Err(failure) => Err(status(&failure)),
            };
            let _ = events.blocking_send(last);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn names(
        &self,
        request: Request<wire::NamesRequest>,
    ) -> Result<Response<wire::NamesResponse>, Status> {
        self.require(&request, Role::Reader)?;
        let mounts = self.engine.mounts().keys().cloned().collect();
        Ok(Response::new(wire::NamesResponse { mounts }))
    }
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Status> {
    let defect = |_| Status::internal("XX000: the call met a defect of larqld; the daemon goes on");
    tokio::task::spawn_blocking(work).await.map_err(defect)?.map_err(|failure| status(&failure))
}
