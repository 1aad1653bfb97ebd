//! Reachable only through `detect`, so holding the functions is the proof that they may run.
//!
//! AVX2 adds two products of bytes to 16 bits in one instruction. Where codes are small, several
//! quads of a part of a block are added up in 16 bits before they are widened, and the widening
//! multiplication applies the integer scale. Codes that fill a byte go quad by quad: magnitudes
//! times activations with the codes' signs. Half a tile, two registers of eight rows, is walked
//! with up to four positions at a time.

use std::arch::x86_64::*;

use super::lanes::{Lanes, Pointers};
use super::panel::{PanelPart, SUM_WORDS};
use super::tile::{Layout, Line, ROWS, Tile, chains};
use super::{Ahead, TileRows, Variant, unpack};
use crate::cpu::Isa;
use crate::quant::Dtype;

/// Positions of a panel.
const POSITIONS: usize = 4;
/// Rows in a register.
const LANES: usize = 8;
/// Registers of rows that are walked together.
const SIDES: usize = 2;

pub(super) fn detect() -> Option<Variant> {
    (Isa::best() >= Isa::Avx2).then_some(Variant {
        positions: POSITIONS,
        // Measured on a Zen 4, as in AVX-512.
        rows_min: 4,
        // SAFETY: the closures leave this function only when the features were found.
        unpack: |dtype, rows, first, blocks, tile| unsafe {
            unpack_rows(dtype, rows, first, blocks, tile);
        },
        // SAFETY: as above.
        multiply: |layout, tile, panel, ahead, sums| unsafe {
            multiply(layout, tile, panel, ahead, sums);
        },
        fused: None,
    })
}

#[target_feature(enable = "avx2,fma,f16c")]
fn unpack_rows(dtype: Dtype, rows: &TileRows<'_>, first: usize, blocks: usize, tile: &mut Tile) {
    // SAFETY: this function enables what the registers stand for.
    unsafe { unpack::unpack::<__m256i, _>(dtype, rows, first, blocks, tile) }
}

/// Chooses the loops for a layout and a number of positions.
#[target_feature(enable = "avx2,fma")]
fn multiply(
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
        ($parts:literal, $minima:literal, $together:literal) => {
            match panel.positions {
                1 => walk::<1, $parts, $minima, $together>(tile, panel, offset, ahead, sums),
                2 => walk::<2, $parts, $minima, $together>(tile, panel, offset, ahead, sums),
                3 => walk::<3, $parts, $minima, $together>(tile, panel, offset, ahead, sums),
                4 => walk::<4, $parts, $minima, $together>(tile, panel, offset, ahead, sums),
                other => panic!("a panel of {other} positions"),
            }
        };
    }
    match (layout.parts, layout.minima(), layout.quads_in_16_bits) {
        (1, false, 0) => positions!(1, false, 0),
        (1, false, 4) => positions!(1, false, 4),
        (1, false, 8) => positions!(1, false, 8),
        (1, true, 4) => positions!(1, true, 4),
        (1, true, 8) => positions!(1, true, 8),
        (8, false, 0) => positions!(8, false, 0),
        (8, true, 4) => positions!(8, true, 4),
        (8, true, 8) => positions!(8, true, 8),
        (16, false, 2) => positions!(16, false, 2),
        (16, false, 4) => positions!(16, false, 4),
        (16, true, 4) => positions!(16, true, 4),
        other => panic!("no block is cut like {other:?}"),
    }
}

/// The register of a line that begins at a lane.
#[inline]
#[target_feature(enable = "avx2")]
fn part(line: &Line, lane: usize) -> __m256i {
    // SAFETY: eight of the line's words, which begin at half a cache line.
    unsafe { _mm256_load_si256(line.0[lane..][..LANES].as_ptr().cast()) }
}

/// Both registers of a line that begin at a lane.
#[inline]
#[target_feature(enable = "avx2")]
fn parts(line: &Line, lane: usize) -> [__m256i; SIDES] {
    [part(line, lane), part(line, lane + LANES)]
}

/// Adds `factor · d_x · total` to the floating sums of one position.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_scaled(
    line: &mut Line,
    lane: usize,
    factors: [__m256i; SIDES],
    d_x: f32,
    totals: [__m256; SIDES],
) {
    let d_x = _mm256_set1_ps(d_x);
    for side in 0..SIDES {
        let out = &mut line.0[lane + side * LANES..][..LANES];
        let factor = _mm256_mul_ps(_mm256_castsi256_ps(factors[side]), d_x);
        // SAFETY: eight of the line's words, which begin at half a cache line.
        unsafe {
            let sum = _mm256_load_ps(out.as_ptr().cast());
            let sum = _mm256_fmadd_ps(factor, totals[side], sum);
            _mm256_store_ps(out.as_mut_ptr().cast(), sum);
        }
    }
}

