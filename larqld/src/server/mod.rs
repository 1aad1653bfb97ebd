//! All network I/O and no decisions: listeners, gRPC services, wire types.
//!
//! `grpc` turns the crank of `session::Session`; `convert` is the only file that knows both wire and
//! domain types; `listen` opens sockets and tells who is calling.

mod admin;
mod admission;
mod convert;
mod generate;
mod grpc;
mod listen;

use std::sync::Arc;

use tokio::sync::watch;
use tonic::transport::Server;

use crate::config::Config;
use crate::engine::Engine;
use crate::failure::{Failure, code};

pub use listen::{Callers, ListenError, Listeners};

use larql_proto::REQUEST_BYTES_MAX;
use larql_proto::v1::admin_server::AdminServer;
use larql_proto::v1::generate_server::GenerateServer;
use larql_proto::v1::session_server::SessionServer;

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
    health.set_serving::<AdminServer<admin::Administration>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(larql_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let door = admission::Admission::new(callers, config.sessions_max);
    let sessions = grpc::Sessions::new(engine.clone(), door.clone(), drain.clone());
    let generation = generate::Generation::new(engine.clone(), door.clone());
    let admin = admin::Administration::new(engine, door);
    let router = || {
        Server::builder()
            .http2_keepalive_interval(Some(std::time::Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(std::time::Duration::from_secs(20)))
            .max_concurrent_streams(Some(256))
            .add_service(health_service.clone())
            .add_service(reflection.clone())
            .add_service(
                SessionServer::new(sessions.clone()).max_decoding_message_size(REQUEST_BYTES_MAX),
            )
            .add_service(
                GenerateServer::new(generation.clone())
                    .max_decoding_message_size(REQUEST_BYTES_MAX),
            )
            .add_service(
                AdminServer::new(admin.clone()).max_decoding_message_size(REQUEST_BYTES_MAX),
            )
    };
    // Whoever asks for health while the daemon drains should go elsewhere.
    let mut leaving = drain.clone();
    tokio::spawn(async move {
        let _ = leaving.wait_for(|&draining| draining).await;
        health.set_not_serving::<SessionServer<grpc::Sessions>>().await;
        health.set_not_serving::<GenerateServer<generate::Generation>>().await;
    });
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

/// Runs a call so that a panic fails the call and nothing else.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Failure::new(code::INTERNAL, "the call met a defect of larqld; the daemon goes on"))
    })
}
