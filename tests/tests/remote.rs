//! USE REMOTE: a session's statements run at another daemon, or fail.

use std::time::{Duration, Instant};

use larql_client::{Answer, Client, Column, ExecuteOptions, StatementError, Value};
use larql_tests::daemon::Daemon;
use larql_tests::random_checkpoint::{self, Size};
use larql_tests::token::Confined;

/// What a stopped statement may take with two daemons on a busy machine.
const STOPPED_WITHIN: Duration = Duration::from_secs(5);

fn here() -> ExecuteOptions {
    ExecuteOptions::here()
}

fn use_remote(daemon: &Daemon, mount: &str) -> String {
    format!("USE REMOTE \"unix://{}{mount}\";", daemon.socket().display())
}

async fn query(client: &mut Client, script: &str) -> Vec<Answer> {
    let answers = client.query(script, here()).await;
    answers.unwrap_or_else(|error| panic!("{script}: {error} ({})", error.hint))
}

async fn refused(client: &mut Client, script: &str) -> StatementError {
    client.query(script, here()).await.expect_err(script)
}

/// Tag, columns, rows, mount and base hash of an answer.
type Contents<'a> = (&'a str, &'a [Column], &'a [Vec<Value>], &'a str, &'a str);

/// What answers hold, without what depends on time.
fn contents(answers: &[Answer]) -> Vec<Contents<'_>> {
    answers
        .iter()
        .map(|one| {
            let summary = &one.summary;
            (&*one.tag, &one.columns[..], &one.rows[..], &*summary.mount, &*summary.base_hash)
        })
        .collect()
}

#[tokio::test]
async fn what_a_remote_daemon_answers_is_passed_on_unchanged() {
    let (near, far) = (Daemon::start(), Daemon::start());
    far.extract_atlas("WITH INFERENCE").await;
    let script = "STATS; DESCRIBE \"France\" VERBOSE; WALK \"The capital of France is\" TOP 3; \
        SELECT layer, feature, top_tokens FROM FEATURES WHERE layer = 3 LIMIT 400; \
        INFER \"The capital of France is\" TOP 3; EXPLAIN SELECT * FROM FEATURES LIMIT 3; \
        PREPARE p AS SELECT feature FROM FEATURES WHERE layer = $1 LIMIT 2; EXECUTE p(1);";
    let alone = far.query(&format!("USE \"atlas\"; {script}")).await.expect("it answers by itself");
    let mut client = near.client().await;
    let answers = query(&mut client, &use_remote(&far, "#atlas")).await;
    let told = &answers[0].notices[0].message;
    assert!(told.contains("larqld") && told.contains("as admin"), "{told}");
    let through = query(&mut client, script).await;
    assert_eq!(contents(&through), contents(&alone[1..]));
    // What was prepared there is there in the next script, and nothing of it is here.
    assert_eq!(query(&mut client, "EXECUTE p(1)").await[0].rows.len(), 2);
    assert_eq!(query(&mut client, "SHOW MOUNTS").await[0].rows.len(), 1);
    // The same model, used here from its directory: USE ends what USE REMOTE began.
    let path = far.data_dir().join("vindexes/atlas.vindex");
    let local =
        query(&mut client, &format!("USE \"{}\"; SHOW MOUNTS; STATS", path.display())).await;
    assert!(local[1].rows.is_empty(), "this daemon has no mounts: {:?}", local[1].rows);
    assert_eq!(refused(&mut client, "EXECUTE p(1)").await.code, "26000");
}

#[tokio::test]
async fn parameters_positions_and_settings_hold_at_a_remote_daemon() {
    let (near, far) = (Daemon::start(), Daemon::start());
    far.extract_atlas("").await;
    let mut client = near.client().await;
    query(&mut client, &use_remote(&far, "#atlas")).await;
    let options = ExecuteOptions {
        parameters: vec![Value::Integer(2), Value::Text("it's \"so\"".to_owned())],
        ..here()
    };
    let script = "SELECT DISTINCT layer FROM FEATURES WHERE layer = $1; \
        SELECT count(*) FROM FEATURES WHERE layer = 1 AND $2 = \"it's \\\"so\\\"\"";
    let answers = client.query(script, options).await.expect("each takes its own values");
    assert_eq!(answers[0].rows, [[Value::Integer(2)]]);
    assert!(answers[1].rows[0][0].as_integer() > Some(0), "{:?}", answers[1].rows);
    let script = "SHOW MOUNTS;\n  SELECT nothing FROM FEATURES";
    let error = refused(&mut client, script).await;
    let position = error.position.expect("a place");
    assert_eq!((&*error.code, position.line, position.column), ("42703", 2, 10), "{error}");
    assert_eq!(&script[position.offset as usize..][..position.length as usize], "nothing");
    assert_eq!(error.statement, 1);
    // A setting of scripts is this daemon's, which splits them.
    let mut goes_on = client
        .execute("SET on_error = continue; SELECT nothing FROM FEATURES; SHOW MOUNTS", here());
    let (mut errors, mut tags) = (0, Vec::new());
    while let Some(event) = goes_on.next().await {
        match event {
            larql_client::Event::Error(_) => errors += 1,
            larql_client::Event::Schema { tag, .. } => tags.push(tag),
            _ => {}
        }
    }
    assert_eq!((errors, tags.last().map(String::as_str)), (1, Some("SHOW MOUNTS")), "{tags:?}");
}

