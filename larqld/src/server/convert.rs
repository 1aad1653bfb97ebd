//! Wire types to domain types and back: the only file that knows both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larql_compute::sample::SamplerOptions;
use larql_planner::value::{Column, ColumnType, Value};
use larql_proto::v1 as wire;

use crate::exec::{Output, Summary};
use crate::failure::{Failure, code};
use crate::generation::speculation::{Speculation, SpeculationKind};
use crate::generation::{self, Alternative, Prompt, TokenEvent};
use crate::session::{ClientFrame, Hello, Refusal, Script, Welcome};
use crate::text::{Chat, ChatMessage, Constraint};
use crate::{batch, bench, reference};

/// A frame from the wire; its deadline counts from `now`.
pub(super) fn client_frame(frame: wire::ClientFrame, now: Instant) -> ClientFrame {
    use wire::client_frame::Frame;
    match frame.frame {
        Some(Frame::Hello(hello)) => ClientFrame::Hello(Hello {
            version_min: hello.version_min,
            version_max: hello.version_max,
            client: hello.client,
        }),
        Some(Frame::Execute(execute)) => ClientFrame::Execute(Script {
            id: execute.id,
            working_directory: working_directory(&execute.working_directory),
            deadline: deadline(execute.deadline_ms, now),
            parameters: execute.parameters.into_iter().map(parameter).collect(),
            text: execute.script,
        }),
        Some(Frame::Cancel(cancel)) => ClientFrame::Cancel { id: cancel.id },
        None => ClientFrame::Unknown,
    }
}

/// The value of a parameter. No place takes an object, and none takes a list: it is told as one.
fn parameter(value: wire::Value) -> Value {
    use wire::value::Kind;
    match value.kind {
        None => Value::Null,
        Some(Kind::Text(text)) => Value::text(text),
        Some(Kind::Integer(integer)) => Value::Integer(integer),
        Some(Kind::Real(real)) => Value::Real(real),
        Some(Kind::Score(score)) => Value::Score(score),
        Some(Kind::Boolean(truth)) => Value::Boolean(truth),
        Some(Kind::List(_) | Kind::Object(_)) => Value::List([].into()),
    }
}

fn deadline(milliseconds: u32, now: Instant) -> Option<Instant> {
    (milliseconds > 0).then(|| now.checked_add(Duration::from_millis(milliseconds.into())))?
}

/// The deadline of a call, from the header `grpc-timeout`: up to eight digits and a unit (gRPC over
/// HTTP/2, "Requests"). Anything else is as good as none.
pub(super) fn call_deadline(
    metadata: &tonic::metadata::MetadataMap,
    now: Instant,
) -> Option<Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    now.checked_add(timeout)
}

pub(super) fn welcome(welcome: &Welcome) -> wire::ServerFrame {
    frame(
        0,
        wire::server_frame::Frame::Welcome(wire::Welcome {
            version: welcome.version,
            server: concat!("larqld ", env!("CARGO_PKG_VERSION")).to_owned(),
            session_id: welcome.session_id,
            role: welcome.role.as_str().to_owned(),
            capabilities: vec!["lql".to_owned(), "generate".to_owned()],
        }),
    )
}

pub(super) fn refused(refusal: &Refusal) -> wire::ServerFrame {
    frame(
        0,
        wire::server_frame::Frame::Refused(wire::Refused {
            code: refusal.code.to_owned(),
            message: refusal.message.clone(),
            hint: refusal.hint.clone(),
            version_min: larql_proto::VERSION_MIN,
            version_max: larql_proto::VERSION_MAX,
        }),
    )
}

/// One piece of the answer of script `id`, whose text is `text`.
pub(super) fn output(id: u64, text: &str, output: Output) -> wire::ServerFrame {
    use wire::server_frame::Frame;
    match output {
        Output::Schema { statement, tag, columns } => frame(
            id,
            Frame::Schema(wire::Schema {
                statement,
                tag: tag.into_owned(),
                columns: columns.iter().map(column).collect(),
            }),
        ),
        Output::Rows(rows) => frame(
            id,
            Frame::Batch(wire::Batch {
                rows: rows
                    .into_iter()
                    .map(|row| wire::Row { values: row.into_iter().map(value).collect() })
                    .collect(),
            }),
        ),
        Output::Notice { message, hint } => {
            frame(id, Frame::Notice(wire::Notice { code: "00000".to_owned(), message, hint }))
        }
        Output::Progress { stage, done, total, unit } => frame(
            id,
            Frame::Progress(wire::Progress {
                stage: stage.into_owned(),
                done,
                total,
                unit: unit.into_owned(),
            }),
        ),
        Output::Summary(found) => frame(id, Frame::Summary(summary(found))),
        Output::Failure { statement, failure: found } => failure(id, statement, text, &found),
        Output::Finished { statements, failed } => finished(id, statements, failed),
    }
}

