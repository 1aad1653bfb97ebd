//! A table of known facts: entity, relation, object, one a line, with tabs between.
//!
//! A first line that names columns (`entity` or `subject`, `relation`, `object` or `target`,
//! `aliases`) may put them in any order and have others beside them; without one the first three
//! columns are meant. Aliases, other spellings of the object, stand in one cell with `|` between.

use std::collections::{BTreeMap, BTreeSet};

use larql_storage::vindex::knowledge::{RELATIONS_MAX, TEXT_BYTES_MAX};

use crate::failure::{Failure, code};

/// Largest table that is read.
pub const FACTS_BYTES_MAX: u64 = 256 << 20;
/// Most facts of a table.
const FACTS_MAX: usize = 2_000_000;

/// The names that the columns may have.
const COLUMNS: [&[&str]; 4] =
    [&["entity", "subject"], &["relation"], &["object", "target"], &["aliases", "alias"]];

/// Known facts, by relation and entity; both in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    relations: BTreeMap<String, BTreeMap<String, Objects>>,
    count: usize,
}

/// The objects that an entity has of a relation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    /// As they are named.
    pub names: Vec<String>,
    /// Other spellings.
    pub aliases: Vec<String>,
}

impl Objects {
    /// All spellings, names first.
    pub fn spellings(&self) -> impl Iterator<Item = &str> {
        self.names.iter().chain(&self.aliases).map(String::as_str)
    }
}

impl Facts {
    /// Parses a table; `name` is what errors call it.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` with the line that is wrong, `LIMIT` for a table that is too large.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self, Failure> {
        let refuse = |line: usize, problem: String| {
            Failure::new(code::INVALID_PARAMETER, format!("{name}, line {line}: {problem}"))
                .hint("a line is entity, relation and object with tabs between")
        };
        let text = std::str::from_utf8(text).map_err(|error| {
            let line = text[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
            refuse(line + 1, "it is not UTF-8".to_owned())
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut facts = Self::default();
        let mut columns = [Some(0), Some(1), Some(2), None];
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
            if facts.count == 0
                && let Some(named) = header(&cells)
            {
                columns = named;
                continue;
            }
            let cell = |column: usize| columns[column].and_then(|at| cells.get(at).copied());
            let [entity, relation, object] = [0, 1, 2].map(|column| cell(column).unwrap_or(""));
            for (what, text) in [("entity", entity), ("relation", relation), ("object", object)] {
                if text.is_empty() {
                    return Err(refuse(number, format!("it has no {what}")));
                }
                if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
                    let problem = format!("its {what} is too long or has a control character");
                    return Err(refuse(number, problem));
                }
            }
            facts.add(entity, relation, object, cell(3).unwrap_or(""));
            if facts.count > FACTS_MAX || facts.relations.len() > RELATIONS_MAX {
                let message =
                    format!("{name} has more than {FACTS_MAX} facts or {RELATIONS_MAX} relations");
                return Err(Failure::new(code::LIMIT, message).hint("label with a part of it"));
            }
        }
        match facts.count {
            0 => Err(refuse(1, "there is no fact in it".to_owned())),
            _ => Ok(facts),
        }
    }

    fn add(&mut self, entity: &str, relation: &str, object: &str, aliases: &str) {
        let objects = self.relations.entry(relation.to_owned()).or_default();
        let objects = objects.entry(entity.to_owned()).or_default();
        if !objects.names.iter().any(|known| known == object) {
            objects.names.push(object.to_owned());
        }
        let aliases = aliases.split('|').map(str::trim).filter(|alias| !alias.is_empty());
        objects.aliases.extend(aliases.map(str::to_owned));
        self.count += 1;
    }

    /// Relations with what each entity has of them.
    pub fn relations(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, Objects>)> {
        self.relations.iter().map(|(name, entities)| (name.as_str(), entities))
    }

    /// What an entity has of a relation.
    pub fn objects(&self, entity: &str, relation: &str) -> Option<&Objects> {
        self.relations.get(relation)?.get(entity)
    }

    /// All entities, each once, in order of their names.
    pub fn entities(&self) -> BTreeSet<&str> {
        self.relations.values().flat_map(|entities| entities.keys().map(String::as_str)).collect()
    }
}

/// The places of the known columns, if the cells are their names.
fn header(cells: &[&str]) -> Option<[Option<usize>; 4]> {
    let places = COLUMNS.map(|names| {
        cells.iter().position(|cell| names.iter().any(|name| cell.eq_ignore_ascii_case(name)))
    });
    places[..3].iter().all(Option::is_some).then_some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_or_are_the_first_three() {
        let named = "kind\tobject\tsubject\trelation\taliases\ncity\tParis\tFrance\tcapital\tParee|Paname\n";
        let facts = Facts::parse("f", named.as_bytes()).unwrap();
        let objects = facts.objects("France", "capital").unwrap();
        assert_eq!(objects.spellings().collect::<Vec<_>>(), ["Paris", "Paree", "Paname"]);
        let plain = "# known\nFrance\tborders\tSpain\r\n\nFrance\tborders\tItaly\textra\n";
        let facts = Facts::parse("f", plain.as_bytes()).unwrap();
        assert_eq!(facts.objects("France", "borders").unwrap().names, ["Spain", "Italy"]);
        assert_eq!(facts.entities().into_iter().collect::<Vec<_>>(), ["France"]);
    }

    #[test]
    fn a_table_that_is_none_is_refused_with_its_line() {
        for (text, says) in [
            (&b"France\tcapital\tParis\nSpain\tcapital\n"[..], "line 2: it has no object"),
            (b"a\tb\tc\nd\t\te", "line 2: it has no relation"),
            (b"a\tb\tc\n\xff\tb\tc", "line 2: it is not UTF-8"),
            (b"a\tb\tc\x07", "line 1"),
            (b"", "no fact"),
            (b"subject\trelation\tobject\n", "no fact"),
        ] {
            let failure = Facts::parse("f.tsv", text).unwrap_err();
            assert!(failure.message.contains(says), "{}", failure.message);
        }
        let long = format!("{}\tb\tc", "x".repeat(TEXT_BYTES_MAX + 1));
        assert!(Facts::parse("f", long.as_bytes()).is_err());
    }
}