#[tokio::test]
async fn a_remote_daemon_that_goes_away_never_lets_statements_run_here_instead() {
    let (near, mut far) = (Daemon::start(), Daemon::start());
    let mut client = near.client().await;
    query(&mut client, &use_remote(&far, "")).await;
    query(&mut client, "SHOW MOUNTS").await;
    far.kill();
    for _ in 0..2 {
        let error = refused(&mut client, "SHOW MOUNTS").await;
        assert_eq!(error.code, "08006", "{error}");
        assert!(error.hint.contains("USE"), "{}", error.hint);
    }
    let nobody = refused(&mut client, &use_remote(&far, "")).await;
    assert_eq!(nobody.code, "08006", "{nobody}");
    for url in ["http://localhost:1", "grpc://", "unix://relative", "grpc://a:99999", "\u{1}"] {
        let error = refused(&mut client, &format!("USE REMOTE \"{url}\"")).await;
        assert_eq!(error.code, "22023", "{url}: {error}");
    }
}

#[tokio::test]
async fn a_cancel_and_a_deadline_reach_a_remote_daemon() {
    let (near, far) = (Daemon::start(), Daemon::start());
    let slow = far.data_dir().join("slow");
    random_checkpoint::write(&slow, Size::SLOW, 7);
    let mut direct = far.client().await;
    query(&mut direct, &format!("MOUNT \"{}\" AS slow", slow.display())).await;
    let mut client = near.client().await;
    query(&mut client, &use_remote(&far, "#slow")).await;
    let infer = format!("INFER \"{}\"", random_checkpoint::prompt(4000));
    let mut statements = client.execute(&infer, here());
    tokio::time::sleep(Duration::from_millis(300)).await;
    statements.cancel();
    let began = Instant::now();
    let mut codes = Vec::new();
    while let Some(event) = statements.next().await {
        if let larql_client::Event::Error(error) = event {
            codes.push(error.code);
        }
    }
    drop(statements);
    assert_eq!(codes, ["57014"]);
    assert!(began.elapsed() < STOPPED_WITHIN, "{:?}", began.elapsed());
    let deadline = Some(Duration::from_millis(300));
    let late = client.query(&infer, ExecuteOptions { deadline, ..here() }).await;
    assert_eq!(late.expect_err("no time").code, "57014");
    // The other daemon has stopped too: what it runs next begins at once.
    let began = Instant::now();
    query(&mut client, "SHOW MOUNTS").await;
    assert!(began.elapsed() < STOPPED_WITHIN, "{:?}", began.elapsed());
}

#[tokio::test]
async fn only_an_administrator_sends_a_session_elsewhere() {
    let far = Daemon::start();
    let near = Confined::start("editor", &[]);
    let mut client = near.client().await;
    let error = refused(&mut client, &use_remote(&far, "")).await;
    assert_eq!(error.code, "42501", "{error}");
}

#[tokio::test]
async fn a_token_is_shown_to_a_remote_daemon_that_asks_for_one() {
    let far = Confined::start("infer", &[]);
    drop(far.client().await);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::copy(far.token(), &file).expect("a copy, as private as the file");
    let near = Daemon::start_with(&["--remote-token-file", &file.display().to_string()]);
    let mut client = near.client().await;
    let answers = query(&mut client, &format!("USE REMOTE \"grpc://{}\"", far.address())).await;
    let told = &answers[0].notices[0].message;
    assert!(told.contains("as infer"), "{told}");
    assert_eq!(refused(&mut client, "UNMOUNT nothing").await.code, "42501");
}
