//! Products of many positions with one matrix.
//!
//! In [`matmul`], a task unpacks a tile of the matrix to `f32` once and multiplies it with all positions, by the
//! `gemm` crate on the task's own thread. The tiles depend on the shapes alone, so the result does
//! not depend on the number of threads; sums are in `f32`, in the order that `gemm` likes, so
//! it may differ from [`matvec`](super::matvec()) within twice the bound of a dot product. Products
//! that must not depend on how many positions there are go through `float_gemm`.

use std::cell::RefCell;

use super::float_gemm;
use super::matvec_transposed::{matvec_transposed, part_rows};
use crate::cpu::{Cancel, Cancelled, Disjoint, Pool};
use crate::quant::MatrixView;

/// Outputs in a tile: a few panels of `gemm`.
const TILE_OUTPUTS: usize = 256;
/// From so many positions on, unpacking rows once for all of them pays.
const TRANSPOSED_POSITIONS_MIN: usize = 2;

/// Numbers by which scratch memory grows.
const SCRATCH_STEP: usize = 4096;

thread_local! {
    static UNPACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Writes `out[p, r] = row r · x[p]`: a product with a matrix whose rows are outputs.
///
/// # Shapes
/// `matrix`: `[m, k]`; `x`: `[n, k]`; `out`: `[n, m]`; panics if they differ.
/// # Units
/// Scratch memory: 64 rows of `f32` a thread.
/// # Errors
/// `Cancelled`, asked before every tile; `out` is then in part old.
pub fn matmul(
    pool: &Pool,
    matrix: &MatrixView,
    x: &[f32],
    out: &mut [f32],
    cancel: &Cancel,
) -> Result<(), Cancelled> {
    let (outputs, inputs) = (matrix.rows(), matrix.columns());
    let positions = positions(x, inputs, out, outputs);
    let out = Disjoint::new(out);
    pool.run(outputs.div_ceil(TILE_OUTPUTS), &|tile| {
        if cancel.check().is_err() {
            return;
        }
        let first = tile * TILE_OUTPUTS;
        let count = TILE_OUTPUTS.min(outputs - first);
        with_scratch(count * inputs, |weights| {
            for (offset, row) in weights.chunks_exact_mut(inputs.max(1)).enumerate() {
                matrix.row_f32(first + offset, row);
            }
            // SAFETY: `x` is [positions, inputs] and `weights` [count, inputs] by the checks
            // above. The destination is columns `first .. first + count` of `out`, [positions,
            // outputs]; tiles do not share columns, and no slice of `out` is alive meanwhile.
            unsafe {
                gemm(
                    (positions, count, inputs),
                    (out.start().add(first), outputs, 1),
                    false,
                    (x.as_ptr(), inputs, 1),
                    (weights.as_ptr(), 1, inputs),
                );
            }
        });
    });
    cancel.check()
}

/// Writes `out[p] = Σ a[p, r] · row r`: a product with a matrix whose rows are inputs.
///
/// Each row of the result has the bits of [`matvec_transposed`](super::matvec_transposed()).
///
/// # Shapes
/// `matrix`: `[m, k]`; `a`: `[n, m]`; `out`: `[n, k]`; panics if they differ.
/// # Units
/// Scratch memory a thread: a 64th of the rows, and every position, by 256 numbers.
/// # Errors
/// `Cancelled`, asked before every tile; `out` is then in part old.
pub fn matmul_transposed(
    pool: &Pool,
    matrix: &MatrixView,
    a: &[f32],
    out: &mut [f32],
    cancel: &Cancel,
) -> Result<(), Cancelled> {
    let (inputs, outputs) = (matrix.rows(), matrix.columns());
    let positions = positions(a, inputs, out, outputs);
    match float_gemm::dispatch() {
        Some(gemm) if positions >= TRANSPOSED_POSITIONS_MIN => {
            gemm.transposed(pool, matrix, a, out, part_rows(inputs), cancel)
        }
        _ => {
            for (a, out) in a.chunks_exact(inputs).zip(out.chunks_exact_mut(outputs)) {
                cancel.check()?;
                out.fill(0.0);
                matvec_transposed(pool, matrix, a, out);
            }
            cancel.check()
        }
    }
}

/// How many rows `x` and `out` have; panics if they do not have as many.
fn positions(x: &[f32], inputs: usize, out: &[f32], outputs: usize) -> usize {
    assert!(inputs > 0 && outputs > 0, "a matrix without numbers");
    let positions = x.len() / inputs;
    assert_eq!(x.len(), positions * inputs, "positions and columns differ");
    assert_eq!(out.len(), positions * outputs, "positions and result differ");
    positions
}

/// Lends the thread's scratch memory, with undefined but initialised content.
pub(crate) fn with_scratch<R>(length: usize, run: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut scratch = UNPACKED.take();
    if scratch.len() < length {
        // In steps, so that what grows with every token does not allocate for every token.
        scratch.resize(length.next_multiple_of(SCRATCH_STEP), 0.0);
    }
    let result = run(&mut scratch[..length]);
    UNPACKED.set(scratch);
    result
}

/// Gives back the calling thread's scratch memory; the next [`with_scratch`] allocates anew.
pub(crate) fn release_scratch() {
    drop(UNPACKED.take());
}

/// `c = a · b`, or `c += a · b`, for shapes `(rows, columns, depth)`; each matrix is its start
/// and the distances between its rows and between its columns, in numbers.
///
/// # Safety
/// `a` and `b` must be readable, and `c` writable and unshared, within the shapes given.
pub(crate) unsafe fn gemm(
    (rows, columns, depth): (usize, usize, usize),
    c: (*mut f32, usize, usize),
    add: bool,
    a: (*const f32, usize, usize),
    b: (*const f32, usize, usize),
) {
    // SAFETY: the caller's promise; distances are within slices, so they fit `isize`.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            c.0,
            c.2 as isize,
            c.1 as isize,
            add,
            a.0,
            a.2 as isize,
            a.1 as isize,
            b.0,
            b.2 as isize,
            b.1 as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{Dtype, from_f32, to_f32};

    fn numbers(count: usize, step: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * step % 103) as f32 - 51.0) / 17.0).collect()
    }

    #[test]
    fn both_products_stay_within_the_rounding_bound_for_every_dtype_and_shape() {
        let pool = Pool::new(2);
        for (n, m, k) in [(1, 1, 1), (2, 255, 257), (5, 257, 255), (3, 65, 2880), (2, 1030, 33)] {
            for dtype in Dtype::PLAIN {
                let mut bytes = vec![0; dtype.bytes_for(m * k).unwrap()];
                from_f32(dtype, &numbers(m * k, 37), &mut bytes);
                let mut w = vec![0.0; m * k];
                to_f32(dtype, &bytes, &mut w);
                let view = MatrixView::new(dtype, m, k, &bytes).unwrap();
                let check = |out: &[f32],
                             outputs: usize,
                             term: &dyn Fn(usize, usize, usize) -> f64,
                             depth: usize| {
                    for (index, &value) in out.iter().enumerate() {
                        let terms =
                            || (0..depth).map(|i| term(index / outputs, index % outputs, i));
                        let size = terms().map(f64::abs).sum::<f64>();
                        let bound = depth as f64 * f64::from(f32::EPSILON) * size;
                        let error = (f64::from(value) - terms().sum::<f64>()).abs();
                        assert!(error <= bound, "{dtype} {n} {m} {k}: {error:e} > {bound:e}");
                    }
                };
                let x = numbers(n * k, 53);
                let mut out = vec![f32::NAN; n * m];
                matmul(&pool, &view, &x, &mut out, &Cancel::new()).unwrap();
                check(&out, m, &|p, r, i| f64::from(x[p * k + i]) * f64::from(w[r * k + i]), k);
                let a = numbers(n * m, 29);
                let mut out = vec![f32::NAN; n * k];
                matmul_transposed(&pool, &view, &a, &mut out, &Cancel::new()).unwrap();
                check(&out, k, &|p, c, r| f64::from(a[p * m + r]) * f64::from(w[r * k + c]), m);
            }
        }
    }

    #[test]
    fn a_cancelled_product_says_so() {
        let cancel = Cancel::new();
        cancel.cancel();
        let values = [1.0; 4];
        let view = MatrixView::from_f32(2, 2, &values).unwrap();
        let mut out = [0.0; 2];
        let pool = Pool::new(1);
        assert!(matmul(&pool, &view, &[1.0, 1.0], &mut out, &cancel).is_err());
        assert!(matmul_transposed(&pool, &view, &[1.0, 1.0], &mut out, &cancel).is_err());
        assert_eq!(out, [0.0; 2]);
    }
}
