//! The services beside sessions, each over the transport that its clients use: health, reflection,
//! the daemon's state, names, reference output and generation; and INFER against the reference's
//! answers for the bundled model.

use larql_client::{
    CallError, ChatMessage, Client, ConnectOptions, ExecuteOptions, GenerateEvent, GenerateRequest,
    LogitsRequest, Target,
};
use larql_tests::atlas_checkpoint;
use larql_tests::daemon::Daemon;
use larql_tests::random_checkpoint::{self, Size};
use tonic::transport::{Channel, Endpoint};

/// A daemon with the bundled model extracted, and its TCP address.
async fn start_on_tcp() -> (Daemon, Target) {
    // The system chooses a free port, which is free again a moment later.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let daemon = Daemon::start_with(&["--listen", &address.to_string()]);
    daemon.extract_atlas("WITH INFERENCE").await;
    (daemon, Target::Grpc { host: address.ip().to_string(), port: address.port() })
}

async fn connect(target: &Target) -> Client {
    Client::connect(target, ConnectOptions::default()).await.expect("a session")
}

async fn channel(daemon: &Daemon) -> Channel {
    let address = format!("unix://{}", daemon.socket().display());
    Endpoint::try_from(address).expect("an address").connect().await.expect("a connection")
}

/// A greedy request for the bundled model.
fn request(prompt: &str, tokens_max: u32) -> GenerateRequest {
    GenerateRequest {
        model: "atlas".into(),
        prompt: prompt.into(),
        tokens_max,
        ..GenerateRequest::default()
    }
}

/// What a generation gave: token ids, text, why it ended, tokens of the prompt and tokens made.
struct Generated {
    ids: Vec<u32>,
    text: String,
    reason: String,
    prompt_tokens: u32,
    count: u32,
}

async fn generate(client: &Client, request: GenerateRequest) -> Result<Generated, CallError> {
    let mut generation = client.generate(request).await?;
    let (mut ids, mut text) = (Vec::new(), String::new());
    while let Some(event) = generation.next().await? {
        match event {
            GenerateEvent::Token { id, text: piece, .. } => {
                text += &piece;
                ids.extend((id != u32::MAX).then_some(id));
            }
            GenerateEvent::Done(done) => {
                assert!(done.prefill_ms >= 0.0 && done.decode_ms >= 0.0);
                assert_eq!(done.base_hash.len(), 64);
                let (prompt_tokens, count) = (done.prompt_tokens, done.generated_tokens);
                return Ok(Generated { ids, text, reason: done.reason, prompt_tokens, count });
            }
        }
    }
    panic!("a generation ended without Done");
}

// --- health, reflection, state -------------------------------------------------------------------

#[tokio::test]
async fn health_says_serving_for_the_daemon_and_each_service_and_not_found_for_others() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let daemon = Daemon::start();
    let mut health = HealthClient::new(channel(&daemon).await);
    for service in ["", "larql.v1.Session", "larql.v1.Generate", "larql.v1.Admin"] {
        let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await;
        let answer = answer.unwrap_or_else(|status| panic!("{service:?}: {status}")).into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown =
        health.check(HealthCheckRequest { service: "nobody".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn reflection_lists_our_services_and_describes_the_session() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let daemon = Daemon::start();
    let mut reflection = ServerReflectionClient::new(channel(&daemon).await);
    let ask = |message_request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message_request),
    };
    let questions = vec![
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("larql.v1.Session".to_owned())),
    ];
    let questions = tokio_stream::iter(questions);
    let mut answers =
        reflection.server_reflection_info(questions).await.expect("reflection").into_inner();
    let list = answers.message().await.expect("an answer").expect("an answer").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = list else { panic!("{list:?}") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for expected in
        ["larql.v1.Session", "larql.v1.Generate", "larql.v1.Admin", "grpc.health.v1.Health"]
    {
        assert!(names.contains(&expected), "{expected} is not among {names:?}");
    }
    let file = answers.message().await.expect("an answer").expect("an answer").message_response;
    let Some(MessageResponse::FileDescriptorResponse(file)) = file else { panic!("{file:?}") };
    let bytes = file.file_descriptor_proto.concat();
    assert!(bytes.windows(11).any(|window| window == b"ClientFrame"), "the messages are described");
}