/// `P` positions times the tile; the lengths are checked by the caller. `TOGETHER` quads are added
/// up in 16 bits, or none where that is 0.
#[target_feature(enable = "avx2,fma")]
fn walk<const P: usize, const PARTS: usize, const MINIMA: bool, const TOGETHER: usize>(
    tile: &Tile,
    panel: &PanelPart<'_>,
    offset: i32,
    ahead: &mut Ahead,
    sums: &mut [Line],
) {
    // As in AVX-512: a number that the compiler does not know.
    let quads = if PARTS == 1 { panel.quads } else { 64 };
    let chains = chains(PARTS);
    let each = quads / PARTS;
    for lane in (0..ROWS).step_by(SIDES * LANES) {
        for block in 0..panel.blocks {
            let chain = (panel.first + block) % chains;
            let weights = &tile.codes[block * quads..][..quads];
            let codes = &panel.codes[block * quads * P..][..quads * P];
            // Wide codes are brought back to their value, and have no offset.
            let has_offset = !MINIMA && TOGETHER != 0;
            let mut totals = [[_mm256_setzero_si256(); SIDES]; P];
            if has_offset && PARTS > 1 {
                let offset = _mm256_set1_epi32(-offset);
                for (p, total) in totals.iter_mut().enumerate() {
                    let sums = pairs::<P, PARTS>(tile, panel, block, lane, p);
                    *total = sums.map(|sum| _mm256_mullo_epi32(sum, offset));
                }
            }
            for index in 0..PARTS {
                ahead.fetch();
                let weights = &weights[index * each..][..each];
                let codes = &codes[index * each * P..][..each * P];
                let scale = if PARTS == 1 {
                    [_mm256_set1_epi32(1); SIDES]
                } else {
                    parts(&tile.scales[block * PARTS + index], lane)
                };
                if TOGETHER == 0 {
                    let mut found = [[_mm256_setzero_si256(); SIDES]; P];
                    add_wide(weights, codes, lane, &mut found);
                    for p in 0..P {
                        for side in 0..SIDES {
                            let scaled = if PARTS == 1 {
                                found[p][side]
                            } else {
                                _mm256_mullo_epi32(found[p][side], scale[side])
                            };
                            totals[p][side] = _mm256_add_epi32(totals[p][side], scaled);
                        }
                    }
                    continue;
                }
                // The scale in both halves of a word, for the pairs of sums.
                let scale = [in_both_halves(scale[0]), in_both_halves(scale[1])];
                let together = if TOGETHER < each { TOGETHER } else { each };
                for first in (0..each).step_by(together) {
                    let weights = &weights[first..first + together];
                    let codes = &codes[first * P..(first + together) * P];
                    let mut pairs = [[_mm256_setzero_si256(); SIDES]; P];
                    for (quad, weights) in weights.iter().enumerate() {
                        let weights = parts(weights, lane);
                        for p in 0..P {
                            let code = _mm256_set1_epi32(codes[quad * P + p].cast_signed());
                            for side in 0..SIDES {
                                // The first factor is unsigned, the second signed.
                                let products = _mm256_maddubs_epi16(weights[side], code);
                                pairs[p][side] = _mm256_add_epi16(pairs[p][side], products);
                            }
                        }
                    }
                    for p in 0..P {
                        for side in 0..SIDES {
                            let scaled = _mm256_madd_epi16(pairs[p][side], scale[side]);
                            totals[p][side] = _mm256_add_epi32(totals[p][side], scaled);
                        }
                    }
                }
            }
            let d = parts(&tile.d[block], lane);
            let m = parts(&tile.m[block], lane);
            for p in 0..P {
                let mut totals = totals[p].map(|total| _mm256_cvtepi32_ps(total));
                let line = &mut sums[p * chains + chain];
                let d_x = panel.scales[block * P + p];
                let sum = || _mm256_set1_ps(f32::from_bits(panel.sums[block * P + p]));
                if has_offset && PARTS == 1 {
                    // Exact: all of these are whole numbers below 2^24.
                    let offset = _mm256_set1_ps(-offset as f32);
                    totals = totals.map(|total| _mm256_fmadd_ps(offset, sum(), total));
                }
                add_scaled(line, lane, d, d_x, totals);
                if MINIMA {
                    let totals = if PARTS == 1 {
                        [sum(); SIDES]
                    } else {
                        let sums = pairs::<P, PARTS>(tile, panel, block, lane, p);
                        sums.map(|sum| _mm256_cvtepi32_ps(sum))
                    };
                    add_scaled(line, lane, m, d_x, totals);
                }
            }
        }
    }
}

