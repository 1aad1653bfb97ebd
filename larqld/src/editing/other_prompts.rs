//! What a model may be asked beside a fact, and what its networks are given then: features of the fact are kept
//! low there, and updates leave what is answered there.
//!
//! Made up are prompts of two kinds: entities that labels know with relations that they may not have, and words of
//! the vocabulary that look like names, spread over as many as can be read. With what labels learned and
//! ordinary text they are many more than one edit could look at, so they are looked at together for all edits of a model
//! ([ADR 16](../../../docs/adr/0016-features-are-kept-off-much-that-may-be-asked-elsewhere.md)).
//!
//! Promises: the same base and labels give the same prompts in the same order; their number is bounded by what
//! reading them takes, and what is kept of them by memory.
//!
//! Elsewhere: prompts of one fact and what is near to it ([`super::prompts`]), reading them
//! ([`super::background`]), solving against them (`compute::edit::selector`).

use std::collections::BTreeSet;

use larql_compute::edit::Captured;
use larql_compute::model::Architecture;

use super::prompts::Prompter;
use super::text::{About, Asked};
use crate::failure::Failure;
use crate::knowledge::Knowledge;
use crate::knowledge::answer::fill;

/// Prompts that are made up, at most and at least.
const PROMPTS_MAX: u64 = 3000;
const PROMPTS_MIN: u64 = 256;
/// Products of weights that reading them may take, beyond the least.
const PRODUCTS_MAX: u64 = 1 << 38;
/// Tokens of a prompt as a rule.
const TOKENS_USUAL: u64 = 10;
/// Memory for the inputs of one layer.
const LAYER_BYTES_MAX: usize = 64 << 20;
/// Letters of a word that stands for a name at least.
const LETTERS_MIN: usize = 4;
/// Relations that a model is asked for where labels have learned no sentence.
const USUAL: [&str; 6] = ["name", "capital", "language", "colour", "author", "price"];

/// What the networks of some layers are given in many texts.
#[derive(Debug, Default)]
pub struct Elsewhere {
    hidden: usize,
    about: Vec<About>,
    /// The text that each row stands in.
    texts: Vec<usize>,
    /// `[layers][rows][hidden]`
    inputs: Vec<Vec<f32>>,
}

impl Elsewhere {
    /// Nothing yet, for that many layers.
    pub fn new(layers: usize, hidden: usize) -> Self {
        Self { hidden, inputs: vec![Vec::new(); layers], ..Self::default() }
    }

    /// Keeps what networks were given at some positions of a text, while there is memory.
    pub fn add<'c>(&mut self, about: &About, positions: impl Iterator<Item = &'c Captured>) {
        let text = self.about.len();
        self.about.push(about.clone());
        let row_bytes = size_of::<f32>() * self.hidden;
        let room = (LAYER_BYTES_MAX / row_bytes.max(1)).saturating_sub(self.texts.len());
        for captured in positions.take(room) {
            self.texts.push(text);
            for (kept, input) in self.inputs.iter_mut().zip(&captured.inputs) {
                kept.extend_from_slice(input);
            }
        }
    }

    /// Inputs of one of the layers where nothing is said about an entity: rows of `[hidden]`.
    pub fn without(&self, place: usize, entity: &str) -> Vec<&[f32]> {
        let own: Vec<bool> = self.about.iter().map(|about| about.concerns(entity)).collect();
        let rows = self.inputs[place].chunks_exact(self.hidden.max(1)).zip(&self.texts);
        rows.filter(|&(_, &text)| !own[text]).map(|(row, _)| row).collect()
    }
}

/// Prompts that nobody may ever have asked: entities that labels know, and words that look like names, with
/// relations of all kinds.
///
/// # Errors
/// What the tokenizer refuses.
pub fn made_up(
    prompter: &Prompter<'_>,
    architecture: &Architecture,
) -> Result<Vec<Asked>, Failure> {
    let (entities, sentences) = known(prompter);
    let words = words(prompter, architecture)?;
    let count = count(architecture);
    let mut asked = Vec::new();
    let mut ask = |name: &str, relation: usize, turn: usize| -> Result<(), Failure> {
        let Some(sentences) = sentences.get(relation) else { return Ok(()) };
        let Some(sentence) = sentences.get(turn % sentences.len().max(1)) else { return Ok(()) };
        if let Some(tokens) = prompter.tokens(&fill(sentence, name))? {
            asked.push(Asked { about: About::Entity(name.to_owned()), tokens });
        }
        Ok(())
    };
    let half = if words.is_empty() { count } else { count / 2 };
    let mut left = count;
    for (names, most) in [(&entities, half), (&words, count)] {
        let pairs = spread(names.len() * sentences.len(), most.min(left));
        left -= pairs.len();
        let mut turns = vec![0; sentences.len()];
        for pair in pairs {
            let relation = pair % sentences.len();
            ask(&names[pair / sentences.len()], relation, turns[relation])?;
            turns[relation] += 1;
        }
    }
    Ok(asked)
}

