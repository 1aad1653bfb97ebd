//! One field a line, for rows wider than the screen.

use std::io::{self, Write};

use super::{Renderer, text};
use crate::event::Summary;
use crate::value::{Column, Row};

#[derive(Default)]
pub(super) struct Vertical {
    statements: usize,
    names: Vec<String>,
    name_width: usize,
    records: u64,
}

impl Vertical {
    /// Goes on after this many statements were drawn otherwise.
    pub(super) fn after(statements: usize) -> Vertical {
        Vertical { statements, ..Vertical::default() }
    }
}

impl Renderer for Vertical {
    fn begin(&mut self, _: &str, columns: &[Column], out: &mut dyn Write) -> io::Result<()> {
        self.names = columns.iter().map(|column| text::escape(&column.name).into_owned()).collect();
        self.name_width = self.names.iter().map(|name| text::width(name)).max().unwrap_or(0);
        self.records = 0;
        if !columns.is_empty() {
            self.statements += 1;
            if self.statements > 1 {
                writeln!(out)?;
            }
        }
        Ok(())
    }

    fn rows(&mut self, rows: Vec<Row>, out: &mut dyn Write) -> io::Result<()> {
        for row in rows {
            self.records += 1;
            let head = format!("-[ RECORD {} ]", self.records);
            let dashes = (self.name_width + 3).saturating_sub(head.len());
            writeln!(out, "{head}{}", "-".repeat(dashes))?;
            for (index, name) in self.names.iter().enumerate() {
                let padding = " ".repeat(self.name_width - text::width(name));
                let cell = row.get(index).map_or_else(String::new, text::cell);
                let line = format!("{name}{padding} | {cell}");
                writeln!(out, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }

    fn end(&mut self, _: Option<&Summary>, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::shell::render::{Options, tests::draw};

    #[test]
    fn each_row_is_a_record_with_a_field_a_line() {
        let expected = "\
-[ RECORD 1 ]
entity     | France
gate_score | 23.1
layer      | 7
also       | Paris, \"a, b\"
-[ RECORD 2 ]
entity     | 東京 \\u{1b}[31m|
gate_score |
layer      | 12
also       |
-[ RECORD 3 ]
entity     | say \"hi\"\\nbye
gate_score | NaN
layer      | -1
also       |
";
        assert_eq!(draw("vertical", Options::default()), expected);
    }
}
