//! Which sentences make a model say what a relation's facts say.
//!
//! Sentences of a general list and of the model's own (what it writes between an entity and its
//! object when it goes on from the bare name) are tried on a few facts, the best of them on more. What
//! counts is the share of objects that greedy continuation names exactly, compared with the share
//! that the same answers would reach for another entity: frequency alone.

use std::collections::BTreeMap;

use larql_compute::learn::wilson_lower;
use larql_storage::vindex::knowledge::{ENTITY_SLOT, RelationRecord, TemplateRecord, is_storable};

use super::facts::Objects;
use super::phrasings;
use crate::failure::Failure;
use crate::knowledge::answer::{fill, is_same, object_range, phrase_end};
use crate::knowledge::prober::Prober;
use crate::text::case_folded;

/// Facts of a relation that every sentence is tried on, by the next token alone.
const FIRST_FACTS: usize = 4;
/// Next tokens among which the object's first one must be.
const NEXT_TOKENS: usize = 5;
/// Sentences and facts of each further round, in which objects are written out.
const ROUNDS: [(usize, usize); 2] = [(6, 8), (3, 28)];
/// Templates that a relation keeps.
const KEPT: usize = 2;
/// The part of the best template's accuracy that another one must reach to be kept.
const KEPT_OF_BEST: f64 = 0.6;
/// Entities whose bare names the model goes on from, and how often from each.
const MINED_ENTITIES: usize = 3;
const MINED_BRANCHES: usize = 5;
/// Tokens that a sentence of the model's own may have after the name.
const MINED_TOKENS: usize = 10;
/// Tokens that objects of any relation may have.
const OBJECT_TOKENS_MAX: usize = 16;
/// Bytes of the longest words before an object that can be a lead.
const LEAD_BYTES_MAX: usize = 12;

/// How a sentence did.
#[derive(Debug, Clone, Default)]
struct Tried {
    text: String,
    hits: usize,
    /// Hits with every answer compared with the next entity's objects.
    chance: usize,
    tested: usize,
    /// Words before objects, and how often.
    leads: BTreeMap<String, usize>,
    /// The word after objects, and how often.
    followers: BTreeMap<String, usize>,
}

impl Tried {
    fn accuracy(&self) -> f64 {
        self.hits as f64 / self.tested.max(1) as f64
    }
}

/// Learns how to ask for a relation; `None` where no sentence makes the model say its facts more
/// often than chance does.
///
/// # Errors
/// As [`Prober::complete`].
pub fn learn(
    prober: &mut Prober<'_>,
    name: &str,
    facts: &BTreeMap<String, Objects>,
) -> Result<Option<RelationRecord>, Failure> {
    let object_tokens = object_tokens_max(prober, facts)?;
    let initials = facts.values().flat_map(Objects::spellings).any(|object| object.contains('.'));
    let first = spread(facts, FIRST_FACTS);
    let mut texts = phrasings::candidates(name);
    let mined = mine(prober, &first[..first.len().min(MINED_ENTITIES)])?;
    texts.extend(mined.into_iter().filter(|text| is_storable(text)));
    texts.dedup();
    let mut texts = promising(prober, texts, &first)?;
    let asked = Asked { object_tokens, initials };
    let mut tried = Vec::new();
    for (sentences, count) in ROUNDS {
        texts.truncate(sentences);
        tried = attempt(prober, &texts, &spread(facts, count), asked)?;
        tried.retain(|tried| tried.hits > 0);
        rank(&mut tried);
        texts = tried.iter().map(|tried| tried.text.clone()).collect();
    }
    let Some(best) = tried.first() else { return Ok(None) };
    let (accuracy, control) = (best.accuracy(), best.chance as f64 / best.tested.max(1) as f64);
    let tested = best.tested as u32;
    if best.hits < 2 || wilson_lower(best.hits, best.tested) <= control {
        return Ok(None);
    }
    tried.retain(|tried| tried.accuracy() >= accuracy * KEPT_OF_BEST);
    tried.truncate(KEPT);
    let mut followers: BTreeMap<String, usize> = BTreeMap::new();
    for (word, count) in tried.iter().flat_map(|tried| &tried.followers) {
        *followers.entry(word.clone()).or_default() += count;
    }
    // A word that ends one object in ten ends them all.
    let often = |&(_, count): &(String, usize)| count >= 2 && count * 10 >= tested as usize;
    let followers = followers.into_iter().filter(often).filter(|(word, _)| is_storable(word));
    let templates = tried.into_iter().map(|tried| TemplateRecord {
        accuracy: tried.accuracy(),
        leads: usual(&tried.leads, tried.hits),
        text: tried.text,
    });
    Ok(Some(RelationRecord {
        name: name.to_owned(),
        templates: templates.collect(),
        single: is_single(facts),
        object_tokens_max: object_tokens as u32,
        initials,
        followers: followers.map(|(word, _)| word).collect(),
        accuracy,
        control,
        tested,
    }))
}

