//! Stored blocks to tiles: one function a format, over as many rows as a register has lanes.
//!
//! Rows are brought into lanes while their codes are still packed, so that few words are moved;
//! then a mask or a shift unpacks a quad of every row at once. The layouts are those of
//! `super::super::blocks`, whose plain readers are the test of this file.

use super::super::Row;
use super::super::blocks::{E2M1_DOUBLED, IQ4_LEVELS, half_of_exponent};
use super::lanes::{Lanes, Pointers};
use super::tile::{BlockLines, Layout, ROWS, Tile};
use crate::quant::Dtype;

const NIBBLES: u32 = 0x0f0f_0f0f;
const PAIRS: u32 = 0x0303_0303;
const BITS: u32 = 0x0101_0101;

/// How a format is unpacked; `None` where it has no integer kernel.
pub(super) fn layout(dtype: Dtype) -> Option<Layout> {
    let layout = |elements, parts, minima, quads_in_16_bits| {
        Some(Layout { elements, parts, minima, quads_in_16_bits })
    };
    // The last number: 32,767 / (2 · largest code · 127 with minima, 255 without).
    match dtype {
        Dtype::Q2K => layout(256, 16, true, 4),
        Dtype::Q3K => layout(256, 16, false, 4),
        Dtype::Q4K => layout(256, 8, true, 8),
        Dtype::Q5K => layout(256, 8, true, 4),
        Dtype::Q6K => layout(256, 16, false, 2),
        Dtype::Iq4Xs => layout(256, 8, false, 0),
        Dtype::Q4_0 => layout(32, 1, false, 8),
        Dtype::Q4_1 => layout(32, 1, true, 8),
        Dtype::Q5_0 => layout(32, 1, false, 4),
        Dtype::Q5_1 => layout(32, 1, true, 4),
        Dtype::MxFp4 | Dtype::E2M1 => layout(32, 1, false, 4),
        Dtype::Q8_0 | Dtype::Iq4Nl => layout(32, 1, false, 0),
        _ => None,
    }
}

/// Unpacks blocks `first .. first + blocks` of [`ROWS`] rows into a tile; panics if a row is too
/// short.
///
/// # Safety
/// The processor must have the instructions that `V` stands for.
#[inline(always)]
pub(super) unsafe fn unpack<V: Lanes>(
    dtype: Dtype,
    rows: &[Row<'_>; ROWS],
    first: usize,
    blocks: usize,
    tile: &mut Tile,
) {
    let layout = layout(dtype).expect("a format with an integer kernel");
    let bytes = dtype.block().1;
    let whole = |row: &Row| {
        let exponents = dtype != Dtype::E2M1 || row.exponents.len() >= first + blocks;
        row.bytes.len() >= (first + blocks) * bytes && exponents
    };
    assert!(rows.iter().all(whole), "rows without those blocks");
    tile.fit(layout, blocks);
    // One function a format, inlined into the loops over registers of rows and over blocks.
    macro_rules! each {
        ($quads:literal, $parts:literal, $read:ident) => {
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
                        lane: group * V::COUNT,
                    };
                    // SAFETY: every row is as long as the blocks, and the functions read nothing
                    // beyond one; the instructions are the caller's promise.
                    unsafe { $read::<V>(&source, tile.block::<$quads, $parts>(index)) };
                }
            }
        };
    }
    match dtype {
        Dtype::Q2K => each!(64, 16, q2_k),
        Dtype::Q3K => each!(64, 16, q3_k),
        Dtype::Q4K => each!(64, 8, q4_k),
        Dtype::Q5K => each!(64, 8, q5_k),
        Dtype::Q6K => each!(64, 16, q6_k),
        Dtype::Iq4Xs => each!(64, 8, iq4_xs),
        Dtype::Q4_0 => each!(8, 0, q4_0),
        Dtype::Q4_1 => each!(8, 0, q4_1),
        Dtype::Q5_0 => each!(8, 0, q5_0),
        Dtype::Q5_1 => each!(8, 0, q5_1),
        Dtype::Q8_0 => each!(8, 0, q8_0),
        Dtype::Iq4Nl => each!(8, 0, iq4_nl),
        Dtype::MxFp4 => each!(8, 0, mxfp4),
        Dtype::E2M1 => each!(8, 0, e2m1),
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
    /// The lane of the tile in which the first of the rows lies.
    lane: usize,
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

/// Codes stored `offset` above their value as signed bytes; `offset + 127` is at least the largest.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn signed<V: Lanes>(codes: V, offset: u32) -> V {
    // SAFETY: as above. No byte overflows: they are brought to 128 above their value.
    unsafe { codes.add(V::splat((128 - offset) * BITS)).xor(V::splat(128 * BITS)) }
}

