//! REBALANCE: within which probabilities composed facts are to answer.

use super::BindError;
use super::statement::{Bound, Reader};
use crate::catalog::{Catalog, INFERENCE_COMPONENTS};
use crate::logical::Plan;
use crate::logical::plan::REBALANCE_COLUMNS;
use crate::physical::edit::Rebalance;
use crate::physical::plan::Operator;
use crate::planned::Role;

/// Rounds where the statement names none.
const ROUNDS: u64 = 16;
/// Rounds of UNTIL CONVERGED, in which every fact reaches its band or its bounds.
const ROUNDS_CONVERGED: u64 = 64;
/// Probabilities where the statement names none.
const FLOOR: f64 = 0.30;
const CEILING: f64 = 0.90;

/// Binds a REBALANCE.
///
/// # Errors
/// Probabilities that are none, or no band; both MAX and UNTIL CONVERGED.
pub(super) fn bind(
    until_converged: bool,
    rounds_max: Option<u64>,
    floor: Option<f64>,
    ceiling: Option<f64>,
    catalog: &dyn Catalog,
) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    reader.needs(&INFERENCE_COMPONENTS)?;
    let meaningless = |what: String, hint: &str| {
        Err(BindError::Meaningless { what, span: None, hint: hint.to_owned() })
    };
    let (floor, ceiling) = (floor.unwrap_or(FLOOR), ceiling.unwrap_or(CEILING));
    let is_band = (0.0..=1.0).contains(&floor) && (0.0..=1.0).contains(&ceiling) && floor < ceiling;
    if !is_band {
        let what = format!("{floor} to {ceiling} is no band of probabilities");
        return meaningless(what, "FLOOR 0.3 CEILING 0.9; the floor is below the ceiling");
    }
    if until_converged && rounds_max.is_some() {
        let what = "UNTIL CONVERGED and MAX say two things about when to stop".to_owned();
        return meaningless(what, "leave one of them out");
    }
    let rounds = rounds_max.unwrap_or(if until_converged { ROUNDS_CONVERGED } else { ROUNDS });
    let operator = Operator::Rebalance(Rebalance { rounds, floor, ceiling });
    Ok(reader.bound(Plan::leaf(operator, &REBALANCE_COLUMNS), "REBALANCE", Role::Editor))
}
