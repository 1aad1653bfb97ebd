//! Which relations an entity can have at all: a readout of the residual stream at its bare name.
//!
//! A country has a capital and a person has none, and a model's stream at a name tells the two apart
//! long before any relation is asked for. The readout is fitted on the table's entities, with names
//! that are none of them as a background; its layer is chosen by predictions of entities that it was
//! not fitted on, and those predictions are what later stages see of the table's entities.

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
    let names = names(prober.model(), facts, entities, background)?;
    let total = (entities.len() + names.len()) as u64;
    let mut rows: Vec<Vec<Vec<f32>>> = vec![Vec::new(); layers.len()];
    let mut has_row = Vec::new();
    let mut targets: Vec<f32> = Vec::new();
    for (index, name) in
        entities.iter().copied().chain(names.iter().map(String::as_str)).enumerate()
    {
        cancel.check()?;
        progress("entities", index as u64, total, "entities")?;
        let tokens = match has_row.len() < ENTITIES_MAX.max(entities.len()) {
            true => prober.tokens(name)?,
            false => None,
        };
        has_row.push(tokens.is_some());
        let Some(tokens) = tokens else { continue };
        let captured = prober.capture(&tokens)?;
        for (rows, &layer) in rows.iter_mut().zip(&layers) {
            rows.push(captured[layer].residual.clone());
        }
        let known =
            |relation: &String| index < entities.len() && facts.objects(name, relation).is_some();
        targets.extend(relations.iter().map(|relation| f32::from(u8::from(known(relation)))));
    }
    progress("entities", total, total, "entities")?;
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
    let Some((_, place, mut scores)) = best else { return Ok(None) };
    let given: Vec<&[f32]> = rows[place].iter().map(|row| &row[..]).collect();
    let LinearReadout { mean, weights, bias } =
        LinearReadout::fit(pool, &given, &targets, RIDGE, cancel)?;
    let record = ReadoutRecord { layer: layers[place] as u32, mean, weights, bias };
    let mut scores = scores.drain(..);
    let held_out = has_row[..entities.len()]
        .iter()
        .map(|&has_row| if has_row { scores.next().unwrap_or_default() } else { Vec::new() });
    Ok(Some(Applicability { held_out: held_out.collect(), record }))
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
