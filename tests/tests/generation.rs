//! Generation through a real daemon, each option against its definition: sampling, penalties, log
//! probabilities, stop strings, thinking, speculation; and what makes no sense is refused by name.

use larql_client::{ChatMessage, Client, GenerateRequest, LogitsRequest, Speculation};
use larql_tests::daemon::Daemon;
use larql_tests::generation::{generate, request};
use larql_tests::goldens::Golden;
use larql_tests::random_checkpoint::{self, Size};

const FRANCE: &str = "The capital of France is";
/// The bundled model's end token.
const END: u32 = 2;
/// Keeps a text from ending early.
const ENDLESS: (u32, f32) = (END, -100.0);

async fn atlas() -> (Daemon, Client) {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let client = daemon.client().await;
    (daemon, client)
}

/// The ids of a prompt, with the tokens that the bundled model expects around one.
fn prompt_ids(prompt: &str) -> Vec<u32> {
    let path = larql_tests::atlas_checkpoint().join("tokenizer.json");
    let tokenizer = tokenizers::Tokenizer::from_file(path).expect("a tokenizer");
    tokenizer.encode(prompt, true).expect("tokens").get_ids().to_vec()
}

/// The logits that follow these tokens, by the kernels that generation uses.
async fn logits(client: &Client, ids: &[u32]) -> Vec<f64> {
    let request = LogitsRequest {
        model: "atlas".into(),
        token_ids: ids.to_vec(),
        fast: true,
        ..LogitsRequest::default()
    };
    client.logits(request).await.expect("logits").logits.into_iter().map(f64::from).collect()
}

/// Tokens from the largest number down, of equal ones the lowest first.
fn ranked(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order
}

fn sampled(seed: u64, tokens_max: u32) -> GenerateRequest {
    GenerateRequest {
        temperature: Some(1.2),
        seed: Some(seed),
        ..request("atlas", "The", tokens_max)
    }
}

// --- penalties, bias, filters ----------------------------------------------------------------------

#[tokio::test]
async fn greedy_generation_takes_the_best_token_after_penalties_as_they_are_defined() {
    let (_daemon, client) = atlas().await;
    let (repetition, presence, frequency) = (1.3_f64, 0.75_f64, 0.5_f64);
    let penalised = GenerateRequest {
        repetition_penalty: Some(repetition as f32),
        presence_penalty: Some(presence as f32),
        frequency_penalty: Some(frequency as f32),
        logit_bias: vec![ENDLESS],
        ..request("atlas", FRANCE, 12)
    };
    let made = generate(&client, penalised).await.expect("a generation").ids();
    let prompt = prompt_ids(FRANCE);
    let mut ids = prompt.clone();
    for (index, &token) in made.iter().enumerate() {
        let mut scores = logits(&client, &ids).await;
        scores[END as usize] += f64::from(ENDLESS.1);
        for (id, score) in scores.iter_mut().enumerate() {
            if ids.contains(&(id as u32)) {
                *score = if *score > 0.0 { *score / repetition } else { *score * repetition };
            }
            let count = ids[prompt.len()..].iter().filter(|&&made| made as usize == id).count();
            if count > 0 {
                *score -= presence + frequency * count as f64;
            }
        }
        let order = ranked(&scores);
        let near = scores[order[0]] - scores[token as usize] < 1e-3;
        assert!(near, "token {index} is {token}, by the definitions {}", order[0]);
        ids.push(token);
    }
    assert!(made.len() > 3, "{made:?}");
}

#[tokio::test]
async fn a_bias_forbids_and_forces_tokens() {
    let (_daemon, client) = atlas().await;
    let free = generate(&client, request("atlas", FRANCE, 4)).await.expect("a generation").ids();
    let forbidden =
        GenerateRequest { logit_bias: vec![(free[0], -100.0)], ..request("atlas", FRANCE, 4) };
    let forbidden = generate(&client, forbidden).await.expect("a generation").ids();
    assert!(!forbidden.contains(&free[0]), "{forbidden:?}");
    let forced = GenerateRequest { logit_bias: vec![(300, 100.0)], ..request("atlas", FRANCE, 4) };
    assert_eq!(generate(&client, forced).await.expect("a generation").ids(), [300; 4]);
}

