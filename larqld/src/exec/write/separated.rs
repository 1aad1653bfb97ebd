//! Comma- or tab-separated values (RFC 4180) with a header. NULL is an empty field, as it is read.

use larql_planner::value::Column;
use larql_storage::file::NewFile;

use super::{RowWriter, WriteError, plain};
use crate::exec::Row;

/// A file of separated values.
pub(super) struct Separated(csv::Writer<NewFile>);

impl Separated {
    pub(super) fn new(
        file: NewFile,
        separator: u8,
        columns: &[Column],
    ) -> Result<Self, WriteError> {
        let mut writer = csv::WriterBuilder::new().delimiter(separator).from_writer(file);
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
