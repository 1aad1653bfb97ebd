//! NEON, with the dot product instruction where it is found.
//!
//! A register holds a quad of four rows. The instruction multiplies signed bytes and adds four
//! products to each row's sum; without it, products are widened to 16 bits and added in pairs. Codes
//! that fill a byte are brought back to their value, the others are small enough to be read as
//! signed. Eight rows are walked with up to four positions at a time: eight sums of a part of a
//! block, eight of the block, and what they are made of fit the registers.
//!
//! Elsewhere: products of few rows (`quantised::neon`).

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::neon::add_products;
use super::lanes::{Lanes, Pointers};
use super::panel::{PanelPart, SUM_WORDS};
use super::tile::{Layout, Line, ROWS, Tile, chains};
use super::{Ahead, ROW_GROUPS, TileRows, Variant, unpack};
use crate::quant::Dtype;

/// Positions of a panel.
const POSITIONS: usize = 4;
/// Rows in a register.
const LANES: usize = 4;
/// Registers of rows that are walked together.
const SIDES: usize = 2;

/// The variants of this processor, slower first.
pub(super) fn variants() -> Vec<Variant> {
    let mut found = vec![with::<false>()];
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        found.push(with::<true>());
    }
    found
}

/// The variant with (or without) the dot product instruction, which the processor must have.
fn with<const DOT: bool>() -> Variant {
    Variant {
        positions: POSITIONS,
        // As AVX2: not measured.
        rows_min: 4,
        unpack: unpack_rows,
        // SAFETY: `variants` asks for `DOT` where the instruction was found.
        multiply: |layout, tile, panel, ahead, sums| unsafe {
            multiply::<DOT>(layout, tile, panel, ahead, sums);
        },
        fused: None,
    }
}

fn unpack_rows(dtype: Dtype, rows: &TileRows<'_>, first: usize, blocks: usize, tile: &mut Tile) {
    // SAFETY: NEON is always there.
    unsafe { unpack::unpack::<uint32x4_t, _>(dtype, rows, first, blocks, tile) }
}

/// Chooses the loops for a layout and a number of positions.
///
/// # Safety
/// With `DOT`, the processor must have the dot product instruction.
#[target_feature(enable = "neon")]
unsafe fn multiply<const DOT: bool>(
    layout: Layout,
    tile: &Tile,
    panel: &PanelPart<'_>,
    ahead: &mut Ahead,
    sums: &mut [Line],
) {
    panel.check(layout, sums);
    panel.check_tile(layout, tile);
    let offset = layout.offset.cast_signed();
    macro_rules! positions {
        ($parts:literal, $minima:literal, $wide:literal) => {
            // SAFETY: the caller's promise.
            unsafe {
                match panel.positions {
                    1 => walk::<DOT, 1, $parts, $minima, $wide>(tile, panel, offset, ahead, sums),
                    2 => walk::<DOT, 2, $parts, $minima, $wide>(tile, panel, offset, ahead, sums),
                    3 => walk::<DOT, 3, $parts, $minima, $wide>(tile, panel, offset, ahead, sums),
                    4 => walk::<DOT, 4, $parts, $minima, $wide>(tile, panel, offset, ahead, sums),
                    other => panic!("a panel of {other} positions"),
                }
            }
        };
    }
    // Codes of which not even one quad fits 16 bits fill a byte.
    match (layout.parts, layout.minima(), layout.quads_in_16_bits == 0) {
        (1, false, true) => positions!(1, false, true),
        (1, false, false) => positions!(1, false, false),
        (1, true, false) => positions!(1, true, false),
        (8, false, true) => positions!(8, false, true),
        (8, true, false) => positions!(8, true, false),
        (16, false, false) => positions!(16, false, false),
        (16, true, false) => positions!(16, true, false),
        other => panic!("no block is cut like {other:?}"),
    }
}

/// Both registers of a line that begin at a lane.
#[inline]
#[target_feature(enable = "neon")]
fn parts(line: &Line, lane: usize) -> [uint32x4_t; SIDES] {
    let words = line.0[lane..][..SIDES * LANES].as_ptr();
    // SAFETY: eight of the line's words.
    unsafe { [vld1q_u32(words), vld1q_u32(words.add(LANES))] }
}

/// Adds to each row's sum the products of its quad of weights and a quad of activations.
///
/// # Safety
/// With `DOT`, the processor must have the dot product instruction.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_quads<const DOT: bool>(sums: int32x4_t, weights: int8x16_t, x: u32) -> int32x4_t {
    let x = vreinterpretq_s8_u32(vdupq_n_u32(x));
    if DOT {
        // SAFETY: the caller's promise.
        return unsafe { add_products::<true>(sums, weights, x) };
    }
    let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
    let high = vmull_high_s8(weights, x);
    // Two products of bytes, the second within ±127, fit 16 bits.
    vpadalq_s16(sums, vpaddq_s16(low, high))
}

