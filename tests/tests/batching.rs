//! Generations and inferences that share their steps: the same tokens as alone, whatever comes and
//! goes; pages, prefixes, places and the queue as clients meet them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larql_client::{
    BatchStatus, CallError, ChatMessage, Client, ConnectOptions, ExecuteOptions, GenerateEvent,
    GenerateRequest, Speculation, Target, Token,
};
use larql_proto::v1::generate_client::GenerateClient;
use larql_proto::v1::{self as wire, generate_event};
use larql_tests::daemon::Daemon;
use larql_tests::random_checkpoint::{self, Random, Size};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

/// How long anything may take that has no claim about time.
const PATIENCE: Duration = Duration::from_secs(120);
/// Positions of a page.
const PAGE: usize = 32;

/// Requests that together need more pages than there are, however quick the machine.
const LONG: usize = 4;

/// A model whose steps are quick and whose texts do not end by themselves.
const QUICK: Size =
    Size { layers: 3, hidden: 128, features: 256, experts: 0, vocabulary: 600, context: 1024 };

/// Writes a random model below the daemon's data directory, and returns its path.
fn write_model(daemon: &Daemon, name: &str, size: Size) -> String {
    let path = daemon.data_dir().join(name);
    random_checkpoint::write(&path, size, 11);
    path.display().to_string()
}

/// What a request gave: its tokens, or why it failed.
async fn generate(client: &Client, request: GenerateRequest) -> Result<Vec<u32>, CallError> {
    let mut generation = client.generate(request).await?;
    let mut ids = Vec::new();
    while let Some(event) = timeout(PATIENCE, generation.next()).await.expect("an event")? {
        match event {
            GenerateEvent::Token { id, .. } => ids.extend((id != u32::MAX).then_some(id)),
            GenerateEvent::Done(_) => return Ok(ids),
        }
    }
    panic!("a generation ended without Done");
}

/// The daemon's only model in use.
async fn batch(client: &Client) -> BatchStatus {
    let status = client.status().await.expect("status");
    assert!(status.batches.len() <= 1, "{status:?}");
    status.batches.into_iter().next().unwrap_or_default()
}

