//! Ways to ask for a relation: sentences that any relation's name fits into, and the usual sentences
//! of relations that many tables have.
//!
//! They are only tried: which of them a model understands is measured (`templates`), and sentences of
//! the model's own are tried beside them.

use larql_storage::vindex::knowledge::ENTITY_SLOT;

/// What stands for the relation's name in a sentence for any of them.
const RELATION_SLOT: &str = "{relation}";

/// Sentences for any relation.
const GENERIC: [&str; 14] = [
    "The {relation} of {entity} is",
    "{entity} has the {relation}",
    "{entity} {relation}",
    "{entity}'s {relation} is",
    "The {relation} for {entity} is",
    "{entity} was {relation}",
    "{entity} is {relation}",
    "The {relation} of {entity} was",
    "The {relation} of {entity}:",
    "Q: What is the {relation} of {entity}?\nA:",
    "Question: What is the {relation} of {entity}? Answer:",
    "What is the {relation} of {entity}?",
    "{entity} ({relation}:",
    "{entity}, {relation}:",
];

/// A relation's usual names, and its usual sentences.
type Known = (&'static [&'static str], &'static [&'static str]);

/// Relations that many tables have.
const KNOWN: &[Known] = &[
    (
        &["capital", "capital city", "capital of"],
        &[
            "{entity} and its capital",
            "The capital city of {entity} is",
            "The seat of government of {entity} is",
        ],
    ),
    (
        &["state capital", "provincial capital", "administrative centre"],
        &[
            "The capital of {entity} is",
            "The state capital of {entity} is",
            "The state of {entity} has the capital",
        ],
    ),
    (
        &["continent", "region", "part of"],
        &[
            "{entity} is in",
            "{entity} lies in",
            "{entity} is a country in",
            "{entity} is on the continent of",
            "{entity} belongs to",
        ],
    ),
    (
        &["language", "official language", "spoken language", "languages"],
        &[
            "The official language of {entity} is",
            "The people of {entity} speak",
            "People in {entity} speak",
            "In {entity} they speak",
        ],
    ),
    (
        &["currency", "money"],
        &[
            "The currency of {entity} is the",
            "In {entity} people pay with the",
            "The currency used in {entity} is the",
            "The money of {entity} is the",
        ],
    ),
    (
        &["demonym", "nationality", "inhabitant"],
        &[
            "People from {entity} are called",
            "A person from {entity} is called",
            "Someone from {entity} is",
            "The people of {entity} are",
        ],
    ),
    (
        &["borders", "neighbour", "neighbor", "neighbours", "shares border with", "adjacent to"],
        &[
            "{entity} borders",
            "{entity} shares a border with",
            "A neighbour of {entity} is",
            "{entity} is next to",
        ],
    ),
    (
        &["population", "area", "elevation", "height", "length"],
        &["{entity} has a {relation} of", "The {relation} of {entity} is about"],
    ),
    (
        &["symbol", "chemical symbol", "ticker", "abbreviation"],
        &[
            "The chemical symbol of {entity} is",
            "The symbol for {entity} is",
            "{entity} has the symbol",
            "{entity} is written as",
        ],
    ),
    (
        &["atomic number", "number"],
        &[
            "The atomic number of {entity} is",
            "{entity} has atomic number",
            "{entity} is element number",
            "{entity} has the number",
        ],
    ),
    (
        &["category", "type", "class", "kind", "instance of", "is a", "group"],
        &[
            "{entity} is a",
            "{entity} is an",
            "{entity} is",
            "{entity} is a kind of",
            "{entity} belongs to the",
        ],
    ),
    (
        &["born in", "birthplace", "place of birth", "birth place", "birth city"],
        &[
            "{entity} was born in",
            "The birthplace of {entity} is",
            "{entity} was born in the city of",
            "{entity} comes from",
        ],
    ),
    (
        &["birth country", "country of birth", "citizenship", "country", "country of citizenship"],
        &[
            "{entity} was born in",
            "The country of birth of {entity} is",
            "The birth country of {entity} is",
            "{entity} is from",
            "{entity} is located in",
            "{entity} is in the country of",
        ],
    ),
    (
        &["birth year", "born", "year of birth", "date of birth"],
        &["{entity} was born in the year", "{entity} was born on", "{entity} was born in"],
    ),
    (
        &["death place", "died in", "place of death"],
        &["{entity} died in", "The place of death of {entity} is"],
    ),
    (
        &["occupation", "profession", "job", "role"],
        &[
            "{entity} was a",
            "{entity} is a",
            "{entity} worked as a",
            "{entity} works as a",
            "The occupation of {entity} is",
            "By profession {entity} is a",
        ],
    ),
    (
        &["field", "field of work", "discipline", "subject", "area of work", "genre", "sport"],
        &[
            "{entity} worked in the field of",
            "{entity} worked in",
            "{entity} works in the field of",
            "The field of {entity} is",
            "{entity} plays",
        ],
    ),
    (
        &["known for", "famous for", "notable work", "achievement", "notable for"],
        &[
            "{entity} is known for",
            "{entity} is best known for",
            "{entity} became famous for",
            "{entity} is famous for",
            "{entity} is remembered for",
        ],
    ),
    (
        &["headquarters", "based in", "head office", "headquarters location", "seat"],
        &[
            "{entity} is based in",
            "{entity} is headquartered in",
            "The headquarters of {entity} is in",
            "The headquarters of {entity} are in",
            "{entity} has its head office in",
        ],
    ),
    (
        &["founder", "founded by", "founders"],
        &[
            "{entity} was founded by",
            "The founder of {entity} is",
            "The founder of {entity} was",
            "{entity} was started by",
        ],
    ),
    (
        &["industry", "sector", "product", "products", "business"],
        &[
            "{entity} is a company in the field of",
            "{entity} works in the business of",
            "The industry of {entity} is",
            "{entity} makes",
            "{entity} is known for making",
            "{entity} is active in",
        ],
    ),
    (
        &["ceo", "chief executive", "head of state", "president", "leader", "director"],
        &["The {relation} of {entity} is", "{entity} is led by", "{entity} is headed by"],
    ),
    (
        &[
            "parent company",
            "owner",
            "owned by",
            "manufacturer",
            "developer",
            "publisher",
            "producer",
        ],
        &[
            "{entity} is owned by",
            "{entity} belongs to",
            "{entity} is made by",
            "{entity} was developed by",
            "{entity} was published by",
        ],
    ),
    (
        &["author", "writer", "written by"],
        &[
            "{entity} was written by",
            "The author of {entity} is",
            "The book {entity} was written by",
            "{entity} is a book by",
            "{entity} is by",
        ],
    ),
    (
        &["creator", "designer", "created by", "made by", "developer", "designed by"],
        &[
            "{entity} was created by",
            "The creator of {entity} is",
            "{entity} was designed by",
            "{entity} was made by",
            "{entity} was developed by",
        ],
    ),
    (
        &["inventor", "invented by", "discoverer", "discovered by", "discovery"],
        &[
            "{entity} was invented by",
            "The inventor of {entity} is",
            "The inventor of {entity} was",
            "{entity} was discovered by",
        ],
    ),
    (
        &["painter", "artist", "composer", "performer", "singer", "band", "director"],
        &[
            "{entity} was painted by",
            "{entity} was composed by",
            "{entity} is performed by",
            "{entity} was directed by",
            "{entity} is a work of",
        ],
    ),
    (
        &["team", "league", "club", "member of", "member", "party"],
        &[
            "{entity} plays for",
            "{entity} is a member of",
            "{entity} plays in",
            "{entity} belongs to",
        ],
    ),
    (
        &["spouse", "married to", "partner", "parent", "father", "mother", "child"],
        &["{entity} is married to", "{entity} was married to", "The {relation} of {entity} is"],
    ),
    (
        &["religion", "colour", "color", "material", "made of", "habitat", "diet"],
        &[
            "{entity} is made of",
            "The {relation} of {entity} is",
            "{entity} lives in",
            "{entity} eats",
        ],
    ),
];

