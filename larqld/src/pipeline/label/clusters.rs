//! Relations without facts: features that lead from one kind of word to another.
//!
//! A feature's gate has a token that it answers most, its down vector one that it writes most. The
//! difference of their rows of the vocabulary's table is the way from one to the other, and features
//! with parallel ways may stand for one relation, as `France → Paris` and `Japan → Tokyo` would. The
//! ways are clustered by k-means; a cluster is kept where its ways agree better than any cluster of
//! the same tokens does when inputs and outputs are paired anew, several times, so that what chance would make is
//! not shown. It is named by the vocabulary: the words that its inputs and its outputs have in common.
//!
//! Promises: nothing but weights is read; the same weights give the same clusters.

use larql_compute::cpu::Cancel;
use larql_compute::kernels::dot;
use larql_storage::vindex::knowledge::ClusterRecord;
use linfa::DatasetBase;
use linfa::traits::{Fit as _, Predict as _};
use linfa_clustering::KMeans;
use ndarray::Array2;
use rand_xoshiro::Xoshiro256Plus;
use rand_xoshiro::rand_core::SeedableRng as _;

use crate::failure::Failure;
use crate::knowledge::prober::Prober;
use crate::text::{case_folded, is_content};

/// Features that are clustered at most: those that write their token most clearly.
const FEATURES_MAX: usize = 512;
/// Features below which there is nothing to cluster.
const FEATURES_MIN: usize = 32;
/// Features for each cluster that is looked for, and clusters at most.
const FEATURES_A_CLUSTER: usize = 16;
const CLUSTERS_MAX: usize = 24;
/// Dimensions in which ways are compared: distances among as many differ little from the true ones
/// (Johnson and Lindenstrauss 1984; signs instead of normal numbers: Achlioptas 2003).
const DIMENSIONS: usize = 24;
/// Features of a cluster that is kept.
const MEMBERS_MIN: usize = 4;
/// How often inputs and outputs are paired anew, to see what chance makes.
const PAIRINGS: usize = 3;
/// Rounds of k-means.
const ROUNDS_MAX: u64 = 15;
const SEED: u64 = 1;

/// A feature with the tokens that it leads from and to.
struct Way {
    layer: u32,
    feature: u32,
    from: u32,
    to: u32,
}

/// A cluster before it has a name.
struct Found {
    members: Vec<usize>,
    /// The mean cosine between its ways and their mean.
    agreement: f64,
}

/// Clusters the features of a model; none where no features have tokens of both kinds.
///
/// # Errors
/// When cancelled; `MISSING_COMPONENT` without a table of the vocabulary.
pub fn discover(prober: &Prober<'_>, cancel: &Cancel) -> Result<Vec<ClusterRecord>, Failure> {
    let ways = ways(prober, cancel)?;
    if ways.len() < FEATURES_MIN {
        return Ok(Vec::new());
    }
    let from = rows(prober, ways.iter().map(|way| way.from))?;
    let to = rows(prober, ways.iter().map(|way| way.to))?;
    let found = clustered(&offsets(&from, &to, 0), cancel)?;
    let mut chance = 0.0_f64;
    for part in 1..=PAIRINGS {
        // So far away, each input meets another feature's output.
        let shift = part * ways.len() / (PAIRINGS + 1);
        let by_chance = clustered(&offsets(&from, &to, shift), cancel)?;
        chance = by_chance.iter().map(|one| one.agreement).fold(chance, f64::max);
    }
    let mut kept = Vec::new();
    for Found { members, agreement } in found {
        let distinct = |token: fn(&Way) -> u32| {
            let mut tokens: Vec<u32> = members.iter().map(|&at| token(&ways[at])).collect();
            tokens.sort_unstable();
            tokens.dedup();
            tokens.len()
        };
        // One token that many features share is a word, and no relation.
        let is_relation = distinct(|way| way.from) >= MEMBERS_MIN && distinct(|way| way.to) > 1;
        if agreement <= chance || !is_relation {
            continue;
        }
        let name = format!(
            "{} → {}",
            common_word(prober, &from, &members)?,
            common_word(prober, &to, &members)?
        );
        let slot = |&at: &usize| (ways[at].layer, ways[at].feature);
        let mut features: Vec<(u32, u32)> = members.iter().map(slot).collect();
        features.sort_unstable();
        kept.push(ClusterRecord { name, agreement, chance, features });
    }
    kept.sort_by(|a, b| b.agreement.total_cmp(&a.agreement).then(a.name.cmp(&b.name)));
    Ok(kept)
}

/// The features that lead from one word to another, the clearest ones.
fn ways(prober: &Prober<'_>, cancel: &Cancel) -> Result<Vec<Way>, Failure> {
    let model = prober.model();
    let (Some(inputs), Some(outputs)) = (model.gate_meta(), model.down_meta()) else {
        return Ok(Vec::new());
    };
    let tokenizer = model.tokenizer()?;
    let mut ways: Vec<(f32, Way)> = Vec::new();
    for layer in 0..model.layers() {
        cancel.check()?;
        for feature in 0..model.features(layer) as u32 {
            let from = inputs.feature(layer, feature).filter(|input| input.score > 0.0);
            let to = outputs.feature(layer, feature).and_then(|found| found.tokens().next());
            let (Some(from), Some((to, logit))) = (from, to) else { continue };
            let (a, b) = (tokenizer.word(from.token_id), tokenizer.word(to));
            if is_content(&a) && is_content(&b) && case_folded(&a) != case_folded(&b) {
                ways.push((logit, Way { layer, feature, from: from.token_id, to }));
            }
        }
        // Memory stays within some layers' features.
        if ways.len() > 8 * FEATURES_MAX {
            clearest(&mut ways);
        }
    }
    clearest(&mut ways);
    Ok(ways.into_iter().map(|(_, way)| way).collect())
}

