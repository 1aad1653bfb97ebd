//! Bound expressions: columns by index, types checked, evaluation total and pure.
//!
//! Evaluation follows three-valued logic: a comparison with NULL is NULL; `FALSE AND NULL` is
//! FALSE, `TRUE OR NULL` is TRUE. Nothing fails at run time: division by zero is NULL, and an
//! integer result that does not fit becomes a real.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::value::{ColumnType, Value};

pub use crate::syntax::ast::{ArithmeticOperator, ComparisonOperator};

/// Index of a column in the rows an expression reads.
pub type ColumnIndex = usize;

/// A bound expression over the columns of one input.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// The value of a column.
    Column {
        /// Which column.
        index: ColumnIndex,
        /// Its name, for EXPLAIN.
        name: Arc<str>,
        /// Its type.
        kind: ColumnType,
    },
    /// A constant.
    Literal(Value),
    /// True where the operand is false.
    Not(Box<Expression>),
    /// True where all are true; empty is true.
    And(Vec<Expression>),
    /// True where one is true; empty is false.
    Or(Vec<Expression>),
    /// Compares two values of one kind.
    Comparison {
        /// How.
        operator: ComparisonOperator,
        /// Left of the operator.
        left: Box<Expression>,
        /// Right of the operator.
        right: Box<Expression>,
    },
    /// Pattern match with `%` (any run of characters) and `_` (one character).
    Like {
        /// The text.
        value: Box<Expression>,
        /// The pattern.
        pattern: Box<Expression>,
    },
    /// Whether a value equals one of a list.
    InList {
        /// The value.
        value: Box<Expression>,
        /// The list.
        list: Vec<Expression>,
    },
    /// Whether a value is NULL; itself never NULL.
    IsNull(Box<Expression>),
    /// Numbers joined from left to right.
    Arithmetic {
        /// The leftmost operand.
        first: Box<Expression>,
        /// Each operator with its right operand.
        rest: Vec<(ArithmeticOperator, Expression)>,
    },
    /// A number with its sign changed.
    Negate(Box<Expression>),
    /// A scalar function.
    Function {
        /// Which.
        function: Function,
        /// Its arguments, as many as it takes.
        arguments: Vec<Expression>,
    },
}
