//! Logistic regression over a handful of signals: how a confidence is made from evidence.

/// Newton steps at most; the problem is convex and settles in under ten.
const STEPS_MAX: usize = 50;
/// The step at which the fit has settled.
const SETTLED: f64 = 1e-9;

/// A probability as the logistic function of a weighted sum.
#[derive(Debug, Clone, PartialEq)]
pub struct Logistic {
    /// One weight a signal.
    pub weights: Vec<f64>,
    /// What is added to the sum.
    pub bias: f64,
}

impl Logistic {
    /// Fits weights by penalised maximum likelihood: `ridge` times half the squared weights is added
    /// to the negative log-likelihood (the bias goes free), so that the fit exists for any samples.
    ///
    /// # Shapes
    /// `samples`: `[n, signals]` row-major; `outcomes`: `[n]`; panics if they differ.
    /// # Errors
    /// `None` without samples of both outcomes, or when a signal is not finite.
    /// # Source
    /// Hoerl and Kennard's penalty on iteratively reweighted least squares; Bishop 2006, section
    /// 4.3.3.
    pub fn fit(samples: &[f64], outcomes: &[bool], signals: usize, ridge: f64) -> Option<Logistic> {
        assert_eq!(samples.len(), outcomes.len() * signals, "samples and outcomes differ");
        let hits = outcomes.iter().filter(|&&hit| hit).count();
        if hits == 0 || hits == outcomes.len() || samples.iter().any(|x| !x.is_finite()) {
            return None;
        }
        let size = signals + 1;
        let mut parameters = vec![0.0; size];
        parameters[signals] = (hits as f64 / (outcomes.len() - hits) as f64).ln();
        for _ in 0..STEPS_MAX {
            let mut gradient = vec![0.0; size];
            let mut hessian = vec![0.0; size * size];
            for signal in 0..signals {
                gradient[signal] = ridge * parameters[signal];
                hessian[signal * size + signal] = ridge;
            }
            // Keeps the last pivot above 0 where every probability is 0 or 1.
            hessian[size * size - 1] = 1e-9;
            for (row, &hit) in outcomes.iter().enumerate() {
                let sample = &samples[row * signals..(row + 1) * signals];
                let signal = |index: usize| sample.get(index).copied().unwrap_or(1.0);
                let sum: f64 = (0..size).map(|index| parameters[index] * signal(index)).sum();
                let probability = logistic(sum);
                let (error, weight) = (
                    probability - f64::from(u8::from(hit)),
                    (probability * (1.0 - probability)).max(1e-9),
                );
                for a in 0..size {
                    gradient[a] += error * signal(a);
                    for b in 0..=a {
                        hessian[a * size + b] += weight * signal(a) * signal(b);
                    }
                }
            }
            let step = solve(&mut hessian, &gradient, size)?;
            let mut largest = 0.0_f64;
            for (parameter, step) in parameters.iter_mut().zip(&step) {
                // A full step of Newton's may leap where the classes are far apart.
                let step = step.clamp(-4.0, 4.0);
                *parameter -= step;
                largest = largest.max(step.abs());
            }
            if largest < SETTLED {
                break;
            }
        }
        let finite = parameters.iter().all(|parameter| parameter.is_finite());
        let bias = parameters.pop()?;
        finite.then_some(Logistic { weights: parameters, bias })
    }

    /// As [`Logistic::fit`]; where all outcomes are one the rate itself, after Laplace, whatever the signals.
    pub fn fit_or_rate(samples: &[f64], outcomes: &[bool], signals: usize, ridge: f64) -> Logistic {
        Self::fit(samples, outcomes, signals, ridge).unwrap_or_else(|| {
            let hits = outcomes.iter().filter(|&&hit| hit).count() as f64;
            let odds = (hits + 1.0) / (outcomes.len() as f64 - hits + 1.0);
            Logistic { weights: vec![0.0; signals], bias: odds.ln() }
        })
    }

    /// The probability for one sample of signals, `[signals]`; panics if there are fewer or more.
    pub fn probability(&self, signals: &[f64]) -> f64 {
        assert_eq!(signals.len(), self.weights.len(), "another number of signals");
        let sum: f64 = self.weights.iter().zip(signals).map(|(weight, x)| weight * x).sum();
        logistic(sum + self.bias)
    }
}

fn logistic(sum: f64) -> f64 {
    1.0 / (1.0 + (-sum).exp())
}

/// Solves a symmetric positive definite system by Cholesky's factorisation; reads the lower triangle.
fn solve(matrix: &mut [f64], right: &[f64], size: usize) -> Option<Vec<f64>> {
    for column in 0..size {
        for row in column..size {
            let inner: f64 =
                (0..column).map(|k| matrix[row * size + k] * matrix[column * size + k]).sum();
            let rest = matrix[row * size + column] - inner;
            matrix[row * size + column] = match row == column {
                true if rest > 0.0 => rest.sqrt(),
                true => return None,
                false => rest / matrix[column * size + column],
            };
        }
    }
    let mut solution = right.to_vec();
    for row in 0..size {
        let inner: f64 = (0..row).map(|k| matrix[row * size + k] * solution[k]).sum();
        solution[row] = (solution[row] - inner) / matrix[row * size + row];
    }
    for row in (0..size).rev() {
        let inner: f64 = (row + 1..size).map(|k| matrix[k * size + row] * solution[k]).sum();
        solution[row] = (solution[row] - inner) / matrix[row * size + row];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fit_gives_back_the_rates_that_it_saw() {
        // One signal, 0 or 1; one in five of the former hit, three in four of the latter.
        let samples: Vec<f64> = (0..200).map(|i| f64::from(i % 2)).collect();
        let outcomes: Vec<bool> =
            (0..200).map(|i| if i % 2 == 0 { i % 10 == 0 } else { i % 8 != 7 }).collect();
        let fit = Logistic::fit(&samples, &outcomes, 1, 1e-6).unwrap();
        assert!((fit.probability(&[0.0]) - 0.2).abs() < 1e-3, "{fit:?}");
        assert!((fit.probability(&[1.0]) - 0.75).abs() < 1e-3, "{fit:?}");
    }

    #[test]
    fn outcomes_that_a_line_divides_still_have_a_fit() {
        let samples: Vec<f64> = (0..40).map(|i| f64::from(i) - 19.5).collect();
        let outcomes: Vec<bool> = (0..40).map(|i| i >= 20).collect();
        let fit = Logistic::fit(&samples, &outcomes, 1, 1.0).unwrap();
        assert!(fit.probability(&[-19.5]) < 0.01 && fit.probability(&[19.5]) > 0.99, "{fit:?}");
    }

    #[test]
    fn there_is_no_fit_without_both_outcomes_or_with_a_signal_that_is_no_number() {
        assert_eq!(Logistic::fit(&[], &[], 2, 1.0), None);
        assert_eq!(Logistic::fit(&[1.0, 2.0], &[true, true], 1, 1.0), None);
        assert_eq!(Logistic::fit(&[1.0, f64::NAN], &[true, false], 1, 1.0), None);
    }
}
