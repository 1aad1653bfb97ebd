//! The tokens that feature rows point at: the top of `unembedding · row` for many rows at once.
//!
//! Tokens and features are rounded to bytes, all pairs are scored in whole numbers
//! (`kernels::int8_product`), and a token stays in play while its score, plus a bound on what
//! rounding took from it, reaches the worst of the best so far (`shortlist`). What stays is scored
//! again in `f64` in a fixed order, and those scores alone decide. So the result is that of scoring
//! every pair in `f64`, on every machine, whatever the tiles and threads.
//!
//! Work goes tile by tile of tokens: all threads pack a tile, then each takes blocks of features
//! through it, so that packed tokens are shared and nobody shares a feature. Few features, or rows
//! that bytes cannot stand for (infinite, vanishing), take the scan in `f32` (`plain`).

mod plain;
mod quantised;
mod shortlist;

use std::sync::{Mutex, PoisonError};

use self::quantised::{Dither, Size};
use self::shortlist::{LaneScales, Shortlist};
use crate::cpu::with_scratch;
use crate::cpu::{Cancel, Cancelled, Disjoint, Pool};
use crate::kernels::dot::dot_f64;
use crate::kernels::int8_product::{LANE_OFFSET, LANES, Lanes, QUAD, ROWS, Rows, int8_product};
use crate::quant::MatrixView;

/// Bytes of packed tokens in a tile: a part of the last cache that leaves room for features.
const TILE_BYTES: usize = 8 << 20;
/// Panels of features that one task takes through a tile: they stay in a core's own cache.
const BLOCK_PANELS: usize = 8;
/// Fewer features than this are not worth packing a vocabulary for.
const FEATURES_MIN: usize = 48;
/// Sums of codes in 32 bits hold this many numbers a row.
const WIDTH_MAX: usize = 65_536;
/// Tokens that bytes cannot stand for, beyond which they are scored in `f32` with all others.
const ODD_TOKENS_MAX: usize = 1024;
/// Tokens shorter than this, against the longest, are scored apart: their squares would vanish.
const NORM_MIN: f64 = 1e-15;
/// Scores beyond these would round to zero or infinity in `f32`.
const SCORE_RANGE: std::ops::Range<f64> = 1e-25..1e35;
/// Seeds of the two sides' rounding.
const TOKEN_SEED: u64 = 0x746f_6b65_6e73;
const FEATURE_SEED: u64 = 0x6665_6174_7572_6573;

/// Tokens with their scores, best first: the list of one feature.
pub type TokenList = Vec<(u32, f32)>;

/// A vocabulary that features are compared with: its matrix and the sizes of its rows.
#[derive(Debug)]
pub struct Vocabulary<'a> {
    unembedding: MatrixView<'a>,
    sizes: Vec<Size>,
    /// The longest row of those that bytes can stand for.
    norm_max: f64,
    /// Rows that bytes cannot stand for, but which may score.
    odd: Vec<u32>,
}

/// Returns for each row of `vectors` the `k` tokens with the largest `unembedding row · vector`.
///
/// [`Vocabulary::new`] and [`Vocabulary::top_tokens`] in one, for a vocabulary used once.
///
/// # Errors
/// `Cancelled`, asked before every tile.
pub fn top_tokens(
    pool: &Pool,
    unembedding: &MatrixView,
    vectors: &MatrixView,
    k: usize,
    cancel: &Cancel,
) -> Result<Vec<TokenList>, Cancelled> {
    let vocabulary = Vocabulary::new(pool, *unembedding, cancel)?;
    vocabulary.top_tokens(pool, vectors, k, cancel)
}

