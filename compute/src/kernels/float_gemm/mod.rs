//! Products of many rows of floats, bit for bit as a single row's: [`dot`](super::dot()) for a
//! matrix whose rows are outputs, [`accumulate`](super::accumulate) for one whose rows are inputs.
//!
//! `dot` adds up in lanes: column `c` belongs to one of four registers of `L` lanes. Here outputs
//! lie in lanes instead, and each of those `4 L` chains of multiply-adds is walked on its own, over
//! weights and activations that were laid out chain by chain; then the chains are added in the order
//! in which `dot` adds its lanes. So a weight is unpacked once for all positions, the loops do
//! nothing but multiply-adds, and a result does not depend on how many rows were together.
//!
//! Elsewhere: products of quantised activations (`quantised`).

#[cfg(target_arch = "x86_64")]
mod loops;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::LazyLock;

use super::quantised::gemm::panel::spread;
use super::quantised::gemm::tile::{Line, ROWS};
use crate::cpu::{Cancel, Cancelled, Disjoint, Isa, Pool, fastest};
use crate::quant::MatrixView;

/// Registers of lanes in which `dot` adds up.
const REGISTERS: usize = 4;
/// Lines of weights that are laid out at a time, of 128 bytes each: half of a core's own cache.
const WEIGHT_LINES: usize = 4096;
/// Positions whose sums a task keeps.
const POSITIONS_TOGETHER: usize = 1024;
/// Columns that are unpacked to floats at a time; whole turns of `dot`'s registers.
const PIECE: usize = 256;
/// Outputs of a task of the transposed product.
const OUTPUTS: usize = 256;

/// How the columns of a row are cut into `dot`'s chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Chains {
    /// Lanes of a register.
    lanes: usize,
    /// Columns of each chain of the first register, which takes what is left of whole registers.
    first: usize,
    /// Columns of each chain of the others.
    others: usize,
    /// Columns behind the last whole register, which `dot` adds one by one.
    tail: usize,
}

impl Chains {
    fn of(lanes: usize, columns: usize) -> Chains {
        let others = columns / (REGISTERS * lanes);
        let rest = columns % (REGISTERS * lanes);
        Chains { lanes, first: others + rest / lanes, others, tail: rest % lanes }
    }

    /// Columns in chains of one lane.
    fn a_lane(&self) -> usize {
        self.first + (REGISTERS - 1) * self.others
    }

    /// Columns in chains.
    fn whole(&self) -> usize {
        self.lanes * self.a_lane()
    }

    /// The place of a group of `lanes` columns among those of each lane.
    fn place(&self, group: usize) -> usize {
        if group >= REGISTERS * self.others {
            return self.others + (group - REGISTERS * self.others);
        }
        match (group % REGISTERS, group / REGISTERS) {
            (0, step) => step,
            (register, step) => self.first + (register - 1) * self.others + step,
        }
    }
}

/// Sums of the chains of some lanes: weights `[lanes][columns of a lane]`, activations
/// `[lanes][columns of a lane][positions]`, how many lanes, and sums to add to, `[positions]`.
type Walk = fn(Chains, &[Line], &[f32], usize, &mut [Line]);
/// Sums of single columns: weights `[columns]`, activations `[columns][positions]`.
type Columns = fn(&[Line], &[f32], &mut [Line]);
/// Lays out columns of [`ROWS`] rows: the rows' bytes as floats, the first group of columns among
/// them, how many groups, which lanes, and where to.
type LayOut = fn(&[&[f32]; ROWS], Chains, Range<usize>, Range<usize>, &mut [Line]);

/// One variant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    /// Lanes in which `dot` adds up.
    lanes: usize,
    /// The most positions of a panel.
    positions: usize,
    lay_out: LayOut,
    walk: Walk,
    /// Adds the rounded products of columns, each in turn.
    tail: Columns,
    /// Adds the sum of a chain of fused multiply-adds.
    chain: Columns,
}

/// Every variant that this processor can run, slowest first; none for the scalar level.
pub(crate) fn variants() -> Vec<(Isa, Option<Variant>)> {
    #[allow(unused_mut, reason = "extended on processors with variants")]
    let mut found = vec![(Isa::Scalar, None)];
    #[cfg(target_arch = "x86_64")]
    found.extend(avx2::detect().map(|variant| (Isa::Avx2, Some(variant))));
    #[cfg(target_arch = "x86_64")]
    found.extend(avx512::detect().map(|variant| (Isa::Avx512, Some(variant))));
    found
}

