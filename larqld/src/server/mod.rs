//! All network I/O and no decisions: listeners, gRPC services, wire types.
//!
//! `grpc` turns the crank of `session::Session`; `convert` is the only file that knows both wire and
//! domain types; `listen` opens sockets and tells who is calling.

mod admin;
mod convert;
mod generate;
mod grpc;
mod listen;

use std::sync::Arc;

use tokio::sync::watch;
use tonic::transport::Server;

use crate::config::Config;
use crate::engine::Engine;

pub use listen::{Callers, ListenError, Listeners};

use larql_proto::v1::admin_server::AdminServer;
use larql_proto::v1::generate_server::GenerateServer;
use larql_proto::v1::session_server::SessionServer;

/// Bytes that one message from a client may have.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Serves every listener until `drain` turns true and the last session is over.
///
/// # Errors
/// When a listener fails for good.
pub async fn serve(
    config: &Config,
    engine: Arc<Engine>,
    callers: Arc<Callers>,
    listeners: Listeners,
    drain: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<SessionServer<grpc::Sessions>>().await;
    health.set_serving::<GenerateServer<generate::Generation>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(larql_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let sessions =
        grpc::Sessions::new(engine.clone(), callers.clone(), drain.clone(), config.sessions_max);
    let generation = generate::Generation::new(engine.clone(), callers.clone());
    let admin = admin::Administration::new(engine, callers);
    let router = || {
        Server::builder()
            .http2_keepalive_interval(Some(std::time::Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(std::time::Duration::from_secs(20)))
            .max_concurrent_streams(Some(256))
            .add_service(health_service.clone())
            .add_service(reflection.clone())
            .add_service(
                SessionServer::new(sessions.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            )
            .add_service(
                GenerateServer::new(generation.clone())
                    .max_decoding_message_size(MESSAGE_BYTES_MAX),
            )
            .add_service(
                AdminServer::new(admin.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            )
    };
    let drained = |mut drain: watch::Receiver<bool>| async move {
        // A dropped sender means that nobody can ask any more: drain as well.
        let _ = drain.wait_for(|&draining| draining).await;
    };
    let mut servers = tokio::task::JoinSet::new();
    servers.spawn(router().serve_with_incoming_shutdown(listeners.unix, drained(drain.clone())));
    for listener in listeners.tcp {
        servers.spawn(router().serve_with_incoming_shutdown(listener, drained(drain.clone())));
    }
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    Ok(())
}

/// A failure as a gRPC status. Its message begins with the five-character code; the hint travels in
/// the metadata `larql-hint`.
fn status(failure: &crate::failure::Failure) -> tonic::Status {
    use crate::failure::code;
    use tonic::Code;
    let grpc = match failure.code {
        code::NOT_SUPPORTED => Code::Unimplemented,
        code::UNAUTHENTICATED => Code::Unauthenticated,
        code::FORBIDDEN => Code::PermissionDenied,
        code::UNDEFINED_OBJECT | code::NO_SUCH_FILE => Code::NotFound,
        code::EXISTS => Code::AlreadyExists,
        code::CANCELLED => Code::Cancelled,
        code::OVERLOADED | code::DISK_FULL => Code::ResourceExhausted,
        code::MISSING_COMPONENT | code::BUSY | code::NO_MOUNT_IN_USE => Code::FailedPrecondition,
        code::DAMAGED => Code::DataLoss,
        code::SHUTTING_DOWN => Code::Unavailable,
        code::INTERNAL | code::IO => Code::Internal,
        _ => Code::InvalidArgument,
    };
    let mut status = tonic::Status::new(grpc, format!("{}: {}", failure.code, failure.message));
    if let Ok(hint) = failure.hint.parse() {
        status.metadata_mut().insert("larql-hint", hint);
    }
    status
}

/// Cancels when whoever reads from `events` is gone. The watch ends with the returned guard, which
/// the worker drops when it is done, so that the stream can end.
fn cancel_when_gone<T: Send + 'static>(
    events: &tokio::sync::mpsc::Sender<T>,
    cancel: &larql_compute::cpu::Cancel,
) -> tokio::sync::oneshot::Sender<()> {
    let (guard, done) = tokio::sync::oneshot::channel();
    let (events, cancel) = (events.clone(), cancel.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = events.closed() => cancel.cancel(),
            _ = done => {}
        }
    });
    guard
}
