//! CREATE TABLE: a file becomes a table of facts.

use std::path::Path;

use larql_planner::catalog::Table as _;
use larql_planner::value::Value;

use super::{Operator, Row, Work, show_tables};
use crate::failure::Failure;

/// Makes the table and tells what is in it.
pub(super) struct CreateTable {
    name: String,
    file: String,
    done: bool,
}

impl CreateTable {
    pub(super) fn new(name: String, file: String) -> Self {
        Self { name, file, done: false }
    }
}

impl Operator for CreateTable {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let path = work.resolve(&self.file)?;
        let files = work.files();
        let path =
            files.canonicalize(&path).map_err(|error| Failure::io(path.display(), &error))?;
        let format = Path::new(&self.file);
        let table =
            work.engine().tables().create(&self.name, format, (&*files, &path), work.cancel)?;
        Ok(Some(vec![vec![
            Value::text(table.name()),
            Value::Integer(i64::try_from(table.rows()).unwrap_or(i64::MAX)),
            show_tables::columns(&table),
        ]]))
    }
}
