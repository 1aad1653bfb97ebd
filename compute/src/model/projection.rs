//! A stored projection applied to rows: which kernel, for which precision.
//!
//! In either precision a row's result depends on that row alone, whatever rows it is computed
//! with.

use std::borrow::Cow;

use super::weights::{Matrix, Orientation};
use super::{DecodeError, Precision};
use crate::cpu::{Cancel, Cancelled, Disjoint, Pool};
use crate::kernels::quantised::{Product, ServingScratch, products};
use crate::kernels::rows::Rows;
use crate::kernels::{self, dot, gate_scan, matmul_transposed};

/// A projection with its bias, where it has one.
pub(super) struct Projection<'a> {
    pub(super) matrix: Matrix<'a>,
    pub(super) bias: Option<Cow<'a, [f32]>>,
}

/// A projection as kernels take it, with the place of its output.
pub(super) type Projected<'p, 'o> = (Matrix<'p>, Option<&'p [f32]>, &'o mut [f32]);

impl Projection<'_> {
    /// The projection with the place of its output.
    pub(super) fn with<'p, 'o>(&'p self, out: &'o mut [f32]) -> Projected<'p, 'o> {
        (self.matrix, self.bias.as_deref(), out)
    }
}

/// How to compute: the precision, memory that is kept from call to call, and what may stop it.
pub(super) type How<'h> = (Precision, &'h mut ServingScratch, &'h Cancel);

/// Writes `out[p] = W x[p] + bias` for several projections of the same rows, in as few jobs of the
/// pool as may be, and returns the bytes of weights that were read.
///
/// `Exact` computes each number over the dequantised weights; `Serving` as
/// [`quantised`](crate::kernels::quantised) defines it.
///
/// # Shapes
/// `x`: `[n, inputs]`; every output: `[n, outputs]`; biases: `[outputs]`.
pub(super) fn project_together<const N: usize>(
    pool: &Pool,
    (precision, scratch, cancel): How<'_>,
    mut projections: [Projected<'_, '_>; N],
    x: &[f32],
) -> Result<u64, DecodeError> {
    let whole = |(matrix, ..): &(Matrix, _, _)| matrix.orientation == Orientation::OutIn;
    if precision == Precision::Serving && projections.iter().all(whole) {
        let mut parts =
            projections.each_mut().map(|(matrix, _, out)| Product { view: matrix.view, out });
        products(pool, &mut parts, x, scratch, cancel)?;
    } else {
        for (matrix, _, out) in &mut projections {
            match (precision, matrix.orientation) {
                (Precision::Serving, Orientation::OutIn) => {
                    let product = Product { view: matrix.view, out };
                    products(pool, &mut [product], x, scratch, cancel)?;
                }
                (Precision::Exact, Orientation::OutIn) if x.len() == matrix.inputs() => {
                    gate_scan::scan_into(pool, &matrix.view, x, out, cancel)?;
                }
                (Precision::Exact, Orientation::OutIn) => dots(pool, matrix, x, out, cancel)?,
                (_, Orientation::InOut) => matmul_transposed(pool, &matrix.view, x, out, cancel)?,
            }
        }
    }
    let mut bytes = 0;
    for (matrix, bias, out) in &mut projections {
        if let Some(bias) = bias {
            add_bias(out, bias);
        }
        bytes += matrix.view.bytes_touched();
    }
    Ok(bytes)
}

/// Adds a bias to every row.
pub(super) fn add_bias(out: &mut [f32], bias: &[f32]) {
    for out in out.chunks_exact_mut(bias.len()) {
        out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
    }
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
    // Blocks that the dot product unpacks itself are better unpacked once for several positions.
    let lender = if x.len() == inputs { Rows::for_dot(view) } else { Rows::of(view) };
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