async fn until(what: &str, client: &Client, mut holds: impl FnMut(&BatchStatus) -> bool) {
    let began = Instant::now();
    loop {
        let state = batch(client).await;
        if holds(&state) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "this did not come: {what}; {state:?}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Guesses by that model.
fn guessed_by(draft_model: &str) -> Speculation {
    Speculation { draft_model: draft_model.to_owned(), ..Speculation::default() }
}

/// A prompt of so many tokens that begins with words of its own.
fn prompt(first: usize, words: usize) -> String {
    (first..first + words).map(|word| format!("Word{} ", word % 200 + 3)).collect()
}

/// Requests of all kinds: short and long, greedy and sampled, some of which begin alike.
fn mixed_requests(model: &str, count: usize, random: &mut Random) -> Vec<GenerateRequest> {
    let request = |number: usize| {
        let words = [1, 5, 31, 32, 33, 64, 90, 200, 300][random.below(9)];
        let sampled = random.below(2) == 0;
        GenerateRequest {
            model: model.to_owned(),
            prompt: prompt(random.below(4) * 50, words),
            tokens_max: 1 + random.below(90) as u32,
            temperature: sampled.then_some(0.9),
            top_p: (sampled && random.below(2) == 0).then_some(0.9),
            seed: sampled.then_some(number as u64),
            ..GenerateRequest::default()
        }
    };
    (0..count).map(request).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_share_steps_pages_and_prefixes_get_the_tokens_of_each_alone() {
    let alone = Daemon::start_with(&["--batch-sequences-max", "1"]);
    let model = write_model(&alone, "quick", QUICK);
    let drafts = [model.clone(), write_model(&alone, "draft", Size { layers: 1, ..QUICK })];
    let mut random = Random(99);
    let mut requests = mixed_requests(&model, 48, &mut random);
    // Four that are begun before any other and grow to 19 pages each: 76 of the 42 there are below.
    requests.extend((0..LONG).map(|number| GenerateRequest {
        model: model.clone(),
        prompt: prompt(number * 50 + 20, 300),
        tokens_max: 300,
        ..GenerateRequest::default()
    }));
    let client = alone.client().await;
    let mut expected = Vec::new();
    for request in &requests {
        expected.push(generate(&client, request.clone()).await.expect("a generation"));
    }
    assert!(expected.iter().map(Vec::len).sum::<usize>() > 1000, "too few tokens to compare");
    drop(client);

    // Few pages and few places, so that sequences give way to each other.
    for (arguments, pressed) in [
        (&["--kv-cache-mb", "2", "--prefill-chunk-tokens", "48"][..], true),
        (&["--kv-cache-mb", "64", "--batch-sequences-max", "5"], false),
    ] {
        let daemon = Arc::new(Daemon::start_with(arguments));
        let mut all = tokio::task::JoinSet::new();
        for (index, request) in requests.iter().enumerate() {
            let (daemon, mut request, expected) =
                (daemon.clone(), request.clone(), expected[index].clone());
            let long = index >= requests.len() - LONG;
            let delay = if long { 0 } else { random.below(100) as u64 };
            let leaves = !long && random.below(5) == 0;
            let after = random.below(10);
            if random.below(3) == 0 {
                request.speculation = Some(guessed_by(&drafts[random.below(2)]));
            }
            all.spawn(async move {
                let client = daemon.client().await;
                sleep(Duration::from_millis(delay)).await;
                if leaves {
                    let mut generation = client.generate(request).await.expect("a generation");
                    for _ in 0..after {
                        generation.next().await.expect("an event");
                    }
                    return;
                }
                let found = generate(&client, request.clone()).await;
                let found = found.unwrap_or_else(|error| panic!("{request:?}: {error}"));
                assert_eq!(found, expected, "{request:?}");
            });
        }
        while let Some(each) = all.join_next().await {
            each.expect("the tokens of each alone");
        }
        let client = daemon.client().await;
        until("everybody is done", &client, |state| state.running + state.waiting == 0).await;
        let state = batch(&client).await;
        println!("{arguments:?}: {state:?}");
        assert_eq!(state.pages_used, state.pages_reusable, "pages that nobody holds: {state:?}");
        assert!(state.tokens_reused > 0, "no prefix was shared: {state:?}");
        assert!(!pressed || state.preemptions > 0, "pages were never short: {state:?}");
        assert!(state.steps < state.tokens_decoded, "nobody shared a step: {state:?}");
    }
}

#[tokio::test]
async fn inferences_at_once_answer_as_each_does_alone() {
    let daemon = Arc::new(Daemon::start());
    let model = write_model(&daemon, "quick", QUICK);
    let use_model = format!("USE MODEL \"{model}\"");
    let infer = |number: usize| {
        format!("INFER \"{}\" TOP 5", prompt(number % 7 * 20, 1 + number * 17 % 150))
    };
    let mut alone = daemon.client().await;
    alone.query(use_model.as_str(), ExecuteOptions::here()).await.expect("USE");
    let mut expected = Vec::new();
    for number in 0..24 {
        let answer = alone.query(infer(number), ExecuteOptions::here()).await.expect("rows");
        expected.push(answer[0].rows.clone());
    }
    let mut all = tokio::task::JoinSet::new();
    for (number, expected) in expected.into_iter().enumerate() {
        let (daemon, script) = (daemon.clone(), format!("{use_model}; {}", infer(number)));
        all.spawn(async move {
            let mut client = daemon.client().await;
            let answer = client.query(script.as_str(), ExecuteOptions::here()).await;
            assert_eq!(answer.expect("rows")[1].rows, expected, "{script}");
        });
    }
    while let Some(each) = all.join_next().await {
        each.expect("the rows of each alone");
    }
}

#[tokio::test]
async fn a_short_request_is_not_behind_a_long_prompt() {
    let daemon = Daemon::start();
    let model = write_model(&daemon, "slow", Size::SLOW);
    let (client, other) = (daemon.client().await, daemon.client().await);
    let long = GenerateRequest {
        model: model.clone(),
        prompt: prompt(0, 6000),
        tokens_max: 1,
        ..GenerateRequest::default()
    };
    let long = client.generate(long).await.expect("a generation");
    until("the long prompt is being read", &other, |state| state.steps >= 2).await;
    let before = batch(&other).await;
    let short = GenerateRequest {
        model,
        prompt: prompt(7, 20),
        tokens_max: 1,
        ..GenerateRequest::default()
    };
    assert_eq!(generate(&other, short).await.expect("a generation").len(), 1);
    let after = batch(&other).await;
    // One quantum does for 20 tokens, and both prompts get one in each step; the step under way when
    // it came, and one that began before the answer was read, come on top.
    let steps = after.steps - before.steps;
    println!("the short request took {steps} steps of {after:?}");
    assert!(steps <= 1 + 3, "{steps} steps: {before:?}, {after:?}");
    assert_eq!(after.running, 1, "the long prompt is still being read: {after:?}");
    drop(long);
}

#[tokio::test]
async fn pages_return_when_a_request_is_cancelled_and_prefixes_make_room() {
    // 2 MiB are 42 pages of this model, 1344 positions.
    let daemon = Daemon::start_with(&["--kv-cache-mb", "2"]);
    let model = write_model(&daemon, "quick", QUICK);
    let (client, watch) = (daemon.client().await, daemon.client().await);
    let request = |first, words, tokens_max| GenerateRequest {
        model: model.clone(),
        prompt: prompt(first, words),
        tokens_max,
        ..GenerateRequest::default()
    };
    let mut generation = client.generate(request(0, 900, 0)).await.expect("a generation");
    generation.next().await.expect("a token");
    let held = batch(&watch).await;
    assert!(held.pages_used as usize >= 900 / PAGE, "{held:?}");
    drop(generation);
    until("the generation is gone", &watch, |state| state.running == 0).await;
    let free = batch(&watch).await;
    assert_eq!(free.pages_used, free.pages_reusable, "{free:?}");
    // Others that fill all pages get them, one after the other: what was kept is dropped.
    for first in [50, 100, 150] {
        let tokens = generate(&client, request(first, 1000, 20)).await.expect("a generation");
        assert_eq!(tokens.len(), 20);
    }
    let state = batch(&watch).await;
    assert!(state.pages_used <= state.pages_max, "{state:?}");
}

#[tokio::test]
async fn a_draft_models_pages_count_within_the_bound_and_return_with_the_request() {
    // 42 pages of this model, or 21 of it and of a draft of the same shape.
    let daemon = Daemon::start_with(&["--kv-cache-mb", "2"]);
    let model = write_model(&daemon, "quick", QUICK);
    let (client, watch) = (daemon.client().await, daemon.client().await);
    let plain = |first, words, tokens_max| GenerateRequest {
        model: model.clone(),
        prompt: prompt(first, words),
        tokens_max,
        ..GenerateRequest::default()
    };
    let guessed = |first, words, tokens_max| GenerateRequest {
        speculation: Some(guessed_by(&model)),
        ..plain(first, words, tokens_max)
    };
    generate(&client, plain(0, 3, 1)).await.expect("a generation");
    let before = batch(&watch).await;
    let error = generate(&client, guessed(0, 700, 20)).await.expect_err("a refusal");
    assert_eq!(error.code, "54000", "{error}");
    assert!(error.message.contains("draft model"), "{error}");
    assert!(error.hint.contains("kv_cache_mb"), "{error:?}");
    assert_eq!(batch(&watch).await.tokens_prefilled, before.tokens_prefilled, "work was done");
    let alone = generate(&client, plain(0, 700, 20)).await.expect("it fits without a draft");
    assert_eq!(alone.len(), 20);

    let mut generation = client.generate(guessed(50, 400, 0)).await.expect("a generation");
    generation.next().await.expect("a token");
    let both = 2 * 400 / PAGE as u64;
    until("the draft reads along", &watch, |state| {
        u64::from(state.pages_used) - u64::from(state.pages_reusable) >= both
    })
    .await;
    drop(generation);
    until("the generation is gone", &watch, |state| state.running == 0).await;
    let free = batch(&watch).await;
    assert_eq!(free.pages_used, free.pages_reusable, "{free:?}");
    // Who asks for as many tokens as there is room for gets those that it would get without a draft,
    // up to the room that both have together.
    for words in 10..14 {
        let expected = generate(&client, plain(0, words, 0)).await.expect("a generation");
        let found = generate(&client, guessed(0, words, 0)).await.expect("a generation");
        let room = (before.pages_max as usize / 2 * PAGE - words).min(expected.len());
        assert_eq!(found, expected[..room], "{words} words");
    }
}

#[tokio::test]
async fn what_could_never_fit_is_refused_with_the_key_that_would_help() {
    let daemon = Daemon::start_with(&["--kv-cache-mb", "1"]);
    let model = write_model(&daemon, "quick", QUICK);
    let mut client = daemon.client().await;
    let request = |words, tokens_max| GenerateRequest {
        model: model.clone(),
        prompt: prompt(0, words),
        tokens_max,
        ..GenerateRequest::default()
    };
    let pages_max = {
        generate(&client, request(3, 1)).await.expect("a generation");
        batch(&client).await.pages_max as usize
    };
    assert!(pages_max * PAGE < QUICK.context, "{pages_max} pages are enough for all");
    let before = batch(&client).await.tokens_prefilled;
    for (words, tokens_max) in [(QUICK.context - 10, 5), (10, (pages_max * PAGE) as u32)] {
        let error = generate(&client, request(words, tokens_max)).await.expect_err("a refusal");
        assert_eq!(error.code, "54000", "{error}");
        assert!(error.hint.contains("kv_cache_mb"), "{error:?}");
    }
    let script = format!("USE MODEL \"{model}\"; INFER \"{}\"", prompt(0, QUICK.context - 10));
    let error = client.query(script, ExecuteOptions::here()).await.expect_err("a refusal");
    assert_eq!(error.code, "54000", "{error}");
    assert_eq!(batch(&client).await.tokens_prefilled, before, "something was computed");
    // Who asks for as many tokens as there is room for gets as many as there are pages for, unless
    // the text ends before.
    let mut lengths = Vec::new();
    for words in 10..20 {
        let tokens = generate(&client, request(words, 0)).await.expect("a generation");
        lengths.push(words + tokens.len());
    }
    assert_eq!(lengths.iter().max(), Some(&(pages_max * PAGE)), "{lengths:?}");
}

#[tokio::test]
async fn bad_requests_are_refused_and_the_daemon_serves_on() {
    let daemon = Daemon::start();
    let model = write_model(&daemon, "quick", QUICK);
    let client = daemon.client().await;
    let base = || GenerateRequest {
        model: model.clone(),
        prompt: prompt(0, 3),
        tokens_max: 2,
        ..GenerateRequest::default()
    };
    for (code, refused) in [
        ("22023", GenerateRequest { prompt: String::new(), ..base() }),
        ("54000", GenerateRequest { prompt: prompt(0, QUICK.context + 1), ..base() }),
        ("22023", GenerateRequest { temperature: Some(f32::NAN), ..base() }),
        ("22023", GenerateRequest { tokens_max: u32::MAX, ..base() }),
    ] {
        let error = generate(&client, refused.clone()).await.expect_err("a refusal");
        assert_eq!(error.code, code, "{refused:?}: {error}");
    }
    let logits = larql_client::LogitsRequest {
        model: model.clone(),
        token_ids: vec![QUICK.vocabulary as u32],
        ..larql_client::LogitsRequest::default()
    };
    assert_eq!(client.logits(logits).await.expect_err("no such token").code, "22023");
    assert_eq!(generate(&client, base()).await.expect("a generation").len(), 2);
}

// --- principals ----------------------------------------------------------------------------------

/// The SHA-256 of `ada-token` and of `bob-token`, from sha256sum.
const TOKENS: [(&str, &str); 2] = [
    ("ada", "54a976f1f7ea57f6add41516b340083a827ac641daefa7ce4e5f13cc1f9351d8"),
    ("bob", "97dd3707015dcf069cf73022ed7173b1165db6eff24b441cb57fd069a8c4e525"),
];

async fn connect_as(directory: &Path, port: u16, name: &str) -> Client {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join(name);
    std::fs::write(&path, format!("{name}-token")).expect("a token file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("permissions");
    let token = Some(Token::read(&path).expect("a token"));
    let target = Target::Grpc { host: "127.0.0.1".to_owned(), port };
    let options = ConnectOptions { token, ..ConnectOptions::default() };
    Client::connect(&target, options).await.expect("a session")
}

#[tokio::test]
async fn a_prefix_is_reused_by_the_same_principal_and_by_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let mut text = format!("listen = [\"127.0.0.1:{port}\"]\n");
    for (name, sha256) in TOKENS {
        text +=
            &format!("[[tokens]]\nname = \"{name}\"\nrole = \"infer\"\nsha256 = \"{sha256}\"\n");
    }
    let config = directory.path().join("larqld.toml");
    std::fs::write(&config, text).expect("a configuration");
    let model = directory.path().join("quick");
    random_checkpoint::write(&model, QUICK, 11);
    let daemon = Daemon::start_with(&[
        "--config",
        config.to_str().expect("text"),
        "--mount",
        model.to_str().expect("text"),
    ]);
    let owner = daemon.client().await;
    let request = || GenerateRequest {
        model: "quick".to_owned(),
        prompt: prompt(0, 100),
        tokens_max: 3,
        ..GenerateRequest::default()
    };
    let mut reused = 0;
    let mut first = None;
    for (name, again) in [
        ("ada", false),
        ("bob", false),
        ("ada", true),
        ("bob", true),
        ("owner", false),
        ("owner", true),
    ] {
        let tokens = match name {
            "owner" => generate(&owner, request()).await,
            name => generate(&connect_as(directory.path(), port, name).await, request()).await,
        };
        let tokens = tokens.expect("a generation");
        assert_eq!(first.get_or_insert(tokens.clone()), &tokens, "{name}");
        reused += if again { 96 } else { 0 };
        until("the generation is gone", &owner, |state| state.running == 0).await;
        assert_eq!(batch(&owner).await.tokens_reused, reused, "{name}, again: {again}");
    }
}

#[tokio::test]
async fn the_next_turn_of_a_chat_reads_only_what_is_new() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let client = daemon.client().await;
    let message = |role: &str, content: String| ChatMessage { role: role.to_owned(), content };
    let mut messages = vec![message("user", "The capital of France is ".repeat(8))];
    let ask = |messages: &[ChatMessage]| GenerateRequest {
        model: "atlas".to_owned(),
        messages: messages.to_vec(),
        tokens_max: 4,
        ..GenerateRequest::default()
    };
    generate(&client, ask(&messages)).await.expect("a generation");
    let first = batch(&client).await;
    messages.push(message("assistant", "Paris".to_owned()));
    messages.push(message("user", "The capital of Italy is".to_owned()));
    generate(&client, ask(&messages)).await.expect("a generation");
    let second = batch(&client).await;
    let (read, reused) = (
        second.tokens_prefilled - first.tokens_prefilled,
        second.tokens_reused - first.tokens_reused,
    );
    assert!(reused >= PAGE as u64, "{first:?}, then {second:?}");
    assert!(read < first.tokens_prefilled, "{first:?}, then {second:?}");
}

// --- many, slow and gone -------------------------------------------------------------------------

async fn channel(daemon: &Daemon, window: Option<u32>) -> Channel {
    let address = format!("unix://{}", daemon.socket().display());
    let endpoint = Endpoint::try_from(address).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(window);
    endpoint.connect().await.expect("a connection")
}

fn wire_request(model: &str, first: usize, tokens_max: u32) -> wire::GenerateRequest {
    wire::GenerateRequest {
        model: model.to_owned(),
        prompt: prompt(first, 4),
        tokens_max,
        ..wire::GenerateRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_thousand_requests_those_beyond_the_queue_are_refused_and_the_others_served() {
    const REQUESTS: usize = 5000;
    const QUEUE: usize = 64;
    /// What the daemon may take for all of them together.
    const BYTES_MAX: u64 = 256 << 20;
    let queue = QUEUE.to_string();
    let daemon = Daemon::start_with(&[
        "--sessions-max",
        "6000",
        "--batch-sequences-max",
        "2",
        "--generate-queue-max",
        &queue,
    ]);
    let model = write_model(&daemon, "slow", Size::SLOW);
    let watch = daemon.client().await;
    // Two that do not end fill the places.
    let mut blockers = Vec::new();
    for first in [0, 10] {
        let mut client = GenerateClient::new(channel(&daemon, None).await);
        let mut stream = client.generate(wire_request(&model, first, 0)).await.expect("a stream");
        stream.get_mut().message().await.expect("an event");
        blockers.push(stream.into_inner());
    }
    let before = daemon.anonymous_bytes();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..REQUESTS / 200 {
        let channel = channel(&daemon, None).await;
        for first in 0..200 {
            let (mut client, model) = (GenerateClient::new(channel.clone()), model.clone());
            all.spawn(async move {
                let mut stream =
                    client.generate(wire_request(&model, first, 1)).await?.into_inner();
                while let Some(event) = stream.message().await? {
                    if let Some(generate_event::Event::Done(done)) = event.event {
                        return Ok(done.generated_tokens);
                    }
                }
                panic!("a generation ended without Done")
            });
        }
    }
    let (mut refused, mut served, mut bytes_most) = (0, 0, 0);
    while let Some(each) = timeout(PATIENCE, all.join_next()).await.expect("an answer") {
        let answer: Result<u32, tonic::Status> = each.expect("no panic");
        match answer {
            Ok(tokens) => {
                assert_eq!(tokens, 1);
                served += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
                assert!(status.message().starts_with("53400"), "{status}");
                refused += 1;
            }
        }
        if (refused + served) % 500 == 0 {
            let state = batch(&watch).await;
            assert!(state.waiting as usize <= QUEUE && state.running <= 2, "{state:?}");
            bytes_most = daemon.anonymous_bytes().max(bytes_most);
        }
        if refused + served == REQUESTS - QUEUE {
            // Those who wait get the places.
            blockers.clear();
        }
    }
    let grown = bytes_most.saturating_sub(before);
    println!("{refused} refused, {served} served; memory grew by {} MiB", grown >> 20);
    assert_eq!(refused + served, REQUESTS);
    assert!(served >= QUEUE && refused > REQUESTS / 2, "{served} served, {refused} refused");
    assert!(grown < BYTES_MAX, "{grown} bytes");
}

#[tokio::test]
async fn a_client_that_does_not_read_pauses_itself_and_gets_everything_later() {
    let daemon = Daemon::start_with(&["--batch-sequences-max", "1"]);
    let size = Size { context: 16_384, ..Size::FEW_FEATURES };
    let model = write_model(&daemon, "small", size);
    let (other, watch) = (daemon.client().await, daemon.client().await);
    let request = |first, tokens_max| GenerateRequest {
        model: model.clone(),
        prompt: prompt(first, 4),
        tokens_max,
        ..GenerateRequest::default()
    };
    let expected = generate(&other, request(0, 3000)).await.expect("a generation");
    // The smallest window that is allowed to be that small: some events are on their way, no more.
    let mut slow = GenerateClient::new(channel(&daemon, Some(1024)).await);
    let stream = slow.generate(wire_request(&model, 0, 3000)).await.expect("a stream");
    until("the slow client's sequence is paused", &watch, |state| state.paused == 1).await;
    // There is one place, and it gives way.
    let tokens = generate(&other, request(50, 200)).await.expect("a generation");
    assert_eq!(tokens.len(), 200);
    // The other counts as paused, too, for a moment: when its last events find no room.
    until("only the slow client's sequence is paused", &watch, |state| state.paused == 1).await;
    let state = batch(&watch).await;
    assert!(state.preemptions >= 1, "{state:?}");
    let mut stream = stream.into_inner();
    let mut found = Vec::new();
    while let Some(event) =
        timeout(PATIENCE, stream.message()).await.expect("an event").expect("ok")
    {
        if let Some(generate_event::Event::Token(token)) = event.event {
            found.extend((token.id != u32::MAX).then_some(token.id));
        }
    }
    assert_eq!(found, expected);
    // One that is slow and then gone leaves nothing behind.
    let stream = slow.generate(wire_request(&model, 0, 3000)).await.expect("a stream");
    until("the slow client's sequence is paused", &watch, |state| state.paused == 1).await;
    drop(stream);
    until("it is gone", &watch, |state| state.paused + state.running == 0).await;
    let state = batch(&watch).await;
    assert_eq!(state.pages_used, state.pages_reusable, "{state:?}");
}

#[tokio::test]
async fn a_deadline_ends_what_waits_and_what_runs() {
    let daemon = Daemon::start_with(&["--batch-sequences-max", "1"]);
    let model = write_model(&daemon, "slow", Size::SLOW);
    let (blocker, mut client) = (daemon.client().await, daemon.client().await);
    let endless = GenerateRequest {
        model: model.clone(),
        prompt: prompt(0, 3),
        ..GenerateRequest::default()
    };
    let mut endless = blocker.generate(endless).await.expect("a generation");
    endless.next().await.expect("a token");
    let options =
        ExecuteOptions { deadline: Some(Duration::from_millis(300)), ..ExecuteOptions::here() };
    let began = Instant::now();
    let script = format!("USE MODEL \"{model}\"; INFER \"{}\"", prompt(9, 3));
    let error = client.query(script, options).await.expect_err("the deadline passes");
    assert_eq!(error.code, "57014", "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    endless.next().await.expect("the other goes on");
    drop(endless);
    let mut timed = tonic::Request::new(wire_request(&model, 0, 0));
    timed.set_timeout(Duration::from_millis(700));
    let mut stream = GenerateClient::new(channel(&daemon, None).await);
    let mut stream = stream.generate(timed).await.expect("a stream").into_inner();
    let mut tokens = 0;
    let status = loop {
        match timeout(PATIENCE, stream.message()).await.expect("an event") {
            Ok(event) => {
                tokens += usize::from(event.expect("no end in good order").event.is_some())
            }
            Err(status) => break status,
        }
    };
    assert!(status.message().starts_with("57014") && tokens > 0, "{tokens} tokens, {status}");
}

// --- unmounting, draining ------------------------------------------------------------------------

#[tokio::test]
async fn a_generation_outlives_its_mount_and_the_model_is_let_go_after_it() {
    let daemon = Daemon::start();
    let model = write_model(&daemon, "quick", QUICK);
    let mut client = daemon.client().await;
    let script = format!("MOUNT \"{model}\" AS quick");
    client.query(script, ExecuteOptions::here()).await.expect("MOUNT");
    let request = GenerateRequest {
        model: "quick".to_owned(),
        prompt: prompt(0, 4),
        tokens_max: 900,
        ..GenerateRequest::default()
    };
    let other = daemon.client().await;
    let mut generation = other.generate(request).await.expect("a generation");
    generation.next().await.expect("a token");
    client.query("UNMOUNT quick", ExecuteOptions::here()).await.expect("UNMOUNT");
    let mut made = 1;
    while let Some(event) = generation.next().await.expect("the generation goes on") {
        made += usize::from(matches!(event, GenerateEvent::Token { .. }));
    }
    assert!(made >= 900, "{made} tokens");
    let began = Instant::now();
    while !client.status().await.expect("status").batches.is_empty() {
        assert!(began.elapsed() < PATIENCE, "the runner stays");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn draining_lets_generations_end_and_refuses_those_that_wait() {
    let mut daemon = Daemon::start_with(&["--batch-sequences-max", "1", "--drain-seconds", "120"]);
    let model = write_model(&daemon, "quick", QUICK);
    let (one, two) = (daemon.client().await, daemon.client().await);
    let watch = daemon.client().await;
    let request = |tokens_max| GenerateRequest {
        model: model.clone(),
        prompt: prompt(0, 4),
        tokens_max,
        ..GenerateRequest::default()
    };
    let mut runs = one.generate(request(1000)).await.expect("a generation");
    runs.next().await.expect("a token");
    let waits = two.generate(request(1)).await;
    until("one waits", &watch, |state| state.waiting == 1).await;
    daemon.signal(libc::SIGTERM);
    let error = match waits {
        Ok(mut waits) => waits.next().await.expect_err("a refusal"),
        Err(error) => error,
    };
    assert_eq!(error.code, "57P01", "{error}");
    let mut made = 1;
    while let Some(event) = runs.next().await.expect("what runs may end") {
        made += usize::from(matches!(event, GenerateEvent::Token { .. }));
    }
    assert!(made >= 1000, "{made} tokens");
    drop((one, two, watch, runs));
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
}
