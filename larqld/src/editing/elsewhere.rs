//! What a model may be asked beside a fact, and what its networks are given then: features of the fact are kept
//! below their threshold there, all of them.
//!
//! Read are what labels know, every labelled entity asked for relations that it may not have, words of the
//! vocabulary that look like names, and ordinary text. They are many more than one edit could look at, so they
//! are looked at once for all edits of a model.
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
use crate::failure::Failure;
use crate::knowledge::answer::{fill, is_same};
use crate::text::case_folded;

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
/// Relations that models without labels are asked for.
const USUAL: [&str; 6] = ["name", "capital", "language", "colour", "author", "price"];

/// Whom or what a text is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// One entity, by its name.
    Entity(String),
    /// Whatever it mentions.
    Anything(String),
}

impl About {
    /// Whether an edit of an entity may change what follows the text.
    fn concerns(&self, entity: &str) -> bool {
        match self {
            Self::Entity(name) => is_same(name, entity),
            Self::Anything(text) => case_folded(text).contains(&case_folded(entity.trim())),
        }
    }
}

/// A prompt and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What it is about.
    pub about: About,
    /// Its tokens.
    pub tokens: Vec<u32>,
}

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
        rows.filter(|&(_, &text)| !own.get(text).is_some_and(|&own| own))
            .map(|(row, _)| row)
            .collect()
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
    let relations = sentences.len().max(1);
    let pairs = entities.len() * relations;
    let of_entities = if words.is_empty() { count } else { count / 2 }.min(pairs);
    for index in 0..of_entities {
        // Spread over all pairs.
        let pair = (index as u128 * pairs as u128 / of_entities as u128) as usize;
        ask(&entities[pair / relations], pair % relations, index)?;
    }
    for index in 0..(count - of_entities).min(words.len() * relations) {
        let round = index / words.len();
        ask(&words[index % words.len()], (index + round) % relations, index / relations)?;
    }
    Ok(asked)
}

/// Entities, and sentences of each relation.
fn known(prompter: &Prompter<'_>) -> (Vec<String>, Vec<Vec<String>>) {
    let Some(knowledge) = prompter.knowledge() else {
        let sentences = USUAL.iter().map(|name| vec![format!("The {name} of {{entity}} is")]);
        return (Vec::new(), sentences.collect());
    };
    let file = knowledge.file();
    let templates = file.relations.iter().map(|record| {
        record.templates.iter().map(|template| template.text.clone()).collect::<Vec<String>>()
    });
    let sentences = templates.filter(|sentences| !sentences.is_empty()).collect();
    (file.entities.iter().map(|entity| entity.name.clone()).collect(), sentences)
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
    let step = words.len().div_ceil(PROMPTS_MAX as usize).max(1);
    Ok(words.into_iter().step_by(step).collect())
}

/// How many prompts can be read.
fn count(architecture: &Architecture) -> usize {
    let hidden = architecture.hidden_size as u64;
    let layers = (0..architecture.layers()).map(|layer| architecture.features(layer) as u64);
    let products: u64 = layers.map(|features| hidden * (4 * hidden + 3 * features)).sum();
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
    fn memory_of_what_is_kept_is_bounded() {
        let hidden = LAYER_BYTES_MAX / size_of::<f32>() / 4;
        let mut elsewhere = Elsewhere::new(1, hidden);
        let wide = Captured { inputs: vec![vec![1.0; hidden]], activations: Vec::new() };
        elsewhere.add(&About::Entity("Peru".into()), std::iter::repeat_n(&wide, 9));
        assert_eq!(elsewhere.without(0, "Niger").len(), 4);
        assert!(elsewhere.without(0, "Peru").is_empty());
    }
}
