//! `larql.tables`: the tables of facts that the daemon keeps.

use larql_planner::catalog::Table as _;
use larql_planner::value::Value;

use super::mount_row::integer;
use super::{Operator, Row, Work};
use crate::failure::Failure;
use crate::tables::FactsTable;

/// Gives a row a table, by name.
#[derive(Default)]
pub(super) struct ShowTables {
    done: bool,
}

impl Operator for ShowTables {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let rows = work.snapshot().tables().list().map(|listed| {
            let read = |column: fn(&FactsTable) -> Value| {
                listed.table.as_deref().map_or(Value::Null, column)
            };
            vec![
                Value::text(listed.name),
                Value::text(listed.path.display().to_string()),
                Value::text(listed.format),
                read(columns),
                read(|table| integer(table.rows())),
                read(|table| integer(table.bytes() as u64)),
            ]
        });
        Ok(Some(rows.collect()))
    }
}

/// The columns of a table with their types.
pub(super) fn columns(table: &FactsTable) -> Value {
    let columns = table.columns().iter();
    Value::List(
        columns.map(|column| Value::text(format!("{} {}", column.name, column.kind))).collect(),
    )
}