#[tokio::test]
async fn filters_that_leave_one_token_are_greedy_and_a_window_forgets() {
    let (_daemon, client) = atlas().await;
    let greedy = generate(&client, request("atlas", "The", 10)).await.expect("a generation").ids();
    for narrow in [
        GenerateRequest { min_p: Some(1.0), ..sampled(4, 10) },
        GenerateRequest { top_k: Some(1), ..sampled(4, 10) },
        GenerateRequest { top_p: Some(1e-6), ..sampled(4, 10) },
        // A window of no tokens penalises none.
        GenerateRequest {
            repetition_penalty: Some(2.0),
            presence_penalty: Some(2.0),
            penalty_window: Some(0),
            ..request("atlas", "The", 10)
        },
    ] {
        assert_eq!(generate(&client, narrow).await.expect("a generation").ids(), greedy);
    }
}

// --- log probabilities -----------------------------------------------------------------------------

#[tokio::test]
async fn log_probabilities_are_the_models_own_whatever_bends_the_draw() {
    let (_daemon, client) = atlas().await;
    let bent = GenerateRequest {
        logprobs: Some(5),
        frequency_penalty: Some(1.0),
        top_k: Some(40),
        ..sampled(11, 8)
    };
    let generated = generate(&client, bent).await.expect("a generation");
    let mut ids = prompt_ids("The");
    assert!(generated.tokens.len() > 2);
    for token in &generated.tokens {
        let logits = logits(&client, &ids).await;
        let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let expected = |id: u32| (logits[id as usize].exp() / total).ln();
        let own = f64::from(token.logprob.expect("it was asked for"));
        assert!((own - expected(token.id)).abs() < 1e-3, "{own} and {}", expected(token.id));
        assert_eq!(token.alternatives.len(), 5);
        for (rank, &(id, value)) in token.alternatives.iter().enumerate() {
            assert!((f64::from(value) - expected(id)).abs() < 1e-3);
            let best = ranked(&logits)[rank];
            assert!((logits[best] - logits[id as usize]).abs() < 1e-3, "rank {rank} is {id}");
        }
        ids.push(token.id);
    }
    let none = generate(&client, sampled(11, 3)).await.expect("a generation");
    assert!(
        none.tokens.iter().all(|token| token.logprob.is_none() && token.alternatives.is_empty())
    );
    let own = GenerateRequest { logprobs: Some(0), ..sampled(11, 3) };
    let own = generate(&client, own).await.expect("a generation");
    assert!(
        own.tokens.iter().all(|token| token.logprob.is_some() && token.alternatives.is_empty())
    );
    assert_eq!(own.ids(), none.ids(), "asking changes nothing");
}

#[tokio::test]
async fn tokens_and_log_probabilities_of_a_stop_string_are_held_back_with_its_text() {
    let (_daemon, client) = atlas().await;
    let endless = || GenerateRequest {
        logprobs: Some(1),
        logit_bias: vec![ENDLESS],
        ..request("atlas", FRANCE, 20)
    };
    let all = endless();
    let all = generate(&client, all).await.expect("a generation");
    assert!(all.tokens.len() > 4, "{:?}", all.text);
    // From the last character of the second token into the third.
    let before: String = all.tokens[..2].iter().map(|token| token.text.as_str()).collect();
    let last = before.chars().last().expect("text").len_utf8();
    let stop = all.text[before.len() - last..before.len() + all.tokens[2].text.len()].to_owned();
    let at = all.text.find(&stop).expect("it is there");
    let stopped = GenerateRequest { stop: vec![stop.clone()], ..endless() };
    let stopped = generate(&client, stopped).await.expect("a generation");
    assert_eq!((stopped.text.as_str(), stopped.done.reason.as_str()), (&all.text[..at], "stop"));
    let shown: String = stopped.tokens.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(shown, stopped.text, "each token given out shows its part of the text");
    for (found, expected) in stopped.tokens.iter().zip(&all.tokens) {
        assert_eq!((found.id, found.logprob), (expected.id, expected.logprob));
    }
    assert!(stopped.tokens.len() < all.tokens.len());
    // Text that only begins like a stop string is given out in the end, with its tokens.
    let never = GenerateRequest {
        stop: vec![format!("{}never", &all.text[all.text.len() - 1..])],
        ..endless()
    };
    let never = generate(&client, never).await.expect("a generation");
    assert_eq!((never.text, never.tokens.len()), (all.text, all.tokens.len()));
}

