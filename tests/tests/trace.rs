//! TRACE against INFER, against its own definition, and against the files that it saves, on the bundled
//! model and on a model of every family.

use std::path::PathBuf;

use larql_client::{Answer, Value};
use larql_tests::daemon::Daemon;
use larql_tests::goldens::CASES;
use larql_tests::{atlas_checkpoint, repository};

const PROMPT: &str = "The capital of France is";

/// Difference, relative to the sum of magnitudes, that sums of `f32` in another order may show.
const TOLERANCE: f64 = 2e-4;
/// The same where the unembedding is quantised: serving rounds what it reads to 8 bits.
const TOLERANCE_QUANTISED: f64 = 5e-3;

fn number(value: &Value) -> f64 {
    value.as_number().unwrap_or_else(|| panic!("{value:?} is no number"))
}

/// A column's numbers, NULL as 0.
fn numbers(answer: &Answer, column: &str) -> Vec<f64> {
    let column = answer.column(column).unwrap_or_else(|| panic!("no column {column}"));
    column.into_iter().map(|value| value.as_number().unwrap_or(0.0)).collect()
}

fn cell<'a>(answer: &'a Answer, row: usize, column: &str) -> &'a Value {
    answer.column(column).unwrap_or_else(|| panic!("no column {column}"))[row]
}

async fn answers(daemon: &Daemon, script: &str) -> Vec<Answer> {
    let answers = daemon.query(script).await;
    answers.unwrap_or_else(|error| panic!("{script}: {error} ({})", error.hint))
}

/// Models of every family, in every way in which tests have them: folder, what to open, and its format.
fn models() -> Vec<(PathBuf, PathBuf, String)> {
    let cases =
        CASES.iter().map(|case| (case.directory(), case.path(), case.format.to_lowercase()));
    cases.chain([(atlas_checkpoint(), atlas_checkpoint(), "f16".to_owned())]).collect()
}

/// The cap on a model's logits.
fn cap(directory: &std::path::Path) -> Option<f64> {
    let config = std::fs::read_to_string(directory.join("config.json")).expect("config.json");
    let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    let key = "final_logit_softcapping";
    config.get(key).or_else(|| config.get("text_config")?.get(key))?.as_f64()
}

#[tokio::test]
async fn on_every_family_the_parts_add_up_to_the_logit_that_infer_shows() {
    let daemon = Daemon::start();
    for (directory, path, format) in models() {
        let script = format!(
            "USE MODEL \"{}\"; INFER \"{PROMPT}\" TOP 1; TRACE \"{PROMPT}\" DECOMPOSE; \
             TRACE \"{PROMPT}\" POSITIONS ALL;",
            path.display()
        );
        let answers = answers(&daemon, &script).await;
        let (infer, trace, all) = (&answers[1], &answers[2], &answers[3]);
        let about = path.display();
        let layers = trace.rows.len() - 1;
        let expected: Vec<f64> = (0..=layers).map(|row| row as f64 - 1.0).collect();
        assert_eq!(numbers(trace, "layer"), expected, "{about}");
        // The last layer's row is what INFER answers.
        assert_eq!(cell(trace, layers, "top_token"), cell(infer, 0, "token"), "{about}");
        assert_eq!(number(cell(trace, layers, "rank")), 1.0, "{about}");
        let found = number(cell(trace, layers, "probability"));
        let expected = number(cell(infer, 0, "probability"));
        assert!((found - expected).abs() <= TOLERANCE, "{about}: {found} and {expected}");
        // Parts.
        let parts = [numbers(trace, "attn_logit"), numbers(trace, "ffn_logit")].concat();
        let size = 1.0 + parts.iter().map(|part| part.abs()).sum::<f64>();
        let sum: f64 = parts.iter().sum();
        let sum = cap(&directory).map_or(sum, |cap| cap * (sum / cap).tanh());
        let logit = number(cell(infer, 0, "logit"));
        let plain = ["bf16", "f16", "f32"].iter().any(|name| format.contains(name));
        let tolerance = if plain { TOLERANCE } else { TOLERANCE_QUANTISED };
        assert!((sum - logit).abs() <= tolerance * size, "{about}: {sum} and {logit}");
        // The last position is the last of all.
        assert_eq!(all.rows.len() % layers, 0, "{about}");
        assert_eq!(all.rows[all.rows.len() - layers..], trace.rows[1..], "{about}");
    }
}

