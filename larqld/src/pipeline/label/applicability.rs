//! Which relations an entity can have at all: a readout of the residual stream at its bare name.
//!
//! A country has a capital and a person has none, and a model's stream at a name tells the two apart
//! long before any relation is asked for. The readout is fitted on the table's entities, with names
//! that are none of them as a background; its layer is chosen by predictions of entities that it was
//! not fitted on, and those predictions are what later stages see of the table's entities.

use std::collections::HashSet;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::learn::LinearReadout;
use larql_storage::vindex::knowledge::ReadoutRecord;

use super::facts::Facts;
use crate::failure::Failure;
use crate::knowledge::prober::Prober;
use crate::mounts::Model;
use crate::pipeline::Progress;
use crate::text::is_content;

/// Parts that entities are divided into; each is predicted from the others.
pub const FOLDS: usize = 5;
/// Entities that the readout is fitted on at most.
const ENTITIES_MAX: usize = 4096;
/// Words of the vocabulary that stand for everything else.
const BACKGROUND_WORDS: usize = 96;
/// Letters that such a word has at least: shorter ones are pieces.
const BACKGROUND_LETTERS_MIN: usize = 3;
/// The ridge, in parts of the rows' mean square.
const RIDGE: f32 = 0.01;

/// The fitted readout, and its scores of the table's entities when each was left out.
#[derive(Debug)]
pub struct Applicability {
    /// The readout.
    pub record: ReadoutRecord,
    /// `[entities][relations]`, in the order that was given; empty for a name without tokens.
    pub held_out: Vec<Vec<f32>>,
}

/// Learns which relations the entities of a table can have.
///
/// # Errors
/// As [`Prober::capture`].
pub fn learn(
    prober: &mut Prober<'_>,
    pool: &Pool,
    (facts, entities, background): (&Facts, &[&str], &Facts),
    relations: &[String],
    cancel: &Cancel,
    progress: &mut Progress<'_>,
) -> Result<Option<Applicability>, Failure> {
    let layers = layers(prober.model());
    let count = ENTITIES_MAX.min(entities.len());
    let chosen: Vec<usize> = (0..count).map(|at| at * entities.len() / count).collect();
    let background = names(prober.model(), facts, entities, background)?;
    let texts = chosen.iter().map(|&entity| entities[entity]);
    let texts: Vec<&str> = texts.chain(background.iter().map(String::as_str)).collect();
    let total = entities.len().max(texts.len()) as u64;
    let mut rows: Vec<Vec<Vec<f32>>> = vec![Vec::new(); layers.len()];
    let mut targets: Vec<f32> = Vec::new();
    // Entities with a row, which come first.
    let mut with_row: Vec<usize> = Vec::new();
    let mut read = 0;
    let mut streams = |prober: &mut Prober<'_>, texts: &[&str]| {
        cancel.check()?;
        progress("entities", read.min(total), total, "entities")?;
        read += texts.len() as u64;
        streams(prober, texts, &layers)
    };
    for (batch, first) in
        texts.chunks(prober.captured_batch()).zip((0..).step_by(prober.captured_batch()))
    {
        for (index, captured) in (first..).zip(streams(prober, batch)?) {
            let Some(captured) = captured else { continue };
            rows.iter_mut().zip(captured).for_each(|(rows, row)| rows.push(row));
            let entity = chosen.get(index).copied();
            with_row.extend(entity);
            let known = |relation: &String| {
                entity.is_some_and(|at| facts.objects(entities[at], relation).is_some())
            };
            targets.extend(relations.iter().map(|relation| f32::from(u8::from(known(relation)))));
        }
    }
    if rows[0].is_empty() || relations.is_empty() {
        return Ok(None);
    }
    let outputs = relations.len();
    let mut best: Option<(f64, usize, Vec<Vec<f32>>)> = None;
    for (place, rows) in rows.iter().enumerate() {
        let mut scores = vec![Vec::new(); rows.len()];
        for fold in 0..FOLDS {
            let (train, test): (Vec<usize>, Vec<usize>) =
                (0..rows.len()).partition(|row| row % FOLDS != fold);
            if train.is_empty() {
                continue;
            }
            let of = |rows_of: &[usize]| -> Vec<f32> {
                rows_of
                    .iter()
                    .flat_map(|&row| targets[row * outputs..(row + 1) * outputs].iter().copied())
                    .collect()
            };
            let given: Vec<&[f32]> = train.iter().map(|&row| &rows[row][..]).collect();
            let readout = LinearReadout::fit(pool, &given, &of(&train), RIDGE, cancel)?;
            for &row in &test {
                scores[row] = readout.scores(&rows[row]);
            }
        }
        let errors = scores.iter().flatten().zip(&targets);
        let error: f64 = errors.map(|(score, target)| f64::from(score - target).powi(2)).sum();
        if best.as_ref().is_none_or(|(least, ..)| error < *least) {
            best = Some((error, place, scores));
        }
    }
    let Some((_, place, scores)) = best else { return Ok(None) };
    let given: Vec<&[f32]> = rows[place].iter().map(|row| &row[..]).collect();
    let readout = LinearReadout::fit(pool, &given, &targets, RIDGE, cancel)?;
    let mut held_out = vec![Vec::new(); entities.len()];
    for (&entity, scores) in with_row.iter().zip(scores) {
        held_out[entity] = scores;
    }
    // What the readout was not fitted on at all is held out anyway.
    let fitted: HashSet<usize> = chosen.iter().copied().collect();
    let others: Vec<usize> = (0..entities.len()).filter(|at| !fitted.contains(at)).collect();
    for batch in others.chunks(prober.captured_batch()) {
        let names: Vec<&str> = batch.iter().map(|&at| entities[at]).collect();
        for (&at, captured) in batch.iter().zip(streams(prober, &names)?) {
            held_out[at] = captured.map_or_else(Vec::new, |rows| readout.scores(&rows[place]));
        }
    }
    progress("entities", total, total, "entities")?;
    let LinearReadout { mean, weights, bias } = readout;
    let record = ReadoutRecord { layer: layers[place] as u32, mean, weights, bias };
    Ok(Some(Applicability { held_out, record }))
}

