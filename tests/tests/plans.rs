//! Plans end to end: EXPLAIN shows what runs, other access paths give the same rows, first rows come
//! early, and SELECT means what docs/lql/semantics.md says.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use larql_client::{Answer, Client, Event, ExecuteOptions, Value};
use larql_tests::daemon::Daemon;
use larql_tests::random_checkpoint::{self, Size};

fn here() -> ExecuteOptions {
    ExecuteOptions::here()
}

/// A daemon with the bundled model in use by the returned session.
async fn start() -> (Daemon, Client) {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let mut client = daemon.client().await;
    client.query("USE \"atlas\"", here()).await.expect("USE");
    (daemon, client)
}

async fn run(client: &mut Client, statement: &str) -> Answer {
    let answers = client.query(statement, here()).await;
    answers
        .unwrap_or_else(|error| panic!("{statement}: {error} ({})", error.hint))
        .pop()
        .expect("an answer")
}

fn cell<'a>(answer: &'a Answer, row: usize, column: &str) -> &'a Value {
    answer.column(column).unwrap_or_else(|| panic!("no column {column}"))[row]
}

fn texts(answer: &Answer, column: &str) -> Vec<String> {
    let cells = answer.column(column).unwrap_or_else(|| panic!("no column {column}"));
    cells.iter().map(|cell| cell.as_text().unwrap_or("NULL").to_owned()).collect()
}

fn operators(answer: &Answer) -> Vec<String> {
    texts(answer, "operator")
}

/// A statement of every kind that this version serves and that changes nothing.
const READS: &[&str] = &[
    "DESCRIBE \"France\"",
    "DESCRIBE \"France\" BRIEF",
    "DESCRIBE \"Paris\" ALL LAYERS RAW LIMIT 3",
    "DESCRIBE \"Paris\" AT LAYER 4",
    "DESCRIBE \"Tokyo\" STREAM",
    "WALK \"The capital of France is\" TOP 3",
    "WALK \"The capital of France is\" TOP 3 LAYERS 2-4 MODE PURE",
    "SELECT * FROM EDGES LIMIT 5",
    "SELECT * FROM EDGES WHERE entity = \"France\" ORDER BY gate_score DESC LIMIT 5",
    "SELECT entity, target FROM EDGES NEAREST TO \"France\" AT LAYER 3 LIMIT 4",
    "SELECT * FROM FEATURES WHERE layer = 3 AND feature = 4",
    "SELECT DISTINCT target FROM FEATURES WHERE layer = 2 ORDER BY target LIMIT 7",
    "SELECT * FROM ENTITIES ORDER BY count DESC LIMIT 5",
    "SELECT layer, upper(target) AS t FROM FEATURES WHERE target LIKE \"a%\" LIMIT 4 OFFSET 2",
    "SHOW LAYERS",
    "SHOW LAYERS 1-2",
    "SHOW FEATURES 2 WHERE target LIKE \"b%\" LIMIT 3",
    "SHOW ENTITIES AT LAYER 2 LIMIT 3",
    "SHOW RELATIONS",
    "SHOW MODELS",
    "SHOW MOUNTS",
    "SHOW ALL",
    "SHOW walk_k",
    "STATS",
    "INFER \"The capital of France is\" TOP 3",
    "INFER \"The capital of France is\" TOP 2 COMPARE",
];

// --- EXPLAIN -------------------------------------------------------------------------------------

