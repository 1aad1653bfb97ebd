//! Browsing and running models whose layers are no single gated network: mixtures of experts, plain
//! networks, latent attention. A layer's features are numbered through its dense network and then
//! through its experts, and every statement means the same feature by a number.

use std::collections::HashMap;

use larql_client::{Answer, LogitsRequest, Value};
use larql_tests::checkpoint::{Tensor, dot, read};
use larql_tests::daemon::Daemon;
use larql_tests::repository;
use larqld::text::Tokenizer;

/// A golden folder, with the gate vectors of a layer as its publisher stores them.
struct Model {
    folder: &'static str,
    embedding: &'static str,
    gates: fn(&HashMap<String, Tensor>, usize) -> Vec<Vec<f64>>,
}

fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
    (0..tensor.shape[0]).map(|row| tensor.row(row).to_vec()).collect()
}

/// Mixtral: experts alone, `w1` is the gate.
fn mixtral(tensors: &HashMap<String, Tensor>, layer: usize) -> Vec<Vec<f64>> {
    let name = |expert| format!("model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight");
    (0..).map_while(|expert| tensors.get(&name(expert))).flat_map(rows).collect()
}

/// DeepSeek: a dense network in the first layer, shared experts before the routed ones after it.
fn deepseek(tensors: &HashMap<String, Tensor>, layer: usize) -> Vec<Vec<f64>> {
    let mlp = format!("model.layers.{layer}.mlp");
    let dense = ["", ".shared_experts"].map(|part| format!("{mlp}{part}.gate_proj.weight"));
    let expert = |expert| tensors.get(&format!("{mlp}.experts.{expert}.gate_proj.weight"));
    let dense = dense.iter().filter_map(|name| tensors.get(name));
    dense.chain((0..).map_while(expert)).flat_map(rows).collect()
}

/// gpt-oss: experts stacked, the other way around, gate and up in turns.
fn gpt_oss(tensors: &HashMap<String, Tensor>, layer: usize) -> Vec<Vec<f64>> {
    let stacked = &tensors[&format!("model.layers.{layer}.mlp.experts.gate_up_proj")];
    let [experts, inputs, outputs] = stacked.shape[..] else { panic!("{:?}", stacked.shape) };
    let gate = |expert: usize, feature: usize| {
        let at = move |input| (expert * inputs + input) * outputs + 2 * feature;
        (0..inputs).map(|input| stacked.values[at(input)]).collect()
    };
    (0..experts)
        .flat_map(|expert| (0..outputs / 2).map(move |feature| (expert, feature)))
        .map(|(expert, feature)| gate(expert, feature))
        .collect()
}

/// GPT-2: a plain network, whose first projection lies the other way around.
fn gpt2(tensors: &HashMap<String, Tensor>, layer: usize) -> Vec<Vec<f64>> {
    let stored = &tensors[&format!("h.{layer}.mlp.c_fc.weight")];
    let [inputs, features] = stored.shape[..] else { panic!("{:?}", stored.shape) };
    let gate = |feature| (0..inputs).map(move |input| stored.values[input * features + feature]);
    (0..features).map(|feature| gate(feature).collect()).collect()
}

/// Phi-2: a plain network beside attention.
fn phi2(tensors: &HashMap<String, Tensor>, layer: usize) -> Vec<Vec<f64>> {
    rows(&tensors[&format!("model.layers.{layer}.mlp.fc1.weight")])
}

const MODELS: &[Model] = &[
    Model { folder: "mixtral", embedding: "model.embed_tokens.weight", gates: mixtral },
    Model { folder: "deepseek_v2", embedding: "model.embed_tokens.weight", gates: deepseek },
    Model { folder: "gpt_oss", embedding: "model.embed_tokens.weight", gates: gpt_oss },
    Model { folder: "gpt2", embedding: "wte.weight", gates: gpt2 },
    Model { folder: "phi2", embedding: "model.embed_tokens.weight", gates: phi2 },
];

const PROMPT: &str = "The quick brown fox";
const TOP: usize = 7;

fn tokens(folder: &str) -> Vec<u32> {
    let path = repository().join("tests/goldens").join(folder).join("tokenizer.json");
    let tokenizer = Tokenizer::from_bytes(&std::fs::read(path).expect("tokenizer.json"), 512);
    tokenizer.expect("a tokenizer").encode(PROMPT, true).expect("tokens")
}

fn number(answer: &Answer, row: usize, column: &str) -> f64 {
    let cell = &answer.column(column).unwrap_or_else(|| panic!("no column {column}"))[row];
    cell.as_number().unwrap_or_else(|| panic!("{column} is {cell:?}"))
}

async fn extracted(daemon: &Daemon, model: &Model) {
    let source = repository().join("tests/goldens").join(model.folder);
    let vindex = daemon.data_dir().join(format!("vindexes/{}.vindex", model.folder));
    daemon.extract(&source, &vindex, "WITH INFERENCE DTYPE F32").await;
}

