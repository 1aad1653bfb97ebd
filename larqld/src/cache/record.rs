//! An answer kept while it is given.

use std::cell::RefCell;

use super::Answer;
use crate::exec::{Output, OutputSink, SinkClosed, row_bytes};

/// Passes an answer on and keeps it, as long as it is not too large.
pub struct Recorder<'a> {
    inner: &'a dyn OutputSink,
    bytes_max: usize,
    kept: RefCell<Option<Answer>>,
}

impl<'a> Recorder<'a> {
    /// Keeps nothing of an answer that takes more than so many bytes.
    pub fn new(inner: &'a dyn OutputSink, bytes_max: usize) -> Self {
        let empty = Answer { pieces: Vec::new(), rows: 0, bytes: 0 };
        Self { inner, bytes_max, kept: RefCell::new((bytes_max > 0).then_some(empty)) }
    }

    /// The whole answer, if it was kept.
    pub fn finish(self) -> Option<Answer> {
        self.kept.into_inner()
    }

    fn keep(&self, output: &Output) {
        let mut kept = self.kept.borrow_mut();
        let Some(answer) = kept.as_mut() else { return };
        match output {
            Output::Rows(rows) => {
                answer.rows += rows.len() as u64;
                answer.bytes += rows.iter().map(|row| row_bytes(row)).sum::<usize>();
            }
            Output::Notice { message, hint } => {
                answer.bytes += size_of::<Output>() + message.len() + hint.len();
            }
            _ => return,
        }
        if answer.bytes > self.bytes_max {
            *kept = None;
        } else {
            answer.pieces.push(output.clone());
        }
    }
}

impl OutputSink for Recorder<'_> {
    fn send(&self, output: Output) -> Result<(), SinkClosed> {
        self.keep(&output);
        self.inner.send(output)
    }
}