#[tokio::test]
async fn explain_shows_the_operators_that_run_with_their_rows_and_bytes() {
    let (_daemon, mut client) = start().await;
    // An answer that is kept is given again, and its plan does not run.
    run(&mut client, "SET result_cache = off").await;
    for read in READS {
        let plain = run(&mut client, read).await;
        let planned = run(&mut client, &format!("EXPLAIN (FORMAT TEXT) {read}")).await;
        let mut measured = run(&mut client, &format!("EXPLAIN ANALYZE {read}")).await;
        // Passes of the model have parts, which are not nodes of the plan.
        measured.rows.retain(|row| planned.rows.iter().any(|node| node[0] == row[0]));
        assert_eq!(operators(&planned), operators(&measured), "{read}");
        // What was measured follows what was planned.
        for (planned, measured) in texts(&planned, "detail").iter().zip(texts(&measured, "detail"))
        {
            assert!(measured.starts_with(planned.as_str()), "{read}: {measured}");
        }
        for column in ["rows", "bytes", "ms"] {
            let cells = planned.column(column).expect("a column");
            assert!(
                cells.iter().all(|cell| **cell == Value::Null),
                "{read}: {column} without ANALYZE"
            );
        }
        // The root gives the statement's rows, and the nodes together read the statement's bytes.
        let rows = cell(&measured, 0, "rows").as_integer().expect("rows");
        assert_eq!(rows, plain.rows.len() as i64, "{read}");
        assert_eq!(rows, plain.summary.rows as i64, "{read}");
        let bytes = measured.column("bytes").expect("bytes");
        let bytes: i64 = bytes.iter().map(|cell| cell.as_integer().expect("bytes")).sum();
        assert_eq!(bytes as u64, plain.summary.bytes_touched, "{read}");
        for node in 0..measured.rows.len() {
            assert!(cell(&measured, node, "ms").as_number().expect("ms") >= 0.0);
            for column in ["est_rows", "est_bytes", "est_ms"] {
                let estimate = cell(&planned, node, column).as_number().expect("an estimate");
                assert!(estimate.is_finite() && estimate >= 0.0, "{read}: {column} {estimate}");
            }
        }
        // Parents come before their inputs, and only the first node has none.
        let id = |node| cell(&planned, node, "id").as_integer().expect("an id");
        for node in 0..planned.rows.len() {
            let parent = cell(&planned, node, "parent").as_integer();
            assert_eq!(parent.is_none(), node == 0, "{read}");
            assert!(
                parent.is_none_or(|parent| (0..node).any(|above| id(above) == parent)),
                "{read}"
            );
        }
    }
}

#[tokio::test]
async fn explain_answers_a_plan_for_statements_that_change_something_and_changes_nothing() {
    let (daemon, mut client) = start().await;
    let into = daemon.data_dir().join("never");
    let checkpoint = larql_tests::atlas_checkpoint();
    for (change, operator) in [
        (
            format!("EXTRACT MODEL \"{}\" INTO \"{}\"", checkpoint.display(), into.display()),
            "Extract",
        ),
        (format!("MOUNT \"{}\" AS other", checkpoint.display()), "Mount"),
        ("UNMOUNT atlas".to_owned(), "Unmount"),
        ("USE \"atlas\"".to_owned(), "Use"),
        ("SET walk_k = 3".to_owned(), "Set"),
        ("RESET walk_k".to_owned(), "Reset"),
        (
            format!(
                "VERIFY VINDEX \"{}\"",
                daemon.data_dir().join("vindexes/atlas.vindex").display()
            ),
            "VerifyVindex",
        ),
    ] {
        let plan = run(&mut client, &format!("EXPLAIN {change}")).await;
        assert_eq!(operators(&plan), [operator], "{change}");
    }
    assert!(!into.exists());
    assert_eq!(texts(&run(&mut client, "SHOW MOUNTS").await, "name"), ["atlas"]);
    assert_eq!(texts(&run(&mut client, "SHOW walk_k").await, "value"), ["all"]);
}

#[tokio::test]
async fn explain_rules_and_json_show_the_same_plan() {
    let (_daemon, mut client) = start().await;
    for read in READS {
        let plan = run(&mut client, &format!("EXPLAIN (FORMAT TEXT) {read}")).await;
        let rules = run(&mut client, &format!("EXPLAIN (RULES) {read}")).await;
        let steps = texts(&rules, "rule");
        assert_eq!(steps.first().map(String::as_str), Some("bind"), "{read}");
        let last = texts(&rules, "plan").pop().expect("a step");
        let lines: Vec<&str> =
            last.lines().map(|line| line.split_whitespace().next().expect("a name")).collect();
        assert_eq!(lines, operators(&plan), "{read}: the last step is what runs");
        for (format, measured) in [("FORMAT JSON", false), ("ANALYZE, FORMAT JSON", true)] {
            let json = run(&mut client, &format!("EXPLAIN ({format}) {read}")).await;
            let json: serde_json::Value = serde_json::from_str(&texts(&json, "plan")[0])
                .unwrap_or_else(|error| panic!("{read}: {error}"));
            let mut nodes = Vec::new();
            flatten(&json["plan"], &mut nodes);
            let names: Vec<&str> =
                nodes.iter().map(|node| node["operator"].as_str().expect("a name")).collect();
            assert_eq!(names, operators(&plan), "{read}");
            assert!(
                nodes
                    .iter()
                    .all(|node| node["est_rows"].is_number() && node["est_bytes"].is_number())
            );
            assert!(
                nodes.iter().all(|node| node["rows"].is_number() == measured),
                "{read} {format}"
            );
        }
    }
}

