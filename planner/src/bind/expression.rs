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
    /// Whether a value equals one of many constants of one type.
    InSet {
        /// The value.
        value: Box<Expression>,
        /// The constants in ascending order, without repeats and NULL.
        set: Arc<[Value]>,
        /// Whether NULL was among them.
        has_null: bool,
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

/// Scalar functions. Each gives NULL for a NULL argument, except `COALESCE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    /// Absolute value of a number.
    Abs,
    /// The first of two values that is not NULL.
    Coalesce,
    /// Number of characters of a text.
    Length,
    /// A text in lower case.
    Lower,
    /// A number rounded to the nearest integer, halves away from zero; a real.
    Round,
    /// A text in upper case.
    Upper,
}

impl Function {
    /// Every function, by name.
    pub const ALL: [Self; 6] =
        [Self::Abs, Self::Coalesce, Self::Length, Self::Lower, Self::Round, Self::Upper];

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Abs => "abs",
            Self::Coalesce => "coalesce",
            Self::Length => "length",
            Self::Lower => "lower",
            Self::Round => "round",
            Self::Upper => "upper",
        }
    }

    /// How many arguments it takes.
    pub fn arity(self) -> usize {
        if self == Self::Coalesce { 2 } else { 1 }
    }

    fn evaluate(self, arguments: &[Value]) -> Value {
        match (self, arguments) {
            (Self::Coalesce, [first, second]) => {
                if first.is_null() {
                    second.clone()
                } else {
                    first.clone()
                }
            }
            (Self::Length, [Value::Text(text)]) => {
                Value::Integer(i64::try_from(text.chars().count()).unwrap_or(i64::MAX))
            }
            (Self::Lower, [Value::Text(text)]) => Value::text(text.to_lowercase()),
            (Self::Upper, [Value::Text(text)]) => Value::text(text.to_uppercase()),
            (Self::Abs, [Value::Integer(integer)]) => integer
                .checked_abs()
                .map_or_else(|| Value::Real((*integer as f64).abs()), Value::Integer),
            (Self::Abs, [Value::Score(score)]) => Value::Score(score.abs()),
            (Self::Abs, [Value::Real(real)]) => Value::Real(real.abs()),
            (Self::Round, [number]) => {
                number.as_real().map_or(Value::Null, |real| Value::Real(real.round()))
            }
            _ => Value::Null,
        }
    }
}

impl Expression {
    /// Evaluates over one row, given as a function from column index to value.
    pub fn evaluate(&self, row: &dyn Fn(ColumnIndex) -> Value) -> Value {
        match self {
            Self::Column { index, .. } => row(*index),
            Self::Literal(value) => value.clone(),
            Self::Not(operand) => truth_value(truth(&operand.evaluate(row)).map(|truth| !truth)),
            Self::And(operands) => connective(operands, row, false),
            Self::Or(operands) => connective(operands, row, true),
            Self::Comparison { operator, left, right } => {
                let order = left.evaluate(row).compare(&right.evaluate(row));
                truth_value(order.map(|order| holds(*operator, order)))
            }
            Self::Like { value, pattern } => match (value.evaluate(row), pattern.evaluate(row)) {
                (Value::Text(text), Value::Text(pattern)) => Value::Boolean(like(&text, &pattern)),
                _ => Value::Null,
            },
            Self::InList { value, list } => {
                let value = value.evaluate(row);
                let mut unknown = false;
                for candidate in list {
                    match value.compare(&candidate.evaluate(row)) {
                        Some(Ordering::Equal) => return Value::Boolean(true),
                        Some(_) => {}
                        None => unknown = true,
                    }
                }
                if unknown { Value::Null } else { Value::Boolean(false) }
            }
            Self::InSet { value, set, has_null } => {
                let value = value.evaluate(row);
                if value.is_null() {
                    return Value::Null;
                }
                let at = set.partition_point(|one| one.compare(&value) == Some(Ordering::Less));
                let found = set.get(at).and_then(|one| one.compare(&value));
                match (found == Some(Ordering::Equal), has_null) {
                    (true, _) => Value::Boolean(true),
                    (false, true) => Value::Null,
                    (false, false) => Value::Boolean(false),
                }
            }
            Self::IsNull(operand) => Value::Boolean(operand.evaluate(row).is_null()),
            Self::Arithmetic { first, rest } => {
                rest.iter().fold(first.evaluate(row), |left, (operator, right)| {
                    arithmetic(*operator, &left, &right.evaluate(row))
                })
            }
            Self::Negate(operand) => match operand.evaluate(row) {
                Value::Integer(integer) => integer
                    .checked_neg()
                    .map_or_else(|| Value::Real(-(integer as f64)), Value::Integer),
                Value::Real(real) => Value::Real(-real),
                Value::Score(score) => Value::Score(-score),
                _ => Value::Null,
            },
            Self::Function { function, arguments } => {
                let arguments: Vec<Value> =
                    arguments.iter().map(|argument| argument.evaluate(row)).collect();
                function.evaluate(&arguments)
            }
        }
    }

