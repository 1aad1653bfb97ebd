//! SHOW SESSIONS, the system tables and KILL: what the daemon says of itself, and to whom.

use larql_client::{Answer, Client, ConnectOptions, Event, ExecuteOptions, Target, Value};
use larql_tests::daemon::Daemon;

async fn run(client: &mut Client, script: &str) -> Answer {
    let answers = client.query(script, ExecuteOptions::here()).await;
    let mut answers = answers.unwrap_or_else(|error| panic!("{script}: {error}"));
    answers.pop().expect("an answer")
}

fn column<'a>(answer: &'a Answer, name: &str) -> Vec<&'a Value> {
    answer.column(name).unwrap_or_else(|| panic!("no column {name}"))
}

fn texts(answer: &Answer, name: &str) -> Vec<String> {
    let text = |value: &Value| value.as_text().unwrap_or_default().to_owned();
    column(answer, name).into_iter().map(text).collect()
}

fn number(value: &Value) -> f64 {
    value.as_number().unwrap_or_else(|| panic!("{value:?} is no number"))
}

const LONG: &str =
    "SELECT a.layer, b.feature FROM FEATURES AS a JOIN FEATURES AS b ON a.layer = b.layer";

#[tokio::test]
async fn a_session_that_runs_something_is_seen_and_killed_by_its_number() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let (mut watcher, mut busy) = (daemon.client().await, daemon.client().await);
    run(&mut busy, "USE \"atlas\"").await;
    // It has more rows than anybody reads, so that it goes on until it is ended.
    let mut events = busy.execute(LONG, ExecuteOptions::here());
    while !matches!(events.next().await, Some(Event::Rows(_))) {}
    let sessions = run(&mut watcher, "SHOW SESSIONS").await;
    assert_eq!(texts(&sessions, "role"), ["admin", "admin"]);
    let at = texts(&sessions, "state")
        .iter()
        .zip(texts(&sessions, "statement"))
        .position(|(state, statement)| state == "running" && statement == LONG);
    let at = at.unwrap_or_else(|| panic!("{:?}", sessions.rows));
    assert_eq!(texts(&sessions, "mount")[at], "atlas");
    let id = number(column(&sessions, "id")[at]);
    // The session that asks is marked, and runs what it asks.
    let own: Vec<bool> =
        column(&sessions, "own").iter().map(|own| **own == Value::Boolean(true)).collect();
    assert_eq!(own.iter().filter(|own| **own).count(), 1);
    assert!(!own[at]);
    let own_id = number(column(&sessions, "id")[1 - at]);
    for (script, code) in [
        (format!("KILL {own_id}"), "22023"),
        ("KILL 999999".to_owned(), "42704"),
        ("KILL -1".to_owned(), "22003"),
    ] {
        let error = watcher.query(&script, ExecuteOptions::here()).await.expect_err("a refusal");
        assert_eq!(error.code, code, "{script}: {error}");
    }
    run(&mut watcher, &format!("KILL {id}")).await;
    let mut last = None;
    while let Some(event) = events.next().await {
        if let Event::Error(error) = event {
            last = Some(error);
        }
    }
    let error = last.expect("it is told");
    assert!(["57014", "08006"].contains(&&*error.code), "{error}");
    drop(events);
    // The statement is over, and so is the session.
    let mut left = usize::MAX;
    for _ in 0..500 {
        left = run(&mut watcher, "SHOW SESSIONS").await.rows.len();
        if left == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(left, 1);
    let script = format!(
        "SELECT state, code FROM larql.statements WHERE session = {id} AND state != 'done'"
    );
    let ended = run(&mut watcher, &script).await;
    assert_eq!(texts(&ended, "code"), ["57014"]);
}

#[tokio::test]
async fn system_tables_are_tables_like_others() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let mut client = daemon.client().await;
    let mounts =
        run(&mut client, "USE \"atlas\"; SELECT name, layers FROM larql.mounts WHERE in_use").await;
    assert_eq!(texts(&mounts, "name"), ["atlas"]);
    let settings = run(
        &mut client,
        "SET describe_z = 3; SELECT name FROM larql.settings WHERE value != default",
    )
    .await;
    assert_eq!(texts(&settings, "name"), ["describe_z"]);
    let shown = run(&mut client, "SHOW RELATIONS").await;
    let selected = run(&mut client, "SELECT * FROM larql.relations").await;
    assert_eq!(shown.rows, selected.rows);
    let _ = client.query("SELECT nothing FROM EDGES", ExecuteOptions::here()).await;
    let failed = run(
        &mut client,
        "SELECT t.statement, t.code FROM larql.statements AS t JOIN larql.sessions AS s \
         ON s.id = t.session WHERE s.own AND t.state = 'failed'",
    )
    .await;
    assert_eq!(texts(&failed, "statement"), ["SELECT nothing FROM EDGES"]);
    assert_eq!(texts(&failed, "code"), ["42703"]);
    let counted = run(
        &mut client,
        "SELECT state, count(*) AS n FROM larql.statements GROUP BY state ORDER BY state",
    )
    .await;
    assert_eq!(texts(&counted, "state"), ["done", "failed", "running"]);
    let error = client.query("SELECT * FROM larql.mount", ExecuteOptions::here()).await;
    assert!(error.expect_err("no such table").hint.contains("larql.mounts"));
}

#[tokio::test]
async fn a_caller_without_a_token_sees_its_own_sessions_and_ends_none() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr());
    let address = port.expect("a free port");
    let daemon = Daemon::start_with(&["--listen", &address.to_string()]);
    let mut owner = daemon.client().await;
    let target = Target::Grpc { host: address.ip().to_string(), port: address.port() };
    let mut guest = Client::connect(&target, ConnectOptions::default()).await.expect("a session");
    let all = run(&mut owner, "SHOW SESSIONS").await;
    assert_eq!(all.rows.len(), 2);
    let seen = run(&mut guest, "SHOW SESSIONS").await;
    assert_eq!(texts(&seen, "principal"), ["loopback"]);
    let statements = run(&mut guest, "SELECT principal FROM larql.statements").await;
    assert!(texts(&statements, "principal").iter().all(|principal| principal == "loopback"));
    let kill = format!("KILL {}", number(column(&all, "id")[0]));
    let error = guest.query(&kill, ExecuteOptions::here()).await.expect_err("a refusal");
    assert_eq!(error.code, "42501", "{error}");
    run(&mut owner, "SHOW MOUNTS").await;
}
