//! Products of many rows of activations: a tile of weights is unpacked once for all of them.
//!
//! A task takes [`ROWS`] rows of one matrix. It unpacks them, some thousand columns at a time, to
//! bytes that lie as the dot instructions want them (`tile`, `unpack`), and multiplies them with
//! panels of a few positions (`panel`), which all tasks and matrices share. Sums of a block are
//! exact integers and blocks are added in the order that `quantised` defines, so the bits are those
//! of the product of a single row.
//!
//! Elsewhere: the definition and the product of few rows (`quantised`).

pub(in crate::kernels) mod lanes;
pub(in crate::kernels) mod panel;
pub(in crate::kernels) mod tile;
mod unpack;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::LazyLock;

use self::panel::PanelPart;
pub(crate) use self::panel::Panels;
use self::tile::{Layout, Line, Tile};
use super::{Activations, Row, join_4, join_8};
use crate::cpu::{Cancel, Disjoint, Isa, Pool, fastest};
use crate::quant::{Dtype, MatrixView};

/// Rows of a matrix that a task takes.
pub(crate) const ROWS: usize = tile::ROWS;

/// Columns that are unpacked at a time: 256 KiB of codes, which stay in a core's own cache.
const TILE_COLUMNS: usize = 8192;
/// Lines of sums that a task keeps, of 128 bytes each: four a position, or eight in blocks of 32.
const SUM_LINES: usize = 1024;

/// The rows of a tile; where there are fewer, the last one again.
type TileRows<'a> = [Row<'a>; ROWS];

/// One variant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    /// The most positions of a panel.
    positions: usize,
    /// Unpacks `blocks` blocks from the block `first` on.
    unpack: fn(Dtype, &TileRows<'_>, first: usize, blocks: usize, &mut Tile),
    /// Adds the product of a tile and a panel to sums, `[positions][chains]`.
    multiply: fn(Layout, &Tile, &PanelPart<'_>, &mut [Line]),
}

/// Every variant that this processor can run, slowest first; none for the scalar level, whose
/// product of few rows serves many as well.
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

/// Whether codes of a format are multiplied with activations stored 128 above their value.
pub(crate) fn takes_offset(dtype: Dtype) -> bool {
    unpack::layout(dtype).is_some_and(|layout| !layout.minima)
}

/// Memory that a thread keeps from task to task.
struct Workspace {
    tile: Tile,
    sums: Vec<Line>,
}

impl Workspace {
    const EMPTY: Workspace = Workspace { tile: Tile::EMPTY, sums: Vec::new() };
}

impl Default for Workspace {
    fn default() -> Workspace {
        Workspace::EMPTY
    }
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = const { RefCell::new(Workspace::EMPTY) };
}

/// Weights that will be read soon.
struct Ahead<'v, 'a> {
    view: &'v MatrixView<'a>,
    rows: Range<usize>,
    bytes: Range<usize>,
}

impl Ahead<'_, '_> {
    /// Asks for one of several parts of them.
    fn fetch_part(&self, part: usize, parts: usize) {
        let rows = self.rows.start..self.rows.end.min(self.view.rows());
        // As many rows in a part as come out even; with more parts than rows, some have none.
        let count = rows.len();
        for row in rows.clone().take((part + 1) * count / parts).skip(part * count / parts) {
            fetch(&self.view.row(row)[self.bytes.clone()]);
        }
    }
}

/// Asks for bytes that will be read soon.
fn fetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is always there, and asking for an address does not access it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

impl Variant {
    /// Arranges activations for this variant, as weights of a format take them.
    pub fn arrange(&self, pool: &Pool, x: &Activations, offset: bool, panels: &mut Panels) {
        panels.fill(pool, x, offset, self.positions);
    }

    /// Writes `out[p, r] = row r · x[p]` for the rows `outputs` of a view, at most [`ROWS`], and
    /// every position of the panels.
    ///
    /// # Shapes
    /// `out`: `[positions, view.rows()]`; panics where sizes differ. Stops early when cancelled.
    /// The rows `ahead` behind these, which the thread is likely to take next, are asked for while
    /// these are multiplied: unpacking reads too many places at once for the processor to foresee.
    ///
    /// # Safety
    /// Nobody else may use the columns `outputs` of `out` meanwhile.
    pub unsafe fn product(
        &self,
        view: &MatrixView<'_>,
        outputs: Range<usize>,
        panels: &Panels,
        out: &Disjoint<'_, f32>,
        ahead: usize,
        cancel: &Cancel,
    ) {
        let layout = unpack::layout(view.dtype()).expect("a format with an integer kernel");
        assert!(!outputs.is_empty() && outputs.len() <= ROWS, "rows of one tile");
        let rows: TileRows<'_> =
            std::array::from_fn(|lane| Row::of(view, (outputs.start + lane).min(outputs.end - 1)));
        let blocks = view.columns().div_ceil(layout.elements);
        let chains = layout.chains();
        let mut workspace = WORKSPACE.take();
        let mut first_panel = 0;
        while first_panel < panels.count() {
            // As many panels as there are sums for, at least one.
            let first = panels.range(first_panel).start;
            let fits = |panel: &usize| (panels.range(*panel).end - first) * chains <= SUM_LINES;
            let last_panel =
                (first_panel + 1..panels.count()).take_while(fits).last().unwrap_or(first_panel);
            let positions = first..panels.range(last_panel).end;
            workspace.sums.clear();
            workspace.sums.resize(positions.len() * chains, Line::ZERO);
            // Whole turns of the chains, so that a block's chain is its index in the tile's.
            let step = TILE_COLUMNS / layout.elements;
            for block in (0..blocks).step_by(step) {
                if cancel.check().is_err() {
                    WORKSPACE.set(workspace);
                    return;
                }
                let count = step.min(blocks - block);
                (self.unpack)(view.dtype(), &rows, block, count, &mut workspace.tile);
                let bytes = view.dtype().block().1;
                let next = Ahead {
                    view,
                    rows: outputs.start + ahead..outputs.end + ahead,
                    bytes: block * bytes..(block + count) * bytes,
                };
                for panel in first_panel..=last_panel {
                    next.fetch_part(panel - first_panel, last_panel + 1 - first_panel);
                    let range = panels.range(panel);
                    let part = panels.part(panel, block..block + count);
                    let sums = (range.start - first) * chains..(range.end - first) * chains;
                    (self.multiply)(layout, &workspace.tile, &part, &mut workspace.sums[sums]);
                }
            }
            for (position, sums) in positions.zip(workspace.sums.chunks_exact(chains)) {
                // SAFETY: the columns of these outputs, which the caller leaves to us.
                let out =
                    unsafe { out.slice(position * view.rows() + outputs.start, outputs.len()) };
                let chain = |index: usize, lane: usize| f32::from_bits(sums[index].0[lane]);
                for (lane, out) in out.iter_mut().enumerate() {
                    *out = match chains {
                        4 => join_4(std::array::from_fn(|index| chain(index, lane))),
                        _ => join_8(std::array::from_fn(|index| chain(index, lane))),
                    };
                }
            }
            first_panel = last_panel + 1;
        }
        WORKSPACE.set(workspace);
    }
}
