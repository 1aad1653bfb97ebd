//! `larql bench` and `larql admin status`: what the daemon says about its machine and itself.

use std::io::{self, Write as _};

use serde_json::Value as Json;

use super::Failure;
use super::args::{Bench, BenchKind, Wal};
use crate::client::working_directory;
use crate::event::{BenchRequest, Progress};
use crate::shell::render::{Message, Options, text, write_json};
use crate::shell::{Outcome, ProgressView, Shell};
use crate::value::{Column, ColumnType, Row, Value};

/// Measures, tells the progress on stderr and the result on stdout.
pub(super) async fn run(bench: &Bench, shell: &mut Shell) -> Result<(), Failure> {
    let kind = match bench.kind {
        BenchKind::Decode => "decode",
        BenchKind::Prefill => "prefill",
        BenchKind::GateScan => "gate-scan",
        BenchKind::Describe => "describe",
        BenchKind::Serve => "serve",
    };
    let request = BenchRequest {
        kind: kind.to_owned(),
        model: bench.model.clone(),
        working_directory: working_directory(),
        tokens: bench.tokens.unwrap_or(0),
        context: bench.context,
        clients: bench.clients.unwrap_or(0),
        runs: bench.runs.unwrap_or(0),
        threads: bench.threads.unwrap_or(0),
    };
    let mut progress = ProgressView::new(shell.display().progress);
    shell.client().await?;
    let (client, interrupts) = shell.client_and_interrupts()?;
    let measured = client.bench(request, |line| {
        progress.show(&Progress { stage: line.to_owned(), done: 0, total: 0, unit: String::new() });
    });
    let json = tokio::select! {
        json = measured => json?,
        // Dropping the call ends it in the daemon too.
        () = interrupts.next() => return Err(Failure::Ended(Outcome::Abandoned)),
    };
    drop(progress);
    if bench.json {
        return writeln!(io::stdout(), "{}", json.trim()).map_err(|error| Failure::output(&error));
    }
    let parsed: Json = serde_json::from_str(&json).map_err(|error| {
        Failure::Call(Message::new("08P01", format!("the result is not JSON: {error}")))
    })?;
    let mut rows = Vec::new();
    flatten("", &parsed, &mut rows);
    draw(shell, "BENCH", rows)
}

/// Tells the daemon's own state.
pub(super) async fn status(shell: &mut Shell) -> Result<(), Failure> {
    let status = shell.client().await?.status().await?;
    let number = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let rows = vec![
        ("version".to_owned(), Value::Text(status.version)),
        ("uptime_s".to_owned(), number(status.uptime_s)),
        ("sessions".to_owned(), number(status.sessions.into())),
        ("statements".to_owned(), number(status.statements)),
        ("data_dir".to_owned(), Value::Text(status.data_dir)),
        ("threads".to_owned(), number(status.threads.into())),
        ("pid".to_owned(), number(status.pid.into())),
    ];
    draw(shell, "STATUS", rows)
}

/// Looks at, exports, imports or saves the log of a model's edits.
pub(super) async fn wal(shell: &mut Shell, wal: Wal) -> Result<(), Failure> {
    let (action, model, path) = match wal {
        Wal::Status { model } => ("status", model, None),
        Wal::Verify { model } => ("verify", model, None),
        Wal::Export { model, output } => ("export", model, Some(output)),
        Wal::Import { model, file } => ("import", model, Some(file)),
        Wal::Salvage { model, output } => ("salvage", model, output),
    };
    let lines = shell.client().await?.wal(action, &model, path.as_deref()).await?;
    let lines = lines.into_iter().map(|(name, value)| (name, Value::Text(value)));
    draw(shell, "WAL", lines.collect())
}

/// Draws names and values in the chosen format: a row each, or one JSON object.
fn draw(shell: &Shell, tag: &str, fields: Vec<(String, Value)>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let format = shell.display().format;
    let drawn = if format.is_json {
        let mut json = String::new();
        write_json(&Value::Object(fields), &mut json);
        writeln!(out, "{json}")
    } else {
        let columns = ["name", "value"];
        let columns =
            columns.map(|name| Column { name: name.to_owned(), column_type: ColumnType::Text });
        let rows: Vec<Row> =
            fields.into_iter().map(|(name, value)| vec![name.into(), value]).collect();
        let mut renderer = (format.renderer)(Options::default());
        renderer
            .begin(tag, &columns, &mut out)
            .and_then(|()| renderer.rows(rows, &mut out))
            .and_then(|()| renderer.end(None, &mut out))
            .and_then(|()| renderer.finish(&mut out))
    };
    drawn.and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// Turns nested objects into dotted names.
fn flatten(prefix: &str, json: &Json, rows: &mut Vec<(String, Value)>) {
    match json {
        Json::Object(fields) => {
            for (name, value) in fields {
                let name =
                    if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, rows);
            }
        }
        Json::String(value) => rows.push((prefix.to_owned(), value.as_str().into())),
        other => rows.push((prefix.to_owned(), text::escape(&other.to_string()).as_ref().into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_results_become_dotted_names() {
        let json = serde_json::json!({"tokens_per_s": 12.5, "ms_per_token": {"median": 80.0}, "isa": "avx2"});
        let mut rows = Vec::new();
        flatten("", &json, &mut rows);
        let expected = [("tokens_per_s", "12.5"), ("ms_per_token.median", "80.0"), ("isa", "avx2")];
        assert_eq!(rows, expected.map(|(name, value)| (name.to_owned(), value.into())));
    }
}
