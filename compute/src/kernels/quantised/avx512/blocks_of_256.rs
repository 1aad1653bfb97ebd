//! Formats of 256-blocks, four blocks of a row at a time.
//!
//! Of a block, products of four codes fit 16 bits, so two registers of them are packed into one
//! and multiplied with their sub-blocks' scales while they are added up. Weights are unpacked once
//! for up to four rows of activations.

use std::arch::x86_64::*;

use super::transpose_sum;
use crate::kernels::quantised::blocks::{Format256, Q2K, Q3K, Q4K, Q5K, Q6K};
use crate::kernels::quantised::{ActivationRow, Row, ask_ahead, define_product};

/// Blocks whose sums are joined.
const GROUP: usize = 4;

/// A block as registers.
pub(super) struct Unpacked {
    /// The codes, none negative; in order, or crossed as [`ActivationRow::crossed`].
    codes: [__m512i; 4],
    /// The scales of sums of four products, when registers 0 and 1, and 2 and 3, are packed to 16
    /// bits: of each 128 bits the lower half is from the first register, the upper from the second.
    spread: [__m512i; 2],
    /// The scales, one for each 16 elements; used only where codes are above their value.
    scales: __m256i,
}

impl Unpacked {
    /// From codes in order and scales in order.
    ///
    /// # Safety
    /// The processor must have the features of this file.
    #[inline(always)]
    unsafe fn new(codes: [__m512i; 4], scales: __m256i) -> Unpacked {
        // SAFETY: the caller's promise; the tables are as long as registers.
        unsafe {
            let all = _mm512_castsi256_si512(scales);
            let low = _mm512_loadu_si512(SPREAD[0].as_ptr().cast());
            let high = _mm512_loadu_si512(SPREAD[1].as_ptr().cast());
            let low = _mm512_permutexvar_epi16(low, all);
            Unpacked { codes, spread: [low, _mm512_permutexvar_epi16(high, all)], scales }
        }
    }
}

/// A format as registers.
pub(super) trait Registers: Format256 {
    /// What is read of the four blocks together.
    type Header: Copy;
    /// By how much codes are above their value, as a power of two, if they are.
    const OFFSET_BITS: Option<u32>;
    /// Whether codes come crossed.
    const CROSSED: bool;

    /// Reads scales and minima.
    ///
    /// # Safety
    /// Each pointer is good for `BYTES` bytes, and the processor has the features of this file.
    unsafe fn header(group: [*const u8; GROUP]) -> Self::Header;

    /// Codes and scales of a block; `index` is 0 to 3.
    ///
    /// # Safety
    /// As for [`Registers::header`], whose result is given; `block` is that block.
    unsafe fn unpack(header: Self::Header, index: usize, block: *const u8) -> Unpacked;

    /// `d` of each block, and `dmin` where there are minima.
    ///
    /// # Safety
    /// As for [`Registers::header`].
    unsafe fn factors(header: Self::Header, group: [*const u8; GROUP]) -> [__m128; 2];

    /// `M` of each block; called only where there are minima.
    ///
    /// # Safety
    /// As for [`Registers::header`]; `x` has four blocks from `first` on.
    unsafe fn minima(header: Self::Header, x: &ActivationRow, first: usize) -> __m128i;
}

define_product!(
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
    BlockSize::K256, exponents: false, F: Registers
);

