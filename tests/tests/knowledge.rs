//! DESCRIBE, WALK and SELECT on the bundled model equal the oracle written from the definitions, and
//! other weights give other answers.

use larql_client::{Answer, Value};
use larql_tests::atlas::{HITS_PER_LAYER, Oracle, Z_MIN};
use larql_tests::atlas_checkpoint;
use larql_tests::daemon::Daemon;

/// Relative difference of a score that f32 sums over 256 terms may show.
const TOLERANCE: f64 = 1e-4;

fn entities() -> Vec<String> {
    let facts = std::fs::read_to_string(atlas_checkpoint().join("facts.tsv")).expect("facts.tsv");
    let mut subjects: Vec<String> = Vec::new();
    for line in facts.lines().skip(1) {
        let subject = line.split('\t').next().unwrap_or_default();
        if subjects.last().is_none_or(|last| last != subject) {
            subjects.push(subject.to_owned());
        }
    }
    let step = subjects.len() / 50;
    let chosen: Vec<String> = subjects.into_iter().step_by(step.max(1)).take(50).collect();
    assert_eq!(chosen.len(), 50);
    chosen
}

fn text(value: &Value) -> &str {
    value.as_text().unwrap_or_else(|| panic!("{value:?} is no text"))
}

fn number(value: &Value) -> f64 {
    value.as_number().unwrap_or_else(|| panic!("{value:?} is no number"))
}

fn cell<'a>(answer: &'a Answer, row: usize, column: &str) -> &'a Value {
    answer.column(column).unwrap_or_else(|| panic!("no column {column}"))[row]
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0)
}

#[tokio::test]
async fn describe_walk_and_select_equal_the_oracle_for_fifty_entities() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let oracle = Oracle::load();
    let mut edges_seen = 0;
    // The default threshold, and a lower one under which a small model shows more.
    for (entity, z_min) in entities().iter().flat_map(|entity| [(entity, Z_MIN), (entity, 2.5)]) {
        let script = format!(
            "USE \"atlas\"; SET describe_z = {z_min}; DESCRIBE \"{entity}\"; \
             WALK \"The capital of {entity}\" TOP 3; \
             SELECT layer, feature, gate_score, target FROM EDGES WHERE entity = \"{entity}\";"
        );
        let answers =
            daemon.query(&script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
        edges_seen += compare_describe(&oracle, entity, z_min, &answers[2]);
        compare_walk(&oracle, &format!("The capital of {entity}"), &answers[3]);
        compare_edges(&oracle, entity, z_min, &answers[4]);
    }
    assert!(edges_seen > 100, "only {edges_seen} edges over fifty entities: the test says little");
}

fn compare_describe(oracle: &Oracle, entity: &str, z_min: f64, answer: &Answer) -> usize {
    let expected = oracle.describe(entity, z_min);
    assert_eq!(answer.rows.len(), expected.len(), "DESCRIBE {entity}: {:?}", answer.rows);
    for (row, edge) in expected.iter().enumerate() {
        let at = |column| cell(answer, row, column);
        assert_eq!(text(at("entity")), entity);
        assert_eq!(text(at("target")), edge.target, "{entity}, row {row}");
        assert!(close(number(at("gate_score")), edge.best.score), "{entity}, row {row}");
        assert_eq!(number(at("layer")) as usize, edge.best.layer);
        assert_eq!(number(at("feature")) as usize, edge.best.feature);
        assert_eq!(number(at("layer_min")) as usize, edge.layer_min);
        assert_eq!(number(at("layer_max")) as usize, edge.layer_max);
        assert_eq!(number(at("count")) as usize, edge.count);
        let also: Vec<&str> = at("also").as_list().expect("a list").iter().map(text).collect();
        assert_eq!(also, edge.also, "{entity} → {}", edge.target);
        assert_eq!(text(at("source")), "gate");
        assert_eq!(at("confidence"), &Value::Null);
    }
    expected.len()
}

