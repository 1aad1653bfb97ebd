//! Rotary position embedding: pairs of numbers turn by angles that grow with the position.

/// Cosines and sines of one position, `[half]` each.
///
/// The angle is a product in `f32`, as reference implementations compute it; its cosine and sine
/// are taken in `f64`.
pub fn angles(position: usize, inverse_frequencies: &[f32], cos: &mut [f32], sin: &mut [f32]) {
    assert!(cos.len() == inverse_frequencies.len() && sin.len() == cos.len(), "unequal halves");
    for ((frequency, cos), sin) in inverse_frequencies.iter().zip(cos).zip(sin) {
        let (s, c) = f64::from(position as f32 * frequency).sin_cos();
        (*cos, *sin) = (c as f32, s as f32);
    }
}

/// Turns number `i` of `low` with number `i` of `high`, by the angles of their position.
///
/// # Shapes
/// All of one length; panics if they differ.
/// # Source
/// Su et al. 2021 (arXiv:2104.09864).
pub fn rotate(low: &mut [f32], high: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert!(low.len() == cos.len() && high.len() == cos.len(), "unequal halves");
    assert_eq!(cos.len(), sin.len(), "unequal angles");
    for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        (*low, *high) = turned(*low, *high, *cos, *sin);
    }
}

/// Turns number `2 i` of a head with number `2 i + 1`.
///
/// # Shapes
/// `head`: `[2 * half]`; `cos`, `sin`: `[half]`; panics if they differ.
pub fn rotate_interleaved(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert!(head.len() == 2 * cos.len() && cos.len() == sin.len(), "unequal halves");
    for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
        (pair[0], pair[1]) = turned(pair[0], pair[1], *cos, *sin);
    }
}

#[inline]
fn turned(x: f32, y: f32, cos: f32, sin: f32) -> (f32, f32) {
    (x * cos - y * sin, y * cos + x * sin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_keeps_length_and_products_depend_on_distance_alone() {
        let frequencies = [1.0, 0.1, 0.01];
        let turned = |head: [f32; 6], position: usize| {
            let (mut cos, mut sin) = ([0.0; 3], [0.0; 3]);
            angles(position, &frequencies, &mut cos, &mut sin);
            let mut head = head;
            let (low, high) = head.split_at_mut(3);
            rotate(low, high, &cos, &sin);
            head
        };
        let (q, k) = ([0.3, -1.0, 2.0, 0.5, 0.25, -0.75], [1.5, 0.2, -0.4, 1.0, -2.0, 0.1]);
        let product = |a: [f32; 6], b: [f32; 6]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert_eq!(turned(q, 0), q);
        assert!((product(turned(q, 9), turned(q, 9)) - product(q, q)).abs() < 1e-5);
        let near = product(turned(q, 7), turned(k, 4));
        assert!((near - product(turned(q, 107), turned(k, 104))).abs() < 1e-4);
        assert!((near - product(turned(q, 4), turned(k, 7))).abs() > 1e-2, "direction matters");
    }
}
