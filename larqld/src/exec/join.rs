//! Joins: pairs of rows of two inputs. The second input is read first and held in memory; the first
//! flows past it. Pairs come in the order of the first input, then of the second, whichever way they
//! are found.

use std::collections::HashMap;
use std::sync::Arc;

use larql_planner::bind::expression::Expression;
use larql_planner::physical::plan;
use larql_planner::value::Value;

use super::rows::evaluate;
use super::work::row_bytes;
use super::{BATCH_ROWS, Operator, Row, Work};
use crate::failure::Failure;

/// Pairs looked at between two looks at the cancel token.
const PAIRS_BETWEEN_CHECKS: usize = 1 << 12;

type Input = Box<dyn Operator>;

/// How the partners of a row are found.
enum Partners {
    /// All rows are.
    All,
    /// Those that agree in the keys, by the hash of the keys.
    ByKey { keys: Vec<(Expression, Expression)>, index: HashMap<Vec<Part>, Arc<[usize]>> },
}

/// The rows of two inputs that belong together.
pub(super) struct Join {
    left: Input,
    right: Input,
    partners: Partners,
    /// What must be true of a pair, keys apart.
    condition: Option<Expression>,
    /// The rows of the second input, once they are read.
    held: Option<Vec<Row>>,
    /// Rows of the first input that wait for their partners.
    waiting: std::vec::IntoIter<Row>,
    /// The row whose pairs are being given, with the partners that are left.
    current: Option<(Row, Candidates)>,
}

/// The partners of one row that have not been looked at.
struct Candidates {
    next: usize,
    /// Which rows; `None` for all.
    listed: Option<Arc<[usize]>>,
}

impl Candidates {
    fn next(&mut self, rows: usize) -> Option<usize> {
        let at = self.next;
        self.next += 1;
        match &self.listed {
            Some(listed) => listed.get(at).copied(),
            None => (at < rows).then_some(at),
        }
    }
}

impl Join {
    /// Compares every pair.
    pub(super) fn nested_loop(left: Input, right: Input, on: Option<Expression>) -> Self {
        Self::new(left, right, Partners::All, on)
    }

    /// Finds the pairs that agree by their keys.
    pub(super) fn hash(left: Input, right: Input, join: plan::HashJoin) -> Self {
        let partners = Partners::ByKey { keys: join.keys, index: HashMap::new() };
        Self::new(left, right, partners, join.rest)
    }

    fn new(left: Input, right: Input, partners: Partners, condition: Option<Expression>) -> Self {
        let waiting = Vec::new().into_iter();
        Self { left, right, partners, condition, held: None, waiting, current: None }
    }

    /// Reads the second input.
    fn hold(&mut self, work: &mut Work<'_>) -> Result<Vec<Row>, Failure> {
        let mut held = Vec::new();
        while let Some(rows) = self.right.next(work)? {
            work.cancel.check()?;
            for row in &rows {
                work.hold(row_bytes(row))?;
            }
            held.extend(rows);
        }
        let Partners::ByKey { keys, index } = &mut self.partners else { return Ok(held) };
        let mut lists: HashMap<Vec<Part>, Vec<usize>> = HashMap::new();
        for (at, row) in held.iter().enumerate() {
            if at.is_multiple_of(PAIRS_BETWEEN_CHECKS) {
                work.cancel.check()?;
            }
            let key = keys.iter().map(|(_, key)| part(&evaluate(key, row)));
            if let Some(key) = key.collect::<Option<Vec<Part>>>() {
                work.hold(size_of::<Part>() * key.len() + size_of::<usize>() * 4)?;
                lists.entry(key).or_default().push(at);
            }
        }
        *index = lists.into_iter().map(|(key, list)| (key, Arc::from(list))).collect();
        Ok(held)
    }

    fn candidates(&self, row: &Row) -> Candidates {
        let listed = match &self.partners {
            Partners::All => None,
            Partners::ByKey { keys, index } => {
                let key = keys.iter().map(|(key, _)| part(&evaluate(key, row)));
                let found = key.collect::<Option<Vec<Part>>>().and_then(|key| index.get(&key));
                Some(found.cloned().unwrap_or_default())
            }
        };
        Candidates { next: 0, listed }
    }

    /// The pair, if it belongs together.
    fn pair(&self, left: &Row, right: &Row) -> Option<Row> {
        // Equal hashes are not equal values yet.
        if let Partners::ByKey { keys, .. } = &self.partners
            && !keys.iter().all(|(a, b)| {
                evaluate(a, left).compare(&evaluate(b, right)).is_some_and(|order| order.is_eq())
            })
        {
            return None;
        }
        let is_paired = self.condition.as_ref().is_none_or(|condition| {
            let cell = |index: usize| left.get(index).or_else(|| right.get(index - left.len()));
            condition.is_true(&|index| cell(index).cloned().unwrap_or(Value::Null))
        });
        is_paired.then(|| left.iter().chain(right).cloned().collect())
    }
}

