//! Telling a fact's prompts from all others by the input of one layer's networks.
//!
//! A selector is a linear function that is 1 where the fact is asked for and below 0 elsewhere: ridge
//! regression against the inputs of a corpus, of the entity's other relations, and of the relation's
//! other entities. Its offset is carried by what all inputs have in common, because a feature has no
//! bias of its own. Of inputs elsewhere, which may be many thousands, it is solved against those that it would
//! come near to saying the fact of: how far below it is at the others does not matter.
//!
//! # Source
//! Ridge regression: Hoerl and Kennard 1970. The one-sided loss, squared, and its minimum by active sets:
//! Mangasarian 2002, *A finite Newton method for classification*; Keerthi and DeCoste 2005 (JMLR 6), section 2; here
//! with full steps, and at most six.
//! Keys of a fact as inputs of the network at the last token: Geva et al. 2021 (arXiv:2012.14913).

use std::collections::HashSet;

use faer::Mat;

use super::EditError;
use super::compose::RISE;
use super::solve::{Factors, SolveError, add_many, add_outer, positive_definite};

/// Penalty on a selector's length, in parts of the mean of the inputs' second moments.
const RIDGE: f64 = 0.03;

/// The most that should be said of inputs elsewhere, where 1 is wanted of the fact.
const ELSEWHERE_MOST: f64 = -0.5;
/// How much each of those that more is said of counts; the fact counts 1.
const ELSEWHERE_WEIGHT: f64 = 0.02;
/// Inputs elsewhere above this quantile are not avoided: an entity may have two names.
const ELSEWHERE_QUANTILE: f32 = 0.999;
/// The least part of what would be said of the fact otherwise that they may leave.
const LEFT_MIN: f64 = 0.5;
/// Times that they are looked for at most.
const ROUNDS_MAX: usize = 6;

/// Phrasings below this quantile are not waited for: a few do not mean what the rest does.
const FACT_QUANTILE: f32 = 0.2;
/// The least of a threshold, on the scale from -1 (others) to 1 (the fact).
const THRESHOLD_MIN: f32 = -0.2;

/// How careful a threshold is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Care {
    /// Others above this quantile are not avoided: a few mean what the fact does.
    others_quantile: f32,
    /// The most that it asks of the fact.
    threshold_max: f32,
}

impl Care {
    /// For features, which answer in part where the fact is selected in part.
    pub const OF_FEATURES: Self = Self { others_quantile: 0.97, threshold_max: 0.4 };
    /// For keys, whose answer is forced or not at all.
    pub const OF_KEYS: Self = Self { others_quantile: 0.99, threshold_max: 0.8 };
}

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

/// Inputs of a layer's networks at the ends of prompts, in groups that are seen or not seen together:
/// those of one phrasing, those of one entity.
#[derive(Debug, Clone, Default)]
pub struct Examples<'e> {
    /// Where the fact is asked for; at least one.
    pub fact: Vec<Vec<&'e [f32]>>,
    /// Where other relations of the entity are, and where the entity is only mentioned.
    pub relations: Vec<Vec<&'e [f32]>>,
    /// Where the relation of other entities is; none where something else tells entities apart.
    pub entities: Vec<Vec<&'e [f32]>>,
    /// Where anything else stands.
    pub elsewhere: Vec<&'e [f32]>,
}

/// What a selector says of each example when it has not seen that example's group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unseen {
    /// Of the fact's.
    pub fact: Vec<f32>,
    /// Of other relations.
    pub relations: Vec<f32>,
    /// Of other entities.
    pub entities: Vec<f32>,
}

/// A linear function of the input of a layer's networks.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    /// 1 on average where the fact is asked for, below 0 elsewhere: `[width]`.
    pub direction: Vec<f32>,
    /// 1 everywhere, as far as one function can be: `[width]`.
    pub constant: Vec<f32>,
    /// How well it tells examples that it has not seen.
    pub unseen: Unseen,
    /// The most that it says of inputs elsewhere, but for one in a thousand; `None` where it was solved against none.
    pub elsewhere: Option<f32>,
}

/// The normal equations of a selector's direction and of the constant.
struct Equations {
    /// `[width, width]`
    left: Mat<f64>,
    /// `[width]`, each.
    direction: Vec<f64>,
    constant: Vec<f64>,
}

