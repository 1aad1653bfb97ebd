//! Rows of tables beside those of a model: tables of facts.

use std::sync::Arc;

use larql_planner::physical::plan;

use super::{BATCH_ROWS, Operator, Row, Work};
use crate::failure::{Failure, code};
use crate::tables::FactsTable;

/// The rows of a table, in the table's order.
pub(super) struct TableScan {
    scan: plan::TableScan,
    table: Option<Arc<FactsTable>>,
    next: usize,
}

impl TableScan {
    pub(super) fn new(scan: plan::TableScan) -> Self {
        Self { scan, table: None, next: 0 }
    }
}

impl Operator for TableScan {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let table = match &self.table {
            Some(table) => table,
            None => {
                let found = work.snapshot().facts(&self.scan.name)?;
                let gone = || {
                    let message = format!("there is no table \"{}\"", self.scan.name);
                    Failure::new(code::UNDEFINED_TABLE, message)
                };
                &*self.table.insert(found.ok_or_else(gone)?)
            }
        };
        let rows = (self.next..).map_while(|at| table.row(at)).take(BATCH_ROWS);
        let columns = &self.scan.columns;
        let batch: Vec<Row> = rows
            .map(|row| columns.iter().filter_map(|column| row.get(*column).cloned()).collect())
            .collect();
        self.next += batch.len();
        Ok((!batch.is_empty()).then_some(batch))
    }
}