/// The variant of this process, if it has one.
pub(crate) fn dispatch() -> Option<Variant> {
    static FASTEST: LazyLock<Option<Variant>> = LazyLock::new(|| fastest(variants()));
    *FASTEST
}

/// Memory that a thread keeps from task to task.
#[derive(Default)]
struct Workspace {
    weights: Vec<Line>,
    sums: Vec<Line>,
    floats: Vec<f32>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// What `dot` begins its sums with.
fn nothing() -> f32 {
    std::iter::empty::<f32>().sum()
}

/// Rows of floats in panels: a few positions side by side, chain by chain. Memory is kept from call
/// to call.
#[derive(Debug, Default)]
pub(crate) struct FloatPanels {
    positions: usize,
    panels: usize,
    columns: usize,
    chains: Chains,
    /// A panel after another, each `[lanes][columns of a lane][positions]`, then the columns behind
    /// the last whole register, `[columns][positions]`.
    numbers: Vec<f32>,
}

impl FloatPanels {
    fn range(&self, panel: usize) -> Range<usize> {
        spread(self.positions, self.panels, panel)
    }

    /// The numbers of some lanes of a panel.
    fn lanes(&self, panel: usize, lanes: Range<usize>) -> &[f32] {
        let range = self.range(panel);
        let (first, each) = (range.start * self.columns, self.chains.a_lane() * range.len());
        &self.numbers[first + lanes.start * each..first + lanes.end * each]
    }

    /// The columns of a panel behind the last whole register.
    fn tail(&self, panel: usize) -> &[f32] {
        let range = self.range(panel);
        let first = range.start * self.columns + self.chains.whole() * range.len();
        &self.numbers[first..range.end * self.columns]
    }
}

impl Variant {
    /// Arranges rows of `columns` numbers for this variant.
    pub fn arrange(&self, pool: &Pool, columns: usize, x: &[f32], panels: &mut FloatPanels) {
        let positions = x.len() / columns;
        panels.positions = positions;
        panels.panels = positions.div_ceil(self.positions);
        panels.columns = columns;
        panels.chains = Chains::of(self.lanes, columns);
        let mut numbers = std::mem::take(&mut panels.numbers);
        // What stays from the call before is overwritten below.
        numbers.resize(x.len(), 0.0);
        let chains = panels.chains;
        let out = Disjoint::new(&mut numbers);
        pool.run(panels.panels, &|panel| {
            let range = panels.range(panel);
            let count = range.len();
            // SAFETY: panels do not overlap, and each is filled by one task.
            let out = unsafe { out.slice(range.start * columns, count * columns) };
            for (p, x) in x[range.start * columns..range.end * columns].chunks(columns).enumerate()
            {
                let (whole, tail) = x.split_at(chains.whole());
                for (group, numbers) in whole.chunks_exact(chains.lanes).enumerate() {
                    let place = chains.place(group);
                    for (lane, &number) in numbers.iter().enumerate() {
                        out[(lane * chains.a_lane() + place) * count + p] = number;
                    }
                }
                for (index, &number) in tail.iter().enumerate() {
                    out[(chains.whole() + index) * count + p] = number;
                }
            }
        });
        panels.numbers = numbers;
    }