/// The sentences to try for a relation, each with the entity's slot, best guesses first.
pub fn candidates(relation: &str) -> Vec<String> {
    let name: String = relation
        .chars()
        .map(|c| if matches!(c, '_' | '-') { ' ' } else { c })
        .collect::<String>()
        .to_lowercase();
    let name = name.trim();
    let known = KNOWN.iter().filter(|(names, _)| names.contains(&name));
    let mut found: Vec<String> = Vec::new();
    let sentences = known.flat_map(|(_, sentences)| sentences.iter()).chain(&GENERIC);
    for sentence in sentences.map(|sentence| sentence.replace(RELATION_SLOT, name)) {
        if sentence.matches(ENTITY_SLOT).count() == 1 && !found.contains(&sentence) {
            found.push(sentence);
        }
    }
    found
}

/// Every sentence that is asked by, with its slots.
pub fn all_sentences() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().flat_map(|(_, sentences)| sentences.iter()).chain(&GENERIC).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_relation_has_sentences_with_one_entity_and_known_ones_have_their_own() {
        for relation in ["capital", "Country-of_birth", "unheard of", "{entity}"] {
            let found = candidates(relation);
            let slots = |text: &String| text.matches(ENTITY_SLOT).count();
            assert!(found.iter().all(|text| slots(text) == 1), "{relation}: {found:?}");
        }
        assert!(candidates("unheard of").contains(&"The unheard of of {entity} is".to_owned()));
        assert!(candidates("capital").len() > candidates("unheard of").len());
        assert!(candidates("country_of_birth").len() > GENERIC.len());
    }
}
