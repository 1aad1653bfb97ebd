//! Layer norm: mean taken away, then scaled to unit variance.

/// Writes `(x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias`; sums are taken in `f64`.
///
/// # Shapes
/// `x`, `weight`, `bias` (where there is one) and `out`: `[d]`; panics if they differ.
/// # Source
/// Ba, Kiros and Hinton 2016 (arXiv:1607.06450); the variance is that of the whole row.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "rows of different length");
    out.copy_from_slice(x);
    layer_norm_in_place(out, weight, bias, epsilon);
}

/// As [`layer_norm`], over its own input.
pub fn layer_norm_in_place(x: &mut [f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32) {
    assert_eq!(x.len(), weight.len(), "rows of different length");
    let count = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let squares = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
    let factor = 1.0 / (squares / count + f64::from(epsilon)).sqrt();
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = ((f64::from(*x) - mean) * factor) as f32 * weight;
    }
    if let Some(bias) = bias {
        assert_eq!(x.len(), bias.len(), "rows of different length");
        x.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normed_row_has_the_bias_as_mean_and_the_epsilon_counts() {
        for length in [1, 255, 257, 2880] {
            let x: Vec<f32> = (0..length).map(|i| ((i * 37 % 101) as f32 + 50.2) / 7.0).collect();
            let moments = |row: &[f32]| {
                let count = row.len() as f64;
                let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
                let squares = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
                (mean, squares / count)
            };
            let (weight, bias) = (vec![2.0; length], vec![0.75; length]);
            let mut out = vec![0.0; length];
            layer_norm(&x, &weight, Some(&bias), 0.5, &mut out);
            let ((_, variance), (mean, found)) = (moments(&x), moments(&out));
            assert!((mean - 0.75).abs() < 1e-6, "mean {mean}");
            assert!((found - 4.0 * variance / (variance + 0.5)).abs() < 1e-5, "variance {found}");
            let mut without = x.clone();
            layer_norm_in_place(&mut without, &weight, None, 0.5);
            assert!(without.iter().zip(&out).all(|(a, b)| (a + 0.75 - b).abs() < 1e-6));
        }
    }
}
