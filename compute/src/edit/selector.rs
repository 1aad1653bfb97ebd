//! Telling a fact's prompts from all others by the input of one layer's networks.
//!
//! A selector is a linear function that is 1 where the fact is asked for and below 0 elsewhere: ridge
//! regression against the inputs of a corpus, of the entity's other relations, and of the relation's
//! other entities. Its offset is carried by what all inputs have in common, because a feature has no
//! bias of its own.
//!
//! # Source
//! Ridge regression: Hoerl and Kennard 1970. Keys of a fact as inputs of the network at the last token:
//! Geva et al. 2021 (arXiv:2012.14913).

use faer::Mat;

use super::EditError;
use super::solve::{add_outer, positive_definite};

/// Penalty on a selector's length, in parts of the mean of the inputs' second moments.
const RIDGE: f64 = 0.03;

/// Mean and second moments of the inputs of a layer's networks over a corpus.
#[derive(Debug, Clone)]
pub struct Moments {
    second: Mat<f64>,
    mean: Vec<f64>,
    weight: f64,
}

impl Moments {
    /// None yet, of inputs of that width.
    pub fn new(width: usize) -> Moments {
        Moments { second: Mat::zeros(width, width), mean: vec![0.0; width], weight: 0.0 }
    }

    /// Counts an input so often.
    ///
    /// # Shapes
    /// `input`: `[width]`.
    pub fn add(&mut self, input: &[f32], weight: f64) {
        add_outer(&mut self.second, [input], weight);
        let pairs = self.mean.iter_mut().zip(input);
        pairs.for_each(|(mean, &x)| *mean += weight * f64::from(x));
        self.weight += weight;
    }

    /// The second moments and the mean.
    pub(super) fn normalised(&self) -> (Mat<f64>, Vec<f64>) {
        let weight = self.weight.max(f64::MIN_POSITIVE);
        let second = Mat::from_fn(self.second.nrows(), self.second.ncols(), |row, column| {
            self.second[(row, column)] / weight
        });
        (second, self.mean.iter().map(|mean| mean / weight).collect())
    }
}

/// Inputs of a layer's networks at the ends of prompts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Examples<'e> {
    /// Where the fact is asked for; at least one.
    pub fact: &'e [&'e [f32]],
    /// Where other relations of the entity are.
    pub relations: &'e [&'e [f32]],
    /// Where the relation of other entities is.
    pub entities: &'e [&'e [f32]],
}

/// A linear function of the input of a layer's networks.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    /// 1 on average where the fact is asked for, below 0 elsewhere: `[width]`.
    pub direction: Vec<f32>,
    /// 1 everywhere, as far as one function can be: `[width]`.
    pub constant: Vec<f32>,
}

impl Selector {
    /// Solves for a selector.
    ///
    /// # Errors
    /// `Inseparable` where it would not be positive for the fact, `NoPrompts`, `Solve`.
    pub fn solve(
        layer: usize,
        moments: &Moments,
        examples: &Examples<'_>,
    ) -> Result<Selector, EditError> {
        if examples.fact.is_empty() {
            return Err(EditError::NoPrompts);
        }
        let (mut second, mean) = moments.normalised();
        let width = mean.len();
        let trace: f64 = (0..width).map(|index| second[(index, index)]).sum();
        // A corpus that is empty leaves the examples alone to decide.
        let own: f64 =
            examples.fact.iter().flat_map(|row| row.iter()).map(|&x| f64::from(x).powi(2)).sum();
        let scale = trace.max(own / examples.fact.len() as f64) / width as f64;
        for index in 0..width {
            second[(index, index)] += RIDGE * scale;
        }
        let mut towards: Vec<f64> = mean.iter().map(|mean| -mean).collect();
        let mut everywhere = mean;
        let groups = [
            (examples.fact, 1.0, 1.0),
            (examples.relations, 0.5, -1.0),
            (examples.entities, 0.5, -1.0),
        ];
        for (rows, weight, value) in groups {
            let each = weight / rows.len().max(1) as f64;
            add_outer(&mut second, rows.iter().copied(), each);
            for row in rows {
                for (index, &x) in row.iter().enumerate() {
                    towards[index] += value * each * f64::from(x);
                    everywhere[index] += each * f64::from(x);
                }
            }
        }
        let right = Mat::from_fn(width, 2, |row, column| [towards[row], everywhere[row]][column]);
        let solution = positive_definite(second.as_ref(), right.as_ref())?;
        let column =
            |index: usize| -> Vec<f64> { (0..width).map(|row| solution[(row, index)]).collect() };
        let scaled = |numbers: Vec<f64>| {
            let level = examples.fact.iter().map(|row| product(&numbers, row)).sum::<f64>()
                / examples.fact.len() as f64;
            (level > 1e-6).then(|| -> Vec<f32> {
                numbers.iter().map(|number| (number / level) as f32).collect()
            })
        };
        let inseparable = EditError::Inseparable { layer };
        let direction = scaled(column(0)).ok_or_else(|| inseparable.clone())?;
        let constant = scaled(column(1)).ok_or(inseparable)?;
        Ok(Selector { direction, constant })
    }

