//! The queries that plans are judged by: every kind of access, with words and numbers of the model.

/// Relations of the bundled facts.
const RELATIONS: [&str; 10] = [
    "capital",
    "language",
    "currency",
    "continent",
    "borders",
    "symbol",
    "author",
    "founder",
    "field",
    "no such relation",
];

/// At least a hundred queries, from words that are targets of features.
pub fn queries(words: &[String]) -> Vec<String> {
    let word = |at: usize| words[at % words.len().max(1)].as_str();
    let list = |first: usize, count: usize| {
        let quoted = (first..first + count).map(|at| format!("\"{}\"", word(at)));
        quoted.collect::<Vec<_>>().join(", ")
    };
    let numbers = |first: usize, count: usize| {
        let numbers = (0..count).map(|at| (first * 37 + at * 11).to_string());
        numbers.collect::<Vec<_>>().join(", ")
    };
    let mut queries = Vec::new();
    for (at, relation) in RELATIONS.iter().enumerate() {
        queries.extend([
            format!("SELECT layer, feature, logit FROM EDGES WHERE target = \"{}\"", word(at)),
            format!("SELECT * FROM FEATURES WHERE target = \"{}\" AND layer < {}", word(at), 1 + at % 4),
            format!("SELECT count(*) FROM EDGES WHERE target IN ({})", list(at, 2 + 3 * at)),
            format!("SELECT layer FROM EDGES WHERE target = \"{}\" AND feature = {}", word(at), 17 * at),
            format!("SELECT target, logit FROM FEATURES WHERE feature = {}", 13 * at),
            format!("SELECT target FROM FEATURES WHERE feature IN ({}) AND layer = {}", numbers(at, 4 + 12 * at), at % 4),
            format!("DESCRIBE \"{}\"", word(at)),
            format!("DESCRIBE \"{}\" ALL LAYERS", word(at + 3)),
            format!("WALK \"{}\" TOP {}", word(at), 5 + 20 * at),
            format!("SELECT target, layer FROM EDGES WHERE entity = \"{}\" AND layer < {}", word(at), 1 + at % 5),
            format!("SELECT entity, target FROM EDGES WHERE relation = \"{}\"", relation),
            format!("SELECT entity FROM EDGES WHERE relation = \"{}\" AND target = \"{}\"", relation, word(at)),
            format!(
                "SELECT a.feature, b.feature FROM FEATURES AS a JOIN FEATURES AS b ON a.target = b.target \
                 WHERE a.layer = {} AND b.layer = {} AND a.logit > {}",
                at % 4, (at + 1) % 5, at % 3
            ),
            format!("SELECT target, count(*) FROM FEATURES WHERE logit > 0.{at} GROUP BY target ORDER BY 2 DESC LIMIT 5"),
        ]);
    }
    queries.extend([
        "SHOW ENTITIES LIMIT 20".to_owned(),
        "SHOW ENTITIES AT LAYER 1 LIMIT 20".to_owned(),
        "SELECT * FROM ENTITIES WHERE count > 3 ORDER BY max_logit DESC LIMIT 10".to_owned(),
        "SELECT count(*) FROM ENTITIES".to_owned(),
        "SHOW FEATURES 2 LIMIT 20".to_owned(),
        "SELECT target FROM FEATURES WHERE target LIKE \"A%\" LIMIT 10".to_owned(),
        "SELECT target FROM EDGES WHERE target = \"no such target\"".to_owned(),
        "SELECT target FROM FEATURES WHERE relation = \"capital\"".to_owned(),
        "SELECT target FROM FEATURES WHERE relation IN (\"capital\", \"language\") AND layer > 1"
            .to_owned(),
        format!("SELECT feature FROM EDGES NEAREST TO \"{}\" AT LAYER 2 LIMIT 5", word(0)),
    ]);
    queries
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_are_at_least_a_hundred_queries_and_all_differ() {
        let words: Vec<String> = (0..40).map(|word| format!("word {word}")).collect();
        let mut queries = super::queries(&words);
        assert!(queries.len() >= 100);
        queries.sort();
        queries.dedup();
        assert!(queries.len() >= 100, "{}", queries.len());
    }
}
