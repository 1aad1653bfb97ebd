//! The facts that answers are judged by, and how they are divided.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;

/// Spellings of the objects of an entity and relation.
pub type Objects = BTreeSet<String>;

/// A table of facts.
pub struct Facts {
    header: String,
    /// Lines by entity.
    lines: BTreeMap<String, Vec<String>>,
    objects: BTreeMap<String, BTreeMap<String, Objects>>,
    /// Names of objects as the table has them, by relation and entity.
    named: BTreeMap<String, BTreeMap<String, String>>,
}

impl Facts {
    /// Reads a table with the columns subject, relation, object, aliases.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut lines = text.lines();
        let header = lines.next().context("a table without a first line")?.to_owned();
        let mut facts = Self {
            header,
            lines: BTreeMap::new(),
            objects: BTreeMap::new(),
            named: BTreeMap::new(),
        };
        for line in lines {
            let cells: Vec<&str> = line.split('\t').collect();
            let [entity, relation, object, ref rest @ ..] = cells[..] else { continue };
            facts.lines.entry(entity.to_owned()).or_default().push(line.to_owned());
            let objects = facts.objects.entry(entity.to_owned()).or_default();
            let objects = objects.entry(relation.to_owned()).or_default();
            let aliases = rest.first().into_iter().flat_map(|aliases| aliases.split('|'));
            objects.extend(
                [object].into_iter().chain(aliases).filter(|name| !name.is_empty()).map(folded),
            );
            let named = facts.named.entry(relation.to_owned()).or_default();
            named.entry(entity.to_owned()).or_insert_with(|| object.to_owned());
        }
        Ok(facts)
    }

    /// Entities by name.
    pub fn entities(&self) -> Vec<&str> {
        self.objects.keys().map(String::as_str).collect()
    }

    /// What an entity has.
    pub fn of(&self, entity: &str) -> &BTreeMap<String, Objects> {
        static NONE: BTreeMap<String, Objects> = BTreeMap::new();
        self.objects.get(entity).unwrap_or(&NONE)
    }

    /// All relations, by name.
    pub fn relations(&self) -> Vec<String> {
        self.named.keys().cloned().collect()
    }

    /// The object of an entity as the table first names it; empty where it has none.
    pub fn named(&self, entity: &str, relation: &str) -> &str {
        self.named.get(relation).and_then(|named| named.get(entity)).map_or("", String::as_str)
    }

    /// Whether a fact is so.
    pub fn holds(&self, entity: &str, relation: &str, target: &str) -> bool {
        self.of(entity).get(relation).is_some_and(|objects| objects.contains(&folded(target)))
    }

    /// The object that most entities have, by relation, among some entities.
    pub fn most_common(&self, among: &dyn Fn(&str) -> bool) -> BTreeMap<String, String> {
        let most = self.named.iter().filter_map(|(relation, named)| {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for (_, object) in named.iter().filter(|(entity, _)| among(entity)) {
                *counts.entry(object).or_default() += 1;
            }
            let (object, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
            Some((relation.clone(), object.to_owned()))
        });
        most.collect()
    }

    /// For each relation, the known object that shares the longest run of letters with the entity's
    /// name: what a match of strings can reach.
    pub fn by_string(
        &self,
        entity: &str,
        among: &dyn Fn(&str) -> bool,
    ) -> BTreeMap<String, String> {
        let name = folded(entity);
        let best = self.named.iter().filter_map(|(relation, named)| {
            let known = named.iter().filter(|(other, _)| among(other)).map(|(_, object)| object);
            let object = known.max_by_key(|object| shared_run(&name, &folded(object)))?;
            Some((relation.clone(), object.clone()))
        });
        best.collect()
    }

    /// The table of some entities, without some relations.
    pub fn part(&self, among: &dyn Fn(&str) -> bool, without: &[&str]) -> String {
        let mut text = self.header.clone();
        for (_, lines) in self.lines.iter().filter(|(entity, _)| among(entity)) {
            let kept = lines.iter().filter(|line| {
                line.split('\t').nth(1).is_none_or(|relation| !without.contains(&relation))
            });
            for line in kept {
                text.push('\n');
                text.push_str(line);
            }
        }
        text.push('\n');
        text
    }
}

/// A sentence for each relation, with a place for the entity.
pub struct Prompts(BTreeMap<String, String>);

impl Prompts {
    /// Reads a table with the columns relation and prompt.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let lines = text.lines().skip(1).filter_map(|line| line.split_once('\t'));
        let prompts = lines.map(|(relation, prompt)| (relation.to_owned(), prompt.to_owned()));
        Ok(Self(prompts.collect()))
    }

    /// The sentence of a relation; empty where there is none.
    pub fn of(&self, relation: &str) -> &str {
        self.0.get(relation).map_or("", String::as_str)
    }
}

/// A name without differences of case.
pub fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

/// The length of the longest run of characters that two names share.
fn shared_run(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut most = 0;
    for &x in &a {
        let mut row = vec![0; b.len() + 1];
        for (at, &y) in b.iter().enumerate() {
            if x == y {
                row[at + 1] = before[at] + 1;
                most = most.max(row[at + 1]);
            }
        }
        before = row;
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_shared_run_is_found() {
        assert_eq!(shared_run("nigeria", "nigerian"), 7);
        assert_eq!(shared_run("france", "paris"), 1);
        assert_eq!(shared_run("", "x"), 0);
    }
}
