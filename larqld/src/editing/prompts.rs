//! The prompts of a fact: where it is asked for, how else it may be, and where it is not.
//!
//! A relation that LABEL has learned is asked for by its learned sentences; any other by the plain
//! forms that fit every relation. What must not change is asked for likewise: the entity's other
//! relations, the relation of other entities, and prompts that only mention the entity.
//!
//! Promises: the same base, labels and fact give the same prompts in the same order.

use larql_storage::vindex::knowledge::RelationRecord;

use crate::failure::{Failure, code};
use crate::inference::check_tokens;
use crate::knowledge::Knowledge;
use crate::knowledge::answer::{fill, is_same};
use crate::mounts::Model;

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
const BEFORE: [&str; 4] =
    ["It is well known that", "Fact:", "As everybody knows,", "I can tell you that"];
/// Learned sentences of a relation that are used at most.
const SENTENCES_MAX: usize = 8;
/// Plain forms of a relation that was learned, beside its sentences.
const PLAIN_BESIDE: usize = 2;
/// Other entities whose relation is looked at.
const ENTITIES_MAX: usize = 48;
/// Sentences by which each is asked for.
const SENTENCES_OF_OTHERS: usize = 2;
/// Relations of an entity of which nothing is known that are tried.
const RELATIONS_MAX: usize = 12;
/// Tokens of a prompt at most.
const PROMPT_TOKENS_MAX: usize = 256;

/// The prompts of a fact, as tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FactPrompts {
    /// Where it is asked for, the plainest first.
    pub fact: Vec<Vec<u32>>,
    /// Where it is asked for in other words, which no edit is made from.
    pub paraphrases: Vec<Vec<u32>>,
    /// Where other relations of the entity are, and where the entity is only mentioned.
    pub relations: Vec<Vec<u32>>,
    /// Where the relation of other entities is.
    pub entities: Vec<Vec<u32>>,
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
        let (sentences, others) = self.sentences(relation);
        let mut prompts = FactPrompts::default();
        for sentence in &sentences {
            prompts.fact.extend(self.tokens(&fill(sentence, entity))?);
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
        for sentence in self.other_relations(entity, relation) {
            prompts.relations.extend(self.tokens(&fill(&sentence, entity))?);
        }
        prompts.relations.extend(self.tokens(entity)?);
        prompts.relations.extend(self.tokens(&format!("{first} not"))?);
        let asked: Vec<&String> = sentences.iter().take(SENTENCES_OF_OTHERS).collect();
        for (index, other) in self.other_entities(entity, relation).iter().enumerate() {
            for sentence in &asked {
                prompts.entities.extend(self.tokens(&fill(sentence, other))?);
            }
            // Some of them with the entity mentioned in passing.
            if index % 8 == 0 {
                let passing = format!("{entity}. {}", fill(&sentences[0], other));
                prompts.relations.extend(self.tokens(&passing)?);
            }
        }
        let fact = std::mem::take(&mut prompts.fact);
        for list in [&mut prompts.paraphrases, &mut prompts.relations, &mut prompts.entities] {
            list.retain(|prompt| !fact.contains(prompt));
        }
        prompts.fact = fact;
        prompts.fact.dedup();
        Ok(prompts)
    }

    /// Sentences of other relations that the entity has, as far as is known.
    fn other_relations(&self, entity: &str, relation: &str) -> Vec<String> {
        let Some(knowledge) = self.knowledge else {
            let usual = ["name", "history", "population", "colour", "language", "price"];
            let others = usual.iter().filter(|other| !is_same(other, relation));
            return others.map(|other| PLAIN[0].replace("{relation}", other)).collect();
        };
        let file = knowledge.file();
        let known = file.entities.iter().find(|known| is_same(&known.name, entity));
        let mut relations: Vec<usize> = match known {
            Some(known) => known.edges.iter().map(|edge| edge.relation as usize).collect(),
            None => (0..file.relations.len().min(RELATIONS_MAX)).collect(),
        };
        relations.sort_unstable();
        relations.dedup();
        let own = knowledge.relation_index(relation);
        let records = relations.iter().filter(|&&index| Some(index) != own);
        let records = records.filter_map(|&index| file.relations.get(index));
        let sentences = records.flat_map(|record| record.templates.iter().take(3));
        sentences.map(|template| template.text.clone()).collect()
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
    /// entities, and the bundled text.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn corpus(&self, count: usize) -> Result<Vec<Vec<u32>>, Failure> {
        let mut prompts = Vec::new();
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
                prompts.extend(self.tokens(&fill(&template.text, entity))?);
            }
        }
        Ok(prompts)
    }
}
