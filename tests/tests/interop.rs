//! Vindexes that the ancestor of this program wrote: they answer as the models they were made from.

use std::path::PathBuf;

use larql_client::LogitsRequest;
use larql_tests::daemon::Daemon;
use larql_tests::goldens::Golden;
use larql_tests::repository;

fn sample(name: &str) -> PathBuf {
    repository().join("tests/interop").join(name)
}

#[tokio::test]
async fn an_ancestors_vindex_gives_the_logits_of_its_model_and_says_what_it_assumed() {
    let daemon = Daemon::start();
    for (family, directory) in
        [("llama2", "ancestor-llama2-f16.vindex"), ("gemma3", "ancestor-gemma3-f16.vindex")]
    {
        let path = sample(directory);
        let golden = Golden::load(family);
        let script = format!(
            "USE \"{}\"; STATS; WALK \"a\"; SELECT * FROM FEATURES LIMIT 3",
            path.display()
        );
        let answers = daemon.query(&script).await.unwrap_or_else(|error| panic!("{error}"));
        let notice =
            answers[0].notices.iter().find(|notice| notice.message.contains("rms_norm_eps"));
        let notice = notice.unwrap_or_else(|| panic!("{:?}", answers[0].notices));
        assert!(notice.message.contains("rope_scaling = null"), "{notice:?}");
        for prompt in golden.prompts() {
            let request = LogitsRequest {
                model: path.display().to_string(),
                token_ids: prompt.input_ids.clone(),
                greedy_tokens: prompt.greedy.len() as u32,
                ..LogitsRequest::default()
            };
            let found = daemon.client().await.logits(request).await;
            let found = found.unwrap_or_else(|error| panic!("{family}: {error} ({})", error.hint));
            assert_eq!(found.logits.len(), prompt.logits.len(), "{family} {}", prompt.name);
            for (id, (found, expected)) in found.logits.iter().zip(&prompt.logits).enumerate() {
                let difference = (f64::from(*found) - expected).abs();
                let name = prompt.name;
                assert!(
                    difference <= golden.tolerance(),
                    "{family} {name}: logit {id} is off by {difference:e}"
                );
            }
            assert_eq!(found.greedy, prompt.greedy, "{family}");
        }
    }
}

/// Its 10 MB are not kept here: `LARQL_INTEROP` names the folder that holds it.
#[tokio::test]
async fn an_ancestors_quantised_vindex_with_its_own_element_order_answers_paris() {
    let Some(folder) = std::env::var_os("LARQL_INTEROP") else {
        eprintln!("skipped: LARQL_INTEROP does not name the ancestor's larger samples");
        return;
    };
    let path = PathBuf::from(folder).join("ancestor-atlas-q4k.vindex");
    let daemon = Daemon::start();
    let script = format!("USE \"{}\"; INFER \"The capital of France is\" TOP 1", path.display());
    let answers = daemon.query(&script).await.unwrap_or_else(|error| panic!("{error}"));
    let token = answers[1].column("token").expect("tokens")[0].as_text().expect("text").to_owned();
    assert_eq!(token.trim(), "Paris");
    let probability = answers[1].column("probability").expect("probabilities")[0].as_number();
    assert!(probability.is_some_and(|probability| probability > 0.95), "{probability:?}");
}

/// Mean and deviation of each layer's gate scores.
async fn statistics(daemon: &Daemon, path: &std::path::Path) -> Vec<(f64, f64)> {
    let script = format!("USE MODEL \"{}\"; SHOW LAYERS", path.display());
    let script = match path.join("index.json").is_file() {
        true => script.replacen("USE MODEL", "USE", 1),
        false => script,
    };
    let answers = daemon.query(&script).await.unwrap_or_else(|error| panic!("{error}"));
    let numbers = |name| -> Vec<f64> {
        let column = answers[1].column(name).unwrap_or_else(|| panic!("no column {name}"));
        column.iter().map(|value| value.as_number().expect("a number")).collect()
    };
    numbers("gate_mean").into_iter().zip(numbers("gate_deviation")).collect()
}

fn assert_near(found: &[(f64, f64)], expected: &[(f64, f64)], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let apart = (found.0 - expected.0).abs().max((found.1 - expected.1).abs());
        assert!(apart <= tolerance * expected.1, "{what}: {found:?} and {expected:?}");
    }
}

#[tokio::test]
async fn statistics_that_nobody_stored_are_those_that_extract_stores() {
    let daemon = Daemon::start();
    // Gates of one network, of plain ones stored the other way around, and of experts.
    for family in ["llama2", "gemma3", "gpt2", "mixtral"] {
        let golden = Golden::load(family);
        let path = daemon.data_dir().join(format!("{family}.vindex"));
        daemon.extract(&golden.path, &path, "DTYPE F32").await;
        let stored = statistics(&daemon, &path).await;
        let learned = statistics(&daemon, &golden.path).await;
        assert_near(&learned, &stored, 1e-6, family);
        let ancestor = sample(&format!("ancestor-{family}-f16.vindex"));
        if ancestor.is_dir() {
            assert_near(&statistics(&daemon, &ancestor).await, &stored, 2e-3, family);
        }
    }
}

#[tokio::test]
async fn an_ancestors_vindex_is_described_like_one_of_ours() {
    let daemon = Daemon::start();
    for family in ["llama2", "gemma3"] {
        let golden = Golden::load(family);
        let ours = daemon.data_dir().join(format!("{family}.vindex"));
        daemon.extract(&golden.path, &ours, "DTYPE F32").await;
        let ancestor = sample(&format!("ancestor-{family}-f16.vindex"));
        let mut slots = Vec::new();
        for path in [&ours, &ancestor] {
            let script = format!(
                "USE \"{}\"; SET describe_z = 1.5; DESCRIBE \"a\" ALL LAYERS; \
                 SELECT layer, feature, z FROM EDGES WHERE entity = \"a\" LIMIT 200",
                path.display()
            );
            let answers = daemon.query(&script).await;
            let answers =
                answers.unwrap_or_else(|error| panic!("{family}: {error} ({})", error.hint));
            let numbers = |name| -> Vec<f64> {
                let column = answers[3].column(name).expect("a column");
                column.iter().map(|value| value.as_number().expect("a number")).collect()
            };
            let mut found: Vec<(i64, i64)> = numbers("layer")
                .into_iter()
                .zip(numbers("feature"))
                .map(|(layer, feature)| (layer as i64, feature as i64))
                .collect();
            found.sort_unstable();
            assert!(!found.is_empty(), "{family}: nothing is said of {}", path.display());
            assert!(numbers("z").iter().all(|&z| z >= 1.5), "{family}");
            slots.push(found);
        }
        // Rounding to f16 may move a score across the threshold, but not many.
        let common = slots[1].iter().filter(|slot| slots[0].contains(slot)).count();
        assert!(10 * common >= 9 * slots[0].len(), "{family}: {common} of {}", slots[0].len());
    }
}
