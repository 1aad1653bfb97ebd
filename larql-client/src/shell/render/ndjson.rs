//! One object a row, written as rows arrive: what a pipe reads.

use std::io::{self, Write};

use super::{Renderer, json};
use crate::event::Summary;
use crate::value::{Column, Row};

#[derive(Default)]
pub(super) struct Ndjson {
    columns: Vec<String>,
}

impl Renderer for Ndjson {
    fn begin(&mut self, _: &str, columns: &[Column], _: &mut dyn Write) -> io::Result<()> {
        self.columns = columns.iter().map(|column| column.name.clone()).collect();
        Ok(())
    }

    fn rows(&mut self, rows: Vec<Row>, out: &mut dyn Write) -> io::Result<()> {
        if self.columns.is_empty() {
            return Ok(());
        }
        let mut lines = String::new();
        for row in rows {
            json::write_row(&self.columns, &row, &mut lines);
            lines.push('\n');
        }
        out.write_all(lines.as_bytes())
    }

    fn end(&mut self, _: Option<&Summary>, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::shell::render::{Options, tests::draw};

    #[test]
    fn each_row_is_one_object_in_column_order_and_nothing_else_is_written() {
        let expected = "\
{\"entity\":\"France\",\"gate_score\":23.1,\"layer\":7,\"also\":[\"Paris\",\"a, b\"]}
{\"entity\":\"東京 \\u001b[31m|\",\"gate_score\":null,\"layer\":12,\"also\":[]}
{\"entity\":\"say \\\"hi\\\"\\nbye\",\"gate_score\":null,\"layer\":-1,\"also\":null}
";
        assert_eq!(draw("ndjson", Options::default()), expected);
    }
}