fn flatten<'a>(node: &'a serde_json::Value, nodes: &mut Vec<&'a serde_json::Value>) {
    nodes.push(node);
    node["children"].as_array().expect("children").iter().for_each(|child| flatten(child, nodes));
}

// --- access paths --------------------------------------------------------------------------------

/// Runs `read` on two paths: the operators differ as said, the rows do not; returns the bytes of each.
async fn both_paths(client: &mut Client, switch: &str, read: &str, paths: [&str; 2]) -> [u64; 2] {
    let mut found = Vec::new();
    for (setting, path) in
        [format!("RESET {switch}"), format!("SET {switch} = off")].iter().zip(paths)
    {
        run(client, setting).await;
        let plan = operators(&run(client, &format!("EXPLAIN ANALYZE {read}")).await);
        assert!(plan.iter().any(|operator| operator == path), "{setting}: {read}: {plan:?}");
        found.push(run(client, read).await);
    }
    run(client, &format!("RESET {switch}")).await;
    assert!(!found[0].rows.is_empty(), "{read}: nothing to compare");
    assert_eq!(found[0].rows, found[1].rows, "{read}");
    [found[0].summary.bytes_touched, found[1].summary.bytes_touched]
}

#[tokio::test]
async fn without_slot_lookup_the_same_rows_come_from_a_scan_of_more_bytes() {
    let (_daemon, mut client) = start().await;
    for read in [
        "SELECT * FROM FEATURES WHERE layer = 3 AND feature = 17",
        "SELECT * FROM EDGES WHERE layer = 3 AND feature = 17",
        "SELECT target, feature FROM EDGES WHERE feature IN (1, 2, 1000) AND layer = 5",
        "SELECT layer, target FROM FEATURES WHERE feature = 9 ORDER BY target DESC LIMIT 3",
        "SHOW FEATURES 4 WHERE feature = 8",
    ] {
        let [lookup, scan] =
            both_paths(&mut client, "enable_slot_lookup", read, ["SlotLookup", "FeatureScan"])
                .await;
        assert!(lookup * 10 < scan, "{read}: {lookup} and {scan} bytes");
    }
}

#[tokio::test]
async fn without_gate_slots_the_same_rows_come_from_a_scan_of_more_bytes() {
    // Single gates answer for a layer only where K cannot bind, so the layers are small.
    let daemon = Daemon::start();
    let checkpoint = daemon.data_dir().join("tiny");
    random_checkpoint::write(&checkpoint, Size::FEW_FEATURES, 11);
    daemon.extract(&checkpoint, &daemon.data_dir().join("tiny.vindex"), "").await;
    let mut client = daemon.client().await;
    run(&mut client, "USE \"tiny\"").await;
    run(&mut client, "SET describe_z = 0").await;
    let mut compared = 0;
    for word in 3..30 {
        let entity = format!("entity = \"Word{word}\"");
        let all =
            run(&mut client, &format!("SELECT layer, feature FROM EDGES WHERE {entity}")).await;
        let Some(slot) = all.rows.first() else { continue };
        let (layer, feature) =
            (slot[0].as_integer().expect("a layer"), slot[1].as_integer().expect("a feature"));
        let read = format!(
            "SELECT * FROM EDGES WHERE {entity} AND layer = {layer} AND feature = {feature}"
        );
        let [slots, scan] =
            both_paths(&mut client, "enable_gate_slots", &read, ["GateSlots", "GateScan"]).await;
        assert!(slots < scan, "{read}: {slots} and {scan} bytes");
        compared += 1;
    }
    assert!(compared > 5, "{compared} slots were compared");
}