/// What integer sums of a block begin with, given `Σ scale · code`.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn start<V: Lanes>(sum: V) -> V {
    // SAFETY: as above.
    unsafe { V::splat(0).sub(sum.shl(7)) }
}

/// Stores the codes of a sub-block of 16, stored `offset` above their value and below 64, and
/// returns the sum of their values times a scale.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn store_16<V: Lanes>(
    source: &Source<'_>,
    lines: &mut BlockLines<'_>,
    quad: usize,
    codes: [V; 4],
    offset: u32,
    scale: V,
) -> V {
    // SAFETY: as above. Four bytes below 64 add up within a byte.
    unsafe {
        for (index, &code) in codes.iter().enumerate() {
            signed(code, offset).store(&mut lines.codes[quad + index], source.lane);
        }
        let sum = codes[0].add(codes[1]).add(codes[2].add(codes[3])).sum_bytes();
        sum.sub(V::splat(16 * offset)).mul(scale)
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q4_k<V: Lanes>(source: &Source<'_>, lines: BlockLines<'_>) {
    // SAFETY: 144 bytes a block; `V` may be used.
    unsafe {
        let header = source.words_4::<V>(0);
        let lines = k_header(source, lines, header);
        for group in 0..4 {
            for piece in 0..2 {
                let words = source.words_4::<V>(16 + 32 * group + 16 * piece);
                for (index, &word) in words.iter().enumerate() {
                    let quad = 16 * group + 4 * piece + index;
                    field(word, 0, NIBBLES).store(&mut lines.codes[quad], source.lane);
                    field(word, 4, NIBBLES).store(&mut lines.codes[quad + 8], source.lane);
                }
            }
        }
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q5_k<V: Lanes>(source: &Source<'_>, lines: BlockLines<'_>) {
    // SAFETY: 176 bytes a block; `V` may be used.
    unsafe {
        let header = source.words_4::<V>(0);
        let lines = k_header(source, lines, header);
        let fifths = [source.words_4::<V>(16), source.words_4::<V>(32)];
        for group in 0..4 {
            for (piece, fifths) in fifths.iter().enumerate() {
                let words = source.words_4::<V>(48 + 32 * group + 16 * piece);
                for (index, &word) in words.iter().enumerate() {
                    for high in 0..2 {
                        let fifth = field(fifths[index], (2 * group + high) as u32, BITS).shl(4);
                        let code = field(word, 4 * high as u32, NIBBLES).or(fifth);
                        let quad = 16 * group + 8 * high + 4 * piece + index;
                        code.store(&mut lines.codes[quad], source.lane);
                    }
                }
            }
        }
    }
}

/// Scales and minima of `Q4_K` and `Q5_K`, from the first sixteen bytes.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn k_header<'t, V: Lanes>(
    source: &Source<'_>,
    lines: BlockLines<'t>,
    [floats, low, middle, high]: [V; 4],
) -> BlockLines<'t> {
    // SAFETY: `V` may be used.
    unsafe {
        floats.widen_half().store(lines.d, source.lane);
        let minimum = floats.shr(16).widen_half();
        minimum.xor(V::splat(1 << 31)).store(lines.m, source.lane);
        let (mut scales, mut minima) = ([V::splat(0); 8], [V::splat(0); 8]);
        for j in 0..4 {
            let shift = 8 * j as u32;
            scales[j] = field(low, shift, 63);
            minima[j] = field(middle, shift, 63);
            let (upper, upper_minimum) = (field(low, shift + 6, 3), field(middle, shift + 6, 3));
            scales[j + 4] = field(high, shift, 15).or(upper.shl(4));
            minima[j + 4] = field(high, shift + 4, 15).or(upper_minimum.shl(4));
        }
        for (scale, line) in scales.into_iter().zip(lines.scales.iter_mut()) {
            scale.store(line, source.lane);
        }
        for j in 0..4 {
            minima[2 * j].or(minima[2 * j + 1].shl(16)).store(&mut lines.minima[j], source.lane);
        }
        lines
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q2_k<V: Lanes>(source: &Source<'_>, lines: BlockLines<'_>) {
    // SAFETY: 84 bytes a block; `V` may be used.
    unsafe {
        let floats = source.word::<V>(80);
        floats.widen_half().store(lines.d, source.lane);
        let minimum = floats.shr(16).widen_half();
        minimum.xor(V::splat(1 << 31)).store(lines.m, source.lane);
        let packed = source.words_4::<V>(0);
        for j in 0..8 {
            let (word, shift) = (packed[j / 2], 16 * (j % 2) as u32);
            field(word, shift, 15).store(&mut lines.scales[2 * j], source.lane);
            field(word, shift + 8, 15).store(&mut lines.scales[2 * j + 1], source.lane);
            let pair = field(word, shift + 4, 15).or(field(word, shift + 12, 15).shl(16));
            pair.store(&mut lines.minima[j], source.lane);
        }
        for half in 0..2 {
            for piece in 0..2 {
                let words = source.words_4::<V>(16 + 32 * half + 16 * piece);
                for (index, &word) in words.iter().enumerate() {
                    for k in 0..4 {
                        let quad = 32 * half + 8 * k + 4 * piece + index;
                        let code = field(word, 2 * k as u32, PAIRS);
                        code.store(&mut lines.codes[quad], source.lane);
                    }
                }
            }
        }
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q3_k<V: Lanes>(source: &Source<'_>, mut lines: BlockLines<'_>) {
    // SAFETY: 110 bytes a block; `V` may be used.
    unsafe {
        source.half::<V>(108).store(lines.d, source.lane);
        let packed = [source.word::<V>(96), source.word::<V>(100), source.word::<V>(104)];
        let mut scales = [V::splat(0); 16];
        for (j, scale) in scales.iter_mut().enumerate() {
            let low = field(packed[j % 8 / 4], (8 * (j % 4) + j / 8 * 4) as u32, 15);
            let high = field(packed[2], (8 * (j % 4) + j / 4 * 2) as u32, 3);
            *scale = low.or(high.shl(4)).sub(V::splat(32));
            scale.store(&mut lines.scales[j], source.lane);
        }
        let thirds = [source.words_4::<V>(0), source.words_4::<V>(16)];
        let mut sum = V::splat(0);
        for half in 0..2 {
            for (piece, thirds) in thirds.iter().enumerate() {
                let words = source.words_4::<V>(32 + 32 * half + 16 * piece);
                for k in 0..4 {
                    let mut codes = words;
                    for (code, &third) in codes.iter_mut().zip(thirds) {
                        let third = field(third, (4 * half + k) as u32, BITS).shl(2);
                        *code = field(*code, 2 * k as u32, PAIRS).or(third);
                    }
                    let j = 8 * half + 2 * k + piece;
                    sum = sum.add(store_16(source, &mut lines, 4 * j, codes, 4, scales[j]));
                }
            }
        }
        start(sum).store(lines.start, source.lane);
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q6_k<V: Lanes>(source: &Source<'_>, mut lines: BlockLines<'_>) {
    // SAFETY: 210 bytes a block; `V` may be used.
    unsafe {
        source.half::<V>(208).store(lines.d, source.lane);
        let packed = source.words_4::<V>(192);
        let mut scales = [V::splat(0); 16];
        for (j, scale) in scales.iter_mut().enumerate() {
            let byte = field(packed[j / 4], 8 * (j % 4) as u32, 255);
            *scale = byte.xor(V::splat(128)).sub(V::splat(128));
            scale.store(&mut lines.scales[j], source.lane);
        }
        let mut sum = V::splat(0);
        for half in 0..2 {
            for piece in 0..2 {
                let uppers = source.words_4::<V>(128 + 32 * half + 16 * piece);
                let nibbles = [
                    source.words_4::<V>(64 * half + 16 * piece),
                    source.words_4::<V>(64 * half + 32 + 16 * piece),
                ];
                for k in 0..4 {
                    let mut codes = nibbles[k % 2];
                    for (code, &upper) in codes.iter_mut().zip(&uppers) {
                        let upper = field(upper, 2 * k as u32, PAIRS).shl(4);
                        *code = field(*code, (k / 2 * 4) as u32, NIBBLES).or(upper);
                    }
                    let j = 8 * half + 2 * k + piece;
                    sum = sum.add(store_16(source, &mut lines, 4 * j, codes, 32, scales[j]));
                }
            }
        }
        start(sum).store(lines.start, source.lane);
    }
}

/// The levels of `IQ4_NL` and `IQ4_XS`, 128 above their value.
const IQ4_SHIFTED: [u8; 16] = shifted(IQ4_LEVELS, 128);
/// The doubled numbers of E2M1, 12 above their value.
const E2M1_SHIFTED: [u8; 16] = shifted(E2M1_DOUBLED, 12);

const fn shifted(levels: [i8; 16], offset: i16) -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut index = 0;
    while index < 16 {
        bytes[index] = (levels[index] as i16 + offset) as u8;
        index += 1;
    }
    bytes
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn iq4_xs<V: Lanes>(source: &Source<'_>, lines: BlockLines<'_>) {
    // SAFETY: 136 bytes a block; `V` may be used.
    unsafe {
        let head = source.word::<V>(0);
        head.widen_half().store(lines.d, source.lane);
        let (high, low) = (head.shr(16), source.word::<V>(4));
        let mut sum = V::splat(0);
        for j in 0..8 {
            let upper = field(high, 2 * j as u32, 3).shl(4);
            let scale = field(low, 4 * j as u32, 15).or(upper).sub(V::splat(32));
            scale.store(&mut lines.scales[j], source.lane);
            let words = source.words_4::<V>(8 + 16 * j);
            let codes = store_levels(source, &mut lines.codes[8 * j..8 * j + 8], words);
            sum = sum.add(codes.mul(scale));
        }
        start(sum).store(lines.start, source.lane);
    }
}

/// Stores the levels of 32 nibbles and returns their sum.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn store_levels<V: Lanes>(
    source: &Source<'_>,
    lines: &mut [super::tile::Line],
    words: [V; 4],
) -> V {
    // SAFETY: `V` may be used.
    unsafe {
        let mut sum = V::splat(0_u32.wrapping_sub(32 * 128));
        for (index, &word) in words.iter().enumerate() {
            for high in 0..2 {
                let code = field(word, 4 * high as u32, NIBBLES).look_up(&IQ4_SHIFTED);
                sum = sum.add(code.sum_bytes());
                signed(code, 128).store(&mut lines[4 * high + index], source.lane);
            }
        }
        sum
    }
}

/// Stores the 32 codes of a block of signed format, stored `offset` above their value and below
/// 32, with what sums begin with.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn store_32<V: Lanes>(
    source: &Source<'_>,
    lines: &mut BlockLines<'_>,
    codes: [V; 8],
    offset: u32,
) {
    // SAFETY: `V` may be used. Eight bytes below 32 add up within a byte.
    unsafe {
        let mut sum = V::splat(0);
        for (index, &code) in codes.iter().enumerate() {
            sum = sum.add(code);
            signed(code, offset).store(&mut lines.codes[index], source.lane);
        }
        start(sum.sum_bytes().sub(V::splat(32 * offset))).store(lines.start, source.lane);
    }
}

/// The nibbles of the simple formats: low ones are the first 16 codes.
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
unsafe fn q4_0<V: Lanes>(source: &Source<'_>, mut lines: BlockLines<'_>) {
    // SAFETY: 18 bytes a block; `V` may be used.
    unsafe {
        source.half::<V>(0).store(lines.d, source.lane);
        store_32(source, &mut lines, nibbles(source.words_4::<V>(2)), 8);
    }
}

/// Scale and minimum of `Q4_1` and `Q5_1`, and their codes.
///
/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn store_with_minimum<V: Lanes>(source: &Source<'_>, lines: BlockLines<'_>, codes: [V; 8]) {
    // SAFETY: `V` may be used.
    unsafe {
        let floats = source.word::<V>(0);
        floats.widen_half().store(lines.d, source.lane);
        floats.shr(16).widen_half().store(lines.m, source.lane);
        for (line, code) in lines.codes.iter_mut().zip(codes) {
            code.store(line, source.lane);
        }
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q4_1<V: Lanes>(source: &Source<'_>, lines: BlockLines<'_>) {
    // SAFETY: 20 bytes a block; `V` may be used.
    unsafe { store_with_minimum(source, lines, nibbles(source.words_4::<V>(4))) }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q5_0<V: Lanes>(source: &Source<'_>, mut lines: BlockLines<'_>) {
    // SAFETY: 22 bytes a block; `V` may be used.
    unsafe {
        source.half::<V>(0).store(lines.d, source.lane);
        let codes = with_fifths(source.words_4::<V>(6), source.word::<V>(2));
        store_32(source, &mut lines, codes, 16);
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q5_1<V: Lanes>(source: &Source<'_>, lines: BlockLines<'_>) {
    // SAFETY: 24 bytes a block; `V` may be used.
    unsafe {
        let codes = with_fifths(source.words_4::<V>(8), source.word::<V>(4));
        store_with_minimum(source, lines, codes);
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn q8_0<V: Lanes>(source: &Source<'_>, lines: BlockLines<'_>) {
    // SAFETY: 34 bytes a block; `V` may be used.
    unsafe {
        source.half::<V>(0).store(lines.d, source.lane);
        let mut sum = V::splat(0_u32.wrapping_sub(32 * 128));
        for piece in 0..2 {
            let words = source.words_4::<V>(2 + 16 * piece);
            for (index, &word) in words.iter().enumerate() {
                word.store(&mut lines.codes[4 * piece + index], source.lane);
                sum = sum.add(word.xor(V::splat(128 * BITS)).sum_bytes());
            }
        }
        start(sum).store(lines.start, source.lane);
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn iq4_nl<V: Lanes>(source: &Source<'_>, lines: BlockLines<'_>) {
    // SAFETY: 18 bytes a block; `V` may be used.
    unsafe {
        source.half::<V>(0).store(lines.d, source.lane);
        let sum = store_levels(source, lines.codes, source.words_4::<V>(2));
        start(sum).store(lines.start, source.lane);
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn mxfp4<V: Lanes>(source: &Source<'_>, mut lines: BlockLines<'_>) {
    // SAFETY: 17 bytes a block; `V` may be used.
    unsafe {
        let exponent = |lane: usize| source.rows[lane].add(source.at).read();
        V::from_fn(|lane| half_of_exponent(exponent(lane)).to_bits()).store(lines.d, source.lane);
        let mut codes = nibbles(source.words_4::<V>(1));
        for code in &mut codes {
            *code = code.look_up(&E2M1_SHIFTED);
        }
        store_32(source, &mut lines, codes, 12);
    }
}

/// # Safety
/// The processor must have this variant's instructions; pointers, what is read through them.
#[inline(always)]
unsafe fn e2m1<V: Lanes>(source: &Source<'_>, mut lines: BlockLines<'_>) {
    // SAFETY: 16 bytes a block; `V` may be used.
    unsafe {
        let exponent = |lane: usize| source.whole[lane].exponents[source.block];
        V::from_fn(|lane| half_of_exponent(exponent(lane)).to_bits()).store(lines.d, source.lane);
        let mut codes = [V::splat(0); 8];
        for (index, &word) in source.words_4::<V>(0).iter().enumerate() {
            // Two bytes spread over four, then each pair of nibbles over its pair of bytes.
            for (upper, shift) in [0, 16].into_iter().enumerate() {
                let two = field(word, shift, 0xffff);
                let two = two.or(two.shl(8)).and(V::splat(0x00ff_00ff));
                let four = two.or(two.shl(4)).and(V::splat(NIBBLES));
                codes[2 * index + upper] = four.look_up(&E2M1_SHIFTED);
            }
        }
        store_32(source, &mut lines, codes, 12);
    }
}