    /// Whether the expression is true for the row: neither false nor NULL.
    pub fn is_true(&self, row: &dyn Fn(ColumnIndex) -> Value) -> bool {
        truth(&self.evaluate(row)) == Some(true)
    }

    /// Visits the expression and everything below.
    pub fn visit(&self, see: &mut dyn FnMut(&Self)) {
        see(self);
        match self {
            Self::Column { .. } | Self::Literal(_) => {}
            Self::Not(operand) | Self::IsNull(operand) | Self::Negate(operand) => {
                operand.visit(see);
            }
            Self::And(operands) | Self::Or(operands) => {
                operands.iter().for_each(|operand| operand.visit(see));
            }
            Self::Comparison { left, right, .. } => {
                left.visit(see);
                right.visit(see);
            }
            Self::Like { value, pattern } => {
                value.visit(see);
                pattern.visit(see);
            }
            Self::InSet { value, .. } => value.visit(see),
            Self::InList { value, list } => {
                value.visit(see);
                list.iter().for_each(|candidate| candidate.visit(see));
            }
            Self::Arithmetic { first, rest } => {
                first.visit(see);
                rest.iter().for_each(|(_, operand)| operand.visit(see));
            }
            Self::Function { arguments, .. } => {
                arguments.iter().for_each(|argument| argument.visit(see));
            }
        }
    }

    /// The same expression over another numbering of columns.
    pub fn renumber(&self, new: &dyn Fn(ColumnIndex) -> ColumnIndex) -> Self {
        let mut expression = self.clone();
        expression.renumber_in_place(new);
        expression
    }

    fn renumber_in_place(&mut self, new: &dyn Fn(ColumnIndex) -> ColumnIndex) {
        if let Self::Column { index, .. } = self {
            *index = new(*index);
        }
        self.operands_mut().into_iter().for_each(|operand| operand.renumber_in_place(new));
    }

    /// Puts an expression in the place of each column.
    pub fn replace_columns(&mut self, new: &dyn Fn(ColumnIndex) -> Self) {
        if let Self::Column { index, .. } = self {
            *self = new(*index);
            return;
        }
        self.operands_mut().into_iter().for_each(|operand| operand.replace_columns(new));
    }

