//! Root-mean-square norm.

/// Writes `x / sqrt(mean(x²) + epsilon) * weight`; the sum of squares is taken in `f64`.
///
/// # Shapes
/// `x`, `weight` and `out`: `[d]`; panics if they differ.
/// # Source
/// Zhang and Sennrich 2019 (arXiv:1910.07467).
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len(), "rows of different length");
    let factor = inverse_rms(x, epsilon);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * factor * weight;
    }
}

/// As [`rms_norm`], over its own input.
pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
    assert_eq!(x.len(), weight.len(), "rows of different length");
    let factor = inverse_rms(x, epsilon);
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * factor * weight;
    }
}

/// As [`rms_norm_in_place`] with a weight of ones.
pub fn unit_rms_norm_in_place(x: &mut [f32], epsilon: f32) {
    let factor = inverse_rms(x, epsilon);
    x.iter_mut().for_each(|x| *x *= factor);
}

fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    let squares = crate::kernels::dot::dot_f64(x, x);
    (1.0 / (squares / x.len() as f64 + f64::from(epsilon)).sqrt()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normed_row_has_unit_mean_square_and_the_epsilon_counts() {
        for length in [1, 255, 257, 2880] {
            let x: Vec<f32> = (0..length).map(|i| ((i * 37 % 101) as f32 - 50.2) / 7.0).collect();
            let mut out = vec![0.0; length];
            rms_norm(&x, &vec![2.0; length], 0.5, &mut out);
            let squares = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
            let mean = squares(&x) / length as f64;
            let expected = 4.0 * mean / (mean + 0.5);
            assert!((squares(&out) / length as f64 / expected - 1.0).abs() < 1e-6);
            let mut again = x.clone();
            rms_norm_in_place(&mut again, &vec![2.0; length], 0.5);
            assert_eq!(again, out);
            let mut unit = x.clone();
            unit_rms_norm_in_place(&mut unit, 0.5);
            assert!(unit.iter().zip(&out).all(|(unit, out)| (unit * 2.0 - out).abs() < 1e-6));
        }
    }
}
