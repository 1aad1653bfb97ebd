//! What an edit did: to the answers that it was made for, to neighbours, and to a text that has
//! nothing to do with it.
//!
//! The prompts that are most at risk are asked, before and after, in one pass each: a paraphrase, the
//! relation of others, the entity's other relations, an entity with a similar name, and something
//! unrelated; of each kind those that look most like the fact (`FactPrompts::sort_by_risk`). They are few enough
//! that the whole receipt reads at most [`COST_MAX`] times the tokens of the prompt of the edit. Many changes that are
//! measured together, those of a patch, share that.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::learn::log_probability;
use larql_compute::model::{
    Decoder, DecoderOptions, DenseFfn, KvCache, KvPages, KvType, LogitsWanted, Precision, Segment,
};
use larql_compute::sample::greedy;
use serde_json::json;

use super::applied::Applied;
use super::prompts::FactPrompts;
use super::text::HELD_OUT;
use crate::failure::Failure;
use crate::mounts::Model;

/// Tokens that are read at most, in prompts of the edit.
pub const COST_MAX: usize = 12;
/// Tokens of the text at least.
const TEXT_TOKENS_MIN: usize = 6;

/// What an edit did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Receipt {
    /// The probability of the target's first token after the prompt of the edit.
    pub before: f64,
    /// The same under the edit.
    pub after: f64,
    /// The same after a paraphrase, before and under the edit.
    pub paraphrases: Vec<(f64, f64)>,
    /// What each neighbour's likeliest token lost, in probability.
    pub losses: Vec<f64>,
    /// Neighbours whose likeliest token is another one now.
    pub changed: usize,
    /// What the text takes more, in bits a token.
    pub drift: f64,
    /// Tokens read, in prompts of the edit.
    pub cost: f64,
}

impl Receipt {
    /// The worst that happened to a neighbour, in probability.
    pub fn harm(&self) -> f64 {
        self.losses.iter().copied().fold(0.0, f64::max)
    }

    /// The receipt as the `harm` column shows it.
    pub fn to_json(&self) -> String {
        self.told().to_string()
    }

    /// What it tells, by name.
    pub fn told(&self) -> serde_json::Value {
        let points = |probability: f64| (probability * 1e4).round() / 100.0;
        let pairs = self.paraphrases.iter();
        let pairs: Vec<_> =
            pairs.map(|(before, after)| json!({"before": before, "after": after})).collect();
        json!({
            "worst_points": points(self.harm()),
            "neighbours": self.losses.len(),
            "neighbours_changed": self.changed,
            "paraphrases": pairs,
            "drift_bits_per_token": self.drift,
            "cost": (self.cost * 10.0).round() / 10.0,
        })
    }
}

/// A change as it is measured: its prompts, and the token whose probability is told.
pub type Subject<'p> = (&'p FactPrompts, u32);

/// Measures what `after` does against `before` to one change and its neighbours.
///
/// # Errors
/// As passes of the model.
pub fn measure(
    model: &Model,
    subject: Subject<'_>,
    edits: (&Applied, &Applied),
    pool: &Pool,
    cancel: &Cancel,
) -> Result<Receipt, Failure> {
    measure_together(model, &[subject], edits, pool, cancel).map(|(receipt, _)| receipt)
}

/// Measures what many changes do together, for what one costs: the first is asked for itself, and as many of the
/// others as there is room for by a neighbour each. Returns which were asked about, by their index.
///
/// # Errors
/// As passes of the model.
pub fn measure_together(
    model: &Model,
    subjects: &[Subject<'_>],
    (before, after): (&Applied, &Applied),
    pool: &Pool,
    cancel: &Cancel,
) -> Result<(Receipt, Vec<usize>), Failure> {
    let Some((prompts, target)) = subjects.first() else {
        return Ok((Receipt::default(), Vec::new()));
    };
    let Some(own) = prompts.fact.first() else { return Ok((Receipt::default(), Vec::new())) };
    let spent = own.len() + TEXT_TOKENS_MIN;
    let mut budget = (COST_MAX * own.len() / 2).saturating_sub(spent);
    let mut asked: Vec<&[u32]> = vec![own];
    // What is asked of others beside is not asked of the one in other words.
    let alone = subjects.len() == 1;
    let paraphrase = prompts.paraphrases.iter().find(|prompt| alone && prompt.len() <= budget);
    let paraphrases = usize::from(paraphrase.is_some());
    let mut measured = vec![0];
    let neighbours = neighbours(subjects).into_iter();
    for (subject, prompt) in paraphrase.map(|prompt| (0, prompt)).into_iter().chain(neighbours) {
        if prompt.len() <= budget {
            budget -= prompt.len();
            asked.push(prompt);
            measured.extend((measured.last() < Some(&subject)).then_some(subject));
        }
    }
    let budget = budget + TEXT_TOKENS_MIN;
    let text = model.tokenizer()?.encode(HELD_OUT, true)?;
    let text = &text[..text.len().min(budget)];
    let mut reader = Reader::new(model, pool, cancel)?;
    let one = reader.read(&asked, text, before)?;
    let other = reader.read(&asked, text, after)?;
    let probability = |rows: &[Vec<f32>], row: usize, token: u32| {
        log_probability(&rows[row], token as usize).exp()
    };
    let mut receipt = Receipt {
        before: probability(&one.prompts, 0, *target),
        after: probability(&other.prompts, 0, *target),
        drift: (other.nats - one.nats) / std::f64::consts::LN_2,
        cost: 2.0 * (asked.iter().map(|prompt| prompt.len()).sum::<usize>() + text.len()) as f64
            / own.len() as f64,
        ..Receipt::default()
    };
    for row in 1..=paraphrases {
        let pair =
            (probability(&one.prompts, row, *target), probability(&other.prompts, row, *target));
        receipt.paraphrases.push(pair);
    }
    for row in paraphrases + 1..asked.len() {
        let token = greedy(&one.prompts[row]).unwrap_or_default();
        let loss = probability(&one.prompts, row, token) - probability(&other.prompts, row, token);
        receipt.losses.push(loss.max(0.0));
        receipt.changed += usize::from(greedy(&other.prompts[row]).ok() != Some(token));
    }
    Ok((receipt, measured))
}

/// The neighbours of changes in the order in which they are asked about, each with its change: of one by kind, of
/// several the nearest of each before a second of any.
fn neighbours<'p>(subjects: &[Subject<'p>]) -> Vec<(usize, &'p Vec<u32>)> {
    let kinds = |prompts: &'p FactPrompts| {
        let FactPrompts { entities, relations, unrelated, alike, passing, denied, .. } = prompts;
        // The last is another one of a kind that was there before.
        let second = entities.get(1..).unwrap_or_default();
        [entities, relations, unrelated, alike, passing, denied]
            .map(Vec::as_slice)
            .into_iter()
            .chain([second])
    };
    let first = |(subject, kind): (usize, &'p [Vec<u32>])| Some((subject, kind.first()?));
    match subjects {
        [(prompts, _)] => kinds(prompts).filter_map(|kind| first((0, kind))).collect(),
        _ => {
            let nearest = subjects.iter().enumerate();
            nearest
                .filter_map(|(subject, (prompts, _))| {
                    kinds(prompts).find_map(|kind| first((subject, kind)))
                })
                .collect()
        }
    }
}

