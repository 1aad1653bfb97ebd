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
