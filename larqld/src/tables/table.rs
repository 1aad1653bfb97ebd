//! Rows in memory, one cell after another.

use std::collections::HashSet;
use std::sync::Arc;

use larql_planner::catalog::Table;
use larql_planner::value::{Column, ColumnType, Value};

use super::TABLE_BYTES_MAX;
use crate::failure::{Failure, code};

/// A table that was read. Its cells are NULL or of their column's type.
#[derive(Debug)]
pub struct FactsTable {
    name: String,
    columns: Vec<Column>,
    /// Row by row.
    cells: Vec<Value>,
}

impl FactsTable {
    /// The cells of a row, `None` after the last.
    pub fn row(&self, index: usize) -> Option<&[Value]> {
        let width = self.columns.len();
        let start = index.checked_mul(width)?;
        self.cells.get(start..start.checked_add(width)?)
    }
}

impl Table for FactsTable {
    fn name(&self) -> &str {
        &self.name
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn rows(&self) -> u64 {
        (self.cells.len() / self.columns.len().max(1)) as u64
    }
}

/// Texts that are remembered so that repeats share one copy.
const SHARED_MAX: usize = 1 << 16;

/// Gathers cells, row by row, within the bound on memory.
pub(super) struct Builder {
    cells: Vec<Value>,
    bytes: usize,
    shared: HashSet<Arc<str>>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { cells: Vec::new(), bytes: 0, shared: HashSet::new() }
    }

    /// Adds the next cell of the current row.
    pub(super) fn push(&mut self, value: Value) -> Result<(), Failure> {
        self.bytes += size_of::<Value>();
        if self.bytes > TABLE_BYTES_MAX {
            let message =
                format!("the table takes more than {} MiB of memory", TABLE_BYTES_MAX >> 20);
            return Err(Failure::new(code::LIMIT, message).hint("split the file"));
        }
        self.cells.push(value);
        Ok(())
    }

    /// A text, as the one copy of it.
    pub(super) fn text(&mut self, text: &str) -> Value {
        if let Some(known) = self.shared.get(text) {
            return Value::Text(known.clone());
        }
        let new: Arc<str> = Arc::from(text);
        self.bytes += text.len() + 2 * size_of::<usize>();
        if self.shared.len() < SHARED_MAX {
            self.shared.insert(new.clone());
        }
        Value::Text(new)
    }

    /// The table of what was added, whose cells are of these types.
    pub(super) fn finish(self, name: &str, columns: Vec<(String, ColumnType)>) -> FactsTable {
        debug_assert!(self.cells.len().is_multiple_of(columns.len()), "a row is not whole");
        let columns = columns.into_iter().map(|(name, kind)| Column::new(name, kind)).collect();
        FactsTable { name: name.to_owned(), columns, cells: self.cells }
    }
}