fn clearest(ways: &mut Vec<(f32, Way)>) {
    ways.sort_by(|(a, a_of), (b, b_of)| {
        b.total_cmp(a).then((a_of.layer, a_of.feature).cmp(&(b_of.layer, b_of.feature)))
    });
    ways.truncate(FEATURES_MAX);
}

/// Rows of the vocabulary's table, each of length 1.
fn rows(prober: &Prober<'_>, tokens: impl Iterator<Item = u32>) -> Result<Vec<Vec<f32>>, Failure> {
    tokens
        .map(|token| {
            let mut row = prober.unembedding_row(token)?;
            to_unit(&mut row);
            Ok(row)
        })
        .collect()
}

fn to_unit(row: &mut [f32]) {
    let length = dot(row, row).sqrt();
    if length > 0.0 && length.is_finite() {
        row.iter_mut().for_each(|x| *x /= length);
    } else {
        row.fill(0.0);
    }
}

/// The way from each input to the output `shift` further on, in few dimensions, of length 1.
fn offsets(from: &[Vec<f32>], to: &[Vec<f32>], shift: usize) -> Array2<f64> {
    let mut all = Array2::zeros((from.len(), DIMENSIONS));
    for (at, from) in from.iter().enumerate() {
        let to = &to[(at + shift) % to.len()];
        let mut few = vec![0.0_f32; DIMENSIONS];
        for (place, (a, b)) in from.iter().zip(to).enumerate() {
            // A sign for each number and dimension, from the bits of a mixed index.
            let mut bits = (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            bits = (bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (bits >> 32);
            for few in &mut few {
                *few += if bits & 1 == 0 { b - a } else { a - b };
                bits = bits.rotate_right(1);
            }
        }
        to_unit(&mut few);
        all.row_mut(at).iter_mut().zip(few).for_each(|(out, x)| *out = x.into());
    }
    all
}

/// The clusters of rows, with how well each agrees.
fn clustered(rows: &Array2<f64>, cancel: &Cancel) -> Result<Vec<Found>, Failure> {
    cancel.check()?;
    let count = (rows.nrows() / FEATURES_A_CLUSTER).clamp(2, CLUSTERS_MAX);
    let data = DatasetBase::from(rows.view());
    let rng = Xoshiro256Plus::seed_from_u64(SEED);
    let fitted = KMeans::params_with_rng(count, rng)
        .n_runs(1)
        .max_n_iterations(ROUNDS_MAX)
        .tolerance(1e-3)
        .fit(&data);
    let Ok(fitted) = fitted else {
        // Rows that are all the same have no clusters.
        return Ok(Vec::new());
    };
    cancel.check()?;
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (row, &cluster) in fitted.predict(rows).iter().enumerate() {
        members[cluster].push(row);
    }
    members.retain(|members| members.len() >= MEMBERS_MIN);
    let found = members.into_iter().map(|members| {
        let mut mean = [0.0_f64; DIMENSIONS];
        for &row in &members {
            mean.iter_mut().zip(rows.row(row)).for_each(|(sum, x)| *sum += x);
        }
        // Rows have length 1: the mean cosine with their mean is the length of the latter.
        let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
        Found { agreement: length / members.len() as f64, members }
    });
    Ok(found.collect())
}

/// The word nearest to the mean of members' rows, less the mean of all: what they have in common and
/// others have not.
fn common_word(
    prober: &Prober<'_>,
    rows: &[Vec<f32>],
    members: &[usize],
) -> Result<String, Failure> {
    let mut mean = vec![0.0_f32; rows[0].len()];
    for &at in members {
        mean.iter_mut().zip(&rows[at]).for_each(|(sum, x)| *sum += x / members.len() as f32);
    }
    for row in rows {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum -= x / rows.len() as f32);
    }
    let scores = prober.word_scores(&mean)?;
    let tokenizer = prober.model().tokenizer()?;
    let best = (0..scores.len() as u32)
        .filter(|&token| is_content(&tokenizer.word(token)))
        .max_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]).then(b.cmp(&a)));
    Ok(best.map_or_else(String::new, |token| tokenizer.word(token).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit rows: `count` that differ by one of two ways, then noise.
    fn made(count: usize) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
        let number = |i: usize| ((i * 7919 % 1009) as f32 - 504.0) / 504.0;
        let row = |i: usize| -> Vec<f32> { (0..64).map(|j| number(i * 64 + j * 31 + i)).collect() };
        let ways = [row(5001), row(6002)];
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for i in 0..count {
            let mut a = row(i);
            let mut b: Vec<f32> =
                a.iter().zip(&ways[i % 2]).map(|(x, way)| x * 0.2 + way).collect();
            to_unit(&mut a);
            a.iter_mut().for_each(|x| *x *= 0.2);
            to_unit(&mut b);
            from.push(a);
            to.push(b);
        }
        (from, to)
    }

    #[test]
    fn features_with_parallel_ways_are_one_cluster_and_agree() {
        let (from, to) = made(64);
        let found = clustered(&offsets(&from, &to, 0), &Cancel::new()).unwrap();
        assert!(!found.is_empty());
        for Found { members, agreement } in &found {
            let of_first = members.iter().filter(|&at| at % 2 == 0).count();
            assert!(of_first == 0 || of_first == members.len(), "two ways in one: {members:?}");
            assert!(*agreement > 0.9, "{agreement}");
        }
    }

    #[test]
    fn rows_without_any_way_have_no_cluster() {
        let same = vec![vec![0.5_f32; 8]; 40];
        let found = clustered(&offsets(&same, &same, 0), &Cancel::new()).unwrap();
        assert!(found.iter().all(|one| one.agreement == 0.0));
    }
}
