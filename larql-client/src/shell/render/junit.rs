//! JUnit's XML, as CI systems read it: a test case for each row that says of a name whether it holds, as CHECK
//! ASSERTIONS answers, and one for each other statement that answers rows.
//!
//! The dialect is the common core of Ant's and of what Jenkins and GitLab document: `testsuites`, `testsuite`,
//! `testcase`, `failure`. Nothing is written before the end: a suite opens with how many cases it has.

use std::io::{self, Write};

use super::{Renderer, text};
use crate::event::Summary;
use crate::value::{Column, Row, Value};

#[derive(Default)]
pub(super) struct Junit {
    suites: Vec<Suite>,
}

#[derive(Default)]
struct Suite {
    name: String,
    columns: Vec<String>,
    /// Names, and what failed of them.
    cases: Vec<(String, Option<String>)>,
    seconds: f64,
}

impl Suite {
    fn value<'r>(&self, row: &'r Row, name: &str) -> Option<&'r Value> {
        row.get(self.columns.iter().position(|column| column == name)?)
    }

    fn says_what_holds(&self) -> bool {
        ["name", "holds"].iter().all(|name| self.columns.iter().any(|column| column == name))
    }

    /// Every column but the name, as one text.
    fn describe(&self, row: &Row) -> String {
        let cells = self.columns.iter().zip(row).filter(|(name, _)| *name != "name");
        let cells = cells.map(|(name, value)| format!("{name}: {}", text::cell(value)));
        cells.collect::<Vec<_>>().join(", ")
    }
}

/// Text as XML 1.0 may hold it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

impl Renderer for Junit {
    fn begin(&mut self, tag: &str, columns: &[Column], _: &mut dyn Write) -> io::Result<()> {
        let columns = columns.iter().map(|column| column.name.clone()).collect();
        self.suites.push(Suite { name: tag.to_owned(), columns, ..Suite::default() });
        Ok(())
    }

    fn rows(&mut self, rows: Vec<Row>, _: &mut dyn Write) -> io::Result<()> {
        let Some(suite) = self.suites.last_mut().filter(|suite| suite.says_what_holds()) else {
            return Ok(());
        };
        for row in rows {
            let name = suite.value(&row, "name").map(text::cell).unwrap_or_default();
            let holds = matches!(suite.value(&row, "holds"), Some(Value::Boolean(true)));
            let problem = (!holds).then(|| suite.describe(&row));
            suite.cases.push((name, problem));
        }
        Ok(())
    }

    fn end(&mut self, summary: Option<&Summary>, _: &mut dyn Write) -> io::Result<()> {
        let Some(suite) = self.suites.last_mut() else { return Ok(()) };
        suite.seconds = summary.map_or(0.0, |summary| summary.milliseconds / 1e3);
        let failed = summary.is_none();
        let told = suite.cases.iter().any(|(_, problem)| problem.is_some());
        if !suite.columns.is_empty() && (!suite.says_what_holds() || failed && !told) {
            let problem = failed.then(|| "the statement failed".to_owned());
            suite.cases.push((suite.name.clone(), problem));
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.suites.retain(|suite| !suite.columns.is_empty());
        if self.suites.is_empty() {
            return Ok(());
        }
        writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>")?;
        for suite in &self.suites {
            let name = escaped(&suite.name);
            let failures = suite.cases.iter().filter(|(_, problem)| problem.is_some()).count();
            writeln!(
                out,
                "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failures}\" time=\"{:.3}\">",
                suite.cases.len(),
                suite.seconds
            )?;
            for (case, problem) in &suite.cases {
                let case = escaped(case);
                write!(out, "    <testcase classname=\"{name}\" name=\"{case}\"")?;
                match problem {
                    None => writeln!(out, "/>")?,
                    Some(problem) => {
                        writeln!(out, "><failure message=\"{}\"/></testcase>", escaped(problem))?
                    }
                }
            }
            writeln!(out, "  </testsuite>")?;
        }
        writeln!(out, "</testsuites>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::ColumnType;

    fn draw(rows: Vec<Row>, summary: Option<&Summary>) -> String {
        let columns = [("name", ColumnType::Text), ("holds", ColumnType::Boolean)];
        let columns =
            columns.map(|(name, column_type)| Column { name: name.to_owned(), column_type });
        let (mut junit, mut out) = (Junit::default(), Vec::new());
        junit.begin("CHECK ASSERTIONS", &columns, &mut out).unwrap();
        junit.rows(rows, &mut out).unwrap();
        junit.end(summary, &mut out).unwrap();
        junit.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_row_is_a_case_and_one_that_does_not_hold_is_a_failure() {
        let rows = vec![
            vec!["capital".into(), Value::Boolean(true)],
            vec!["<\"&\u{1b}".into(), Value::Boolean(false)],
        ];
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  \
            <testsuite name=\"CHECK ASSERTIONS\" tests=\"2\" failures=\"1\" time=\"0.000\">\n    \
            <testcase classname=\"CHECK ASSERTIONS\" name=\"capital\"/>\n    \
            <testcase classname=\"CHECK ASSERTIONS\" name=\"&lt;&quot;&amp;\\u{1b}\">\
            <failure message=\"holds: false\"/></testcase>\n  </testsuite>\n</testsuites>\n";
        assert_eq!(draw(rows, None), expected);
    }

    #[test]
    fn a_statement_that_fails_without_a_row_is_a_failure() {
        assert!(draw(Vec::new(), None).contains("tests=\"1\" failures=\"1\""));
        let summary = Summary::default();
        assert!(draw(Vec::new(), Some(&summary)).contains("tests=\"0\" failures=\"0\""));
    }
}
