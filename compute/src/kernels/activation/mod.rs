//! The functions on the gate of a feed-forward network, or on the first projection of a plain one.

use super::attention::exp_below_0;
use crate::quant::with_widest_lanes;

/// The square root of 2 / π, and the factor on the cube, in the `tanh` form of GELU.
const GELU_SLOPE: f32 = 0.797_884_6;
const GELU_CUBE: f32 = 0.044_715;

/// A function on the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// GELU in its `tanh` form.
    GeluTanh,
    /// GELU by the error function.
    Gelu,
    /// GELU by a logistic function: `x / (1 + exp(-1.702 x))`.
    QuickGelu,
    /// What is above 0.
    Relu,
}

impl Activation {
    /// The function that a configuration names.
    pub fn from_name(name: &str) -> Option<Activation> {
        match name {
            "silu" | "swish" => Some(Activation::Silu),
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => Some(Activation::GeluTanh),
            "gelu" | "gelu_python" => Some(Activation::Gelu),
            "quick_gelu" => Some(Activation::QuickGelu),
            "relu" => Some(Activation::Relu),
            _ => None,
        }
    }

    /// The function's name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu_pytorch_tanh",
            Activation::Gelu => "gelu",
            Activation::QuickGelu => "quick_gelu",
            Activation::Relu => "relu",
        }
    }

    /// The function at one point.
    ///
    /// # Source
    /// Hendrycks and Gimpel 2016 (arXiv:1606.08415) for both forms of GELU.
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::GeluTanh => {
                let inner = GELU_SLOPE * (x + GELU_CUBE * x * x * x);
                // (1 + tanh(u)) / 2 is the logistic function of 2u, which costs one exponential.
                x / (1.0 + (-2.0 * inner).exp())
            }
            Activation::Gelu => {
                let x = f64::from(x);
                (0.5 * x * erfc(-x * std::f64::consts::FRAC_1_SQRT_2)) as f32
            }
            Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
            // `max` would turn a NaN of damaged weights into 0.
            Activation::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
        }
    }
}

/// The complementary error function, to about 1.2e-7 of its value everywhere.
///
/// # Source
/// Rational Chebyshev fit of Numerical Recipes, second edition, section 6.2 (`erfcc`).
fn erfc(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + 0.5 * x.abs());
    let series = COEFFICIENTS.iter().rev().fold(0.0, |sum, coefficient| sum * t + coefficient);
    let tail = t * (series - x * x).exp();
    if x >= 0.0 { tail } else { 2.0 - tail }
}

/// Writes `activation(gate) * up` over `gate`, element by element; panics on unequal lengths.
pub fn gated(activation: Activation, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up of different length");
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = activation.apply(*gate) * up;
    }
}

/// As [`gated`], with an exponential that fills the processor's lanes; the same bits whatever their
/// width, within some 3e-7 of the value of [`gated`].
pub fn gated_by_lanes(activation: Activation, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up of different length");
    /// `x / (1 + exp(-y))`.
    #[inline(always)]
    fn logistic(x: f32, y: f32) -> f32 {
        let e = exp_below_0(-y.abs());
        x * (if y < 0.0 { e } else { 1.0 } / (1.0 + e))
    }
    with_widest_lanes(
        #[inline(always)]
        || match activation {
            Activation::Silu => {
                for (gate, up) in gate.iter_mut().zip(up) {
                    *gate = logistic(*gate, *gate) * up;
                }
            }
            Activation::GeluTanh => {
                for (gate, up) in gate.iter_mut().zip(up) {
                    let x = *gate;
                    let inner = GELU_SLOPE * (x + GELU_CUBE * x * x * x);
                    *gate = logistic(x, 2.0 * inner) * up;
                }
            }
            Activation::QuickGelu => {
                for (gate, up) in gate.iter_mut().zip(up) {
                    *gate = logistic(*gate, 1.702 * *gate) * up;
                }
            }
            Activation::Gelu | Activation::Relu => gated(activation, gate, up),
        },
    );
}

