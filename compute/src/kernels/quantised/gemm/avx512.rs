//! Reachable only through `detect`, so holding the functions is the proof that they may run.
//!
//! VNNI adds four products of bytes to 32 bits in one instruction. Six positions by two registers
//! of rows are twelve sums of a part of a block and twelve of the whole block; each quad of
//! activations is broadcast once for both registers of rows, each quad of weights loaded once for
//! all positions.

use std::arch::x86_64::*;

use super::lanes::{Lanes, Pointers};
use super::panel::{PanelPart, SUM_WORDS};
use super::tile::{Layout, Line, Tile, chains};
use super::{Variant, unpack};
use crate::cpu::Isa;

/// Positions of a panel.
const POSITIONS: usize = 6;
/// Rows in a register.
const LANES: usize = 16;

pub(super) fn detect() -> Option<Variant> {
    let supported = Isa::best() >= Isa::Avx512 && is_x86_feature_detected!("avx512vnni");
    supported.then_some(Variant {
        positions: POSITIONS,
        // SAFETY: the closures leave this function only when the features were found.
        unpack: |dtype, rows, first, blocks, tile| unsafe {
            unpack_rows(dtype, rows, first, blocks, tile);
        },
        // SAFETY: as above.
        multiply: |layout, tile, panel, sums| unsafe { multiply(layout, tile, panel, sums) },
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")]
fn unpack_rows(
    dtype: crate::quant::Dtype,
    rows: &super::TileRows<'_>,
    first: usize,
    blocks: usize,
    tile: &mut Tile,
) {
    // SAFETY: this function enables what the registers stand for.
    unsafe { unpack::unpack::<__m512i>(dtype, rows, first, blocks, tile) }
}

/// Chooses the loops for a layout and a number of positions.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn multiply(layout: Layout, tile: &Tile, panel: &PanelPart<'_>, sums: &mut [Line]) {
    panel.check(layout, tile, sums);
    macro_rules! positions {
        ($parts:literal, $minima:literal) => {
            match panel.positions {
                1 => walk::<1, $parts, $minima>(tile, panel, sums),
                2 => walk::<2, $parts, $minima>(tile, panel, sums),
                3 => walk::<3, $parts, $minima>(tile, panel, sums),
                4 => walk::<4, $parts, $minima>(tile, panel, sums),
                5 => walk::<5, $parts, $minima>(tile, panel, sums),
                6 => walk::<6, $parts, $minima>(tile, panel, sums),
                other => panic!("a panel of {other} positions"),
            }
        };
    }
    match (layout.parts, layout.minima) {
        (1, false) => positions!(1, false),
        (1, true) => positions!(1, true),
        (8, false) => positions!(8, false),
        (8, true) => positions!(8, true),
        (16, false) => positions!(16, false),
        (16, true) => positions!(16, true),
        other => panic!("no block is cut like {other:?}"),
    }
}

/// One register of a line.
#[inline]
#[target_feature(enable = "avx512f")]
fn half(line: &Line, half: usize) -> __m512i {
    // SAFETY: sixteen of the line's words, which begin at a cache line.
    unsafe { _mm512_load_si512(line.0[half * LANES..][..LANES].as_ptr().cast()) }
}

/// Both registers of a line of floats.
#[inline]
#[target_feature(enable = "avx512f")]
fn floats(line: &Line) -> [__m512; 2] {
    [_mm512_castsi512_ps(half(line, 0)), _mm512_castsi512_ps(half(line, 1))]
}

/// `P` positions times the tile; the lengths are checked by the caller.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn walk<const P: usize, const PARTS: usize, const MINIMA: bool>(
    tile: &Tile,
    panel: &PanelPart<'_>,
    sums: &mut [Line],
) {
    // A number that the compiler does not know keeps it from unrolling the loop over a whole block,
    // whose sums it would then not keep in registers.
    let quads = if PARTS == 1 { panel.quads } else { 64 };
    let chains = chains(PARTS);
    for chain in 0..chains {
        for block in (chain..panel.blocks).step_by(chains) {
            let weights = &tile.codes[block * quads..][..quads];
            let codes = &panel.codes[block * quads * P..][..quads * P];
            let start = if MINIMA {
                [_mm512_setzero_si512(); 2]
            } else {
                [half(&tile.starts[block], 0), half(&tile.starts[block], 1)]
            };
            let mut totals = [start; P];
            if PARTS == 1 {
                totals = add_quads::<P, MINIMA>(weights, codes, totals);
            } else {
                let scales = &tile.scales[block * PARTS..][..PARTS];
                let each = quads / PARTS;
                for (part, scale) in scales.iter().enumerate() {
                    let weights = &weights[part * each..][..each];
                    let codes = &codes[part * each * P..][..each * P];
                    let zeros = [[_mm512_setzero_si512(); 2]; P];
                    let found = add_quads::<P, MINIMA>(weights, codes, zeros);
                    let scale = [half(scale, 0), half(scale, 1)];
                    for p in 0..P {
                        for h in 0..2 {
                            let scaled = _mm512_mullo_epi32(found[p][h], scale[h]);
                            totals[p][h] = _mm512_add_epi32(totals[p][h], scaled);
                        }
                    }
                }
            }
            let d = floats(&tile.d[block]);
            for p in 0..P {
                let d_x = _mm512_set1_ps(panel.scales[block * P + p]);
                let line = &mut sums[p * chains + chain];
                for h in 0..2 {
                    let sum = _mm512_castsi512_ps(half(line, h));
                    let factor = _mm512_mul_ps(d[h], d_x);
                    let sum = _mm512_fmadd_ps(factor, _mm512_cvtepi32_ps(totals[p][h]), sum);
                    // SAFETY: sixteen of the line's words, which begin at a cache line.
                    unsafe {
                        _mm512_store_ps(line.0[h * LANES..][..LANES].as_mut_ptr().cast(), sum)
                    };
                }
            }
            if MINIMA {
                add_minima::<P, PARTS>(tile, panel, block, chain, sums);
            }
        }
    }
}

/// Adds products of quads to integer sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn add_quads<const P: usize, const MINIMA: bool>(
    weights: &[Line],
    codes: &[u32],
    mut sums: [[__m512i; 2]; P],
) -> [[__m512i; 2]; P] {
    for (weights, codes) in weights.iter().zip(codes.as_chunks::<P>().0) {
        let weights = [half(weights, 0), half(weights, 1)];
        for p in 0..P {
            let code = _mm512_set1_epi32(codes[p].cast_signed());
            for h in 0..2 {
                // The first factor is unsigned, the second signed.
                sums[p][h] = if MINIMA {
                    _mm512_dpbusd_epi32(sums[p][h], weights[h], code)
                } else {
                    _mm512_dpbusd_epi32(sums[p][h], code, weights[h])
                };
            }
        }
    }
    sums
}

