//! Between wire types and ours: the only place in this crate that sees `larql-proto`'s messages.
//!
//! Conversions are pure. [`Link`] holds the generated clients of one connection, [`Frames`] the
//! session stream; the order of frames (handshake, scripts, cancel) is `client`'s affair.

use larql_proto::v1;
use larql_proto::v1::admin_client::AdminClient;
use larql_proto::v1::generate_client::GenerateClient;
use larql_proto::v1::session_client::SessionClient;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::error::CallError;
use crate::event::{
    Alternative, BatchStatus, BenchEvent, BenchRequest, ChatMessage, Constraint, DaemonStatus,
    Event, GenerateEvent, GenerateRequest, GenerationSummary, LayerResidual, Logits, LogitsRequest,
    Notice, Position, Progress, StatementError, Summary, Welcome,
};
use crate::token::Token;
use crate::value::{Column, ColumnType, Row, Value};

/// What arrives on a session stream, with the id of its script (0 for the handshake).
#[derive(Debug)]
pub(crate) enum Frame {
    /// The session is open.
    Welcome(Welcome),
    /// The session was refused.
    Refused { code: String, message: String, hint: String, versions: (u32, u32) },
    /// A piece of an answer.
    Event(u64, Event),
    /// A frame that this build does not know: newer daemons may send more.
    Unknown,
}

/// The sending half of a session; cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub(crate) struct FrameSender(UnboundedSender<v1::ClientFrame>);

impl FrameSender {
    /// Sends a script; false if the connection is gone.
    pub(crate) fn execute(
        &self,
        id: u64,
        script: String,
        working_directory: String,
        deadline_ms: u32,
        parameters: Vec<Value>,
    ) -> bool {
        let parameters = parameters.into_iter().map(value_to_wire).collect();
        self.send(v1::client_frame::Frame::Execute(v1::Execute {
            id,
            script,
            working_directory,
            deadline_ms,
            parameters,
        }))
    }

    /// Asks to stop a script; false if the connection is gone.
    pub(crate) fn cancel(&self, id: u64) -> bool {
        self.send(v1::client_frame::Frame::Cancel(v1::Cancel { id }))
    }

    fn send(&self, frame: v1::client_frame::Frame) -> bool {
        self.0.send(v1::ClientFrame { frame: Some(frame) }).is_ok()
    }
}

/// The receiving half of a session.
pub(crate) struct Frames(Streaming<v1::ServerFrame>);

impl Frames {
    /// Waits for the next frame; None when the daemon closed the stream. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, CallError> {
        let frame = self.0.message().await.map_err(call_error)?;
        Ok(frame.map(frame_from_wire))
    }
}

/// Shows a token with every call, where there is one.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// The services of one connection.
#[derive(Clone)]
pub(crate) struct Link {
    channel: InterceptedService<Channel, Bearer>,
}

impl Link {
    /// The services behind a channel, for a caller with that token.
    pub(crate) fn new(channel: Channel, token: Option<&Token>) -> Link {
        let header = |token: &Token| {
            // A token is printable ASCII, which every header can hold.
            let mut header: MetadataValue<Ascii> =
                format!("Bearer {}", token.expose()).parse().ok()?;
            header.set_sensitive(true);
            Some(header)
        };
        Link { channel: InterceptedService::new(channel, Bearer(token.and_then(header))) }
    }

    /// Opens the session stream with a Hello.
    pub(crate) async fn open(&self, client: String) -> Result<(FrameSender, Frames), CallError> {
        let (sender, receiver): (_, UnboundedReceiver<v1::ClientFrame>) = unbounded_channel();
        let sender = FrameSender(sender);
        sender.send(v1::client_frame::Frame::Hello(v1::Hello {
            version_min: larql_proto::VERSION_MIN,
            version_max: larql_proto::VERSION_MAX,
            client,
        }));
        let frames = SessionClient::new(self.channel.clone())
            .max_decoding_message_size(larql_proto::RESPONSE_BYTES_MAX)
            .max_encoding_message_size(larql_proto::REQUEST_BYTES_MAX)
            .open(tokio_stream::wrappers::UnboundedReceiverStream::new(receiver))
            .await
            .map_err(call_error)?
            .into_inner();
        Ok((sender, Frames(frames)))
    }

