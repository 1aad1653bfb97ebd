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
#[cfg(target_arch = "aarch64")]
mod neon;

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

/// Columns that are unpacked at a time: 16 KiB of codes, half of a first-level cache.
const TILE_COLUMNS: usize = 512;
/// Lines of sums that a task keeps, of 128 bytes each: four a position, or eight in blocks of 32.
const SUM_LINES: usize = 1024;

/// The rows of a tile; where there are fewer, the last one again.
type TileRows<'a> = [Row<'a>; ROWS];

/// At least one row and at most [`ROWS`] of a view.
fn tile_rows<'a>(view: &MatrixView<'a>, outputs: Range<usize>) -> TileRows<'a> {
    let mut rows = [Row::of(view, outputs.end - 1); ROWS];
    // Written where they stay: copies of what was just written make the processor wait.
    for (row, output) in rows.iter_mut().zip(outputs) {
        *row = Row::of(view, output);
    }
    rows
}

/// Adds the product of some blocks and a panel to sums, `[positions][chains]`.
type Fused = fn(Dtype, &TileRows<'_>, first: usize, &PanelPart<'_>, &mut Ahead, &mut [Line]);

/// One variant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    /// The most positions of a panel.
    positions: usize,
    /// From so many rows of activations on, unpacking weights for all of them pays.
    pub rows_min: usize,
    /// Unpacks `blocks` blocks from the block `first` on.
    unpack: fn(Dtype, &TileRows<'_>, first: usize, blocks: usize, &mut Tile),
    /// Adds the product of a tile and a panel to sums, `[positions][chains]`.
    multiply: fn(Layout, &Tile, &PanelPart<'_>, &mut Ahead, &mut [Line]),
    /// Both at once, for a single panel: its blocks, from the block `first` on.
    fused: Option<Fused>,
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
    #[cfg(target_arch = "aarch64")]
    found.extend(neon::variants().into_iter().map(|variant| (Isa::Neon, Some(variant))));
    found
}

/// The variant of this process, if it has one.
pub(crate) fn dispatch() -> Option<Variant> {
    static FASTEST: LazyLock<Option<Variant>> = LazyLock::new(|| fastest(variants()));
    *FASTEST
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

/// Rows that will be read soon, asked for little by little: the processor waits with a request while
/// too many others are under way.
struct Ahead {
    /// What comes next. It may run some lines beyond the rows: asking reads nothing.
    next: *const u8,
    /// Bytes at a time, where the caller does not say.
    step: usize,
}

impl Ahead {
    /// In so many parts; rows that do not lie one after another all at once.
    fn new(view: &MatrixView<'_>, rows: Range<usize>, parts: usize) -> Ahead {
        let rows = rows.start.min(view.rows())..rows.end.min(view.rows());
        let row_bytes = view.row_bytes();
        match view.contiguous_bytes() {
            Some(all) => {
                let bytes = &all[rows.start * row_bytes..rows.end * row_bytes];
                Ahead { next: bytes.as_ptr(), step: bytes.len().div_ceil(parts.max(1)) }
            }
            None => {
                for row in rows {
                    view.row(row).chunks(LINE_BYTES).for_each(|line| ask(line.as_ptr()));
                }
                Ahead { next: view.row(0).as_ptr(), step: 0 }
            }
        }
    }

    /// The place of the next bytes.
    #[inline(always)]
    fn take(&mut self, bytes: usize) -> *const u8 {
        let next = self.next;
        self.next = next.wrapping_add(bytes);
        next
    }

    /// Asks for the next part.
    #[inline(always)]
    fn fetch(&mut self) {
        let next = self.take(self.step);
        for line in 0..self.step.div_ceil(LINE_BYTES) {
            ask(next.wrapping_add(line * LINE_BYTES));
        }
    }
}

/// Groups of rows of a tile that variants multiply one after another; weights that come next are
/// asked for with each part of each block of each group.
const ROW_GROUPS: usize = 2;
/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Asks for the cache line at an address, which may be any.
#[inline(always)]
fn ask(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is always there, and asking for an address does not access it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: asking for an address does not access it.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{}]", in(reg) line, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = line;
}

impl Variant {
    /// Arranges activations for this variant.
    pub fn arrange(&self, pool: &Pool, x: &Activations, panels: &mut Panels) {
        panels.fill(pool, x, self.positions);
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
        let rows = tile_rows(view, outputs.clone());
        let blocks = view.columns().div_ceil(layout.elements);
        let chains = layout.chains();
        // Of a single panel, codes are multiplied as they are unpacked, all blocks in one go.
        let alone = panels.count() == 1;
        let fused = self.fused.filter(|_| alone);
        let step = if fused.is_some() { blocks } else { TILE_COLUMNS / layout.elements };
        let rows_ahead = outputs.start + ahead..outputs.end + ahead;
        let times = ROW_GROUPS * blocks * layout.parts * panels.count();
        let mut ahead = Ahead::new(view, rows_ahead, times);
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
            for block in (0..blocks).step_by(step) {
                if cancel.check().is_err() {
                    WORKSPACE.set(workspace);
                    return;
                }
                let count = step.min(blocks - block);
                if fused.is_none() {
                    workspace.tile.fit(layout, count);
                    (self.unpack)(view.dtype(), &rows, block, count, &mut workspace.tile);
                }
                for panel in first_panel..=last_panel {
                    let range = panels.range(panel);
                    let part = panels.part(panel, block..block + count);
                    let sums = (range.start - first) * chains..(range.end - first) * chains;
                    let sums = &mut workspace.sums[sums];
                    match fused {
                        Some(fused) => fused(view.dtype(), &rows, block, &part, &mut ahead, sums),
                        None => {
                            (self.multiply)(layout, &workspace.tile, &part, &mut ahead, sums);
                        }
                    }
                }
            }
            for (position, sums) in positions.zip(workspace.sums.chunks_exact(chains)) {
                // SAFETY: the columns of these outputs, which the caller leaves to us.
                let out =
                    unsafe { out.slice(position * view.rows() + outputs.start, outputs.len()) };
                // All lanes of a line, so that the loop has a length the compiler knows.
                let mut joined = [0.0; ROWS];
                let sum = |line: &Line, lane: usize| f32::from_bits(line.0[lane]);
                match sums {
                    [a, b, c, d] => {
                        for (lane, joined) in joined.iter_mut().enumerate() {
                            *joined = join_4([a, b, c, d].map(|line| sum(line, lane)));
                        }
                    }
                    [a, b, c, d, e, f, g, h] => {
                        for (lane, joined) in joined.iter_mut().enumerate() {
                            let lines = [a, b, c, d, e, f, g, h];
                            *joined = join_8(lines.map(|line| sum(line, lane)));
                        }
                    }
                    other => panic!("{} chains", other.len()),
                }
                match out.first_chunk_mut() {
                    Some(out) => *out = joined,
                    None => out.copy_from_slice(&joined[..outputs.len()]),
                }
            }
            first_panel = last_panel + 1;
        }
        WORKSPACE.set(workspace);
    }
}
