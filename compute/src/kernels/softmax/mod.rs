//! Softmax: scores to weights that add up to 1.

/// Replaces scores by `exp(score - max) / Σ`, the sum taken in `f64`.
///
/// A score that is NaN or minus infinity gets weight 0; if there is no other, all get 0. Scores of
/// plus infinity share the whole weight.
pub fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return scores.fill(0.0);
    }
    let mut sum = 0.0_f64;
    for score in scores.iter_mut() {
        *score = if *score == max {
            1.0
        } else if score.is_nan() {
            0.0
        } else {
            (*score - max).exp()
        };
        sum += f64::from(*score);
    }
    let factor = (1.0 / sum) as f32;
    scores.iter_mut().for_each(|score| *score *= factor);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_to_one_and_keep_their_ratios() {
        for length in [1, 255, 257, 2880] {
            let mut weights: Vec<f32> = (0..length).map(|i| 900.0 + (i % 9) as f32).collect();
            softmax(&mut weights);
            let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            assert!((sum - 1.0).abs() < 1e-5, "sum {sum}");
            if length > 1 {
                assert!((weights[1] / weights[0] - std::f32::consts::E).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn what_is_not_a_number_gets_no_weight() {
        let mut weights = [f32::NAN, 1.0, f32::NEG_INFINITY, 1.0];
        softmax(&mut weights);
        assert_eq!(weights, [0.0, 0.5, 0.0, 0.5]);
        let mut weights = [f32::NAN; 3];
        softmax(&mut weights);
        assert_eq!(weights, [0.0; 3]);
        let mut weights = [f32::INFINITY, 1.0];
        softmax(&mut weights);
        assert_eq!(weights, [1.0, 0.0]);
        softmax(&mut []);
    }
}
