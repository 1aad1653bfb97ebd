//! Aggregates: functions of all rows of a group.

use std::fmt::{self, Display, Formatter};

use super::expression::Expression;
use crate::value::ColumnType;

/// A bound aggregate over the columns of the rows that are grouped.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Which.
    pub function: AggregateFunction,
    /// Only once for equal arguments.
    pub distinct: bool,
    /// Of what; `None` for `count(*)`. A row whose argument is NULL does not count.
    pub argument: Option<Expression>,
}

/// Which function of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// The number of rows whose argument is not NULL; of all rows with `*`. Never NULL.
    Count,
    /// The sum of numbers: an integer for integers, else (or where it does not fit) a real.
    Sum,
    /// The mean of numbers, a real.
    Avg,
    /// The least value.
    Min,
    /// The greatest value.
    Max,
}

impl AggregateFunction {
    /// Every one there is.
    pub const ALL: [Self; 5] = [Self::Count, Self::Sum, Self::Avg, Self::Min, Self::Max];

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(name))
    }
}

impl Aggregate {
    /// The type of its values; `None` if it is always NULL.
    pub fn kind(&self) -> Option<ColumnType> {
        let argument = self.argument.as_ref().and_then(Expression::kind);
        match self.function {
            AggregateFunction::Count => Some(ColumnType::Integer),
            AggregateFunction::Avg => Some(ColumnType::Real),
            AggregateFunction::Sum | AggregateFunction::Min | AggregateFunction::Max => argument,
        }
    }
}

impl Display for Aggregate {
    /// As it would be written.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let distinct = if self.distinct { "DISTINCT " } else { "" };
        match &self.argument {
            Some(argument) => write!(formatter, "{}({distinct}{argument})", self.function.name()),
            None => write!(formatter, "{}(*)", self.function.name()),
        }
    }
}
