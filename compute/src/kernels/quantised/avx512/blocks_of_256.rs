//! Formats of 256-blocks, four blocks of a row at a time.
//!
//! Of a block, products of four codes fit 16 bits, so two registers of them are packed into one
//! and multiplied with their sub-blocks' scales while they are added up. Weights are unpacked once
//! for up to four rows of activations.

use std::arch::x86_64::*;

use super::transpose_sum;
use crate::kernels::quantised::blocks::{Format256, Q2K, Q3K, Q4K, Q5K, Q6K};
use crate::kernels::quantised::{ActivationRow, Activations, BlockSize, PREFETCH_BYTES, Row};

/// Blocks whose sums are joined.
const GROUP: usize = 4;
/// Rows of activations for which a block is unpacked once.
const ROWS: usize = 4;

/// A format as registers.
pub(super) trait Registers: Format256 {
    /// What is read of the four blocks together.
    type Header: Copy;
    /// By how much codes are above their value, as a power of two, if they are.
    const OFFSET_BITS: Option<u32>;

    /// Reads scales and minima.
    ///
    /// # Safety
    /// Each pointer is good for `BYTES` bytes, and the processor has the features of this file.
    unsafe fn header(group: [*const u8; GROUP]) -> Self::Header;

    /// The scales of block `index`, one for each 16 elements.
    ///
    /// # Safety
    /// As for [`Registers::header`], whose result is given; `block` is that block.
    unsafe fn scales(header: Self::Header, index: usize, block: *const u8) -> __m256i;

    /// The codes of a block in order, none negative.
    ///
    /// # Safety
    /// As for [`Registers::header`].
    unsafe fn codes(block: *const u8) -> [__m512i; 4];

    /// `d` of each block, or `d` and `dmin` of each in turn.
    ///
    /// # Safety
    /// As for [`Registers::header`].
    unsafe fn factors(header: Self::Header, group: [*const u8; GROUP]) -> __m256;

    /// `M` of each block; called only where there are minima.
    ///
    /// # Safety
    /// As for [`Registers::header`]; `x` has four blocks from `first` on.
    unsafe fn minima(header: Self::Header, x: &ActivationRow, first: usize) -> __m128i;
}

/// One row of weights times rows of activations.
pub(super) fn product<F: Registers>(row: Row, x: &Activations, first: usize, out: &mut [f32]) {
    assert_eq!(x.block_size(), BlockSize::K256);
    assert_eq!(row.bytes.len(), x.blocks() * F::BYTES, "row and activations differ in blocks");
    for (index, out) in out.chunks_mut(ROWS).enumerate() {
        let first = first + index * ROWS;
        match out.len() {
            1 => rows_checked::<F, 1>(row.bytes, x, first, out),
            2 => rows_checked::<F, 2>(row.bytes, x, first, out),
            3 => rows_checked::<F, 3>(row.bytes, x, first, out),
            _ => rows_checked::<F, ROWS>(row.bytes, x, first, out),
        }
    }
}

fn rows_checked<F: Registers, const N: usize>(
    row: &[u8],
    x: &Activations,
    first: usize,
    out: &mut [f32],
) {
    let x: [ActivationRow; N] = std::array::from_fn(|p| x.row(first + p));
    // SAFETY: this variant is listed only where the processor has the features, and the caller saw
    // that the row has as many blocks as the activations, which are padded to whole groups.
    out.copy_from_slice(&unsafe { rows::<F, N>(row, &x) });
}

/// # Safety
/// The processor must have the features; every `x` has at least as many blocks as `row`, rounded
/// up to whole groups.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
unsafe fn rows<F: Registers, const N: usize>(row: &[u8], x: &[ActivationRow; N]) -> [f32; N] {
    let blocks = row.len() / F::BYTES;
    let mut sums = [0.0_f32; N];
    let mut first = 0;
    while first + GROUP <= blocks {
        // SAFETY: the group is within the row.
        unsafe { group::<F, N>(row.as_ptr().add(first * F::BYTES), x, first, GROUP, &mut sums) };
        first += GROUP;
    }
    if first < blocks {
        let count = blocks - first;
        // SAFETY: `count` blocks are left.
        unsafe { group::<F, N>(row.as_ptr().add(first * F::BYTES), x, first, count, &mut sums) };
    }
    sums
}

