//! Several matrices over the same rows of activations, in one job of the pool.

use std::ops::Range;

use super::gemm::{self, Panels};
use super::{Activations, BlockSize, Weights, block_size, dispatch};
use crate::cpu::{Cancel, Cancelled, Disjoint, Pool};
use crate::kernels::float_gemm::{self, FloatPanels};
use crate::kernels::rows::Rows;
use crate::kernels::{dot, rows_per_task};
use crate::quant::{Dtype, MatrixView};

/// A matrix whose rows are outputs, and where its products go.
#[derive(Debug)]
pub struct Product<'a, 'o> {
    /// The matrix, `[outputs, columns]`.
    pub view: MatrixView<'a>,
    /// `[n, outputs]`.
    pub out: &'o mut [f32],
}

/// Memory that [`products`] keeps from call to call, so that none is allocated for a token.
#[derive(Debug, Default)]
pub struct ServingScratch {
    k32: Cut,
    k256: Cut,
    floats: FloatPanels,
}

/// Activations cut one way, and the panels made of them for many rows.
#[derive(Debug, Default)]
struct Cut {
    rows: Activations,
    panels: Panels,
}

impl ServingScratch {
    fn cut(&self, block: BlockSize) -> &Cut {
        match block {
            BlockSize::K32 => &self.k32,
            BlockSize::K256 => &self.k256,
        }
    }
}

/// Products that share a job; more are done one job after another.
const JOB_PRODUCTS: usize = 16;
/// Rows of activations whose results a task gathers before it writes them.
pub(super) const ROWS_TOGETHER: usize = 16;
/// Outputs whose results a task gathers before it writes them.
pub(super) const OUTPUTS_TOGETHER: usize = 16;
/// From so many rows of floats on, tiles pay; products of few rows need no unpacking: on one core of a Zen 4, 8 rows
/// of `F16` do 9 giga multiply-adds a second in tiles and 16 row by row, 16 rows 16 and 18.
const FLOAT_GEMM_ROWS_MIN: usize = 16;

/// Writes `out[p, r] = row r · x[p]` for every product, by the arithmetic of this module.
///
/// # Shapes
/// Every view: `[outputs, k]`; `x`: `[n, k]`; every `out`: `[n, outputs]`; panics if they differ.
/// # Errors
/// `Cancelled`, asked before every task; results are then in part old.
pub fn products(
    pool: &Pool,
    products: &mut [Product<'_, '_>],
    x: &[f32],
    scratch: &mut ServingScratch,
    cancel: &Cancel,
) -> Result<(), Cancelled> {
    let Some(first) = products.first() else { return cancel.check() };
    let columns = first.view.columns();
    assert!(columns > 0 && x.len().is_multiple_of(columns), "activations are no whole rows");
    let n = x.len() / columns;
    for product in products.iter() {
        assert_eq!(product.view.columns(), columns, "matrices differ in columns");
        assert_eq!(product.out.len(), n * product.view.rows(), "rows and result differ");
    }
    if n == 0 {
        return cancel.check();
    }
    // Choosing a variant allocates, once a process: those of few rows too are chosen now, so that
    // the token after a long prompt finds them.
    let _ = (dispatch(Dtype::Q8_0), dot::dispatch(Dtype::F32));
    let gemm = gemm::dispatch().filter(|gemm| n >= gemm.rows_min);
    for (block, cut) in [(BlockSize::K32, &mut scratch.k32), (BlockSize::K256, &mut scratch.k256)] {
        if products.iter().any(|product| block_size(&product.view) == Some(block)) {
            cut.rows.quantise_on(pool, block, columns, x);
            if let Some(gemm) = gemm {
                gemm.arrange(pool, &cut.rows, &mut cut.panels);
            }
        }
    }
    let float_gemm = float_gemm::dispatch().filter(|_| n >= FLOAT_GEMM_ROWS_MIN);
    if let Some(gemm) = float_gemm
        && products.iter().any(|product| block_size(&product.view).is_none())
    {
        gemm.arrange(pool, columns, x, &mut scratch.floats);
    }
    for products in products.chunks_mut(JOB_PRODUCTS) {
        run_job(pool, products, x, (gemm, float_gemm), scratch, cancel);
    }
    cancel.check()
}

