//! Draws answers: one file a format, all of them listed in [`FORMATS`].
//!
//! A renderer is fed events and writes bytes; it asks no terminal anything. Formats for programs
//! (`json`, `ndjson`, `csv`) keep every value as it is; formats for people escape what could drive
//! a terminal ([`text::escape`]).

mod csv;
mod json;
mod junit;
mod markdown;
mod message;
mod ndjson;
mod plan;
mod summary;
mod table;
pub mod text;
mod vertical;

use std::fmt;
use std::io::{self, Write};

pub use json::write_value as write_json;
pub use message::{Message, Script};
pub use summary::{bytes_text, summary_text};

use crate::event::Summary;
use crate::value::{Column, Row};

/// Draws the answers of one or more scripts.
pub trait Renderer {
    /// A statement begins to answer.
    ///
    /// # Errors
    /// What `out` says; so for every function here.
    fn begin(&mut self, tag: &str, columns: &[Column], out: &mut dyn Write) -> io::Result<()>;

    /// Some of its rows.
    ///
    /// # Errors
    /// What `out` says.
    fn rows(&mut self, rows: Vec<Row>, out: &mut dyn Write) -> io::Result<()>;

    /// The statement is over; without a summary it failed.
    ///
    /// # Errors
    /// What `out` says.
    fn end(&mut self, summary: Option<&Summary>, out: &mut dyn Write) -> io::Result<()>;

    /// No further statement follows.
    ///
    /// # Errors
    /// What `out` says.
    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let _ = out;
        Ok(())
    }
}

/// Whether rows are drawn one field a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expanded {
    /// Rows are lines.
    #[default]
    Off,
    /// Fields are lines.
    On,
    /// Fields are lines where the table would be wider than the terminal.
    Auto,
}

/// What a renderer needs to know about where it writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The output is a terminal: nothing may drive it.
    pub terminal: bool,
    /// The terminal's width in columns, if it is one.
    pub columns: Option<usize>,
    /// How tables are drawn.
    pub expanded: Expanded,
}

/// One output format.
pub struct Format {
    /// What `-F` and `\f` call it.
    pub name: &'static str,
    /// Errors are JSON objects too, and the summary is part of the output or left out.
    pub is_json: bool,
    /// One line for `\?`.
    pub help: &'static str,
    /// Makes a renderer.
    pub renderer: fn(Options) -> Box<dyn Renderer>,
}

/// Every format: read by `-F`, `\f`, completion and the tests.
pub static FORMATS: [Format; 7] = [
    Format {
        name: "table",
        is_json: false,
        help: "aligned columns, for people",
        renderer: |options| match options.expanded {
            Expanded::On => Box::new(vertical::Vertical::default()),
            Expanded::Off => Box::new(table::Table::new(None)),
            Expanded::Auto => Box::new(table::Table::new(options.columns)),
        },
    },
    Format {
        name: "vertical",
        is_json: false,
        help: "one field a line, for people",
        renderer: |_| Box::new(vertical::Vertical::default()),
    },
    Format {
        name: "json",
        is_json: true,
        help: "rows and summary in one object; an array of them for several statements",
        renderer: |_| Box::new(json::Json::default()),
    },
    Format {
        name: "ndjson",
        is_json: true,
        help: "one object a row, as rows arrive",
        renderer: |_| Box::new(ndjson::Ndjson::default()),
    },
    Format {
        name: "csv",
        is_json: false,
        help: "RFC 4180, with a header",
        renderer: |options| Box::new(csv::Csv::new(options.terminal)),
    },
    Format {
        name: "markdown",
        is_json: false,
        help: "a table to paste into a document",
        renderer: |_| Box::new(markdown::Markdown::default()),
    },
    Format {
        name: "junit",
        is_json: false,
        help: "JUnit's XML, for CI: a case for each assertion that CHECK ASSERTIONS answers",
        renderer: |_| Box::new(junit::Junit::default()),
    },
];

impl Format {
    /// Returns the format of this name.
    ///
    /// # Errors
    /// The list of names, if there is none.
    pub fn named(name: &str) -> Result<&'static Format, String> {
        FORMATS.iter().find(|format| format.name == name).ok_or_else(|| {
            let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
            format!("there is no format {name:?}; choose one of {}", names.join(", "))
        })
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::value::{ColumnType, Value};

    pub(crate) fn columns() -> Vec<Column> {
        [
            ("entity", ColumnType::Text),
            ("gate_score", ColumnType::Real),
            ("layer", ColumnType::Integer),
            ("also", ColumnType::List),
        ]
        .map(|(name, column_type)| Column { name: name.to_owned(), column_type })
        .to_vec()
    }

    pub(crate) fn rows() -> Vec<Row> {
        vec![
            vec![
                "France".into(),
                23.1f32.into(),
                7.into(),
                Value::List(vec!["Paris".into(), "a, b".into()]),
            ],
            vec!["東京 \u{1b}[31m|".into(), Value::Null, 12.into(), Value::List(vec![])],
            vec!["say \"hi\"\nbye".into(), f32::NAN.into(), (-1).into(), Value::Null],
        ]
    }

    pub(crate) fn summary() -> Summary {
        Summary {
            rows: 3,
            bytes_touched: 1_234_567,
            milliseconds: 3.44,
            base_hash: "1a2b3c4d5e6f7a8b".into(),
            branch: "main".into(),
            lsn: 0,
            mount: "atlas".into(),
        }
    }

    pub(crate) fn draw(format: &str, options: Options) -> String {
        let mut renderer = (Format::named(format).unwrap().renderer)(options);
        let mut out = Vec::new();
        renderer.begin("DESCRIBE", &columns(), &mut out).unwrap();
        for row in rows() {
            renderer.rows(vec![row], &mut out).unwrap();
        }
        renderer.end(Some(&summary()), &mut out).unwrap();
        renderer.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_format_is_found_by_every_name_in_the_list_and_by_no_other() {
        for format in &FORMATS {
            assert_eq!(Format::named(format.name).unwrap().name, format.name);
        }
        assert!(Format::named("xml").unwrap_err().contains("ndjson"));
    }

    #[test]
    fn no_format_for_people_lets_a_value_drive_the_terminal() {
        let terminal = Options { terminal: true, ..Options::default() };
        for format in &FORMATS {
            let text = draw(format.name, terminal);
            let hostile = |c: char| c.is_control() && c != '\n' && c != '\r';
            assert!(!text.contains(hostile), "{}: {text:?}", format.name);
        }
    }

    #[test]
    fn a_statement_without_columns_draws_nothing_except_its_json_object() {
        for format in &FORMATS {
            let mut renderer = (format.renderer)(Options::default());
            let mut out = Vec::new();
            renderer.begin("USE", &[], &mut out).unwrap();
            renderer.end(Some(&Summary::default()), &mut out).unwrap();
            renderer.finish(&mut out).unwrap();
            assert_eq!(out.is_empty(), format.name != "json", "{}", format.name);
        }
    }

    #[test]
    fn a_row_that_is_shorter_or_longer_than_its_columns_is_drawn_without_panic() {
        for format in &FORMATS {
            let mut renderer = (format.renderer)(Options::default());
            let mut out = Vec::new();
            renderer.begin("SELECT", &columns(), &mut out).unwrap();
            renderer.rows(vec![vec![], vec![Value::Boolean(true); 9]], &mut out).unwrap();
            renderer.end(None, &mut out).unwrap();
            renderer.finish(&mut out).unwrap();
        }
    }
}