    /// Starts a generation.
    pub(crate) async fn generate(&self, request: GenerateRequest) -> Result<Tokens, CallError> {
        let messages = request
            .messages
            .into_iter()
            .map(|ChatMessage { role, content }| v1::Message { role, content })
            .collect();
        let request = v1::GenerateRequest {
            model: request.model,
            working_directory: request.working_directory,
            prompt: request.prompt,
            messages,
            tokens_max: request.tokens_max,
            temperature: request.temperature,
            top_k: request.top_k,
            top_p: request.top_p,
            seed: request.seed,
            stop: request.stop,
            min_p: request.min_p,
            repetition_penalty: request.repetition_penalty,
            presence_penalty: request.presence_penalty,
            frequency_penalty: request.frequency_penalty,
            penalty_window: request.penalty_window,
            logit_bias: request.logit_bias.into_iter().collect(),
            logprobs: request.logprobs,
            think: request.think,
            tools: request.tools,
            constraint: request.constraint.map(|constraint| match constraint {
                Constraint::JsonSchema(text) => v1::generate_request::Constraint::JsonSchema(text),
                Constraint::Grammar(text) => v1::generate_request::Constraint::Grammar(text),
            }),
            speculation: request.speculation.map(|speculation| v1::Speculation {
                draft_model: speculation.draft_model,
                tokens_max: speculation.tokens_max,
            }),
        };
        let stream = GenerateClient::new(self.channel.clone())
            .max_decoding_message_size(larql_proto::RESPONSE_BYTES_MAX)
            .max_encoding_message_size(larql_proto::REQUEST_BYTES_MAX)
            .generate(request)
            .await
            .map_err(call_error)?;
        Ok(Tokens(stream.into_inner()))
    }

    /// Asks the daemon for its own state.
    pub(crate) async fn status(&self) -> Result<DaemonStatus, CallError> {
        let status = self.admin().status(v1::StatusRequest {}).await.map_err(call_error)?;
        let status = status.into_inner();
        Ok(DaemonStatus {
            version: status.version,
            uptime_s: status.uptime_s,
            sessions: status.sessions,
            statements: status.statements,
            data_dir: status.data_dir,
            threads: status.threads,
            pid: status.pid,
            batches: status.batches.into_iter().map(batch_status).collect(),
        })
    }

    /// Asks of the log of a model's edits.
    pub(crate) async fn wal(
        &self,
        action: &str,
        model: &str,
        path: &str,
    ) -> Result<Vec<(String, String)>, CallError> {
        let request = v1::WalRequest {
            action: action.to_owned(),
            model: model.to_owned(),
            path: path.to_owned(),
            working_directory: crate::client::working_directory(),
        };
        let response = self.admin().wal(request).await.map_err(call_error)?;
        Ok(response.into_inner().lines.into_iter().map(|line| (line.name, line.value)).collect())
    }

    /// Has a bundled model written to the data directory; returns its path.
    pub(crate) async fn unpack_bundled(&self, name: String) -> Result<String, CallError> {
        let request = v1::UnpackBundledRequest { name };
        let response = self.admin().unpack_bundled(request).await.map_err(call_error)?;
        Ok(response.into_inner().path)
    }

    /// Runs token ids and returns what reference checks compare.
    pub(crate) async fn logits(&self, request: LogitsRequest) -> Result<Logits, CallError> {
        let request = v1::LogitsRequest {
            model: request.model,
            working_directory: request.working_directory,
            token_ids: request.token_ids,
            greedy_tokens: request.greedy_tokens,
            fast: request.fast,
        };
        let response = self.admin().logits(request).await.map_err(call_error)?.into_inner();
        let layers = response
            .layers
            .into_iter()
            .map(|v1::LayerResidual { layer, norm, first8 }| LayerResidual { layer, norm, first8 })
            .collect();
        Ok(Logits { logits: response.logits, layers, greedy: response.greedy })
    }

    /// Starts a measurement.
    pub(crate) async fn bench(&self, request: BenchRequest) -> Result<Measurements, CallError> {
        let request = v1::BenchRequest {
            kind: request.kind,
            model: request.model,
            working_directory: request.working_directory,
            tokens: request.tokens,
            context: request.context,
            runs: request.runs,
            threads: request.threads,
            clients: request.clients,
        };
        let stream = self.admin().bench(request).await.map_err(call_error)?;
        Ok(Measurements(stream.into_inner()))
    }

    /// Asks for the names of all mounts.
    pub(crate) async fn names(&self) -> Result<Vec<String>, CallError> {
        let response = self.admin().names(v1::NamesRequest {}).await.map_err(call_error)?;
        Ok(response.into_inner().mounts)
    }

    fn admin(&self) -> AdminClient<InterceptedService<Channel, Bearer>> {
        AdminClient::new(self.channel.clone())
            .max_decoding_message_size(larql_proto::RESPONSE_BYTES_MAX)
            .max_encoding_message_size(larql_proto::REQUEST_BYTES_MAX)
    }
}

/// A running generation.
pub(crate) struct Tokens(Streaming<v1::GenerateEvent>);

