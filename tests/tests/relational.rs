//! SELECT as a whole system: parameters, roles, hostile statements, limits, and tables that outlive a
//! session. What statements answer is in the golden scripts (`tests/scripts/`).

use std::time::{Duration, Instant};

use larql_client::{Client, ExecuteOptions, StatementError, Value};
use larql_tests::daemon::Daemon;
use larql_tests::repository;
use larql_tests::token::Confined;

/// Far more than a refusal or a cancel takes.
const SOON: Duration = Duration::from_secs(20);

fn here() -> ExecuteOptions {
    ExecuteOptions {
        working_directory: repository().join("tests/scripts/files").display().to_string(),
        ..ExecuteOptions::default()
    }
}

async fn browse() -> Daemon {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    daemon
}

async fn client(daemon: &Daemon) -> Client {
    let mut client = daemon.client().await;
    client.query("USE \"atlas\"", here()).await.expect("atlas is mounted");
    client
}

async fn refused(client: &mut Client, statement: &str) -> StatementError {
    let began = Instant::now();
    let error =
        client.query(statement, here()).await.expect_err(&statement[..statement.len().min(90)]);
    assert!(began.elapsed() < SOON, "{error} after {:?}", began.elapsed());
    error
}

#[tokio::test]
async fn parameters_of_a_script_stand_for_values_in_all_of_its_statements() {
    let daemon = browse().await;
    let mut client = client(&daemon).await;
    let with = |parameters: Vec<Value>| ExecuteOptions { parameters, ..here() };
    let script = "SELECT $1 AS a, $2 + 1 AS b; SELECT count(*) FROM EDGES WHERE target = $1 AND layer > $2; \
                  PREPARE p AS SELECT $1 AS one; EXECUTE p(5)";
    let values = vec![Value::from("Paris"), Value::Integer(2)];
    let answers = client.query(script, with(values)).await.expect("answers");
    assert_eq!(answers[0].rows, [[Value::from("Paris"), Value::Integer(3)]]);
    assert_eq!(answers[1].rows, [[Value::Integer(1)]]);
    assert_eq!(answers[3].rows, [[Value::Integer(5)]], "the parameters of PREPARE are its own");
    for (script, value, code) in [
        ("SELECT $1, $2", Value::Null, "42P02"),
        ("DESCRIBE $1", Value::Integer(1), "42804"),
        ("DESCRIBE $1", Value::Null, "42804"),
        ("SELECT $1", Value::List(vec![]), "42804"),
        ("SELECT layer FROM EDGES WHERE layer = $1", Value::from("x"), "42804"),
    ] {
        let error = client.query(script, with(vec![value])).await.expect_err(script);
        assert_eq!(error.code, code, "{script}: {error}");
    }
    let odd = [f64::NAN, f64::INFINITY, -0.0].map(Value::Real);
    let answer = client.query("SELECT $1 < 1, $2 > 1, $3 = 0", with(odd.to_vec())).await;
    let truths = [false, true, true].map(Value::Boolean);
    assert_eq!(answer.expect("numbers")[0].rows, [truths]);
}

#[tokio::test]
async fn a_reader_is_refused_what_it_may_not_run_also_prepared_and_in_a_pipe() {
    let confined = Confined::start("reader", &[]);
    let (daemon, mut reader) = (&confined.daemon, confined.client().await);
    daemon.extract_atlas("WITH INFERENCE").await;
    daemon
        .client()
        .await
        .query("CREATE TABLE facts FROM \"facts.tsv\"", here())
        .await
        .expect("a table");
    let allowed = "USE \"atlas\"; SELECT count(*) FROM facts; PREPARE p AS DESCRIBE $1; EXECUTE p(\"France\"); \
                   SELECT object FROM facts |> DESCRIBE $object";
    reader.query(allowed, here()).await.expect("reading");
    for statement in [
        "PREPARE q AS INFER $1",
        "PREPARE q AS EXTRACT MODEL \"a\" INTO \"b\"",
        "PREPARE q AS USE \"/etc\"",
        "PREPARE q AS CREATE TABLE x FROM \"facts.tsv\"",
        "SELECT object FROM facts |> INFER $object",
        "SELECT 1 AS x |> SELECT x |> SELECT \"a\" AS p |> INFER $p",
        "EXPLAIN SELECT object FROM facts |> INFER $object",
        "CREATE TABLE x FROM \"facts.tsv\"",
        "DROP TABLE facts",
        "EXPLAIN ANALYZE DROP TABLE facts",
    ] {
        let error = refused(&mut reader, statement).await;
        assert_eq!(error.code, "42501", "{statement}: {error}");
    }
    assert_eq!(refused(&mut reader, "EXECUTE q(\"x\")").await.code, "26000");
    let inserted = refused(
        &mut reader,
        "PREPARE q AS INSERT INTO EDGES (entity, relation, target) VALUES (\"a\", \"b\", $1)",
    )
    .await;
    assert!(["55000", "42501"].contains(&inserted.code.as_str()), "{inserted}");
    // A token of less than admin is confined to the roots, of which there are none.
    reader.query("SELECT count(*) FROM facts", here()).await.expect("the table is still there");
}