impl Equations {
    /// Counts inputs, each with its weight and what should be said of it; a negative weight takes one back.
    fn add(&mut self, rows: &[(&[f32], f64, f64)]) {
        let weighed: Vec<(&[f32], f64)> =
            rows.iter().map(|&(input, weight, _)| (input, weight)).collect();
        add_many(&mut self.left, &weighed);
        for &(input, weight, value) in rows {
            let sides = self.direction.iter_mut().zip(&mut self.constant);
            for ((direction, constant), &x) in sides.zip(input) {
                *direction += weight * value * f64::from(x);
                *constant += weight * f64::from(x);
            }
        }
    }

    /// Counts inputs of which too much would be said otherwise. Returns the factors of the left side, and whether they
    /// are counted: where little would be left of what is said of the `fact`, as in networks too narrow to
    /// tell it from all others, none is.
    ///
    /// # Errors
    /// Where the equations are not positive definite.
    fn keep_below(
        &mut self,
        inputs: &[&[f32]],
        fact: &[Row<'_>],
    ) -> Result<(Factors, bool), SolveError> {
        let level = |direction: &[f64]| -> f64 {
            fact.iter().map(|row| product(direction, row.input)).sum::<f64>() / fact.len() as f64
        };
        let alone = (self.direction.clone(), self.constant.clone());
        let factors_alone = Factors::of(self.left.as_ref())?;
        let mut direction = self.solved(&factors_alone)?;
        let level_alone = level(&direction);
        let mut factors = None;
        let mut is_counted = vec![false; inputs.len()];
        for _ in 0..ROUNDS_MAX {
            let mut changes = Vec::new();
            for (&input, is_counted) in inputs.iter().zip(&mut is_counted) {
                let is_above = product(&direction, input) > ELSEWHERE_MOST;
                if is_above != *is_counted {
                    let weight = if is_above { ELSEWHERE_WEIGHT } else { -ELSEWHERE_WEIGHT };
                    changes.push((input, weight, ELSEWHERE_MOST));
                    *is_counted = is_above;
                }
            }
            if changes.is_empty() {
                break;
            }
            self.add(&changes);
            let found = Factors::of(self.left.as_ref())?;
            direction = self.solved(&found)?;
            factors = Some(found);
        }
        match factors {
            Some(factors) if level(&direction) >= LEFT_MIN * level_alone => Ok((factors, true)),
            Some(_) => {
                (self.direction, self.constant) = alone;
                Ok((factors_alone, false))
            }
            None => Ok((factors_alone, !inputs.is_empty())),
        }
    }

    fn solved(&self, factors: &Factors) -> Result<Vec<f64>, SolveError> {
        let right = Mat::from_fn(self.direction.len(), 1, |row, _| self.direction[row]);
        let found = factors.solve(right.as_ref())?;
        Ok((0..found.nrows()).map(|row| found[(row, 0)]).collect())
    }
}

/// An example with what it counts and what a selector should say of it.
struct Row<'e> {
    input: &'e [f32],
    weight: f64,
    value: f64,
    group: usize,
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
        let rows = rows(examples);
        let count = examples.fact.iter().flatten().count();
        if count == 0 {
            return Err(EditError::NoPrompts);
        }
        let (second, mean) = moments.normalised();
        let width = mean.len();
        let trace: f64 = (0..width).map(|index| second[(index, index)]).sum();
        // A corpus that is empty leaves the examples alone to decide.
        let own: f64 =
            rows[..count].iter().flat_map(|row| row.input).map(|&x| f64::from(x).powi(2)).sum();
        let scale = trace.max(own / count as f64) / width as f64;
        let mut equations = Equations { left: second, direction: Vec::new(), constant: mean };
        equations.direction.extend(equations.constant.iter().map(|mean| -mean));
        for index in 0..width {
            equations.left[(index, index)] += RIDGE * scale;
        }
        let own: Vec<(&[f32], f64, f64)> =
            rows.iter().map(|row| (row.input, row.weight, row.value)).collect();
        equations.add(&own);
        // An example that is left out to be judged must not stand elsewhere.
        let bits = |input: &[f32]| input.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        let known: HashSet<Vec<u32>> = rows.iter().map(|row| bits(row.input)).collect();
        let elsewhere = examples.elsewhere.iter().copied();
        let elsewhere: Vec<&[f32]> =
            elsewhere.filter(|input| !known.contains(&bits(input))).collect();
        let (factors, is_kept_below) = equations.keep_below(&elsewhere, &rows[..count])?;
        let right = Mat::from_fn(width, 2 + rows.len(), |index, column| match column {
            0 => equations.direction[index],
            1 => equations.constant[index],
            _ => f64::from(rows[column - 2].input[index]),
        });
        let solution = factors.solve(right.as_ref())?;
        let column =
            |index: usize| -> Vec<f64> { (0..width).map(|row| solution[(row, index)]).collect() };
        let scaled = |numbers: Vec<f64>| {
            let level = rows[..count].iter().map(|row| product(&numbers, row.input)).sum::<f64>()
                / count as f64;
            let scaled = numbers.iter().map(|number| (number / level) as f32);
            (level > 1e-6).then(|| (scaled.collect::<Vec<f32>>(), level))
        };
        let inseparable = EditError::Inseparable { layer };
        let (direction, level) = scaled(column(0)).ok_or_else(|| inseparable.clone())?;
        let (constant, _) = scaled(column(1)).ok_or(inseparable)?;
        // `x^T A^-1 y` of two examples.
        let between = |a: usize, b: usize| -> f64 {
            let (a, column) = (&rows[a], 2 + b);
            a.input.iter().enumerate().map(|(at, &x)| f64::from(x) * solution[(at, column)]).sum()
        };
        let said: Vec<f64> = rows.iter().map(|row| product(&column(0), row.input)).collect();
        let unseen = unseen(&rows, &said, between, level);
        let (fact, others) = unseen.split_at(count);
        let (relations, entities) = others.split_at(examples.relations.iter().flatten().count());
        let unseen = Unseen {
            fact: fact.to_vec(),
            relations: relations.to_vec(),
            entities: entities.to_vec(),
        };
        let mut selector = Selector { direction, constant, unseen, elsewhere: None };
        if is_kept_below {
            let says: Vec<f32> = elsewhere.iter().map(|input| selector.response(input)).collect();
            selector.elsewhere = quantile(&says, ELSEWHERE_QUANTILE);
        }
        Ok(selector)
    }

    /// The same selector with its zero where it was `threshold`, and a rise of `steepness`.
    #[must_use]
    pub fn above(&self, threshold: f32, steepness: f32) -> Vec<f32> {
        let pairs = self.direction.iter().zip(&self.constant);
        pairs.map(|(one, all)| steepness * (one - threshold * all)).collect()
    }

    /// Where the fact begins: in the middle of what is said of its unseen phrasings and of unseen
    /// others, and above nearly all that is said elsewhere, as far as `care` lets it rise.
    pub fn threshold(&self, care: Care) -> f32 {
        let others = [&self.unseen.relations[..], &self.unseen.entities].concat();
        let least = quantile(&self.unseen.fact, FACT_QUANTILE).unwrap_or(1.0);
        let most = quantile(&others, care.others_quantile).unwrap_or(-1.0);
        let elsewhere = self.elsewhere.map_or(THRESHOLD_MIN, |most| most + RISE / 2.0);
        (0.5 * (least + most)).max(elsewhere).clamp(THRESHOLD_MIN, care.threshold_max)
    }

    /// What it says of an input.
    pub fn response(&self, input: &[f32]) -> f32 {
        self.direction.iter().zip(input).map(|(a, b)| a * b).sum()
    }
}

