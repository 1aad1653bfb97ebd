//! A tile of weights, unpacked: so many rows side by side, quad by quad.

use super::lanes::Lanes;
use super::unpack::{BlockSink, Destination};

/// Rows of a tile: two registers of AVX-512.
pub(in crate::kernels) const ROWS: usize = 32;

/// A word of each row of a tile: four codes, an integer, or the bits of a binary32.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::kernels) struct Line(pub [u32; ROWS]);

impl Line {
    pub const ZERO: Line = Line([0; ROWS]);
}

/// What a format's blocks hold, and how its micro-kernel takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Elements of a block, 32 or 256.
    pub elements: usize,
    /// Parts of a block that have integer scales of their own: 8 or 16, or 1 and no such scale.
    pub parts: usize,
    /// How far above their value codes are unpacked; 0 for formats with minima, whose codes are
    /// unsigned.
    pub offset: u32,
    /// How many quads of products a 16-bit lane can add up without overflow; 0 where even one
    /// could overflow.
    pub quads_in_16_bits: usize,
}

impl Layout {
    /// Whether there are minima.
    pub const fn minima(&self) -> bool {
        self.offset == 0
    }

    /// Quads of a block.
    pub const fn quads(&self) -> usize {
        self.elements / 4
    }

    /// Chains of sums of an output.
    pub fn chains(&self) -> usize {
        chains(self.parts)
    }
}

/// Chains of sums of an output, in formats whose blocks have so many parts.
pub(super) const fn chains(parts: usize) -> usize {
    if parts == 1 { 8 } else { 4 }
}

/// Some blocks of [`ROWS`] rows, unpacked. Memory is kept from tile to tile.
#[derive(Debug, Default)]
pub(super) struct Tile {
    /// `[blocks][quads of a block]`: codes, the first of a quad lowest.
    pub codes: Vec<Line>,
    /// `[blocks][parts]`: integer scales, signed.
    pub scales: Vec<Line>,
    /// `[blocks][parts / 2]`: integer minima or, in formats without, scales; two to a word.
    pub pairs: Vec<Line>,
    /// `[blocks]`: the floating scale.
    pub d: Vec<Line>,
    /// `[blocks]`: the floating factor of the minima, with its sign.
    pub m: Vec<Line>,
}

/// The lines of one block of a tile, and the lane in which some of its rows begin.
pub(super) struct BlockLines<'t> {
    lane: usize,
    codes: &'t mut [Line],
    scales: &'t mut [Line],
    pairs: &'t mut [Line],
    d: &'t mut Line,
    m: &'t mut Line,
}

impl Tile {
    /// No blocks.
    pub const EMPTY: Tile = Tile {
        codes: Vec::new(),
        scales: Vec::new(),
        pairs: Vec::new(),
        d: Vec::new(),
        m: Vec::new(),
    };

    /// Makes room for so many blocks.
    pub fn fit(&mut self, layout: Layout, blocks: usize) {
        let integer_parts = if layout.parts == 1 { 0 } else { layout.parts };
        let grow = |lines: &mut Vec<Line>, count: usize| {
            if lines.len() < count {
                lines.resize(count, Line::ZERO);
            }
        };
        grow(&mut self.codes, blocks * layout.quads());
        grow(&mut self.scales, blocks * integer_parts);
        grow(&mut self.pairs, blocks * integer_parts / 2);
        grow(&mut self.d, blocks);
        grow(&mut self.m, blocks);
    }
}

impl<V: Lanes> Destination<V> for Tile {
    type Block<'d> = BlockLines<'d>;

    #[inline(always)]
    fn block<const BYTES: usize, const QUADS: usize, const PARTS: usize>(
        &mut self,
        index: usize,
        lane: usize,
    ) -> BlockLines<'_> {
        let parts = if PARTS == 1 { 0 } else { PARTS };
        BlockLines {
            lane,
            codes: &mut self.codes[index * QUADS..(index + 1) * QUADS],
            scales: &mut self.scales[index * parts..(index + 1) * parts],
            pairs: &mut self.pairs[index * (parts / 2)..(index + 1) * (parts / 2)],
            d: &mut self.d[index],
            m: &mut self.m[index],
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait asks callers for the instructions")]
impl<V: Lanes> BlockSink<V> for BlockLines<'_> {
    #[inline(always)]
    unsafe fn scale(&mut self, d: V) {
        unsafe { d.store(self.d, self.lane) }
    }

    #[inline(always)]
    unsafe fn minimum(&mut self, m: V) {
        unsafe { m.store(self.m, self.lane) }
    }

    #[inline(always)]
    unsafe fn pairs<const PAIRS: usize>(&mut self, pairs: [V; PAIRS]) {
        for (line, pair) in self.pairs.iter_mut().zip(pairs) {
            unsafe { pair.store(line, self.lane) }
        }
    }

    #[inline(always)]
    unsafe fn part<const QUADS: usize>(&mut self, part: usize, scale: V, codes: [V; QUADS]) {
        unsafe { scale.store(&mut self.scales[part], self.lane) }
        for (line, code) in self.codes[part * QUADS..][..QUADS].iter_mut().zip(codes) {
            unsafe { code.store(line, self.lane) }
        }
    }

    #[inline(always)]
    unsafe fn whole(&mut self, codes: [V; 8]) {
        for (line, code) in self.codes.iter_mut().zip(codes) {
            unsafe { code.store(line, self.lane) }
        }
    }

    #[inline(always)]
    unsafe fn end<const PARTS: usize, const MINIMA: bool>(self, _offset: u32) {}
}
