//! Aligned columns, as psql draws them.
//!
//! Widths come from the first [`SAMPLE_ROWS`] rows; from there on rows stream, and a cell that is
//! wider pushes its own line only.

use std::io::{self, Write};
use std::mem;

use super::{Renderer, plan, text, vertical::Vertical};
use crate::event::Summary;
use crate::value::{Column, Row, Value};

/// How many rows are looked at before the first is drawn.
const SAMPLE_ROWS: usize = 1000;

pub(super) struct Table {
    /// Draw fields as lines if the table is wider than this.
    columns_max: Option<usize>,
    statements: usize,
    columns: Vec<Column>,
    sample: Vec<Row>,
    state: State,
}

enum State {
    Sampling,
    Streaming { widths: Vec<usize> },
    Vertical(Vertical),
}

impl Table {
    /// Draws tables; those wider than `columns_max` one field a line.
    pub(super) fn new(columns_max: Option<usize>) -> Table {
        Table {
            columns_max,
            statements: 0,
            columns: Vec::new(),
            sample: Vec::new(),
            state: State::Sampling,
        }
    }

    /// Fixes the widths and draws what was held back; one field a line if it is wider than that.
    fn settle(&mut self, columns_max: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
        let rows = mem::take(&mut self.sample);
        let cells: Vec<Vec<String>> = rows.iter().map(|row| self.cells(row)).collect();
        let widths: Vec<usize> = (self.columns.iter().enumerate())
            .map(|(index, column)| {
                let header = text::width(&text::escape(&column.name));
                cells.iter().map(|row| text::width(&row[index])).fold(header, usize::max)
            })
            .collect();
        // Each column has a blank on both sides and, but for the last, a bar.
        let total = widths.iter().map(|width| width + 3).sum::<usize>() - 1;
        if columns_max.is_some_and(|max| total > max) {
            let mut vertical = Vertical::after(self.statements - 1);
            vertical.begin("", &self.columns, out)?;
            vertical.rows(rows, out)?;
            self.state = State::Vertical(vertical);
            return Ok(());
        }
        if self.statements > 1 {
            writeln!(out)?;
        }
        let names = self.columns.iter().map(|column| text::escape(&column.name).into_owned());
        self.line(&names.collect::<Vec<_>>(), &widths, out)?;
        let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        writeln!(out, "{}", dashes.join("+"))?;
        for row in &cells {
            self.line(row, &widths, out)?;
        }
        self.state = State::Streaming { widths };
        Ok(())
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let cell = |index| row.get(index).map_or_else(String::new, text::cell);
        (0..self.columns.len()).map(cell).collect()
    }

    fn line(&self, cells: &[String], widths: &[usize], out: &mut dyn Write) -> io::Result<()> {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            let padding = " ".repeat(widths[index].saturating_sub(text::width(cell)));
            if index > 0 {
                line.push('|');
            }
            let (before, after) = match self.columns[index].column_type.is_numeric() {
                true => (padding.as_str(), ""),
                false => ("", padding.as_str()),
            };
            line.extend([" ", before, cell, after, " "]);
        }
        writeln!(out, "{}", line.trim_end())
    }
}

impl Renderer for Table {
    fn begin(&mut self, _: &str, columns: &[Column], _: &mut dyn Write) -> io::Result<()> {
        self.statements += usize::from(!columns.is_empty());
        self.columns = columns.to_vec();
        self.sample.clear();
        self.state = State::Sampling;
        Ok(())
    }

    fn rows(&mut self, rows: Vec<Row>, out: &mut dyn Write) -> io::Result<()> {
        if self.columns.is_empty() {
            return Ok(());
        }
        match &mut self.state {
            State::Vertical(vertical) => vertical.rows(rows, out),
            State::Streaming { widths } => {
                let widths = mem::take(widths);
                for row in &rows {
                    self.line(&self.cells(row), &widths, out)?;
                }
                self.state = State::Streaming { widths };
                Ok(())
            }
            State::Sampling => {
                self.sample.extend(rows);
                // A plan is drawn as a tree, which needs all of it; plans are short.
                if self.sample.len() > SAMPLE_ROWS && !plan::is_plan(&self.columns) {
                    self.settle(self.columns_max, out)?;
                }
                Ok(())
            }
        }
    }

    fn end(&mut self, summary: Option<&Summary>, out: &mut dyn Write) -> io::Result<()> {
        // A statement that failed before its first row has nothing to show, not even a header.
        let empty = self.columns.is_empty() || (summary.is_none() && self.sample.is_empty());
        if matches!(self.state, State::Sampling) && !empty {
            let is_plan = plan::is_plan(&self.columns);
            if is_plan {
                let drawn: (Vec<Column>, Vec<Vec<Value>>) =
                    plan::tree(&self.columns, mem::take(&mut self.sample));
                (self.columns, self.sample) = drawn;
            }
            // One field a line, a tree would be none.
            self.settle(self.columns_max.filter(|_| !is_plan), out)?;
        }
        self.state = State::Sampling;
        self.columns.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::render::tests::{columns, draw};
    use crate::shell::render::{Expanded, Options};

    #[test]
    fn a_table_aligns_by_display_width_and_escapes_control_characters() {
        let expected = " entity           | gate_score | layer | also
------------------+------------+-------+---------------
 France           |       23.1 |     7 | Paris, \"a, b\"
 東京 \\u{1b}[31m| |            |    12 |
 say \"hi\"\\nbye    |        NaN |    -1 |
";
        assert_eq!(draw("table", Options::default()), expected);
    }

    #[test]
    fn no_rows_are_a_header_but_a_failure_before_the_first_row_is_nothing() {
        for (summary, lines) in [(Some(&Summary::default()), 2), (None, 0)] {
            let mut out = Vec::new();
            let mut table = Table::new(None);
            table.begin("SELECT", &columns(), &mut out).unwrap();
            table.end(summary, &mut out).unwrap();
            assert_eq!(out.iter().filter(|&&b| b == b'\n').count(), lines);
        }
    }

    #[test]
    fn rows_beyond_the_sample_stream() {
        let mut table = Table::new(None);
        let mut out = Vec::new();
        table.begin("SELECT", &columns()[..1], &mut out).unwrap();
        table.rows(vec![vec!["x".into()]; SAMPLE_ROWS], &mut out).unwrap();
        assert!(out.is_empty());
        table.rows(vec![vec!["y".into()]], &mut out).unwrap();
        assert_eq!(out.iter().filter(|&&b| b == b'\n').count(), SAMPLE_ROWS + 3);
        table.rows(vec![vec!["a wider cell than any before".into()]], &mut out).unwrap();
        assert!(out.ends_with(b" a wider cell than any before\n"));
    }

    #[test]
    fn a_table_wider_than_the_terminal_turns_vertical_when_asked_to() {
        let narrow = |columns| Options {
            columns: Some(columns),
            expanded: Expanded::Auto,
            ..Options::default()
        };
        assert!(draw("table", narrow(20)).starts_with("-[ RECORD 1 ]"));
        assert!(draw("table", narrow(80)).starts_with(" entity"));
    }
}
