//! Rows in memory, one cell after another.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use larql_planner::catalog::Table;
use larql_planner::value::{Column, ColumnType, Value};

use super::{TABLE_BYTES_MAX, TABLES_BYTES_MAX};
use crate::failure::{Failure, code};

/// A table that was read. Its cells are NULL or of their column's type.
#[derive(Debug)]
pub struct FactsTable {
    name: String,
    columns: Vec<Column>,
    /// Row by row.
    cells: Vec<Value>,
    reserved: Reserved,
}

/// The memory of all tables together.
#[derive(Debug, Clone, Default)]
pub(super) struct Budget(Arc<AtomicUsize>);

/// Bytes of the budget, given back when their table goes.
#[derive(Debug)]
struct Reserved {
    budget: Budget,
    bytes: usize,
}

impl Reserved {
    /// Takes more of the budget.
    fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        let fits = |taken: usize| taken.checked_add(bytes).filter(|&sum| sum <= TABLES_BYTES_MAX);
        let taken = self.budget.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        if taken.is_err() {
            let message =
                format!("all tables take more than {} MiB of memory", TABLES_BYTES_MAX >> 20);
            return Err(Failure::new(code::LIMIT, message).hint(
                "DROP TABLE some; SELECT name, bytes FROM larql.tables says which are large",
            ));
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl FactsTable {
    /// The memory that it takes.
    pub fn bytes(&self) -> usize {
        self.reserved.bytes
    }

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

/// How much of the budget is taken at a time.
const RESERVE_BYTES: usize = 1 << 20;

/// Gathers cells, row by row, within the bounds on memory.
pub(super) struct Builder {
    cells: Vec<Value>,
    bytes: usize,
    reserved: Reserved,
    shared: HashSet<Arc<str>>,
}

impl Builder {
    pub(super) fn new(budget: &Budget) -> Self {
        let reserved = Reserved { budget: budget.clone(), bytes: 0 };
        Self { cells: Vec::new(), bytes: 0, reserved, shared: HashSet::new() }
    }

    /// Adds the next cell of the current row.
    pub(super) fn push(&mut self, value: Value) -> Result<(), Failure> {
        self.bytes += size_of::<Value>();
        if self.bytes > TABLE_BYTES_MAX {
            let message =
                format!("the table takes more than {} MiB of memory", TABLE_BYTES_MAX >> 20);
            return Err(Failure::new(code::LIMIT, message).hint("split the file"));
        }
        if self.bytes > self.reserved.bytes {
            let missing = self.bytes - self.reserved.bytes;
            self.reserved.grow(missing.next_multiple_of(RESERVE_BYTES))?;
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

    /// Makes the integers of a column reals.
    pub(super) fn widen(&mut self, column: usize, columns: usize) {
        for cell in self.cells.iter_mut().skip(column).step_by(columns) {
            if let Value::Integer(integer) = cell {
                *cell = Value::Real(*integer as f64);
            }
        }
    }

    /// The table of what was added, whose cells are of these types.
    pub(super) fn finish(mut self, name: &str, columns: Vec<(String, ColumnType)>) -> FactsTable {
        debug_assert!(self.cells.len().is_multiple_of(columns.len()), "a row is not whole");
        let columns = columns.into_iter().map(|(name, kind)| Column::new(name, kind)).collect();
        self.cells.shrink_to_fit();
        FactsTable { name: name.to_owned(), columns, cells: self.cells, reserved: self.reserved }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_share_one_bound_and_give_back_what_they_took() {
        let budget = Budget::default();
        let mut first = Reserved { budget: budget.clone(), bytes: 0 };
        first.grow(TABLES_BYTES_MAX - 1).unwrap();
        let mut builder = Builder::new(&budget);
        let failure = builder.push(Value::Null).unwrap_err();
        assert_eq!(failure.code, code::LIMIT);
        drop(first);
        builder.push(Value::Null).unwrap();
        let table = builder.finish("t", vec![("a".to_owned(), ColumnType::Text)]);
        assert_eq!(budget.0.load(Ordering::Relaxed), table.bytes());
        drop(table);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }
}
