//! Products of some positions with weights, unpacked before or on the way.
//!
//! VNNI adds four products of bytes to 32 bits in one instruction. One register of rows by up to
//! eight positions are eight sums of a part of a block and eight of the whole block; activations are
//! broadcast from memory by the same instruction. Where codes come straight from the registers into
//! which they were unpacked, unpacking one quad and multiplying another share the processor's ports,
//! and no code is stored.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::super::super::FORMATS;
use super::super::panel::{PanelPart, SUM_WORDS};
use super::super::tile::{Layout, Line, ROWS, Tile, chains};
use super::super::unpack::{BlockSink, Destination, layout, unpack};
use super::super::{Ahead, LINE_BYTES, TileRows, ask};
use super::LANES;
use crate::quant::Dtype;

/// Runs `$run` with the number of positions as its first constant.
macro_rules! for_positions {
    ($positions:expr, $run:ident, ($($constant:literal),*), $arguments:tt) => {
        match $positions {
            1 => for_positions!(@ $run, (1, $($constant),*), $arguments),
            2 => for_positions!(@ $run, (2, $($constant),*), $arguments),
            3 => for_positions!(@ $run, (3, $($constant),*), $arguments),
            4 => for_positions!(@ $run, (4, $($constant),*), $arguments),
            5 => for_positions!(@ $run, (5, $($constant),*), $arguments),
            6 => for_positions!(@ $run, (6, $($constant),*), $arguments),
            7 => for_positions!(@ $run, (7, $($constant),*), $arguments),
            8 => for_positions!(@ $run, (8, $($constant),*), $arguments),
            other => panic!("a panel of {other} positions"),
        }
    };
    (@ $run:ident, ($($constant:literal),* $(,)?), ($($argument:expr),*)) => {
        $run::<$($constant),*>($($argument),*)
    };
}

/// Adds the product of blocks, from the block `first` of their rows on, and a panel to sums.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
pub(super) fn of_rows(
    dtype: Dtype,
    rows: &TileRows<'_>,
    first: usize,
    panel: &PanelPart<'_>,
    ahead: &mut Ahead,
    sums: &mut [Line],
) {
    panel.check(layout(dtype).expect("a format with an integer kernel"), sums);
    macro_rules! formats {
        ($($index:literal)*) => {
            match dtype {
                $(dtype if dtype == FORMATS[$index] => for_positions!(
                    panel.positions, rows_of, ($index), (rows, first, panel, ahead, sums)
                ),)*
                other => panic!("{other} has no integer kernel"),
            }
        };
    }
    // Each format is a function of its own: in one for all, sums do not stay in registers.
    formats!(0 1 2 3 4 5 6 7 8 9 10 11 12 13)
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
fn rows_of<const P: usize, const FORMAT: usize>(
    rows: &TileRows<'_>,
    first: usize,
    panel: &PanelPart<'_>,
    ahead: &mut Ahead,
    sums: &mut [Line],
) {
    let mut products = Products::<P> { panel, sums, ahead };
    // SAFETY: this function enables what the registers stand for.
    unsafe {
        unpack::<__m512i, _>(FORMATS[FORMAT], rows, first, panel.blocks, &mut products);
    }
}

/// Adds the product of a tile and a panel to sums.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
pub(super) fn of_tile(
    layout: Layout,
    tile: &Tile,
    panel: &PanelPart<'_>,
    ahead: &mut Ahead,
    sums: &mut [Line],
) {
    panel.check(layout, sums);
    panel.check_tile(layout, tile);
    let (positions, offset) = (panel.positions, layout.offset);
    macro_rules! positions {
        ($each:literal, $parts:literal, $minima:literal) => {
            for_positions!(
                positions,
                tile_of,
                ($each, $parts, $minima),
                (tile, panel, offset, ahead, sums)
            )
        };
    }
    match (layout.parts, offset == 0) {
        (1, false) => positions!(8, 1, false),
        (1, true) => positions!(8, 1, true),
        (8, false) => positions!(8, 8, false),
        (8, true) => positions!(8, 8, true),
        (16, false) => positions!(4, 16, false),
        (16, true) => positions!(4, 16, true),
        other => panic!("no block is cut like {other:?}"),
    }
}

/// `EACH` quads a part.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
fn tile_of<const P: usize, const EACH: usize, const PARTS: usize, const MINIMA: bool>(
    tile: &Tile,
    panel: &PanelPart<'_>,
    offset: u32,
    ahead: &mut Ahead,
    sums: &mut [Line],
) {
    for lane in (0..ROWS).step_by(LANES) {
        for index in 0..panel.blocks {
            let mut block =
                BlockProducts::<P>::new(panel, sums, ahead, ahead.step, PARTS, index, lane);
            // SAFETY: this function enables what the registers stand for.
            unsafe {
                block.scale(half(&tile.d[index], lane));
                if MINIMA {
                    block.minimum(half(&tile.m[index], lane));
                }
                let codes = &tile.codes[index * EACH * PARTS..][..EACH * PARTS];
                if PARTS == 1 {
                    block.whole(registers(codes, lane));
                } else {
                    if PARTS == 8 {
                        block.pairs::<4>(registers(&tile.pairs[index * 4..], lane));
                    } else {
                        block.pairs::<8>(registers(&tile.pairs[index * 8..], lane));
                    }
                    let scales = &tile.scales[index * PARTS..][..PARTS];
                    for (part, codes) in codes.as_chunks::<EACH>().0.iter().enumerate() {
                        let scale = half(&scales[part], lane);
                        block.part::<EACH>(part, scale, registers(codes, lane));
                    }
                }
                block.end::<PARTS, MINIMA>(offset);
            }
        }
    }
}

/// The register of a line that begins at a lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn half(line: &Line, lane: usize) -> __m512i {
    // SAFETY: sixteen of the line's words, which begin at a cache line.
    unsafe { _mm512_load_si512(line.0[lane..][..LANES].as_ptr().cast()) }
}