#[tokio::test]
async fn walking_all_features_infers_what_the_dense_network_does() {
    let (_daemon, mut client) = start().await;
    for prompt in [
        "The capital of France is",
        "The symbol for Helium is",
        "Tokyo is the capital of",
        "São Paulo",
    ] {
        let read = format!("INFER \"{prompt}\" TOP 10");
        run(&mut client, "SET ffn = dense").await;
        let dense_plan = run(&mut client, &format!("EXPLAIN (FORMAT TEXT) {read}")).await;
        let dense = run(&mut client, &read).await;
        run(&mut client, "SET ffn = walk").await;
        run(&mut client, "SET walk_k = all").await;
        let walk_plan = run(&mut client, &format!("EXPLAIN (FORMAT TEXT) {read}")).await;
        let walk = run(&mut client, &read).await;
        assert_ne!(texts(&dense_plan, "detail"), texts(&walk_plan, "detail"), "{prompt}");
        assert_eq!(cell(&dense, 0, "token_id"), cell(&walk, 0, "token_id"), "{prompt}");
        for row in &dense.rows {
            // Tokens of nearly equal probability may change places.
            let same = walk.rows.iter().find(|other| other[2] == row[2]);
            let Some(same) = same else { continue };
            let (a, b) = (
                row[3].as_number().expect("a probability"),
                same[3].as_number().expect("a probability"),
            );
            assert!((a - b).abs() <= 1e-4 * a.max(b), "{prompt}: {row:?} and {same:?}");
        }
        run(&mut client, "SET walk_k = 32").await;
        let sparse = run(&mut client, &read).await;
        assert!(
            sparse.summary.bytes_touched * 3 < dense.summary.bytes_touched * 2,
            "{prompt}: 32 of 1024 features read {} of {} bytes",
            sparse.summary.bytes_touched,
            dense.summary.bytes_touched
        );
        assert_ne!(
            sparse.rows[0][4], dense.rows[0][4],
            "{prompt}: leaving features out changes a logit"
        );
    }
}

#[tokio::test]
async fn compare_shows_the_rows_of_both_paths() {
    let (_daemon, mut client) = start().await;
    run(&mut client, "SET walk_k = 64").await;
    let read = "INFER \"The capital of France is\" TOP 4";
    let both = run(&mut client, &format!("{read} COMPARE")).await;
    assert_eq!(
        texts(&both, "ffn"),
        ["walk", "walk", "walk", "walk", "dense", "dense", "dense", "dense"]
    );
    for (ffn, rows) in [("walk", &both.rows[..4]), ("dense", &both.rows[4..])] {
        run(&mut client, &format!("SET ffn = {ffn}")).await;
        let alone = run(&mut client, read).await;
        for (row, expected) in rows.iter().zip(&alone.rows) {
            assert_eq!(&row[..expected.len()], &expected[..], "{ffn}");
        }
    }
    let plan = operators(&run(&mut client, &format!("EXPLAIN (FORMAT TEXT) {read} COMPARE")).await);
    assert_eq!(plan, ["Concatenate", "Infer", "Infer"]);
}

// --- streaming -----------------------------------------------------------------------------------

#[tokio::test]
async fn the_first_row_of_a_long_statement_comes_before_its_last_is_computed() {
    const TRIES: usize = 5;
    let daemon = Daemon::start();
    let checkpoint = daemon.data_dir().join("slow");
    random_checkpoint::write(&checkpoint, Size { layers: 8, hidden: 64, ..Size::SLOW }, 3);
    daemon.extract(&checkpoint, &daemon.data_dir().join("slow.vindex"), "").await;
    let mut client = daemon.client().await;
    run(&mut client, "USE \"slow\"").await;
    run(&mut client, "SET result_cache = off").await;
    for read in [
        "SELECT * FROM FEATURES",
        "SELECT * FROM EDGES WHERE target LIKE \"%7%\"",
        "WALK \"Word7\" TOP 4000",
        "DESCRIBE \"Word7\" ALL LAYERS STREAM",
    ] {
        run(&mut client, "SET describe_z = 0").await;
        let mut shares = Vec::new();
        for _ in 0..TRIES {
            let began = Instant::now();
            let (mut first, mut frames) = (None, 0);
            let mut statements = client.execute(read, here());
            while let Some(event) = statements.next().await {
                match event {
                    Event::Rows(_) => {
                        frames += 1;
                        first.get_or_insert_with(|| began.elapsed());
                    }
                    Event::Error(error) => panic!("{read}: {error}"),
                    _ => {}
                }
            }
            let first: Duration = first.unwrap_or_else(|| panic!("{read} has no rows"));
            assert!(frames > 1, "{read}: all rows in one frame");
            shares.push(first.as_secs_f64() / began.elapsed().as_secs_f64());
            if shares[shares.len() - 1] < 0.5 {
                break;
            }
        }
        println!("{read}: the first rows after {shares:.2?} of the whole");
        assert!(shares.iter().any(|share| *share < 0.5), "{read}: {shares:?}");
    }
}

