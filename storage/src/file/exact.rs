//! A length that was announced is the length that is written.

use std::io::{self, Write};

/// Passes on at most as many bytes as were announced.
pub(crate) struct ExactWriter<W> {
    inner: W,
    announced: u64,
    left: u64,
    surplus: bool,
}

impl<W: Write> ExactWriter<W> {
    /// Before anything was written of `announced` bytes.
    pub(crate) fn new(inner: W, announced: u64) -> Self {
        Self { inner, announced, left: announced, surplus: false }
    }

    /// What came of it: `Ok` when exactly the announced bytes were written.
    ///
    /// # Errors
    /// The number of bytes written, up to the first too many.
    pub(crate) fn finish(self) -> Result<(), u64> {
        match (self.left, self.surplus) {
            (0, false) => Ok(()),
            (left, surplus) => Err(self.announced - left + u64::from(surplus)),
        }
    }

    /// Whether more was offered than announced, which fails the write that did.
    pub(crate) fn is_surplus(&self) -> bool {
        self.surplus
    }
}

impl<W: Write> Write for ExactWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            self.surplus = true;
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more bytes than announced"));
        }
        let written = self.inner.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
