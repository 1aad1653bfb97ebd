//! Products of many positions with a matrix whose rows are inputs, each row of the result as that of
//! a single position.
//!
//! Elsewhere: the tiles (`float_gemm`), one position ([`matvec_transposed`](super::matvec_transposed())).

use super::float_gemm;
use super::matvec_transposed::{matvec_transposed, part_rows};
use crate::cpu::{Cancel, Cancelled, Pool};
use crate::quant::MatrixView;

/// From so many positions on, unpacking rows once for all of them pays.
const TRANSPOSED_POSITIONS_MIN: usize = 2;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{Dtype, from_f32, to_f32};

    fn numbers(count: usize, step: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * step % 103) as f32 - 51.0) / 17.0).collect()
    }

    #[test]
    fn products_stay_within_the_rounding_bound_for_every_dtype_and_shape() {
        let pool = Pool::new(2);
        for (n, m, k) in [(1, 1, 1), (2, 255, 257), (5, 257, 255), (3, 65, 2880), (2, 1030, 33)] {
            for dtype in Dtype::PLAIN {
                let mut bytes = vec![0; dtype.bytes_for(m * k).unwrap()];
                from_f32(dtype, &numbers(m * k, 37), &mut bytes);
                let mut w = vec![0.0; m * k];
                to_f32(dtype, &bytes, &mut w);
                let view = MatrixView::new(dtype, m, k, &bytes).unwrap();
                let a = numbers(n * m, 29);
                let mut out = vec![f32::NAN; n * k];
                matmul_transposed(&pool, &view, &a, &mut out, &Cancel::new()).unwrap();
                for (index, &value) in out.iter().enumerate() {
                    let (p, c) = (index / k, index % k);
                    let term = |r| f64::from(a[p * m + r]) * f64::from(w[r * k + c]);
                    let size = (0..m).map(|r| term(r).abs()).sum::<f64>();
                    let bound = m as f64 * f64::from(f32::EPSILON) * size;
                    let error = (f64::from(value) - (0..m).map(term).sum::<f64>()).abs();
                    assert!(error <= bound, "{dtype} {n} {m} {k}: {error:e} > {bound:e}");
                }
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
        assert!(matmul_transposed(&pool, &view, &[1.0, 1.0], &mut out, &cancel).is_err());
        assert_eq!(out, [0.0; 2]);
    }
}
