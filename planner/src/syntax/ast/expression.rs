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

impl ExpressionKind {
    /// The operands one level below.
    fn operands(&self) -> Vec<&Expression> {
        match self {
            Self::Null
            | Self::Boolean(_)
            | Self::Integer(_)
            | Self::Real(_)
            | Self::Text(_)
            | Self::Parameter(_)
            | Self::Column { .. }
            | Self::Function { arguments: None, .. } => Vec::new(),
            Self::Not(operand) | Self::Negate(operand) => vec![&**operand],
            Self::And(operands)
            | Self::Or(operands)
            | Self::Function { arguments: Some(operands), .. } => operands.iter().collect(),
            Self::Comparison { left, right, .. } => vec![&**left, &**right],
            Self::Like { value, pattern, .. } => vec![&**value, &**pattern],
            Self::InList { value, list, .. } => std::iter::once(&**value).chain(list).collect(),
            Self::Between { value, low, high, .. } => vec![&**value, &**low, &**high],
            Self::IsNull { value, .. } => vec![&**value],
            Self::Arithmetic { first, rest } => {
                std::iter::once(&**first).chain(rest.iter().map(|(_, operand)| operand)).collect()
            }
        }
    }

    /// The operands one level below, to be changed.
    pub(crate) fn operands_mut(&mut self) -> Vec<&mut Expression> {
        match self {
            Self::Null
            | Self::Boolean(_)
            | Self::Integer(_)
            | Self::Real(_)
            | Self::Text(_)
            | Self::Parameter(_)
            | Self::Column { .. }
            | Self::Function { arguments: None, .. } => Vec::new(),
            Self::Not(operand) | Self::Negate(operand) => vec![&mut **operand],
            Self::And(operands)
            | Self::Or(operands)
            | Self::Function { arguments: Some(operands), .. } => operands.iter_mut().collect(),
            Self::Comparison { left, right, .. } => vec![&mut **left, &mut **right],
            Self::Like { value, pattern, .. } => vec![&mut **value, &mut **pattern],
            Self::InList { value, list, .. } => std::iter::once(&mut **value).chain(list).collect(),
            Self::Between { value, low, high, .. } => {
                vec![&mut **value, &mut **low, &mut **high]
            }
            Self::IsNull { value, .. } => vec![&mut **value],
            Self::Arithmetic { first, rest } => std::iter::once(&mut **first)
                .chain(rest.iter_mut().map(|(_, operand)| operand))
                .collect(),
        }
    }

    /// Visits the expression and everything below.
    pub fn visit<'a>(&'a self, see: &mut dyn FnMut(&'a Self)) {
        see(self);
        self.operands().into_iter().for_each(|operand| operand.value.visit(see));
    }
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