impl<'a> Vocabulary<'a> {
    /// Reads the matrix once, for the sizes of its rows: 16 bytes of memory a token.
    ///
    /// # Shapes
    /// `unembedding`: `[V, H]`; panics if `V` does not fit 32 bits.
    /// # Errors
    /// `Cancelled`, asked every few rows.
    pub fn new(
        pool: &Pool,
        unembedding: MatrixView<'a>,
        cancel: &Cancel,
    ) -> Result<Vocabulary<'a>, Cancelled> {
        assert!(u32::try_from(unembedding.rows()).is_ok(), "tokens are 32-bit");
        let mut sizes = vec![Size::default(); unembedding.rows()];
        pool.run_chunks(&mut sizes, LANES, &|first, sizes| {
            if cancel.check().is_ok() {
                with_scratch(unembedding.columns(), |row| {
                    for (offset, size) in sizes.iter_mut().enumerate() {
                        unembedding.row_f32(first + offset, row);
                        *size = Size::of(row);
                    }
                });
            }
        });
        cancel.check()?;
        let tame = sizes.iter().filter(|size| size.is_tame());
        let norm_max = tame.map(|size| size.norm).fold(0.0, f64::max);
        let mut vocabulary = Vocabulary { unembedding, sizes, norm_max, odd: Vec::new() };
        vocabulary.odd = (0..unembedding.rows())
            .filter(|&token| !vocabulary.packs(token) && !vocabulary.sizes[token].norm.is_nan())
            .map(|token| token as u32)
            .collect();
        Ok(vocabulary)
    }

    /// Whether a token's row is scored by its bytes.
    fn packs(&self, token: usize) -> bool {
        let size = self.sizes[token];
        size.is_tame() && (size.norm == 0.0 || size.norm >= NORM_MIN * self.norm_max)
    }

    /// Returns for each row of `vectors` the `k` tokens with the largest `unembedding row · vector`.
    ///
    /// Best first, of equal scores (as `f32`) the lowest token first; NaN is never returned, and a
    /// vocabulary smaller than `k` gives fewer. Gate rows against the embedding, with `k` of 1, give
    /// each feature's strongest input token (a positive scale of the embedding changes the scores
    /// alone). Each call packs the vocabulary anew, which pays for itself over some hundred rows.
    ///
    /// # Shapes
    /// `vectors`: `[F, H]`; result: `[F]` lists; panics if `H` differs.
    /// # Units
    /// Memory beside the result: `F * H` bytes of packed features, `12 * (8 k + 64)` bytes of
    /// candidates a feature, and 8 MiB of packed tokens (a panel of 32 tokens, if that is more).
    /// # Errors
    /// `Cancelled`, asked before every panel of tokens.
    pub fn top_tokens(
        &self,
        pool: &Pool,
        vectors: &MatrixView,
        k: usize,
        cancel: &Cancel,
    ) -> Result<Vec<TokenList>, Cancelled> {
        let width = self.unembedding.columns();
        assert_eq!(vectors.columns(), width, "feature rows and unembedding differ");
        let usable = self.norm_max > 0.0
            && width <= WIDTH_MAX
            && self.odd.len() <= ODD_TOKENS_MAX
            && vectors.rows() >= FEATURES_MIN;
        if k == 0 || !usable {
            return self.scan_plain(pool, vectors, k, cancel);
        }
        let k = k.min(self.unembedding.rows());
        let mut packed = Packed::new(self, pool, vectors, k, cancel)?;
        self.scan(pool, vectors, &mut packed, cancel)?;
        self.finish(pool, vectors, k, packed, cancel)
    }

    /// Takes all packed features through all packed tokens.
    fn scan(
        &self,
        pool: &Pool,
        vectors: &MatrixView,
        packed: &mut Packed,
        cancel: &Cancel,
    ) -> Result<(), Cancelled> {
        let (tokens, width) = (self.unembedding.rows(), self.unembedding.columns());
        let depth = width.div_ceil(QUAD);
        let panels = (TILE_BYTES / (depth * LANES * QUAD)).clamp(1, tokens.div_ceil(LANES));
        let mut tile = vec![LanePanel::new(depth); panels];
        let dither = Dither::new(width, TOKEN_SEED);
        let block = packed.row_sums.len().div_ceil(4 * pool.threads()).clamp(1, BLOCK_PANELS);
        let Packed { quads, row_sums, shortlists } = packed;
        for first in (0..tokens).step_by(panels * LANES) {
            let count = panels.min((tokens - first).div_ceil(LANES));
            pool.run_chunks(&mut tile[..count], 1, &|panel, panels| {
                if cancel.check().is_ok() {
                    panels[0].pack(self, &dither, first + panel * LANES);
                }
            });
            pool.run_chunks(shortlists, block * ROWS, &|first_feature, shortlists| {
                let mut sums = [[0; LANES]; ROWS];
                for (index, lanes) in tile[..count].iter().enumerate() {
                    if cancel.check().is_err() {
                        return;
                    }
                    let first_token = first + index * LANES;
                    for (panel, shortlists) in shortlists.chunks_mut(ROWS).enumerate() {
                        let first_feature = first_feature + panel * ROWS;
                        let panel = first_feature / ROWS;
                        let rows = &quads[panel * depth..(panel + 1) * depth];
                        int8_product(rows, &row_sums[panel], &lanes.quads, &mut sums);
                        for (row, shortlist) in shortlists.iter_mut().enumerate() {
                            let rescore =
                                &mut |token| self.score(token, vectors, first_feature + row);
                            shortlist.offer(first_token, &sums[row], &lanes.scales, rescore);
                        }
                    }
                }
            });
            cancel.check()?;
        }
        Ok(())
    }

    /// Scores for good what is left on the lists.
    fn finish(
        &self,
        pool: &Pool,
        vectors: &MatrixView,
        k: usize,
        packed: Packed,
        cancel: &Cancel,
    ) -> Result<Vec<TokenList>, Cancelled> {
        let mut lists = vec![Vec::new(); vectors.rows()];
        let shortlists = &packed.shortlists;
        pool.run_chunks(&mut lists, 4, &|first, lists| {
            let mut row = vec![0.0; vectors.columns()];
            for (feature, list) in (first..).zip(lists) {
                if cancel.check().is_err() {
                    return;
                }
                vectors.row_f32(feature, &mut row);
                *list = if shortlists[feature].is_open() {
                    shortlists[feature].best(&self.unembedding, &row, &self.odd)
                } else if row.iter().all(|&value| value == 0.0) {
                    self.first_tokens(k)
                } else {
                    let rows = vectors.rows_range(feature..feature + 1);
                    // Nothing where it was cancelled, which the caller asks about once more.
                    self.scan_block(&rows, k, cancel)
                        .map_or_else(Vec::new, |mut lists| lists.remove(0))
                };
            }
        });
        cancel.check()?;
        Ok(lists)
    }

    /// The list of a row of zeros (a pruned feature): all finite tokens score 0.
    fn first_tokens(&self, k: usize) -> TokenList {
        let finite = (0_u32..).zip(&self.sizes).filter(|(_, size)| size.norm.is_finite());
        finite.take(k).map(|(token, _)| (token, 0.0)).collect()
    }

    /// The score that decides.
    fn score(&self, token: usize, vectors: &MatrixView, feature: usize) -> f32 {
        let mut rows = vec![0.0; 2 * self.unembedding.columns()];
        let (row, token_row) = rows.split_at_mut(self.unembedding.columns());
        vectors.row_f32(feature, row);
        exact(&self.unembedding, token, row, token_row)
    }

    /// All rows by the scan in `f32`.
    fn scan_plain(
        &self,
        pool: &Pool,
        vectors: &MatrixView,
        k: usize,
        cancel: &Cancel,
    ) -> Result<Vec<TokenList>, Cancelled> {
        let features = vectors.rows();
        // Fewer features than make full blocks for every thread are spread over smaller ones.
        let block = features.div_ceil(4 * pool.threads()).clamp(8, plain::BLOCK_FEATURES);
        let found = Mutex::new(vec![Vec::new(); features]);
        pool.run(features.div_ceil(block), &|task| {
            let first = task * block;
            let rows = vectors.rows_range(first..features.min(first + block));
            if let Some(lists) = self.scan_block(&rows, k, cancel) {
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found[first..first + lists.len()].clone_from_slice(&lists);
            }
        });
        cancel.check()?;
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Some rows by the scan in `f32`; `None` when cancelled.
    fn scan_block(
        &self,
        vectors: &MatrixView,
        k: usize,
        cancel: &Cancel,
    ) -> Option<Vec<TokenList>> {
        let k = k.min(self.unembedding.rows());
        if k == 0 || self.unembedding.columns() == 0 {
            return Some(vec![Vec::new(); vectors.rows()]);
        }
        plain::scan_block(&self.unembedding, &|token| self.sizes[token].norm, vectors, k, cancel)
    }
}