/// Writes `g * sigmoid(alpha * g) * (u + 1)` over `gate`, where `g` is the gate, at most `limit`,
/// and `u` is the up number, between `-limit` and `limit`; panics on unequal lengths.
///
/// # Source
/// The experts of gpt-oss (arXiv:2508.10925).
pub fn clamped_swiglu(limit: f32, alpha: f32, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up of different length");
    for (gate, up) in gate.iter_mut().zip(up) {
        // Written so that what is not a number stays so.
        let (g, u) = (if *gate > limit { limit } else { *gate }, up.clamp(-limit, limit));
        *gate = g / (1.0 + (-alpha * g).exp()) * (u + 1.0);
    }
}

/// Caps scores softly: `cap * tanh(x / cap)`.
pub fn softcap(cap: f32, scores: &mut [f32]) {
    for score in scores {
        *score = cap * (*score / cap).tanh();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error function by its Maclaurin series, good for small arguments.
    fn erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn exact_gelu_follows_the_error_function() {
        for step in -300..=300 {
            let x = f64::from(step) / 100.0;
            let expected = 0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt()));
            let error = (f64::from(Activation::Gelu.apply(x as f32)) - expected).abs();
            assert!(error < 1e-6, "gelu({x}) is off by {error:e}");
        }
    }

    #[test]
    fn the_two_gelus_are_close_but_not_the_same() {
        let differences = (-300..300).map(|step| {
            let x = step as f32 / 100.0;
            (Activation::Gelu.apply(x) - Activation::GeluTanh.apply(x)).abs()
        });
        let largest = differences.fold(0.0, f32::max);
        assert!((1e-4..1e-3).contains(&largest), "largest difference {largest}");
    }

    #[test]
    fn functions_by_lanes_are_the_functions_but_for_rounding() {
        let gate: Vec<f32> = (-3000..3000).map(|i| i as f32 / 30.0).collect();
        let up: Vec<f32> = (0..6000).map(|i| (i % 13) as f32 - 6.0).collect();
        for function in [
            Activation::Silu,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::QuickGelu,
            Activation::Relu,
        ] {
            let (mut expected, mut found) = (gate.clone(), gate.clone());
            gated(function, &mut expected, &up);
            gated_by_lanes(function, &mut found, &up);
            for (found, expected) in found.iter().zip(&expected) {
                let error = (found - expected).abs();
                assert!(error <= 2e-6 * expected.abs() + 1e-30, "{function:?}: {found} {expected}");
            }
            let mut damaged = [f32::NAN, 1.0];
            gated_by_lanes(function, &mut damaged, &[1.0, f32::NAN]);
            assert!(damaged.iter().all(|number| number.is_nan()), "{function:?}");
        }
    }

    #[test]
    fn functions_have_their_limits_far_from_zero() {
        for function in [
            Activation::Silu,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::QuickGelu,
            Activation::Relu,
        ] {
            assert_eq!(function.apply(60.0), 60.0);
            assert!(function.apply(-60.0).abs() < 1e-20, "{function:?}");
            assert_eq!(function.apply(0.0), 0.0);
            assert_eq!(Activation::from_name(function.name()), Some(function));
        }
    }

    #[test]
    fn a_clamped_gate_is_the_definition_inside_the_limit_and_flat_outside() {
        let apply = |gate: f32, up: f32| {
            let mut gate = [gate];
            clamped_swiglu(1.5, 1.702, &mut gate, &[up]);
            gate[0]
        };
        for (gate, up) in [(0.3_f32, -0.7_f32), (-9.0, 1.2), (1.5, -1.5), (0.0, 3.0)] {
            let (g, u) = (f64::from(gate), f64::from(up).clamp(-1.5, 1.5));
            let expected = g / (1.0 + (-1.702 * g).exp()) * (u + 1.0);
            assert!((f64::from(apply(gate, up)) - expected).abs() < 1e-6, "{gate} {up}");
        }
        assert_eq!(apply(7.0, -8.0), apply(1.5, -1.5), "above the limit nothing changes");
        assert!(apply(-7.0, 0.0) != apply(-1.5, 0.0), "the gate has no lower limit");
        assert!(apply(f32::NAN, 0.0).is_nan() && apply(0.5, f32::NAN).is_nan());
    }

    #[test]
    fn a_soft_cap_bounds_large_scores_and_keeps_small_ones() {
        let mut scores = [1e9, -1e9, 0.01];
        softcap(30.0, &mut scores);
        assert_eq!(scores[..2], [30.0, -30.0]);
        assert!((scores[2] - 0.01).abs() < 1e-6);
    }
}
