//! Many matrices, each over a few rows of activations of its own, in one job of the pool: the
//! experts that a token, or a handful of them, goes through.

use std::ops::Range;

use super::products::{OUTPUTS_TOGETHER, ROWS_TOGETHER, in_chunks};
use super::{Activations, BlockSize, Weights, block_size, dispatch};
use crate::cpu::{Cancel, Cancelled, Disjoint, Pool};
use crate::kernels::rows::Rows;
use crate::kernels::{dot, rows_per_task};
use crate::quant::MatrixView;

/// A matrix whose rows are outputs, the activations that it takes, and where its products go.
#[derive(Debug)]
pub struct Group<'a, 'o> {
    /// The matrix, `[outputs, columns]`.
    pub view: MatrixView<'a>,
    /// Rows of activations.
    pub rows: Range<usize>,
    /// `[rows, outputs]`.
    pub out: &'o mut [f32],
}

/// Memory that [`group_products`] keeps from call to call.
#[derive(Debug, Default)]
pub struct GroupScratch {
    k32: Activations,
    k256: Activations,
}

/// Groups that share a job; more are done one job after another.
const JOB_GROUPS: usize = 16;

/// A group as the tasks of a job see it.
struct Part<'a, 'o> {
    view: MatrixView<'a>,
    rows: Range<usize>,
    out: Disjoint<'o, f32>,
    task_rows: usize,
    /// The first task that is not one of this group's.
    end: usize,
}

/// Writes `out[p, r] = row r · x[rows.start + p]` for every group; the same bits as
/// [`products`](super::products()).
///
/// # Shapes
/// Every view: `[outputs, columns]`; `x`: `[n, columns]`; panics if they differ, or where rows are
/// not within `x`.
/// # Errors
/// `Cancelled`, asked before every task; results are then in part old.
pub fn group_products<'a, 'o>(
    pool: &Pool,
    groups: impl IntoIterator<Item = Group<'a, 'o>>,
    columns: usize,
    x: &[f32],
    scratch: &mut GroupScratch,
    cancel: &Cancel,
) -> Result<(), Cancelled> {
    let n = x.len() / columns;
    let mut cut = [false; 2];
    let mut groups = groups.into_iter().peekable();
    while groups.peek().is_some() {
        let mut parts: [Option<Part>; JOB_GROUPS] = [const { None }; JOB_GROUPS];
        let mut tasks = 0;
        for (part, Group { view, rows, out }) in parts.iter_mut().zip(&mut groups) {
            assert_eq!(view.columns(), columns, "matrices differ in columns");
            assert!(rows.end <= n, "rows outside of the activations");
            assert_eq!(out.len(), rows.len() * view.rows(), "rows and result differ");
            match block_size(&view) {
                Some(block @ BlockSize::K32) if !cut[0] => {
                    scratch.k32.quantise_on(pool, block, columns, x);
                    cut[0] = true;
                }
                Some(block @ BlockSize::K256) if !cut[1] => {
                    scratch.k256.quantise_on(pool, block, columns, x);
                    cut[1] = true;
                }
                _ => {}
            }
            let task_rows = rows_per_task(view.row_bytes());
            tasks += view.rows().div_ceil(task_rows);
            *part = Some(Part { view, rows, out: Disjoint::new(out), task_rows, end: tasks });
        }
        pool.run(tasks, &|task| {
            if cancel.check().is_err() {
                return;
            }
            let mut begin = 0;
            for part in parts.iter().flatten() {
                if task < part.end {
                    let first = (task - begin) * part.task_rows;
                    let count = part.task_rows.min(part.view.rows() - first);
                    return multiply(part, first..first + count, x, scratch);
                }
                begin = part.end;
            }
        });
        cancel.check()?;
    }
    cancel.check()
}

/// Computes some outputs for every row of a group.
fn multiply(part: &Part, outputs: Range<usize>, x: &[f32], scratch: &GroupScratch) {
    let view = &part.view;
    let write = |p: usize, output: usize, value: f32| {
        // SAFETY: each task has outputs of its own, and nobody reads them meanwhile.
        unsafe { part.out.slice(p * view.rows() + output, 1)[0] = value };
    };
    let activations = match block_size(view) {
        Some(BlockSize::K32) => &scratch.k32,
        Some(BlockSize::K256) => &scratch.k256,
        None => {
            let rows = Rows::of(view);
            let dot = dot::dispatch(rows.dtype());
            let x = &x[part.rows.start * view.columns()..part.rows.end * view.columns()];
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
    if part.rows.len() == 1 {
        // SAFETY: each task has outputs of its own, and nobody reads them meanwhile.
        let out = unsafe { part.out.slice(outputs.start, outputs.len()) };
        return product(&Weights { view, outputs }, activations, part.rows.start, out);
    }
    for outputs in in_chunks(outputs, OUTPUTS_TOGETHER) {
        for first in part.rows.clone().step_by(ROWS_TOGETHER) {
            let positions = ROWS_TOGETHER.min(part.rows.end - first);
            let mut sums = [0.0; OUTPUTS_TOGETHER * ROWS_TOGETHER];
            let sums = &mut sums[..outputs.len() * positions];
            product(&Weights { view, outputs: outputs.clone() }, activations, first, sums);
            for (output, sums) in outputs.clone().zip(sums.chunks_exact(positions)) {
                for (p, &sum) in sums.iter().enumerate() {
                    write(first - part.rows.start + p, output, sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::quantised::{Product, ServingScratch, products};
    use crate::quant::{Dtype, from_f32};

    #[test]
    fn groups_are_the_products_of_their_rows_bit_for_bit() {
        let numbers = |count: usize, step: usize| -> Vec<f32> {
            (0..count).map(|i| ((i * step % 103) as f32 - 51.0) / 17.0).collect()
        };
        let (pool, cancel) = (Pool::new(2), Cancel::new());
        for dtype in [Dtype::F32, Dtype::Q8_0, Dtype::Q4_0] {
            let (outputs, columns, n) = (37, 96, 23);
            let mut bytes = vec![0; dtype.bytes_for(outputs * columns).unwrap()];
            from_f32(dtype, &numbers(outputs * columns, 37), &mut bytes);
            let view = MatrixView::new(dtype, outputs, columns, &bytes).unwrap();
            let x = numbers(n * columns, 29);
            let mut expected = vec![0.0; n * outputs];
            let product = Product { view, out: &mut expected };
            products(&pool, &mut [product], &x, &mut ServingScratch::default(), &cancel).unwrap();
            // More groups than a job takes, of every length, some of the same rows.
            let rows = |group: usize| group % 7..(group % 7 + group % 17).max(group % 7 + 1);
            let mut found: Vec<Vec<f32>> =
                (0..40).map(|group| vec![f32::NAN; rows(group).len() * outputs]).collect();
            let groups = found.iter_mut().enumerate().map(|(group, out)| Group {
                view,
                rows: rows(group),
                out,
            });
            let mut scratch = GroupScratch::default();
            group_products(&pool, groups, columns, &x, &mut scratch, &cancel).unwrap();
            for (group, found) in found.iter().enumerate() {
                let rows = rows(group);
                assert_eq!(found[..], expected[rows.start * outputs..rows.end * outputs]);
            }
        }
    }
}