// --- speculation -----------------------------------------------------------------------------------

#[tokio::test]
async fn guessing_from_the_text_changes_no_token_and_is_right_on_repetitive_text() {
    let (_daemon, client) = atlas().await;
    let repetitive = "The capital of France is Paris. The capital of France is Paris. ".repeat(3);
    let prompt = format!("{repetitive}The capital of France");
    let mut accepted = 0;
    for base in [
        request("atlas", &prompt, 40),
        GenerateRequest { prompt: prompt.clone(), ..sampled(3, 40) },
        GenerateRequest { frequency_penalty: Some(0.5), prompt: prompt.clone(), ..sampled(5, 40) },
        GenerateRequest { stop: vec!["Paris".into()], ..request("atlas", &prompt, 40) },
        request("atlas", "Marie", 40),
    ] {
        let plain = generate(&client, base.clone()).await.expect("a generation");
        assert_eq!((plain.done.proposed_tokens, plain.done.accepted_tokens), (0, 0));
        for tokens_max in [0, 1, 32] {
            let speculation = Some(Speculation { tokens_max, ..Speculation::default() });
            let guessed = GenerateRequest { speculation, ..base.clone() };
            let guessed = generate(&client, guessed).await.expect("a generation");
            assert_eq!(plain.tokens, guessed.tokens, "{base:?}");
            assert_eq!((&plain.text, &plain.done.reason), (&guessed.text, &guessed.done.reason));
            assert_eq!(plain.done.generated_tokens, guessed.done.generated_tokens);
            assert!(guessed.done.accepted_tokens <= guessed.done.proposed_tokens);
            accepted += guessed.done.accepted_tokens;
        }
    }
    assert!(accepted > 0, "no guess was right");
}

#[tokio::test]
async fn a_draft_model_changes_no_token_and_a_good_one_is_right() {
    let (daemon, client) = atlas().await;
    // The same model with rounded weights: a draft that is nearly always right.
    let rounded = daemon.data_dir().join("vindexes/rounded.vindex");
    daemon.extract(&larql_tests::atlas_checkpoint(), &rounded, "WITH INFERENCE QUANT Q4K").await;
    for base in [request("atlas", FRANCE, 30), sampled(8, 30)] {
        let plain = generate(&client, base.clone()).await.expect("a generation");
        for draft in ["atlas", "rounded"] {
            let speculation = Speculation { draft_model: draft.into(), ..Speculation::default() };
            let guessed = GenerateRequest { speculation: Some(speculation), ..base.clone() };
            let guessed = generate(&client, guessed).await.expect("a generation");
            assert_eq!(plain.tokens, guessed.tokens, "{draft}: {base:?}");
            let done = guessed.done;
            assert!(done.proposed_tokens > 0);
            if base.temperature.is_none() {
                assert!(done.accepted_tokens > 0, "{draft} is never right");
            }
        }
    }
    let path = daemon.data_dir().join("foreign");
    random_checkpoint::write(&path, Size::FEW_FEATURES, 5);
    for (draft, code, word) in [
        (path.display().to_string(), "22023", "vocabulary"),
        ("nobody".to_owned(), "42704", "nobody"),
    ] {
        let speculation = Speculation { draft_model: draft, ..Speculation::default() };
        let foreign =
            GenerateRequest { speculation: Some(speculation), ..request("atlas", FRANCE, 5) };
        let error = generate(&client, foreign).await.expect_err("a refusal");
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(word), "{error}");
    }
}