#[tokio::test]
async fn hostile_statements_are_refused_and_the_daemon_goes_on() {
    let daemon = browse().await;
    let mut client = client(&daemon).await;
    let million = vec!["1"; 1_000_000].join(",");
    let deep = |count: usize| format!("SELECT {}1{}", "(".repeat(count), ")".repeat(count));
    let stages = |count: usize| format!("SELECT 1 AS x{}", " |> SELECT x".repeat(count));
    for (statement, code) in [
        (format!("SELECT * FROM EDGES WHERE layer IN ({million})"), "54000"),
        (format!("SELECT * FROM EDGES WHERE layer = {}", &deep(100_000)[7..]), "54000"),
        (deep(100_000), "54000"),
        (
            format!(
                "SELECT * FROM {}EDGES{}",
                "(SELECT * FROM ".repeat(100_000),
                ")".repeat(100_000)
            ),
            "54000",
        ),
        (stages(64), "54000"),
        (stages(20_000), "54000"),
        ("SELECT target FROM EDGES LIMIT -1".to_owned(), "22003"),
        ("SELECT target FROM EDGES LIMIT 1 OFFSET -1".to_owned(), "22003"),
        ("WALK \"x\" TOP 9223372036854775808".to_owned(), "22003"),
        ("WALK \"x\" TOP 0".to_owned(), "22023"),
        ("SELECT * FROM EDGES NEAREST TO \"x\" AT LAYER -1".to_owned(), "22003"),
        (format!("PREPARE p AS SELECT {}", vec!["$1"; 5_000].join(",")), "54000"),
        ("PREPARE p AS SELECT $4294967296".to_owned(), "22023"),
        ("SELECT lаyer FROM EDGES".to_owned(), "42601"),
        ("SELECT \u{202E}layer FROM EDGES".to_owned(), "42601"),
    ] {
        let error = refused(&mut client, &statement).await;
        assert_eq!(error.code, code, "{}: {error}", &statement[..statement.len().min(60)]);
    }
    let list = (0..60_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let began = Instant::now();
    for statement in [
        format!("SELECT count(*) FROM EDGES WHERE feature NOT IN ({list})"),
        stages(63),
        "SELECT target FROM EDGES LIMIT 9223372036854775807 OFFSET 9223372036854775807".to_owned(),
        "SELECT target FROM EDGES ORDER BY logit LIMIT 9223372036854775807".to_owned(),
        format!("SELECT {}", vec!["1"; 30_000].join("+")),
    ] {
        let answer = client.query(statement.as_str(), here()).await;
        answer.unwrap_or_else(|error| panic!("{}: {error}", &statement[..60]));
    }
    assert!(began.elapsed() < SOON, "answered after {:?}", began.elapsed());
    let mut many = String::new();
    (0..300).for_each(|n| many += &format!("PREPARE s{n} AS SELECT {n};"));
    assert_eq!(refused(&mut client, &many).await.code, "54000");
    client.query("EXECUTE s0", here()).await.expect("what was prepared is there");
    client.query("SELECT count(*) FROM EDGES", here()).await.expect("the daemon serves");
}

#[tokio::test]
async fn a_join_of_all_pairs_stops_at_its_deadline_and_at_its_limit() {
    let daemon = browse().await;
    let mut client = client(&daemon).await;
    let endless = "SELECT count(*) FROM EDGES AS a JOIN EDGES AS b ON a.logit < b.logit JOIN EDGES AS c ON b.logit < c.logit";
    let began = Instant::now();
    let options = ExecuteOptions { deadline: Some(Duration::from_millis(300)), ..here() };
    let error = client.query(endless, options).await.expect_err("it takes hours");
    assert_eq!(error.code, "57014", "{error}");
    assert!(began.elapsed() < SOON, "stopped after {:?}", began.elapsed());
    let wide = "SELECT DISTINCT a.top_tokens, b.top_tokens, a.top_tokens, b.top_tokens, a.top_tokens, b.top_tokens, a.feature, b.feature, a.layer, b.layer FROM EDGES AS a JOIN EDGES AS b ON TRUE";
    let before = daemon.anonymous_bytes();
    let error =
        client.query(format!("{wide} ORDER BY 7"), here()).await.expect_err("too many rows");
    assert_eq!(error.code, "54000", "{error}");
    let grown = daemon.anonymous_bytes().saturating_sub(before);
    assert!(grown < 3 << 30, "the statement took {grown} bytes");
    client.query("SELECT count(*) FROM EDGES", here()).await.expect("the daemon serves");
}

#[tokio::test]
async fn a_table_of_facts_is_everybodys_and_outlives_the_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start_in(directory.path(), &[]);
    daemon
        .client()
        .await
        .query("CREATE TABLE Facts FROM \"facts.tsv\"", here())
        .await
        .expect("a table");
    let count = "SELECT count(*), max(since) FROM facts";
    let expected = [[Value::Integer(4), Value::Integer(1868)]];
    assert_eq!(daemon.query(count).await.expect("another session")[0].rows, expected);
    daemon.kill();
    let daemon = Daemon::start_in(directory.path(), &[]);
    assert_eq!(daemon.query(count).await.expect("after a restart")[0].rows, expected);
    std::fs::write(directory.path().join("tables/Facts.tsv"), "a\tb\n1\n").expect("damaged");
    let _ = daemon;
    let daemon = {
        drop(daemon);
        Daemon::start_in(directory.path(), &[])
    };
    let error = daemon.query(count).await.expect_err("its copy is damaged");
    assert_eq!(error.code, "XX001", "{error}");
    daemon.query("DROP TABLE facts").await.expect("a damaged table can be dropped");
    assert_eq!(daemon.query(count).await.expect_err("it is gone").code, "42P01");
}