#[tokio::test]
async fn limit_stops_the_scan_below_it() {
    let (_daemon, mut client) = start().await;
    let all = run(&mut client, "SELECT * FROM FEATURES").await;
    let few = run(&mut client, "SELECT * FROM FEATURES LIMIT 5").await;
    assert_eq!(few.rows, all.rows[..5]);
    assert!(few.summary.bytes_touched * 100 < all.summary.bytes_touched, "{:?}", few.summary);
    // A filter cannot be counted before it ran, but its scan still ends early.
    let filtered =
        run(&mut client, "SELECT * FROM FEATURES WHERE target LIKE \"%a%\" LIMIT 5").await;
    assert_eq!(filtered.rows.len(), 5);
    assert!(
        filtered.summary.bytes_touched * 4 < all.summary.bytes_touched,
        "{:?}",
        filtered.summary
    );
}

// --- what SELECT means ---------------------------------------------------------------------------

/// Every row of EDGES, computed upon by the tests themselves.
struct Edges {
    answer: Answer,
}

impl Edges {
    async fn read(client: &mut Client) -> Self {
        let answer = run(
            client,
            "SELECT entity, relation, target, layer, feature, gate_score, logit, confidence, source, z, top_tokens \
             FROM EDGES",
        )
        .await;
        assert_eq!(
            answer.rows.len(),
            6 * 1024,
            "every feature of the bundled model has output tokens"
        );
        Self { answer }
    }

    fn at(&self, column: &str) -> usize {
        self.answer.columns.iter().position(|each| each.name == column).expect("a column")
    }

    /// The rows that `keep` keeps, in order, with these columns.
    fn rows(
        &self,
        columns: &[&str],
        keep: impl Fn(&dyn Fn(&str) -> Value) -> bool,
    ) -> Vec<Vec<Value>> {
        let indexes: Vec<usize> = columns.iter().map(|column| self.at(column)).collect();
        let kept =
            self.answer.rows.iter().filter(|row| keep(&|column| row[self.at(column)].clone()));
        kept.map(|row| indexes.iter().map(|&index| row[index].clone()).collect()).collect()
    }
}

fn text(value: Value) -> Option<String> {
    value.as_text().map(str::to_owned)
}

fn number(value: Value) -> f64 {
    value.as_number().expect("a number")
}

#[tokio::test]
async fn where_keeps_the_rows_for_which_it_is_true() {
    let (_daemon, mut client) = start().await;
    let edges = Edges::read(&mut client).await;
    type Keep = fn(&dyn Fn(&str) -> Value) -> bool;
    let cases: &[(&str, Keep)] = &[
        ("layer = 3", |at| at("layer") == Value::Integer(3)),
        ("layer = 1 OR feature < 3", |at| {
            at("layer") == Value::Integer(1) || number(at("feature")) < 3.0
        }),
        ("layer >= 4 AND feature BETWEEN 10 AND 12", |at| {
            number(at("layer")) >= 4.0 && (10.0..=12.0).contains(&number(at("feature")))
        }),
        ("NOT (layer <= 4) AND NOT feature > 5", |at| {
            number(at("layer")) > 4.0 && number(at("feature")) <= 5.0
        }),
        ("layer != 2 AND layer != 3 AND feature = 7", |at| {
            !matches!(at("layer"), Value::Integer(2 | 3)) && at("feature") == Value::Integer(7)
        }),
        ("feature NOT BETWEEN 2 AND 1021", |at| !(2.0..=1021.0).contains(&number(at("feature")))),
        ("target IN (\"Paris\", \"London\", \"Gold\")", |at| {
            text(at("target"))
                .is_some_and(|target| ["Paris", "London", "Gold"].contains(&target.as_str()))
        }),
        ("target NOT IN (\"Paris\") AND layer = 5 AND feature < 40", |at| {
            text(at("target")).is_some_and(|target| target != "Paris")
                && at("layer") == Value::Integer(5)
                && number(at("feature")) < 40.0
        }),
        ("target LIKE \"Pa%\"", |at| {
            text(at("target")).is_some_and(|target| target.starts_with("Pa"))
        }),
        ("target LIKE \"_a%s\"", |at| {
            text(at("target")).is_some_and(|target| {
                let letters: Vec<char> = target.chars().collect();
                letters.len() >= 3 && letters[1] == 'a' && letters[letters.len() - 1] == 's'
            })
        }),
        ("target NOT LIKE \"%e%\" AND layer = 0", |at| {
            text(at("target")).is_some_and(|target| !target.contains('e'))
                && at("layer") == Value::Integer(0)
        }),
        ("entity IS NULL AND layer = 2", |at| {
            at("entity") == Value::Null && at("layer") == Value::Integer(2)
        }),
        ("entity IS NOT NULL", |at| at("entity") != Value::Null),
        ("relation IS NULL AND feature = 0", |at| {
            at("relation") == Value::Null && at("feature") == Value::Integer(0)
        }),
        // A comparison with NULL is neither true nor false, and NOT of it is not true either.
        ("NOT entity LIKE \"zzz\"", |at| text(at("entity")).is_some_and(|entity| entity != "zzz")),
        ("entity = target", |at| at("entity") != Value::Null && at("entity") == at("target")),
        ("logit > 0.5 OR entity IS NULL AND layer = 1", |at| {
            number(at("logit")) > 0.5
                || (at("entity") == Value::Null && at("layer") == Value::Integer(1))
        }),
        ("layer * 1000 + feature = 3017", |at| {
            number(at("layer")) * 1000.0 + number(at("feature")) == 3017.0
        }),
        ("length(target) = 1 AND layer = 4", |at| {
            text(at("target")).is_some_and(|target| target.chars().count() == 1)
                && at("layer") == Value::Integer(4)
        }),
        ("lower(target) = \"paris\"", |at| {
            text(at("target")).is_some_and(|target| target.to_lowercase() == "paris")
        }),
    ];
    for (condition, keep) in cases {
        let found = run(
            &mut client,
            &format!("SELECT layer, feature, target FROM EDGES WHERE {condition}"),
        )
        .await;
        let expected = edges.rows(&["layer", "feature", "target"], keep);
        assert!(!expected.is_empty(), "{condition} keeps nothing: the test says little");
        assert!(
            found.rows == expected,
            "{condition}: {} rows, expected {}",
            found.rows.len(),
            expected.len()
        );
    }
}

