//! Values and column types: what a row holds, how values compare and sort.
//!
//! One order is used by comparisons, sorting and DISTINCT. Text orders by code point; integers,
//! reals and scores order by number, with NaN above every number and equal to itself. A score is a
//! 32-bit real as the weights' arithmetic made it; against a 64-bit real it is compared in 32 bits,
//! so that a score prints and compares alike.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A column's type. NULL belongs to every type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// Unicode text.
    Text,
    /// A signed 64-bit integer.
    Integer,
    /// A 64-bit real, or a 32-bit [`Value::Score`].
    Real,
    /// True or false.
    Boolean,
    /// A list of values, such as top tokens.
    List,
}

impl ColumnType {
    /// The type's name in messages, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Boolean => "boolean",
            Self::List => "list",
        }
    }

    /// Whether values of this type are numbers.
    pub fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Real)
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name, as clients see it.
    pub name: String,
    /// The type of its values.
    pub kind: ColumnType,
}

impl Column {
    /// A column by name and type.
    pub fn new(name: impl Into<String>, kind: ColumnType) -> Self {
        Self { name: name.into(), kind }
    }
}

/// One cell of a row.
#[derive(Debug, Clone)]
pub enum Value {
    /// No value.
    Null,
    /// True or false.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A 64-bit real.
    Real(f64),
    /// A 32-bit score: gate scores, logits.
    Score(f32),
    /// Text, shared because tokens repeat.
    Text(Arc<str>),
    /// A list, such as the top tokens of a feature.
    List(Arc<[Value]>),
}

impl Value {
    /// Text from anything that becomes a shared string.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The type of this value; NULL has none.
    pub fn kind(&self) -> Option<ColumnType> {
        match self {
            Self::Null => None,
            Self::Boolean(_) => Some(ColumnType::Boolean),
            Self::Integer(_) => Some(ColumnType::Integer),
            Self::Real(_) | Self::Score(_) => Some(ColumnType::Real),
            Self::Text(_) => Some(ColumnType::Text),
            Self::List(_) => Some(ColumnType::List),
        }
    }

    /// The number in this value, if it holds one.
    pub fn as_real(&self) -> Option<f64> {
        match self {
            Self::Integer(value) => Some(*value as f64),
            Self::Real(value) => Some(*value),
            Self::Score(value) => Some(f64::from(*value)),
            _ => None,
        }
    }

    /// Compares two values of one kind (numbers are one kind); `None` if either is NULL or the
    /// kinds differ.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) => None,
            (Self::Text(a), Self::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Self::Boolean(a), Self::Boolean(b)) => Some(a.cmp(b)),
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(b)),
            (Self::Score(a), Self::Real(b)) => {
                Some(compare_reals(f64::from(*a), f64::from(*b as f32)))
            }
            (Self::Real(a), Self::Score(b)) => {
                Some(compare_reals(f64::from(*a as f32), f64::from(*b)))
            }
            (Self::List(a), Self::List(b)) => Some(compare_lists(a, b)),
            _ => Some(compare_reals(self.as_real()?, other.as_real()?)),
        }
    }

    /// The total order of sorting: as [`Value::compare`], then by kind; NULL comes last.
    pub fn total_order(&self, other: &Self) -> Ordering {
        self.compare(other).unwrap_or_else(|| self.rank().cmp(&other.rank()))
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Boolean(_) => 0,
            Self::Integer(_) | Self::Real(_) | Self::Score(_) => 1,
            Self::Text(_) => 2,
            Self::List(_) => 3,
            Self::Null => 4,
        }
    }
}

impl PartialEq for Value {
    /// Equality of cells for DISTINCT and tests: NULL equals NULL.
    fn eq(&self, other: &Self) -> bool {
        self.total_order(other) == Ordering::Equal
    }
}

fn compare_reals(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn compare_lists(a: &[Value], b: &[Value]) -> Ordering {
    let first_difference =
        a.iter().zip(b).map(|(x, y)| x.total_order(y)).find(|order| order.is_ne());
    first_difference.unwrap_or_else(|| a.len().cmp(&b.len()))
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("NULL"),
            Self::Boolean(value) => formatter.write_str(if *value { "TRUE" } else { "FALSE" }),
            Self::Integer(value) => write!(formatter, "{value}"),
            Self::Real(value) => write!(formatter, "{value:?}"),
            Self::Score(value) => write!(formatter, "{value:?}"),
            Self::Text(value) => crate::syntax::print::quoted(formatter, value),
            Self::List(values) => {
                formatter.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(formatter, "{separator}{value}")?;
                }
                formatter.write_str("]")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_sort_after_every_value() {
        let mut values = [Value::Null, Value::text("b"), Value::Integer(2), Value::Real(1.5)];
        values.sort_by(Value::total_order);
        assert!(values[3].is_null());
        assert_eq!(values[0], Value::Real(1.5));
    }

    #[test]
    fn a_score_equals_the_number_it_prints_as() {
        let score = Value::Score(0.1);
        assert_eq!(score.compare(&Value::Real(0.1)), Some(Ordering::Equal));
        assert_eq!(Value::Real(0.1).compare(&score), Some(Ordering::Equal));
        assert_eq!(score.to_string(), "0.1");
    }

    #[test]
    fn not_a_number_sorts_above_numbers_and_equals_itself() {
        let nan = Value::Real(f64::NAN);
        assert_eq!(nan.compare(&Value::Real(f64::INFINITY)), Some(Ordering::Greater));
        assert_eq!(nan.compare(&nan.clone()), Some(Ordering::Equal));
    }
}
