//! Measures of what a probability is worth.

/// Returns the expected calibration error: the mean distance between confidence and hit rate over
/// ten bins of equal width, weighted by how many predictions fall into each; 0 without predictions.
///
/// # Source
/// Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017 (arXiv:1706.04599), section 2.
pub fn expected_calibration_error(predictions: &[(f64, bool)]) -> f64 {
    const BINS: usize = 10;
    let mut bins = [(0.0, 0.0); BINS];
    for &(confidence, hit) in predictions {
        let bin = ((confidence * BINS as f64) as usize).min(BINS - 1);
        bins[bin].0 += confidence;
        bins[bin].1 += f64::from(u8::from(hit));
    }
    let distance: f64 = bins.iter().map(|(confidence, hits)| (confidence - hits).abs()).sum();
    distance / (predictions.len().max(1) as f64)
}

/// Returns the lower end of the 95 % interval of a rate of which `hits` of `count` were seen; 0
/// without any.
///
/// # Source
/// Wilson 1927.
pub fn wilson_lower(hits: usize, count: usize) -> f64 {
    if count == 0 {
        return 0.0;
    }
    const Z: f64 = 1.96;
    let (n, rate) = (count as f64, hits as f64 / count as f64);
    let centre = rate + Z * Z / (2.0 * n);
    let spread = Z * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((centre - spread) / (1.0 + Z * Z / n)).max(0.0)
}

/// Returns the natural logarithm of the probability that `logits` give to `token`; minus infinity
/// for a token that is not among them.
pub fn log_probability(logits: &[f32], token: usize) -> f64 {
    let Some(&logit) = logits.get(token) else { return f64::NEG_INFINITY };
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&other| f64::from(other - most).exp()).sum();
    f64::from(logit - most) - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_honest_confidence_has_no_calibration_error_and_a_false_one_all() {
        let honest: Vec<_> = (0..100).map(|i| (0.75, i % 4 != 0)).collect();
        assert!(expected_calibration_error(&honest) < 1e-12);
        let boastful: Vec<_> = (0..100).map(|_| (1.0, false)).collect();
        assert_eq!(expected_calibration_error(&boastful), 1.0);
        assert_eq!(expected_calibration_error(&[]), 0.0);
    }

    #[test]
    fn the_interval_of_a_rate_narrows_with_the_count_and_never_reaches_it() {
        assert_eq!(wilson_lower(0, 0), 0.0);
        let all = [1, 10, 100].map(|n| wilson_lower(n, n));
        assert!(all.is_sorted() && all[2] < 1.0, "{all:?}");
        assert!((wilson_lower(8, 10) - 0.490).abs() < 1e-3, "{}", wilson_lower(8, 10));
    }

    #[test]
    fn probabilities_of_all_tokens_add_up_to_one() {
        let logits = [3.0, -1.0, 80.0, 79.5];
        let sum: f64 = (0..4).map(|token| log_probability(&logits, token).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        assert_eq!(log_probability(&logits, 4), f64::NEG_INFINITY);
    }
}
