//! The prompts of a fact: where it is asked for, how else it may be, and where it is not.
//!
//! A relation that LABEL has learned is asked for by its learned sentences; any other by the plain
//! forms that fit every relation. What must not change is asked for likewise: the entity's other
//! relations, the relation of other entities, and prompts that only mention the entity.
//!
//! Promises: the same base, labels and fact give the same prompts in the same order.

use std::collections::HashSet;

use larql_storage::vindex::knowledge::RelationRecord;

use super::sentences;
use super::text::{self, About, Asked, HELD_OUT, ORDINARY};
use crate::failure::{Failure, code};
use crate::inference::check_tokens;
use crate::knowledge::Knowledge;
use crate::knowledge::answer::{fill, is_same};
use crate::mounts::Model;
use crate::text::Tokenizer;

/// Sentences for any relation, in the order in which they are used.
const PLAIN: [&str; 6] = [
    "The {relation} of {entity} is",
    "Question: What is the {relation} of {entity}? Answer:",
    "{entity}'s {relation} is",
    "The {relation} for {entity} is",
    "{entity} has the {relation}",
    "What is the {relation} of {entity}? It is",
];
/// What may stand before a sentence without changing what it asks.
const BEFORE: [&str; 2] = ["It is well known that", "I can tell you that"];
/// Learned sentences of a relation that are used at most.
const SENTENCES_MAX: usize = 8;
/// Plain forms of a relation that was learned, beside its sentences.
const PLAIN_BESIDE: usize = 2;
/// Other entities whose relation is looked at.
const ENTITIES_MAX: usize = 48;
/// Sentences by which each is asked for.
pub const SENTENCES_OF_OTHERS: usize = 2;
/// Other relations that the entity is asked for, and sentences of each: for all edits, and for keys.
const RELATIONS_MAX: usize = 24;
const SENTENCES_OF_RELATIONS: [usize; 2] = [4, 14];
/// Phrasings that receipts ask by, which keys are not made from either.
const JUDGED: usize = 1;
/// What may stand before a sentence about another entity.
const PASSING: [&str; 5] = [
    "{entity}.",
    "Apart from {entity},",
    "They came from {entity}.",
    "In contrast to {entity},",
    "A friend told me about {entity}.",
];
/// Prompts that mention the entity in passing at most, and those that deny.
const PASSING_MAX: usize = 15;
const NEGATED: usize = 4;
/// Prompts about something else.
const UNRELATED: usize = 3;
/// Known names that contain one another.
const ALIKE_MAX: usize = 4;
/// Words of the beginnings of sentences that stand for any text.
const BEGINNINGS: [usize; 3] = [2, 4, 6];
/// Every so many sentences of the ordinary text have their beginnings read alone.
const BEGINNINGS_EVERY: usize = 5;
/// Bytes of sentences of it that are read together: fewer than tokens fit any model.
const TEXT_BYTES_MAX: usize = 160;
/// Tokens of a prompt at most.
const PROMPT_TOKENS_MAX: usize = 256;

/// The prompts of a fact, as tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FactPrompts {
    /// Where it is asked for, the plainest first.
    pub fact: Vec<Vec<u32>>,
    /// Where it is asked for, too, though the model does not answer: keys alone are made from these.
    pub unclear: Vec<Vec<u32>>,
    /// Where it is asked for in other words, which no feature or update is made from, and no key from the first.
    pub paraphrases: Vec<Vec<u32>>,
    /// Where other relations of the entity are.
    pub relations: Vec<Vec<u32>>,
    /// Where they are in more ways, for keys alone.
    pub more_relations: Vec<Vec<u32>>,
    /// Where the entity is named and nothing is asked, or the fact denied.
    pub denied: Vec<Vec<u32>>,
    /// Where the entity is named and something of others is asked.
    pub passing: Vec<Vec<u32>>,
    /// Where the relation of entities with a similar name is.
    pub alike: Vec<Vec<u32>>,
    /// Where the relation of other entities is.
    pub entities: Vec<Vec<u32>>,
    /// Where other relations of other entities are; no edit is made from them.
    pub unrelated: Vec<Vec<u32>>,
}

