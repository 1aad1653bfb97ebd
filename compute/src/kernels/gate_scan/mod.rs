//! The exact scan of a layer's gate rows: how strongly each feature answers a query.
//!
//! Exact as far as `f32` is. Weights with integer kernels are not dequantised for it: the query is
//! cut into three rows of 8-bit codes, each what the row before leaves over, which together hold 22
//! bits and a sign below the largest number of each block; the three products, whose sums over a
//! block are whole numbers, are added up. That reads weights faster than `f32` arithmetic would,
//! rounds less often, and gives the same bits on every instruction set.

use std::cell::RefCell;

use super::dot::dispatch;
use super::quantised::{Activations, Product, ServingScratch, block_size, products};
use super::rows::Rows;
use super::rows_per_task;
use crate::cpu::{Cancel, Cancelled, Pool};
use crate::quant::MatrixView;

/// Rows of codes that a query is cut into.
const TERMS: usize = 3;

/// Returns `gate row f · q` for every feature.
///
/// # Accuracy
/// Of a row of `n` weights `w`, cut into blocks as its format is, the error is at most
/// `2^-23 Σ |w[i]| max(|q|, in the block of i)` and the rounding of a sum of as many terms as there
/// are blocks; for formats without integer kernels that of [`dot`](super::dot()). A query with a
/// number that is not finite gives NaN wherever a block of it is touched.
/// # Shapes
/// `gates`: `[features, d]`; `q`: `[d]`; result: `[features]`; panics if they differ.
/// # Errors
/// `Cancelled`, asked before every tile.
pub fn gate_scan(
    pool: &Pool,
    gates: &MatrixView,
    q: &[f32],
    cancel: &Cancel,
) -> Result<Vec<f32>, Cancelled> {
    assert_eq!(gates.columns(), q.len(), "rows and query differ");
    let mut scores = vec![0.0; gates.rows()];
    if block_size(gates).is_some() && !q.is_empty() {
        scan_in_terms(pool, gates, q, &mut scores, cancel)?;
    } else {
        scan_into(pool, gates, q, &mut scores, cancel)?;
    }
    Ok(scores)
}

/// Memory that a thread keeps from scan to scan.
#[derive(Default)]
struct Workspace {
    codes: Activations,
    terms: Vec<f32>,
    products: Vec<f32>,
    scratch: ServingScratch,
}

/// The scan by products of codes.
fn scan_in_terms(
    pool: &Pool,
    gates: &MatrixView,
    q: &[f32],
    scores: &mut [f32],
    cancel: &Cancel,
) -> Result<(), Cancelled> {
    thread_local! {
        static WORKSPACE: RefCell<Workspace> = RefCell::default();
    }
    let block = block_size(gates).expect("a format with an integer kernel");
    let mut workspace = WORKSPACE.take();
    let Workspace { codes, terms, products: sums, scratch } = &mut workspace;
    terms.clear();
    terms.extend_from_slice(q);
    for term in 1..TERMS {
        codes.quantise(block, q.len(), &terms[(term - 1) * q.len()..]);
        let row = codes.row(0);
        let whole = terms.len() - q.len()..terms.len();
        terms.extend_from_within(whole);
        let rest = terms[term * q.len()..].chunks_mut(block.elements());
        let codes = row.codes.chunks(block.elements());
        for ((rest, codes), &scale) in rest.zip(codes).zip(row.scales) {
            for (rest, &code) in rest.iter_mut().zip(codes) {
                // Rounded once.
                *rest = (f64::from(*rest) - f64::from(code) * f64::from(scale)) as f32;
            }
        }
    }
    sums.clear();
    sums.resize(TERMS * scores.len(), 0.0);
    let result =
        products(pool, &mut [Product { view: *gates, out: &mut *sums }], terms, scratch, cancel);
    // The smallest first.
    scores.fill(0.0);
    for sums in sums.chunks_exact(scores.len().max(1)).rev() {
        for (score, sum) in scores.iter_mut().zip(sums) {
            *score += sum;
        }
    }
    WORKSPACE.set(workspace);
    result
}