#[tokio::test]
async fn status_and_names_tell_the_daemons_state() {
    let daemon = Daemon::start_with(&["--threads", "2"]);
    let client = daemon.client().await;
    let before = client.status().await.expect("status");
    assert_eq!(client.names().await.expect("names"), Vec::<String>::new());
    daemon.extract_atlas("").await;
    daemon.query("USE \"atlas\"; STATS; STATS").await.expect("answers");
    let _other = daemon.client().await;
    let after = client.status().await.expect("status");
    assert_eq!(after.pid, daemon.pid());
    assert_eq!(after.threads, 2);
    assert_eq!(after.data_dir, daemon.data_dir().display().to_string());
    assert_eq!(after.statements - before.statements, 4, "EXTRACT, USE and two STATS");
    assert!(after.sessions >= 2, "{after:?}");
    assert!(after.version.starts_with(char::is_numeric));
    assert_eq!(client.names().await.expect("names"), ["atlas"]);
}

// --- roles over TCP ------------------------------------------------------------------------------

#[tokio::test]
async fn a_loopback_caller_reads_and_infers_and_changes_nothing() {
    let (daemon, target) = start_on_tcp().await;
    let mut client = connect(&target).await;
    assert_eq!(client.welcome().role, "infer");
    assert_eq!(daemon.client().await.welcome().role, "admin");
    let here = ExecuteOptions::here;
    let script = "USE \"atlas\"; DESCRIBE \"France\"; INFER \"The capital of France is\" TOP 1";
    let answers =
        client.query(script, here()).await.expect("a reader's and an inferrer's statements");
    assert_eq!(answers[2].rows[0][1].as_text(), Some("Paris"));
    let (checkpoint, data) = (atlas_checkpoint(), daemon.data_dir().join("vindexes/atlas.vindex"));
    for refused in [
        format!(
            "EXTRACT MODEL \"{}\" INTO \"{}\"",
            checkpoint.display(),
            daemon.data_dir().join("x").display()
        ),
        format!("MOUNT \"{}\" AS other", data.display()),
        "UNMOUNT atlas".to_owned(),
        format!("VERIFY VINDEX \"{}\"", data.display()),
        format!("USE MODEL \"{}\"", checkpoint.display()),
        format!("USE \"{}\"", data.display()),
    ] {
        let error = client.query(refused.as_str(), here()).await.expect_err("needs the role admin");
        assert_eq!(error.code, "42501", "{refused}: {error}");
    }
    assert_eq!(
        client.unpack_bundled("atlas").await.expect_err("needs the role admin").code,
        "42501"
    );
    // A directory is not to be had by naming it where a model is named, either.
    let by_path = GenerateRequest { model: checkpoint.display().to_string(), ..request("x", 1) };
    let error = generate(&client, by_path).await.err().expect("a path outside the roots");
    assert_eq!(error.code, "42501", "{error}");
    assert_eq!(client.names().await.expect("names"), ["atlas"]);
}

#[tokio::test]
async fn a_token_gives_its_role_and_a_wrong_one_is_refused() {
    // The SHA-256 of `open sesame`, from sha256sum.
    const DIGEST: &str = "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb";
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("larqld.toml");
    let text = format!("[[tokens]]\nname = \"ada\"\nrole = \"admin\"\nsha256 = \"{DIGEST}\"\n");
    std::fs::write(&config, text).expect("a file");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let daemon =
        Daemon::start_with(&["--listen", &address, "--config", &config.display().to_string()]);
    let channel =
        Endpoint::try_from(format!("http://{address}")).expect("an address").connect().await;
    let channel = channel.expect("a connection");
    let unpack = async |token: &str| {
        let mut admin = larql_proto::v1::admin_client::AdminClient::new(channel.clone());
        let message = larql_proto::v1::UnpackBundledRequest { name: "atlas".to_owned() };
        let mut request = tonic::Request::new(message);
        if !token.is_empty() {
            request.metadata_mut().insert("authorization", token.parse().expect("a header"));
        }
        admin.unpack_bundled(request).await.map(|answer| answer.into_inner().path)
    };
    let path = unpack("Bearer open sesame").await.expect("the admin's token");
    assert!(path.starts_with(&daemon.data_dir().display().to_string()), "{path}");
    for wrong in ["Bearer open sesam", "Bearer ", "Basic open sesame", "open sesame"] {
        let status = unpack(wrong).await.expect_err("a wrong token");
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{wrong:?}: {status}");
    }
    let status = unpack("").await.expect_err("no token is the role infer");
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
}