/// NULL last in either direction, numbers by size, texts by code points.
fn compare(a: &Value, b: &Value, descending: bool) -> Ordering {
    let order = match (a, b) {
        (Value::Null, Value::Null) => return Ordering::Equal,
        (Value::Null, _) => return Ordering::Greater,
        (_, Value::Null) => return Ordering::Less,
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (a, b) => a.as_number().expect("a number").total_cmp(&b.as_number().expect("a number")),
    };
    if descending { order.reverse() } else { order }
}

#[tokio::test]
async fn order_by_sorts_by_every_key_with_null_last_and_limit_cuts_after_offset() {
    let (_daemon, mut client) = start().await;
    let edges = Edges::read(&mut client).await;
    let columns = ["entity", "target", "layer", "feature", "logit"];
    for (order, keys) in [
        (
            "entity, target DESC, layer, feature",
            vec![(0, false), (1, true), (2, false), (3, false)],
        ),
        ("entity DESC, feature DESC, layer", vec![(0, true), (3, true), (2, false)]),
        ("layer DESC, logit, feature", vec![(2, true), (4, false), (3, false)]),
        ("logit DESC", vec![(4, true)]),
        ("3 DESC, 2, 4", vec![(2, true), (1, false), (3, false)]),
    ] {
        let mut expected = edges.rows(&columns, |_| true);
        // Rows with equal keys stay in the order of the table.
        expected.sort_by(|a, b| {
            let by_key = keys.iter().map(|&(at, descending)| compare(&a[at], &b[at], descending));
            by_key.fold(Ordering::Equal, Ordering::then)
        });
        let select = format!("SELECT {} FROM EDGES ORDER BY {order}", columns.join(", "));
        let found = run(&mut client, &select).await;
        assert!(found.rows == expected, "{order}");
        for (limit, offset) in [(1, 0), (10, 3), (300, 5000), (50, 6120), (5, 7000)] {
            let found = run(&mut client, &format!("{select} LIMIT {limit} OFFSET {offset}")).await;
            let cut: Vec<_> = expected.iter().skip(offset).take(limit).cloned().collect();
            assert!(found.rows == cut, "{order} LIMIT {limit} OFFSET {offset}");
        }
    }
    let unsorted = run(&mut client, "SELECT layer, feature FROM EDGES LIMIT 7 OFFSET 1020").await;
    assert_eq!(unsorted.rows, edges.rows(&["layer", "feature"], |_| true)[1020..1027]);
    assert_eq!(run(&mut client, "SELECT layer FROM EDGES LIMIT 0").await.rows.len(), 0);
}

