//! Comma-separated values (RFC 4180) and tab-separated ones (`tables::tab_separated`) with a header.
//! NULL is an empty field, as it is read.

use std::io::{self, Write as _};

use larql_planner::value::Column;
use larql_storage::file::NewFile;

use super::{RowWriter, WriteError, plain};
use crate::exec::Row;
use crate::tables::tab_separated;

/// A file of comma-separated values.
pub(super) struct Separated(csv::Writer<NewFile>);

impl Separated {
    pub(super) fn new(file: NewFile, columns: &[Column]) -> Result<Self, WriteError> {
        let mut writer = csv::Writer::from_writer(file);
        writer.write_record(columns.iter().map(|column| column.name.as_str())).map_err(failed)?;
        Ok(Self(writer))
    }
}

pub(super) fn failed(error: csv::Error) -> WriteError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => WriteError::Io(error),
        other => WriteError::Format(format!("{other:?}")),
    }
}

impl RowWriter for Separated {
    fn row(&mut self, row: &Row) -> Result<usize, WriteError> {
        self.0.write_record(row.iter().map(plain)).map_err(failed)?;
        Ok(0)
    }

    fn finish(self: Box<Self>) -> Result<u64, WriteError> {
        Ok(whole(self.0)?.finish()?)
    }
}

/// The file behind a writer, everything written.
pub(super) fn whole(writer: csv::Writer<NewFile>) -> Result<NewFile, WriteError> {
    writer.into_inner().map_err(|error| WriteError::Io(error.into_error()))
}

/// A file of tab-separated values.
pub(super) struct TabSeparated(io::BufWriter<NewFile>);

impl TabSeparated {
    pub(super) fn new(file: NewFile, columns: &[Column]) -> Result<Self, WriteError> {
        let mut writer = Self(io::BufWriter::new(file));
        writer.line(columns.iter().map(|column| column.name.clone()))?;
        Ok(writer)
    }

    fn line(&mut self, texts: impl ExactSizeIterator<Item = String>) -> Result<(), WriteError> {
        let alone = texts.len() == 1;
        for (index, text) in texts.enumerate() {
            let separator = if index == 0 { "" } else { "\t" };
            let field = if alone && text.is_empty() {
                tab_separated::NULL.into()
            } else {
                tab_separated::escape(&text)
            };
            write!(self.0, "{separator}{field}")?;
        }
        Ok(writeln!(self.0)?)
    }
}

impl RowWriter for TabSeparated {
    fn row(&mut self, row: &Row) -> Result<usize, WriteError> {
        self.line(row.iter().map(plain))?;
        Ok(0)
    }

    fn finish(self: Box<Self>) -> Result<u64, WriteError> {
        Ok(super::whole(self.0)?.finish()?)
    }
}
