//! Stored blocks to quads of codes: one function a format, over a register of rows.
//!
//! Rows are brought into lanes while their codes are still packed, so that few words are moved;
//! then a mask or a shift unpacks a quad of every row at once. Codes come out unsigned, as far above
//! their value as the format's [`Layout::offset`] says. Where they go is the caller's: into a tile,
//! or from the registers into products. The layouts of blocks are those of `super::super::blocks`,
//! whose plain readers are the test of this file.

use super::super::Row;
use super::super::blocks::{E2M1_DOUBLED, IQ4_LEVELS, half_of_exponent};
use super::lanes::{Lanes, Pointers};
use super::tile::{Layout, ROWS};
use crate::quant::Dtype;

const NIBBLES: u32 = 0x0f0f_0f0f;
const PAIRS: u32 = 0x0303_0303;
const BITS: u32 = 0x0101_0101;

/// A block for each of some numbers, which are constants in it: shifts by a constant are faster,
/// and what a loop would keep in memory stays in registers.
macro_rules! unrolled {
    ($name:ident in [$($value:literal),*] $body:block) => {
        $({
            const $name: usize = $value;
            $body
        })*
    };
}

/// How a format is unpacked; `None` where it has no integer kernel.
pub(super) const fn layout(dtype: Dtype) -> Option<Layout> {
    // The last number: 32,767 / (2 · largest code · 127).
    let (elements, parts, offset, quads_in_16_bits) = match dtype {
        Dtype::Q2K => (256, 16, 0, 4),
        Dtype::Q3K => (256, 16, 4, 4),
        Dtype::Q4K => (256, 8, 0, 8),
        Dtype::Q5K => (256, 8, 0, 4),
        Dtype::Q6K => (256, 16, 32, 2),
        Dtype::Iq4Xs => (256, 8, 128, 0),
        Dtype::Q4_0 => (32, 1, 8, 8),
        Dtype::Q4_1 => (32, 1, 0, 8),
        Dtype::Q5_0 => (32, 1, 16, 4),
        Dtype::Q5_1 => (32, 1, 0, 4),
        Dtype::MxFp4 | Dtype::E2M1 => (32, 1, 16, 4),
        Dtype::Q8_0 | Dtype::Iq4Nl => (32, 1, 128, 0),
        _ => return None,
    };
    Some(Layout { elements, parts, offset, quads_in_16_bits })
}

/// Where unpacked blocks go.
pub(super) trait Destination<V: Lanes> {
    /// The place of one block of as many rows as a register has lanes.
    type Block<'d>: BlockSink<V>
    where
        Self: 'd;

    /// The place of the block `index`, of so many bytes, of the rows that lie in the lanes from `lane` on.
    fn block<const BYTES: usize, const QUADS: usize, const PARTS: usize>(
        &mut self,
        index: usize,
        lane: usize,
    ) -> Self::Block<'_>;
}

/// Takes one block: what is asked for below in this order, then the end.
///
/// # Safety
/// The processor must have the instructions that `V` stands for.
pub(super) trait BlockSink<V: Lanes> {
    /// The floating scale.
    unsafe fn scale(&mut self, d: V);
    /// The floating factor of the minima, with its sign (formats with minima).
    unsafe fn minimum(&mut self, m: V);
    /// Parts' integer minima or, in formats without, scales: two to a word, the first in the lower
    /// half (blocks of several parts).
    unsafe fn pairs<const PAIRS: usize>(&mut self, pairs: [V; PAIRS]);
    /// The codes of a part, the first of a quad lowest, and its integer scale, signed.
    unsafe fn part<const QUADS: usize>(&mut self, part: usize, scale: V, codes: [V; QUADS]);
    /// The codes of a block of one part.
    unsafe fn whole(&mut self, codes: [V; 8]);
    /// Nothing more comes; the format's parts, minima and offset.
    unsafe fn end<const PARTS: usize, const MINIMA: bool>(self, offset: u32);
}

