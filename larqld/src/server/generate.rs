//! The Generate service: streams tokens as they are made.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use larql_compute::cpu::Cancel;
use larql_compute::sample::SamplerOptions;
use larql_proto::v1 as wire;
use larql_proto::v1::generate_server::Generate;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::grpc::working_directory;
use super::listen::Callers;
use super::{cancel_when_gone, status};
use crate::engine::Engine;
use crate::failure::{Failure, code};
use crate::generate::{self, Prompt};
use crate::text::ChatMessage;

/// Events that may wait for a client that reads slowly.
const EVENTS_AHEAD: usize = 32;

/// The service.
#[derive(Debug, Clone)]
pub struct Generation {
    engine: Arc<Engine>,
    callers: Arc<Callers>,
}

impl Generation {
    /// A service over the engine.
    pub fn new(engine: Arc<Engine>, callers: Arc<Callers>) -> Self {
        Self { engine, callers }
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
        let caller = self.callers.identify(&request)?;
        if caller.role < crate::session::Role::Infer {
            return Err(status(&Failure::new(code::FORBIDDEN, "generation needs the role infer")));
        }
        let message = request.into_inner();
        let (events, receiver) = mpsc::channel(EVENTS_AHEAD);
        let cancel = Cancel::new();
        let engine = self.engine.clone();
        let guard = cancel_when_gone(&events, &cancel);
        let task = engine.begin_task();
        tokio::task::spawn_blocking(move || {
            let _held = (guard, task);
            let run = std::panic::AssertUnwindSafe(|| {
                run(&engine, message, caller.owner, &cancel, &events)
            });
            let result = std::panic::catch_unwind(run).unwrap_or_else(|_| {
                Err(Failure::new(
                    code::INTERNAL,
                    "the generation met a defect of larqld; the daemon goes on",
                ))
            });
            let last = match result {
                Ok(done) => {
                    Ok(wire::GenerateEvent { event: Some(wire::generate_event::Event::Done(done)) })
                }
                Err(failure) => Err(status(&failure)),
            };
            let _ = events.blocking_send(last);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn run(
    engine: &Engine,
    message: wire::GenerateRequest,
    owner: bool,
    cancel: &Cancel,
    events: &mpsc::Sender<Result<wire::GenerateEvent, Status>>,
) -> Result<wire::Done, Failure> {
    let base = working_directory(&message.working_directory);
    let mounted = engine.find_model(&message.model, base.as_deref(), owner)?;
    let request = generate::Request {
        prompt: prompt(message.prompt, message.messages)?,
        tokens_max: message.tokens_max,
        sampler: SamplerOptions {
            temperature: message.temperature.unwrap_or(0.0),
            top_k: message.top_k.map(|k| k as usize),
            top_p: message.top_p,
            seed: message.seed,
        },
        stop: message.stop,
    };
    let done =
        generate::generate(&mounted.model, engine.pool(), &request, cancel, &mut |id, text| {
            let token = wire::Token { id, text };
            let event =
                wire::GenerateEvent { event: Some(wire::generate_event::Event::Token(token)) };
            match events.blocking_send(Ok(event)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
    Ok(wire::Done {
        reason: done.reason.as_str().to_owned(),
        prompt_tokens: u32::try_from(done.prompt_tokens).unwrap_or(u32::MAX),
        generated_tokens: done.generated_tokens,
        prefill_ms: done.prefill.as_secs_f64() * 1e3,
        decode_ms: done.decode.as_secs_f64() * 1e3,
        base_hash: mounted.model.base_hash().to_owned(),
    })
}

fn prompt(text: String, messages: Vec<wire::Message>) -> Result<Prompt, Failure> {
    match (text.is_empty(), messages.is_empty()) {
        (false, true) => Ok(Prompt::Text(text)),
        (true, false) => {
            let message = |message: wire::Message| ChatMessage {
                role: message.role,
                content: message.content,
            };
            Ok(Prompt::Chat(messages.into_iter().map(message).collect()))
        }
        _ => {
            Err(Failure::new(code::INVALID_PARAMETER, "give a prompt or messages, one of the two"))
        }
    }
}