/// The score that decides: in `f64` in one order, rounded to `f32`.
fn exact(unembedding: &MatrixView, token: usize, row: &[f32], token_row: &mut [f32]) -> f32 {
    unembedding.row_f32(token, token_row);
    dot_f64(token_row, row) as f32
}

/// All features as bytes, panel by panel, and their lists; the last panel is filled up with rows
/// of zeros, whose lists are closed.
struct Packed {
    quads: Vec<Rows>,
    row_sums: Vec<[i32; ROWS]>,
    shortlists: Vec<Shortlist>,
}

impl Packed {
    fn new(
        vocabulary: &Vocabulary,
        pool: &Pool,
        vectors: &MatrixView,
        k: usize,
        cancel: &Cancel,
    ) -> Result<Packed, Cancelled> {
        let (features, width) = (vectors.rows(), vectors.columns());
        let (panels, depth) = (features.div_ceil(ROWS), width.div_ceil(QUAD));
        let mut quads = vec![[[0; QUAD]; ROWS]; panels * depth];
        let mut row_sums = vec![[0; ROWS]; panels];
        let mut shortlists = Vec::new();
        shortlists.resize_with(panels * ROWS, Shortlist::closed);
        let dither = Dither::new(width, FEATURE_SEED);
        let (all_quads, all_lists) = (Disjoint::new(&mut quads), Disjoint::new(&mut shortlists));
        pool.run_chunks(&mut row_sums, 1, &|panel, row_sums| {
            if cancel.check().is_err() {
                return;
            }
            // SAFETY: each panel is one task's, and so are its quads and lists.
            let (quads, shortlists) = unsafe {
                (all_quads.slice(panel * depth, depth), all_lists.slice(panel * ROWS, ROWS))
            };
            let mut codes = vec![LANE_OFFSET; depth * QUAD];
            with_scratch(width, |values| {
                for feature in panel * ROWS..features.min((panel + 1) * ROWS) {
                    let row = feature % ROWS;
                    vectors.row_f32(feature, values);
                    let size = Size::of(values);
                    let score_max = size.norm * vocabulary.norm_max;
                    if !size.is_tame() || !SCORE_RANGE.contains(&score_max) {
                        continue;
                    }
                    dither.encode(feature, values, size.largest, &mut codes);
                    let mut sum = 0;
                    for (quad, codes) in quads.iter_mut().zip(codes.as_chunks::<QUAD>().0) {
                        quad[row] = codes.map(|code| (code ^ LANE_OFFSET).cast_signed());
                        sum += quad[row].iter().map(|&code| i32::from(code)).sum::<i32>();
                    }
                    row_sums[0][row] = sum;
                    shortlists[row] = Shortlist::new(size, width, k, vocabulary.norm_max);
                }
            });
        });
        cancel.check()?;
        Ok(Packed { quads, row_sums, shortlists })
    }
}

