//! Attacks on statements and paths, as a whole system. The numbers are those of the list that the
//! project was given; hostile sizes and depths (38) are also in `relational.rs` and
//! `failures/statements.rs`, paths of CREATE TABLE (36) in `relational.rs`, the race between check and
//! open (36) in `larqld/src/confined.rs` too, quoting (40) in `larql-client/src/quote.rs`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larql_client::{Answer, Client, ExecuteOptions, StatementError, Value};
use larql_planner::syntax::ast::Statement;
use larql_planner::syntax::parse_script;
use larql_storage::file::{DiskFiles, Files};
use larql_tests::token::Confined;
use larql_tests::{atlas_checkpoint, repository};

fn at(directory: &Path) -> ExecuteOptions {
    ExecuteOptions {
        working_directory: directory.display().to_string(),
        ..ExecuteOptions::default()
    }
}

fn scripts_files() -> ExecuteOptions {
    at(&repository().join("tests/scripts/files"))
}

async fn last(client: &mut Client, script: &str, options: ExecuteOptions) -> Answer {
    let answers = client.query(script, options).await;
    answers.unwrap_or_else(|error| panic!("{script}: {error}")).pop().expect("an answer")
}

/// Every file and directory below one, with its length.
fn census(directory: &Path) -> BTreeSet<(String, u64)> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let there = path.symlink_metadata().expect("metadata");
        found.insert((path.display().to_string(), if there.is_file() { there.len() } else { 0 }));
        if there.is_dir() {
            found.extend(census(&path));
        }
    }
    found
}

/// Statements that name a path, as an administrator over TCP would write them.
const WITH_PATHS: [&str; 15] = [
    "EXTRACT MODEL \"{}\" INTO \"new.vindex\"",
    "EXTRACT MODEL \"atlas\" INTO \"{}\"",
    "EXTRACT MODEL \"atlas\" INTO \"{}\" OVERWRITE",
    "COMPILE CURRENT INTO MODEL \"{}\"",
    "COMPILE CURRENT INTO MODEL \"{}\" FORMAT GGUF OVERWRITE",
    "COMPILE \"{}\" INTO MODEL \"new\"",
    "TRACE \"a\" POSITIONS ALL SAVE \"{}\"",
    "TRACE OPEN \"{}\"",
    "COPY (STATS) TO \"{}\" FORMAT csv",
    "EXPORT CURRENT INTO \"{}\" FORMAT turtle",
    "CREATE TABLE t FROM \"{}\"",
    "LABEL CURRENT FROM FACTS \"{}\"",
    "MOUNT \"{}\" AS other",
    "USE \"{}\"",
    "VERIFY VINDEX \"{}\"",
];