impl Tokens {
    /// Waits for the next piece; None at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<GenerateEvent>, CallError> {
        loop {
            let Some(event) = self.0.message().await.map_err(call_error)? else { return Ok(None) };
            match event.event {
                Some(v1::generate_event::Event::Token(token)) => {
                    let alternative = |each: v1::Alternative| Alternative {
                        id: each.id,
                        text: each.text,
                        logprob: each.logprob,
                    };
                    return Ok(Some(GenerateEvent::Token {
                        id: token.id,
                        text: token.text,
                        logprob: token.logprob,
                        alternatives: token.alternatives.into_iter().map(alternative).collect(),
                    }));
                }
                Some(v1::generate_event::Event::Done(done)) => {
                    return Ok(Some(GenerateEvent::Done(GenerationSummary {
                        reason: done.reason,
                        prompt_tokens: done.prompt_tokens,
                        generated_tokens: done.generated_tokens,
                        prefill_ms: done.prefill_ms,
                        decode_ms: done.decode_ms,
                        base_hash: done.base_hash,
                        proposed_tokens: done.proposed_tokens,
                        accepted_tokens: done.accepted_tokens,
                    })));
                }
                // A newer daemon may send more kinds of events.
                None => {}
            }
        }
    }
}

/// A running measurement.
pub(crate) struct Measurements(Streaming<v1::BenchEvent>);

impl Measurements {
    /// Waits for the next piece; None at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<BenchEvent>, CallError> {
        loop {
            let Some(event) = self.0.message().await.map_err(call_error)? else { return Ok(None) };
            match event.event {
                Some(v1::bench_event::Event::Progress(line)) => {
                    return Ok(Some(BenchEvent::Progress(line)));
                }
                Some(v1::bench_event::Event::Json(json)) => {
                    return Ok(Some(BenchEvent::Json(json)));
                }
                None => {}
            }
        }
    }
}

fn frame_from_wire(frame: v1::ServerFrame) -> Frame {
    use v1::server_frame::Frame as Wire;
    let event = match frame.frame {
        Some(Wire::Welcome(welcome)) => {
            return Frame::Welcome(Welcome {
                version: welcome.version,
                server: welcome.server,
                session_id: welcome.session_id,
                role: welcome.role,
                capabilities: welcome.capabilities,
            });
        }
        Some(Wire::Refused(refused)) => {
            return Frame::Refused {
                code: refused.code,
                message: refused.message,
                hint: refused.hint,
                versions: (refused.version_min, refused.version_max),
            };
        }
        Some(Wire::Schema(schema)) => Event::Schema {
            statement: schema.statement,
            tag: schema.tag,
            columns: schema.columns.into_iter().map(column_from_wire).collect(),
        },
        Some(Wire::Batch(batch)) => {
            Event::Rows(batch.rows.into_iter().map(row_from_wire).collect())
        }
        Some(Wire::Notice(v1::Notice { code, message, hint })) => {
            Event::Notice(Notice { code, message, hint })
        }
        Some(Wire::Progress(v1::Progress { stage, done, total, unit })) => {
            Event::Progress(Progress { stage, done, total, unit })
        }
        Some(Wire::Summary(summary)) => Event::Summary(Summary {
            rows: summary.rows,
            bytes_touched: summary.bytes_touched,
            milliseconds: summary.milliseconds,
            base_hash: summary.base_hash,
            branch: summary.branch,
            lsn: summary.lsn,
            mount: summary.mount,
        }),
        Some(Wire::Error(error)) => Event::Error(StatementError {
            code: error.code,
            message: error.message,
            hint: error.hint,
            position: error.position.map(|position| Position {
                offset: position.offset,
                length: position.length,
                line: position.line,
                column: position.column,
            }),
            statement: error.statement,
        }),
        Some(Wire::Finished(v1::Finished { statements, failed })) => {
            Event::Finished { statements, failed }
        }
        None => return Frame::Unknown,
    };
    Frame::Event(frame.id, event)
}

fn column_from_wire(column: v1::Column) -> Column {
    let column_type = match column.r#type() {
        v1::ColumnType::Unspecified => ColumnType::Unspecified,
        v1::ColumnType::Text => ColumnType::Text,
        v1::ColumnType::Integer => ColumnType::Integer,
        v1::ColumnType::Real => ColumnType::Real,
        v1::ColumnType::Boolean => ColumnType::Boolean,
        v1::ColumnType::List => ColumnType::List,
        v1::ColumnType::Object => ColumnType::Object,
    };
    Column { name: column.name, column_type }
}

fn row_from_wire(row: v1::Row) -> Row {
    row.values.into_iter().map(value_from_wire).collect()
}