/// Adds the products of `count` blocks, from block `first` on.
///
/// # Safety
/// As for [`rows`]; `start` is good for `count` blocks, of which there is at least one.
#[inline(always)]
unsafe fn group<F: Registers, const N: usize>(
    start: *const u8,
    x: &[ActivationRow; N],
    first: usize,
    count: usize,
    sums: &mut [f32; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        for line in 0..(GROUP * F::BYTES).div_ceil(64) {
            // A prefetch may name any address.
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(PREFETCH_BYTES + 64 * line).cast());
        }
        // Blocks that are not there are the last one again; their sums go nowhere.
        let block = |index: usize| start.add(index.min(count - 1) * F::BYTES);
        let group = [block(0), block(1), block(2), block(3)];
        let mut products = [[_mm512_setzero_si512(); GROUP]; N];
        let header = F::header(group);
        for index in 0..count {
            let scales = F::scales(header, index, group[index]);
            let codes = F::codes(group[index]);
            for (x, products) in x.iter().zip(&mut products) {
                products[index] = block_product::<F>(codes, scales, x, first + index);
            }
        }
        let factors = F::factors(header, group);
        for ((x, products), sum) in x.iter().zip(products).zip(sums) {
            let s = add_lanes(transpose_sum(products));
            let d = _mm_loadu_ps(x.scales.as_ptr().add(first));
            if F::MINS {
                // `d`, `dmin` and `S`, `M` in turn, in the order of the chain.
                let twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
                let odd = _mm256_setr_ps(0.0, -0.0, 0.0, -0.0, 0.0, -0.0, 0.0, -0.0);
                let d = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(d), twice);
                let factors = _mm256_mul_ps(factors, _mm256_xor_ps(d, odd));
                let m = F::minima(header, x, first);
                let low = _mm_unpacklo_epi32(s, m);
                let values = _mm256_inserti128_si256::<1>(
                    _mm256_castsi128_si256(low),
                    _mm_unpackhi_epi32(s, m),
                );
                let (mut factor, mut value) = ([0.0; 2 * GROUP], [0.0; 2 * GROUP]);
                _mm256_storeu_ps(factor.as_mut_ptr(), factors);
                _mm256_storeu_ps(value.as_mut_ptr(), _mm256_cvtepi32_ps(values));
                for (&factor, &value) in factor.iter().zip(&value).take(2 * count) {
                    *sum = factor.mul_add(value, *sum);
                }
            } else {
                let (mut factor, mut value) = ([0.0; GROUP], [0.0; GROUP]);
                let factors = _mm_mul_ps(_mm256_castps256_ps128(factors), d);
                _mm_storeu_ps(factor.as_mut_ptr(), factors);
                _mm_storeu_ps(value.as_mut_ptr(), _mm_cvtepi32_ps(s));
                for (&factor, &value) in factor.iter().zip(&value).take(count) {
                    *sum = factor.mul_add(value, *sum);
                }
            }
        }
    }
}