/// Unpacks blocks `first .. first + blocks` of [`ROWS`] rows; panics if a row is too short.
///
/// # Safety
/// The processor must have the instructions that `V` stands for.
#[inline(always)]
pub(super) unsafe fn unpack<V: Lanes, D: Destination<V>>(
    dtype: Dtype,
    rows: &[Row<'_>; ROWS],
    first: usize,
    blocks: usize,
    destination: &mut D,
) {
    let bytes = dtype.block().1;
    let whole = |row: &Row| {
        let exponents = dtype != Dtype::E2M1 || row.exponents.len() >= first + blocks;
        row.bytes.len() >= (first + blocks) * bytes && exponents
    };
    assert!(rows.iter().all(whole), "rows without those blocks");
    // One function a format, inlined into the loops over registers of rows and over blocks.
    macro_rules! each {
        ($format:ident, $read:ident) => {{
            const LAYOUT: Layout = layout(Dtype::$format).expect("a format with an integer kernel");
            for (group, whole) in rows.chunks_exact(V::COUNT).enumerate() {
                let mut starts: Pointers = [std::ptr::null(); 16];
                for (start, row) in starts.iter_mut().zip(whole) {
                    *start = row.bytes.as_ptr();
                }
                for index in 0..blocks {
                    let source = Source {
                        rows: &starts,
                        at: (first + index) * bytes,
                        whole,
                        block: first + index,
                    };
                    const QUADS: usize = LAYOUT.quads();
                    const BYTES: usize = Dtype::$format.block().1;
                    let lane = group * V::COUNT;
                    let mut block =
                        destination.block::<BYTES, QUADS, { LAYOUT.parts }>(index, lane);
                    // SAFETY: every row is as long as the blocks, and the functions read nothing
                    // beyond one; the instructions are the caller's promise.
                    unsafe {
                        $read::<V>(&source, &mut block);
                        block.end::<{ LAYOUT.parts }, { LAYOUT.minima() }>(LAYOUT.offset);
                    }
                }
            }
        }};
    }
    match dtype {
        Dtype::Q2K => each!(Q2K, q2_k),
        Dtype::Q3K => each!(Q3K, q3_k),
        Dtype::Q4K => each!(Q4K, q4_k),
        Dtype::Q5K => each!(Q5K, q5_k),
        Dtype::Q6K => each!(Q6K, q6_k),
        Dtype::Iq4Xs => each!(Iq4Xs, iq4_xs),
        Dtype::Q4_0 => each!(Q4_0, q4_0),
        Dtype::Q4_1 => each!(Q4_1, q4_1),
        Dtype::Q5_0 => each!(Q5_0, q5_0),
        Dtype::Q5_1 => each!(Q5_1, q5_1),
        Dtype::Q8_0 => each!(Q8_0, q8_0),
        Dtype::Iq4Nl => each!(Iq4Nl, iq4_nl),
        Dtype::MxFp4 => each!(MxFp4, mxfp4),
        Dtype::E2M1 => each!(E2M1, e2m1),
        other => panic!("{other} has no integer kernel"),
    }
}

/// The rows of one register, at one block.
struct Source<'s> {
    /// Where each row begins.
    rows: &'s Pointers,
    /// Where the block begins in them.
    at: usize,
    /// The rows again, for what does not lie in their bytes.
    whole: &'s [Row<'s>],
    /// The block's place in its row.
    block: usize,
}

impl Source<'_> {
    /// Sixteen bytes of the block as four words a row.
    ///
    /// # Safety
    /// The processor must have this variant's instructions; pointers, what is read through them.
    #[inline(always)]
    unsafe fn words_4<V: Lanes>(&self, at: usize) -> [V; 4] {
        // SAFETY: the caller's promise.
        unsafe { V::words_4(self.rows, self.at + at) }
    }

    /// Four bytes of the block.
    ///
    /// # Safety
    /// The processor must have this variant's instructions; pointers, what is read through them.
    #[inline(always)]
    unsafe fn word<V: Lanes>(&self, at: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::word(self.rows, self.at + at) }
    }

    /// Two bytes of the block as a binary16, widened.
    ///
    /// # Safety
    /// The processor must have this variant's instructions; pointers, what is read through them.
    #[inline(always)]
    unsafe fn half<V: Lanes>(&self, at: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::half_word(self.rows, self.at + at).widen_half() }
    }
}

/// `word` with every bit of `mask`, after a shift down.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn field<V: Lanes>(word: V, shift: u32, mask: u32) -> V {
    // SAFETY: the caller's promise, here and in the functions below: `V` may be used.
    unsafe { word.shr(shift).and(V::splat(mask)) }
}

