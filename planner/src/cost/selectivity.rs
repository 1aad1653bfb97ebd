//! Selectivity: which share of rows a predicate keeps, from 0 to 1. Without statistics these are
//! rules of thumb, the same for every column.

use crate::bind::expression::{ComparisonOperator, Expression};
use crate::value::Value;

/// `a = constant`.
pub(super) const EQUAL: f64 = 0.01;
/// `a < constant` and its like.
const RANGE: f64 = 0.33;
/// `a LIKE pattern`.
const LIKE: f64 = 0.1;
/// `a IS NULL`.
const NULL: f64 = 0.5;
/// A column or function as a predicate.
const OTHER: f64 = 0.5;

/// The share of rows for which the predicate is true.
pub fn selectivity(predicate: &Expression) -> f64 {
    match predicate {
        Expression::Literal(Value::Boolean(true)) => 1.0,
        Expression::Literal(_) => 0.0,
        Expression::Not(operand) => 1.0 - selectivity(operand),
        Expression::And(operands) => operands.iter().map(selectivity).product(),
        Expression::Or(operands) => {
            1.0 - operands.iter().map(|operand| 1.0 - selectivity(operand)).product::<f64>()
        }
        Expression::Comparison { operator, .. } => match operator {
            ComparisonOperator::Equal => EQUAL,
            ComparisonOperator::NotEqual => 1.0 - EQUAL,
            _ => RANGE,
        },
        Expression::Like { .. } => LIKE,
        Expression::InSet { set, .. } => (EQUAL * set.len() as f64).min(1.0),
        Expression::InList { list, .. } => (EQUAL * list.len() as f64).min(1.0),
        Expression::IsNull(_) => NULL,
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conjunction_keeps_less_and_a_disjunction_more_than_each_operand() {
        let null = || Expression::IsNull(Box::new(Expression::Literal(Value::Null)));
        let one = selectivity(&null());
        assert!(selectivity(&Expression::And(vec![null(), null()])) < one);
        assert!(selectivity(&Expression::Or(vec![null(), null()])) > one);
    }
}
