//! The tokens that may be among a feature's best, as far as scores in 8 bits can tell.
//!
//! Let `a` be a token's row, `b` the feature's, `s` and `t` their steps and `e`, `f` their rounding
//! errors: independent, zero on average, each below one step. The score of the codes is off by
//! `e·b + a·f + e·f`. The first two are a sum of `2n` independent terms, so by Hoeffding it
//! exceeds `K/2 * sqrt(s²|b|² + t²|a|²)` with a probability of at most `2 exp(-K²/2)`, whatever the
//! rows; the third, given `e`, exceeds `K/2 * t * |e|`, and `|e|` is at most `s * sqrt(n)`.
//! With `K` of 9 that is 1e-17 a pair: of 3e10 pairs (a model of a billion weights) one goes
//! wrong with a probability below one in a million. (`K` is a little more, which pays for `f32`.)
//!
//! Source: Hoeffding 1963, theorem 2.

use super::quantised::Size;
use std::sync::LazyLock;

use super::{TokenList, exact};
use crate::cpu::{compiled_for_each_isa, fastest};
use crate::kernels::int8_product::{CODE_MAX, LANES};
use crate::kernels::top_k::rank;
use crate::quant::MatrixView;

/// `(K/2)²`, see above, and 0.1 % for the rounding of what is computed from it.
const REACH: f64 = 4.5 * 4.5 * 1.001;
/// `(x + y)² <= (1 + 1/16) x² + 17 y²`, which spares a square root a pair.
const FIRST_SHARE: f64 = 1.0 + 1.0 / 16.0;
const SECOND_SHARE: f64 = 17.0;

/// What turns sums of codes into scores, for each token of a panel. Scores are in units of the
/// longest token's length. NaN is a token that is scored otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneScales {
    step: [f32; LANES],
    step_squared: [f32; LANES],
    norm_squared: [f32; LANES],
}

impl LaneScales {
    pub(super) fn new() -> LaneScales {
        let absent = [f32::NAN; LANES];
        LaneScales { step: absent, step_squared: absent, norm_squared: absent }
    }

    pub(super) fn set(&mut self, lane: usize, token: Size, norm_max: f64) {
        let step = f64::from(token.largest) / f64::from(CODE_MAX) / norm_max;
        self.step[lane] = step as f32;
        self.step_squared[lane] = (step * step) as f32;
        self.norm_squared[lane] = (token.norm / norm_max).powi(2) as f32;
    }

    pub(super) fn clear(&mut self, lane: usize) {
        self.step[lane] = f32::NAN;
    }
}

/// A token that may be among the best.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    score: f32,
    margin: f32,
}

/// What a token's score must reach, its margin added.
#[derive(Debug, Clone, Copy)]
struct Bar {
    /// A score that `k` tokens reach; infinite where nothing is looked for.
    least: f32,
    /// Squared margin of a token: this much of its squared step ...
    of_step: f32,
    /// ... and this much of its squared length.
    of_norm: f32,
}

impl Bar {
    /// Whether a token may be as good as the `k` best; false where its scale is NaN.
    #[inline(always)]
    fn is_reached(&self, sum: i32, lane: usize, lanes: &LaneScales) -> bool {
        let missing = self.least - sum as f32 * lanes.step[lane];
        (missing <= 0.0) | (missing * missing <= self.margin_squared(lane, lanes))
    }

    #[inline(always)]
    fn margin_squared(&self, lane: usize, lanes: &LaneScales) -> f32 {
        lanes.step_squared[lane] * self.of_step + lanes.norm_squared[lane] * self.of_norm
    }

    /// Whether any token of a panel reaches it: without a branch, so that compilers make it wide.
    #[inline(always)]
    fn is_reached_by_any(&self, sums: &[i32; LANES], lanes: &LaneScales) -> bool {
        (0..LANES).fold(0, |any, lane| any | u32::from(self.is_reached(sums[lane], lane, lanes)))
            > 0
    }
}

type AnyReaches = fn(&Bar, &[i32; LANES], &LaneScales) -> bool;

/// [`Bar::is_reached_by_any`], compiled for what this processor has: the same operations, wider.
fn any_reaches(bar: &Bar, sums: &[i32; LANES], lanes: &LaneScales) -> bool {
    static FASTEST: LazyLock<AnyReaches> = LazyLock::new(|| {
        fastest(compiled_for_each_isa!(
            Bar::is_reached_by_any,
            fn(bar: &Bar, sums: &[i32; LANES], lanes: &LaneScales) -> bool
        ))
    });
    FASTEST(bar, sums, lanes)
}

/// The candidates of one feature. Scores are in units of its step times the longest token.
#[derive(Debug)]
pub(super) struct Shortlist {
    k: usize,
    bar: Bar,
    /// What one unit of score is.
    unit: f64,
    candidates: Vec<Candidate>,
}

