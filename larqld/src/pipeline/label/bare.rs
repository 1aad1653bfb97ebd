//! Where a bare name stands when the source `residual` reads it: the templates that are tried, and the
//! choice among them.
//!
//! None of them names a relation. What a model has ready at a name depends on where the name stands:
//! one begins every text with its marker and reads a name as a title, another was trained on sentences.
//! Which templates read best is found on some of the table's entities, by how near the top of the
//! vocabulary the first tokens of their objects come; the streams of several are averaged.

use larql_compute::cpu::Cancel;

use super::readings::Known;
use crate::failure::Failure;
use crate::knowledge::prober::Prober;

/// The templates, the bare name first.
const TEMPLATES: [&str; 6] = [
    "{entity}",
    "The {entity}",
    "{entity} is",
    "{entity}:",
    "This is about {entity}",
    "{entity} and",
];
/// Entities that the choice is made on at most.
const ENTITIES_MAX: usize = 96;
/// How much better a further template must make the readings.
const GAIN_MIN: f64 = 0.01;

/// What is read at each template: `[entities][hidden]`.
type Streams = Vec<Vec<f32>>;

/// The templates that read best together, the best first; the bare name for a table without objects.
///
/// `chosen`: indices of entities that have tokens.
///
/// # Errors
/// As [`Prober::capture`].
pub fn choose(
    prober: &mut Prober<'_>,
    known: &Known<'_>,
    chosen: &[usize],
    cancel: &Cancel,
) -> Result<Vec<String>, Failure> {
    let count = ENTITIES_MAX.min(chosen.len());
    let sample: Vec<usize> = (0..count).map(|at| chosen[at * chosen.len() / count]).collect();
    let names: Vec<&str> = sample.iter().map(|&entity| known.entities[entity]).collect();
    let mut objects: Vec<Vec<u32>> = Vec::new();
    for name in &names {
        let mut tokens = Vec::new();
        for relation in known.relations {
            let of = known.facts.objects(name, relation);
            for object in of.into_iter().flat_map(|objects| &objects.names) {
                tokens.extend(prober.first_token(object)?);
            }
        }
        tokens.sort_unstable();
        tokens.dedup();
        objects.push(tokens);
    }
    let mut ranked: Vec<(f64, usize, Streams)> = Vec::new();
    for (index, template) in TEMPLATES.into_iter().enumerate() {
        cancel.check()?;
        let template = [template.to_owned()];
        let read = prober.read_residual(&names, &template)?;
        let streams: Streams = read.into_iter().map(|reading| reading.read).collect();
        ranked.push((reciprocal_rank(prober, &streams, &objects, cancel)?, index, streams));
    }
    // Of equals the simpler one.
    ranked.sort_by(|(a, a_index, _), (b, b_index, _)| b.total_cmp(a).then(a_index.cmp(b_index)));
    let mut ranked = ranked.into_iter();
    let Some((mut best, index, mut sum)) = ranked.next() else { return Ok(Vec::new()) };
    let mut templates = vec![TEMPLATES[index].to_owned()];
    for (_, index, streams) in ranked {
        // The mean of streams less its mean reads as their sum does: scores are compared in one reading.
        let mut with = sum.clone();
        for (with, stream) in with.iter_mut().zip(&streams) {
            with.iter_mut().zip(stream).for_each(|(with, x)| *with += x);
        }
        let score = reciprocal_rank(prober, &with, &objects, cancel)?;
        if score >= best * (1.0 + GAIN_MIN) {
            (best, sum) = (score, with);
            templates.push(TEMPLATES[index].to_owned());
        }
    }
    Ok(templates)
}

/// The mean reciprocal rank, among the whole vocabulary, of the first tokens of entities' objects in
/// what is read of the entities less what is read of them on average; 0 without objects.
fn reciprocal_rank(
    prober: &Prober<'_>,
    streams: &[Vec<f32>],
    objects: &[Vec<u32>],
    cancel: &Cancel,
) -> Result<f64, Failure> {
    let mut mean = vec![0.0; streams.first().map_or(0, Vec::len)];
    for stream in streams {
        let part = |(mean, x): (&mut f32, &f32)| *mean += x / streams.len() as f32;
        mean.iter_mut().zip(stream).for_each(part);
    }
    let (mut sum, mut count) = (0.0, 0_usize);
    for (stream, objects) in streams.iter().zip(objects).filter(|(_, of)| !of.is_empty()) {
        cancel.check()?;
        let own: Vec<f32> = stream.iter().zip(&mean).map(|(x, mean)| x - mean).collect();
        let scores = prober.word_scores(&own)?;
        for &token in objects {
            sum += 1.0 / rank(&scores, token) as f64;
            count += 1;
        }
    }
    Ok(sum / count.max(1) as f64)
}

/// The place of a token among all scores, from 1.
fn rank(scores: &[f32], token: u32) -> usize {
    let Some(&own) = scores.get(token as usize) else { return scores.len() + 1 };
    1 + scores.iter().filter(|&&score| score > own).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_has_the_entity_once_and_the_first_nothing_else() {
        assert_eq!(TEMPLATES[0], "{entity}");
        for template in TEMPLATES {
            assert_eq!(template.matches("{entity}").count(), 1, "{template}");
        }
    }

    #[test]
    fn a_token_has_the_place_of_its_score_and_an_unknown_one_the_last() {
        let scores = [0.5, 2.0, -1.0, 2.0];
        assert_eq!([1, 0, 2].map(|token| rank(&scores, token)), [1, 3, 4]);
        assert_eq!(rank(&scores, 9), 5);
    }
}