#[tokio::test]
async fn distinct_gives_each_row_once_and_aliases_name_columns() {
    let (_daemon, mut client) = start().await;
    let edges = Edges::read(&mut client).await;
    let mut seen = HashSet::new();
    let mut expected = edges.rows(&["target"], |at| number(at("layer")) < 2.0);
    expected.retain(|row| seen.insert(text(row[0].clone())));
    let found = run(&mut client, "SELECT DISTINCT target FROM EDGES WHERE layer < 2").await;
    assert_eq!(found.rows, expected);
    expected.sort_by(|a, b| compare(&a[0], &b[0], true));
    let sorted = "SELECT DISTINCT target AS word FROM EDGES AS e WHERE e.layer < 2 ORDER BY word DESC LIMIT 20";
    let found = run(&mut client, sorted).await;
    assert_eq!(found.rows, expected[..20]);
    assert_eq!(found.columns[0].name, "word");
    let found = run(
        &mut client,
        "SELECT e.layer * 2 AS twice, upper(target) AS loud FROM EDGES AS e WHERE layer = 5 LIMIT 3",
    )
    .await;
    let names: Vec<&str> = found.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["twice", "loud"]);
    for (row, expected) in
        found.rows.iter().zip(edges.rows(&["target"], |at| at("layer") == Value::Integer(5)))
    {
        assert_eq!(row[0].as_number(), Some(10.0));
        assert_eq!(
            text(row[1].clone()),
            text(expected[0].clone()).map(|target| target.to_uppercase())
        );
    }
}

#[tokio::test]
async fn the_star_of_each_table_has_the_documented_columns() {
    let (_daemon, mut client) = start().await;
    for (table, expected) in [
        ("EDGES", "entity relation target layer feature gate_score logit confidence source"),
        ("FEATURES", "layer feature entity relation target logit top_tokens"),
        ("ENTITIES", "entity count max_logit"),
    ] {
        let found = run(&mut client, &format!("SELECT * FROM {table} LIMIT 1")).await;
        let names: Vec<&str> = found.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names.join(" "), expected, "{table}");
        assert_eq!(found.rows.len(), 1);
    }
}

#[tokio::test]
async fn nearest_gives_the_features_of_a_layer_by_magnitude_of_their_score() {
    let (_daemon, mut client) = start().await;
    // WALK of one token shows every score of a layer; so does an entity of one token.
    let entity = "Paris";
    let nearest =
        "SELECT layer, feature, gate_score, entity FROM EDGES NEAREST TO \"Paris\" AT LAYER 3";
    let all = run(&mut client, &format!("{nearest} LIMIT 1024")).await;
    assert_eq!(all.rows.len(), 1024);
    let magnitude = |row: &Vec<Value>| row[2].as_number().expect("a score").abs();
    assert!(all.rows.windows(2).all(|pair| magnitude(&pair[0]) >= magnitude(&pair[1])));
    assert!(
        all.rows.iter().all(|row| row[0] == Value::Integer(3) && row[3].as_text() == Some(entity))
    );
    let features: HashSet<i64> =
        all.rows.iter().map(|row| row[1].as_integer().expect("a feature")).collect();
    assert_eq!(features.len(), 1024, "a feature comes once");
    assert_eq!(run(&mut client, nearest).await.rows, all.rows[..20], "20 without LIMIT");
    assert_eq!(run(&mut client, &format!("{nearest} LIMIT 4")).await.rows, all.rows[..4]);
    // WHERE chooses among the features before they are counted, ORDER BY sorts what is left.
    let positive: Vec<_> = all
        .rows
        .iter()
        .filter(|row| row[2].as_number().is_some_and(|score| score > 0.0))
        .take(6)
        .cloned()
        .collect();
    let filtered = "SELECT layer, feature, gate_score, entity FROM EDGES NEAREST TO \"Paris\" AT LAYER 3 \
                    WHERE gate_score > 0";
    let filtered = run(&mut client, &format!("{filtered} LIMIT 6")).await;
    assert_eq!(filtered.rows, positive);
    let mut sorted = all.rows[..5].to_vec();
    sorted.sort_by_key(|row| row[1].as_integer());
    assert_eq!(run(&mut client, &format!("{nearest} ORDER BY feature LIMIT 5")).await.rows, sorted);
}