/// Sixteen numbers whose sum is `S` of a block.
///
/// # Safety
/// As for [`rows`]; `x` has the block `index`.
#[inline(always)]
unsafe fn block_product<F: Registers>(
    codes: [__m512i; 4],
    scales: __m256i,
    x: &ActivationRow,
    index: usize,
) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let mut fours = [_mm512_setzero_si512(); 4];
        for (part, four) in fours.iter_mut().enumerate() {
            let x = x.codes.as_ptr().add(index * 256 + part * 64);
            *four = _mm512_dpbusd_epi32(*four, codes[part], _mm512_load_si512(x.cast()));
        }
        let scales_of_low = _mm512_loadu_si512(SPREAD[0].as_ptr().cast());
        let scales_of_high = _mm512_loadu_si512(SPREAD[1].as_ptr().cast());
        let all_scales = _mm512_castsi256_si512(scales);
        let low = _mm512_madd_epi16(
            _mm512_packs_epi32(fours[0], fours[1]),
            _mm512_permutexvar_epi16(scales_of_low, all_scales),
        );
        let sum = _mm512_dpwssd_epi32(
            low,
            _mm512_packs_epi32(fours[2], fours[3]),
            _mm512_permutexvar_epi16(scales_of_high, all_scales),
        );
        match F::OFFSET_BITS {
            None => sum,
            Some(bits) => {
                let sums = _mm256_loadu_si256(x.sums.as_ptr().add(index * 16).cast());
                let above = _mm256_sll_epi32(
                    _mm256_madd_epi16(scales, sums),
                    _mm_cvtsi32_si128(bits.cast_signed()),
                );
                _mm512_sub_epi32(sum, _mm512_zextsi256_si512(above))
            }
        }
    }
}

/// Which of sixteen scales each pair of bytes takes, after sums of four were packed: of each 128
/// bits the lower half is from the first register, the upper from the second.
static SPREAD: [[i16; 32]; 2] = {
    let mut spread = [[0; 32]; 2];
    let mut place = 0;
    while place < 64 {
        let (part, lane, second) = (place / 32, place % 32 / 8, place % 8 / 4);
        spread[part][place % 32] = (8 * part + 4 * second + lane) as i16;
        place += 1;
    }
    spread
};

/// Adds the four lanes of 128 bits.
///
/// # Safety
/// The processor must have the features of this file.
#[inline(always)]
unsafe fn add_lanes(sums: __m512i) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        let half =
            _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64::<1>(sums));
        _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
    }
}

/// The binary16 numbers at one place of each block.
///
/// # Safety
/// Each pointer is good for `at + 2` bytes, and the processor has the features of this file.
#[inline(always)]
unsafe fn halves(group: [*const u8; GROUP], at: usize) -> __m128 {
    // SAFETY: the caller's promise.
    unsafe {
        let [a, b, c, d] =
            group.map(|block| u64::from(block.add(at).cast::<u16>().read_unaligned()));
        _mm_cvtph_ps(_mm_cvtsi64_si128((a | b << 16 | c << 32 | d << 48).cast_signed()))
    }
}

/// Nibbles of 128 bytes as `Q4_K` has them: of each 32 bytes first the low ones, then the high.
///
/// # Safety
/// The pointer must be good for 128 bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn nibbles(from: *const u8) -> [__m512i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm512_set1_epi8(15);
        [
            _mm512_and_si512(twice::<4>(from), low),
            _mm512_and_si512(twice::<4>(from.add(32)), low),
            _mm512_and_si512(twice::<4>(from.add(64)), low),
            _mm512_and_si512(twice::<4>(from.add(96)), low),
        ]
    }
}

/// 32 bytes in both halves of a register, those of the upper half shifted `BITS` down.
///
/// # Safety
/// The pointer must be good for 32 bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn twice<const BITS: u32>(from: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let bytes = _mm512_broadcast_i64x4(_mm256_loadu_si256(from.cast()));
        _mm512_mask_srli_epi16::<BITS>(bytes, UPPER, bytes)
    }
}

/// `low | bits & mask`, byte by byte.
///
/// # Safety
/// The processor must have the features of this file.
#[inline(always)]
unsafe fn with_bits(low: __m512i, bits: __m512i, mask: i8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_or_si512(low, _mm512_and_si512(bits, _mm512_set1_epi8(mask))) }
}

/// The upper half of a register, in units of 16 bits.
const UPPER: __mmask32 = 0xffff_0000;