impl FactPrompts {
    /// Puts those first of each kind that look most like the fact, by what a selector says of `named`
    /// and of `entities`.
    pub fn sort_by_risk(&mut self, named: &[f32], entities: &[f32]) {
        let (relations, others) = named.split_at(self.relations.len().min(named.len()));
        let (denied, others) = others.split_at(self.denied.len().min(others.len()));
        let (passing, alike) = others.split_at(self.passing.len().min(others.len()));
        let lists = [
            (&mut self.relations, relations),
            (&mut self.denied, denied),
            (&mut self.passing, passing),
            (&mut self.alike, alike),
            (&mut self.entities, entities),
        ];
        for (prompts, says) in lists {
            if prompts.len() == says.len() {
                let mut both: Vec<(f32, Vec<u32>)> =
                    says.iter().copied().zip(std::mem::take(prompts)).collect();
                both.sort_by(|(a, _), (b, _)| b.total_cmp(a));
                *prompts = both.into_iter().map(|(_, prompt)| prompt).collect();
            }
        }
    }

    /// Where the entity's name stands, or one like it, and the fact is not asked for.
    pub fn named(&self) -> Vec<Vec<u32>> {
        [&self.relations[..], &self.denied, &self.passing, &self.alike].concat()
    }

    /// What tells the relation from others of the entity, whatever entity it is.
    pub fn of_relation(&self) -> Self {
        Self {
            fact: [&self.fact[..], &self.unclear].concat(),
            relations: [&self.relations[..], &self.more_relations].concat(),
            denied: self.denied.clone(),
            ..Self::default()
        }
    }
}

/// Turns relations and entities of a model into prompts.
pub struct Prompter<'a> {
    model: &'a Model,
    knowledge: Option<&'a Knowledge>,
}

impl<'a> Prompter<'a> {
    /// For a model, with what LABEL learned of it.
    pub fn new(model: &'a Model, knowledge: Option<&'a Knowledge>) -> Self {
        Self { model, knowledge }
    }

