//! Comma-separated values after RFC 4180: CRLF, quotes doubled, a header a statement.
//!
//! NULL is an empty field and the empty text is `""`. Values are kept as they are, except that on a
//! terminal they are escaped.

use std::borrow::Cow;
use std::io::{self, Write};

use super::{Renderer, json, text};
use crate::event::Summary;
use crate::value::{Column, Row, Value};

pub(super) struct Csv {
    terminal: bool,
    statements: usize,
    columns: usize,
}

impl Csv {
    /// Draws CSV; `terminal`: nothing may drive it.
    pub(super) fn new(terminal: bool) -> Csv {
        Csv { terminal, statements: 0, columns: 0 }
    }

    fn text(&self, text: &str) -> String {
        let text = if self.terminal { text::escape(text) } else { Cow::Borrowed(text) };
        if text.is_empty() || text.contains(['"', ',', '\r', '\n']) || text.trim() != text {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.into_owned()
        }
    }

    fn field(&self, value: &Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::Text(text) => self.text(text),
            Value::List(_) | Value::Object(_) => self.text(&json::to_string(value)),
            Value::Integer(_) | Value::Real(_) | Value::Score(_) | Value::Boolean(_) => {
                text::cell(value)
            }
        }
    }
}

impl Renderer for Csv {
    fn begin(&mut self, _: &str, columns: &[Column], out: &mut dyn Write) -> io::Result<()> {
        self.columns = columns.len();
        if columns.is_empty() {
            return Ok(());
        }
        self.statements += 1;
        if self.statements > 1 {
            out.write_all(b"\r\n")?;
        }
        let names: Vec<String> = columns.iter().map(|column| self.text(&column.name)).collect();
        write!(out, "{}\r\n", names.join(","))
    }

    fn rows(&mut self, rows: Vec<Row>, out: &mut dyn Write) -> io::Result<()> {
        if self.columns == 0 {
            return Ok(());
        }
        for row in rows {
            let field = |index| self.field(row.get(index).unwrap_or(&Value::Null));
            let fields: Vec<String> = (0..self.columns).map(field).collect();
            write!(out, "{}\r\n", fields.join(","))?;
        }
        Ok(())
    }

    fn end(&mut self, _: Option<&Summary>, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::render::{Options, tests::draw};

    #[test]
    fn values_are_kept_and_quoted_where_rfc_4180_wants_it() {
        let expected = "entity,gate_score,layer,also\r\n\
            France,23.1,7,\"[\"\"Paris\"\",\"\"a, b\"\"]\"\r\n\
            東京 \u{1b}[31m|,,12,[]\r\n\
            \"say \"\"hi\"\"\nbye\",NaN,-1,\r\n";
        assert_eq!(draw("csv", Options::default()), expected);
    }

    #[test]
    fn null_and_the_empty_text_differ() {
        let csv = Csv::new(false);
        assert_eq!((csv.field(&Value::Null), csv.field(&"".into())), ("".into(), "\"\"".into()));
    }
}