/// One product as the tasks of a job see it.
struct Part<'v, 'a, 'o> {
    view: &'v MatrixView<'a>,
    out: Disjoint<'o, f32>,
    task_rows: usize,
    /// The first task that is not one of this product's.
    end: usize,
}

fn run_job(
    pool: &Pool,
    products: &mut [Product<'_, '_>],
    x: &[f32],
    (gemm, float_gemm): (Option<gemm::Variant>, Option<float_gemm::Variant>),
    scratch: &ServingScratch,
    cancel: &Cancel,
) {
    let mut parts: [Option<Part>; JOB_PRODUCTS] = [const { None }; JOB_PRODUCTS];
    let mut tasks = 0;
    for (part, product) in parts.iter_mut().zip(products) {
        let tiles = match block_size(&product.view) {
            Some(_) => gemm.is_some(),
            None => float_gemm.is_some(),
        };
        let task_rows = if tiles { gemm::ROWS } else { rows_per_task(product.view.row_bytes()) };
        tasks += product.view.rows().div_ceil(task_rows);
        let out = Disjoint::new(&mut *product.out);
        *part = Some(Part { view: &product.view, out, task_rows, end: tasks });
    }
    let ahead = gemm::ROWS;
    pool.run(tasks, &|task| {
        if cancel.check().is_err() {
            return;
        }
        let mut begin = 0;
        for part in parts.iter().flatten() {
            if task < part.end {
                let first = (task - begin) * part.task_rows;
                let count = part.task_rows.min(part.view.rows() - first);
                let outputs = first..first + count;
                return match (block_size(part.view), gemm, float_gemm) {
                    (Some(block), Some(gemm), _) => {
                        let panels = &scratch.cut(block).panels;
                        // SAFETY: each task has outputs of its own, and nobody reads them meanwhile.
                        unsafe {
                            gemm.product(part.view, outputs, panels, &part.out, ahead, cancel);
                        }
                    }
                    (None, _, Some(gemm)) => {
                        // SAFETY: as above.
                        unsafe {
                            gemm.product(part.view, outputs, &scratch.floats, &part.out, cancel);
                        }
                    }
                    _ => multiply(part, outputs, x, scratch),
                };
            }
            begin = part.end;
        }
    });
}

/// Computes some rows of outputs for every row of activations.
fn multiply(part: &Part, outputs: Range<usize>, x: &[f32], scratch: &ServingScratch) {
    let view = part.view;
    let n = x.len() / view.columns();
    let write = |p: usize, output: usize, value: f32| {
        // SAFETY: each task has outputs of its own, and nobody reads them meanwhile.
        unsafe { part.out.slice(p * view.rows() + output, 1)[0] = value };
    };
    let activations = match block_size(view) {
        Some(block) => &scratch.cut(block).rows,
        None => {
            let rows = Rows::of(view);
            let dot = dot::dispatch(rows.dtype());
            for output in outputs {
                rows.lend(output, |row| {
                    for (p, x) in x.chunks_exact(view.columns()).enumerate() {
                        write(p, output, dot(row, x));
                    }
                });
            }
            return;
        }
    };
    let product = dispatch(view.dtype());
    if n == 1 {
        // SAFETY: each task has outputs of its own, and nobody reads them meanwhile.
        let out = unsafe { part.out.slice(outputs.start, outputs.len()) };
        return product(&Weights { view, outputs }, activations, 0, out);
    }
    for outputs in in_chunks(outputs, OUTPUTS_TOGETHER) {
        for first in (0..n).step_by(ROWS_TOGETHER) {
            let positions = ROWS_TOGETHER.min(n - first);
            let mut sums = [0.0; OUTPUTS_TOGETHER * ROWS_TOGETHER];
            let sums = &mut sums[..outputs.len() * positions];
            let weights = Weights { view, outputs: outputs.clone() };
            product(&weights, activations, first, sums);
            for (output, sums) in outputs.clone().zip(sums.chunks_exact(positions)) {
                for (p, &sum) in sums.iter().enumerate() {
                    write(first + p, output, sum);
                }
            }
        }
    }
}

/// Consecutive parts of a range, of at most so many.
pub(super) fn in_chunks(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(most).map(move |first| first..end.min(first + most))
}
