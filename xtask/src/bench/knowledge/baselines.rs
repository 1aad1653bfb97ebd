//! What answers are compared with, pair by pair: whether the model itself knows the fact, what
//! frequency, strings and random features reach, and where the two plainest readings of a model have
//! the object.
//!
//! The *logit lens* ranks the object's first token among all tokens, if the model ended at the
//! entity's last token; *embedding neighbours* rank it by that token's embedding alone. Both are
//! given the right object to look for and need no relation, which is more than DESCRIBE gets.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

use super::table::{Facts, Prompts, folded};
use super::{TOP, quoted, rows};
use crate::daemon::Daemon;

/// Prompts in whose place the entity stands.
const ENTITY_SLOT: &str = "{entity}";

/// What is known of one pair of entity and relation without DESCRIBE.
#[derive(Debug, Clone, Copy, Default)]
pub struct Baseline {
    /// The model's next token after the relation's sentence begins a right object.
    pub known: bool,
    /// The object that most training entities have is right.
    pub common: bool,
    /// The known object most like the name is right.
    pub strings: bool,
    /// One of ten random features has a right object as its output token.
    pub random: bool,
    /// The object is among the first ten tokens of the logit lens.
    pub lens: bool,
    /// Another entity's object is.
    pub lens_chance: bool,
    /// The object is among the first ten neighbours of the embedding.
    pub neighbours: bool,
    /// Another entity's object is.
    pub neighbours_chance: bool,
}

/// Baselines by entity and relation.
pub type Baselines = BTreeMap<(String, String), Baseline>;

/// The output tokens of all features.
pub fn features(daemon: &Daemon, vindex: &Path) -> anyhow::Result<Vec<String>> {
    let rows = rows(daemon, vindex, "SELECT target FROM FEATURES;")?;
    Ok(rows.iter().filter_map(|row| row["target"].as_str().map(folded)).collect())
}

/// Measures all pairs of some entities; `train` says which entities labels see.
pub fn measure(
    daemon: &Daemon,
    vindex: &Path,
    facts: &Facts,
    prompts: &Prompts,
    features: &[String],
    entities: &[&str],
    train: &dyn Fn(&str) -> bool,
) -> anyhow::Result<Baselines> {
    let common = facts.most_common(train);
    let mut pairs: Vec<(&str, &String)> = Vec::new();
    for &entity in entities {
        pairs.extend(facts.of(entity).keys().map(|relation| (entity, relation)));
    }
    let known = known(daemon, vindex, facts, prompts, &pairs)?;
    // The object itself, and that of the next entity that has the relation.
    let own: Vec<&str> =
        pairs.iter().map(|(entity, relation)| facts.named(entity, relation)).collect();
    let others: Vec<&str> = pairs
        .iter()
        .enumerate()
        .map(|(at, (entity, relation))| {
            let after = pairs[at + 1..].iter().chain(&pairs[..at]);
            let other = after.clone().find(|(other, of)| of == relation && other != entity);
            other.map_or("", |(other, of)| facts.named(other, of))
        })
        .collect();
    let own = ranks(daemon, vindex, &pairs, &own)?;
    let others = ranks(daemon, vindex, &pairs, &others)?;
    let mut strings = HashMap::new();
    let mut found = Baselines::new();
    for (at, &(entity, relation)) in pairs.iter().enumerate() {
        let objects = &facts.of(entity)[relation];
        let of_strings = strings.entry(entity).or_insert_with(|| facts.by_string(entity, train));
        let is_right = |table: &BTreeMap<String, String>| {
            table.get(relation).is_some_and(|object| objects.contains(&folded(object)))
        };
        let random = draw(features, entity).any(|target| objects.contains(target));
        let baseline = Baseline {
            known: known[at],
            common: is_right(&common),
            strings: is_right(of_strings),
            random,
            lens: own[at].0,
            lens_chance: others[at].0,
            neighbours: own[at].1,
            neighbours_chance: others[at].1,
        };
        found.insert((entity.to_owned(), relation.clone()), baseline);
    }
    Ok(found)
}

/// The output tokens of some features, the same for the same entity.
fn draw<'f>(features: &'f [String], entity: &str) -> impl Iterator<Item = &'f String> {
    // FNV-1a.
    let seed = entity.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let place = move |index: u64| seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..TOP as u64).map(move |index| &features[place(index) as usize % features.len()])
}

/// Whether the model's next token after each pair's sentence begins a right object.
fn known(
    daemon: &Daemon,
    vindex: &Path,
    facts: &Facts,
    prompts: &Prompts,
    pairs: &[(&str, &String)],
) -> anyhow::Result<Vec<bool>> {
    let statements = pairs.iter().map(|(entity, relation)| {
        let prompt = prompts.of(relation).replace(ENTITY_SLOT, entity);
        format!("INFER {} TOP 1;\n", quoted(&prompt))
    });
    let found = rows(daemon, vindex, &statements.collect::<String>())?;
    anyhow::ensure!(found.len() == pairs.len(), "{} rows of {}", found.len(), pairs.len());
    let begins = |(row, (entity, relation)): (&Value, &(&str, &String))| {
        let token = folded(row["token"].as_str().unwrap_or_default());
        let mut objects = facts.of(entity)[*relation].iter();
        !token.is_empty() && objects.any(|object| object.starts_with(&token))
    };
    Ok(found.iter().zip(pairs).map(begins).collect())
}

/// Whether each object is among the first tokens of the logit lens at the entity's last token, and
/// among those of its embedding.
fn ranks(
    daemon: &Daemon,
    vindex: &Path,
    pairs: &[(&str, &String)],
    objects: &[&str],
) -> anyhow::Result<Vec<(bool, bool)>> {
    let statements = pairs.iter().zip(objects).filter(|(_, object)| !object.is_empty());
    let statements = statements.map(|((entity, _), object)| {
        format!("TRACE {} FOR {} DECOMPOSE;\n", quoted(entity), quoted(object))
    });
    let found = rows(daemon, vindex, &statements.collect::<String>())?;
    let is_first = |row: &Value| row["rank"].as_u64().is_some_and(|rank| rank <= TOP as u64);
    // Rows of one statement begin with the layer before all layers.
    let mut runs = found.chunk_by(|_, next| next["layer"].as_i64() != Some(-1));
    let mut ranks = Vec::with_capacity(pairs.len());
    for object in objects {
        let run = if object.is_empty() { None } else { runs.next() };
        ranks.push(match run {
            Some([first, .., last]) => (is_first(last), is_first(first)),
            _ => (false, false),
        });
    }
    anyhow::ensure!(runs.next().is_none(), "more answers than questions");
    Ok(ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_entity_draws_the_same_features() {
        let features: Vec<String> = (0..97).map(|i| i.to_string()).collect();
        let of = |entity| draw(&features, entity).cloned().collect::<Vec<_>>();
        assert_eq!(of("France"), of("France"));
        assert_ne!(of("France"), of("Spain"));
    }
}