    /// The tokens of a prompt; `None` for one that is too long or empty.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn tokens(&self, text: &str) -> Result<Option<Vec<u32>>, Failure> {
        let tokenizer = self.model.tokenizer()?;
        let mut tokens = tokenizer.encode(text, true)?;
        let ends = self.model.end_tokens()?;
        while tokens.len() > 1 && tokens.last().is_some_and(|last| ends.contains(last)) {
            tokens.pop();
        }
        let fits = (1..=PROMPT_TOKENS_MAX).contains(&tokens.len());
        Ok((fits && check_tokens(self.model, &tokens, 1).is_ok()).then_some(tokens))
    }

    /// The tokens of an answer, as they follow a prompt.
    ///
    /// # Errors
    /// `EMPTY_TEXT` for an answer without tokens.
    pub fn answer_tokens(&self, answer: &str) -> Result<Vec<u32>, Failure> {
        let encode = |text: &str| self.tokens(text).map(Option::unwrap_or_default);
        let before = encode("a")?;
        let whole = encode(&format!("a {}", answer.trim()))?;
        match whole.strip_prefix(&before[..]) {
            Some(rest) if !rest.is_empty() && !answer.trim().is_empty() => Ok(rest.to_vec()),
            _ => Err(Failure::new(code::EMPTY_TEXT, format!("{answer:?} has no tokens"))
                .hint("write a word")),
        }
    }

    /// What LABEL learned of a relation.
    pub fn relation(&self, name: &str) -> Option<&'a RelationRecord> {
        let knowledge = self.knowledge?;
        knowledge.file().relations.get(knowledge.relation_index(name)?)
    }

    /// Entities that are known to have a relation, with their object: at most so many, from all over.
    pub fn known(&self, relation: &str, count: usize) -> Vec<(String, String)> {
        let Some(knowledge) = self.knowledge else { return Vec::new() };
        let Some(own) = knowledge.relation_index(relation) else { return Vec::new() };
        let known: Vec<(String, String)> = knowledge
            .file()
            .entities
            .iter()
            .filter_map(|entity| {
                let edge = entity.edges.iter().find(|edge| edge.relation as usize == own)?;
                Some((entity.name.clone(), edge.target.clone()))
            })
            .collect();
        let step = known.len().div_ceil(count.max(1)).max(1);
        known.into_iter().step_by(step).collect()
    }

    /// Sentences that ask for a relation: those that edits are made from, and others.
    fn sentences(&self, relation: &str) -> (Vec<String>, Vec<String>) {
        let words = relation.replace(['-', '_'], " ");
        let plain = PLAIN.iter().map(|form| form.replace("{relation}", words.trim()));
        let Some(record) = self.relation(relation) else {
            let mut plain: Vec<String> = plain.collect();
            let others = plain.split_off(plain.len() - 1);
            return (plain, others);
        };
        let mut sentences: Vec<String> = Vec::new();
        for template in record.templates.iter().take(SENTENCES_MAX) {
            sentences.push(template.text.clone());
            // An article may stand in the prompt as well as in the answer.
            if let Some(lead) = template.leads.last() {
                sentences.push(format!("{} {}", template.text, lead.trim()));
            }
        }
        let mut plain = plain.filter(|plain| !sentences.contains(plain));
        let beside: Vec<String> = plain.by_ref().take(PLAIN_BESIDE).collect();
        let others = record.templates.iter().skip(SENTENCES_MAX).map(|one| one.text.clone());
        let others: Vec<String> = others.chain(plain).collect();
        sentences.extend(beside);
        (sentences, others)
    }

    /// The prompts of a fact.
    ///
    /// # Errors
    /// What the tokenizer refuses; `EMPTY_TEXT` where no prompt is left.
    pub fn of(&self, entity: &str, relation: &str) -> Result<FactPrompts, Failure> {
        let learned = self.model.kept_edits().learned(self.model, relation);
        let (sentences, others, unclear) = match learned {
            Some(learned) => {
                (learned.asked.clone(), learned.others.clone(), learned.unclear.clone())
            }
            None => {
                let (sentences, others) = self.sentences(relation);
                (sentences, others, Vec::new())
            }
        };
        let mut prompts = FactPrompts::default();
        for sentence in &sentences {
            prompts.fact.extend(self.tokens(&fill(sentence, entity))?);
        }
        for sentence in unclear.iter().chain(others.iter().skip(JUDGED)) {
            prompts.unclear.extend(self.tokens(&fill(sentence, entity))?);
        }
        for sentence in others {
            prompts.paraphrases.extend(self.tokens(&fill(&sentence, entity))?);
        }
        let first = sentences.first().map(|sentence| fill(sentence, entity)).unwrap_or_default();
        for before in BEFORE {
            prompts.paraphrases.extend(self.tokens(&format!("{before} {first}"))?);
        }
        if prompts.fact.is_empty() {
            let message = format!("{entity:?} makes no prompt that fits the model");
            return Err(Failure::new(code::EMPTY_TEXT, message).hint("write a shorter name"));
        }
        let [few, more] = self.other_relations(relation);
        for sentence in few {
            prompts.relations.extend(self.tokens(&fill(&sentence, entity))?);
        }
        for sentence in more {
            prompts.more_relations.extend(self.tokens(&fill(&sentence, entity))?);
        }
        let rotating = |index: usize| &sentences[index % sentences.len()];
        prompts.denied.extend(self.tokens(entity)?);
        for index in 0..NEGATED {
            let negated = format!("{} not", fill(rotating(index), entity));
            prompts.denied.extend(self.tokens(&negated)?);
        }
        let others = self.other_entities(entity, relation);
        let step = others.len().div_ceil(PASSING_MAX).max(1);
        for (index, other) in others.iter().enumerate() {
            for beside in 0..SENTENCES_OF_OTHERS {
                let sentence = rotating(SENTENCES_OF_OTHERS * index + beside);
                prompts.entities.extend(self.tokens(&fill(sentence, other))?);
            }
            if index % step == 0 {
                let place = index / step;
                let before = PASSING[place % PASSING.len()].replace("{entity}", entity);
                let passing = format!("{before} {}", fill(rotating(place), other));
                prompts.passing.extend(self.tokens(&passing)?);
            }
        }
        for (index, name) in self.names_alike(entity).iter().enumerate() {
            for beside in 0..SENTENCES_OF_OTHERS {
                let sentence = rotating(SENTENCES_OF_OTHERS * index + beside);
                prompts.alike.extend(self.tokens(&fill(sentence, name))?);
            }
        }
        prompts.unrelated = self.unrelated(entity, relation)?;
        let fact = std::mem::take(&mut prompts.fact);
        let lists = [
            &mut prompts.unclear,
            &mut prompts.paraphrases,
            &mut prompts.relations,
            &mut prompts.more_relations,
            &mut prompts.denied,
            &mut prompts.passing,
            &mut prompts.alike,
            &mut prompts.entities,
        ];
        for list in lists {
            list.retain(|prompt| !fact.contains(prompt));
        }
        prompts.fact = fact;
        prompts.fact.dedup();
        Ok(prompts)
    }

    /// Sentences of other relations that the entity has, as far as is known: a few of each, and more.
    fn other_relations(&self, relation: &str) -> [Vec<String>; 2] {
        let Some(knowledge) = self.knowledge else {
            let usual = ["name", "history", "population", "colour", "language", "price"];
            let others = usual.iter().filter(|other| !is_same(other, relation));
            let sentences = others.map(|other| PLAIN[0].replace("{relation}", other));
            return [sentences.collect(), Vec::new()];
        };
        // What the entity is known to have may be the least of what it has.
        let own = knowledge.relation_index(relation);
        let records = knowledge.file().relations.iter().enumerate();
        let records = records.filter(|&(index, _)| Some(index) != own).take(RELATIONS_MAX);
        let mut seen = HashSet::new();
        let [mut few, mut more] = [Vec::new(), Vec::new()];
        for (_, record) in records {
            let learned = record.templates.iter().map(|template| template.text.clone());
            let all = learned.chain(sentences::usual(&record.name)).take(SENTENCES_OF_RELATIONS[1]);
            for (index, sentence) in all.enumerate().filter(|(_, one)| seen.insert(one.clone())) {
                let list = if index < SENTENCES_OF_RELATIONS[0] { &mut few } else { &mut more };
                list.push(sentence);
            }
        }
        [few, more]
    }

    /// Prompts that have nothing to do with a fact.
    fn unrelated(&self, entity: &str, relation: &str) -> Result<Vec<Vec<u32>>, Failure> {
        let mut prompts = Vec::new();
        if let Some(knowledge) = self.knowledge {
            let file = knowledge.file();
            let own = knowledge.relation_index(relation);
            let others = file.entities.iter().filter(|other| !is_same(&other.name, entity));
            let others = others.filter_map(|other| {
                let relations = other.edges.iter().map(|edge| edge.relation as usize);
                let relation = relations.rev().find(|&index| Some(index) != own)?;
                let template = file.relations.get(relation)?.templates.first()?;
                Some(fill(&template.text, &other.name))
            });
            let step = file.entities.len().div_ceil(UNRELATED).max(1);
            for prompt in others.step_by(step) {
                prompts.extend(self.tokens(&prompt)?);
            }
        }
        let beginning: Vec<&str> = HELD_OUT.split_whitespace().take(BEGINNINGS[1]).collect();
        prompts.extend(self.tokens(&beginning.join(" "))?);
        Ok(prompts)
    }

    /// Names of others that an entity's name could be taken for: known ones that contain it or that it
    /// contains, and made ones.
    fn names_alike(&self, entity: &str) -> Vec<String> {
        let entity = entity.trim();
        let known = self.knowledge.into_iter().flat_map(|knowledge| &knowledge.file().entities);
        let known = known.map(|known| &*known.name).filter(|name| {
            let shorter = name.len().min(entity.len());
            shorter > 2
                && !is_same(name, entity)
                && (name.contains(entity) || entity.contains(name))
        });
        let mut names: Vec<String> = known.take(ALIKE_MAX).map(str::to_owned).collect();
        let words: Vec<&str> = entity.split(' ').collect();
        if let [first, rest @ ..] = &words[..]
            && !rest.is_empty()
        {
            names.extend([rest.join(" "), (*first).to_owned()]);
        }
        names.extend(["South", "New"].map(|before| format!("{before} {entity}")));
        names.push(format!("{entity}ia"));
        names
    }

    /// Other entities that have the relation, spread over all that are known to.
    pub fn other_entities(&self, entity: &str, relation: &str) -> Vec<String> {
        let usual = || {
            let names = ["London", "Anna", "Germany", "the company", "Peter", "gold", "Mars"];
            names.iter().filter(|name| !is_same(name, entity)).map(|name| (*name).into()).collect()
        };
        let Some(knowledge) = self.knowledge else { return usual() };
        let Some(own) = knowledge.relation_index(relation) else { return usual() };
        let has = |edges: &[larql_storage::vindex::knowledge::EdgeRecord]| {
            edges.iter().any(|edge| edge.relation as usize == own)
        };
        let entities = knowledge.file().entities.iter();
        let having: Vec<&str> = entities
            .filter(|other| !is_same(&other.name, entity) && has(&other.edges))
            .map(|other| &*other.name)
            .collect();
        let step = having.len().div_ceil(ENTITIES_MAX).max(1);
        having.into_iter().step_by(step).map(str::to_owned).collect()
    }

    /// Prompts that stand for what a model is asked otherwise: learned sentences over learned
    /// entities, and beginnings of ordinary sentences.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn corpus(&self, count: usize) -> Result<Vec<Asked>, Failure> {
        let mut prompts = Vec::new();
        for sentence in text::sentences(ORDINARY).step_by(BEGINNINGS_EVERY) {
            let words: Vec<&str> = sentence.split_whitespace().collect();
            for length in BEGINNINGS.into_iter().filter(|&length| length < words.len()) {
                let text = words[..length].join(" ");
                let tokens = self.tokens(&text)?;
                let asked = tokens.map(|tokens| Asked { about: About::Anything(text), tokens });
                prompts.extend(asked);
            }
        }
        if let Some(knowledge) = self.knowledge {
            let file = knowledge.file();
            let asked: Vec<(&str, usize)> = file
                .entities
                .iter()
                .flat_map(|entity| {
                    entity.edges.iter().map(|edge| (&*entity.name, edge.relation as usize))
                })
                .collect();
            let step = asked.len().div_ceil(count.max(1)).max(1);
            for (index, (entity, relation)) in asked.iter().step_by(step).enumerate() {
                let Some(record) = file.relations.get(*relation) else { continue };
                let templates = record.templates.len().clamp(1, SENTENCES_MAX);
                let Some(template) = record.templates.get(index % templates) else { continue };
                let about = About::Entity((*entity).to_owned());
                let tokens = self.tokens(&fill(&template.text, entity))?;
                prompts.extend(tokens.map(|tokens| Asked { about, tokens }));
            }
        }
        Ok(prompts)
    }

    /// Ordinary text, some sentences at a time.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn texts(&self) -> Result<Vec<Asked>, Failure> {
        let mut pieces: Vec<String> = Vec::new();
        for sentence in text::sentences(ORDINARY) {
            match pieces.last_mut() {
                Some(piece) if piece.len() + sentence.len() <= TEXT_BYTES_MAX => *piece += sentence,
                _ => pieces.push(sentence.to_owned()),
            }
        }
        let mut texts = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let tokens = self.tokens(piece.trim_end())?;
            texts.extend(tokens.map(|tokens| Asked { about: About::Anything(piece), tokens }));
        }
        Ok(texts)
    }

    /// What LABEL learned of the model.
    pub fn knowledge(&self) -> Option<&'a Knowledge> {
        self.knowledge
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// Where it has none that works.
    pub fn tokenizer(&self) -> Result<&'a Tokenizer, Failure> {
        self.model.tokenizer()
    }
}
