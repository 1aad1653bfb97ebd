//! Names in scope: which columns an expression may read, and under which qualifiers.

use std::ops::Range;
use std::sync::Arc;

use super::BindError;
use super::expression::Expression;
use crate::nearest_name::nearest;
use crate::syntax::Span;
use crate::value::Column;

/// The columns that an expression may name, those of one source of rows after those of another.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    tables: Vec<ScopeTable>,
    columns: Vec<Column>,
}

/// One source of rows within a scope.
#[derive(Debug, Clone)]
pub(super) struct ScopeTable {
    /// What qualifies its columns: the alias, else the table's name; a sub-query may have neither.
    name: Option<String>,
    /// The table in messages.
    described: String,
    /// Its columns among those of the scope.
    columns: Range<usize>,
    /// How many of its columns `*` stands for, from the first.
    shown: usize,
}

impl Scope {
    /// The scope of one table without alias.
    pub fn of_table(name: &str, columns: Vec<Column>) -> Self {
        let shown = columns.len();
        let mut scope = Self::default();
        scope.push(Some(name.to_owned()), name.to_owned(), columns, shown);
        scope
    }

    /// Adds a source of rows after those that are there.
    pub fn push(
        &mut self,
        name: Option<String>,
        described: String,
        columns: Vec<Column>,
        shown: usize,
    ) {
        let start = self.columns.len();
        self.columns.extend(columns);
        let columns = start..self.columns.len();
        self.tables.push(ScopeTable { name, described, columns, shown });
    }

    /// All columns, by index.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Where the columns of each source begin.
    pub fn starts(&self) -> Vec<usize> {
        self.tables.iter().map(|table| table.columns.start).collect()
    }

    /// Whether a source goes by that name.
    pub fn has(&self, qualifier: &str) -> bool {
        self.tables.iter().any(|table| table.answers_to(qualifier))
    }

    /// The columns that `*`, or `qualifier.*`, stands for.
    pub fn shown(&self, qualifier: Option<&str>, span: Span) -> Result<Vec<usize>, BindError> {
        let tables = self.tables(qualifier, span)?;
        Ok(tables.flat_map(|table| table.columns.clone().take(table.shown)).collect())
    }

    /// The index of a column.
    pub fn column(
        &self,
        qualifier: Option<&str>,
        name: &str,
        span: Span,
    ) -> Result<usize, BindError> {
        let mut found: Option<(usize, &ScopeTable)> = None;
        for table in self.tables(qualifier, span)? {
            for index in table.columns.clone() {
                if !self.columns[index].name.eq_ignore_ascii_case(name) {
                    continue;
                }
                if let Some((_, first)) = found {
                    let tables = match std::ptr::eq(first, table) {
                        true => format!("twice in {}", first.described),
                        false => format!("in {} and in {}", first.called(), table.called()),
                    };
                    let name = name.to_owned();
                    return Err(BindError::AmbiguousColumn { name, tables, span });
                }
                found = Some((index, table));
            }
        }
        match found {
            Some((index, _)) => Ok(index),
            None => Err(self.unknown_column(qualifier, name, span)),
        }
    }

    fn tables<'a>(
        &'a self,
        qualifier: Option<&'a str>,
        span: Span,
    ) -> Result<impl Iterator<Item = &'a ScopeTable> + use<'a>, BindError> {
        if let Some(qualifier) = qualifier
            && !self.has(qualifier)
        {
            let names: Vec<String> =
                self.tables.iter().filter_map(|table| table.name.clone()).collect();
            return Err(BindError::UnknownTable {
                name: qualifier.to_owned(),
                nearest: nearest(qualifier, names.iter().map(String::as_str)).map(str::to_owned),
                tables: names.join(", "),
                span,
            });
        }
        let wanted = move |table: &&ScopeTable| {
            qualifier.is_none_or(|qualifier| table.answers_to(qualifier))
        };
        Ok(self.tables.iter().filter(wanted))
    }

    fn unknown_column(&self, qualifier: Option<&str>, name: &str, span: Span) -> BindError {
        let tables = self
            .tables
            .iter()
            .filter(|table| qualifier.is_none_or(|qualifier| table.answers_to(qualifier)));
        let described: Vec<&str> = tables.clone().map(|table| table.described.as_str()).collect();
        let names: Vec<&str> = tables
            .flat_map(|table| &self.columns[table.columns.clone()])
            .map(|column| column.name.as_str())
            .collect();
        if described.is_empty() {
            return BindError::NoColumns { name: name.to_owned(), span };
        }
        BindError::UnknownColumn {
            name: name.to_owned(),
            table: described.join(" and "),
            nearest: nearest(name, names.iter().copied()).map(str::to_owned),
            columns: names.join(", "),
            span,
        }
    }

    /// The expression that reads a column; among several sources its name says whose it is.
    pub fn read(&self, index: usize) -> Expression {
        let Column { name, kind } = &self.columns[index];
        let table = self.tables.iter().find(|table| table.columns.contains(&index));
        let name: Arc<str> = match table.and_then(|table| table.name.as_ref()) {
            Some(table) if self.tables.len() > 1 => Arc::from(format!("{table}.{name}")),
            _ => Arc::from(name.as_str()),
        };
        Expression::Column { index, name, kind: *kind }
    }
}

impl ScopeTable {
    fn answers_to(&self, qualifier: &str) -> bool {
        self.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(qualifier))
    }

    fn called(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.described)
    }
}