/// A model that reads prompts under one edit and another.
struct Reader<'a> {
    model: &'a Model,
    decoder: Decoder<'a>,
    cancel: &'a Cancel,
}

/// What was read.
struct Read {
    /// Logits after each prompt.
    prompts: Vec<Vec<f32>>,
    /// What a token of the text took on average, in nats.
    nats: f64,
}

impl<'a> Reader<'a> {
    fn new(model: &'a Model, pool: &'a Pool, cancel: &'a Cancel) -> Result<Self, Failure> {
        let options = DecoderOptions { precision: Precision::Serving, ffn: &DenseFfn };
        let architecture = model.architecture();
        let decoder = Decoder::new(architecture, model, pool, options)?;
        Ok(Self { model, decoder, cancel })
    }

    fn read(&mut self, asked: &[&[u32]], text: &[u32], edits: &Applied) -> Result<Read, Failure> {
        let all: Vec<&[u32]> = asked.iter().copied().chain([text]).collect();
        let longest = all.iter().map(|tokens| tokens.len()).max().unwrap_or(1);
        let architecture = self.model.architecture();
        let pages = KvPages::for_caches(architecture, KvType::default(), all.len(), longest);
        let mut caches: Vec<KvCache> = all
            .iter()
            .map(|tokens| pages.cache(tokens.len()).with_overlay(edits.overlay.clone()))
            .collect();
        let mut segments: Vec<Segment<'_>> = Vec::with_capacity(all.len());
        for (row, (tokens, cache)) in all.iter().zip(&mut caches).enumerate() {
            let logits = if row < asked.len() { LogitsWanted::Last } else { LogitsWanted::All };
            segments.push(Segment { tokens, cache, logits });
        }
        self.decoder.forward(&mut segments, None, self.cancel)?;
        let vocabulary = self.model.architecture().vocabulary_size;
        let mut rows = Vec::with_capacity(asked.len());
        let mut nats = 0.0;
        for (segment, tokens) in all.iter().enumerate() {
            let logits = self.decoder.segment_logits(segment).chunks_exact(vocabulary);
            let found = self.decoder.segment_matches(segment);
            for (row, logits) in logits.enumerate() {
                let mut logits = logits.to_vec();
                let matches = found.get(row).map_or(&[][..], Vec::as_slice);
                let read = if segment < asked.len() { tokens } else { &tokens[..=row] };
                edits.force(self.model, read, matches, &mut logits)?;
                match tokens.get(row + 1) {
                    _ if segment < asked.len() => rows.push(logits),
                    Some(&next) => nats -= log_probability(&logits, next as usize),
                    None => {}
                }
            }
        }
        Ok(Read { prompts: rows, nats: nats / (text.len().max(2) - 1) as f64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(entities: &[u32], relations: &[u32]) -> FactPrompts {
        let of = |tokens: &[u32]| tokens.iter().map(|&token| vec![token]).collect();
        FactPrompts { entities: of(entities), relations: of(relations), ..FactPrompts::default() }
    }

    #[test]
    fn of_one_change_each_kind_of_neighbour_is_asked_and_of_several_the_nearest_of_each() {
        let (one, other) = (prompts(&[1, 2], &[3]), prompts(&[], &[4, 5]));
        let found = |subjects: &[Subject<'_>]| -> Vec<(usize, u32)> {
            neighbours(subjects).into_iter().map(|(subject, prompt)| (subject, prompt[0])).collect()
        };
        assert_eq!(found(&[(&one, 0)]), [(0, 1), (0, 3), (0, 2)]);
        assert_eq!(
            found(&[(&one, 0), (&FactPrompts::default(), 0), (&other, 0)]),
            [(0, 1), (2, 4)]
        );
    }
}