/// Adds `factor · d_x · total` to the floating sums of one position.
#[inline]
#[target_feature(enable = "neon")]
fn add_scaled(
    line: &mut Line,
    lane: usize,
    factors: [uint32x4_t; SIDES],
    d_x: f32,
    totals: [float32x4_t; SIDES],
) {
    for side in 0..SIDES {
        let out = line.0[lane + side * LANES..][..LANES].as_mut_ptr();
        let factor = vmulq_n_f32(vreinterpretq_f32_u32(factors[side]), d_x);
        // SAFETY: four of the line's words.
        unsafe {
            let sum = vreinterpretq_f32_u32(vld1q_u32(out));
            let sum = vfmaq_f32(sum, factor, totals[side]);
            vst1q_u32(out, vreinterpretq_u32_f32(sum));
        }
    }
}

/// `P` positions times the tile; the lengths are checked by the caller. `WIDE` codes fill a byte.
///
/// # Safety
/// With `DOT`, the processor must have the dot product instruction.
#[target_feature(enable = "neon")]
unsafe fn walk<
    const DOT: bool,
    const P: usize,
    const PARTS: usize,
    const MINIMA: bool,
    const WIDE: bool,
>(
    tile: &Tile,
    panel: &PanelPart<'_>,
    offset: i32,
    ahead: &mut Ahead,
    sums: &mut [Line],
) {
    let quads = if PARTS == 1 { panel.quads } else { 64 };
    let chains = chains(PARTS);
    let each = quads / PARTS;
    // Wide codes are brought back to their value, and have no offset.
    let has_offset = !MINIMA && !WIDE;
    for lane in (0..ROWS).step_by(SIDES * LANES) {
        for block in 0..panel.blocks {
            let chain = (panel.first + block) % chains;
            let weights = &tile.codes[block * quads..][..quads];
            let codes = &panel.codes.as_chunks::<P>().0[block * quads..][..quads];
            let mut totals = [[vdupq_n_s32(0); SIDES]; P];
            if has_offset && PARTS > 1 {
                for (p, total) in totals.iter_mut().enumerate() {
                    for (total, sum) in
                        total.iter_mut().zip(pairs::<P, PARTS>(tile, panel, block, lane, p))
                    {
                        *total = vmulq_n_s32(sum, -offset);
                    }
                }
            }
            for index in 0..PARTS {
                if lane.is_multiple_of(ROWS / ROW_GROUPS) {
                    ahead.fetch();
                }
                let part = index * each..(index + 1) * each;
                let mut found = [[vdupq_n_s32(0); SIDES]; P];
                for (weights, codes) in weights[part.clone()].iter().zip(&codes[part]) {
                    let mut rows = parts(weights, lane);
                    if WIDE {
                        for row in &mut rows {
                            *row = veorq_u32(*row, vdupq_n_u32(0x8080_8080));
                        }
                    }
                    for (found, &x) in found.iter_mut().zip(codes) {
                        for side in 0..SIDES {
                            let weights = vreinterpretq_s8_u32(rows[side]);
                            // SAFETY: the caller's promise.
                            found[side] = unsafe { add_quads::<DOT>(found[side], weights, x) };
                        }
                    }
                }
                if PARTS == 1 {
                    totals = found;
                    continue;
                }
                let scale = parts(&tile.scales[block * PARTS + index], lane);
                for (total, found) in totals.iter_mut().zip(found) {
                    for side in 0..SIDES {
                        let scale = vreinterpretq_s32_u32(scale[side]);
                        total[side] = vmlaq_s32(total[side], found[side], scale);
                    }
                }
            }
            let d = parts(&tile.d[block], lane);
            let m = parts(&tile.m[block], lane);
            for (p, totals) in totals.into_iter().enumerate() {
                let mut totals = [vcvtq_f32_s32(totals[0]), vcvtq_f32_s32(totals[1])];
                let line = &mut sums[p * chains + chain];
                let d_x = panel.scales[block * P + p];
                let mut sum = vdupq_n_f32(0.0);
                if PARTS == 1 {
                    sum = vdupq_n_f32(f32::from_bits(panel.sums[block * P + p]));
                }
                if has_offset && PARTS == 1 {
                    // Exact: all of these are whole numbers below 2^24.
                    for total in &mut totals {
                        *total = vfmaq_n_f32(*total, sum, -offset as f32);
                    }
                }
                add_scaled(line, lane, d, d_x, totals);
                if MINIMA {
                    let mut totals = [sum; SIDES];
                    if PARTS > 1 {
                        let sums = pairs::<P, PARTS>(tile, panel, block, lane, p);
                        totals = [vcvtq_f32_s32(sums[0]), vcvtq_f32_s32(sums[1])];
                    }
                    add_scaled(line, lane, m, d_x, totals);
                }
            }
        }
    }
}