/// Whether no more than one entity in ten has several objects.
fn is_single(facts: &BTreeMap<String, Objects>) -> bool {
    facts.values().filter(|objects| objects.names.len() > 1).count() * 10 <= facts.len()
}

/// Facts that are spread evenly over a relation's entities.
fn spread(facts: &BTreeMap<String, Objects>, count: usize) -> Vec<(&str, &Objects)> {
    let count = count.min(facts.len());
    let all: Vec<_> = facts.iter().map(|(entity, objects)| (entity.as_str(), objects)).collect();
    (0..count).map(|index| all[index * all.len() / count]).collect()
}

fn object_tokens_max(
    prober: &Prober<'_>,
    facts: &BTreeMap<String, Objects>,
) -> Result<usize, Failure> {
    let mut most = 1;
    for (_, objects) in spread(facts, 256) {
        for name in &objects.names {
            let tokens = prober.tokens(&format!("a {name}"))?.map_or(0, |tokens| tokens.len());
            let before = prober.tokens("a")?.map_or(0, |tokens| tokens.len());
            most = most.max(tokens.saturating_sub(before));
        }
    }
    Ok(most.min(OBJECT_TOKENS_MAX))
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    object_tokens: usize,
    initials: bool,
}

/// The sentences after which an object's first token is among the most likely ones, the likeliest
/// first.
fn promising(
    prober: &mut Prober<'_>,
    texts: Vec<String>,
    facts: &[(&str, &Objects)],
) -> Result<Vec<String>, Failure> {
    let mut prompts = Vec::new();
    let mut of = Vec::new();
    for (sentence, text) in texts.iter().enumerate() {
        for (entity, objects) in facts {
            let prompt = fill(text, entity);
            let Some(tokens) = prober.tokens(&prompt)? else { continue };
            let mut wanted: Vec<u32> = Vec::new();
            for object in objects.spellings() {
                let whole = prober.tokens(&format!("{prompt} {object}"))?.unwrap_or_default();
                wanted
                    .extend(whole.strip_prefix(&tokens[..]).and_then(|rest| rest.first().copied()));
            }
            prompts.push(tokens);
            of.push((sentence, wanted));
        }
    }
    let next = prober.next_tokens(&prompts, NEXT_TOKENS)?;
    let mut scores = vec![0.0; texts.len()];
    for ((sentence, wanted), next) in of.iter().zip(&next) {
        let places = wanted.iter().filter_map(|wanted| next.iter().position(|one| one == wanted));
        if let Some(place) = places.min() {
            scores[*sentence] += 1.0 / (1 + place) as f64;
        }
    }
    let mut ranked: Vec<_> =
        texts.into_iter().zip(scores).filter(|(_, score)| *score > 0.0).collect();
    ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    Ok(ranked.into_iter().map(|(text, _)| text).collect())
}

/// Tries sentences on facts.
fn attempt(
    prober: &mut Prober<'_>,
    texts: &[String],
    facts: &[(&str, &Objects)],
    asked: Asked,
) -> Result<Vec<Tried>, Failure> {
    let mut prompts = Vec::new();
    let mut of = Vec::new();
    for (sentence, text) in texts.iter().enumerate() {
        for (fact, (entity, _)) in facts.iter().enumerate() {
            if let Some(tokens) = prober.tokens(&fill(text, entity))? {
                prompts.push(tokens);
                of.push((sentence, fact));
            }
        }
    }
    // A lead, and a follower.
    let completions = prober.complete(&prompts, asked.object_tokens + 2)?;
    let mut tried: Vec<Tried> =
        texts.iter().map(|text| Tried { text: text.clone(), ..Tried::default() }).collect();
    for ((&(sentence, fact), prompt), completion) in of.iter().zip(&prompts).zip(&completions) {
        let text = prober.continuation(prompt, &completion.tokens)?;
        let tried = &mut tried[sentence];
        tried.tested += 1;
        let (_, objects) = facts[fact];
        if let Some((lead, follower)) = named(&text, objects, asked.initials) {
            tried.hits += 1;
            *tried.leads.entry(lead).or_default() += 1;
            if !follower.is_empty() {
                *tried.followers.entry(follower).or_default() += 1;
            }
        }
        let (_, others) = facts[(fact + facts.len() / 2 + 1) % facts.len()];
        tried.chance += usize::from(named(&text, others, asked.initials).is_some());
    }
    Ok(tried)
}

