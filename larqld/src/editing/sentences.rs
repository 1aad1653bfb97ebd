//! Sentences that ask for a relation, of which a model's own answers say whether it understands them.
//!
//! An edit holds for a phrasing as far as the model takes it for the same question. So it is made from
//! many: what LABEL learned, the usual sentences of the relation, and questions. Each is tried on a few
//! entities whose object is known; those that the model does not answer would only blur what the fact
//! looks like.
//!
//! Elsewhere: sentences that labels are learned from (`pipeline::label`), prompts of one fact
//! ([`super::prompts`]).

use larql_compute::edit::Editor;

use super::maker::failure;
use super::prompts::Prompter;
use crate::failure::Failure;
use crate::knowledge::answer::fill;
use crate::pipeline::label::{all_sentences, candidates};

/// Sentences that edits are made from.
const ASKED_MAX: usize = 12;
/// Entities that each sentence is tried on at first, and those that are left.
const TRIED: [usize; 2] = [3, 8];
/// The least part of them that a sentence must be answered for.
const UNDERSTOOD: f64 = 0.6;
/// What may stand before a sentence without changing what it asks; edits are made with these, too.
const BEFORE: [&str; 2] = ["Fact:", "As we all know,"];

/// A relation's usual names, and more ways to ask for it than labels are learned from.
type More = (&'static [&'static str], &'static [&'static str]);

const MORE: &[More] = &[
    (
        &["capital", "capital city", "capital of"],
        &[
            "{entity} has the capital",
            "The capital of {entity} is called",
            "The capital and largest city of {entity} is",
            "Question: What is the capital city of {entity}? Answer:",
        ],
    ),
    (
        &["state capital", "provincial capital", "administrative centre"],
        &[
            "The capital of the state of {entity} is",
            "Question: What is the state capital of {entity}? Answer:",
            "{entity} has its capital in",
            "The capital city of {entity} is",
        ],
    ),
    (
        &["continent", "region", "part of"],
        &[
            "Question: On which continent is {entity}? Answer:",
            "The continent of {entity} is",
            "{entity} can be found in",
            "Question: Where in the world is {entity}? Answer: in",
        ],
    ),
    (
        &["language", "official language", "spoken language", "languages"],
        &[
            "Question: What language is spoken in {entity}? Answer:",
            "The language spoken in {entity} is",
            "In {entity}, the main language is",
            "The inhabitants of {entity} speak",
        ],
    ),
    (
        &["currency", "money"],
        &[
            "Question: What is the currency of {entity}? Answer: the",
            "In {entity}, people pay with the",
            "Money in {entity} is called the",
            "In {entity}, you pay in",
        ],
    ),
    (
        &["demonym", "nationality", "inhabitant"],
        &[
            "Question: What is a person from {entity} called? Answer:",
            "If you come from {entity}, you are",
            "Somebody who was born in {entity} is",
        ],
    ),
    (
        &["borders", "neighbour", "neighbor", "neighbours", "shares border with", "adjacent to"],
        &[
            "Question: Which country borders {entity}? Answer:",
            "From {entity} you can cross the border to",
        ],
    ),
    (
        &["symbol", "chemical symbol", "abbreviation"],
        &[
            "Question: What is the chemical symbol of {entity}? Answer:",
            "Chemists write {entity} as",
            "The short form of {entity} is",
        ],
    ),
    (
        &["atomic number", "number"],
        &[
            "Question: What is the atomic number of {entity}? Answer:",
            "The number of protons in {entity} is",
            "{entity} is the element with the number",
        ],
    ),
    (
        &["category", "type", "class", "kind", "instance of", "is a", "group"],
        &[
            "Question: What kind of thing is {entity}? Answer: a",
            "Question: What is {entity}? Answer: a",
            "{entity} belongs to the group",
            "One says that {entity} is a",
        ],
    ),
    (
        &["born in", "birthplace", "place of birth", "birth place", "birth city"],
        &[
            "Question: Where was {entity} born? Answer:",
            "The place of birth of {entity} is",
            "{entity} came from the town of",
        ],
    ),
    (
        &["birth country", "country of birth", "citizenship", "country of citizenship"],
        &[
            "Question: In which country was {entity} born? Answer:",
            "{entity} was born in what is today",
            "{entity} came from the country",
        ],
    ),
    (
        &["occupation", "profession", "job", "role"],
        &[
            "Question: What was the occupation of {entity}? Answer:",
            "By profession, {entity} was a",
            "The job of {entity} was",
        ],
    ),
    (
        &["field", "field of work", "discipline", "subject", "area of work"],
        &[
            "Question: In which field did {entity} work? Answer:",
            "{entity} made contributions to",
            "{entity} is a great name in",
        ],
    ),
    (
        &["known for", "famous for", "notable work", "achievement", "notable for"],
        &[
            "Question: What is {entity} known for? Answer:",
            "The world knows {entity} for",
            "{entity} is well known for",
        ],
    ),
    (
        &["headquarters", "based in", "head office", "headquarters location", "seat"],
        &[
            "Question: Where is {entity} based? Answer:",
            "The company {entity} has its head office in",
            "{entity} has its headquarters in",
        ],
    ),
    (
        &["founder", "founded by", "founders"],
        &[
            "Question: Who founded {entity}? Answer:",
            "The company {entity} was started by",
            "{entity} was established by",
        ],
    ),
    (
        &["industry", "sector", "product", "products", "business"],
        &[
            "Question: In which industry is {entity}? Answer:",
            "{entity} is a company in the business of",
            "{entity} makes its money with",
        ],
    ),
    (
        &["author", "writer", "written by"],
        &[
            "Question: Who wrote {entity}? Answer:",
            "The book {entity} is by",
            "The novel {entity} was written by",
        ],
    ),
    (
        &["creator", "designer", "created by", "made by", "developer", "designed by"],
        &[
            "Question: Who created {entity}? Answer:",
            "{entity} is the work of",
            "{entity} was started by",
        ],
    ),
    (
        &["inventor", "invented by", "discoverer", "discovered by"],
        &[
            "Question: Who invented {entity}? Answer:",
            "We owe {entity} to",
            "The invention of {entity} is due to",
        ],
    ),
];