/// The residual streams at names, layer by layer; `None` for a name without tokens.
fn streams(
    prober: &mut Prober<'_>,
    names: &[&str],
    layers: &[usize],
) -> Result<Vec<Option<Vec<Vec<f32>>>>, Failure> {
    let tokens = names.iter().map(|name| prober.tokens(name));
    let tokens: Vec<Option<Vec<u32>>> = tokens.collect::<Result<_, _>>()?;
    let prompts: Vec<&[u32]> = tokens.iter().flatten().map(Vec::as_slice).collect();
    let mut captured = prober.capture(&prompts)?.into_iter();
    let of_name = tokens.iter().map(|tokens| {
        let mut of_layers = tokens.as_ref().and_then(|_| captured.next())?.layers;
        Some(layers.iter().map(|&layer| std::mem::take(&mut of_layers[layer].residual)).collect())
    });
    Ok(of_name.collect())
}

/// The layers that are tried: a name's kind is not told apart before the middle.
fn layers(model: &Model) -> Vec<usize> {
    let count = model.architecture().layers();
    let mut layers: Vec<usize> = [count / 2, count * 2 / 3, count * 5 / 6, count - 1]
        .map(|layer| layer.min(count - 1))
        .into();
    layers.dedup();
    layers
}

/// Names that are no entities of the table: entities of the background table that share no relation
/// with it, and words of the vocabulary.
fn names(
    model: &Model,
    facts: &Facts,
    entities: &[&str],
    background: &Facts,
) -> Result<Vec<String>, Failure> {
    let shares = |entity: &str| {
        facts.relations().any(|(relation, _)| background.objects(entity, relation).is_some())
    };
    let others = background.entities().into_iter();
    let others = others.filter(|entity| !entities.contains(entity) && !shares(entity));
    let mut names: Vec<String> = others.map(str::to_owned).collect();
    let tokenizer = model.tokenizer()?;
    let vocabulary = model.architecture().vocabulary_size;
    let words = (0..vocabulary as u32).map(|id| tokenizer.word(id)).filter(|word| {
        is_content(word)
            && word.chars().count() >= BACKGROUND_LETTERS_MIN
            // A capital may begin the name of an entity that the table lacks.
            && word.chars().all(char::is_lowercase)
    });
    let words: Vec<_> = words.collect();
    let count = BACKGROUND_WORDS.min(words.len());
    names.extend((0..count).map(|index| words[index * words.len() / count].to_string()));
    Ok(names)
}
