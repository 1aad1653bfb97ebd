//! A stored projection applied to a block of positions: which kernel, for which precision.

use std::borrow::Cow;

use super::weights::{Matrix, Orientation};
use super::{DecodeError, Precision};
use crate::cpu::{Cancel, Cancelled, Disjoint, Pool};
use crate::kernels::rows::Rows;
use crate::kernels::{self, dot, gate_scan, matmul, matmul_transposed, matvec_transposed};

/// From so many positions on, unpacking a tile for a GEMM pays.
const GEMM_POSITIONS_MIN: usize = 4;

/// A projection with its bias, where it has one.
pub(super) struct Projection<'a> {
    pub(super) matrix: Matrix<'a>,
    pub(super) bias: Option<Cow<'a, [f32]>>,
}

/// Writes `out[p] = W x[p] + bias` and returns the bytes of weights that were read.
///
/// `Exact` computes each number as decode would, however many positions there are.
///
/// # Shapes
/// `x`: `[n, inputs]`; `out`: `[n, outputs]`; `bias`: `[outputs]`.
pub(super) fn project(
    pool: &Pool,
    precision: Precision,
    matrix: &Matrix,
    bias: Option<&[f32]>,
    x: &[f32],
    out: &mut [f32],
    cancel: &Cancel,
) -> Result<u64, DecodeError> {
    let view = &matrix.view;
    let positions = x.len() / matrix.inputs();
    let batched = precision == Precision::Serving && positions >= GEMM_POSITIONS_MIN;
    match (matrix.orientation, batched) {
        (Orientation::OutIn, true) => matmul(pool, view, x, out, cancel)?,
        (Orientation::InOut, true) => matmul_transposed(pool, view, x, out, cancel)?,
        (Orientation::OutIn, false) if positions == 1 => {
            gate_scan::scan_into(pool, view, x, out, cancel)?;
        }
        (Orientation::OutIn, false) => dots(pool, matrix, x, out, cancel)?,
        (Orientation::InOut, false) => {
            let rows = x.chunks_exact(matrix.inputs());
            for (x, out) in rows.zip(out.chunks_exact_mut(matrix.outputs())) {
                cancel.check()?;
                out.fill(0.0);
                matvec_transposed(pool, view, x, out);
            }
        }
    }
    if let Some(bias) = bias {
        for out in out.chunks_exact_mut(bias.len()) {
            out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    }
    Ok(view.bytes_touched())
}

/// Every position times every row, each as one dot product; a row is read once for all.
fn dots(
    pool: &Pool,
    matrix: &Matrix,
    x: &[f32],
    out: &mut [f32],
    cancel: &Cancel,
) -> Result<(), Cancelled> {
    let view = &matrix.view;
    let (inputs, outputs) = (view.columns(), view.rows());
    assert_eq!(x.len() / inputs * outputs, out.len(), "positions and result differ");
    let lender = Rows::of(view);
    let dot = dot::dispatch(lender.dtype());
    let rows = kernels::rows_per_task(view.row_bytes());
    let out = Disjoint::new(out);
    pool.run(outputs.div_ceil(rows), &|task| {
        for row in task * rows..outputs.min((task + 1) * rows) {
            if cancel.check().is_err() {
                return;
            }
            lender.lend(row, |weights| {
                for (position, x) in x.chunks_exact(inputs).enumerate() {
                    // SAFETY: one number of column `row`, which belongs to this task alone.
                    let value = unsafe { out.slice(position * outputs + row, 1) };
                    value[0] = dot(weights, x);
                }
            });
        }
    });
    cancel.check()
}