/// What `Q4_K` and `Q5_K` have in front of each block.
#[derive(Clone, Copy)]
pub(super) struct Header {
    /// `d`, `dmin` and packed scales and minima of the four blocks.
    packed: __m512i,
    /// Eight scales and eight minima of each block, a byte each.
    bytes: __m512i,
    /// The same.
    stored: [[u8; 16]; GROUP],
}

impl Header {
    /// # Safety
    /// Each pointer is good for 16 bytes, and the processor has the features of this file.
    #[inline(always)]
    unsafe fn read(group: [*const u8; GROUP]) -> Header {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c, d] = group.map(|block| _mm_loadu_si128(block.cast()));
            let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
            let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
            let packed = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            // Words 1 to 3 of a header are the packed bytes 0 to 3, 4 to 7 and 8 to 11. Out come the
            // scales 0 to 3 and 4 to 7 and the minima 0 to 3 and 4 to 7: their lower bits,
            let places = _mm512_shuffle_epi32::<0b11_10_11_01>(packed);
            let shifts = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0, 0, 4));
            let masks = _mm512_broadcast_i32x4(_mm_setr_epi32(
                0x3f3f_3f3f,
                0x0f0f_0f0f,
                0x3f3f_3f3f,
                0x0f0f_0f0f,
            ));
            let lower = _mm512_and_si512(_mm512_srlv_epi32(places, shifts), masks);
            // and the upper two of those from 4 on.
            let places = _mm512_srli_epi32::<2>(_mm512_shuffle_epi32::<0b10_10_01_01>(packed));
            let masks = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x3030_3030, 0, 0x3030_3030));
            let bytes = _mm512_or_si512(lower, _mm512_and_si512(places, masks));
            let mut stored = [[0; 16]; GROUP];
            _mm512_storeu_si512(stored.as_mut_ptr().cast(), bytes);
            Header { packed, bytes, stored }
        }
    }

    /// The scales of a block, each twice.
    ///
    /// # Safety
    /// The processor must have the features of this file.
    #[inline(always)]
    unsafe fn scales(&self, index: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c, d, e, f, g, h, ..] = self.stored[index];
            let bytes = _mm_cvtsi64_si128(i64::from_le_bytes([a, b, c, d, e, f, g, h]));
            _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(bytes, bytes))
        }
    }

    /// `d` and `dmin` of each block in turn.
    ///
    /// # Safety
    /// The processor must have the features of this file.
    #[inline(always)]
    unsafe fn factors(&self) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
            let halves = _mm512_castsi512_si128(_mm512_permutexvar_epi32(first, self.packed));
            _mm256_cvtph_ps(halves)
        }
    }

    /// `M` of each block.
    ///
    /// # Safety
    /// `x` has four blocks from `first` on.
    #[inline(always)]
    unsafe fn minima(&self, x: &ActivationRow, first: usize) -> __m128i {
        // SAFETY: the caller's promise.
        unsafe {
            let mins = _mm512_unpackhi_epi8(self.bytes, _mm512_setzero_si512());
            let sums = _mm512_loadu_si512(x.sums_32.as_ptr().add(8 * first).cast());
            let sums = _mm512_madd_epi16(mins, sums);
            let sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32::<0b10_11_00_01>(sums));
            let sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32::<0b01_00_11_10>(sums));
            let first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
            _mm512_castsi512_si128(_mm512_permutexvar_epi32(first, sums))
        }
    }
}