impl Operator for Join {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let held = match self.held.take() {
            Some(held) => held,
            None => self.hold(work)?,
        };
        let mut batch = Vec::new();
        let mut looked = 0_usize;
        while batch.len() < BATCH_ROWS {
            let (row, mut candidates) = match self.current.take() {
                Some(current) => current,
                None => match self.waiting.next() {
                    Some(row) => {
                        let candidates = self.candidates(&row);
                        (row, candidates)
                    }
                    None => match self.left.next(work)? {
                        Some(rows) => {
                            self.waiting = rows.into_iter();
                            continue;
                        }
                        None => break,
                    },
                },
            };
            while let Some(at) = candidates.next(held.len()) {
                batch.extend(self.pair(&row, &held[at]));
                looked += 1;
                if looked.is_multiple_of(PAIRS_BETWEEN_CHECKS) {
                    work.cancel.check()?;
                }
                if batch.len() >= BATCH_ROWS {
                    self.current = Some((row, candidates));
                    break;
                }
            }
        }
        self.held = Some(held);
        Ok((!batch.is_empty()).then_some(batch))
    }
}

/// What a value is found by: equal values have equal parts, and different ones different parts, lists
/// apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Boolean(bool),
    /// A number that is a 64-bit integer, of whatever kind.
    Integer(i64),
    /// The bits of any other number.
    Real(u64),
    Text(Arc<str>),
    List,
}

/// The part of a key; `None` where it is NULL, which equals nothing.
fn part(value: &Value) -> Option<Part> {
    Some(match value {
        Value::Null => return None,
        Value::Boolean(truth) => Part::Boolean(*truth),
        Value::Text(text) => Part::Text(text.clone()),
        Value::List(_) => Part::List,
        Value::Integer(integer) => Part::Integer(*integer),
        Value::Real(_) | Value::Score(_) => {
            let real = value.as_real()?;
            // The cast saturates at both ends, and only the upper one is no integer of 64 bits.
            let integer = real as i64;
            if integer as f64 == real && integer != i64::MAX {
                Part::Integer(integer)
            } else {
                // All that are not a number are equal.
                Part::Real(if real.is_nan() { f64::NAN } else { real }.to_bits())
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_that_compare_equal_are_found_under_one_part() {
        let equal = [
            (Value::Score(0.1), Value::Real(0.1)),
            (Value::Integer(3), Value::Real(3.0)),
            (Value::Integer(1 << 60), Value::Real((1_u64 << 60) as f64)),
            (Value::Integer(i64::MIN), Value::Real(i64::MIN as f64)),
            (Value::Real(0.0), Value::Real(-0.0)),
            (Value::Real(f64::NAN), Value::Real(-f64::NAN)),
            (Value::Score(f32::NAN), Value::Real(f64::NAN)),
            (Value::Integer(16_777_217), Value::Real(16_777_217.0)),
        ];
        for (a, b) in equal {
            assert_eq!(a.compare(&b), Some(Ordering::Equal), "{a} {b}");
            assert_eq!(part(&a), part(&b), "{a} {b}");
        }
        assert_eq!(part(&Value::Null), None);
    }

    #[test]
    fn large_reals_that_differ_are_found_under_different_parts() {
        let parts = (0..1000_u64).map(|n| part(&Value::Real(1e300 * (1.0 + n as f64 * 1e-12))));
        assert_eq!(parts.collect::<std::collections::HashSet<_>>().len(), 1000);
        let above = Value::Real(9_223_372_036_854_775_808.0);
        assert_ne!(part(&Value::Integer(i64::MAX)), part(&above));
    }

    fn number() -> impl Strategy<Value = Value> {
        let integer = prop_oneof![-3_i64..3, (1_i64 << 53) - 2..(1 << 53) + 2, any::<i64>()];
        let score = prop_oneof![any::<f32>(), (-3_i8..3).prop_map(|n| f32::from(n) / 2.0)];
        prop_oneof![
            integer.clone().prop_map(Value::Integer),
            integer.prop_map(|integer| Value::Real(integer as f64)),
            score.clone().prop_map(Value::Score),
            score.prop_map(|score| Value::Real(format!("{score:?}").parse().unwrap())),
        ]
    }

    proptest! {
        #[test]
        fn parts_are_equal_exactly_where_numbers_are(a in number(), b in number()) {
            let equal = a.compare(&b) == Some(Ordering::Equal);
            prop_assert_eq!(part(&a) == part(&b), equal, "{} {}", a, b);
        }
    }
}