/// The registers of some lines that begin at a lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn registers<const COUNT: usize>(lines: &[Line], lane: usize) -> [__m512i; COUNT] {
    let mut registers = [_mm512_setzero_si512(); COUNT];
    for (register, line) in registers.iter_mut().zip(&lines[..COUNT]) {
        *register = half(line, lane);
    }
    registers
}

/// Where products of `P` positions go, and what is asked for meanwhile.
struct Products<'p, const P: usize> {
    panel: &'p PanelPart<'p>,
    sums: &'p mut [Line],
    ahead: &'p mut Ahead,
}

/// Products of one block, until they are added to the sums.
///
/// Reads through pointers: with slices, checks and their panics keep sums out of registers.
struct BlockProducts<'b, const P: usize> {
    /// What is asked for meanwhile, `step` bytes in `lines` cache lines with each part.
    ahead: *const u8,
    step: usize,
    lines: usize,
    /// `[quads][P]`.
    codes: *const [u32; P],
    /// Sums of codes, `[words][P]`.
    code_sums: *const [u32; P],
    scales: &'b [f32; P],
    /// This lane of the block's chain of the first position; the others' are `chains` lines apart.
    sums: *mut f32,
    /// Whose the sums are.
    owner: PhantomData<&'b mut [Line]>,
    d: __m512i,
    m: __m512i,
    /// Sums of products.
    totals: [__m512i; P],
    /// Integer minima or scales, two to a word; as many as there are.
    pairs: [__m512i; 8],
}

impl<const P: usize> Destination<__m512i> for Products<'_, P> {
    type Block<'d>
        = BlockProducts<'d, P>
    where
        Self: 'd;

    #[inline(always)]
    fn block<const BYTES: usize, const QUADS: usize, const PARTS: usize>(
        &mut self,
        index: usize,
        lane: usize,
    ) -> BlockProducts<'_, P> {
        // The rows that come next are as many, and as long: a number that the compiler knows.
        let step = (BYTES * LANES).div_ceil(PARTS);
        BlockProducts::new(self.panel, self.sums, self.ahead, step, PARTS, index, lane)
    }
}

impl<'b, const P: usize> BlockProducts<'b, P> {
    #[inline(always)]
    fn new(
        panel: &'b PanelPart<'b>,
        sums: &'b mut [Line],
        ahead: &mut Ahead,
        step: usize,
        parts: usize,
        index: usize,
        lane: usize,
    ) -> BlockProducts<'b, P> {
        let (quads, words) = if parts == 1 { (8, 1) } else { (64, SUM_WORDS.all) };
        let chains = chains(parts);
        let chain = (panel.first + index) % chains;
        assert!(sums.len() == P * chains && lane + LANES <= ROWS, "sums of other positions");
        let code_sums = &panel.sums.as_chunks::<P>().0[index * words..][..words];
        let code_sums = if parts == 1 { code_sums } else { &code_sums[SUM_WORDS.of_parts(parts)] };
        // SAFETY: zeros are a register.
        let zero: __m512i = unsafe { std::mem::zeroed() };
        BlockProducts {
            ahead: ahead.take(step * parts),
            step,
            lines: step.div_ceil(LINE_BYTES),
            codes: panel.codes.as_chunks::<P>().0[index * quads..][..quads].as_ptr(),
            code_sums: code_sums.as_ptr(),
            scales: &panel.scales.as_chunks::<P>().0[index],
            sums: sums[chain].0[lane..].as_mut_ptr().cast(),
            owner: PhantomData,
            d: zero,
            m: zero,
            totals: [zero; P],
            pairs: [zero; 8],
        }
    }
}