/// The functions that `Q4_K` and `Q5_K` share.
macro_rules! header_in_front {
    () => {
        type Header = Header;
        const OFFSET_BITS: Option<u32> = None;

        /// # Safety
        /// The processor must have this variant's instructions; pointers, what is read through them.
        #[inline(always)]
        unsafe fn header(group: [*const u8; GROUP]) -> Header {
            // SAFETY: the caller's promise.
            unsafe { Header::read(group) }
        }

        /// # Safety
        /// The processor must have this variant's instructions; pointers, what is read through them.
        #[inline(always)]
        unsafe fn scales(header: Header, index: usize, _block: *const u8) -> __m256i {
            // SAFETY: the caller's promise.
            unsafe { header.scales(index) }
        }

        /// # Safety
        /// The processor must have this variant's instructions; pointers, what is read through them.
        #[inline(always)]
        unsafe fn factors(header: Header, _group: [*const u8; GROUP]) -> __m256 {
            // SAFETY: the caller's promise.
            unsafe { header.factors() }
        }

        /// # Safety
        /// The processor must have this variant's instructions; pointers, what is read through them.
        #[inline(always)]
        unsafe fn minima(header: Header, x: &ActivationRow, first: usize) -> __m128i {
            // SAFETY: the caller's promise.
            unsafe { header.minima(x, first) }
        }
    };
}

impl Registers for Q4K {
    header_in_front!();

    #[inline(always)]
    unsafe fn codes(block: *const u8) -> [__m512i; 4] {
        // SAFETY: the caller's promise.
        unsafe { nibbles(block.add(16)) }
    }
}

impl Registers for Q5K {
    header_in_front!();

    #[inline(always)]
    unsafe fn codes(block: *const u8) -> [__m512i; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c, d] = nibbles(block.add(48));
            // Bit `2 k` for the lower half and `2 k + 1` for the upper half of register `k`.
            let fifths = twice::<1>(block.add(16));
            [
                with_bits(a, _mm512_slli_epi16::<4>(fifths), 16),
                with_bits(b, _mm512_slli_epi16::<2>(fifths), 16),
                with_bits(c, fifths, 16),
                with_bits(d, _mm512_srli_epi16::<2>(fifths), 16),
            ]
        }
    }
}

/// The functions of formats without minima, whose only header is `d`.
macro_rules! no_minima {
    ($d:literal) => {
        type Header = ();

        /// # Safety
        /// The processor must have this variant's instructions; pointers, what is read through them.
        #[inline(always)]
        unsafe fn header(_group: [*const u8; GROUP]) {}

        /// # Safety
        /// The processor must have this variant's instructions; pointers, what is read through them.
        #[inline(always)]
        unsafe fn factors((): (), group: [*const u8; GROUP]) -> __m256 {
            // SAFETY: the caller's promise.
            unsafe { _mm256_castps128_ps256(halves(group, $d)) }
        }

        /// # Safety
        /// The processor must have this variant's instructions; pointers, what is read through them.
        #[inline(always)]
        unsafe fn minima((): (), _x: &ActivationRow, _first: usize) -> __m128i {
            // SAFETY: the caller's promise.
            unsafe { _mm_setzero_si128() }
        }
    };
}

impl Registers for Q6K {
    no_minima!(208);

    const OFFSET_BITS: Option<u32> = Some(5);

    #[inline(always)]
    unsafe fn scales((): (), _index: usize, block: *const u8) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(block.add(192).cast())) }
    }

    #[inline(always)]
    unsafe fn codes(block: *const u8) -> [__m512i; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let ([a, b], [c, d]) = (half_of_q6_k(block, 0), half_of_q6_k(block, 1));
            [a, b, c, d]
        }
    }
}

/// The codes of half a block of `Q6_K`.
///
/// # Safety
/// The pointer must be good for 192 bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn half_of_q6_k(block: *const u8, half: usize) -> [__m512i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm512_set1_epi8(15);
        let nibbles = _mm512_loadu_si512(block.add(64 * half).cast());
        let uppers = twice::<2>(block.add(128 + 32 * half));
        let first = _mm512_and_si512(nibbles, low);
        let second = _mm512_and_si512(_mm512_srli_epi16::<4>(nibbles), low);
        [with_bits(first, _mm512_slli_epi16::<4>(uppers), 0x30), with_bits(second, uppers, 0x30)]
    }
}