/// One row of weights times rows of activations.
///
/// # Safety
/// The processor must have the features; every `x` has at least as many blocks as `row`, rounded
/// up to whole groups.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
#[inline]
unsafe fn row_product<F: Registers, const N: usize>(row: Row, x: &[ActivationRow; N]) -> [f32; N] {
    let row = row.bytes;
    let blocks = row.len() / F::BYTES;
    let mut chains = [_mm_setzero_ps(); N];
    let mut first = 0;
    // SAFETY: each group is within the row.
    unsafe {
        while first + GROUP <= blocks {
            let start = row.as_ptr().add(first * F::BYTES);
            group::<F, N, GROUP>(start, x, first, &mut chains);
            first += GROUP;
        }
        let start = row.as_ptr().add(first * F::BYTES);
        match blocks - first {
            1 => group::<F, N, 1>(start, x, first, &mut chains),
            2 => group::<F, N, 2>(start, x, first, &mut chains),
            3 => group::<F, N, 3>(start, x, first, &mut chains),
            _ => {}
        }
    }
    let mut sums = [0.0; N];
    for (sum, chains) in sums.iter_mut().zip(chains) {
        // Chains 0 and 2, and 1 and 3, and then the two.
        let two = _mm_add_ps(chains, _mm_movehl_ps(chains, chains));
        *sum = _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
    sums
}

/// Adds the products of `COUNT` blocks, from block `first` on, to the chains.
///
/// # Safety
/// As for [`row_product`]; `start` is good for `COUNT` blocks, of which there is at least one.
#[inline(always)]
unsafe fn group<F: Registers, const N: usize, const COUNT: usize>(
    start: *const u8,
    x: &[ActivationRow; N],
    first: usize,
    chains: &mut [__m128; N],
) {
    ask_ahead(start, COUNT * F::BYTES);
    // SAFETY: the caller's promise.
    unsafe {
        // Blocks that are not there are the last one again; their sums go nowhere.
        let mut group = [start; GROUP];
        for (index, block) in group.iter_mut().enumerate() {
            *block = start.add(index.min(COUNT - 1) * F::BYTES);
        }
        let mut products = [[_mm512_setzero_si512(); GROUP]; N];
        let header = F::header(group);
        for index in 0..COUNT {
            let unpacked = F::unpack(header, index, group[index]);
            for (x, products) in x.iter().zip(&mut products) {
                products[index] = block_product::<F>(&unpacked, x, first + index);
            }
        }
        let [d, dmin] = F::factors(header, group);
        let there = ((1_u32 << COUNT) - 1) as __mmask8;
        for ((x, products), chains) in x.iter().zip(products).zip(chains) {
            let s = _mm_cvtepi32_ps(add_lanes(transpose_sum(products)));
            let d_x = _mm_loadu_ps(x.scales.as_ptr().add(first));
            *chains = _mm_fmadd_ps(_mm_maskz_mul_ps(there, d, d_x), s, *chains);
            if F::MINS {
                let m = _mm_cvtepi32_ps(F::minima(header, x, first));
                *chains = _mm_fnmadd_ps(_mm_maskz_mul_ps(there, dmin, d_x), m, *chains);
            }
        }
    }
}

/// Sixteen numbers whose sum is `S` of a block.
///
/// # Safety
/// As for [`row_product`]; `x` has the block `index`.
#[inline(always)]
unsafe fn block_product<F: Registers>(
    unpacked: &Unpacked,
    x: &ActivationRow,
    index: usize,
) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let codes = if F::CROSSED { x.crossed } else { x.codes };
        let mut fours = [_mm512_setzero_si512(); 4];
        for (part, four) in fours.iter_mut().enumerate() {
            let x = codes.as_ptr().add(index * 256 + part * 64);
            *four = _mm512_dpbusd_epi32(*four, unpacked.codes[part], _mm512_load_si512(x.cast()));
        }
        let low = _mm512_madd_epi16(_mm512_packs_epi32(fours[0], fours[1]), unpacked.spread[0]);
        let sum =
            _mm512_dpwssd_epi32(low, _mm512_packs_epi32(fours[2], fours[3]), unpacked.spread[1]);
        match F::OFFSET_BITS {
            None => sum,
            Some(bits) => {
                let sums = _mm256_loadu_si256(x.sums.as_ptr().add(index * 16).cast());
                let above = _mm256_sll_epi32(
                    _mm256_madd_epi16(unpacked.scales, sums),
                    _mm_cvtsi32_si128(bits.cast_signed()),
                );
                _mm512_sub_epi32(sum, _mm512_zextsi256_si512(above))
            }
        }
    }
}

/// Which of sixteen scales each pair of bytes takes, see [`Unpacked::spread`].
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
        let mut packed = 0_u64;
        for (index, block) in group.iter().enumerate() {
            packed |= u64::from(block.add(at).cast::<u16>().read_unaligned()) << (16 * index);
        }
        _mm_cvtph_ps(_mm_cvtsi64_si128(packed.cast_signed()))
    }
}

/// Nibbles of 128 bytes as `Q4_K` has them, crossed: of each 64 bytes first the low ones, which are
/// elements 0 to 31 and 64 to 95, then the high ones, the others of 128.
///
/// # Safety
/// The pointer must be good for 128 bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn crossed_nibbles(from: *const u8) -> [__m512i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm512_set1_epi8(15);
        let (a, b) = (_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(64).cast()));
        [
            _mm512_and_si512(a, low),
            _mm512_and_si512(_mm512_srli_epi16::<4>(a), low),
            _mm512_and_si512(b, low),
            _mm512_and_si512(_mm512_srli_epi16::<4>(b), low),
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
}

