//! Activations as the micro-kernels read them: a few positions side by side, quad by quad.
//!
//! Made once for all matrices that share the activations. Positions are spread evenly over panels,
//! so that no panel is left with one or two of them.

use std::ops::Range;

use super::super::{Activations, BlockSize};
use super::tile::{Layout, Line, Tile};
use crate::cpu::{Disjoint, Pool};

/// Words of sums of a block of 256 in a panel.
pub(super) struct SumWords {
    /// All of them.
    pub all: usize,
}

/// Four pairs of sums of 32 codes, then eight pairs of sums of 16.
pub(super) const SUM_WORDS: SumWords = SumWords { all: 12 };

impl SumWords {
    /// The pairs of sums of parts of a block, of which there are 8 or 16.
    pub fn of_parts(&self, parts: usize) -> Range<usize> {
        if parts == 8 { 0..4 } else { 4..12 }
    }
}

/// Rows of activations in panels. Memory is kept from call to call.
#[derive(Debug, Default)]
pub(crate) struct Panels {
    positions: usize,
    panels: usize,
    blocks: usize,
    quads: usize,
    sum_words: usize,
    /// A panel after another, each `[blocks][quads of a block][positions]`.
    codes: Vec<u32>,
    /// Likewise `[blocks][sums of a block][positions]`: pairs of 16-bit sums in blocks of 256, the
    /// sum as a binary32 in blocks of 32.
    sums: Vec<u32>,
    /// Likewise `[blocks][positions]`.
    scales: Vec<f32>,
}

/// Some blocks of one panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct PanelPart<'p> {
    pub positions: usize,
    /// The first block's place in its row.
    pub first: usize,
    pub blocks: usize,
    /// Quads of a block.
    pub quads: usize,
    pub codes: &'p [u32],
    pub sums: &'p [u32],
    pub scales: &'p [f32],
}

impl PanelPart<'_> {
    /// Panics unless the panel and the sums are of this layout.
    pub fn check(&self, layout: Layout, sums: &[Line]) {
        let (p, blocks) = (self.positions, self.blocks);
        let words = if layout.parts == 1 { 1 } else { SUM_WORDS.all };
        assert_eq!(self.quads, layout.quads(), "activations are cut otherwise");
        let codes = self.codes.len() == blocks * self.quads * p;
        let rest = self.scales.len() == blocks * p && self.sums.len() == blocks * words * p;
        assert!(codes && rest && sums.len() == p * layout.chains(), "sizes differ");
    }

    /// Panics unless the tile has the panel's blocks, of this layout.
    pub fn check_tile(&self, layout: Layout, tile: &Tile) {
        let blocks = self.blocks;
        let integer_parts = if layout.parts == 1 { 0 } else { layout.parts };
        let weights = tile.codes.len() >= blocks * layout.quads()
            && tile.scales.len() >= blocks * integer_parts
            && tile.pairs.len() >= blocks * integer_parts / 2
            && tile.d.len() >= blocks
            && tile.m.len() >= blocks;
        assert!(weights, "sizes differ");
    }
}

/// The positions of a panel, if they are spread evenly over so many panels.
pub(in crate::kernels) fn spread(positions: usize, panels: usize, panel: usize) -> Range<usize> {
    panel * positions / panels..(panel + 1) * positions / panels
}

impl Panels {
    /// Takes all rows of activations, at most `most` positions a panel.
    pub fn fill(&mut self, pool: &Pool, x: &Activations, most: usize) {
        let block = x.block_size();
        self.positions = x.rows();
        self.panels = self.positions.div_ceil(most);
        self.blocks = x.blocks();
        self.quads = block.elements() / 4;
        self.sum_words = if block == BlockSize::K32 { 1 } else { SUM_WORDS.all };
        let blocks = self.positions * self.blocks;
        // What stays from the call before is overwritten below.
        self.codes.resize(blocks * self.quads, 0);
        self.sums.resize(blocks * self.sum_words, 0);
        self.scales.resize(blocks, 0.0);
        let (codes, sums) = (std::mem::take(&mut self.codes), std::mem::take(&mut self.sums));
        let scales = std::mem::take(&mut self.scales);
        let (mut codes, mut sums, mut scales) = (codes, sums, scales);
        {
            let (codes, sums) = (Disjoint::new(&mut codes), Disjoint::new(&mut sums));
            let scales = Disjoint::new(&mut scales);
            let this = &*self;
            pool.run(this.panels, &|panel| {
                let range = this.range(panel);
                let place = |each: usize| {
                    (range.start * this.blocks * each, range.len() * this.blocks * each)
                };
                let ((code, code_count), (sum, sum_count)) =
                    (place(this.quads), place(this.sum_words));
                let (scale, scale_count) = place(1);
                // SAFETY: panels do not overlap, and each is filled by one task.
                let (codes, sums, scales) = unsafe {
                    (
                        codes.slice(code, code_count),
                        sums.slice(sum, sum_count),
                        scales.slice(scale, scale_count),
                    )
                };
                this.fill_panel(x, range, codes, sums, scales);
            });
        }
        (self.codes, self.sums, self.scales) = (codes, sums, scales);
    }

    fn fill_panel(
        &self,
        x: &Activations,
        range: Range<usize>,
        codes: &mut [u32],
        sums: &mut [u32],
        scales: &mut [f32],
    ) {
        let positions = range.len();
        let pair = |pair: &[i16; 2]| {
            u32::from(pair[0].cast_unsigned()) | u32::from(pair[1].cast_unsigned()) << 16
        };
        for (p, row) in range.map(|position| x.row(position)).enumerate() {
            let quads = bytemuck::cast_slice::<i8, u8>(row.codes).as_chunks::<4>().0;
            for (quad, out) in quads.iter().zip(codes[p..].iter_mut().step_by(positions)) {
                *out = u32::from_le_bytes(*quad);
            }
            for (scale, out) in row.scales.iter().zip(scales[p..].iter_mut().step_by(positions)) {
                *out = *scale;
            }
            let mut sums = sums[p..].iter_mut().step_by(positions);
            if x.block_size() == BlockSize::K32 {
                for (sum, out) in row.sums.iter().zip(sums) {
                    *out = f32::from(*sum).to_bits();
                }
                continue;
            }
            let pairs = (row.sums_32.as_chunks::<2>().0, row.sums.as_chunks::<2>().0);
            for (four, eight) in pairs.0.as_chunks::<4>().0.iter().zip(pairs.1.as_chunks::<8>().0) {
                for (pairs, out) in four.iter().chain(eight).zip(&mut sums) {
                    *out = pair(pairs);
                }
            }
        }
    }

    /// How many panels there are.
    pub fn count(&self) -> usize {
        self.panels
    }

    /// The positions of a panel.
    pub fn range(&self, panel: usize) -> Range<usize> {
        spread(self.positions, self.panels, panel)
    }

    /// Some blocks of a panel.
    pub(super) fn part(&self, panel: usize, blocks: Range<usize>) -> PanelPart<'_> {
        let range = self.range(panel);
        let part = |each: usize| {
            let first = range.start * self.blocks * each;
            first + range.len() * blocks.start * each..first + range.len() * blocks.end * each
        };
        PanelPart {
            positions: range.len(),
            first: blocks.start,
            blocks: blocks.len(),
            quads: self.quads,
            codes: &self.codes[part(self.quads)],
            sums: &self.sums[part(self.sum_words)],
            scales: &self.scales[part(1)],
        }
    }
}
