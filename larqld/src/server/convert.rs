//! Wire types to domain types and back: the only file that knows both.

use std::time::{Duration, Instant};

use larql_planner::value::{Column, ColumnType, Value};
use larql_proto::v1 as wire;

use super::grpc::working_directory;
use crate::exec::{Output, Summary};
use crate::failure::Failure;
use crate::session::{ClientFrame, Hello, Refusal, Script, Welcome};

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
            parameters: execute.parameters.len(),
            text: execute.script,
        }),
        Some(Frame::Cancel(cancel)) => ClientFrame::Cancel { id: cancel.id },
        None => ClientFrame::Unknown,
    }
}

fn deadline(milliseconds: u32, now: Instant) -> Option<Instant> {
    (milliseconds > 0).then(|| now.checked_add(Duration::from_millis(milliseconds.into())))?
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
                tag: tag.to_owned(),
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
                stage: stage.to_owned(),
                done,
                total,
                unit: unit.to_owned(),
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
    fn no_deadline_is_zero() {
        let now = Instant::now();
        assert_eq!(deadline(0, now), None);
        assert_eq!(deadline(5, now), Some(now + Duration::from_millis(5)));
    }
}