/// Which byte of a header each byte of [`Unpacked::spread`] is, when codes are crossed; 128 is zero.
static CROSSED_SPREAD: [[u8; 64]; 2] = {
    let mut spread = [[128; 64]; 2];
    let mut word = 0;
    while word < 64 {
        let (half, lane, second) = (word / 32, word % 32 / 8, word % 8 / 4);
        // Lanes 0 and 1 are of the sub-blocks 0 and 1 of four, lanes 2 and 3 of 2 and 3.
        spread[half][2 * (word % 32)] = (4 * half + 2 * (lane / 2) + second) as u8;
        word += 1;
    }
    spread
};

impl Header {
    /// # Safety
    /// Each pointer is good for 16 bytes, and the processor has the features of this file.
    #[inline(always)]
    unsafe fn read(group: [*const u8; GROUP]) -> Header {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b) = (_mm_loadu_si128(group[0].cast()), _mm_loadu_si128(group[1].cast()));
            let (c, d) = (_mm_loadu_si128(group[2].cast()), _mm_loadu_si128(group[3].cast()));
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
            Header { packed, bytes }
        }
    }

    /// The scales of block `index` for crossed codes.
    ///
    /// # Safety
    /// The processor must have the features of this file.
    #[inline(always)]
    unsafe fn spread(&self, index: usize) -> [__m512i; 2] {
        // SAFETY: the caller's promise; the tables are as long as registers.
        unsafe {
            // The sixteen bytes of the block in every lane.
            let bytes = match index {
                0 => _mm512_shuffle_i32x4::<0b00_00_00_00>(self.bytes, self.bytes),
                1 => _mm512_shuffle_i32x4::<0b01_01_01_01>(self.bytes, self.bytes),
                2 => _mm512_shuffle_i32x4::<0b10_10_10_10>(self.bytes, self.bytes),
                _ => _mm512_shuffle_i32x4::<0b11_11_11_11>(self.bytes, self.bytes),
            };
            let low = _mm512_loadu_si512(CROSSED_SPREAD[0].as_ptr().cast());
            let high = _mm512_loadu_si512(CROSSED_SPREAD[1].as_ptr().cast());
            [_mm512_shuffle_epi8(bytes, low), _mm512_shuffle_epi8(bytes, high)]
        }
    }

    /// `d` and `dmin` of each block.
    ///
    /// # Safety
    /// The processor must have the features of this file.
    #[inline(always)]
    unsafe fn factors(&self) -> [__m128; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            // The first two words of each lane.
            let places = _mm512_zextsi128_si512(_mm_setr_epi16(0, 8, 16, 24, 1, 9, 17, 25));
            let halves = _mm512_castsi512_si128(_mm512_permutexvar_epi16(places, self.packed));
            let both = _mm256_cvtph_ps(halves);
            [_mm256_castps256_ps128(both), _mm256_extractf128_ps::<1>(both)]
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
    ($codes:expr) => {
        type Header = Header;
        const OFFSET_BITS: Option<u32> = None;
        const CROSSED: bool = true;

        /// # Safety
        /// The caller's promise to [`Registers::header`].
        #[inline(always)]
        unsafe fn header(group: [*const u8; GROUP]) -> Header {
            // SAFETY: the caller's promise.
            unsafe { Header::read(group) }
        }

        /// # Safety
        /// The caller's promise to [`Registers::unpack`].
        #[inline(always)]
        unsafe fn unpack(header: Header, index: usize, block: *const u8) -> Unpacked {
            // SAFETY: the caller's promise.
            unsafe {
                let scales = _mm256_setzero_si256();
                Unpacked { codes: $codes(block), spread: header.spread(index), scales }
            }
        }

        /// # Safety
        /// The caller's promise to [`Registers::factors`].
        #[inline(always)]
        unsafe fn factors(header: Header, _group: [*const u8; GROUP]) -> [__m128; 2] {
            // SAFETY: the caller's promise.
            unsafe { header.factors() }
        }

        /// # Safety
        /// The caller's promise to [`Registers::minima`].
        #[inline(always)]
        unsafe fn minima(header: Header, x: &ActivationRow, first: usize) -> __m128i {
            // SAFETY: the caller's promise.
            unsafe { header.minima(x, first) }
        }
    };
}

impl Registers for Q4K {
    header_in_front!(q4_k_codes);
}

/// The codes of a block of `Q4_K`, crossed.
///
/// # Safety
/// The pointer must be good for 144 bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn q4_k_codes(block: *const u8) -> [__m512i; 4] {
    // SAFETY: the caller's promise.
    unsafe { crossed_nibbles(block.add(16)) }
}

impl Registers for Q5K {
    header_in_front!(q5_k_codes);
}