// --- generation ----------------------------------------------------------------------------------

#[tokio::test]
async fn greedy_generation_over_tcp_equals_the_reference_output() {
    let (daemon, target) = start_on_tcp().await;
    let random = daemon.data_dir().join("random");
    random_checkpoint::write(&random, Size::FEW_FEATURES, 9);
    daemon
        .extract(&random, &daemon.data_dir().join("random.vindex"), "WITH INFERENCE DTYPE F32")
        .await;
    let (client, local) = (connect(&target).await, daemon.client().await);
    let mut made = 0;
    for (model, checkpoint, prompt) in [
        ("atlas", atlas_checkpoint(), "The capital of France is"),
        ("atlas", atlas_checkpoint(), "Marie Curie"),
        ("atlas", atlas_checkpoint(), "The"),
        ("random", random.clone(), "Word5 Word6"),
        ("random", random.clone(), "東京205"),
    ] {
        let tokenizer = tokenizers::Tokenizer::from_file(checkpoint.join("tokenizer.json"))
            .expect("a tokenizer");
        let token_ids = tokenizer.encode(prompt, true).expect("tokens").get_ids().to_vec();
        let generated = GenerateRequest { model: model.to_owned(), ..request(prompt, 12) };
        let generated = generate(&client, generated).await.expect("a generation");
        assert_eq!(generated.prompt_tokens as usize, token_ids.len(), "{prompt}");
        assert_eq!(generated.count as usize, generated.ids.len(), "{prompt}");
        let greedy = LogitsRequest {
            model: model.to_owned(),
            token_ids: token_ids.clone(),
            greedy_tokens: 12,
            ..LogitsRequest::default()
        };
        let greedy = local.logits(greedy).await.expect("logits").greedy;
        // The reference goes on after the end token, a generation does not.
        assert_eq!(generated.ids, greedy[..generated.ids.len()], "{prompt}");
        if generated.reason == "length" {
            assert_eq!(generated.ids.len(), 12);
        } else {
            assert_eq!(generated.reason, "stop", "{prompt}");
            assert_eq!(greedy[generated.ids.len()], 2, "{prompt}: the end token comes next");
        }
        let whole: Vec<u32> = token_ids.iter().chain(&generated.ids).copied().collect();
        let decoded = tokenizer.decode(&whole, true).expect("text");
        assert!(
            decoded.ends_with(&generated.text),
            "{prompt}: {decoded:?} ends with {:?}",
            generated.text
        );
        made += generated.ids.len();
    }
    assert!(made >= 20, "only {made} tokens were compared");
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_it() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let client = daemon.client().await;
    let free =
        generate(&client, request("The capital of France is", 20)).await.expect("a generation");
    // Three characters from the middle, so that the string lies across tokens or within one.
    let middle: String = free.text.chars().skip(3).take(3).collect();
    assert_eq!(middle.chars().count(), 3, "too short: {:?}", free.text);
    let stop = vec!["never in any text".to_owned(), middle.clone()];
    let stopped = GenerateRequest { stop, ..request("The capital of France is", 20) };
    let stopped = generate(&client, stopped).await.expect("a generation");
    let at = free.text.find(&middle).expect("it is there");
    assert_eq!((stopped.text.as_str(), stopped.reason.as_str()), (&free.text[..at], "stop"));
    for refused in [vec![String::new()], vec!["x".to_owned(); 17]] {
        let refused = GenerateRequest { stop: refused, ..request("x", 1) };
        assert_eq!(generate(&client, refused).await.err().expect("a refusal").code, "22023");
    }
}