/// A [`matvec`](super::matvec()) that can be cancelled: `out[r] = row r · q`.
pub(crate) fn scan_into(
    pool: &Pool,
    matrix: &MatrixView,
    q: &[f32],
    out: &mut [f32],
    cancel: &Cancel,
) -> Result<(), Cancelled> {
    assert_eq!(matrix.columns(), q.len(), "rows and query differ");
    assert_eq!(matrix.rows(), out.len(), "rows and result differ");
    let rows = Rows::for_dot(matrix);
    let dot = dispatch(rows.dtype());
    pool.run_chunks(out, rows_per_task(matrix.row_bytes()), &|first, out| {
        if cancel.check().is_ok() {
            for (offset, score) in out.iter_mut().enumerate() {
                *score = rows.lend(first + offset, |row| dot(row, q));
            }
        }
    });
    cancel.check()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::dot::dot_f64;
    use crate::quant::{Dtype, from_f32};

    #[test]
    fn packed_rows_are_scanned_within_the_stated_bound_whatever_the_size_of_the_query() {
        let (pool, cancel) = (Pool::new(2), Cancel::new());
        for dtype in Dtype::ALL.into_iter().filter(|dtype| dtype.can_encode()) {
            for (rows, columns) in [(1, 32), (33, 256), (70, 288), (5, 1056)] {
                let row_bytes = dtype.bytes_for(columns).unwrap();
                let mut bytes = vec![0; rows * row_bytes];
                for (row, bytes) in bytes.chunks_exact_mut(row_bytes).enumerate() {
                    let numbers: Vec<f32> = (0..columns)
                        .map(|i| ((i * (37 + row) % 103) as f32 - 51.0) / 17.0)
                        .collect();
                    from_f32(dtype, &numbers, bytes);
                }
                let view = MatrixView::new(dtype, rows, columns, &bytes).unwrap();
                for size in [1e-20_f32, 1.0, 3e15] {
                    // Of every size from the largest to a millionth of it.
                    let q: Vec<f32> = (0..columns)
                        .map(|i| size * ((i * 53 % 97) as f32 - 48.0) * 2f32.powi(-(i as i32 % 20)))
                        .collect();
                    let scores = gate_scan(&pool, &view, &q, &cancel).unwrap();
                    let mut row = vec![0.0; columns];
                    for (index, score) in scores.iter().enumerate() {
                        view.row_f32(index, &mut row);
                        let expected = dot_f64(&row, &q);
                        let largest = f64::from(48.0 * size);
                        let weights = row.iter().map(|w| f64::from(w.abs())).sum::<f64>();
                        let bound = 2f64.powi(-22) * weights * largest;
                        let error = (f64::from(*score) - expected).abs();
                        assert!(error <= bound, "{dtype}, row {index}: {error:e} > {bound:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_query_that_is_not_finite_is_no_score() {
        let mut bytes = vec![0; Dtype::Q8_0.bytes_for(64).unwrap()];
        from_f32(Dtype::Q8_0, &[1.0; 64], &mut bytes);
        let view = MatrixView::new(Dtype::Q8_0, 1, 64, &bytes).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut q = [1.0; 64];
            q[40] = bad;
            let scores = gate_scan(&Pool::new(1), &view, &q, &Cancel::new()).unwrap();
            assert!(!scores[0].is_finite());
        }
    }

    #[test]
    fn scores_are_the_products_of_the_rows_and_a_cancel_gives_none() {
        let values: Vec<f32> = (0..300 * 3).map(|i| (i % 11) as f32).collect();
        let gates = MatrixView::from_f32(300, 3, &values).unwrap();
        let cancel = Cancel::new();
        let scores = gate_scan(&Pool::new(2), &gates, &[1.0, -2.0, 0.5], &cancel).unwrap();
        for (row, score) in values.chunks(3).zip(&scores) {
            assert_eq!(*score, row[0] - 2.0 * row[1] + 0.5 * row[2]);
        }
        cancel.cancel();
        assert!(gate_scan(&Pool::new(2), &gates, &[1.0, -2.0, 0.5], &cancel).is_err());
    }
}
