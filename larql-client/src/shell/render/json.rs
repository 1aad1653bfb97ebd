//! JSON, and the format that wraps rows and summary in one object.
//!
//! The writer is ours for two reasons: a 32-bit score prints in its own shortest form, and
//! characters that could drive a terminal are written as `\u` escapes, which parse back unchanged.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::{Renderer, text};
use crate::event::Summary;
use crate::value::{Column, Row, Value};

/// Appends a value as JSON; NaN and the infinities, which JSON lacks, become null.
pub fn write_value(value: &Value, json: &mut String) {
    match value {
        Value::Null => json.push_str("null"),
        Value::Text(text) => write_string(text, json),
        Value::Integer(number) => json.push_str(&number.to_string()),
        Value::Real(number) if number.is_finite() => json.push_str(&text::real(*number)),
        Value::Score(number) if number.is_finite() => json.push_str(&text::score(*number)),
        Value::Real(_) | Value::Score(_) => json.push_str("null"),
        Value::Boolean(truth) => json.push_str(if *truth { "true" } else { "false" }),
        Value::List(values) => {
            json.push('[');
            for (index, value) in values.iter().enumerate() {
                json.push_str(if index > 0 { "," } else { "" });
                write_value(value, json);
            }
            json.push(']');
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.as_str(), value));
            write_object(fields, json);
        }
    }
}

/// Returns a value as JSON.
pub(super) fn to_string(value: &Value) -> String {
    let mut json = String::new();
    write_value(value, &mut json);
    json
}

/// Appends a row as an object, in column order.
pub(super) fn write_row(columns: &[String], row: &Row, json: &mut String) {
    let value = |index| row.get(index).unwrap_or(&Value::Null);
    write_object(
        columns.iter().enumerate().map(|(index, name)| (name.as_str(), value(index))),
        json,
    );
}

fn write_object<'a>(fields: impl Iterator<Item = (&'a str, &'a Value)>, json: &mut String) {
    json.push('{');
    for (index, (name, value)) in fields.enumerate() {
        json.push_str(if index > 0 { "," } else { "" });
        write_string(name, json);
        json.push(':');
        write_value(value, json);
    }
    json.push('}');
}

fn write_string(text: &str, json: &mut String) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            c if text::is_hostile(c) => {
                // Every hostile character is in the basic plane: one unit is enough.
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            _ => json.push(c),
        }
    }
    json.push('"');
}

/// `{"tag","rows","summary"}`; an array of them when there are several statements.
///
/// Whether there are several is known when the second begins, so the first is held back.
#[derive(Default)]
pub(super) struct Json {
    statements: usize,
    columns: Vec<String>,
    rows: u64,
    held_back: String,
}

impl Json {
    fn put(&mut self, json: &str, out: &mut dyn Write) -> io::Result<()> {
        if self.statements > 1 {
            out.write_all(json.as_bytes())
        } else {
            self.held_back.push_str(json);
            Ok(())
        }
    }
}

impl Renderer for Json {
    fn begin(&mut self, tag: &str, columns: &[Column], out: &mut dyn Write) -> io::Result<()> {
        self.statements += 1;
        if self.statements == 2 {
            write!(out, "[{}", self.held_back)?;
            self.held_back = String::new();
        }
        if self.statements > 1 {
            out.write_all(b",\n")?;
        }
        self.columns = columns.iter().map(|column| column.name.clone()).collect();
        self.rows = 0;
        let mut json = String::from("{\"tag\":");
        write_string(tag, &mut json);
        json.push_str(",\"rows\":[");
        self.put(&json, out)
    }

    fn rows(&mut self, rows: Vec<Row>, out: &mut dyn Write) -> io::Result<()> {
        let mut json = String::new();
        for row in rows {
            json.push_str(if self.rows > 0 { ",\n" } else { "\n" });
            self.rows += 1;
            write_row(&self.columns, &row, &mut json);
        }
        self.put(&json, out)
    }

    fn end(&mut self, summary: Option<&Summary>, out: &mut dyn Write) -> io::Result<()> {
        let mut json =
            String::from(if self.rows > 0 { "\n],\"summary\":" } else { "],\"summary\":" });
        write_value(&summary.map_or(Value::Null, summary_value), &mut json);
        json.push('}');
        self.put(&json, out)
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match self.statements {
            0 => Ok(()),
            1 => writeln!(out, "{}", self.held_back),
            _ => writeln!(out, "]"),
        }
    }
}

fn summary_value(summary: &Summary) -> Value {
    let integer = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let text = |text: &str| match text {
        "" => Value::Null,
        _ => Value::Text(text.to_owned()),
    };
    let fields = [
        ("rows", integer(summary.rows)),
        ("bytes_touched", integer(summary.bytes_touched)),
        ("milliseconds", Value::Real(summary.milliseconds)),
        ("base_hash", text(&summary.base_hash)),
        ("branch", text(&summary.branch)),
        ("lsn", integer(summary.lsn)),
        ("mount", text(&summary.mount)),
    ];
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shell::render::{Format, Options, tests};

    proptest! {
        #[test]
        fn a_string_parses_back_unchanged(text in any::<String>()) {
            let json = to_string(&Value::Text(text.clone()));
            prop_assert!(!json.contains(text::is_hostile));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn a_finite_number_parses_back_unchanged(number in prop::num::f64::NORMAL, score in prop::num::f32::NORMAL) {
            prop_assert_eq!(serde_json::from_str::<f64>(&to_string(&number.into())).unwrap(), number);
            prop_assert_eq!(serde_json::from_str::<f32>(&to_string(&score.into())).unwrap(), score);
        }
    }

    #[test]
    fn one_statement_is_one_object_with_rows_and_summary() {
        let expected = "\
{\"tag\":\"DESCRIBE\",\"rows\":[
{\"entity\":\"France\",\"gate_score\":23.1,\"layer\":7,\"also\":[\"Paris\",\"a, b\"]},
{\"entity\":\"東京 \\u001b[31m|\",\"gate_score\":null,\"layer\":12,\"also\":[]},
{\"entity\":\"say \\\"hi\\\"\\nbye\",\"gate_score\":null,\"layer\":-1,\"also\":null}
],\"summary\":{\"rows\":3,\"bytes_touched\":1234567,\"milliseconds\":3.44,\
\"base_hash\":\"1a2b3c4d5e6f7a8b\",\"branch\":\"main\",\"lsn\":0,\"mount\":\"atlas\"}}
";
        assert_eq!(tests::draw("json", Options::default()), expected);
    }

    #[test]
    fn several_statements_are_an_array_and_a_failed_one_has_no_summary() {
        let mut json = (Format::named("json").unwrap().renderer)(Options::default());
        let mut out = Vec::new();
        for summary in [Some(Summary::default()), Some(Summary::default()), None] {
            json.begin("WALK", &tests::columns(), &mut out).unwrap();
            json.rows(tests::rows(), &mut out).unwrap();
            json.end(summary.as_ref(), &mut out).unwrap();
        }
        json.finish(&mut out).unwrap();
        let parsed: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(parsed.as_array().unwrap().len(), 3);
        assert_eq!(parsed[1]["rows"].as_array().unwrap().len(), 3);
        assert_eq!(parsed[2]["summary"], serde_json::Value::Null);
    }
}