/// Four bits of each byte of eight words, from the bit `shift` on.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn nibbles_8<V: Lanes>(words: [[V; 4]; 2], shift: u32) -> [V; 8] {
    // SAFETY: as above.
    unsafe {
        let mut codes = [V::splat(0); 8];
        for (index, code) in codes.iter_mut().enumerate() {
            *code = field(words[index / 4][index % 4], shift, NIBBLES);
        }
        codes
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q4_k<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 144 bytes a block; `V` may be used.
    unsafe {
        let scales = k_header(block, source.words_4(0));
        for group in 0..4 {
            let at = 16 + 32 * group;
            let words = [source.words_4::<V>(at), source.words_4(at + 16)];
            unrolled!(HIGH in [0, 1] {
                let part = 2 * group + HIGH;
                block.part(part, scales[part], nibbles_8(words, 4 * HIGH as u32));
            });
        }
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q5_k<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 176 bytes a block; `V` may be used.
    unsafe {
        let scales = k_header(block, source.words_4(0));
        let fifths: [[V; 4]; 2] = [source.words_4(16), source.words_4(32)];
        for group in 0..4 {
            let at = 48 + 32 * group;
            let words = [source.words_4::<V>(at), source.words_4(at + 16)];
            unrolled!(HIGH in [0, 1] {
                let mut codes = nibbles_8(words, 4 * HIGH as u32);
                for (index, code) in codes.iter_mut().enumerate() {
                    let fifth = fifths[index / 4][index % 4];
                    let fifth = field(fifth, (2 * group + HIGH) as u32, BITS).shl(4);
                    *code = code.or(fifth);
                }
                let part = 2 * group + HIGH;
                block.part(part, scales[part], codes);
            });
        }
    }
}

/// Hands over scales and minima of `Q4_K` and `Q5_K`, from the first sixteen bytes; returns the
/// integer scales.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn k_header<V: Lanes>(
    block: &mut impl BlockSink<V>,
    [floats, low, middle, high]: [V; 4],
) -> [V; 8] {
    // SAFETY: `V` may be used.
    unsafe {
        block.scale(floats.widen_half());
        block.minimum(floats.shr(16).widen_half().xor(V::splat(1 << 31)));
        let (mut scales, mut minima) = ([V::splat(0); 8], [V::splat(0); 8]);
        for j in 0..4 {
            let shift = 8 * j as u32;
            scales[j] = field(low, shift, 63);
            minima[j] = field(middle, shift, 63);
            let (upper, upper_minimum) = (field(low, shift + 6, 3), field(middle, shift + 6, 3));
            scales[j + 4] = field(high, shift, 15).or(upper.shl(4));
            minima[j + 4] = field(high, shift + 4, 15).or(upper_minimum.shl(4));
        }
        let mut pairs = [V::splat(0); 4];
        for (index, pair) in pairs.iter_mut().enumerate() {
            *pair = minima[2 * index].or(minima[2 * index + 1].shl(16));
        }
        block.pairs(pairs);
        scales
    }
}