    /// The operands one level below, to be changed.
    fn operands_mut(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Column { .. } | Self::Literal(_) => Vec::new(),
            Self::Not(operand) | Self::IsNull(operand) | Self::Negate(operand) => vec![operand],
            Self::And(operands) | Self::Or(operands) => operands.iter_mut().collect(),
            Self::Comparison { left, right, .. } => vec![left, right],
            Self::Like { value, pattern } => vec![value, pattern],
            Self::InSet { value, .. } => vec![value],
            Self::InList { value, list } => std::iter::once(&mut **value).chain(list).collect(),
            Self::Arithmetic { first, rest } => std::iter::once(&mut **first)
                .chain(rest.iter_mut().map(|(_, operand)| operand))
                .collect(),
            Self::Function { arguments, .. } => arguments.iter_mut().collect(),
        }
    }

    /// The indices of the columns it reads, ascending, without repeats.
    pub fn columns(&self) -> Vec<ColumnIndex> {
        let mut columns = Vec::new();
        self.visit(&mut |expression| {
            if let Self::Column { index, .. } = expression {
                columns.push(*index);
            }
        });
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The type of its values; `None` if it is always NULL.
    pub fn kind(&self) -> Option<ColumnType> {
        match self {
            Self::Column { kind, .. } => Some(*kind),
            Self::Literal(value) => value.kind(),
            Self::Not(_)
            | Self::And(_)
            | Self::Or(_)
            | Self::Comparison { .. }
            | Self::Like { .. }
            | Self::InList { .. }
            | Self::InSet { .. }
            | Self::IsNull(_) => Some(ColumnType::Boolean),
            Self::Arithmetic { first, rest } => {
                // NULL is of either type.
                let is_real = |operand: &Self| operand.kind() == Some(ColumnType::Real);
                let makes_real = |(operator, operand): &(ArithmeticOperator, Self)| {
                    *operator == ArithmeticOperator::Divide || is_real(operand)
                };
                let real = is_real(first) || rest.iter().any(makes_real);
                Some(if real { ColumnType::Real } else { ColumnType::Integer })
            }
            Self::Negate(operand) => operand.kind(),
            Self::Function { function, arguments } => match function {
                Function::Abs => arguments.first().and_then(Self::kind),
                Function::Coalesce => {
                    let kinds = arguments.iter().filter_map(Self::kind);
                    kinds.reduce(|a, b| if a == b { a } else { ColumnType::Real })
                }
                Function::Length => Some(ColumnType::Integer),
                Function::Lower | Function::Upper => Some(ColumnType::Text),
                Function::Round => Some(ColumnType::Real),
            },
        }
    }

    /// Whether a value is in a list. Many constants of one type become a set, in which a value is found
    /// by halving.
    pub fn in_list(value: Self, list: Vec<Self>) -> Self {
        /// From so many on a set pays.
        const SET_MIN: usize = 16;
        let value = Box::new(value);
        let literal = |item: &Self| match item {
            Self::Literal(literal) => Some(literal.clone()),
            _ => None,
        };
        let literals: Option<Vec<Value>> = list.iter().map(literal).collect();
        let Some(mut set) = literals.filter(|literals| literals.len() >= SET_MIN) else {
            return Self::InList { value, list };
        };
        let count = set.len();
        set.retain(|literal| !literal.is_null());
        let has_null = set.len() < count;
        // One order over numbers of every kind; what is no number is compared with its own kind only.
        let is_number = |literal: &Value| literal.kind().is_some_and(ColumnType::is_number);
        let kind = set.first().and_then(Value::kind);
        if !set.iter().all(is_number) && set.iter().any(|literal| literal.kind() != kind) {
            return Self::InList { value, list };
        }
        set.sort_by(Value::total_order);
        set.dedup();
        Self::InSet { value, set: set.into(), has_null }
    }

    /// The operands of a conjunction; the expression itself if it is none.
    pub fn conjuncts(self) -> Vec<Self> {
        match self {
            Self::And(operands) => operands.into_iter().flat_map(Self::conjuncts).collect(),
            other => vec![other],
        }
    }

    /// The conjunction of these, without those that are TRUE; `None` if none are left.
    pub fn conjunction(mut operands: Vec<Self>) -> Option<Self> {
        operands.retain(|operand| !matches!(operand, Self::Literal(Value::Boolean(true))));
        match operands.len() {
            0 => None,
            1 => operands.pop(),
            _ => Some(Self::And(operands)),
        }
    }
}

/// What a value says as a truth value; `None` for NULL, the third one.
fn truth(value: &Value) -> Option<bool> {
    if let Value::Boolean(truth) = value { Some(*truth) } else { None }
}

fn truth_value(truth: Option<bool>) -> Value {
    truth.map_or(Value::Null, Value::Boolean)
}

