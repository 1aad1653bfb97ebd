//! Expressions, with their operators.

use super::Parameter;
use crate::syntax::span::Spanned;

/// An expression with its place.
pub type Expression = Spanned<ExpressionKind>;

/// What an expression is. `AND`, `OR` and chains of arithmetic are flat, so that depth comes from
/// parentheses alone.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpressionKind {
    /// NULL
    Null,
    /// TRUE or FALSE
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A real.
    Real(f64),
    /// A string.
    Text(String),
    /// `$1` or `$column`
    Parameter(Parameter),
    /// A column.
    Column {
        /// Before the dot.
        qualifier: Option<String>,
        /// The column.
        name: String,
    },
    /// `NOT a`
    Not(Box<Expression>),
    /// `a AND b AND …`, at least two.
    And(Vec<Expression>),
    /// `a OR b OR …`, at least two.
    Or(Vec<Expression>),
    /// `a = b` and its like.
    Comparison {
        /// How.
        operator: ComparisonOperator,
        /// Left of the operator.
        left: Box<Expression>,
        /// Right of the operator.
        right: Box<Expression>,
    },
    /// `a [NOT] LIKE b`
    Like {
        /// The text.
        value: Box<Expression>,
        /// The pattern.
        pattern: Box<Expression>,
        /// With NOT.
        negated: bool,
    },
    /// `a [NOT] IN (b, …)`
    InList {
        /// The value.
        value: Box<Expression>,
        /// At least one.
        list: Vec<Expression>,
        /// With NOT.
        negated: bool,
    },
    /// `a [NOT] BETWEEN b AND c`
    Between {
        /// The value.
        value: Box<Expression>,
        /// The least.
        low: Box<Expression>,
        /// The greatest.
        high: Box<Expression>,
        /// With NOT.
        negated: bool,
    },
    /// `a IS [NOT] NULL`
    IsNull {
        /// The value.
        value: Box<Expression>,
        /// With NOT.
        negated: bool,
    },
    /// Operands of one precedence joined from left to right.
    Arithmetic {
        /// The leftmost.
        first: Box<Expression>,
        /// Each operator with its right operand; all additive or all multiplicative.
        rest: Vec<(ArithmeticOperator, Expression)>,
    },
    /// `-a`
    Negate(Box<Expression>),
    /// `name(a, …)` or `name(*)`
    Function {
        /// Its name.
        name: String,
        /// `DISTINCT` before the arguments.
        distinct: bool,
        /// The arguments; `None` for `*`.
        arguments: Option<Vec<Expression>>,
    },
}

/// Operators of comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ComparisonOperator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl ComparisonOperator {
    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// Operators of arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArithmeticOperator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
}

impl ArithmeticOperator {
    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
        }
    }

    /// Whether it is `+` or `-`.
    pub fn is_additive(self) -> bool {
        matches!(self, Self::Add | Self::Subtract)
    }
}
