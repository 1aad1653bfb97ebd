//! Operators that know nothing of models: one row, filter, project, sort, limit, distinct,
//! concatenate.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use larql_planner::bind::expression::Expression;
use larql_planner::physical::plan::SortKey;
use larql_planner::value::Value;

use super::work::row_bytes;
use super::{BATCH_ROWS, Operator, Row, Work};
use crate::failure::Failure;

type Input = Box<dyn Operator>;

/// The value of an expression for a row.
pub(super) fn evaluate(expression: &Expression, row: &Row) -> Value {
    expression.evaluate(&|index| row.get(index).cloned().unwrap_or(Value::Null))
}

/// Rows that are ready, given out batch by batch.
#[derive(Debug, Default)]
pub(super) struct Ready {
    rows: std::vec::IntoIter<Row>,
}

impl Ready {
    pub(super) fn new(rows: Vec<Row>) -> Self {
        Self { rows: rows.into_iter() }
    }

    pub(super) fn batch(&mut self) -> Option<Vec<Row>> {
        let batch: Vec<Row> = self.rows.by_ref().take(BATCH_ROWS).collect();
        (!batch.is_empty()).then_some(batch)
    }
}

/// One row without columns.
#[derive(Default)]
pub(super) struct OneRow {
    given: bool,
}

impl Operator for OneRow {
    fn next(&mut self, _: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        Ok((!std::mem::replace(&mut self.given, true)).then(|| vec![Row::new()]))
    }
}

/// Keeps rows whose predicate is true.
pub(super) struct Filter {
    input: Input,
    predicate: Expression,
}

impl Filter {
    pub(super) fn new(input: Input, predicate: Expression) -> Self {
        Self { input, predicate }
    }
}

impl Operator for Filter {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        while let Some(mut rows) = self.input.next(work)? {
            rows.retain(|row| matches!(evaluate(&self.predicate, row), Value::Boolean(true)));
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
            work.cancel.check()?;
        }
        Ok(None)
    }
}

/// Computes one expression a column.
pub(super) struct Project {
    input: Input,
    expressions: Vec<Expression>,
}

impl Project {
    pub(super) fn new(input: Input, expressions: Vec<Expression>) -> Self {
        Self { input, expressions }
    }
}

impl Operator for Project {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(rows) = self.input.next(work)? else { return Ok(None) };
        let project = |row: Row| {
            self.expressions.iter().map(|expression| evaluate(expression, &row)).collect()
        };
        Ok(Some(rows.into_iter().map(project).collect()))
    }
}