/// The codes of a block of `Q5_K`, crossed.
///
/// # Safety
/// The pointer must be good for 176 bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn q5_k_codes(block: *const u8) -> [__m512i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let [a, b, c, d] = crossed_nibbles(block.add(48));
        // Of each byte, bit `j` belongs to sub-block `j`: register `2 k + h` has in its lower half
        // sub-block `4 k + h` and in its upper half `4 k + h + 2`.
        let fifths = twice::<2>(block.add(16));
        [
            with_bits(a, _mm512_slli_epi16::<4>(fifths), 16),
            with_bits(b, _mm512_slli_epi16::<3>(fifths), 16),
            with_bits(c, fifths, 16),
            with_bits(d, _mm512_srli_epi16::<1>(fifths), 16),
        ]
    }
}

/// The functions of formats without minima, whose only header is `d`.
macro_rules! no_minima {
    ($d:literal, $scales:ident, $codes:ident) => {
        type Header = ();
        const CROSSED: bool = false;

        /// # Safety
        /// The caller's promise to [`Registers::header`].
        #[inline(always)]
        unsafe fn header(_group: [*const u8; GROUP]) {}

        /// # Safety
        /// The caller's promise to [`Registers::unpack`].
        #[inline(always)]
        unsafe fn unpack((): (), _index: usize, block: *const u8) -> Unpacked {
            // SAFETY: the caller's promise.
            unsafe { Unpacked::new($codes(block), $scales(block)) }
        }

        /// # Safety
        /// The caller's promise to [`Registers::factors`].
        #[inline(always)]
        unsafe fn factors((): (), group: [*const u8; GROUP]) -> [__m128; 2] {
            // SAFETY: the caller's promise.
            unsafe { [halves(group, $d), _mm_setzero_ps()] }
        }

        /// # Safety
        /// The caller's promise to [`Registers::minima`].
        #[inline(always)]
        unsafe fn minima((): (), _x: &ActivationRow, _first: usize) -> __m128i {
            // SAFETY: the caller's promise.
            unsafe { _mm_setzero_si128() }
        }
    };
}

impl Registers for Q6K {
    no_minima!(208, q6_k_scales, q6_k_codes);

    const OFFSET_BITS: Option<u32> = Some(5);
}

/// # Safety
/// The pointer must be good for 210 bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn q6_k_scales(block: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(block.add(192).cast())) }
}

/// # Safety
/// The pointer must be good for 192 bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn q6_k_codes(block: *const u8) -> [__m512i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let ([a, b], [c, d]) = (half_of_q6_k(block, 0), half_of_q6_k(block, 1));
        [a, b, c, d]
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
    no_minima!(108, q3_k_scales, q3_k_codes);

    const OFFSET_BITS: Option<u32> = Some(2);
}

/// # Safety
/// The pointer must be good for 110 bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn q3_k_scales(block: *const u8) -> __m256i {
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
        let pairs = _mm_srlv_epi32(_mm_set1_epi32(high.cast_signed()), _mm_setr_epi32(0, 2, 4, 6));
        let pairs = _mm_slli_epi32::<4>(_mm_and_si128(pairs, _mm_set1_epi8(3)));
        let scales = _mm_sub_epi8(_mm_or_si128(nibbles, pairs), _mm_set1_epi8(32));
        _mm256_cvtepi8_epi16(scales)
    }
}

/// # Safety
/// The pointer must be good for 96 bytes, and the processor have the features of this file.
#[inline(always)]
unsafe fn q3_k_codes(block: *const u8) -> [__m512i; 4] {
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

impl Registers for Q2K {
    type Header = [*const u8; GROUP];
    const OFFSET_BITS: Option<u32> = None;
    const CROSSED: bool = false;

    #[inline(always)]
    unsafe fn header(group: [*const u8; GROUP]) -> [*const u8; GROUP] {
        group
    }

    #[inline(always)]
    unsafe fn unpack(_header: [*const u8; GROUP], _index: usize, block: *const u8) -> Unpacked {
        // SAFETY: the caller's promise.
        unsafe {
            let packed = _mm_loadu_si128(block.cast());
            let scales = _mm256_cvtepu8_epi16(_mm_and_si128(packed, _mm_set1_epi8(15)));
            Unpacked::new(pairs(block.add(16)), scales)
        }
    }

    #[inline(always)]
    unsafe fn factors(_header: [*const u8; GROUP], group: [*const u8; GROUP]) -> [__m128; 2] {
        // SAFETY: the caller's promise.
        unsafe { [halves(group, 80), halves(group, 82)] }
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