/// Signed integer scales, two to a word.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn paired<V: Lanes, const PAIRS: usize>(scales: &[V]) -> [V; PAIRS] {
    // SAFETY: `V` may be used.
    unsafe {
        let mut pairs = [V::splat(0); PAIRS];
        for (index, pair) in pairs.iter_mut().enumerate() {
            let first = scales[2 * index].and(V::splat(0xffff));
            *pair = first.or(scales[2 * index + 1].shl(16));
        }
        pairs
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q2_k<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 84 bytes a block; `V` may be used.
    unsafe {
        let floats = source.word::<V>(80);
        block.scale(floats.widen_half());
        block.minimum(floats.shr(16).widen_half().xor(V::splat(1 << 31)));
        let packed = source.words_4::<V>(0);
        let (mut scales, mut minima) = ([V::splat(0); 16], [V::splat(0); 8]);
        for j in 0..8 {
            let (word, shift) = (packed[j / 2], 16 * (j % 2) as u32);
            scales[2 * j] = field(word, shift, 15);
            scales[2 * j + 1] = field(word, shift + 8, 15);
            minima[j] = field(word, shift + 4, 15).or(field(word, shift + 12, 15).shl(16));
        }
        block.pairs(minima);
        for half in 0..2 {
            for piece in 0..2 {
                let words = source.words_4::<V>(16 + 32 * half + 16 * piece);
                unrolled!(K in [0, 1, 2, 3] {
                    let mut codes = words;
                    for code in &mut codes {
                        *code = field(*code, 2 * K as u32, PAIRS);
                    }
                    let part = 8 * half + 2 * K + piece;
                    block.part(part, scales[part], codes);
                });
            }
        }
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q3_k<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 110 bytes a block; `V` may be used.
    unsafe {
        block.scale(source.half(108));
        let packed = [source.word::<V>(96), source.word::<V>(100), source.word::<V>(104)];
        let mut scales = [V::splat(0); 16];
        for (j, scale) in scales.iter_mut().enumerate() {
            let low = field(packed[j % 8 / 4], (8 * (j % 4) + j / 8 * 4) as u32, 15);
            let high = field(packed[2], (8 * (j % 4) + j / 4 * 2) as u32, 3);
            *scale = low.or(high.shl(4)).sub(V::splat(32));
        }
        block.pairs::<8>(paired(&scales));
        let thirds = [source.words_4::<V>(0), source.words_4::<V>(16)];
        for half in 0..2 {
            for (piece, thirds) in thirds.iter().enumerate() {
                let words = source.words_4::<V>(32 + 32 * half + 16 * piece);
                unrolled!(K in [0, 1, 2, 3] {
                    let mut codes = words;
                    for (code, &third) in codes.iter_mut().zip(thirds) {
                        let third = field(third, (4 * half + K) as u32, BITS).shl(2);
                        *code = field(*code, 2 * K as u32, PAIRS).or(third);
                    }
                    let part = 8 * half + 2 * K + piece;
                    block.part(part, scales[part], codes);
                });
            }
        }
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q6_k<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 210 bytes a block; `V` may be used.
    unsafe {
        block.scale(source.half(208));
        let packed = source.words_4::<V>(192);
        let mut scales = [V::splat(0); 16];
        for (j, scale) in scales.iter_mut().enumerate() {
            let byte = field(packed[j / 4], 8 * (j % 4) as u32, 255);
            *scale = byte.xor(V::splat(128)).sub(V::splat(128));
        }
        block.pairs::<8>(paired(&scales));
        for half in 0..2 {
            for piece in 0..2 {
                let uppers = source.words_4::<V>(128 + 32 * half + 16 * piece);
                let nibbles = [
                    source.words_4::<V>(64 * half + 16 * piece),
                    source.words_4::<V>(64 * half + 32 + 16 * piece),
                ];
                unrolled!(K in [0, 1, 2, 3] {
                    let mut codes = nibbles[K % 2];
                    for (code, &upper) in codes.iter_mut().zip(&uppers) {
                        let upper = field(upper, 2 * K as u32, PAIRS).shl(4);
                        *code = field(*code, (K / 2 * 4) as u32, NIBBLES).or(upper);
                    }
                    let part = 8 * half + 2 * K + piece;
                    block.part(part, scales[part], codes);
                });
            }
        }
    }
}

/// The levels of `IQ4_NL` and `IQ4_XS`, 128 above their value.
const IQ4_SHIFTED: [u8; 16] = shifted(IQ4_LEVELS, 128);
/// The doubled numbers of E2M1, 16 above their value.
const E2M1_SHIFTED: [u8; 16] = shifted(E2M1_DOUBLED, 16);

const fn shifted(levels: [i8; 16], offset: i16) -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut index = 0;
    while index < 16 {
        bytes[index] = (levels[index] as i16 + offset) as u8;
        index += 1;
    }
    bytes
}

/// Codes of nibbles by a table.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn looked_up<V: Lanes>(mut codes: [V; 8], table: &[u8; 16]) -> [V; 8] {
    // SAFETY: `V` may be used.
    unsafe {
        for code in &mut codes {
            *code = code.look_up(table);
        }
        codes
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn iq4_xs<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 136 bytes a block; `V` may be used.
    unsafe {
        let head = source.word::<V>(0);
        block.scale(head.widen_half());
        let (high, low) = (head.shr(16), source.word::<V>(4));
        let mut scales = [V::splat(0); 8];
        for (j, scale) in scales.iter_mut().enumerate() {
            let upper = field(high, 2 * j as u32, 3).shl(4);
            *scale = field(low, 4 * j as u32, 15).or(upper).sub(V::splat(32));
        }
        block.pairs::<4>(paired(&scales));
        for (j, scale) in scales.into_iter().enumerate() {
            let codes = nibbles(source.words_4(8 + 16 * j));
            block.part(j, scale, looked_up(codes, &IQ4_SHIFTED));
        }
    }
}

/// Eight quads from the nibbles of four: low ones are the first 16 codes.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn nibbles<V: Lanes>(words: [V; 4]) -> [V; 8] {
    // SAFETY: `V` may be used.
    unsafe {
        let mut codes = [V::splat(0); 8];
        for (index, &word) in words.iter().enumerate() {
            codes[index] = field(word, 0, NIBBLES);
            codes[index + 4] = field(word, 4, NIBBLES);
        }
        codes
    }
}

