//! A table to paste into a document: GitHub's dialect, with nothing in a cell taken as markup.

use std::io::{self, Write};

use super::{Renderer, text};
use crate::event::Summary;
use crate::value::{Column, Row};

#[derive(Default)]
pub(super) struct Markdown {
    statements: usize,
    columns: usize,
}

impl Renderer for Markdown {
    fn begin(&mut self, _: &str, columns: &[Column], out: &mut dyn Write) -> io::Result<()> {
        self.columns = columns.len();
        if columns.is_empty() {
            return Ok(());
        }
        self.statements += 1;
        if self.statements > 1 {
            writeln!(out)?;
        }
        let name = |column: &Column| cell(&text::escape(&column.name));
        line(columns.iter().map(name), out)?;
        let rule = |column: &Column| {
            if column.column_type.is_numeric() { "---:" } else { "---" }.to_owned()
        };
        line(columns.iter().map(rule), out)
    }

    fn rows(&mut self, rows: Vec<Row>, out: &mut dyn Write) -> io::Result<()> {
        if self.columns == 0 {
            return Ok(());
        }
        for row in rows {
            let field = |index| row.get(index).map_or_else(String::new, |v| cell(&text::cell(v)));
            line((0..self.columns).map(field), out)?;
        }
        Ok(())
    }

    fn end(&mut self, _: Option<&Summary>, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

fn line(cells: impl Iterator<Item = String>, out: &mut dyn Write) -> io::Result<()> {
    for cell in cells {
        write!(out, "| {cell} ")?;
    }
    writeln!(out, "|")
}

fn cell(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '|' | '\\' | '`' | '*' | '[' | ']' => escaped.extend(['\\', c]),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use crate::shell::render::{Options, tests::draw};

    #[test]
    fn a_cell_cannot_end_its_cell_or_bring_markup() {
        let expected = "\
| entity | gate_score | layer | also |
| --- | ---: | ---: | --- |
| France | 23.1 | 7 | Paris, \"a, b\" |
| 東京 \\\\u{1b}\\[31m\\| |  | 12 |  |
| say \"hi\"\\\\nbye | NaN | -1 |  |
";
        assert_eq!(draw("markdown", Options::default()), expected);
        assert_eq!(super::cell("<img> `x`"), "&lt;img> \\`x\\`");
    }
}
