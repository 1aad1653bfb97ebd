//! What can be said of a few measurements: medians, intervals, two methods on the same cases.

/// The probability that an interval misses what it is of is at most this.
const MISS_MAX: f64 = 0.05;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 4000;

/// The median of some numbers.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
    }
}

/// A median with bounds, whatever the distribution: the k-th number from either end, k as large as
/// `MISS_MAX` allows (the sign test's interval; David and Nagaraja, *Order Statistics*, section 7.1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Interval {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = rank(sorted.len());
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self {
            low: at(rank),
            median: median(sorted.iter().copied()),
            high: at(sorted.len().wrapping_sub(1 + rank)),
        }
    }
}

/// How many numbers lie outside at either end.
fn rank(count: usize) -> usize {
    let half = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let (mut rank, mut ways, mut below) = (0, 1.0, half);
    // `below`: the probability that at most `rank` of all numbers lie below the median.
    loop {
        ways = ways * (count - rank) as f64 / (rank + 1) as f64;
        below += ways * half;
        if 2.0 * below > MISS_MAX || 2 * (rank + 2) > count {
            return rank;
        }
        rank += 1;
    }
}

/// The probability, in percent, that the interval of so many numbers holds the median.
pub fn confidence(count: usize) -> f64 {
    let half = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let (mut ways, mut below) = (1.0, half);
    for index in 0..rank(count) {
        ways = ways * (count - index) as f64 / (index + 1) as f64;
        below += ways * half;
    }
    100.0 * (1.0 - 2.0 * below)
}

/// The value below which a share of the numbers lies: the nearest.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((share * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
}

/// The mean.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A figure of ours and of theirs on each of the same cases, smaller being better.
#[derive(Debug, Clone)]
pub struct Paired {
    pub ours: Vec<f64>,
    pub theirs: Vec<f64>,
}

impl Paired {
    /// Our figure over theirs, case by case: the median with its interval.
    pub fn ratio(&self) -> Interval {
        Interval::of(self.ours.iter().zip(&self.theirs).map(|(&ours, &theirs)| {
            // Equal figures, both 0 too, are as good as each other.
            if ours == theirs { 1.0 } else { ours / theirs }
        }))
    }

    /// Our figure over theirs: the geometric mean over cases, with the bootstrap's interval. No single case
    /// can dominate it.
    pub fn geometric_ratio(&self) -> Interval {
        // Far below any figure that counts: so that 0 has a logarithm.
        const LEAST: f64 = 1e-12;
        let pairs = self.ours.iter().zip(&self.theirs);
        let logarithms = pairs.map(|(ours, theirs)| ((ours + LEAST) / (theirs + LEAST)).ln());
        let Interval { low, median, high } = bootstrap(&logarithms.collect::<Vec<_>>());
        Interval { low: low.exp(), median: median.exp(), high: high.exp() }
    }

    /// Our mean less theirs, with the bootstrap's interval, which is too narrow where a few cases make
    /// most of a mean.
    pub fn difference(&self) -> Interval {
        let pairs = self.ours.iter().zip(&self.theirs);
        bootstrap(&pairs.map(|(ours, theirs)| ours - theirs).collect::<Vec<_>>())
    }
}

/// The mean with its interval over cases.
fn bootstrap(cases: &[f64]) -> Interval {
    bootstrap_of(cases, mean)
}

/// A figure with the interval of the percentile bootstrap over cases (Efron and Tibshirani, *An
/// Introduction to the Bootstrap*, chapter 13); the same cases give the same interval.
pub fn bootstrap_of<Case: Copy>(cases: &[Case], figure: impl Fn(&[Case]) -> f64) -> Interval {
    let count = cases.len();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut any = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        cases[state as usize % count]
    };
    let mut draw = |_| (0..count).map(|_| any()).collect::<Vec<Case>>();
    let mut figures: Vec<f64> = (0..RESAMPLES).map(|index| figure(&draw(index))).collect();
    figures.sort_by(f64::total_cmp);
    let outside = (RESAMPLES as f64 * MISS_MAX / 2.0) as usize;
    Interval {
        low: figures[outside],
        median: figure(cases),
        high: figures[RESAMPLES - 1 - outside],
    }
}

/// Bounds of a share that was seen `right` times of `all`, at 95 %.
///
/// # Source
/// Wilson 1927, *Probable Inference, the Law of Succession, and Statistical Inference*.
pub fn wilson(right: f64, all: f64) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    let (share, part) = (right / all, Z * Z / all);
    let middle = (share + part / 2.0) / (1.0 + part);
    let half = Z / (1.0 + part) * (share * (1.0 - share) / all + part / (4.0 * all)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_a_share_are_the_ones_of_the_tables() {
        for (right, all, low, high) in [(10.0, 10.0, 0.7225, 1.0), (8.0, 10.0, 0.4902, 0.9433)] {
            let found = wilson(right, all);
            assert!((found.0 - low).abs() < 1e-3 && (found.1 - high).abs() < 1e-3, "{found:?}");
        }
    }

    #[test]
    fn the_interval_holds_the_median_as_often_as_it_says() {
        // Binomial tails by hand: 2/128, 2 (1 + 9)/512, 2 (1 + 12 + 66)/4096.
        for (count, expected, percent) in [(7, 0, 98.4375), (9, 1, 96.09375), (12, 2, 96.142_578)] {
            assert_eq!(rank(count), expected, "{count}");
            assert!((confidence(count) - percent).abs() < 1e-4, "{count}");
        }
        let interval = Interval::of([3.0, 1.0, 2.0, 9.0, 5.0, 4.0, 8.0, 7.0, 6.0]);
        assert_eq!(interval, Interval { low: 2.0, median: 5.0, high: 8.0 });
    }

    #[test]
    fn a_difference_that_is_always_there_is_found_and_none_where_there_is_none() {
        let wave = |index: i32| 2.0 + f64::from(index % 7);
        let theirs: Vec<f64> = (0..300).map(wave).collect();
        let worse: Vec<f64> = theirs.iter().map(|value| value * 1.1).collect();
        let pair = Paired { ours: worse, theirs: theirs.clone() };
        assert!(pair.difference().low > 0.0 && (pair.ratio().low - 1.1).abs() < 1e-9);
        assert!((pair.geometric_ratio().low - 1.1).abs() < 1e-9);
        let other: Vec<f64> = (0..300).map(|index| wave(index + 3)).collect();
        let difference = Paired { ours: other, theirs }.difference();
        assert!(difference.low < 0.0 && 0.0 < difference.high, "{difference:?}");
    }
}