    /// The same selector with its zero where it was `threshold`, and still 1 for the fact.
    #[must_use]
    pub fn above(&self, threshold: f32) -> Vec<f32> {
        let pairs = self.direction.iter().zip(&self.constant);
        pairs.map(|(one, all)| (one - threshold * all) / (1.0 - threshold)).collect()
    }

    /// What it says of an input.
    pub fn response(&self, input: &[f32]) -> f32 {
        self.direction.iter().zip(input).map(|(a, b)| a * b).sum()
    }
}

fn product(numbers: &[f64], row: &[f32]) -> f64 {
    numbers.iter().zip(row).map(|(a, &b)| a * f64::from(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An input with something that all have, a direction of its own kind, and noise.
    fn input(kind: usize, seed: usize) -> Vec<f32> {
        let noise = |index: usize| ((seed * 31 + index * 17) % 23) as f32 / 23.0 - 0.5;
        let part = |index: usize| match index {
            0 => 3.0,
            index if index == kind + 1 => 2.0,
            _ => 0.0,
        };
        (0..16).map(|index| part(index) + 0.4 * noise(index)).collect()
    }

    #[test]
    fn a_selector_is_near_one_for_the_fact_and_not_positive_for_others() {
        let rows = |kind: usize, count: usize| -> Vec<Vec<f32>> {
            (0..count).map(|seed| input(kind, seed)).collect()
        };
        let mut moments = Moments::new(16);
        (0..10).flat_map(|kind| rows(kind, 20)).for_each(|row| moments.add(&row, 1.0));
        let (fact, relations, entities) = (rows(12, 4), rows(2, 6), rows(3, 8));
        let slices = |rows: &'_ [Vec<f32>]| rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>();
        let owned = [slices(&fact), slices(&relations), slices(&entities)];
        let [fact, relations, entities]: [Vec<&[f32]>; 3] =
            std::array::from_fn(|at| owned[at].iter().map(Vec::as_slice).collect());
        let examples = Examples { fact: &fact, relations: &relations, entities: &entities };
        let selector = Selector::solve(3, &moments, &examples).unwrap();
        // Inputs that were not seen.
        for seed in 50..60 {
            assert!(selector.response(&input(12, seed)) > 0.6);
            for other in (0..10).map(|kind| input(kind, seed)) {
                assert!(selector.response(&other) < 0.0);
                let all: f32 = selector.constant.iter().zip(&other).map(|(a, b)| a * b).sum();
                assert!((0.5..1.5).contains(&all), "{all}");
            }
        }
        let none = Examples { fact: &[], ..examples };
        assert_eq!(Selector::solve(3, &moments, &none), Err(EditError::NoPrompts));
        let same = Examples { fact: &relations, relations: &relations, entities: &relations };
        assert_eq!(Selector::solve(3, &moments, &same), Err(EditError::Inseparable { layer: 3 }));
    }
}