fn value_from_wire(value: v1::Value) -> Value {
    use v1::value::Kind;
    match value.kind {
        None => Value::Null,
        Some(Kind::Text(text)) => Value::Text(text),
        Some(Kind::Integer(number)) => Value::Integer(number),
        Some(Kind::Real(number)) => Value::Real(number),
        Some(Kind::Score(number)) => Value::Score(number),
        Some(Kind::Boolean(truth)) => Value::Boolean(truth),
        Some(Kind::List(list)) => {
            Value::List(list.values.into_iter().map(value_from_wire).collect())
        }
        Some(Kind::Object(object)) => Value::Object(
            object
                .fields
                .into_iter()
                .map(|field| (field.name, field.value.map_or(Value::Null, value_from_wire)))
                .collect(),
        ),
    }
}

fn value_to_wire(value: Value) -> v1::Value {
    use v1::value::Kind;
    let kind = match value {
        Value::Null => None,
        Value::Text(text) => Some(Kind::Text(text)),
        Value::Integer(number) => Some(Kind::Integer(number)),
        Value::Real(number) => Some(Kind::Real(number)),
        Value::Score(number) => Some(Kind::Score(number)),
        Value::Boolean(truth) => Some(Kind::Boolean(truth)),
        Value::List(values) => Some(Kind::List(v1::ValueList {
            values: values.into_iter().map(value_to_wire).collect(),
        })),
        Value::Object(fields) => Some(Kind::Object(v1::ValueObject {
            fields: fields
                .into_iter()
                .map(|(name, value)| v1::ValueField { name, value: Some(value_to_wire(value)) })
                .collect(),
        })),
    };
    v1::Value { kind }
}

fn batch_status(status: v1::BatchStatus) -> BatchStatus {
    BatchStatus {
        model: status.model,
        running: status.running,
        waiting: status.waiting,
        paused: status.paused,
        pages_used: status.pages_used,
        pages_reusable: status.pages_reusable,
        pages_max: status.pages_max,
        steps: status.steps,
        tokens_prefilled: status.tokens_prefilled,
        tokens_reused: status.tokens_reused,
        tokens_decoded: status.tokens_decoded,
        preemptions: status.preemptions,
    }
}

/// Where the daemon puts the hint of a failed call.
const HINT_METADATA: &str = "larql-hint";

/// Reads a gRPC status: its message opens with the five-character code where the daemon made it,
/// and the hint travels beside it.
fn call_error(status: Status) -> CallError {
    let text = status.message();
    let hint = status.metadata().get(HINT_METADATA).and_then(|hint| hint.to_str().ok());
    let hint = hint.unwrap_or_default();
    let named = text.split_once(": ").filter(|(code, _)| is_code(code));
    let (code, message) = named.unwrap_or((code_of(status.code()), text));
    let message = if message.is_empty() { status.code().description() } else { message };
    CallError { code: code.to_owned(), message: message.to_owned(), hint: hint.to_owned() }
}

fn is_code(text: &str) -> bool {
    text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

/// The code of a status that the transport made, after SQLSTATE.
fn code_of(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument | Code::OutOfRange => "22023",
        Code::NotFound => "42704",
        Code::Cancelled | Code::DeadlineExceeded => StatementError::CANCELLED,
        Code::Unavailable => StatementError::CONNECTION_LOST,
        Code::ResourceExhausted => "53000",
        Code::Unimplemented => "0A000",
        Code::PermissionDenied | Code::Unauthenticated => "42501",
        Code::FailedPrecondition => "55000",
        _ => "XX000",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<String>().prop_map(Value::Text),
            any::<i64>().prop_map(Value::Integer),
            (-1e300..1e300).prop_map(Value::Real),
            (-1e30f32..1e30).prop_map(Value::Score),
            any::<bool>().prop_map(Value::Boolean),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::vec((any::<String>(), inner), 0..4).prop_map(Value::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_survives_the_wire(value in any_value()) {
            prop_assert_eq!(value_from_wire(value_to_wire(value.clone())), value);
        }
    }

    #[test]
    fn a_status_gives_its_code_message_and_hint() {
        let mut status = Status::not_found("42704: no mount \"x\"");
        status.metadata_mut().insert(HINT_METADATA, "SHOW MOUNTS".parse().unwrap());
        let error = call_error(status);
        assert_eq!(error.code, "42704");
        assert_eq!(error.message, "no mount \"x\"");
        assert_eq!(error.hint, "SHOW MOUNTS");
    }

    #[test]
    fn a_status_without_a_code_takes_one_from_its_kind() {
        let error = call_error(Status::unavailable("broken pipe: 5"));
        assert_eq!((error.code.as_str(), error.message.as_str()), ("08006", "broken pipe: 5"));
    }
}
