//! EXPLAIN ANALYZE of statements that run the model: what the passes' time and bytes went to, layer by
//! layer and operator by operator.

use larql_client::{Answer, Value};
use larql_tests::daemon::Daemon;

const PROMPT: &str = "The capital of France is";
const LAYERS: usize = 6;

fn number(value: &Value) -> f64 {
    value.as_number().unwrap_or_else(|| panic!("{value:?} is no number"))
}

fn text(value: &Value) -> &str {
    value.as_text().unwrap_or_else(|| panic!("{value:?} is no text"))
}

/// Columns of a plan's rows.
const ID: usize = 0;
const PARENT: usize = 1;
const OPERATOR: usize = 2;
const DETAIL: usize = 3;
const BYTES: usize = 8;
const MS: usize = 9;

/// The rows below one, in order.
fn below<'a>(plan: &'a Answer, parent: &[Value]) -> Vec<&'a Vec<Value>> {
    plan.rows.iter().filter(|row| row[PARENT] == parent[ID]).collect()
}

fn operators(rows: &[&Vec<Value>]) -> Vec<String> {
    rows.iter().map(|row| text(&row[OPERATOR]).to_owned()).collect()
}

fn total(rows: &[&Vec<Value>], column: usize) -> f64 {
    rows.iter().map(|row| number(&row[column])).sum()
}

#[tokio::test]
async fn a_pass_is_told_by_layer_and_operator_with_bytes_time_and_share_of_bandwidth() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    for statement in [
        format!("INFER \"{PROMPT}\""),
        format!("TRACE \"{PROMPT}\""),
        format!("GENERATE \"{PROMPT}\" MAX 4"),
        format!("EXPLAIN INFER \"{PROMPT}\""),
        format!("WALK \"{PROMPT}\" MODE DENSE"),
    ] {
        let script = format!("USE \"atlas\"; EXPLAIN ANALYZE {statement}");
        let answers =
            daemon.query(&script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
        let plan = &answers[1];
        let ids: Vec<f64> = plan.rows.iter().map(|row| number(&row[ID])).collect();
        let mut unique = ids.clone();
        unique.dedup();
        assert_eq!(ids, unique, "{statement}");
        let root = &plan.rows[0];
        let parts = below(plan, root);
        let mut expected = vec!["Embedding"];
        expected.extend([const { "Layer" }; LAYERS]);
        expected.push("Unembedding");
        assert_eq!(operators(&parts), expected, "{statement}");
        // Parts make up the whole; a statement may read more than weights.
        let bytes = total(&parts, BYTES);
        assert!(bytes > 0.0 && bytes <= number(&root[BYTES]), "{statement}");
        assert!(total(&parts, MS) <= number(&root[MS]), "{statement}");
        for layer in &parts[1..=LAYERS] {
            let inner = below(plan, layer);
            assert_eq!(operators(&inner), ["Attention", "FeedForward"], "{statement}");
            assert_eq!(total(&inner, BYTES), number(&layer[BYTES]), "{statement}");
        }
        for row in std::iter::once(root).chain(parts.iter().copied()) {
            let detail = text(&row[DETAIL]);
            assert!(detail.contains(" GB/s, "), "{statement}: {detail}");
            assert!(detail.ends_with(" % of bandwidth"), "{statement}: {detail}");
        }
    }
}

#[tokio::test]
async fn json_has_the_same_parts_and_other_statements_their_rates() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let script = format!(
        "USE \"atlas\"; EXPLAIN ANALYZE (FORMAT JSON) INFER \"{PROMPT}\"; \
         EXPLAIN ANALYZE DESCRIBE \"France\"; EXPLAIN ANALYZE SHOW MOUNTS; \
         EXPLAIN (RULES) TRACE \"{PROMPT}\"; EXPLAIN (FORMAT JSON) GENERATE \"{PROMPT}\""
    );
    let answers = daemon.query(&script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
    let json: serde_json::Value = serde_json::from_str(text(&answers[1].rows[0][0])).expect("JSON");
    let plan = &json["plan"];
    assert_eq!(plan["operator"], "Infer");
    let parts = plan["parts"].as_array().expect("parts");
    assert_eq!(parts.len(), LAYERS + 2);
    assert_eq!(parts[1]["operator"], "Layer");
    assert_eq!(parts[1]["parts"][0]["operator"], "Attention");
    for part in [plan, &parts[1]] {
        assert!(part["gb_per_s"].as_f64().expect("a rate") > 0.0);
        assert!(part["bandwidth_share"].as_f64().expect("a share") > 0.0);
    }
    let scan = answers[2].rows.iter().find(|row| text(&row[OPERATOR]) == "GateScan");
    assert!(text(&scan.expect("a scan")[DETAIL]).contains(" GB/s, "));
    // What reads no weights has no rate.
    assert!(!text(&answers[3].rows[0][DETAIL]).contains("GB/s"));
    assert!(text(&answers[4].rows[0][2]).starts_with("Trace"));
    assert!(text(&answers[5].rows[0][0]).contains("\"Generate\""));
}