impl Shortlist {
    /// A list that takes nothing.
    pub(super) fn closed() -> Shortlist {
        let candidates = Vec::new();
        let bar = Bar { least: f32::INFINITY, of_step: 0.0, of_norm: 0.0 };
        Shortlist { k: 0, bar, unit: 1.0, candidates }
    }

    /// An empty list for a feature's row of `width` numbers, not all zero.
    pub(super) fn new(feature: Size, width: usize, k: usize, norm_max: f64) -> Shortlist {
        let step = f64::from(feature.largest) / f64::from(CODE_MAX);
        let relative = step / feature.norm;
        let of_step = REACH * (FIRST_SHARE / (relative * relative) + SECOND_SHARE * width as f64);
        let of_norm = REACH * FIRST_SHARE;
        Shortlist {
            k,
            bar: Bar { least: f32::NEG_INFINITY, of_step: of_step as f32, of_norm: of_norm as f32 },
            unit: step * norm_max,
            candidates: Vec::new(),
        }
    }

    /// Whether the list takes anything.
    pub(super) fn is_open(&self) -> bool {
        self.k > 0
    }

    fn capacity(&self) -> usize {
        8 * self.k + 64
    }

    /// Offers a panel of tokens, the first of them `first`, by the sums of their codes.
    pub(super) fn offer(
        &mut self,
        first: usize,
        sums: &[i32; LANES],
        lanes: &LaneScales,
        rescore: &mut dyn FnMut(usize) -> f32,
    ) {
        if !any_reaches(&self.bar, sums, lanes) {
            return;
        }
        for (lane, &sum) in sums.iter().enumerate() {
            if self.bar.is_reached(sum, lane, lanes) {
                let score = sum as f32 * lanes.step[lane];
                let margin = self.bar.margin_squared(lane, lanes).sqrt();
                self.candidates.push(Candidate { token: (first + lane) as u32, score, margin });
                if self.candidates.len() >= self.capacity() {
                    self.thin_out(rescore);
                }
            }
        }
    }

    /// Drops what `k` others certainly beat; scores for good what is left if that is much.
    fn thin_out(&mut self, rescore: &mut dyn FnMut(usize) -> f32) {
        self.drop_beaten();
        if self.candidates.len() > self.capacity() / 2 {
            let mut scored: Vec<(usize, f32)> = self
                .candidates
                .iter()
                .map(|candidate| candidate.token as usize)
                .map(|token| (token, rescore(token)))
                .collect();
            scored.sort_unstable_by(|a, b| rank(*a, *b));
            scored.truncate(self.k);
            self.candidates.clear();
            self.candidates.extend(scored.into_iter().map(|(token, score)| {
                let score = (f64::from(score) / self.unit) as f32;
                Candidate { token: token as u32, score, margin: 0.0 }
            }));
            self.drop_beaten();
        }
    }

    fn drop_beaten(&mut self) {
        if self.candidates.len() < self.k {
            return;
        }
        let mut certain: Vec<f32> =
            self.candidates.iter().map(|candidate| candidate.score - candidate.margin).collect();
        let (_, &mut reached, _) =
            certain.select_nth_unstable_by(self.k - 1, |a, b| b.total_cmp(a));
        self.bar.least = self.bar.least.max(self.lowered(reached));
        self.candidates.retain(|candidate| candidate.score + candidate.margin >= self.bar.least);
    }

    /// The best of the candidates and of `others` by their exact scores.
    pub(super) fn best(&self, unembedding: &MatrixView, row: &[f32], others: &[u32]) -> TokenList {
        let mut token_row = vec![0.0; row.len()];
        let mut exact = |token| (token, exact(unembedding, token, row, &mut token_row));
        let mut best: Vec<(usize, f32)> = others
            .iter()
            .map(|&token| exact(token as usize))
            .filter(|found| !found.1.is_nan())
            .collect();
        let keep_best = |best: &mut Vec<(usize, f32)>| {
            best.sort_unstable_by(|a, b| rank(*a, *b));
            best.truncate(self.k);
        };
        keep_best(&mut best);
        // The likely ones first, so that most of the rest need no second look.
        let mut candidates = self.candidates.clone();
        candidates.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.token.cmp(&b.token)));
        let mut least = self.bar.least;
        for candidate in candidates {
            if candidate.score + candidate.margin < least {
                continue;
            }
            best.push(exact(candidate.token as usize));
            if best.len() > self.k {
                keep_best(&mut best);
            }
            if best.len() == self.k {
                let worst = best.iter().map(|found| found.1).fold(f32::INFINITY, f32::min);
                least = least.max(self.lowered((f64::from(worst) / self.unit) as f32));
            }
        }
        keep_best(&mut best);
        best.into_iter().map(|(token, score)| (token as u32, score)).collect()
    }

    /// A score that is reached, less what the rounding of scores to `f32` may have added: a token
    /// that ties in `f32` may rank before one that scores a little more.
    fn lowered(&self, reached: f32) -> f32 {
        reached - 1e-6 * reached.abs()
    }
}