/// The pairs of bits of `Q2_K` and `Q3_K`.
///
/// # Safety
/// The pointer must be good for 64 bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn pairs(from: *const u8) -> [__m512i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm512_set1_epi8(3);
        let (first, second) = (twice::<2>(from), twice::<2>(from.add(32)));
        [
            _mm512_and_si512(first, low),
            _mm512_and_si512(_mm512_srli_epi16::<4>(first), low),
            _mm512_and_si512(second, low),
            _mm512_and_si512(_mm512_srli_epi16::<4>(second), low),
        ]
    }
}

impl Registers for Q3K {
    no_minima!(108);

    const OFFSET_BITS: Option<u32> = Some(2);

    #[inline(always)]
    unsafe fn scales((): (), _index: usize, block: *const u8) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, high) = (
                block.add(96).cast::<u64>().read_unaligned(),
                block.add(104).cast::<u32>().read_unaligned(),
            );
            let nibbles = _mm_set_epi64x(
                ((low >> 4) & 0x0f0f_0f0f_0f0f_0f0f).cast_signed(),
                (low & 0x0f0f_0f0f_0f0f_0f0f).cast_signed(),
            );
            let pairs =
                _mm_srlv_epi32(_mm_set1_epi32(high.cast_signed()), _mm_setr_epi32(0, 2, 4, 6));
            let pairs = _mm_slli_epi32::<4>(_mm_and_si128(pairs, _mm_set1_epi8(3)));
            let scales = _mm_sub_epi8(_mm_or_si128(nibbles, pairs), _mm_set1_epi8(32));
            _mm256_cvtepi8_epi16(scales)
        }
    }

    #[inline(always)]
    unsafe fn codes(block: *const u8) -> [__m512i; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c, d] = pairs(block.add(32));
            // Bit `2 k` for the lower half and `2 k + 1` for the upper half of register `k`.
            let thirds = twice::<1>(block);
            [
                with_bits(a, _mm512_slli_epi16::<2>(thirds), 4),
                with_bits(b, thirds, 4),
                with_bits(c, _mm512_srli_epi16::<2>(thirds), 4),
                with_bits(d, _mm512_srli_epi16::<4>(thirds), 4),
            ]
        }
    }
}

impl Registers for Q2K {
    type Header = [*const u8; GROUP];
    const OFFSET_BITS: Option<u32> = None;

    #[inline(always)]
    unsafe fn header(group: [*const u8; GROUP]) -> [*const u8; GROUP] {
        group
    }

    #[inline(always)]
    unsafe fn scales(_header: [*const u8; GROUP], _index: usize, block: *const u8) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let packed = _mm_loadu_si128(block.cast());
            _mm256_cvtepu8_epi16(_mm_and_si128(packed, _mm_set1_epi8(15)))
        }
    }

    #[inline(always)]
    unsafe fn codes(block: *const u8) -> [__m512i; 4] {
        // SAFETY: the caller's promise.
        unsafe { pairs(block.add(16)) }
    }

    #[inline(always)]
    unsafe fn factors(_header: [*const u8; GROUP], group: [*const u8; GROUP]) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let both = group.map(|block| block.add(80).cast::<i32>().read_unaligned());
            _mm256_cvtph_ps(_mm_setr_epi32(both[0], both[1], both[2], both[3]))
        }
    }

    #[inline(always)]
    unsafe fn minima(group: [*const u8; GROUP], x: &ActivationRow, first: usize) -> __m128i {
        // SAFETY: the caller's promise.
        unsafe {
            let mut products = [_mm512_setzero_si512(); GROUP];
            for (index, product) in products.iter_mut().enumerate() {
                let packed = _mm_loadu_si128(group[index].cast());
                let sums = x.sums.as_ptr().add(16 * (first + index));
                let sums = _mm256_loadu_si256(sums.cast());
                let mins = _mm_and_si128(_mm_srli_epi16::<4>(packed), _mm_set1_epi8(15));
                let sums = _mm256_madd_epi16(_mm256_cvtepu8_epi16(mins), sums);
                *product = _mm512_zextsi256_si512(sums);
            }
            add_lanes(transpose_sum(products))
        }
    }
}