#[tokio::test]
async fn a_path_outside_the_roots_makes_no_table() {
    let place = tempfile::tempdir().expect("a directory");
    let (inside, outside) = (place.path().join("in"), place.path().join("out"));
    std::fs::create_dir(&inside).expect("a directory");
    std::fs::create_dir(&outside).expect("a directory");
    for directory in [&inside, &outside] {
        std::fs::write(directory.join("a.csv"), "a\n1\n").expect("a file");
    }
    std::os::unix::fs::symlink(outside.join("a.csv"), inside.join("link.csv")).expect("a link");
    std::os::unix::fs::symlink(&outside, inside.join("way")).expect("a link");
    std::os::unix::fs::symlink("/dev/zero", inside.join("zero.csv")).expect("a link");
    let confined = Confined::start("admin", &[&inside]);
    let (daemon, mut admin) = (&confined.daemon, confined.client().await);
    let at_root = || ExecuteOptions {
        working_directory: inside.display().to_string(),
        ..ExecuteOptions::default()
    };
    admin.query("CREATE TABLE good FROM \"./a.csv\"", at_root()).await.expect("beneath the root");
    let absolute = outside.join("a.csv").display().to_string();
    for path in [
        absolute.as_str(),
        "../out/a.csv",
        "link.csv",
        "way/a.csv",
        "zero.csv",
        "way/../../out/a.csv",
        "/proc/self/mem",
        "~/a.csv",
        "a\\0.csv",
        "\\\\\\\\server\\\\share\\\\a.csv",
        "",
        "file:///etc/passwd",
    ] {
        let statement = format!("CREATE TABLE bad FROM \"{path}\"");
        let error = admin.query(statement.as_str(), at_root()).await.expect_err(path);
        assert!(["42501", "22023", "58P01"].contains(&error.code.as_str()), "{path}: {error}");
    }
    let answer = daemon.query("SELECT count(*) FROM good").await.expect("the daemon serves");
    assert_eq!(answer[0].rows, [[Value::Integer(1)]]);
    let error = daemon.query("SELECT * FROM bad").await.expect_err("nothing was made");
    assert_eq!(error.code, "42P01");
}

#[tokio::test]
async fn explain_analyze_runs_every_stage_of_a_pipe_and_join() {
    let daemon = browse().await;
    let mut client = client(&daemon).await;
    let pipe = "EXPLAIN ANALYZE SELECT DISTINCT layer FROM FEATURES |> SELECT count(*) AS n FROM EDGES AS a JOIN EDGES AS b \
                ON a.target = b.target WHERE a.layer = $layer AND b.layer = $layer |> SELECT sum(n)";
    let answer = client.query(pipe, here()).await.expect("it runs").remove(0);
    let operators = answer.column("operator").expect("operators");
    let rows = answer.column("rows").expect("rows");
    let of = |name: &str| {
        let at = operators.iter().position(|operator| operator.as_text() == Some(name));
        rows[at.unwrap_or_else(|| panic!("no {name} among {operators:?}"))].as_integer()
    };
    assert_eq!(of("ForEach"), Some(6));
    assert_eq!(of("Distinct"), Some(6));
    // What runs once a row is shown, and counted where it is run from.
    assert_eq!(of("HashJoin"), Some(0));
}
