//! The Admin service: the daemon's state, bundled files, reference output, benchmarks.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use larql_compute::cpu::Cancel;
use larql_proto::v1 as wire;
use larql_proto::v1::admin_server::Admin;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::admission::Admission;
use super::listen::Caller;
use super::{cancel_when_gone, convert, guarded};
use crate::edits;
use crate::engine::{self, Engine};
use crate::failure::Failure;
use crate::session::Role;
use crate::{bench, bundled, reference};

/// The service.
#[derive(Debug, Clone)]
pub struct Administration {
    engine: Arc<Engine>,
    door: Admission,
}

impl Administration {
    /// A service over the engine.
    pub(super) fn new(engine: Arc<Engine>, door: Admission) -> Self {
        Self { engine, door }
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
        self.door.identify(&request, Role::Reader, "the daemon's state")?;
        let engine = &self.engine;
        Ok(Response::new(wire::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: engine.started().elapsed().as_secs(),
            sessions: u32::try_from(engine.sessions()).unwrap_or(u32::MAX),
            statements: engine.statements(),
            data_dir: engine.data_dir().display().to_string(),
            threads: u32::try_from(engine.pool().threads()).unwrap_or(u32::MAX),
            pid: std::process::id(),
            batches: engine.batching().states().into_iter().map(convert::batch_status).collect(),
        }))
    }

    async fn unpack_bundled(
        &self,
        request: Request<wire::UnpackBundledRequest>,
    ) -> Result<Response<wire::UnpackBundledResponse>, Status> {
        self.door.identify(&request, Role::Admin, "unpacking a bundled model")?;
        let engine = self.engine.clone();
        let name = request.into_inner().name;
        let path =
            blocking(move || bundled::unpack(&name, &engine.data_dir().join("models"))).await?;
        Ok(Response::new(wire::UnpackBundledResponse { path: path.display().to_string() }))
    }

    async fn wal(
        &self,
        request: Request<wire::WalRequest>,
    ) -> Result<Response<wire::WalResponse>, Status> {
        let (caller, place) = self.door.admit(&request, Role::Admin, "the log of edits")?;
        let engine = self.engine.clone();
        let request = convert::wal_request(request.into_inner());
        let task = engine.begin_task();
        let lines = blocking(move || {
            let _held = (task, place);
            let directory = request.directory.as_deref();
            let resolve = |path: &str| engine.resolve(path, directory, caller.owner);
            let files = engine.files_for(caller.owner);
            edits::wal(&engine, &request.action, &request.model, &request.path, &files, resolve)
        })
        .await?;
        Ok(Response::new(convert::wal_answer(lines)))
    }

    async fn logits(
        &self,
        request: Request<wire::LogitsRequest>,
    ) -> Result<Response<wire::LogitsResponse>, Status> {
        let (caller, place) = self.door.admit(&request, Role::Infer, "reference output")?;
        let engine = self.engine.clone();
        let (model, directory, request) = convert::reference_request(request.into_inner());
        // Dropping this future, as the client going away does, cancels what runs.
        let cancel = Cancel::new();
        let _guard = CancelOnDrop(cancel.clone());
        let task = engine.begin_task();
        let answer = blocking(move || {
            let _held = (task, place);
            let mounted =
                engine.find_model(&model, &from(&caller, directory.as_deref(), &cancel))?;
            reference::reference(&mounted.model, engine.pool(), &request, &cancel)
        })
        .await?;
        Ok(Response::new(convert::reference_answer(answer)))
    }

    async fn bench(
        &self,
        request: Request<wire::BenchRequest>,
    ) -> Result<Response<BenchEvents>, Status> {
        let (caller, place) = self.door.admit(&request, Role::Admin, "a bench")?;
        let engine = self.engine.clone();
        let (model, directory, request) = convert::bench_request(request.into_inner());
        let (events, receiver) = mpsc::channel(16);
        let cancel = Cancel::new();
        let guard = cancel_when_gone(&events, &cancel);
        let task = engine.begin_task();
        tokio::task::spawn_blocking(move || {
            let _held = (guard, task, place);
            let measured = guarded(|| {
                let from = from(&caller, directory.as_deref(), &cancel);
                let mounted = engine.find_model(&model, &from)?;
                bench::bench(&engine, &mounted, &request, &cancel, &mut |line| {
                    let event = wire::bench_event::Event::Progress(line);
                    let _ = events.blocking_send(Ok(wire::BenchEvent { event: Some(event) }));
                })
            });
            let last = measured.map(|json| wire::BenchEvent {
                event: Some(wire::bench_event::Event::Json(json.to_string())),
            });
            let _ = events.blocking_send(last.map_err(|failure| convert::status(&failure)));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn names(
        &self,
        request: Request<wire::NamesRequest>,
    ) -> Result<Response<wire::NamesResponse>, Status> {
        self.door.identify(&request, Role::Reader, "the list of mounts")?;
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

/// Where a call's MODEL argument comes from.
fn from<'a>(caller: &Caller, directory: Option<&'a Path>, cancel: &'a Cancel) -> engine::Place<'a> {
    engine::Place { directory, role: caller.role, owner: caller.owner, cancel }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Status> {
    let defect = |_| Status::internal("XX000: the call met a defect of larqld; the daemon goes on");
    let result = tokio::task::spawn_blocking(work).await.map_err(defect)?;
    result.map_err(|failure| convert::status(&failure))
}