/// Nibbles with their fifth bits, which are those of one word.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn with_fifths<V: Lanes>(words: [V; 4], fifths: V) -> [V; 8] {
    // SAFETY: `V` may be used.
    unsafe {
        let mut codes = nibbles(words);
        for (index, code) in codes.iter_mut().enumerate() {
            // Four bits, seven places apart: bit `k` reaches byte `k`, and nothing overlaps.
            let four = field(fifths, 4 * index as u32, 15).mul(V::splat(0x0020_4081));
            *code = code.or(field(four, 0, BITS).shl(4));
        }
        codes
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q4_0<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 18 bytes a block; `V` may be used.
    unsafe {
        block.scale(source.half(0));
        block.whole(nibbles(source.words_4(2)));
    }
}

/// Scale and minimum of `Q4_1` and `Q5_1`.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn scale_and_minimum<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: as the callers'; `V` may be used.
    unsafe {
        let floats = source.word::<V>(0);
        block.scale(floats.widen_half());
        block.minimum(floats.shr(16).widen_half());
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q4_1<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 20 bytes a block; `V` may be used.
    unsafe {
        scale_and_minimum(source, block);
        block.whole(nibbles(source.words_4(4)));
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q5_0<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 22 bytes a block; `V` may be used.
    unsafe {
        block.scale(source.half(0));
        block.whole(with_fifths(source.words_4(6), source.word(2)));
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q5_1<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 24 bytes a block; `V` may be used.
    unsafe {
        scale_and_minimum(source, block);
        block.whole(with_fifths(source.words_4(8), source.word(4)));
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q8_0<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 34 bytes a block; `V` may be used.
    unsafe {
        block.scale(source.half(0));
        let words = [source.words_4::<V>(2), source.words_4::<V>(18)];
        let mut codes = [V::splat(0); 8];
        for (index, code) in codes.iter_mut().enumerate() {
            *code = words[index / 4][index % 4].xor(V::splat(128 * BITS));
        }
        block.whole(codes);
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn iq4_nl<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 18 bytes a block; `V` may be used.
    unsafe {
        block.scale(source.half(0));
        block.whole(looked_up(nibbles(source.words_4(2)), &IQ4_SHIFTED));
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn mxfp4<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 17 bytes a block; `V` may be used.
    unsafe {
        let exponent = |lane: usize| source.rows[lane].add(source.at).read();
        block.scale(V::from_fn(|lane| half_of_exponent(exponent(lane)).to_bits()));
        block.whole(looked_up(nibbles(source.words_4(1)), &E2M1_SHIFTED));
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn e2m1<V: Lanes>(source: &Source<'_>, block: &mut impl BlockSink<V>) {
    // SAFETY: 16 bytes a block; `V` may be used.
    unsafe {
        let exponent = |lane: usize| source.whole[lane].exponents[source.block];
        block.scale(V::from_fn(|lane| half_of_exponent(exponent(lane)).to_bits()));
        let mut codes = [V::splat(0); 8];
        for (index, &word) in source.words_4::<V>(0).iter().enumerate() {
            // Two bytes spread over four, then each pair of nibbles over its pair of bytes.
            for (upper, shift) in [0, 16].into_iter().enumerate() {
                let two = field(word, shift, 0xffff);
                let two = two.or(two.shl(8)).and(V::splat(0x00ff_00ff));
                codes[2 * index + upper] = two.or(two.shl(4)).and(V::splat(NIBBLES));
            }
        }
        block.whole(looked_up(codes, &E2M1_SHIFTED));
    }
}