/// The sum of a block's pairs of integers, times one position's sums of activations.
#[inline]
#[target_feature(enable = "neon")]
fn pairs<const P: usize, const PARTS: usize>(
    tile: &Tile,
    panel: &PanelPart<'_>,
    block: usize,
    lane: usize,
    p: usize,
) -> [int32x4_t; SIDES] {
    let words = SUM_WORDS.of_parts(PARTS);
    let codes = &panel.sums[block * SUM_WORDS.all * P..][words.start * P..words.end * P];
    let pairs = &tile.pairs[block * PARTS / 2..][..PARTS / 2];
    let mut sums = [vdupq_n_s32(0); SIDES];
    for (pair, numbers) in pairs.iter().enumerate() {
        let x = vreinterpretq_s16_u32(vdupq_n_u32(codes[pair * P + p]));
        for (sum, numbers) in sums.iter_mut().zip(parts(numbers, lane)) {
            let numbers = vreinterpretq_s16_u32(numbers);
            let low = vmull_s16(vget_low_s16(numbers), vget_low_s16(x));
            *sum = vaddq_s32(*sum, vpaddq_s32(low, vmull_high_s16(numbers, x)));
        }
    }
    sums
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait asks callers for the instructions")]
impl Lanes for uint32x4_t {
    const COUNT: usize = LANES;

    #[inline(always)]
    unsafe fn splat(word: u32) -> Self {
        unsafe { vdupq_n_u32(word) }
    }

    #[inline(always)]
    unsafe fn load(words: *const u32) -> Self {
        unsafe { vld1q_u32(words) }
    }

    #[inline(always)]
    unsafe fn store(self, line: &mut Line, first: usize) {
        unsafe { vst1q_u32(line.0[first..][..LANES].as_mut_ptr(), self) }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        unsafe { vandq_u32(self, other) }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        unsafe { vorrq_u32(self, other) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        unsafe { veorq_u32(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { vsubq_u32(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { vmulq_u32(self, other) }
    }

    #[inline(always)]
    unsafe fn shl(self, bits: u32) -> Self {
        unsafe { vshlq_u32(self, vdupq_n_s32(bits.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn shr(self, bits: u32) -> Self {
        unsafe { vshlq_u32(self, vdupq_n_s32(-bits.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn look_up(self, table: &[u8; 16]) -> Self {
        unsafe {
            let table = vld1q_u8(table.as_ptr());
            vreinterpretq_u32_u8(vqtbl1q_u8(table, vreinterpretq_u8_u32(self)))
        }
    }

    /// The conversion touches its two registers alone; it is written out because its intrinsic is
    /// not stable.
    #[inline(always)]
    unsafe fn widen_half(self) -> Self {
        unsafe {
            let halves = vmovn_u32(self);
            let wide: uint32x4_t;
            asm!(
                "fcvtl {wide:v}.4s, {halves:v}.4h",
                wide = out(vreg) wide,
                halves = in(vreg) halves,
                options(pure, nomem, nostack, preserves_flags),
            );
            wide
        }
    }

    #[inline(always)]
    unsafe fn words_4(rows: &Pointers, at: usize) -> [Self; 4] {
        unsafe {
            let (a, b) = (vld1q_u32(rows[0].add(at).cast()), vld1q_u32(rows[1].add(at).cast()));
            let (c, d) = (vld1q_u32(rows[2].add(at).cast()), vld1q_u32(rows[3].add(at).cast()));
            let even =
                [vtrn1q_u32(a, b), vtrn1q_u32(c, d)].map(|words| vreinterpretq_u64_u32(words));
            let odd =
                [vtrn2q_u32(a, b), vtrn2q_u32(c, d)].map(|words| vreinterpretq_u64_u32(words));
            [
                vtrn1q_u64(even[0], even[1]),
                vtrn1q_u64(odd[0], odd[1]),
                vtrn2q_u64(even[0], even[1]),
                vtrn2q_u64(odd[0], odd[1]),
            ]
            .map(|words| vreinterpretq_u32_u64(words))
        }
    }
}