/// Adds a block's minima, times sums of activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn add_minima<const P: usize, const PARTS: usize>(
    tile: &Tile,
    panel: &PanelPart<'_>,
    block: usize,
    chain: usize,
    sums: &mut [Line],
) {
    let chains = chains(PARTS);
    let mut totals = [[_mm512_setzero_ps(); 2]; P];
    if PARTS == 1 {
        for (totals, &sum) in totals.iter_mut().zip(&panel.sums[block * P..][..P]) {
            *totals = [_mm512_set1_ps(f32::from_bits(sum)); 2];
        }
    } else {
        let words = SUM_WORDS.of_parts(PARTS);
        let codes = &panel.sums[block * SUM_WORDS.all * P..][words.start * P..words.end * P];
        let minima = &tile.minima[block * PARTS / 2..][..PARTS / 2];
        let mut integers = [[_mm512_setzero_si512(); 2]; P];
        for (pair, minima) in minima.iter().enumerate() {
            let minima = [half(minima, 0), half(minima, 1)];
            for p in 0..P {
                let sum = _mm512_set1_epi32(codes[pair * P + p].cast_signed());
                for h in 0..2 {
                    integers[p][h] = _mm512_dpwssd_epi32(integers[p][h], minima[h], sum);
                }
            }
        }
        for (totals, [low, high]) in totals.iter_mut().zip(integers) {
            *totals = [_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(high)];
        }
    }
    let m = floats(&tile.m[block]);
    for p in 0..P {
        let d_x = _mm512_set1_ps(panel.scales[block * P + p]);
        let line = &mut sums[p * chains + chain];
        for h in 0..2 {
            let sum = _mm512_castsi512_ps(half(line, h));
            let sum = _mm512_fmadd_ps(_mm512_mul_ps(m[h], d_x), totals[p][h], sum);
            // SAFETY: sixteen of the line's words, which begin at a cache line.
            unsafe { _mm512_store_ps(line.0[h * LANES..][..LANES].as_mut_ptr().cast(), sum) };
        }
    }
}