impl<const P: usize> BlockProducts<'_, P> {
    /// Asks for what comes next, a part's share of it.
    #[inline(always)]
    fn ask_ahead(&self, part: usize) {
        let start = self.ahead.wrapping_add(part * self.step);
        for line in 0..self.lines {
            ask(start.wrapping_add(line * LINE_BYTES));
        }
    }

    /// Adds `factor · scale · total` to a position's sums.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn add(&mut self, chains: usize, p: usize, factor: __m512i, total: __m512) {
        let scale = _mm512_mul_ps(_mm512_castsi512_ps(factor), _mm512_set1_ps(self.scales[p]));
        // SAFETY: `new` has seen that every position has its lines; a lane begins at a cache line.
        unsafe {
            let line = self.sums.add(p * chains * ROWS);
            _mm512_store_ps(line, _mm512_fmadd_ps(scale, total, _mm512_load_ps(line)));
        }
    }
}

/// Sums of quads of codes times those of each position.
///
/// # Safety
/// `x` has as many quads.
#[allow(clippy::needless_range_loop, reason = "through iterators, sums do not stay in registers")]
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn dot<const P: usize, const QUADS: usize>(
    x: *const [u32; P],
    codes: [__m512i; QUADS],
) -> [__m512i; P] {
    let mut sums = [_mm512_setzero_si512(); P];
    for quad in 0..QUADS {
        // SAFETY: the caller's promise.
        let x = unsafe { &*x.add(quad) };
        for p in 0..P {
            // The first factor is unsigned, the second signed.
            let x = _mm512_set1_epi32(x[p].cast_signed());
            sums[p] = _mm512_dpbusd_epi32(sums[p], codes[quad], x);
        }
    }
    sums
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait asks callers for the instructions")]
#[allow(clippy::needless_range_loop, reason = "through iterators, sums do not stay in registers")]
impl<const P: usize> BlockSink<__m512i> for BlockProducts<'_, P> {
    #[inline(always)]
    unsafe fn scale(&mut self, d: __m512i) {
        self.d = d;
    }

    #[inline(always)]
    unsafe fn minimum(&mut self, m: __m512i) {
        self.m = m;
    }

    #[inline(always)]
    unsafe fn pairs<const PAIRS: usize>(&mut self, pairs: [__m512i; PAIRS]) {
        self.pairs[..PAIRS].copy_from_slice(&pairs);
    }

    #[inline(always)]
    unsafe fn part<const QUADS: usize>(
        &mut self,
        part: usize,
        scale: __m512i,
        codes: [__m512i; QUADS],
    ) {
        unsafe {
            self.ask_ahead(part);
            let sums = dot::<P, QUADS>(self.codes.add(part * QUADS), codes);
            for p in 0..P {
                let scaled = _mm512_mullo_epi32(sums[p], scale);
                self.totals[p] = _mm512_add_epi32(self.totals[p], scaled);
            }
        }
    }

    #[inline(always)]
    unsafe fn whole(&mut self, codes: [__m512i; 8]) {
        self.ask_ahead(0);
        unsafe { self.totals = dot::<P, 8>(self.codes, codes) }
    }

    #[inline(always)]
    unsafe fn end<const PARTS: usize, const MINIMA: bool>(mut self, offset: u32) {
        let chains = chains(PARTS);
        for p in 0..P {
            unsafe {
                if PARTS == 1 {
                    let total = _mm512_cvtepi32_ps(self.totals[p]);
                    let sum = _mm512_set1_ps(f32::from_bits((*self.code_sums)[p]));
                    if MINIMA {
                        self.add(chains, p, self.d, total);
                        self.add(chains, p, self.m, sum);
                    } else {
                        // Exact: all of these are whole numbers below 2^24.
                        let offset = _mm512_set1_ps(-(offset as f32));
                        self.add(chains, p, self.d, _mm512_fmadd_ps(offset, sum, total));
                    }
                    continue;
                }
                let mut sum = _mm512_setzero_si512();
                for pair in 0..PARTS / 2 {
                    let x = _mm512_set1_epi32((*self.code_sums.add(pair))[p].cast_signed());
                    sum = _mm512_dpwssd_epi32(sum, self.pairs[pair], x);
                }
                if MINIMA {
                    self.add(chains, p, self.d, _mm512_cvtepi32_ps(self.totals[p]));
                    self.add(chains, p, self.m, _mm512_cvtepi32_ps(sum));
                } else {
                    let offset = _mm512_mullo_epi32(sum, _mm512_set1_epi32(offset.cast_signed()));
                    let total = _mm512_sub_epi32(self.totals[p], offset);
                    self.add(chains, p, self.d, _mm512_cvtepi32_ps(total));
                }
            }
        }
    }
}