fn compare_walk(oracle: &Oracle, prompt: &str, answer: &Answer) {
    let vector = oracle.prompt_vector(prompt);
    let expected: Vec<_> =
        (0..oracle.layers()).flat_map(|layer| oracle.hits(layer, &vector, 3)).collect();
    assert_eq!(answer.rows.len(), expected.len(), "WALK {prompt}");
    for (row, hit) in expected.iter().enumerate() {
        let at = |column| cell(answer, row, column);
        assert_eq!(number(at("layer")) as usize, hit.layer, "{prompt}, row {row}");
        assert_eq!(number(at("feature")) as usize, hit.feature, "{prompt}, row {row}");
        assert!(close(number(at("gate_score")), hit.score), "{prompt}, row {row}");
        let words = oracle.words(hit.layer, hit.feature);
        let found: Vec<&str> =
            at("top_tokens").as_list().expect("a list").iter().map(text).collect();
        assert_eq!(found, words, "{prompt}, row {row}");
        assert_eq!(at("target").as_text(), words.first().copied());
    }
}

fn compare_edges(oracle: &Oracle, entity: &str, z_min: f64, answer: &Answer) {
    let vector = oracle.entity_vector(entity);
    let expected: Vec<_> = (0..oracle.layers())
        .flat_map(|layer| oracle.hits(layer, &vector, HITS_PER_LAYER))
        .filter(|hit| {
            hit.score > 0.0 && hit.z >= z_min && !oracle.words(hit.layer, hit.feature).is_empty()
        })
        .collect();
    assert_eq!(answer.rows.len(), expected.len(), "EDGES of {entity}");
    for (row, hit) in expected.iter().enumerate() {
        let at = |column| cell(answer, row, column);
        let slot = (number(at("layer")) as usize, number(at("feature")) as usize);
        assert_eq!(slot, (hit.layer, hit.feature), "{entity}, row {row}");
        assert!(close(number(at("gate_score")), hit.score));
        assert_eq!(Some(text(at("target"))), oracle.words(hit.layer, hit.feature).first().copied());
    }
}

#[tokio::test]
async fn features_of_a_layer_equal_the_oracle() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let oracle = Oracle::load();
    let script =
        "USE \"atlas\"; SELECT feature, target, logit, top_tokens FROM FEATURES WHERE layer = 3;";
    let answer = daemon.query(script).await.expect("an answer").remove(1);
    let expected: Vec<usize> =
        (0..oracle.features(3)).filter(|&feature| !oracle.words(3, feature).is_empty()).collect();
    assert_eq!(answer.rows.len(), expected.len());
    for (row, feature) in expected.into_iter().enumerate() {
        assert_eq!(number(cell(&answer, row, "feature")) as usize, feature);
        let words = oracle.words(3, feature);
        assert_eq!(text(cell(&answer, row, "target")), words[0], "feature {feature}");
        let logit = oracle.logit(3, feature).expect("a logit");
        assert!(close(number(cell(&answer, row, "logit")), logit), "feature {feature}");
        let found: Vec<&str> =
            cell(&answer, row, "top_tokens").as_list().expect("a list").iter().map(text).collect();
        assert_eq!(found, words, "feature {feature}");
    }
}

#[tokio::test]
async fn other_weights_give_other_answers() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let other = daemon.data_dir().join("other");
    larql_tests::checkpoint::write_with_gates_negated(&atlas_checkpoint(), &other);
    daemon.extract(&other, &daemon.data_dir().join("other.vindex"), "").await;
    let script = |name: &str| {
        format!("SET describe_z = 2; USE \"{name}\"; DESCRIBE \"France\"; WALK \"France\" TOP 1;")
    };
    let atlas = daemon.query(&script("atlas")).await.expect("an answer");
    let other = daemon.query(&script("other")).await.expect("an answer");
    assert_ne!(atlas[2].rows, other[2].rows, "DESCRIBE");
    assert_ne!(atlas[2].summary.base_hash, other[2].summary.base_hash);
    // The same features score the same magnitude, with the sign turned.
    let score = |answers: &[Answer]| number(cell(&answers[3], 0, "gate_score"));
    assert!(close(score(&atlas), -score(&other)));
}
