//! Joins: pairs of rows of two inputs. The second input is read first and held in memory; the first
//! flows past it. Pairs come in the order of the first input, then of the second, whichever way they
//! are found.

use std::collections::HashMap;
use std::sync::Arc;

use larql_planner::bind::expression::Expression;
use larql_planner::physical::plan;
use larql_planner::value::{ColumnType, Value};

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
    ByKey {
        keys: Vec<(Expression, Expression)>,
        /// Whether the keys of both sides are integers, by key.
        exact: Vec<bool>,
        index: HashMap<Vec<Part>, Arc<[usize]>>,
    },
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
        let is_integer = |expression: &Expression| expression.kind() == Some(ColumnType::Integer);
        let exact = join.keys.iter().map(|(a, b)| is_integer(a) && is_integer(b)).collect();
        let partners = Partners::ByKey { keys: join.keys, exact, index: HashMap::new() };
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
        let Partners::ByKey { keys, exact, index } = &mut self.partners else { return Ok(held) };
        let mut lists: HashMap<Vec<Part>, Vec<usize>> = HashMap::new();
        for (at, row) in held.iter().enumerate() {
            if at.is_multiple_of(PAIRS_BETWEEN_CHECKS) {
                work.cancel.check()?;
            }
            let key = keys.iter().zip(&*exact).map(|((_, key), exact)| part(key, row, *exact));
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
            Partners::ByKey { keys, exact, index } => {
                let key = keys.iter().zip(exact).map(|((key, _), exact)| part(key, row, *exact));
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

/// What a value is found by: equal values have equal parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Boolean(bool),
    /// The bits of a number as a 64-bit real.
    Real(u64),
    /// The bits of a number as a 32-bit real, because scores compare so.
    Score(u32),
    Text(Arc<str>),
    List,
}

/// The part of a key; `None` where it is NULL, which equals nothing. Where both sides are integers,
/// `exact`, parts tell apart all but the largest; else scores may take part.
fn part(key: &Expression, row: &Row, exact: bool) -> Option<Part> {
    // Both zeros, and all that are not a number, are equal.
    let real = |real: f64| if real.is_nan() { f64::NAN } else { real + 0.0 };
    Some(match evaluate(key, row) {
        Value::Null => return None,
        Value::Boolean(truth) => Part::Boolean(truth),
        Value::Text(text) => Part::Text(text),
        Value::List(_) => Part::List,
        number => {
            let number = real(number.as_real()?);
            if exact {
                Part::Real(number.to_bits())
            } else {
                let narrow = number as f32;
                Part::Score(if narrow.is_nan() { f32::NAN.to_bits() } else { narrow.to_bits() })
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part_of(value: Value, exact: bool) -> Option<Part> {
        part(&Expression::Literal(value), &Vec::new(), exact)
    }

    #[test]
    fn values_that_compare_equal_are_found_under_one_part() {
        let equal = [
            (Value::Score(0.1), Value::Real(0.1)),
            (Value::Integer(3), Value::Real(3.0)),
            (Value::Integer(1 << 60), Value::Real((1_u64 << 60) as f64)),
            (Value::Real(0.0), Value::Real(-0.0)),
            (Value::Real(f64::NAN), Value::Real(-f64::NAN)),
            (Value::Integer(16_777_217), Value::Real(16_777_217.0)),
        ];
        for (a, b) in equal {
            assert_eq!(a.compare(&b), Some(std::cmp::Ordering::Equal), "{a} {b}");
            assert_eq!(part_of(a.clone(), false), part_of(b.clone(), false), "{a} {b}");
        }
        assert_ne!(
            part_of(Value::Integer(16_777_217), true),
            part_of(Value::Integer(16_777_216), true)
        );
        assert_eq!(part_of(Value::Null, false), None);
    }
}