/// Every sentence that is asked by, whatever the relation.
pub fn all() -> impl Iterator<Item = &'static str> {
    let more = MORE.iter().flat_map(|(_, sentences)| sentences.iter());
    more.chain(&BEFORE).copied().chain(all_sentences())
}

/// Sentences of one relation, each with the entity's slot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sentences {
    /// Those that edits are made from, the plainest first.
    pub asked: Vec<String>,
    /// Those that edits are judged by.
    pub others: Vec<String>,
    /// Those that the model does not answer: they ask for the relation all the same.
    pub unclear: Vec<String>,
}

/// The usual sentences of a relation, whether a model understands them or not.
pub fn usual(relation: &str) -> impl Iterator<Item = String> {
    let name = relation.replace(['-', '_'], " ").to_lowercase();
    let more = MORE.iter().filter(move |(names, _)| names.contains(&name.trim()));
    let more = more.flat_map(|(_, more)| more.iter().map(|&sentence| sentence.to_owned()));
    more.chain(candidates(relation))
}

impl Sentences {
    /// Those of a relation that a model understands; `None` where too little is known to tell.
    ///
    /// # Errors
    /// As passes of the model.
    pub fn learn(
        prompter: &Prompter<'_>,
        relation: &str,
        editor: &mut Editor<'_>,
    ) -> Result<Option<Self>, Failure> {
        let Some(record) = prompter.relation(relation) else { return Ok(None) };
        let known = prompter.known(relation, TRIED[1]);
        if known.len() < TRIED[0] {
            return Ok(None);
        }
        let mut texts: Vec<String> =
            record.templates.iter().map(|template| template.text.clone()).collect();
        texts.extend(usual(relation));
        if let Some(first) = record.templates.first() {
            texts.extend(BEFORE.iter().map(|before| format!("{before} {}", first.text)));
        }
        let leads: Vec<&str> = record
            .templates
            .iter()
            .filter_map(|one| one.leads.last())
            .map(|lead| lead.trim())
            .collect();
        let mut all: Vec<String> = Vec::new();
        for text in texts {
            // An article may stand in the prompt as well as in the answer.
            let with = leads
                .iter()
                .filter(|lead| !text.ends_with(*lead))
                .map(|lead| format!("{text} {lead}"));
            for text in [text.clone()].into_iter().chain(with) {
                if !all.contains(&text) {
                    all.push(text);
                }
            }
        }
        let mut unclear = Vec::new();
        let mut tried: Vec<(String, usize)> = all.into_iter().map(|text| (text, 0)).collect();
        let mut first = 0;
        for count in TRIED {
            let count = count.min(known.len());
            for (entity, target) in &known[first..count] {
                let target = prompter.answer_tokens(target)?[0];
                let mut prompts = Vec::with_capacity(tried.len());
                for (text, _) in &tried {
                    prompts.push(prompter.tokens(&fill(text, entity))?.unwrap_or_default());
                }
                let asked: Vec<&[u32]> =
                    prompts.iter().map(Vec::as_slice).filter(|one| !one.is_empty()).collect();
                let next = editor.next_tokens(&asked).map_err(|error| failure(error.into()))?;
                let mut next = next.into_iter();
                for ((_, right), prompt) in tried.iter_mut().zip(&prompts) {
                    *right += usize::from(!prompt.is_empty() && next.next() == Some(target));
                }
            }
            first = count;
            let (understood, others): (Vec<_>, Vec<_>) = tried
                .into_iter()
                .partition(|(_, right)| *right as f64 >= UNDERSTOOD * count as f64);
            unclear.extend(others.into_iter().map(|(text, _)| text));
            tried = understood;
        }
        if tried.is_empty() {
            return Ok(None);
        }
        tried.sort_by_key(|(_, right)| std::cmp::Reverse(*right));
        let mut asked: Vec<String> = tried.into_iter().map(|(text, _)| text).collect();
        let others = asked.split_off(asked.len().min(ASKED_MAX));
        Ok(Some(Self { asked, others, unclear }))
    }
}