/// AND (`decisive` false) and OR (`decisive` true): one decisive operand decides, else one NULL
/// leaves it open.
fn connective(
    operands: &[Expression],
    row: &dyn Fn(ColumnIndex) -> Value,
    decisive: bool,
) -> Value {
    let mut unknown = false;
    for operand in operands {
        match truth(&operand.evaluate(row)) {
            Some(truth) if truth == decisive => return Value::Boolean(decisive),
            Some(_) => {}
            None => unknown = true,
        }
    }
    if unknown { Value::Null } else { Value::Boolean(!decisive) }
}

fn holds(operator: ComparisonOperator, order: Ordering) -> bool {
    match operator {
        ComparisonOperator::Equal => order.is_eq(),
        ComparisonOperator::NotEqual => order.is_ne(),
        ComparisonOperator::Less => order.is_lt(),
        ComparisonOperator::LessOrEqual => order.is_le(),
        ComparisonOperator::Greater => order.is_gt(),
        ComparisonOperator::GreaterOrEqual => order.is_ge(),
    }
}

fn arithmetic(operator: ArithmeticOperator, left: &Value, right: &Value) -> Value {
    use ArithmeticOperator as Op;
    if let (Value::Integer(a), Value::Integer(b)) = (left, right) {
        let exact = match operator {
            Op::Add => a.checked_add(*b),
            Op::Subtract => a.checked_sub(*b),
            Op::Multiply => a.checked_mul(*b),
            Op::Divide => None,
        };
        if let Some(integer) = exact {
            return Value::Integer(integer);
        }
    }
    let (Some(a), Some(b)) = (left.as_real(), right.as_real()) else { return Value::Null };
    match operator {
        Op::Add => Value::Real(a + b),
        Op::Subtract => Value::Real(a - b),
        Op::Multiply => Value::Real(a * b),
        Op::Divide if b == 0.0 => Value::Null,
        Op::Divide => Value::Real(a / b),
    }
}

