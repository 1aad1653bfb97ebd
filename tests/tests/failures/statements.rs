//! Statements and requests that are too much, or make no sense.

use super::*;

#[tokio::test]
async fn a_syntax_error_has_a_place_and_a_hint() {
    let daemon = Daemon::start();
    let error = refused(&daemon, "SHOW MOUNTS;\n  DESCRBE \"France\"", "42601", &["DESCRBE"]).await;
    let position = error.position.expect("a position");
    assert_eq!((position.line, position.column, position.length), (2, 3, 7));
    assert_eq!(position.offset, 15);
    assert!(error.hint.contains("DESCRIBE"), "{}", error.hint);
    let error = failure(&daemon, "SELECT * FROM", "42601", &["end"]).await;
    assert_eq!(error.position.expect("a position").offset, 13);
    failure(&daemon, "DESCRIBE \"France", "42601", &[]).await;
    failure(&daemon, "\u{0}\u{1}\u{feff}", "42601", &[]).await;
}

#[tokio::test]
async fn a_statement_of_ten_megabytes_is_refused_fast_and_the_session_goes_on() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    for script in [
        format!("DESCRIBE \"{}\"", "x".repeat(10 << 20)),
        " ".repeat(10 << 20),
        ";".repeat(10 << 20),
        format!("-- {}", "c".repeat(10 << 20)),
    ] {
        let began = Instant::now();
        let error = client.query(script, ExecuteOptions::here()).await.expect_err("a refusal");
        assert_eq!(error.code, "54000", "{error}");
        assert!(!error.hint.is_empty(), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        client.query("SHOW MOUNTS", ExecuteOptions::here()).await.expect("the session goes on");
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_nesting_bomb_is_refused() {
    let daemon = Daemon::start();
    daemon.extract(&llama2(), &daemon.data_dir().join("v.vindex"), "").await;
    for bomb in ["(", "NOT ", "-", "NOT ("] {
        for count in [200, 20_000, 100_000] {
            let script =
                format!("USE \"v\"; SELECT * FROM FEATURES WHERE {}layer = 1", bomb.repeat(count));
            let began = Instant::now();
            let Err(error) = timeout(PATIENCE, daemon.query(&script)).await.expect("in time")
            else {
                panic!("{count} times {bomb:?} succeeded")
            };
            assert!(["54000", "42601"].contains(&&*error.code), "{count} {bomb:?}: {error}");
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
            assert_well(&daemon).await;
        }
    }
    let explains = format!("{}STATS", "EXPLAIN ".repeat(50_000));
    let Err(error) = daemon.query(&explains).await else { panic!("EXPLAIN of EXPLAIN succeeded") };
    assert!(["54000", "0A000", "42601"].contains(&&*error.code), "{error}");
    let chain = format!(
        "USE \"v\"; SELECT * FROM FEATURES WHERE layer = 1{}",
        " OR layer = 2".repeat(20_000)
    );
    if let Err(error) = timeout(PATIENCE, daemon.query(&chain)).await.expect("in time") {
        assert_eq!(error.code, "54000", "{error}");
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_list_of_a_million_terms_is_refused_fast() {
    let daemon = Daemon::start();
    daemon.extract(&llama2(), &daemon.data_dir().join("v.vindex"), "").await;
    let list = vec!["1"; 1_000_000].join(",");
    let script = format!("USE \"v\"; SELECT * FROM FEATURES WHERE layer IN ({list})");
    let began = Instant::now();
    refused(&daemon, &script, "54000", &[]).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let many = "SHOW MOUNTS;".repeat(100_000);
    refused(&daemon, &many, "54000", &[]).await;
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_refused_wherever_it_comes_from() {
    let daemon = Daemon::start();
    daemon.extract(&llama2(), &daemon.data_dir().join("v.vindex"), "WITH INFERENCE").await;
    let long = "a b ".repeat(400);
    refused(&daemon, &format!("USE \"v\"; INFER \"{long}\""), "54000", &["256"]).await;
    refused(&daemon, &format!("USE \"v\"; EXPLAIN INFER \"{long}\""), "54000", &["256"]).await;
    let client = daemon.client().await;
    let logits = |token_ids: Vec<u32>, greedy_tokens| LogitsRequest {
        model: "v".to_owned(),
        token_ids,
        greedy_tokens,
        ..LogitsRequest::default()
    };
    for request in [logits(vec![1; 257], 0), logits(vec![1; 10], 247), logits(vec![1], u32::MAX)] {
        let error = client.logits(request).await.expect_err("a refusal");
        assert_call(&error, "54000", &["256"]);
        assert!(!error.hint.is_empty(), "{error}");
    }
    client.logits(logits(vec![1; 256], 0)).await.expect("a full context");
    let request = GenerateRequest {
        model: "v".to_owned(),
        prompt: long,
        tokens_max: 1,
        ..GenerateRequest::default()
    };
    let error = generate(&client, request.clone()).await.expect_err("a refusal");
    assert_call(&error, "54000", &["256"]);
    // A generation that meets the end of the context ends there.
    let request = GenerateRequest { prompt: "a".to_owned(), tokens_max: 1 << 20, ..request };
    assert!(generate(&client, request).await.expect("an end") <= 256);
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_token_that_is_not_in_the_vocabulary_is_refused() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    for (token_ids, code, name) in [
        (vec![1, 512], "22023", "512"),
        (vec![u32::MAX], "22023", "4294967295"),
        (vec![], "22024", "token"),
    ] {
        let request = LogitsRequest {
            model: llama2().display().to_string(),
            token_ids,
            ..LogitsRequest::default()
        };
        let error = client.logits(request).await.expect_err("a refusal");
        assert_call(&error, code, &[name]);
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn options_of_a_generation_that_make_no_sense_are_refused() {
    let daemon = Daemon::start();
    let client = daemon.client().await;
    let request = GenerateRequest {
        model: llama2().display().to_string(),
        prompt: "a".to_owned(),
        tokens_max: 4,
        ..GenerateRequest::default()
    };
    for request in [
        GenerateRequest { tokens_max: u32::MAX, ..request.clone() },
        GenerateRequest { temperature: Some(f32::NAN), ..request.clone() },
        GenerateRequest { temperature: Some(-1.0), ..request.clone() },
        GenerateRequest { temperature: Some(1.0), top_p: Some(2.0), ..request.clone() },
        GenerateRequest { temperature: Some(1.0), top_p: Some(f32::NAN), ..request.clone() },
        GenerateRequest { temperature: Some(1.0), top_k: Some(0), ..request.clone() },
        GenerateRequest { stop: vec!["x".to_owned(); 100], ..request.clone() },
        GenerateRequest { stop: vec![String::new()], ..request.clone() },
    ] {
        let error = generate(&client, request.clone()).await;
        let error = error.err().unwrap_or_else(|| panic!("{request:?} succeeded"));
        assert_call(&error, "22023", &[]);
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn numbers_out_of_range_are_refused_with_their_place() {
    let daemon = Daemon::start();
    daemon.extract(&llama2(), &daemon.data_dir().join("v.vindex"), "WITH INFERENCE").await;
    for (statement, code, name) in [
        ("SELECT * FROM FEATURES LIMIT -1", "22003", "LIMIT -1"),
        ("SELECT * FROM FEATURES LIMIT 9223372036854775808", "22003", "9223372036854775808"),
        ("SELECT * FROM FEATURES LIMIT 99999999999999999999999999", "22003", "LIMIT"),
        ("WALK \"a\" TOP 0", "22023", "TOP 0"),
        ("WALK \"a\" TOP -3", "22003", "TOP -3"),
        ("WALK \"a\" TOP 9223372036854775808", "22003", "9223372036854775808"),
        ("INFER \"a\" TOP 0", "22023", "TOP 0"),
        ("INFER \"a\" TOP 9223372036854775808", "22003", "TOP"),
        ("DESCRIBE \"a\" AT LAYER -1", "22003", "layer -1"),
        ("DESCRIBE \"a\" AT LAYER 3", "22023", "layer 3"),
        ("DESCRIBE \"a\" AT LAYER 4294967296", "22003", "4294967296"),
        ("WALK \"a\" LAYERS 1-9", "22023", "9"),
        ("WALK \"a\" LAYERS 2-1", "22023", "2-1"),
        ("SET describe_z = -1", "22023", "describe_z"),
        ("SET describe_z = 1001", "22023", "describe_z"),
        ("SET describe_z = 1e400", "22003", "large"),
        ("SET describe_z = nan", "22023", "describe_z"),
    ] {
        let script = format!("USE \"v\"; {statement}");
        let error = failure(&daemon, &script, code, &[name]).await;
        let position =
            error.position.unwrap_or_else(|| panic!("{statement}: {error} has no place"));
        assert!(position.offset >= 9, "{statement}: {position:?}");
    }
    // The largest counts that are allowed mean "all".
    let script = "USE \"v\"; WALK \"a\" TOP 9223372036854775807; INFER \"a\" TOP 9223372036854775807; \
                  SELECT * FROM FEATURES LIMIT 9223372036854775807; SELECT * FROM FEATURES LIMIT 0";
    let answers = daemon.query(script).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(answers[2].rows.len(), 512);
    assert_eq!(answers[1].rows.len(), 3 * 88);
    assert_eq!(answers[4].rows.len(), 0);
    let (_, expected) = (0, 3 * 88);
    assert_eq!(answers[3].rows.len(), expected);
    assert_well(&daemon).await;
}