#[tokio::test]
async fn entities_are_the_capitalised_targets_with_their_count_and_best_logit() {
    let (_daemon, mut client) = start().await;
    let edges = Edges::read(&mut client).await;
    let mut expected: Vec<(String, i64, f64)> = Vec::new();
    for row in edges.rows(&["target", "logit"], |_| true) {
        let target = text(row[0].clone()).expect("a target");
        // The content words of the bundled vocabulary are those with a letter.
        let is_entity =
            target.chars().next().is_some_and(char::is_uppercase) && !target.contains('\u{fffd}');
        let logit = number(row[1].clone());
        match expected.iter_mut().find(|(name, ..)| *name == target) {
            _ if !is_entity => {}
            Some((_, count, best)) => (*count, *best) = (*count + 1, best.max(logit)),
            None => expected.push((target, 1, logit)),
        }
    }
    let found =
        run(&mut client, "SELECT entity, count, max_logit FROM ENTITIES ORDER BY entity").await;
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    let found: Vec<(String, i64, f64)> = found
        .rows
        .iter()
        .map(|row| {
            let count = row[1].as_integer().expect("a count");
            (text(row[0].clone()).expect("an entity"), count, number(row[2].clone()))
        })
        .collect();
    assert!(found.len() > 100, "{} entities", found.len());
    assert_eq!(found, expected);
}

#[tokio::test]
async fn tokens_beyond_ascii_are_shown_searched_and_compared() {
    let daemon = Daemon::start();
    let checkpoint = daemon.data_dir().join("tiny");
    random_checkpoint::write(&checkpoint, Size::FEW_FEATURES, 2);
    daemon.extract(&checkpoint, &daemon.data_dir().join("tiny.vindex"), "").await;
    let mut client = daemon.client().await;
    run(&mut client, "USE \"tiny\"").await;
    let targets = texts(&run(&mut client, "SELECT target FROM EDGES").await, "target");
    for (beginning, other) in [("Größe", "größe"), ("東京", "東京")] {
        let expected: Vec<&String> =
            targets.iter().filter(|target| target.starts_with(beginning)).collect();
        let target =
            *expected.first().unwrap_or_else(|| panic!("no {beginning} among {targets:?}"));
        let like = run(
            &mut client,
            &format!("SELECT target FROM EDGES WHERE target LIKE \"{beginning}%\""),
        )
        .await;
        assert_eq!(texts(&like, "target").iter().collect::<Vec<_>>(), expected);
        let read =
            format!("SELECT target, length(target) AS n FROM EDGES WHERE target = \"{target}\"");
        let equal = run(&mut client, &read).await;
        assert_eq!(text(equal.rows[0][0].clone()).as_ref(), Some(target));
        assert_eq!(equal.rows[0][1].as_integer(), Some(target.chars().count() as i64));
        let folded = format!("SELECT target FROM EDGES WHERE lower(target) LIKE \"{other}%\"");
        assert_eq!(run(&mut client, &folded).await.rows, like.rows);
        // An entity in its own script has hits, and the edges to words of any script are kept.
        run(&mut client, "SET describe_z = 0").await;
        let described = run(&mut client, &format!("DESCRIBE \"{target}\" ALL LAYERS")).await;
        assert!(!described.rows.is_empty());
        let own = run(&mut client, "DESCRIBE \"Word7\" ALL LAYERS LIMIT 1000").await;
        let shown = texts(&own, "target").iter().any(|target| target.starts_with(beginning));
        assert!(shown, "DESCRIBE shows no {beginning}: {:?}", texts(&own, "target"));
    }
}

#[tokio::test]
async fn conditions_that_do_not_fit_are_refused_with_their_place() {
    let (_daemon, mut client) = start().await;
    for (statement, code, place) in [
        ("SELECT nothing FROM EDGES", "42703", "nothing"),
        ("SELECT * FROM EDGE", "42P01", "EDGE"),
        ("SELECT * FROM EDGES WHERE layer = \"three\"", "42804", "layer = \"three\""),
        ("SELECT * FROM EDGES WHERE layer", "42804", "layer"),
        ("SELECT * FROM EDGES WHERE shout(target) = \"x\"", "42883", "shout(target)"),
        ("SELECT * FROM EDGES ORDER BY 40", "42601", "40"),
    ] {
        let error = client.query(statement, here()).await.expect_err(statement);
        assert_eq!(error.code, code, "{statement}: {error}");
        let position = error.position.expect("a position");
        let (from, to) = (position.offset as usize, (position.offset + position.length) as usize);
        assert_eq!(&statement[from..to], place, "{statement}: {error}");
        assert!(!error.hint.is_empty() || code == "42804", "{statement}: no hint");
    }
}