/// Case 36: a confined session names what lies outside its roots, in every statement that takes a path.
#[tokio::test]
async fn attack_36_no_statement_of_a_confined_session_leads_out_of_its_roots() {
    let place = tempfile::tempdir().expect("a directory");
    let place = place.path().canonicalize().expect("a path");
    let (inside, outside) = (place.join("in"), place.join("out"));
    std::fs::create_dir(&inside).expect("a directory");
    std::fs::create_dir(&outside).expect("a directory");
    copy_dir(&atlas_checkpoint(), &inside.join("atlas"));
    copy_dir(&atlas_checkpoint(), &outside.join("atlas"));
    std::fs::write(outside.join("a.tsv"), "entity\trelation\tobject\nFrance\tcapital\tParis\n")
        .expect("a file");
    for (to, name) in [
        (outside.join("a.tsv"), "link.tsv"),
        (outside.clone(), "way"),
        (outside.join("missing"), "dangling"),
        ("/dev/zero".into(), "zero.tsv"),
        ("/proc/self/mem".into(), "memory.tsv"),
    ] {
        std::os::unix::fs::symlink(to, inside.join(name)).expect("a link");
    }
    let fifo = std::ffi::CString::new(inside.join("fifo.tsv").display().to_string()).expect("text");
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    let confined = Confined::start("admin", &[&inside]);
    confined.daemon.extract_atlas("WITH INFERENCE").await;
    let mut admin = confined.client().await;
    last(&mut admin, "USE \"atlas\"", at(&inside)).await;
    let before = census(&place);
    let absolute = outside.join("a.tsv").display().to_string();
    let paths = [
        "..",
        "../out",
        "../out/a.tsv",
        "../out/new",
        &absolute,
        "./way/a.tsv",
        "./way/new",
        "./way",
        "./link.tsv",
        "./dangling",
        "./dangling/new",
        "./way/../../out/a.tsv",
        "./zero.tsv",
        "./memory.tsv",
        "./fifo.tsv",
        "/dev/zero",
        "/proc/self/mem",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd/new",
        "/etc/passwd",
        "~/new",
        "~root/new",
        "./a\\0b",
        "\\\\\\\\server\\\\share\\\\new/",
        "file:///etc/passwd",
        "http://127.0.0.1/new",
        "hf://a/b",
        "//etc/passwd",
        "",
    ];
    for template in WITH_PATHS {
        for path in paths {
            let statement = template.replace("{}", path);
            let error = admin.query(statement.as_str(), at(&inside)).await;
            let error = error.err().unwrap_or_else(|| panic!("{statement} was answered"));
            assert_ne!(error.code, "XX000", "{statement}: {error}");
            assert!(!error.message.contains("/proc/self/fd"), "{statement}: {error}");
        }
    }
    assert_eq!(census(&place), before, "something was made or changed");
    // The same statements with a path beneath the root.
    for good in [
        "TRACE \"a\" POSITIONS ALL SAVE \"./run.trace\"; TRACE OPEN \"./run.trace\"",
        "COPY (STATS) TO \"./stats.csv\"; CREATE TABLE stats FROM \"./stats.csv\"; DROP TABLE stats",
        "EXPORT CURRENT INTO \"./edges.ttl\" FORMAT turtle",
        "EXPORT CURRENT INTO \"./edges\" FORMAT neo4j",
        "COMPILE CURRENT INTO MODEL \"./compiled\" VERIFY",
        "EXTRACT MODEL \"./atlas\" INTO \"./own.vindex\"; VERIFY VINDEX \"./own.vindex\"",
        "USE \"./own.vindex\"; CREATE INDEX fast ON GATES USING sketch; DESCRIBE \"France\"; DROP INDEX fast",
        "EXTRACT MODEL \"./atlas\" INTO \"./own.vindex\" OVERWRITE; UNMOUNT own",
        "MOUNT \"./own.vindex\" AS again; USE MODEL \"./compiled\"; STATS; UNMOUNT again",
    ] {
        last(&mut admin, good, at(&inside)).await;
    }
    assert_eq!(
        census(&outside),
        before
            .into_iter()
            .filter(|(path, _)| path.starts_with(&format!("{}/", outside.display())))
            .collect()
    );
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

/// Case 36: a directory that was checked is swapped for a link to somewhere else while statements run.
#[tokio::test]
async fn attack_36_a_directory_swapped_while_statements_run_never_leads_them_out() {
    let place = tempfile::tempdir().expect("a directory");
    let place = place.path().canonicalize().expect("a path");
    let (inside, outside) = (place.join("in"), place.join("out"));
    std::fs::create_dir_all(inside.join("folder")).expect("a directory");
    std::fs::create_dir(&outside).expect("a directory");
    std::fs::write(outside.join("a.csv"), "secret\n1\n").expect("a file");
    std::fs::write(inside.join("folder/a.csv"), "harmless\n1\n").expect("a file");
    std::os::unix::fs::symlink(&outside, inside.join("link")).expect("a link");
    let confined = Confined::start("admin", &[&inside]);
    let mut admin = confined.client().await;
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (stop, folder, link) = (stop.clone(), inside.join("folder"), inside.join("link"));
        move || {
            while !stop.load(Ordering::Relaxed) {
                DiskFiles.exchange(&folder, &link).expect("the two change places");
            }
        }
    });
    let (mut done, mut refused) = (0, 0);
    for number in 0..300 {
        let script = format!(
            "CREATE TABLE t FROM \"./folder/a.csv\"; COPY (SELECT * FROM t) TO \"./folder/{number}.csv\""
        );
        match admin.query(script.as_str(), at(&inside)).await {
            Ok(_) => done += 1,
            Err(_) => refused += 1,
        }
        if let Ok(answers) = admin.query("SELECT * FROM t", at(&inside)).await {
            assert_eq!(answers[0].columns[0].name, "harmless");
            last(&mut admin, "DROP TABLE t", at(&inside)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().expect("the swapper ends");
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
    assert_eq!(census(&outside).len(), 1, "{:?}", census(&outside));
}

/// Who may run a statement.
#[derive(Debug, Clone, Copy, PartialEq)]
enum May {
    /// Everybody.
    Reader,
    /// Whoever it is: it changes at most the session's own state, or is history.
    Session,
    /// Nobody of less than the role infer.
    Infer,
    /// Only those who may change something or name paths.
    Change,
}

/// At least one statement of every kind.
const STATEMENTS: &[(May, &str)] = &[
    (May::Change, "EXTRACT MODEL \"a\" INTO \"b\""),
    (May::Change, "COMPILE CURRENT INTO MODEL \"b\""),
    (May::Change, "COMPILE CURRENT INTO VINDEX \"b\""),
    (May::Session, "DIFF CURRENT \"atlas\""),
    (May::Change, "DIFF CURRENT \"atlas\" INTO PATCH \"b.vlp\""),
    (May::Reader, "USE \"atlas\""),
    (May::Change, "USE \"./facts.tsv\""),
    (May::Change, "USE MODEL \"./facts.tsv\""),
    (May::Change, "MOUNT \"/tmp\""),
    (May::Change, "UNMOUNT atlas"),
    (May::Reader, "WALK \"a\""),
    (May::Infer, "WALK \"a\" MODE DENSE"),
    (May::Infer, "WALK \"a\" COMPARE"),
    (May::Infer, "INFER \"a\""),
    (May::Reader, "SELECT 1 AS x"),
    (May::Reader, "DESCRIBE \"France\""),
    (May::Reader, "EXPLAIN WALK \"a\""),
    (May::Infer, "EXPLAIN INFER \"a\""),
    (May::Reader, "EXPLAIN SELECT 1"),
    (May::Infer, "EXPLAIN ANALYZE INFER \"a\" COMPARE"),
    (May::Infer, "TRACE \"a\""),
    (May::Change, "TRACE \"a\" POSITIONS ALL SAVE \"b\""),
    (May::Change, "TRACE OPEN \"b\""),
    (May::Infer, "GENERATE \"a\" MAX 1"),
    (May::Change, "INSERT INTO EDGES (entity, relation, target) VALUES (\"a\", \"b\", \"c\")"),
    (May::Change, "DELETE FROM EDGES WHERE entity = \"a\""),
    (May::Change, "UPDATE EDGES SET target = \"b\" WHERE entity = \"a\""),
    (May::Change, "MERGE \"a\""),
    (May::Change, "REBALANCE"),
    (May::Change, "COMPACT MINOR"),
    (May::Change, "COMPACT MAJOR"),
    (May::Session, "BEGIN"),
    (May::Change, "BEGIN PATCH \"b.vlp\""),
    (May::Session, "COMMIT"),
    (May::Session, "ROLLBACK"),
    (May::Session, "SAVEPOINT s"),
    (May::Change, "SAVE PATCH"),
    (May::Change, "APPLY PATCH \"b.vlp\""),
    (May::Change, "REMOVE PATCH \"b.vlp\""),
    (May::Change, "CREATE BRANCH b"),
    (May::Change, "DROP BRANCH b"),
    (May::Session, "STATS AS OF LSN 1"),
    (May::Session, "BLAME \"a\""),
    (May::Change, "CREATE ASSERTION a AS INFER \"a\" = \"b\""),
    (May::Change, "DROP ASSERTION a"),
    (May::Session, "CHECK ASSERTIONS"),
    (May::Change, "LABEL CURRENT FROM DEFAULT"),
    (May::Change, "LABEL CURRENT FROM FACTS \"facts.tsv\""),
    (May::Infer, "VERIFY EDGE WHERE entity = \"Peru\" AND target = \"Lima\""),
    (May::Change, "VERIFY VINDEX \"b\""),
    (May::Reader, "SHOW LAYERS"),
    (May::Reader, "SHOW FEATURES 1 LIMIT 1"),
    (May::Reader, "SHOW RELATIONS"),
    (May::Reader, "SHOW ENTITIES LIMIT 1"),
    (May::Reader, "SHOW ALL"),
    (May::Reader, "STATS"),
    (May::Reader, "SET describe_z = 3"),
    (May::Reader, "RESET describe_z"),
    (May::Reader, "PREPARE own AS SELECT 1"),
    (May::Reader, "EXECUTE own"),
    (May::Reader, "DEALLOCATE own"),
    (May::Change, "CREATE TABLE t FROM \"facts.tsv\""),
    (May::Change, "DROP TABLE facts"),
    (May::Change, "ANALYZE"),
    (May::Change, "CREATE INDEX fast ON GATES USING sketch"),
    (May::Change, "DROP INDEX targets"),
    (May::Change, "COPY (STATS) TO \"b.csv\""),
    (May::Change, "EXPORT CURRENT INTO \"b\" FORMAT turtle"),
    (May::Change, "KILL 1"),
    (May::Reader, "SELECT 1 AS x |> SELECT x"),
    (May::Infer, "SELECT \"a\" AS x |> INFER $x"),
];

/// What others would notice of a change: mounts, tables, indexes and edges.
async fn state(client: &mut Client) -> Vec<Vec<Vec<Value>>> {
    let script = "SHOW MOUNTS; SELECT * FROM facts; SHOW INDEXES; SELECT count(*) FROM EDGES";
    let answers = client.query(script, scripts_files()).await.expect("the daemon serves");
    answers.into_iter().map(|answer| answer.rows).collect()
}

/// Case 37: a reader tries every kind of statement that changes or administers something, alone, after a
/// harmless one, explained, prepared and behind a pipe.
#[tokio::test]
async fn attack_37_a_reader_changes_nothing_by_any_statement_in_any_disguise() {
    let confined = Confined::start("reader", &[]);
    confined.daemon.extract_atlas("WITH INFERENCE").await;
    let mut owner = confined.daemon.client().await;
    last(&mut owner, "USE \"atlas\"; CREATE TABLE facts FROM \"facts.tsv\"", scripts_files()).await;
    let before = state(&mut owner).await;
    let files = census(&repository().join("tests/scripts/files"));
    let mut reader = confined.client().await;
    last(&mut reader, "USE \"atlas\"", scripts_files()).await;
    let mut seen = BTreeSet::new();
    for (may, statement) in STATEMENTS {
        let parsed = parse_script(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        seen.insert(parsed[0].statement.kind());
        let alone = reader.query(*statement, scripts_files()).await;
        // What is not served yet says so to everybody.
        let is_served = !matches!(&alone, Err(StatementError { code, .. }) if code == "0A000");
        if matches!(may, May::Reader | May::Session) {
            if is_served && *may == May::Reader {
                alone.unwrap_or_else(|error| panic!("{statement}: {error}"));
            }
            continue;
        }
        let disguises = [
            (*statement).to_owned(),
            format!("SELECT 1; {statement}; SELECT 2"),
            format!("EXPLAIN {statement}"),
            format!("EXPLAIN ANALYZE {statement}"),
            format!("PREPARE p AS {statement}; EXECUTE p"),
            format!("SELECT 1 AS x |> {statement}"),
            format!("SELECT \"a\" AS x |> SELECT x |> {statement}"),
            format!("COPY ({statement}) TO \"c.csv\""),
            format!("PREPARE q AS SELECT 1 AS x |> {statement}; EXECUTE q"),
            format!("-- nothing\n;;{statement};"),
        ];
        for disguise in disguises {
            let error = reader.query(disguise.as_str(), scripts_files()).await;
            let error = error.err().unwrap_or_else(|| panic!("{disguise} was answered"));
            let code = error.code.as_str();
            let expected = match code {
                // Refused as such, or not even a statement in this place.
                "42501" => true,
                "0A000" | "42601" | "42703" => !is_served || disguise != *statement,
                _ => false,
            };
            assert!(expected, "{disguise}: {error}");
        }
    }
    let missing: Vec<_> = Statement::KINDS.iter().filter(|kind| !seen.contains(*kind)).collect();
    assert!(missing.is_empty(), "no reader tries {missing:?}");
    assert_eq!(state(&mut owner).await, before);
    assert_eq!(census(&repository().join("tests/scripts/files")), files);
}

/// Case 38: names that look like others, and text that turns direction, are names and text.
#[tokio::test]
async fn attack_38_look_alike_and_turning_names_mean_only_themselves() {
    let confined = Confined::start("admin", &[]);
    let daemon = &confined.daemon;
    daemon.extract_atlas("").await;
    let mut client = daemon.client().await;
    last(&mut client, "USE \"atlas\"", scripts_files()).await;
    for (statement, codes) in [
        // A Cyrillic a, in a keyword, a column, a table, a setting, a mount.
        ("SELECT lаyer FROM EDGES", &["42601"][..]),
        ("SELECT * FROM EDGЕS", &["42601"]),
        ("SHОW MOUNTS", &["42601"]),
        ("USE \"аtlas\"", &["42704", "58P01"]),
        ("SELECT \u{202E}layer FROM EDGES", &["42601"]),
        ("SELECT layer\u{200B} FROM EDGES", &["42601"]),
        ("SELECT\u{00A0}1", &["42601"]),
        ("MOUNT \"/tmp\" AS \"a\u{7}b\"", &["22023"]),
    ] {
        let error = client.query(statement, scripts_files()).await.expect_err(statement);
        assert!(codes.contains(&error.code.as_str()), "{statement:?}: {error}");
    }
    let turning = "SELECT \"a\u{202E}b\u{2066}\" AS x -- \u{202E} SELECT 2";
    let answer = last(&mut client, turning, scripts_files()).await;
    assert_eq!(answer.rows, [[Value::from("a\u{202E}b\u{2066}")]]);
    for entity in ["Frаnce", "\u{202E}ecnarF", "Fra\u{200B}nce", "ｆｒａｎｃｅ"] {
        let described = client.query(format!("DESCRIBE \"{entity}\""), scripts_files()).await;
        assert!(
            described.is_ok() || described.is_err_and(|error| error.code == "22024"),
            "{entity:?}"
        );
    }
    let large = format!("SELECT \"{}\" AS x", "x".repeat(10 << 20));
    let error = client.query(large.as_str(), scripts_files()).await.expect_err("ten megabytes");
    assert_eq!(error.code, "54000", "{error}");
    last(&mut client, "SELECT count(*) FROM EDGES", scripts_files()).await;
}

/// Case 39: numbers that no clause can mean.
#[tokio::test]
async fn attack_39_numbers_out_of_range_are_refused_in_every_clause_that_takes_one() {
    let confined = Confined::start("admin", &[]);
    confined.daemon.extract_atlas("WITH INFERENCE").await;
    let mut client = confined.daemon.client().await;
    last(&mut client, "USE \"atlas\"", scripts_files()).await;
    let statements = [
        (
            "SELECT target FROM EDGES LIMIT {}",
            &["-1", "1.5", "9223372036854775808", "99999999999999999999"][..],
        ),
        ("SELECT target FROM EDGES LIMIT 1 OFFSET {}", &["-1", "0.5", "9223372036854775808"]),
        ("DESCRIBE \"France\" LIMIT {}", &["-1", "9223372036854775808"]),
        ("DESCRIBE \"France\" AT LAYER {}", &["-1", "6", "4294967296", "9223372036854775808"]),
        ("WALK \"a\" TOP {}", &["0", "-1", "9223372036854775808"]),
        ("WALK \"a\" LAYERS {}", &["-1-2", "3-1", "0-6", "0-4294967296"]),
        ("INFER \"a\" TOP {}", &["0", "-1", "9223372036854775808"]),
        ("EXPLAIN INFER \"a\" TOP {}", &["0", "-1", "9223372036854775808"]),
        ("GENERATE \"a\" MAX {}", &["-1", "9223372036854775808"]),
        ("GENERATE \"a\" MAX 1 TEMPERATURE {}", &["-1", "NaN", "1e999", "'x'"]),
        ("GENERATE \"a\" MAX 1 TEMPERATURE 1 TOP_P {}", &["-0.1", "1.5", "NaN"]),
        ("GENERATE \"a\" MAX 1 TEMPERATURE 1 TOP_K {}", &["-1", "9223372036854775808"]),
        ("SELECT * FROM EDGES NEAREST TO \"a\" AT LAYER {}", &["-1", "6", "4294967296"]),
        ("SHOW LAYERS {}", &["-1-2", "4-2", "0-99"]),
        ("SHOW FEATURES {}", &["-1", "6", "9223372036854775808"]),
        ("TRACE \"a\" LAYERS {}", &["-1-2", "0-6"]),
        ("SET describe_z = {}", &["NaN", "1e999", "'x'"]),
        ("SET walk_k = {}", &["-1", "0", "1.5", "9223372036854775808"]),
        ("KILL {}", &["-1", "9223372036854775808", "4294967295"]),
    ];
    for (template, numbers) in statements {
        for number in numbers {
            let statement = template.replace("{}", number);
            let error = client.query(statement.as_str(), scripts_files()).await;
            let error = error.err().unwrap_or_else(|| panic!("{statement} was answered"));
            let refused =
                ["22003", "22023", "42601", "42704", "42804"].contains(&error.code.as_str());
            assert!(refused, "{statement}: {error}");
        }
    }
    for nothing in ["SELECT target FROM EDGES LIMIT 0", "DESCRIBE \"France\" LIMIT 0"] {
        assert!(last(&mut client, nothing, scripts_files()).await.rows.is_empty(), "{nothing}");
    }
}

/// Case 40: names that would end a literal and begin a statement, through what quotes for callers and
/// through parameters.
#[tokio::test]
async fn attack_40_an_entity_is_never_read_as_a_statement() {
    let confined = Confined::start("admin", &[]);
    let daemon = &confined.daemon;
    daemon.extract_atlas("").await;
    let mut client = daemon.client().await;
    last(&mut client, "USE \"atlas\"; CREATE TABLE facts FROM \"facts.tsv\"", scripts_files())
        .await;
    let mounts = last(&mut client, "SHOW MOUNTS", scripts_files()).await.rows;
    for entity in [
        "France\"; UNMOUNT atlas; --",
        "France\\\"; DROP TABLE facts; --",
        "'; DROP TABLE facts; --",
        "\\",
        "\\\\\"; UNMOUNT atlas; SELECT \"",
        "France\n; UNMOUNT atlas",
        "\" OR 1 = 1 --",
        "$1",
        "France\u{0}\"; UNMOUNT atlas",
    ] {
        let parameters = vec![Value::from(entity)];
        let options = ExecuteOptions { parameters, ..scripts_files() };
        let echoed = last(&mut client, "SELECT $1 AS entity", options.clone()).await;
        assert_eq!(echoed.rows, [[Value::from(entity)]]);
        let rows = last(&mut client, "SELECT * FROM facts WHERE entity = $1", options).await.rows;
        assert!(rows.is_empty(), "{entity:?} found {rows:?}");
        let statement = format!("SELECT {} AS entity", larql_client::quote(entity));
        let answers = client.query(statement.as_str(), scripts_files()).await.expect("one literal");
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].rows, [[Value::from(entity)]]);
    }
    assert_eq!(last(&mut client, "SHOW MOUNTS", scripts_files()).await.rows, mounts);
    last(&mut client, "SELECT count(*) FROM facts", scripts_files()).await;
}