fn frame(id: u64, frame: wire::server_frame::Frame) -> wire::ServerFrame {
    wire::ServerFrame { id, frame: Some(frame) }
}

pub(super) fn failure(id: u64, statement: u32, text: &str, failure: &Failure) -> wire::ServerFrame {
    frame(
        id,
        wire::server_frame::Frame::Error(wire::Error {
            code: failure.code.to_owned(),
            message: failure.message.clone(),
            hint: failure.hint.clone(),
            position: failure.position.as_ref().map(|range| position(text, range.start, range.end)),
            statement,
        }),
    )
}

pub(super) fn finished(id: u64, statements: u32, failed: bool) -> wire::ServerFrame {
    frame(id, wire::server_frame::Frame::Finished(wire::Finished { statements, failed }))
}

/// A byte range with its line and column, both from 1.
fn position(text: &str, start: usize, end: usize) -> wire::Position {
    let start = start.min(text.len());
    let before = text.get(..start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    wire::Position {
        offset: narrow(start),
        length: narrow(end.min(text.len()).saturating_sub(start)),
        line: narrow(before.bytes().filter(|&byte| byte == b'\n').count() + 1),
        column: narrow(before[line_start..].chars().count() + 1),
    }
}

fn summary(summary: Summary) -> wire::Summary {
    wire::Summary {
        rows: summary.rows,
        bytes_touched: summary.bytes_touched,
        milliseconds: summary.elapsed.as_secs_f64() * 1e3,
        base_hash: summary.base_hash,
        branch: summary.branch,
        lsn: summary.lsn,
        mount: summary.mount,
    }
}

fn column(column: &Column) -> wire::Column {
    let kind = match column.kind {
        ColumnType::Text => wire::ColumnType::Text,
        ColumnType::Integer => wire::ColumnType::Integer,
        ColumnType::Real => wire::ColumnType::Real,
        ColumnType::Boolean => wire::ColumnType::Boolean,
        ColumnType::List => wire::ColumnType::List,
    };
    wire::Column { name: column.name.clone(), r#type: kind.into() }
}

fn value(value: Value) -> wire::Value {
    use wire::value::Kind;
    let kind = match value {
        Value::Null => None,
        Value::Boolean(value) => Some(Kind::Boolean(value)),
        Value::Integer(value) => Some(Kind::Integer(value)),
        Value::Real(value) => Some(Kind::Real(value)),
        Value::Score(value) => Some(Kind::Score(value)),
        Value::Text(text) => Some(Kind::Text(text.as_ref().to_owned())),
        Value::List(values) => Some(Kind::List(wire::ValueList {
            values: values.iter().cloned().map(self::value).collect(),
        })),
    };
    wire::Value { kind }
}

/// A failure as a gRPC status. Its message begins with the five-character code; the hint travels in
/// the metadata `larql-hint`.
pub(super) fn status(failure: &Failure) -> tonic::Status {
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
    // Metadata is ASCII; a hint may quote names that are not.
    let hint: String = failure
        .hint
        .chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect();
    if let Ok(hint) = hint.parse() {
        status.metadata_mut().insert("larql-hint", hint);
    }
    status
}

/// A generation's request: which model, from which directory, and what to do with it.
///
/// # Errors
/// `INVALID_PARAMETER` unless there is a prompt or a chat, one of the two, and for options of a chat
/// beside a prompt.
pub(super) fn generate_request(
    message: wire::GenerateRequest,
) -> Result<(String, Option<PathBuf>, generation::Request), Failure> {
    let invalid = |reason: &str| Failure::new(code::INVALID_PARAMETER, reason);
    let prompt = match (message.prompt.is_empty(), message.messages.is_empty()) {
        (false, true) if message.think.is_some() || !message.tools.is_empty() => {
            return Err(invalid("think and tools are options of a chat, not of a prompt")
                .hint("send messages instead of a prompt"));
        }
        (false, true) => Prompt::Text(message.prompt),
        (true, false) => {
            let turn = |turn: wire::Message| ChatMessage { role: turn.role, content: turn.content };
            Prompt::Chat(Chat {
                messages: message.messages.into_iter().map(turn).collect(),
                think: message.think,
                tools: tools(&message.tools)?,
            })
        }
        _ => {
            return Err(invalid("give a prompt or messages, one of the two")
                .hint("neither of them may be empty"));
        }
    };
    let request = generation::Request {
        prompt,
        tokens_max: message.tokens_max,
        sampler: SamplerOptions {
            temperature: message.temperature.unwrap_or(0.0),
            top_k: message.top_k.map(|k| k as usize),
            top_p: message.top_p,
            min_p: message.min_p,
            repetition_penalty: message.repetition_penalty.unwrap_or(1.0),
            presence_penalty: message.presence_penalty.unwrap_or(0.0),
            frequency_penalty: message.frequency_penalty.unwrap_or(0.0),
            penalty_window: message.penalty_window.map(|tokens| tokens as usize),
            // In the order of ids, so that equal requests compute equally.
            logit_bias: message
                .logit_bias
                .into_iter()
                .collect::<BTreeMap<_, _>>()
                .into_iter()
                .collect(),
            seed: message.seed,
        },
        stop: message.stop,
        logprobs: message.logprobs.map(|count| count as usize),
        constraint: message.constraint.map(|constraint| match constraint {
            wire::generate_request::Constraint::JsonSchema(text) => Constraint::JsonSchema(text),
            wire::generate_request::Constraint::Grammar(text) => Constraint::Grammar(text),
        }),
        edits: Arc::default(),
        speculation: message.speculation.map(|speculation| Speculation {
            kind: match speculation.draft_model {
                name if name.is_empty() => SpeculationKind::Ngram,
                name => SpeculationKind::Draft(name),
            },
            tokens_max: speculation.tokens_max as usize,
        }),
        draft: None,
    };
    Ok((message.model, working_directory(&message.working_directory), request))
}

/// What a generation tells its client.
pub(super) fn generate_event(event: batch::Event) -> wire::GenerateEvent {
    match event {
        batch::Event::Token(token) => self::token(token),
        batch::Event::Done { finished, base_hash, .. } => done(&finished, base_hash),
    }
}

/// The tools of a chat, if there are any.
fn tools(text: &str) -> Result<Option<serde_json::Value>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    match serde_json::from_str(text) {
        Ok(tools @ serde_json::Value::Array(_)) => Ok(Some(tools)),
        _ => Err(Failure::new(code::INVALID_PARAMETER, "tools is no JSON array")
            .hint("each tool is an object as OpenAI describes functions")),
    }
}

/// A token that was made, or text that was left at the end.
fn token(event: TokenEvent) -> wire::GenerateEvent {
    let alternative = |each: Alternative| wire::Alternative {
        id: each.id,
        text: each.text,
        logprob: each.logprob,
    };
    let (logprob, alternatives) = match event.logprobs {
        Some(logprobs) => (Some(logprobs.chosen), logprobs.alternatives),
        None => (None, Vec::new()),
    };
    let token = wire::Token {
        id: event.id.unwrap_or(u32::MAX),
        text: event.text,
        logprob,
        alternatives: alternatives.into_iter().map(alternative).collect(),
    };
    let event = wire::generate_event::Event::Token(token);
    wire::GenerateEvent { event: Some(event) }
}

/// The end of a generation.
fn done(done: &generation::Finished, base_hash: String) -> wire::GenerateEvent {
    let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
    let done = wire::Done {
        reason: done.reason.as_str().to_owned(),
        prompt_tokens: count(done.prompt_tokens),
        generated_tokens: count(done.generated_tokens),
        prefill_ms: done.prefill.as_secs_f64() * 1e3,
        decode_ms: done.decode.as_secs_f64() * 1e3,
        base_hash,
        proposed_tokens: count(done.acceptance.proposed),
        accepted_tokens: count(done.acceptance.accepted),
    };
    wire::GenerateEvent { event: Some(wire::generate_event::Event::Done(done)) }
}

/// A request for reference output.
pub(super) fn reference_request(
    message: wire::LogitsRequest,
) -> (String, Option<PathBuf>, reference::Request) {
    let request = reference::Request {
        token_ids: message.token_ids,
        greedy_tokens: message.greedy_tokens,
        fast: message.fast,
    };
    (message.model, working_directory(&message.working_directory), request)
}

/// Reference output.
pub(super) fn reference_answer(answer: reference::Answer) -> wire::LogitsResponse {
    let layer = |(layer, residual): (u32, reference::Residual)| wire::LayerResidual {
        layer,
        norm: residual.norm,
        first8: residual.first8,
    };
    wire::LogitsResponse {
        logits: answer.logits,
        layers: (0..).zip(answer.layers).map(layer).collect(),
        greedy: answer.greedy,
    }
}

/// What a model's runner is doing.
pub(super) fn batch_status(state: batch::State) -> wire::BatchStatus {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    wire::BatchStatus {
        model: state.model,
        running: count(state.running),
        waiting: count(state.waiting),
        paused: count(state.paused),
        pages_used: count(state.pages_used),
        pages_reusable: count(state.pages_reusable),
        pages_max: count(state.pages_max),
        steps: state.steps,
        tokens_prefilled: state.tokens_prefilled,
        tokens_reused: state.tokens_reused,
        tokens_decoded: state.tokens_decoded,
        preemptions: state.preemptions,
    }
}

/// A request for a measurement.
pub(super) fn bench_request(
    message: wire::BenchRequest,
) -> (String, Option<PathBuf>, bench::Request) {
    let request = bench::Request {
        kind: message.kind,
        tokens: message.tokens,
        context: message.context,
        clients: message.clients,
        runs: message.runs,
        threads: message.threads,
    };
    (message.model, working_directory(&message.working_directory), request)
}

/// An absolute directory from the wire; anything else is as good as none.
fn working_directory(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute())
}

