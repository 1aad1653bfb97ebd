//! A new file of vectors, as long as was announced.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::TraceFileError;
use crate::file::{Files, NewFile, NewFileError};

/// Numbers that are turned into bytes at a time.
const NUMBERS_AT_ONCE: usize = 4 << 10;

/// A file in the making, of an announced number of `f32`s after what comes first.
#[derive(Debug)]
pub(super) struct VectorWriter {
    file: NewFile,
    announced: u64,
    written: u64,
    bytes: Vec<u8>,
}

impl VectorWriter {
    /// Begins a file with these bytes, to be followed by so many numbers.
    ///
    /// # Errors
    /// `Exists`, `Busy`; `Io`.
    pub(super) fn create(
        files: &Arc<dyn Files>,
        destination: &Path,
        first: &[&[u8]],
        announced: u64,
    ) -> Result<Self, TraceFileError> {
        let mut file = NewFile::create(files, destination)?;
        for bytes in first {
            file.write_all(bytes).map_err(|error| file.failed(error))?;
        }
        Ok(Self { file, announced, written: 0, bytes: Vec::new() })
    }

    /// Appends a vector.
    ///
    /// # Errors
    /// `Incomplete` for one more than announced; `Io`.
    pub(super) fn vector(&mut self, row: &[f32]) -> Result<(), TraceFileError> {
        self.written += row.len() as u64;
        if self.written > self.announced {
            return Err(self.incomplete());
        }
        for numbers in row.chunks(NUMBERS_AT_ONCE) {
            self.bytes.clear();
            self.bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            self.file.write_all(&self.bytes).map_err(|error| self.file.failed(error))?;
        }
        Ok(())
    }

    /// Makes the file durable at its destination; returns its length.
    ///
    /// # Errors
    /// `Incomplete`, `Exists` when somebody put something there meanwhile; `Io`.
    pub(super) fn finish(self) -> Result<u64, TraceFileError> {
        if self.written != self.announced {
            return Err(self.incomplete());
        }
        Ok(self.file.finish()?)
    }

    fn incomplete(&self) -> TraceFileError {
        TraceFileError::Incomplete { announced: self.announced, written: self.written }
    }
}

impl From<NewFileError> for TraceFileError {
    fn from(error: NewFileError) -> Self {
        match error {
            NewFileError::Exists { path } => Self::Exists { path },
            NewFileError::Busy { path } => Self::Busy { path },
            NewFileError::Io { action, path, source } => Self::Io { action, path, source },
        }
    }
}