/// A panel of tokens as bytes, [`LANE_OFFSET`] above their codes.
#[derive(Clone)]
struct LanePanel {
    quads: Vec<Lanes>,
    scales: LaneScales,
}

impl LanePanel {
    fn new(depth: usize) -> LanePanel {
        LanePanel { quads: vec![[[LANE_OFFSET; QUAD]; LANES]; depth], scales: LaneScales::new() }
    }

    fn pack(&mut self, vocabulary: &Vocabulary, dither: &Dither, first: usize) {
        let mut codes = vec![LANE_OFFSET; self.quads.len() * QUAD];
        with_scratch(vocabulary.unembedding.columns(), |values| {
            for lane in 0..LANES {
                let token = first + lane;
                if token >= vocabulary.sizes.len() || !vocabulary.packs(token) {
                    self.scales.clear(lane);
                    continue;
                }
                let size = vocabulary.sizes[token];
                self.scales.set(lane, size, vocabulary.norm_max);
                if size.norm == 0.0 {
                    self.quads.iter_mut().for_each(|quad| quad[lane] = [LANE_OFFSET; QUAD]);
                    continue;
                }
                vocabulary.unembedding.row_f32(token, values);
                dither.encode(token, values, size.largest, &mut codes);
                for (quad, codes) in self.quads.iter_mut().zip(codes.as_chunks::<QUAD>().0) {
                    quad[lane] = *codes;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests;
