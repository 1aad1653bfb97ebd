//! A tile of weights, unpacked: so many rows side by side, quad by quad.

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
    /// Whether there are minima. Such codes are unsigned, and multiplied with signed activations;
    /// codes without are signed, and multiplied with activations stored 128 above their value.
    pub minima: bool,
    /// How many quads of products a 16-bit lane can add up without overflow; 0 where even one
    /// could overflow.
    pub quads_in_16_bits: usize,
}

impl Layout {
    /// Quads of a block.
    pub fn quads(&self) -> usize {
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
    /// `[blocks][parts / 2]`: integer minima, two to a word (formats with parts and minima).
    pub minima: Vec<Line>,
    /// `[blocks]`: what integer sums begin with, `-128 Σ scale · code`, which takes the offset of
    /// the activations away again (formats without minima).
    pub starts: Vec<Line>,
    /// `[blocks]`: the floating scale.
    pub d: Vec<Line>,
    /// `[blocks]`: the floating factor of the minima, with its sign.
    pub m: Vec<Line>,
}

/// The lines of one block of a tile.
pub(super) struct BlockLines<'t> {
    pub codes: &'t mut [Line],
    pub scales: &'t mut [Line],
    pub minima: &'t mut [Line],
    pub start: &'t mut Line,
    pub d: &'t mut Line,
    pub m: &'t mut Line,
}

impl Tile {
    /// No blocks.
    pub const EMPTY: Tile = Tile {
        codes: Vec::new(),
        scales: Vec::new(),
        minima: Vec::new(),
        starts: Vec::new(),
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
        grow(&mut self.minima, blocks * integer_parts / 2);
        grow(&mut self.starts, blocks);
        grow(&mut self.d, blocks);
        grow(&mut self.m, blocks);
    }

    /// The lines of one block; panics where there is no room for it.
    #[inline(always)]
    pub fn block<const QUADS: usize, const PARTS: usize>(
        &mut self,
        block: usize,
    ) -> BlockLines<'_> {
        BlockLines {
            codes: &mut self.codes[block * QUADS..(block + 1) * QUADS],
            scales: &mut self.scales[block * PARTS..(block + 1) * PARTS],
            minima: &mut self.minima[block * (PARTS / 2)..(block + 1) * (PARTS / 2)],
            start: &mut self.starts[block],
            d: &mut self.d[block],
            m: &mut self.m[block],
        }
    }
}