#[tokio::test]
async fn a_saved_chain_answers_what_the_run_answered_on_every_family() {
    let daemon = Daemon::start();
    for (index, (_, path, _)) in models().into_iter().enumerate() {
        let name = path.display();
        let file = daemon.data_dir().join(format!("{index}.trace"));
        let file = file.display();
        let script = format!(
            "USE MODEL \"{name}\"; TRACE \"{PROMPT}\" POSITIONS ALL SAVE \"{file}\"; \
             TRACE OPEN \"{file}\""
        );
        let answers = answers(&daemon, &script).await;
        let (run, opened) = (&answers[1], &answers[2]);
        assert_eq!(run.rows.len(), opened.rows.len(), "{name}");
        for column in ["position", "layer", "rank"] {
            assert_eq!(numbers(run, column), numbers(opened, column), "{name} {column}");
        }
        for column in ["attn_logit", "ffn_logit", "residual_norm", "attn_norm", "ffn_norm"] {
            let (run, opened) = (numbers(run, column), numbers(opened, column));
            let size = run.iter().fold(1.0_f64, |most, number| most.max(number.abs()));
            for (run, opened) in run.iter().zip(&opened) {
                let error = (run - opened).abs() / size;
                assert!(error <= 1e-4, "{name} {column}: {run} and {opened}");
            }
        }
    }
}

#[tokio::test]
async fn windows_are_saved_with_the_stream_at_their_ends() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let path = |name: &str| daemon.data_dir().join(name).display().to_string();
    let (bndx, ctxt) = (path("run.bndx"), path("run.ctxt"));
    let script = format!(
        "USE \"atlas\"; TRACE \"{PROMPT}\" POSITIONS ALL; SET trace_window = 3; \
         TRACE \"{PROMPT}\" POSITIONS ALL SAVE \"{bndx}\"; TRACE OPEN \"{bndx}\"; \
         TRACE \"{PROMPT}\" POSITIONS ALL LAYERS 3-5 DECOMPOSE SAVE \"{ctxt}\"; TRACE OPEN \"{ctxt}\";"
    );
    let answers = answers(&daemon, &script).await;
    let (run, boundaries, context) = (&answers[1], &answers[4], &answers[6]);
    let positions = run.rows.len() / 6;
    let ends: Vec<f64> = (0..positions)
        .filter(|position| (position + 1) % 3 == 0 || position + 1 == positions)
        .map(|position| position as f64)
        .collect();
    assert_eq!(numbers(boundaries, "position"), ends);
    let expected: Vec<f64> = ends.iter().flat_map(|&end| [end; 3]).collect();
    assert_eq!(numbers(context, "position"), expected);
    let value = |answer: &Answer, position: f64, layer: f64, column: &str| {
        let at = (0..answer.rows.len()).find(|&row| {
            number(cell(answer, row, "position")) == position
                && number(cell(answer, row, "layer")) == layer
        });
        number(cell(answer, at.expect("such a row"), column))
    };
    for end in ends {
        for column in ["rank", "probability", "residual_norm"] {
            let expected = value(run, end, 5.0, column);
            assert_eq!(value(boundaries, end, 5.0, column), expected, "{end} {column}");
            assert_eq!(value(context, end, 5.0, column), expected, "{end} {column}");
        }
        for layer in [3.0, 4.0, 5.0] {
            for column in ["attn_logit", "ffn_logit", "attn_norm", "ffn_norm"] {
                let (found, expected) =
                    (value(context, end, layer, column), value(run, end, layer, column));
                assert!((found - expected).abs() < 1e-3, "{end} {layer} {column}: {found}");
            }
        }
    }
}

