//! Groups and their aggregates.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use larql_planner::bind::expression::Expression;
use larql_planner::bind::{Aggregate as Wanted, AggregateFunction};
use larql_planner::value::Value;

use super::rows::{Ordered, Ready, evaluate};
use super::work::row_bytes;
use super::{Operator, Row, Work};
use crate::failure::Failure;

/// Reads all of its input, then gives one row a group, by key.
pub(super) struct Aggregate {
    input: Box<dyn Operator>,
    keys: Vec<Expression>,
    aggregates: Vec<Wanted>,
    ready: Option<Ready>,
}

impl Aggregate {
    pub(super) fn new(
        input: Box<dyn Operator>,
        keys: Vec<Expression>,
        aggregates: Vec<Wanted>,
    ) -> Self {
        Self { input, keys, aggregates, ready: None }
    }

    fn fill(&mut self, work: &mut Work<'_>) -> Result<Ready, Failure> {
        let mut groups: BTreeMap<Ordered, Vec<Accumulator>> = BTreeMap::new();
        let new = || self.aggregates.iter().map(|one| Accumulator::new(one.function)).collect();
        if self.keys.is_empty() {
            groups.insert(Ordered(Vec::new()), new());
        }
        while let Some(rows) = self.input.next(work)? {
            work.cancel.check()?;
            for row in rows {
                let key: Row = self.keys.iter().map(|key| evaluate(key, &row)).collect();
                let bytes = row_bytes(&key) + size_of::<Accumulator>() * self.aggregates.len();
                let accumulators = match groups.entry(Ordered(key)) {
                    std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
                    std::collections::btree_map::Entry::Vacant(free) => {
                        work.hold(bytes)?;
                        free.insert(new())
                    }
                };
                for (accumulator, aggregate) in accumulators.iter_mut().zip(&self.aggregates) {
                    let value =
                        aggregate.argument.as_ref().map(|argument| evaluate(argument, &row));
                    work.hold(accumulator.add(value, aggregate.distinct))?;
                }
            }
        }
        let rows = groups.into_iter().map(|(Ordered(mut key), accumulators)| {
            key.extend(accumulators.into_iter().map(Accumulator::finish));
            key
        });
        Ok(Ready::new(rows.collect()))
    }
}

impl Operator for Aggregate {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            self.ready = Some(self.fill(work)?);
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}

/// One aggregate of one group, so far.
struct Accumulator {
    function: AggregateFunction,
    /// Rows counted.
    count: i64,
    /// The least or greatest value; the sum while it is an integer.
    value: Value,
    /// The sum as a real.
    sum: f64,
    /// The values met, where each counts once.
    seen: BTreeSet<Ordered>,
}

impl Accumulator {
    fn new(function: AggregateFunction) -> Self {
        Self { function, count: 0, value: Value::Null, sum: 0.0, seen: BTreeSet::new() }
    }

    /// Counts one row: `None` for `*`. Gives the bytes that are held in addition.
    fn add(&mut self, value: Option<Value>, distinct: bool) -> usize {
        let Some(value) = value else {
            self.count += 1;
            return 0;
        };
        if value.is_null() {
            return 0;
        }
        let mut held = 0;
        if distinct {
            let row = vec![value.clone()];
            held = row_bytes(&row);
            if !self.seen.insert(Ordered(row)) {
                return 0;
            }
        }
        self.count += 1;
        match self.function {
            AggregateFunction::Count => {}
            AggregateFunction::Sum | AggregateFunction::Avg => {
                self.sum += value.as_real().unwrap_or(f64::NAN);
                self.value = match (&self.value, &value, self.count) {
                    (_, Value::Integer(first), 1) => Value::Integer(*first),
                    (Value::Integer(sum), Value::Integer(next), _) => {
                        sum.checked_add(*next).map_or(Value::Null, Value::Integer)
                    }
                    _ => Value::Null,
                };
            }
            AggregateFunction::Min | AggregateFunction::Max => {
                let better = match self.function {
                    AggregateFunction::Min => Ordering::Less,
                    _ => Ordering::Greater,
                };
                if self.value.is_null() || value.total_order(&self.value) == better {
                    self.value = value;
                }
            }
        }
        held
    }

    fn finish(self) -> Value {
        match self.function {
            AggregateFunction::Count => Value::Integer(self.count),
            _ if self.count == 0 => Value::Null,
            AggregateFunction::Avg => Value::Real(self.sum / self.count as f64),
            // A sum of integers that does not fit, or of reals.
            AggregateFunction::Sum if self.value.is_null() => Value::Real(self.sum),
            AggregateFunction::Sum | AggregateFunction::Min | AggregateFunction::Max => self.value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aggregate(function: AggregateFunction, distinct: bool, values: &[Value]) -> Value {
        let mut accumulator = Accumulator::new(function);
        values.iter().for_each(|value| {
            accumulator.add(Some(value.clone()), distinct);
        });
        accumulator.finish()
    }

    #[test]
    fn nothing_counts_zero_and_all_else_of_nothing_is_null() {
        for values in [&[][..], &[Value::Null, Value::Null]] {
            for function in AggregateFunction::ALL {
                let found = aggregate(function, false, values);
                match function {
                    AggregateFunction::Count => assert_eq!(found, Value::Integer(0)),
                    _ => assert!(found.is_null(), "{function:?}"),
                }
            }
        }
    }

    #[test]
    fn a_sum_of_integers_is_one_until_it_does_not_fit() {
        let two = [Value::Integer(i64::MAX), Value::Integer(1)];
        assert!(matches!(aggregate(AggregateFunction::Sum, false, &two), Value::Real(_)));
        let two = [Value::Integer(2), Value::Null, Value::Integer(-5)];
        assert!(matches!(aggregate(AggregateFunction::Sum, false, &two), Value::Integer(-3)));
        let mixed = [Value::Integer(2), Value::Real(0.5), Value::Integer(1)];
        assert_eq!(aggregate(AggregateFunction::Sum, false, &mixed), Value::Real(3.5));
    }

    #[test]
    fn distinct_counts_equal_values_once() {
        let values = [1, 2, 2, 1, 3].map(Value::Integer);
        assert_eq!(aggregate(AggregateFunction::Count, true, &values), Value::Integer(3));
        assert_eq!(aggregate(AggregateFunction::Sum, true, &values), Value::Integer(6));
        assert_eq!(aggregate(AggregateFunction::Avg, true, &values), Value::Real(2.0));
    }

    #[test]
    fn min_and_max_keep_the_kind_of_their_values() {
        let values = [Value::Score(0.5), Value::Score(-1.5), Value::Null];
        assert!(matches!(aggregate(AggregateFunction::Min, false, &values), Value::Score(_)));
        let words = [Value::text("b"), Value::text("a")];
        assert_eq!(aggregate(AggregateFunction::Max, false, &words), Value::text("b"));
    }
}