    /// Writes `out[p, r] = row r · x[p]` for the rows `outputs` of a view, at most [`ROWS`], and
    /// every position of the panels.
    ///
    /// # Shapes
    /// `out`: `[positions, view.rows()]`; panics where sizes differ. Stops early when cancelled.
    ///
    /// # Safety
    /// Nobody else may use the columns `outputs` of `out` meanwhile.
    pub unsafe fn product(
        &self,
        view: &MatrixView<'_>,
        outputs: Range<usize>,
        panels: &FloatPanels,
        out: &Disjoint<'_, f32>,
        cancel: &Cancel,
    ) {
        assert!(!outputs.is_empty() && outputs.len() <= ROWS, "rows of one tile");
        assert_eq!(view.columns(), panels.columns, "columns and positions differ");
        let chains = panels.chains;
        // Four lanes at least, which is how many are laid out together.
        let lanes = (WEIGHT_LINES / chains.a_lane().max(1) / 4 * 4).clamp(4, chains.lanes);
        let mut workspace = WORKSPACE.take();
        let mut first_panel = 0;
        while first_panel < panels.panels && cancel.check().is_ok() {
            let first = panels.range(first_panel).start;
            let fits = |panel: &usize| panels.range(*panel).end - first <= POSITIONS_TOGETHER;
            let last_panel =
                (first_panel + 1..panels.panels).take_while(fits).last().unwrap_or(first_panel);
            let positions = first..panels.range(last_panel).end;
            let of_panel = |panel: usize| {
                let range = panels.range(panel);
                range.start - first..range.end - first
            };
            workspace.sums.clear();
            workspace.sums.resize(positions.len(), Line([nothing().to_bits(); ROWS]));
            for lane in (0..chains.lanes).step_by(lanes) {
                let lanes = lane..chains.lanes.min(lane + lanes);
                self.lay_out_rows(view, &outputs, chains, lanes.clone(), &mut workspace);
                for panel in first_panel..=last_panel {
                    let x = panels.lanes(panel, lanes.clone());
                    let sums = &mut workspace.sums[of_panel(panel)];
                    (self.walk)(chains, &workspace.weights, x, lanes.len(), sums);
                }
            }
            self.lay_out_tail(view, &outputs, chains, &mut workspace);
            for panel in first_panel..=last_panel {
                let sums = &mut workspace.sums[of_panel(panel)];
                (self.tail)(&workspace.weights[..chains.tail], panels.tail(panel), sums);
            }
            for (position, sum) in positions.zip(&workspace.sums) {
                // SAFETY: the columns of these outputs, which the caller leaves to us.
                let out =
                    unsafe { out.slice(position * view.rows() + outputs.start, outputs.len()) };
                out.copy_from_slice(bytemuck::cast_slice(&sum.0[..outputs.len()]));
            }
            first_panel = last_panel + 1;
        }
        WORKSPACE.set(workspace);
    }

    /// Lays out some lanes' columns of a tile; where there are fewer rows, the last one again.
    fn lay_out_rows(
        &self,
        view: &MatrixView<'_>,
        outputs: &Range<usize>,
        chains: Chains,
        lanes: Range<usize>,
        workspace: &mut Workspace,
    ) {
        let Workspace { weights, floats, .. } = workspace;
        fit(weights, lanes.len() * chains.a_lane(), Line::ZERO);
        fit(floats, ROWS * PIECE, 0.0);
        for first in (0..chains.whole()).step_by(PIECE) {
            let columns = first..chains.whole().min(first + PIECE);
            for (floats, row) in floats.chunks_exact_mut(PIECE).zip(outputs.clone()) {
                view.part_f32(row, columns.clone(), &mut floats[..columns.len()]);
            }
            let rows: [&[f32]; ROWS] = std::array::from_fn(|lane| {
                &floats[lane.min(outputs.len() - 1) * PIECE..][..columns.len()]
            });
            let groups = columns.start / chains.lanes..columns.end / chains.lanes;
            (self.lay_out)(&rows, chains, groups, lanes.clone(), weights);
        }
    }

    fn lay_out_tail(
        &self,
        view: &MatrixView<'_>,
        outputs: &Range<usize>,
        chains: Chains,
        workspace: &mut Workspace,
    ) {
        let Workspace { weights, floats, .. } = workspace;
        fit(weights, chains.tail, Line::ZERO);
        fit(floats, chains.tail, 0.0);
        for (lane, row) in outputs.clone().enumerate() {
            let columns = chains.whole()..view.columns();
            view.part_f32(row, columns, &mut floats[..chains.tail]);
            for (line, number) in weights.iter_mut().zip(&floats[..chains.tail]) {
                line.0[lane] = number.to_bits();
            }
        }
    }