#[tokio::test]
async fn gate_scores_are_the_products_with_the_published_gate_vectors() {
    let daemon = Daemon::start();
    for model in MODELS {
        extracted(&daemon, model).await;
        let folder = model.folder;
        let script = format!("USE \"{folder}\"; WALK \"{PROMPT}\" TOP {TOP}; SHOW LAYERS;");
        let answers =
            daemon.query(&script).await.unwrap_or_else(|error| panic!("{folder}: {error}"));
        let tensors = read(&repository().join("tests/goldens").join(folder));
        let last = *tokens(folder).last().expect("a token");
        let query = tensors[model.embedding].row(last as usize);
        let mut row = 0;
        for layer in 0..answers[2].rows.len() {
            let gates = (model.gates)(&tensors, layer);
            assert_eq!(number(&answers[2], layer, "features") as usize, gates.len(), "{folder}");
            let scores: Vec<f64> = gates.iter().map(|gate| dot(gate, query)).collect();
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].abs().total_cmp(&scores[a].abs()));
            for &feature in &order[..TOP] {
                let name = format!("{folder}, layer {layer}, feature {feature}");
                assert_eq!(number(&answers[1], row, "layer") as usize, layer, "{name}");
                let found = number(&answers[1], row, "feature") as usize;
                let score = number(&answers[1], row, "gate_score");
                // Features whose scores are equal but for rounding may stand in either order.
                let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b.abs().max(1e-2);
                assert!(close(score, scores[found]), "{name}: {score}, {}", scores[found]);
                assert!(close(score.abs(), scores[feature].abs()), "{name}: {found} stands there");
                row += 1;
            }
        }
        assert_eq!(row, answers[1].rows.len(), "{folder}");
    }
}

#[tokio::test]
async fn a_feature_of_the_last_expert_is_found_by_its_number_as_by_a_scan() {
    let daemon = Daemon::start();
    for model in MODELS {
        extracted(&daemon, model).await;
        let folder = model.folder;
        let columns = "layer, feature, target, logit";
        let scan = format!("USE \"{folder}\"; SELECT {columns} FROM FEATURES WHERE layer = 1;");
        let scanned = daemon.query(&scan).await.unwrap_or_else(|error| panic!("{folder}: {error}"));
        let last = scanned[1].rows.last().expect("features").clone();
        let feature = last[1].as_number().expect("a number");
        let lookup = format!(
            "USE \"{folder}\"; SELECT {columns} FROM FEATURES WHERE layer = 1 AND feature = {feature};"
        );
        let found = daemon.query(&lookup).await.unwrap_or_else(|error| panic!("{folder}: {error}"));
        assert_eq!(found[1].rows, [last], "{folder}");
    }
}

#[tokio::test]
async fn infer_and_explain_infer_run_every_network_of_a_layer() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for model in MODELS {
        extracted(&daemon, model).await;
        let folder = model.folder;
        let script = format!(
            "USE \"{folder}\"; INFER \"{PROMPT}\" TOP 1; EXPLAIN INFER \"{PROMPT}\" TOP 5; \
             USE MODEL \"{}\"; INFER \"{PROMPT}\" TOP 1; SHOW LAYERS;",
            repository().join("tests/goldens").join(folder).display()
        );
        let answers =
            daemon.query(&script).await.unwrap_or_else(|error| panic!("{folder}: {error}"));
        let request = LogitsRequest {
            model: folder.to_owned(),
            token_ids: tokens(folder),
            ..LogitsRequest::default()
        };
        let logits = client.logits(request).await.expect("logits").logits;
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        for infer in [1, 4] {
            let found = number(&answers[infer], 0, "token_id") as usize;
            assert_eq!(Some(found), best, "{folder}");
            let logit = number(&answers[infer], 0, "logit");
            assert!((logit - f64::from(logits[found])).abs() < 1e-2, "{folder}: {logit}");
        }
        let explained = &answers[2];
        let layers = answers[5].rows.len();
        assert_eq!(explained.rows.len(), 5 * layers, "{folder}");
        let scores = explained.column("gate_score").expect("scores");
        assert!(scores.iter().all(|score| score.as_number().is_some()), "{folder}");
        let activations = explained.column("activation").expect("activations");
        let acts = |value: &&Value| value.as_number().is_some_and(|number| number != 0.0);
        assert!(activations.into_iter().any(|value| acts(&value)), "{folder}: no feature acts");
    }
}

#[tokio::test]
async fn walking_all_features_of_experts_answers_as_running_them_does() {
    let daemon = Daemon::start();
    for model in MODELS {
        extracted(&daemon, model).await;
        let folder = model.folder;
        let script = format!(
            "USE \"{folder}\"; INFER \"{PROMPT}\" TOP 3; SET ffn = walk; INFER \"{PROMPT}\" TOP 3;"
        );
        let answers =
            daemon.query(&script).await.unwrap_or_else(|error| panic!("{folder}: {error}"));
        let ids = |answer: &Answer| -> Vec<Value> {
            answer.column("token_id").expect("ids").into_iter().cloned().collect()
        };
        assert_eq!(ids(&answers[1]), ids(&answers[3]), "{folder}");
    }
}