#[tokio::test]
async fn a_trace_is_opened_on_its_own_model_only_and_nothing_is_written_over() {
    let daemon = Daemon::start();
    let [llama, qwen] =
        ["llama2", "qwen2"].map(|name| repository().join("tests/goldens").join(name));
    let path = daemon.data_dir().join("run.trace").display().to_string();
    let (llama, qwen) = (llama.display(), qwen.display());
    let save = format!("TRACE \"{PROMPT}\" POSITIONS ALL SAVE \"{path}\"");
    answers(&daemon, &format!("USE MODEL \"{llama}\"; {save}")).await;
    let before = std::fs::read(&path).expect("it was saved");
    for (script, code) in [
        (format!("USE MODEL \"{llama}\"; {save}"), "42P07"),
        (format!("USE MODEL \"{qwen}\"; TRACE OPEN \"{path}\""), "22023"),
    ] {
        let error = daemon.query(&script).await.expect_err("a refusal");
        assert_eq!(error.code, code, "{script}: {error}");
        assert!(!error.hint.is_empty(), "{error}");
    }
    // Another base of the same shape.
    let mut other = before.clone();
    other[20] ^= 1;
    let other_path = daemon.data_dir().join("other.trace").display().to_string();
    std::fs::write(&other_path, other).expect("it is written");
    let open = format!("USE MODEL \"{llama}\"; TRACE OPEN \"{other_path}\"");
    let error = daemon.query(&open).await.expect_err("a refusal");
    assert!(error.message.contains("not of the one in use"), "{error}");
    assert_eq!(std::fs::read(&path).expect("it is there"), before);
    // What is no trace, or half of one.
    for (bytes, code) in
        [(&b"not a trace at all"[..], "0A001"), (&before[..before.len() - 4], "XX001")]
    {
        std::fs::write(&other_path, bytes).expect("it is written");
        let error = daemon.query(&open).await.expect_err("a refusal");
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains("other.trace"), "{error}");
    }
}

#[tokio::test]
async fn prompts_of_any_length_are_traced_in_bounded_memory() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let words = "France ".repeat(400);
    let script = format!("USE \"atlas\"; TRACE \"{words}\" POSITIONS ALL LAYERS 5-5;");
    match daemon.query(&script).await {
        Ok(answers) => assert!(answers[1].rows.len() >= 400),
        // The bundled model's context may be shorter than that.
        Err(error) => assert_eq!(error.code, "54000", "{error}"),
    }
    assert!(daemon.anonymous_bytes() < 256 << 20, "{}", daemon.anonymous_bytes());
}

#[tokio::test]
async fn where_heads_look_stands_after_the_features_that_explain_infer_shows_without_it() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let explain = format!("EXPLAIN INFER \"{PROMPT}\" TOP 4");
    let script = format!("USE \"atlas\"; {explain}; {explain} WITH ATTENTION");
    let answers = answers(&daemon, &script).await;
    let (features, all) = (&answers[1], &answers[2]);
    let width = features.columns.len();
    assert_eq!(all.columns.len(), width + 4);
    let (mut shown, mut expected) = (Vec::new(), Vec::new());
    for layer in 0..6 {
        let of_layer = |row: &&Vec<Value>| number(&row[0]) == f64::from(layer);
        let rows: Vec<&Vec<Value>> = all.rows.iter().filter(of_layer).collect();
        assert_eq!(rows.len(), 4 + 4 + 4, "features, positions, heads of layer {layer}");
        shown.extend(rows[..4].iter().map(|row| row[..width].to_vec()));
        expected.extend(features.rows.iter().filter(of_layer).cloned());
        // Together by weight, then each head by number.
        let weight = |row: &&Vec<Value>| number(&row[width + 3]);
        assert!(rows[4..8].is_sorted_by(|a, b| weight(a) >= weight(b)), "layer {layer}");
        let together: f64 = rows[4..8].iter().map(weight).sum();
        assert!(together > 0.0 && together <= 1.0 + 1e-4, "layer {layer}: {together}");
        let heads: Vec<f64> = rows[8..].iter().map(|row| number(&row[width])).collect();
        assert_eq!(heads, [0.0, 1.0, 2.0, 3.0], "layer {layer}");
    }
    assert_eq!(shown, expected);
}