    /// Adds `Σ a[p, r] · row r` over the rows of every part to `out`, part by part.
    ///
    /// # Shapes
    /// `view`: `[m, k]`; `a`: `[n, m]`; `out`: `[n, k]`, zeros; `part_rows`: rows of a part.
    /// # Errors
    /// `Cancelled`, asked before every part of a tile.
    pub fn transposed(
        &self,
        pool: &Pool,
        view: &MatrixView<'_>,
        a: &[f32],
        out: &mut [f32],
        part_rows: usize,
        cancel: &Cancel,
    ) -> Result<(), Cancelled> {
        let (rows, columns) = (view.rows(), view.columns());
        let positions = a.len() / rows;
        // Columns behind the last whole register are rounded before they are added.
        let whole = columns / self.lanes * self.lanes;
        let out = Disjoint::new(out);
        pool.run(columns.div_ceil(OUTPUTS), &|task| {
            let outputs = task * OUTPUTS..columns.min((task + 1) * OUTPUTS);
            let tiles = outputs.len().div_ceil(ROWS);
            let mut workspace = WORKSPACE.take();
            let Workspace { weights, sums, floats } = &mut workspace;
            let panels = positions.div_ceil(self.positions);
            fit(floats, OUTPUTS + part_rows * self.positions, 0.0);
            let (row_floats, x) = floats.split_at_mut(OUTPUTS);
            sums.clear();
            sums.resize(positions * tiles, Line::ZERO);
            for part in (0..rows).step_by(part_rows) {
                if cancel.check().is_err() {
                    break;
                }
                let part = part..rows.min(part + part_rows);
                fit(weights, tiles * part.len(), Line::ZERO);
                let mut finite = true;
                for (index, row) in part.clone().enumerate() {
                    let numbers = &mut row_floats[..outputs.len()];
                    view.part_f32(row, outputs.clone(), numbers);
                    finite &= numbers.iter().all(|number| number.is_finite());
                    for (tile, numbers) in numbers.chunks(ROWS).enumerate() {
                        let line = &mut weights[tile * part.len() + index];
                        for (word, number) in line.0.iter_mut().zip(numbers) {
                            *word = number.to_bits();
                        }
                    }
                }
                for panel in 0..panels {
                    let range = spread(positions, panels, panel);
                    let count = range.len();
                    for (p, position) in range.clone().enumerate() {
                        let a = &a[position * rows..][part.clone()];
                        for (index, &number) in a.iter().enumerate() {
                            x[index * count + p] = number;
                        }
                    }
                    let x = &x[..part.len() * count];
                    for tile in 0..tiles {
                        let weights = &weights[tile * part.len()..][..part.len()];
                        let sums = &mut sums[tile * positions..][range.clone()];
                        let column = outputs.start + tile * ROWS;
                        if finite && column + ROWS <= whole {
                            (self.chain)(weights, x, sums);
                        } else {
                            careful_chain(weights, x, sums, whole.saturating_sub(column));
                        }
                    }
                }
            }
            for (tile, sums) in sums.chunks_exact(positions.max(1)).enumerate() {
                let column = outputs.start + tile * ROWS;
                let count = ROWS.min(outputs.end - column);
                for (position, sum) in sums.iter().enumerate() {
                    // SAFETY: the columns of this task.
                    let out = unsafe { out.slice(position * columns + column, count) };
                    for (out, &bits) in out.iter_mut().zip(&sum.0) {
                        *out = f32::from_bits(bits);
                    }
                }
            }
            WORKSPACE.set(workspace);
        });
        cancel.check()
    }
}

/// Adds the sum of a chain to sums as `accumulate` does at the end of a row or beside weights that
/// are not finite: factors of 0 are passed over, and from the column `whole` on products are rounded
/// before they are added.
fn careful_chain(weights: &[Line], x: &[f32], sums: &mut [Line], whole: usize) {
    let positions = sums.len();
    for (p, sums) in sums.iter_mut().enumerate() {
        for (column, sum) in sums.0.iter_mut().enumerate() {
            let mut chain = 0.0;
            for (line, x) in weights.iter().zip(x.chunks_exact(positions)) {
                let (weight, factor) = (f32::from_bits(line.0[column]), x[p]);
                if factor == 0.0 {
                    continue;
                }
                chain = if column < whole {
                    factor.mul_add(weight, chain)
                } else {
                    chain + factor * weight
                };
            }
            *sum = (f32::from_bits(*sum) + chain).to_bits();
        }
    }
}

/// Grows memory that is kept.
fn fit<T: Clone>(memory: &mut Vec<T>, count: usize, with: T) {
    if memory.len() < count {
        memory.resize(count, with);
    }
}
