//! What SELECT says.

use super::{Expression, Flag, LayerNumber, Name, Text};
use crate::syntax::span::{Span, Spanned};

/// `SELECT`
#[derive(Debug, Clone, PartialEq)]
pub struct Select {
    /// `DISTINCT`
    pub distinct: bool,
    /// What to answer.
    pub items: Vec<SelectItem>,
    /// `FROM`; without it a later stage of a pipe reads the stage before, and any other computes one row.
    pub from: Option<Source>,
    /// `JOIN …`
    pub joins: Vec<Join>,
    /// `NEAREST TO … AT LAYER …`
    pub nearest: Option<Spanned<NearestTo>>,
    /// `WHERE …`
    pub filter: Option<Expression>,
    /// `GROUP BY …`
    pub group_by: Vec<Expression>,
    /// `HAVING …`
    pub having: Option<Expression>,
    /// `ORDER BY …`
    pub order_by: Vec<OrderKey>,
    /// `LIMIT n`
    pub limit: Option<u64>,
    /// `OFFSET n`
    pub offset: Option<u64>,
    /// `APPROX`
    pub approximate: Flag,
}

impl Select {
    /// `SELECT * FROM table [WHERE …]`, for statements about the rows that it would show; their text is at `span`.
    pub fn all_of(table: &str, filter: Option<Expression>, span: Span) -> Self {
        let table = Table::Named { schema: None, name: Spanned::new(table.to_owned(), span) };
        Self {
            distinct: false,
            items: vec![SelectItem::All(Spanned::new(None, span))],
            from: Some(Source { table, alias: None }),
            joins: Vec::new(),
            nearest: None,
            filter,
            group_by: Vec::new(),
            having: None,
            order_by: Vec::new(),
            limit: None,
            offset: None,
            approximate: None,
        }
    }
}

/// One item of a select list.
#[derive(Debug, Clone, PartialEq)]
pub enum SelectItem {
    /// `*` or `source.*`
    All(Spanned<Option<String>>),
    /// An expression, perhaps renamed.
    Expression {
        /// What to compute.
        expression: Expression,
        /// `AS name`
        alias: Option<Name>,
    },
}

/// A source of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Which rows.
    pub table: Table,
    /// `AS name`
    pub alias: Option<Name>,
}

/// What stands after FROM or JOIN.
#[derive(Debug, Clone, PartialEq)]
pub enum Table {
    /// `EDGES`, `FEATURES`, `ENTITIES`, or a table, perhaps with its schema.
    Named {
        /// Before the dot.
        schema: Option<Name>,
        /// The table.
        name: Name,
    },
    /// A sub-query.
    Select(Spanned<Box<Select>>),
}

/// `JOIN source ON condition`
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// The other source.
    pub source: Source,
    /// `ON …`
    pub on: Expression,
}

/// `NEAREST TO text AT LAYER n`
#[derive(Debug, Clone, PartialEq)]
pub struct NearestTo {
    /// The entity.
    pub entity: Text,
    /// The layer.
    pub layer: LayerNumber,
}

/// One key of ORDER BY.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderKey {
    /// What to sort by.
    pub expression: Expression,
    /// `DESC`
    pub descending: bool,
}