/// What is asked of a log of edits.
pub(super) struct WalRequest {
    pub(super) action: String,
    pub(super) model: String,
    pub(super) path: String,
    pub(super) directory: Option<PathBuf>,
}

/// A request for a log of edits, from the wire.
pub(super) fn wal_request(request: wire::WalRequest) -> WalRequest {
    WalRequest {
        action: request.action,
        model: request.model,
        path: request.path,
        directory: working_directory(&request.working_directory),
    }
}

/// What is told of a log of edits, to the wire.
pub(super) fn wal_answer(lines: Vec<(&'static str, String)>) -> wire::WalResponse {
    let line =
        |(name, value): (&'static str, String)| wire::WalLine { name: name.to_owned(), value };
    wire::WalResponse { lines: lines.into_iter().map(line).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "SELECT é;\n  SELEC x";
        let at = text.find("SELEC x").unwrap();
        let found = position(text, at, at + 5);
        assert_eq!((found.line, found.column, found.length), (2, 3, 5));
        let found = position(text, "SELECT é".len(), "SELECT é;".len());
        assert_eq!((found.line, found.column), (1, 9));
    }

    #[test]
    fn a_position_beyond_the_text_is_its_end() {
        let found = position("ab", 9, 12);
        assert_eq!((found.offset, found.length, found.column), (2, 0, 3));
    }

    #[test]
    fn a_calls_deadline_has_digits_and_a_unit() {
        let now = Instant::now();
        let found = |text: &str| {
            let mut metadata = tonic::metadata::MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            call_deadline(&metadata, now).map(|deadline| deadline - now)
        };
        assert_eq!(found("250m"), Some(Duration::from_millis(250)));
        assert_eq!(found("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(found("7u"), Some(Duration::from_micros(7)));
        for wrong in ["", "m", "5", "5x", "-5m", "+5m", "123456789m", "5 m"] {
            assert_eq!(found(wrong), None, "{wrong:?}");
        }
        assert_eq!(call_deadline(&tonic::metadata::MetadataMap::new(), now), None);
    }

    #[test]
    fn no_deadline_is_zero() {
        let now = Instant::now();
        assert_eq!(deadline(0, now), None);
        assert_eq!(deadline(5, now), Some(now + Duration::from_millis(5)));
    }
}