// --- chats -----------------------------------------------------------------------------------------

fn chat(model: &str, think: Option<bool>) -> GenerateRequest {
    let messages = vec![ChatMessage { role: "user".into(), content: "Hello".into() }];
    GenerateRequest { messages, think, ..request(model, "", 2) }
}

#[tokio::test]
async fn thinking_goes_through_the_templates_toggle_and_is_refused_where_there_is_none() {
    let (daemon, client) = atlas().await;
    for think in [true, false] {
        let error = generate(&client, chat("atlas", Some(think))).await.expect_err("no toggle");
        assert_eq!(error.code, "22023", "{error}");
        assert!(error.message.contains("think") && !error.hint.is_empty(), "{error:?}");
    }
    let error = generate(&client, GenerateRequest { tools: "[]".into(), ..chat("atlas", None) });
    let error = error.await.expect_err("no place for tools");
    assert!(error.code == "22023" && error.message.contains("tools"), "{error:?}");
    let path = daemon.data_dir().join("thinker");
    std::fs::create_dir_all(&path).expect("a directory");
    for entry in std::fs::read_dir(Golden::load("llama2").path).expect("a directory") {
        let from = entry.expect("an entry").path();
        std::fs::copy(&from, path.join(from.file_name().expect("a name"))).expect("a copy");
    }
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}\
        {% if enable_thinking is defined and enable_thinking is false %} a b c d e f g h{% endif %}";
    std::fs::write(path.join("chat_template.jinja"), template).expect("a template");
    let model = path.display().to_string();
    let mut tokens = Vec::new();
    for think in [None, Some(true), Some(false)] {
        let generated = generate(&client, chat(&model, think)).await.expect("a generation");
        tokens.push(generated.done.prompt_tokens);
    }
    assert!(tokens[0] == tokens[1] && tokens[1] < tokens[2], "{tokens:?}");
}

// --- bad input -------------------------------------------------------------------------------------