/// Matches a whole text against a pattern of `%` and `_`, in time proportional to the product of
/// their lengths at worst.
fn like(text: &str, pattern: &str) -> bool {
    let (mut text_rest, mut pattern_rest) = (text.chars(), pattern.chars());
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let (mut text_next, mut pattern_next) = (text_rest.clone(), pattern_rest.clone());
        match (pattern_next.next(), text_next.next()) {
            (Some('%'), _) => {
                retry = Some((text_rest.clone(), pattern_next.clone()));
                pattern_rest = pattern_next;
                continue;
            }
            (Some(wanted), Some(found)) if wanted == '_' || wanted == found => {
                (text_rest, pattern_rest) = (text_next, pattern_next);
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        // A mismatch: let the last `%` take one more character and try again after it.
        let Some((mut text_retry, pattern_retry)) = retry.take() else { return false };
        if text_retry.next().is_none() {
            return false;
        }
        (text_rest, pattern_rest) = (text_retry.clone(), pattern_retry.clone());
        retry = Some((text_retry, pattern_retry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUTHS: [Option<bool>; 3] = [Some(false), None, Some(true)];

    fn literal(truth: Option<bool>) -> Expression {
        Expression::Literal(truth_value(truth))
    }

    fn value_of(expression: &Expression) -> Value {
        expression.evaluate(&|_| Value::Null)
    }

    fn compare(operator: ComparisonOperator, left: Value, right: Value) -> Value {
        value_of(&Expression::Comparison {
            operator,
            left: Box::new(Expression::Literal(left)),
            right: Box::new(Expression::Literal(right)),
        })
    }

    #[test]
    fn and_is_the_least_and_or_the_greatest_of_false_null_true() {
        for (i, a) in TRUTHS.into_iter().enumerate() {
            for (j, b) in TRUTHS.into_iter().enumerate() {
                let both = vec![literal(a), literal(b)];
                let and = value_of(&Expression::And(both.clone()));
                assert_eq!(and, truth_value(TRUTHS[i.min(j)]), "{a:?} AND {b:?}");
                let or = value_of(&Expression::Or(both));
                assert_eq!(or, truth_value(TRUTHS[i.max(j)]), "{a:?} OR {b:?}");
            }
            let not = value_of(&Expression::Not(Box::new(literal(a))));
            assert_eq!(not, truth_value(TRUTHS[2 - i]), "NOT {a:?}");
        }
    }

    #[test]
    fn comparisons_with_null_are_null_and_is_null_never_is() {
        for operator in [ComparisonOperator::Equal, ComparisonOperator::NotEqual] {
            assert!(compare(operator, Value::Null, Value::Null).is_null());
            assert!(compare(operator, Value::Integer(1), Value::Null).is_null());
        }
        let is_null = Expression::IsNull(Box::new(Expression::Literal(Value::Null)));
        assert_eq!(value_of(&is_null), Value::Boolean(true));
    }

    #[test]
    fn not_in_a_list_with_null_is_unknown_unless_found() {
        let in_list = |value: i64| {
            value_of(&Expression::InList {
                value: Box::new(Expression::Literal(Value::Integer(value))),
                list: vec![
                    Expression::Literal(Value::Null),
                    Expression::Literal(Value::Integer(2)),
                ],
            })
        };
        assert_eq!(in_list(2), Value::Boolean(true));
        assert!(in_list(3).is_null());
    }

    #[test]
    fn a_set_answers_what_its_list_would() {
        let sets: [fn(i64) -> Value; 4] = [
            |n| Value::Integer(n * 3 % 31),
            |n| Value::Real(n as f64 * 0.1),
            |n| if n % 2 == 0 { Value::Integer(n / 4) } else { Value::Real(n as f64 * 0.25) },
            |n| Value::text(format!("t{}", n * 7 % 23)),
        ];
        for (make, with_null) in sets.into_iter().flat_map(|make| [(make, false), (make, true)]) {
            let null = with_null.then_some(Value::Null);
            let list: Vec<Expression> =
                (0..40).map(make).chain(null).map(Expression::Literal).collect();
            let values = (-2..45).flat_map(|n| [make(n), Value::Null]).chain([
                Value::Score(0.1),
                Value::Score(0.15),
                Value::Real(f64::NAN),
            ]);
            for value in values {
                let value = Expression::Literal(value);
                let set = Expression::in_list(value.clone(), list.clone());
                assert!(matches!(set, Expression::InSet { .. }));
                let by_list =
                    Expression::InList { value: Box::new(value.clone()), list: list.clone() };
                let comparable = !matches!(&value, Expression::Literal(value)
                    if value.kind() != list[0].kind() && !value.is_null()
                        && (value.as_real().is_none() || list[0].kind() == Some(ColumnType::Text)));
                if comparable {
                    let (found, expected) = (value_of(&set), value_of(&by_list));
                    assert_eq!(found.is_null(), expected.is_null(), "{value:?}");
                    assert_eq!(found, expected, "{value:?}");
                }
            }
        }
    }

    #[test]
    fn like_matches_runs_and_single_characters_of_any_script() {
        for (text, pattern, expected) in [
            ("France", "Fr%", true),
            ("France", "%an%", true),
            ("France", "F_ance", true),
            ("France", "france", false),
            ("Москва", "М_ск%", true),
            ("", "%", true),
            ("", "_", false),
            ("aab", "%ab", true),
            ("abcabd", "%ab_", true),
            ("abcabc", "%ab", false),
        ] {
            assert_eq!(like(text, pattern), expected, "{text:?} LIKE {pattern:?}");
        }
    }

    #[test]
    fn a_hostile_pattern_is_matched_in_bounded_time() {
        let text = "a".repeat(5_000);
        assert!(!like(&text, &format!("{}b", "%a".repeat(500))));
    }

    #[test]
    fn division_by_zero_is_null_and_overflow_becomes_real() {
        let one = Value::Integer(1);
        assert!(arithmetic(ArithmeticOperator::Divide, &one, &Value::Integer(0)).is_null());
        let sum = arithmetic(ArithmeticOperator::Add, &Value::Integer(i64::MAX), &one);
        assert_eq!(sum, Value::Real(9.223_372_036_854_776e18));
        let quotient = arithmetic(ArithmeticOperator::Divide, &one, &Value::Integer(4));
        assert_eq!(quotient, Value::Real(0.25));
    }
}