/// So many different numbers below `all`, evenly over them and over their remainders by anything.
fn spread(all: usize, count: usize) -> Vec<usize> {
    let (all, count) = (all as u128, (count.min(all)) as u128);
    if all <= 1 {
        return (0..count as usize).collect();
    }
    // Multiples of the golden section are spread evenly, those of a number without common factors are all different.
    let near = (all as f64 * 0.618_033_988_749_895) as u128;
    let is_coprime = |&step: &u128| gcd(step, all) == 1;
    let step = (near.max(1)..all).chain(1..near.max(1)).find(is_coprime).unwrap_or(1);
    (0..count).map(|index| (index * step % all) as usize).collect()
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Entities, and sentences of each relation.
fn known(prompter: &Prompter<'_>) -> (Vec<String>, Vec<Vec<String>>) {
    let file = prompter.knowledge().map(Knowledge::file);
    let templates = file.into_iter().flat_map(|file| &file.relations).map(|record| {
        record.templates.iter().map(|template| template.text.clone()).collect::<Vec<String>>()
    });
    let mut sentences: Vec<_> = templates.filter(|sentences| !sentences.is_empty()).collect();
    if sentences.is_empty() {
        let usual = USUAL.iter().map(|name| vec![format!("The {name} of {{entity}} is")]);
        sentences.extend(usual);
    }
    let entities = file.into_iter().flat_map(|file| &file.entities);
    (entities.map(|entity| entity.name.clone()).collect(), sentences)
}

/// Words of the vocabulary that begin with a capital.
fn words(prompter: &Prompter<'_>, architecture: &Architecture) -> Result<Vec<String>, Failure> {
    let tokenizer = prompter.tokenizer()?;
    let mut seen = BTreeSet::new();
    let mut words = Vec::new();
    for token in 0..architecture.vocabulary_size as u32 {
        if tokenizer.is_special(token) {
            continue;
        }
        // An id that stands for nothing is no word.
        let Ok(text) = tokenizer.decode(&[token], false) else { continue };
        let word = text.trim();
        let mut letters = word.chars();
        let is_name = letters.next().is_some_and(char::is_uppercase)
            && letters.all(char::is_lowercase)
            && word.chars().count() >= LETTERS_MIN;
        if is_name && seen.insert(word.to_owned()) {
            words.push(word.to_owned());
        }
    }
    Ok(words)
}

/// How many prompts can be read.
fn count(architecture: &Architecture) -> usize {
    let hidden = architecture.hidden_size as u64;
    let features = (0..architecture.layers()).map(|layer| {
        let ffn = &architecture.layer(layer).ffn;
        let used = ffn.experts.map_or(0, |experts| experts.used * experts.features);
        (ffn.dense.map_or(0, |dense| dense.features) + used) as u64
    });
    let products: u64 = features.map(|features| hidden * (4 * hidden + 3 * features)).sum();
    (PRODUCTS_MAX / (TOKENS_USUAL * products).max(1)).clamp(PROMPTS_MIN, PROMPTS_MAX) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(number: f32) -> Captured {
        Captured { inputs: vec![vec![number; 2], vec![-number; 2]], activations: Vec::new() }
    }

    #[test]
    fn an_entity_is_not_told_from_texts_about_itself() {
        let mut elsewhere = Elsewhere::new(2, 2);
        elsewhere.add(&About::Entity("Niger".into()), [captured(1.0), captured(2.0)].iter());
        elsewhere.add(&About::Entity("Nigeria".into()), [captured(3.0)].iter());
        elsewhere.add(&About::Anything("Gold is heavy.".into()), [captured(4.0)].iter());
        let rows = |entity: &str| -> Vec<f32> {
            elsewhere.without(1, entity).iter().map(|row| row[0]).collect()
        };
        assert_eq!(rows("niger "), [-3.0, -4.0]);
        assert_eq!(rows("gold"), [-1.0, -2.0, -3.0]);
        assert_eq!(rows("Peru"), [-1.0, -2.0, -3.0, -4.0]);
    }

    #[test]
    fn pairs_are_all_different_and_ask_for_every_relation_as_often() {
        for (names, relations, count) in
            [(736, 21, 1500), (1500, 20, 1500), (3000, 20, 128), (5, 3, 99), (1, 1, 7)]
        {
            let pairs = spread(names * relations, count);
            let mut times = vec![0_usize; relations];
            let mut seen = BTreeSet::new();
            for pair in &pairs {
                assert!(seen.insert(*pair) && *pair < names * relations);
                times[pair % relations] += 1;
            }
            assert_eq!(pairs.len(), count.min(names * relations));
            let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
            assert!(most - least <= 1 + count / relations / 8, "{times:?}");
        }
        assert!(spread(0, 9).is_empty());
    }

    #[test]
    fn memory_of_what_is_kept_is_bounded() {
        let hidden = LAYER_BYTES_MAX / size_of::<f32>() / 4;
        let mut elsewhere = Elsewhere::new(1, hidden);
        let wide = Captured { inputs: vec![vec![1.0; hidden]], activations: Vec::new() };
        elsewhere.add(&About::Entity("Peru".into()), std::iter::repeat_n(&wide, 9));
        assert_eq!(elsewhere.without(0, "Niger").len(), 4);
        assert!(elsewhere.without(0, "Peru").is_empty());
    }
}