#[tokio::test]
async fn generation_ends_at_tokens_max_and_at_the_end_of_the_context() {
    let daemon = Daemon::start();
    // Random weights do not end their texts, and this context is short.
    let path = daemon.data_dir().join("tiny");
    random_checkpoint::write(&path, Size::FEW_FEATURES, 5);
    let client = daemon.client().await;
    let model = path.display().to_string();
    let request = |words, tokens_max| GenerateRequest {
        model: model.clone(),
        prompt: random_checkpoint::prompt(words),
        tokens_max,
        ..GenerateRequest::default()
    };
    let context = Size::FEW_FEATURES.context;
    let length = generate(&client, request(10, 7)).await.expect("a generation");
    assert_eq!((length.reason.as_str(), length.ids.len()), ("length", 7));
    let full = generate(&client, request(100, 10_000)).await.expect("a generation");
    assert_eq!((full.reason.as_str(), full.ids.len()), ("context", context - 100));
    let default = generate(&client, request(100, 0)).await.expect("a generation");
    assert_eq!(default.ids, full.ids, "0 leaves it to the context");
    let exact =
        generate(&client, request(100, (context - 100) as u32)).await.expect("a generation");
    assert_eq!((exact.reason.as_str(), exact.ids.len()), ("length", context - 100));
    let none = generate(&client, request(context, 5)).await.expect("a generation");
    assert_eq!((none.reason.as_str(), none.ids.len()), ("context", 0));
    let error =
        generate(&client, request(context + 1, 5)).await.err().expect("the prompt is too long");
    assert_eq!(error.code, "54000", "{error}");
}

#[tokio::test]
async fn a_seed_makes_sampling_repeatable_and_other_seeds_differ() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let client = daemon.client().await;
    let sample = async |seed: Option<u64>, top_k: Option<u32>| {
        let request = GenerateRequest { temperature: Some(1.5), seed, top_k, ..request("The", 24) };
        generate(&client, request).await.expect("a generation").ids
    };
    let first = sample(Some(1), None).await;
    assert_eq!(first, sample(Some(1), None).await, "one seed, two answers");
    let mut different = 0;
    for seed in 2..8 {
        different += usize::from(sample(Some(seed), None).await != first);
    }
    assert!(different >= 5, "other seeds give the same text");
    let mut unseeded = std::collections::HashSet::new();
    for _ in 0..6 {
        unseeded.insert(sample(None, None).await);
    }
    assert!(unseeded.len() > 1, "without a seed every text is the same");
    let greedy = generate(&client, request("The", 24)).await.expect("a generation").ids;
    assert_eq!(sample(Some(9), Some(1)).await, greedy, "the best of one is greedy");
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused_by_name() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let client = daemon.client().await;
    let base = || request("The capital", 3);
    for (word, refused) in [
        ("temperature", GenerateRequest { temperature: Some(f32::NAN), ..base() }),
        ("temperature", GenerateRequest { temperature: Some(f32::INFINITY), ..base() }),
        ("temperature", GenerateRequest { temperature: Some(-0.5), ..base() }),
        ("top_p", GenerateRequest { temperature: Some(1.0), top_p: Some(0.0), ..base() }),
        ("top_p", GenerateRequest { temperature: Some(1.0), top_p: Some(1.5), ..base() }),
        ("top_p", GenerateRequest { temperature: Some(1.0), top_p: Some(f32::NAN), ..base() }),
        ("top_k", GenerateRequest { temperature: Some(1.0), top_k: Some(0), ..base() }),
        ("prompt", GenerateRequest { prompt: String::new(), ..base() }),
        ("prompt", GenerateRequest { messages: vec![message("user", "hello")], ..base() }),
    ] {
        let error = generate(&client, refused.clone()).await.err().expect("a refusal");
        assert_eq!(error.code, "22023", "{refused:?}: {error}");
        assert!(error.message.contains(word), "{refused:?}: {error}");
    }
    let unknown = GenerateRequest { model: "nobody".to_owned(), ..base() };
    assert_eq!(generate(&client, unknown).await.err().expect("no such model").code, "42704");
}

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage { role: role.to_owned(), content: content.to_owned() }
}

