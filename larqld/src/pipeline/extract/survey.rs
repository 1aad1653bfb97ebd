//! What the numbers of a weight are like, looked at before any of them is written.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::Orientation;

use crate::failure::Failure;
use crate::pipeline::rows::Rows;
use crate::source::{Resolved, SourceModel};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Some finite number turns infinite in f16.
    pub(super) overflow_f16: bool,
    /// How many are infinite or no number.
    pub(super) not_finite: u64,
    /// Some number, less the offset that its norm stores, plus the offset is another one.
    pub(super) offset_rounds: bool,
}

impl Survey {
    fn add(&mut self, values: &[f32], offset: f32) {
        for &value in values {
            self.not_finite += u64::from(!value.is_finite());
            // 65,520 is where rounding to nearest reaches infinity.
            self.overflow_f16 |= value.is_finite() && value.abs() >= 65_520.0;
            self.offset_rounds |= offset != 0.0 && (value + offset) - offset != value;
        }
    }
}

/// Looks at every number of a weight, on the pool.
///
/// # Errors
/// When cancelled; `DAMAGED` if the weight cannot be read.
pub(super) fn survey(
    pool: &Pool,
    model: &SourceModel,
    weight: &Resolved,
    cancel: &Cancel,
) -> Result<Survey, Failure> {
    let mut found = Survey::default();
    if weight.is_vector() {
        let values = model.read_vector(weight)?;
        found.add(&values, weight.part.minus);
        return Ok(found);
    }
    // In the direction in which they lie.
    let orientation = if weight.part.transposed { Orientation::InOut } else { Orientation::OutIn };
    let rows = Rows::of(model, weight, orientation)?;
    let (not_finite, overflow) = (AtomicU64::new(0), AtomicBool::new(false));
    let tile = rows.tile();
    pool.run(rows.rows().div_ceil(tile), &|task| {
        if cancel.check().is_err() {
            return;
        }
        let range = task * tile..rows.rows().min((task + 1) * tile);
        let mut values = vec![0.0; range.len() * rows.columns()];
        rows.read(range, &mut values);
        let mut found = Survey::default();
        found.add(&values, 0.0);
        not_finite.fetch_add(found.not_finite, Ordering::Relaxed);
        overflow.fetch_or(found.overflow_f16, Ordering::Relaxed);
    });
    cancel.check()?;
    found.not_finite = not_finite.into_inner();
    found.overflow_f16 = overflow.into_inner();
    Ok(found)
}