/// Compares two rows by their keys' values; NULL is last in either direction.
fn compare_keys(keys: &[SortKey], left: &[Value], right: &[Value]) -> Ordering {
    for (key, (a, b)) in keys.iter().zip(left.iter().zip(right)) {
        let order = match (a.is_null(), b.is_null()) {
            (false, false) if key.descending => b.total_order(a),
            _ => a.total_order(b),
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn key_values(keys: &[SortKey], row: &Row) -> Vec<Value> {
    keys.iter().map(|key| evaluate(&key.expression, row)).collect()
}

/// Sorts all of its input, stably.
pub(super) struct Sort {
    input: Input,
    keys: Vec<SortKey>,
    ready: Option<Ready>,
}

impl Sort {
    pub(super) fn new(input: Input, keys: Vec<SortKey>) -> Self {
        Self { input, keys, ready: None }
    }

    fn fill(&mut self, work: &mut Work<'_>) -> Result<Ready, Failure> {
        let mut keyed: Vec<(Vec<Value>, Row)> = Vec::new();
        while let Some(rows) = self.input.next(work)? {
            work.cancel.check()?;
            for row in rows {
                let key = key_values(&self.keys, &row);
                work.hold(row_bytes(&key) + row_bytes(&row))?;
                keyed.push((key, row));
            }
        }
        keyed.sort_by(|(a, _), (b, _)| compare_keys(&self.keys, a, b));
        Ok(Ready::new(keyed.into_iter().map(|(_, row)| row).collect()))
    }
}

impl Operator for Sort {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            self.ready = Some(self.fill(work)?);
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}

/// The first rows of a stable sort, in memory bounded by what is asked for.
pub(super) struct TopN {
    input: Input,
    keys: Vec<SortKey>,
    count: usize,
    offset: usize,
    ready: Option<Ready>,
}

impl TopN {
    pub(super) fn new(input: Input, keys: Vec<SortKey>, count: u64, offset: u64) -> Self {
        let narrow = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self { input, keys, count: narrow(count), offset: narrow(offset), ready: None }
    }

    fn fill(&mut self, work: &mut Work<'_>) -> Result<Ready, Failure> {
        let wanted = self.count.saturating_add(self.offset);
        let mut best: Vec<Candidate> = Vec::new();
        let (mut bytes, mut held) = (0, 0);
        while let Some(rows) = self.input.next(work)? {
            work.cancel.check()?;
            for row in rows {
                let key = key_values(&self.keys, &row);
                let candidate = Candidate { bytes: row_bytes(&key) + row_bytes(&row), key, row };
                bytes += candidate.bytes;
                best.push(candidate);
            }
            // What was pruned made room for what came.
            if bytes > held {
                work.hold(bytes - held)?;
                held = bytes;
            }
            // Sorting twice as much as is wanted at a time keeps the cost per row logarithmic.
            if best.len() >= wanted.saturating_mul(2).max(BATCH_ROWS) {
                self.prune(&mut best, wanted);
                bytes = best.iter().map(|candidate| candidate.bytes).sum();
            }
        }
        self.prune(&mut best, wanted);
        let rows = best.into_iter().skip(self.offset).take(self.count);
        Ok(Ready::new(rows.map(|candidate| candidate.row).collect()))
    }

    fn prune(&self, best: &mut Vec<Candidate>, wanted: usize) {
        best.sort_by(|a, b| compare_keys(&self.keys, &a.key, &b.key));
        best.truncate(wanted);
    }
}

/// A row that may be among the first.
struct Candidate {
    key: Vec<Value>,
    row: Row,
    /// Of both.
    bytes: usize,
}

impl Operator for TopN {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            self.ready = Some(self.fill(work)?);
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}

/// Skips, then passes rows; asks its input for nothing more when done.
pub(super) struct Limit {
    input: Input,
    left: Option<u64>,
    skip: u64,
}

impl Limit {
    pub(super) fn new(input: Input, count: Option<u64>, offset: u64) -> Self {
        Self { input, left: count, skip: offset }
    }
}

impl Operator for Limit {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        while self.left != Some(0) {
            let Some(mut rows) = self.input.next(work)? else { return Ok(None) };
            let skipped = self.skip.min(rows.len() as u64);
            rows.drain(..skipped as usize);
            self.skip -= skipped;
            if let Some(left) = &mut self.left {
                rows.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= rows.len() as u64;
            }
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }
}

/// A row under the total order of its values.
#[derive(PartialEq)]
pub(super) struct Ordered(pub(super) Row);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        let first =
            self.0.iter().zip(&other.0).map(|(a, b)| a.total_order(b)).find(|order| order.is_ne());
        first.unwrap_or_else(|| self.0.len().cmp(&other.0.len()))
    }
}

/// Drops rows that are equal to an earlier one.
pub(super) struct Distinct {
    input: Input,
    seen: BTreeSet<Ordered>,
}

impl Distinct {
    pub(super) fn new(input: Input) -> Self {
        Self { input, seen: BTreeSet::new() }
    }
}

impl Operator for Distinct {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        while let Some(mut rows) = self.input.next(work)? {
            rows.retain(|row| self.seen.insert(Ordered(row.clone())));
            for row in &rows {
                work.hold(row_bytes(row))?;
            }
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
            work.cancel.check()?;
        }
        Ok(None)
    }
}

/// All rows of its inputs, one after the other.
pub(super) struct Concatenate {
    inputs: std::vec::IntoIter<Input>,
    current: Option<Input>,
}

impl Concatenate {
    pub(super) fn new(inputs: Vec<Input>) -> Self {
        let mut inputs = inputs.into_iter();
        let current = inputs.next();
        Self { inputs, current }
    }
}

impl Operator for Concatenate {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        while let Some(input) = &mut self.current {
            if let Some(rows) = input.next(work)? {
                return Ok(Some(rows));
            }
            self.current = self.inputs.next();
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(descending: bool) -> SortKey {
        let expression = Expression::Column {
            index: 0,
            name: "x".into(),
            kind: larql_planner::value::ColumnType::Integer,
        };
        SortKey { expression, descending }
    }

    #[test]
    fn null_is_last_in_either_direction() {
        for descending in [false, true] {
            let order = compare_keys(&[key(descending)], &[Value::Null], &[Value::Integer(1)]);
            assert_eq!(order, Ordering::Greater, "descending: {descending}");
        }
    }
}