/// All examples, group by group, the fact's first.
fn rows<'e>(examples: &Examples<'e>) -> Vec<Row<'e>> {
    // Other examples weigh as much as the fact, all of them.
    let relations = if examples.entities.is_empty() { 1.0 } else { 0.5 };
    let kinds = [
        (&examples.fact, 1.0, 1.0),
        (&examples.relations, relations, -1.0),
        (&examples.entities, 0.5, -1.0),
    ];
    let mut rows = Vec::new();
    let mut group = 0;
    for (groups, weight, value) in kinds {
        let weight = weight / groups.iter().flatten().count().max(1) as f64;
        for inputs in groups {
            rows.extend(inputs.iter().map(|input| Row { input, weight, value, group }));
            group += 1;
        }
    }
    rows
}

/// What the selector would say of each example without its group, in parts of `level`.
///
/// With the group's part `H = W^1/2 X A^-1 X^T W^1/2` of the hat matrix the residuals without the group
/// are `(I - H)^-1` times those with it.
///
/// # Source
/// Cook and Weisberg 1982, *Residuals and Influence in Regression*, section 3.2 (deletion of cases).
fn unseen(
    rows: &[Row<'_>],
    said: &[f64],
    between: impl Fn(usize, usize) -> f64,
    level: f64,
) -> Vec<f32> {
    let mut found = Vec::with_capacity(rows.len());
    let mut first = 0;
    while first < rows.len() {
        let size = rows[first..].iter().take_while(|row| row.group == rows[first].group).count();
        let weight = |at: usize| rows[first + at].weight.sqrt();
        let system = Mat::from_fn(size, size, |a, b| {
            f64::from(u8::from(a == b)) - weight(a) * weight(b) * between(first + a, first + b)
        });
        let residuals =
            Mat::from_fn(size, 1, |at, _| weight(at) * (rows[first + at].value - said[first + at]));
        let without = positive_definite(system.as_ref(), residuals.as_ref());
        for at in 0..size {
            let row = &rows[first + at];
            // A group that alone decides some direction says nothing without itself.
            let residual = without.as_ref().map_or(row.value, |found| found[(at, 0)] / weight(at));
            found.push(((row.value - residual) / level) as f32);
        }
        first += size;
    }
    found
}

fn quantile(numbers: &[f32], share: f32) -> Option<f32> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted.get((share * sorted.len().saturating_sub(1) as f32).round() as usize).copied()
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

    /// Moments of ten kinds.
    fn corpus() -> Moments {
        let mut moments = Moments::new(16);
        let rows = (0..10).flat_map(|kind| (0..20).map(move |seed| input(kind, seed)));
        rows.for_each(|row| moments.add(&row, 1.0));
        moments
    }

    #[test]
    fn a_selector_is_near_one_for_the_fact_and_not_positive_for_others() {
        let rows = |kind: usize, count: usize| -> Vec<Vec<f32>> {
            (0..count).map(|seed| input(kind, seed)).collect()
        };
        let moments = corpus();
        let (fact, relations, entities) = (rows(12, 4), rows(2, 6), rows(3, 8));
        fn groups(rows: &[Vec<f32>]) -> Vec<Vec<&[f32]>> {
            rows.chunks(2).map(|rows| rows.iter().map(Vec::as_slice).collect()).collect()
        }
        let examples = Examples {
            fact: groups(&fact),
            relations: groups(&relations),
            entities: groups(&entities),
            elsewhere: Vec::new(),
        };
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
        let none = Examples { fact: Vec::new(), ..examples.clone() };
        assert_eq!(Selector::solve(3, &moments, &none), Err(EditError::NoPrompts));
        let same = Examples {
            fact: groups(&relations),
            relations: groups(&relations),
            entities: groups(&relations),
            elsewhere: Vec::new(),
        };
        assert_eq!(Selector::solve(3, &moments, &same), Err(EditError::Inseparable { layer: 3 }));
    }

    #[test]
    fn what_is_said_of_an_unseen_group_is_what_a_selector_without_it_says() {
        let moments = corpus();
        let fact: Vec<Vec<f32>> = (0..4).map(|seed| input(12, seed)).collect();
        let others: Vec<Vec<f32>> = (0..6).map(|seed| input(seed, 7 + seed)).collect();
        let pairs = |rows: &[usize]| -> Vec<Vec<&[f32]>> {
            rows.chunks(2).map(|rows| rows.iter().map(|&row| &*fact[row]).collect()).collect()
        };
        let relations: Vec<Vec<&[f32]>> = others.iter().map(|row| vec![&**row]).collect();
        let all = Examples { fact: pairs(&[0, 1, 2, 3]), relations, ..Examples::default() };
        let told = Selector::solve(0, &moments, &all).unwrap();
        assert!(told.unseen.fact.iter().all(|&said| said > 0.5), "{:?}", told.unseen);
        assert!(told.unseen.relations.iter().all(|&said| said < 0.0), "{:?}", told.unseen);
        // The same by leaving the pair out, but for the weight that the others then share.
        let without = Examples { fact: pairs(&[2, 3]), ..all.clone() };
        let other = Selector::solve(0, &moments, &without).unwrap();
        for (row, unseen) in fact.iter().zip(&told.unseen.fact).take(2) {
            let said = other.response(row);
            assert!((said - unseen).abs() < 0.3, "{said} {:?}", told.unseen.fact);
        }
    }

    #[test]
    fn a_selector_is_solved_against_whatever_looks_like_the_fact_elsewhere() {
        let moments = corpus();
        let fact: Vec<Vec<f32>> = (0..4).map(|seed| input(12, seed)).collect();
        // Most of a fact's look, and something of its own.
        let alike: Vec<Vec<f32>> = (0..6)
            .map(|seed| {
                let (own, other) = (input(12, seed), input(13, seed));
                own.iter().zip(&other).map(|(a, b)| 0.8 * a + 0.4 * b).collect()
            })
            .collect();
        let far: Vec<Vec<f32>> = (0..40).map(|seed| input(seed % 10, 100 + seed)).collect();
        let mut examples =
            Examples { fact: fact.iter().map(|row| vec![&**row]).collect(), ..Examples::default() };
        let most = |selector: &Selector| -> f32 {
            alike.iter().map(|row| selector.response(row)).fold(f32::NEG_INFINITY, f32::max)
        };
        let without = Selector::solve(0, &moments, &examples).unwrap();
        assert!(most(&without) > 0.5 && without.elsewhere.is_none(), "{}", most(&without));
        examples.elsewhere = alike.iter().chain(&far).map(Vec::as_slice).collect();
        let with = Selector::solve(0, &moments, &examples).unwrap();
        assert!(most(&with) < most(&without) - 0.3, "{} {}", most(&with), most(&without));
        assert_eq!(with.elsewhere, Some(most(&with)));
        assert!(fact.iter().all(|row| with.response(row) > most(&with) + 0.3));
        // What is far from it anyway changes nothing.
        examples.elsewhere = far.iter().map(Vec::as_slice).collect();
        let same = Selector::solve(0, &moments, &examples).unwrap();
        assert_eq!(same.direction, without.direction);
        // A threshold is above what is said elsewhere, as far as it may rise.
        let care = |threshold_max: f32| Care { others_quantile: 0.97, threshold_max };
        let said = with.elsewhere.unwrap();
        assert!(with.threshold(care(0.95)) >= (said + RISE / 2.0).min(0.95), "{said}");
        assert!(with.threshold(care(0.1)) <= 0.1);
    }

    #[test]
    fn a_network_too_narrow_to_tell_a_fact_from_all_else_is_solved_without_it() {
        let wide = |angle: f32| vec![angle.cos(), angle.sin(), 1.0];
        let moments = Moments::new(3);
        let fact = [wide(0.0), wide(0.1)];
        let alike: Vec<Vec<f32>> = (0..400).map(|at| wide(0.2 - 0.001 * at as f32)).collect();
        let mut examples =
            Examples { fact: fact.iter().map(|row| vec![&**row]).collect(), ..Examples::default() };
        let without = Selector::solve(0, &moments, &examples).unwrap();
        examples.elsewhere = alike.iter().map(Vec::as_slice).collect();
        let with = Selector::solve(0, &moments, &examples).unwrap();
        assert_eq!(with, without);
    }

    #[test]
    fn an_example_that_stands_elsewhere_too_is_judged_as_one_that_was_left_out() {
        let moments = corpus();
        let (fact, other) = (input(12, 1), input(12, 2));
        let mut examples = Examples {
            fact: vec![vec![&fact]],
            entities: vec![vec![&other]],
            ..Examples::default()
        };
        let without = Selector::solve(0, &moments, &examples).unwrap();
        examples.elsewhere = vec![&other];
        let with = Selector::solve(0, &moments, &examples).unwrap();
        assert_eq!(with.unseen, without.unseen);
    }
}