/// Sixteen bytes of the rows `i`, `4 + i`, `8 + i` and `12 + i`.
///
/// # Safety
/// As [`Lanes::words_4`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn quarter(rows: &Pointers, i: usize, at: usize) -> __m512i {
    // SAFETY: the caller's promise; no alignment is asked for.
    unsafe {
        let all = _mm512_castsi128_si512(_mm_loadu_si128(rows[i].add(at).cast()));
        let all = _mm512_inserti32x4::<1>(all, _mm_loadu_si128(rows[4 + i].add(at).cast()));
        let all = _mm512_inserti32x4::<2>(all, _mm_loadu_si128(rows[8 + i].add(at).cast()));
        _mm512_inserti32x4::<3>(all, _mm_loadu_si128(rows[12 + i].add(at).cast()))
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait asks callers for the instructions")]
impl Lanes for __m512i {
    const COUNT: usize = LANES;

    #[inline(always)]
    unsafe fn splat(word: u32) -> Self {
        unsafe { _mm512_set1_epi32(word.cast_signed()) }
    }

    #[inline(always)]
    unsafe fn load(words: *const u32) -> Self {
        unsafe { _mm512_loadu_si512(words.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, line: &mut Line, first: usize) {
        unsafe { _mm512_store_si512(line.0[first..][..LANES].as_mut_ptr().cast(), self) }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        unsafe { _mm512_and_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        unsafe { _mm512_or_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        unsafe { _mm512_xor_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { _mm512_add_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { _mm512_sub_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { _mm512_mullo_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn shl(self, bits: u32) -> Self {
        unsafe { _mm512_sll_epi32(self, _mm_cvtsi32_si128(bits.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn shr(self, bits: u32) -> Self {
        unsafe { _mm512_srl_epi32(self, _mm_cvtsi32_si128(bits.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn sum_bytes(self) -> Self {
        unsafe { _mm512_dpbusd_epi32(_mm512_setzero_si512(), self, _mm512_set1_epi8(1)) }
    }

    #[inline(always)]
    unsafe fn look_up(self, table: &[u8; 16]) -> Self {
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, self)
        }
    }

    #[inline(always)]
    unsafe fn widen_half(self) -> Self {
        unsafe { _mm512_castps_si512(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(self))) }
    }

    #[inline(always)]
    unsafe fn words_4(rows: &Pointers, at: usize) -> [Self; 4] {
        unsafe {
            let (a, b) = (quarter(rows, 0, at), quarter(rows, 1, at));
            let (c, d) = (quarter(rows, 2, at), quarter(rows, 3, at));
            let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (low_2, high_2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(low, low_2),
                _mm512_unpackhi_epi64(low, low_2),
                _mm512_unpacklo_epi64(high, high_2),
                _mm512_unpackhi_epi64(high, high_2),
            ]
        }
    }
}