/// The words before the object that a completion names, and the word after it; `None` where it names
/// none of them at its beginning.
fn named(text: &str, objects: &Objects, initials: bool) -> Option<(String, String)> {
    let phrase = &text[object_range(text, &[], &[], initials)?];
    let folded = case_folded(phrase);
    let mut best: Option<(usize, usize)> = None;
    for object in objects.spellings().map(case_folded) {
        for (at, found) in folded.match_indices(&object) {
            let before = &folded[..at];
            let after = &folded[at + found.len()..];
            let starts = before.is_empty() || before.ends_with(' ');
            let ends = after.is_empty() || after.starts_with(' ');
            if starts && ends && before.trim().len() <= LEAD_BYTES_MAX && best.is_none() {
                best = Some((at, at + found.len()));
            }
        }
    }
    let (start, end) = best?;
    let lead = phrase.get(..start).unwrap_or_default().trim().to_owned();
    let follower = phrase.get(end..).unwrap_or_default().split_whitespace().next();
    Some((lead, follower.unwrap_or_default().to_owned()))
}

/// The leads that stand before objects too often to be part of one, longest first.
fn usual(leads: &BTreeMap<String, usize>, hits: usize) -> Vec<String> {
    let often = |count: usize| count >= 2 && count * 10 >= hits;
    let leads = leads.iter().filter(|&(lead, &count)| is_storable(lead) && often(count));
    let mut leads: Vec<String> = leads.map(|(lead, _)| lead.clone()).collect();
    leads.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
    leads
}

/// Best first: by the lower end of the rate's interval above chance, then as tried.
fn rank(tried: &mut [Tried]) {
    tried.sort_by_key(|tried| {
        std::cmp::Reverse((tried.hits.saturating_sub(tried.chance), tried.hits))
    });
}

/// Sentences that the model itself writes between an entity and its object.
fn mine(prober: &mut Prober<'_>, facts: &[(&str, &Objects)]) -> Result<Vec<String>, Failure> {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let (mut names, mut of) = (Vec::new(), Vec::new());
    for &(entity, objects) in facts {
        if let Some(tokens) = prober.tokens(entity)? {
            names.push(tokens);
            of.push(objects);
        }
    }
    let branches = prober.next_tokens(&names, MINED_BRANCHES)?;
    let begun: Vec<(usize, Vec<u32>)> = (0..)
        .zip(&branches)
        .flat_map(|(name, branches)| branches.iter().map(move |&token| (name, token)))
        .map(|(name, token)| (name, [&names[name][..], &[token]].concat()))
        .collect();
    let prompts: Vec<Vec<u32>> = begun.iter().map(|(_, prompt)| prompt.clone()).collect();
    let completions = prober.complete(&prompts, MINED_TOKENS)?;
    for ((name, begun), completion) in begun.iter().zip(&completions) {
        let written = [&begun[names[*name].len()..], &completion.tokens].concat();
        let text = prober.continuation(&names[*name], &written)?;
        let phrase = &text[..phrase_end(&text, true).unwrap_or(text.len())];
        let place = of[*name].spellings().filter_map(|object| phrase.find(object)).min();
        let Some(between) = place.map(|at| phrase[..at].trim_end()) else { continue };
        if !between.trim().is_empty() && !between.contains(ENTITY_SLOT) {
            *found.entry(format!("{ENTITY_SLOT}{between}")).or_default() += 1;
        }
    }
    let mut found: Vec<(String, usize)> = found.into_iter().collect();
    found.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then(a.cmp(b)));
    found.truncate(MINED_BRANCHES);
    let texts = found.into_iter().map(|(text, _)| text);
    Ok(texts.filter(|text| !is_same(text, ENTITY_SLOT)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_counts_only_as_a_whole_phrase_near_the_beginning() {
        let objects =
            Objects { names: vec!["euro".to_owned()], aliases: vec!["single currency".to_owned()] };
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(named(" euro.", &objects, false), pair("", ""));
        assert_eq!(named(" the Euro and the", &objects, false), pair("the", "and"));
        assert_eq!(named(" single currency", &objects, false), pair("", ""));
        assert_eq!(named(" europe", &objects, false), None);
        assert_eq!(named(" pound, not the euro", &objects, false), None);
        assert_eq!(named(" much beloved and old euro", &objects, false), None);
    }

    #[test]
    fn a_lead_is_a_habit_and_not_one_name() {
        let leads = [("the", 9), ("New", 1), ("", 20), ("a", 2)].map(|(l, c)| (l.to_owned(), c));
        assert_eq!(usual(&BTreeMap::from(leads), 20), ["the", "a"]);
    }
}