#[tokio::test]
async fn options_that_make_no_sense_are_refused_by_name_with_a_hint() {
    let (daemon, client) = atlas().await;
    let base = || request("atlas", FRANCE, 3);
    let penalty = |value| GenerateRequest { presence_penalty: Some(value), ..base() };
    let speculation = Some(Speculation { tokens_max: 33, ..Speculation::default() });
    let mut cases = vec![
        ("prompt", GenerateRequest { prompt: String::new(), ..base() }),
        ("tokens_max", GenerateRequest { tokens_max: u32::MAX, ..base() }),
        ("top_k", GenerateRequest { top_k: Some(0), ..base() }),
        ("stop", GenerateRequest { stop: vec!["x".into(); 17], ..base() }),
        ("stop", GenerateRequest { stop: vec![String::new()], ..base() }),
        ("stop", GenerateRequest { stop: vec!["x".repeat(1025)], ..base() }),
        ("logprobs", GenerateRequest { logprobs: Some(21), ..base() }),
        ("logprobs", GenerateRequest { logprobs: Some(u32::MAX), ..base() }),
        ("logit_bias", GenerateRequest { logit_bias: vec![(4096, 1.0)], ..base() }),
        ("logit_bias", GenerateRequest { logit_bias: vec![(1, f32::NAN)], ..base() }),
        ("think", GenerateRequest { think: Some(true), ..base() }),
        ("tools", GenerateRequest { tools: "[]".into(), ..base() }),
        ("tools", GenerateRequest { tools: "{".into(), ..chat("atlas", None) }),
        ("speculation", GenerateRequest { speculation, ..base() }),
    ];
    for value in [-1.0, f32::NAN, f32::INFINITY] {
        cases.push(("temperature", GenerateRequest { temperature: Some(value), ..base() }));
        cases.push(("min_p", GenerateRequest { min_p: Some(value), ..base() }));
        let repetition = GenerateRequest { repetition_penalty: Some(value), ..base() };
        cases.push(("repetition_penalty", repetition));
        let frequency = GenerateRequest { frequency_penalty: Some(value * 3.0), ..base() };
        cases.push(("frequency_penalty", frequency));
    }
    for value in [0.0, -0.1, 1.1, f32::NAN, f32::NEG_INFINITY] {
        cases.push(("top_p", GenerateRequest { top_p: Some(value), ..base() }));
    }
    for value in [-2.1, 2.1, f32::NAN, f32::INFINITY] {
        cases.push(("presence_penalty", penalty(value)));
    }
    cases.push(("repetition_penalty", GenerateRequest { repetition_penalty: Some(0.0), ..base() }));
    for (word, refused) in cases {
        let error = generate(&client, refused.clone()).await.expect_err("a refusal");
        assert_eq!(error.code, "22023", "{refused:?}: {error}");
        assert!(error.message.contains(word), "{refused:?}: {error}");
        assert!(!error.hint.is_empty(), "{refused:?}: {error} has no hint");
    }
    let generated = generate(&client, base()).await.expect("the daemon serves on");
    assert_eq!(generated.text.trim(), "Paris.");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

// --- the statement -----------------------------------------------------------------------------------

#[tokio::test]
async fn the_statement_makes_the_tokens_and_the_text_of_a_generation() {
    let (daemon, client) = atlas().await;
    let ask = |tokens_max: u32| request("atlas", FRANCE, tokens_max);
    let with = |temperature: f32, seed: u64| GenerateRequest {
        temperature: Some(temperature),
        seed: Some(seed),
        ..ask(20)
    };
    for (clauses, request) in [
        ("MAX 8", ask(8)),
        ("", ask(256)),
        ("MAX 20 TEMPERATURE 1.5 SEED 7", with(1.5, 7)),
        ("MAX 20 TEMPERATURE 1.5 SEED 8", with(1.5, 8)),
        (
            "MAX 20 TEMPERATURE 2 SEED 3 TOP_K 4 TOP_P 0.8",
            GenerateRequest { top_k: Some(4), top_p: Some(0.8), ..with(2.0, 3) },
        ),
        ("MAX 20 STOP \".\"", GenerateRequest { stop: vec![".".to_owned()], ..ask(20) }),
    ] {
        let expected = generate(&client, request).await.expect("a generation");
        let script = format!("USE \"atlas\"; GENERATE \"{FRANCE}\" {clauses}");
        let answers =
            daemon.query(&script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
        let answer = &answers[1];
        let column = |name: &str| answer.column(name).unwrap_or_else(|| panic!("no column {name}"));
        let ids: Vec<u32> = column("token_id")
            .into_iter()
            .filter_map(|id| id.as_number().map(|id| id as u32))
            .collect();
        let text: String = column("text").into_iter().filter_map(|text| text.as_text()).collect();
        assert_eq!(ids, expected.ids(), "{script}");
        assert_eq!(text, expected.text, "{script}");
        let first = prompt_ids(FRANCE).len();
        let positions: Vec<usize> = column("position")
            .into_iter()
            .filter_map(|position| position.as_number().map(|position| position as usize))
            .collect();
        assert_eq!(positions, (first..first + ids.len()).collect::<Vec<_>>(), "{script}");
        for probability in column("probability").into_iter().filter_map(|each| each.as_number()) {
            assert!((0.0..=1.0).contains(&probability), "{script}: {probability}");
        }
    }
    // By a walk over all features it says what the dense network says.
    let script = format!(
        "USE \"atlas\"; GENERATE \"{FRANCE}\" MAX 6; SET ffn = walk; GENERATE \"{FRANCE}\" MAX 6"
    );
    let answers = daemon.query(&script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
    assert_eq!(answers[1].column("token_id"), answers[3].column("token_id"));
}
