//! Two engines by turns, and what can be said of the ratio of their rates.

/// The probability that an interval misses the median is at most this.
const MISS_MAX: f64 = 0.05;

/// One measurement by each engine, one right after the other.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    pub ours: f64,
    pub theirs: f64,
}

/// Measures by turns: A B, B A, A B, … so that neither engine profits from a drift of the machine.
pub fn alternate(
    pairs: usize,
    mut ours: impl FnMut() -> anyhow::Result<f64>,
    mut theirs: impl FnMut() -> anyhow::Result<f64>,
    mut tell: impl FnMut(Pair),
) -> anyhow::Result<Vec<Pair>> {
    let mut all = Vec::with_capacity(pairs);
    for index in 0..pairs {
        let pair = if index % 2 == 0 {
            let ours = ours()?;
            Pair { ours, theirs: theirs()? }
        } else {
            let theirs = theirs()?;
            Pair { ours: ours()?, theirs }
        };
        tell(pair);
        all.push(pair);
    }
    Ok(all)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_alternate_and_neither_is_always_first() {
        let order = std::cell::RefCell::new(String::new());
        let note = |letter: char| {
            order.borrow_mut().push(letter);
            Ok(1.0)
        };
        let pairs = alternate(4, || note('A'), || note('B'), |_| ()).unwrap();
        assert_eq!((pairs.len(), order.borrow().as_str()), (4, "ABBAABBA"));
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
}