#[tokio::test]
async fn messages_go_through_the_models_chat_template() {
    let daemon = Daemon::start();
    // The golden has a template of its own; what it renders is in the golden file.
    let golden = larql_tests::goldens::Golden::load("gemma3");
    let chats = golden.json["tokenizer"]["chat"].as_array().expect("chats");
    let client = daemon.client().await;
    let mut compared = 0;
    for chat in chats {
        if !chat["add_generation_prompt"].as_bool().unwrap_or(false) || chat["error"].is_string() {
            continue;
        }
        let messages = chat["messages"].as_array().expect("messages").iter();
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let request = GenerateRequest {
            model: golden.path.display().to_string(),
            messages: messages
                .map(|each| message(&text(&each["role"]), &text(&each["content"])))
                .collect(),
            tokens_max: 4,
            ..GenerateRequest::default()
        };
        let ids: Vec<u32> = chat["ids"]
            .as_array()
            .expect("ids")
            .iter()
            .map(|id| id.as_u64().expect("an id") as u32)
            .collect();
        let generated = generate(&client, request).await.expect("a generation");
        assert_eq!(generated.prompt_tokens as usize, ids.len());
        let greedy = LogitsRequest {
            model: golden.path.display().to_string(),
            token_ids: ids,
            greedy_tokens: 4,
            ..LogitsRequest::default()
        };
        let greedy = client.logits(greedy).await.expect("logits").greedy;
        assert_eq!(generated.ids, greedy[..generated.ids.len()]);
        compared += 1;
    }
    assert!(compared > 0, "no chat asks for an answer");
    // A model without a template says what to do instead.
    let path = daemon.data_dir().join("tiny");
    random_checkpoint::write(&path, Size::FEW_FEATURES, 5);
    let chat = GenerateRequest {
        model: path.display().to_string(),
        messages: vec![message("user", "hello")],
        ..GenerateRequest::default()
    };
    let error = generate(&client, chat).await.err().expect("no template");
    assert!(error.message.contains("template") && error.hint.contains("prompt"), "{error:?}");
}

#[tokio::test]
async fn a_question_to_the_bundled_model_is_answered_through_its_template() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let client = daemon.client().await;
    let chat = GenerateRequest {
        messages: vec![message("user", "  The capital of France is  ")],
        ..request("", 3)
    };
    let chat = generate(&client, chat).await.expect("a generation");
    // The template writes the question between these words, and `<bos>` itself.
    let text = generate(&client, request("Question: The capital of France is Answer:", 3)).await;
    let text = text.expect("a generation");
    assert_eq!(chat.prompt_tokens, text.prompt_tokens);
    assert_eq!(chat.ids, text.ids);
}

// --- the bundled model against its reference -----------------------------------------------------

#[tokio::test]
async fn infer_equals_the_reference_on_99_of_100_prompts_of_the_bundled_model() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let reference =
        std::fs::read_to_string(atlas_checkpoint().join("reference.tsv")).expect("reference.tsv");
    let rows: Vec<Vec<&str>> =
        reference.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    assert!(rows.len() >= 1000, "{} prompts", rows.len());
    let mut client = daemon.client().await;
    client.query("USE \"atlas\"", ExecuteOptions::here()).await.expect("USE");
    let (mut same, mut close) = (0, 0);
    for rows in rows.chunks(100) {
        let script: String = rows
            .iter()
            .map(|row| format!("INFER {} TOP 1;", larql_client::quote(row[1])))
            .collect();
        let answers = client.query(script, ExecuteOptions::here()).await.expect("answers");
        assert_eq!(answers.len(), rows.len());
        for (row, answer) in rows.iter().zip(answers) {
            let cell = |name| answer.column(name).expect("a column")[0].clone();
            if cell("token_id").as_integer() != Some(row[2].parse().expect("a token id")) {
                continue;
            }
            same += 1;
            assert_eq!(cell("token").as_text().map(str::trim), Some(row[3].trim()), "{}", row[1]);
            let expected: f64 = row[4].parse().expect("a probability");
            let found = cell("probability").as_number().expect("a probability");
            close += usize::from((found - expected).abs() <= 0.02);
        }
    }
    println!("{same} of {} tokens, {close} of {same} probabilities", rows.len());
    assert!(
        same * 100 >= rows.len() * 99,
        "only {same} of {} top tokens are the reference's",
        rows.len()
    );
    assert_eq!(close, same, "probabilities differ by more than 0.02");
}