/// The lower half of each word in both of its halves.
#[inline]
#[target_feature(enable = "avx2")]
fn in_both_halves(words: __m256i) -> __m256i {
    _mm256_blend_epi16::<0xaa>(words, _mm256_slli_epi32::<16>(words))
}

/// Adds products of quads whose codes fill a byte and are 128 above their value.
#[inline]
#[target_feature(enable = "avx2")]
fn add_wide<const P: usize>(
    weights: &[Line],
    codes: &[u32],
    lane: usize,
    sums: &mut [[__m256i; SIDES]; P],
) {
    let (ones, offset) = (_mm256_set1_epi16(1), _mm256_set1_epi8(-128));
    for (quad, weights) in weights.iter().enumerate() {
        let weights = parts(weights, lane).map(|codes| _mm256_xor_si256(codes, offset));
        let sizes = [_mm256_abs_epi8(weights[0]), _mm256_abs_epi8(weights[1])];
        for p in 0..P {
            let code = _mm256_set1_epi32(codes[quad * P + p].cast_signed());
            for side in 0..SIDES {
                let signed = _mm256_sign_epi8(code, weights[side]);
                let pairs = _mm256_maddubs_epi16(sizes[side], signed);
                let fours = _mm256_madd_epi16(pairs, ones);
                sums[p][side] = _mm256_add_epi32(sums[p][side], fours);
            }
        }
    }
}

/// The sum of a block's pairs of integers, times one position's sums of activations.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn pairs<const P: usize, const PARTS: usize>(
    tile: &Tile,
    panel: &PanelPart<'_>,
    block: usize,
    lane: usize,
    p: usize,
) -> [__m256i; SIDES] {
    let words = SUM_WORDS.of_parts(PARTS);
    let codes = &panel.sums[block * SUM_WORDS.all * P..][words.start * P..words.end * P];
    let pairs = &tile.pairs[block * PARTS / 2..][..PARTS / 2];
    let mut sums = [_mm256_setzero_si256(); SIDES];
    for (pair, numbers) in pairs.iter().enumerate() {
        let sum = _mm256_set1_epi32(codes[pair * P + p].cast_signed());
        for (side, numbers) in parts(numbers, lane).into_iter().enumerate() {
            sums[side] = _mm256_add_epi32(sums[side], _mm256_madd_epi16(numbers, sum));
        }
    }
    sums
}

/// Sixteen bytes of the rows `i` and `4 + i`.
///
/// # Safety
/// As [`Lanes::words_4`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn half(rows: &Pointers, i: usize, at: usize) -> __m256i {
    // SAFETY: the caller's promise; no alignment is asked for.
    unsafe {
        let low = _mm256_castsi128_si256(_mm_loadu_si128(rows[i].add(at).cast()));
        _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(rows[4 + i].add(at).cast()))
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait asks callers for the instructions")]
impl Lanes for __m256i {
    const COUNT: usize = LANES;

    #[inline(always)]
    unsafe fn splat(word: u32) -> Self {
        unsafe { _mm256_set1_epi32(word.cast_signed()) }
    }

    #[inline(always)]
    unsafe fn load(words: *const u32) -> Self {
        unsafe { _mm256_loadu_si256(words.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, line: &mut Line, first: usize) {
        unsafe { _mm256_store_si256(line.0[first..][..LANES].as_mut_ptr().cast(), self) }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        unsafe { _mm256_and_si256(self, other) }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        unsafe { _mm256_or_si256(self, other) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        unsafe { _mm256_xor_si256(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { _mm256_sub_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { _mm256_mullo_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn shl(self, bits: u32) -> Self {
        unsafe { _mm256_sll_epi32(self, _mm_cvtsi32_si128(bits.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn shr(self, bits: u32) -> Self {
        unsafe { _mm256_srl_epi32(self, _mm_cvtsi32_si128(bits.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn look_up(self, table: &[u8; 16]) -> Self {
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, self)
        }
    }

    #[inline(always)]
    unsafe fn widen_half(self) -> Self {
        unsafe {
            let halves = _mm256_and_si256(self, _mm256_set1_epi32(0xffff));
            let halves = _mm256_packus_epi32(halves, halves);
            let halves = _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(halves));
            _mm256_castps_si256(_mm256_cvtph_ps(halves))
        }
    }

    #[inline(always)]
    unsafe fn words_4(rows: &Pointers, at: usize) -> [Self; 4] {
        unsafe {
            let (a, b) = (half(rows, 0, at), half(rows, 1, at));
            let (c, d) = (half(rows, 2, at), half(rows, 3, at));
            let (low, high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (low_2, high_2) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(low, low_2),
                _mm256_unpackhi_epi64(low, low_2),
                _mm256_unpacklo_epi64(high, high_2),
                _mm256_unpackhi_epi64(high, high_2),
            ]
        }
    }
}
