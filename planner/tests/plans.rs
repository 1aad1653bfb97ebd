//! Golden plans: every file of testscripts/ is input, `---`, output; blocks are separated by `====`.
//!
//! Each statement of the input is planned against a fake catalog, one after another; USE, SET and
//! RESET act on those that follow. The output is the plan, what EXPLAIN would answer, or the error.
//! `UPDATE=1 cargo test -p larql-planner --test plans` rewrites the outputs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

mod fake;

use fake::FakeCatalog;
use larql_planner::explain::{self, Measured, MeasuredPart, Measurements};
use larql_planner::physical::plan::{Node, Operator};
use larql_planner::syntax::{Span, parse_script};
use larql_planner::value::Value;
use larql_planner::{PlanError, Planned, Role, logical, physical, plan};

fn show(text: &str, span: Span, planned: &Result<Planned, PlanError>) -> String {
    let mut out = String::new();
    let planned = match planned {
        Ok(planned) => planned,
        Err(error) => {
            let place = match error.span() {
                Some(place) => {
                    let offset = place.start as usize;
                    let written = &text[offset..place.end as usize];
                    format!(" at {} `{written}`", offset - span.start as usize)
                }
                None => String::new(),
            };
            writeln!(out, "ERROR {}{place}: {error}", error.code()).unwrap();
            if let Some(hint) = error.hint() {
                writeln!(out, "HINT {hint}").unwrap();
            }
            return out;
        }
    };
    if let Operator::Explain(request) = &planned.physical.operator {
        for row in explain::rows(request, &planned.physical.children[0], None) {
            let cells: Vec<String> = row
                .iter()
                .map(|cell| match cell {
                    Value::Text(text) => text.replace('\n', "\n    "),
                    other => other.to_string(),
                })
                .collect();
            writeln!(out, "{}", cells.join(" | ")).unwrap();
        }
        return out;
    }
    let columns: Vec<String> =
        planned.columns.iter().map(|column| format!("{} {}", column.name, column.kind)).collect();
    writeln!(out, "{}, {:?} ({})", planned.tag, planned.required_role, columns.join(", ")).unwrap();
    out.push_str(&explain::tree(&planned.physical));
    out
}

fn answer(input: &str) -> String {
    let mut catalog = FakeCatalog::default();
    let mut out = String::new();
    let statements = match parse_script(input) {
        Ok(statements) => statements,
        Err(error) => return format!("ERROR {}: {error}\n", error.code),
    };
    let several = statements.len() > 1;
    for spanned in statements {
        let planned = plan(&spanned, &catalog);
        if several {
            writeln!(out, "> {}", spanned.statement).unwrap();
        }
        out.push_str(&show(input, spanned.span, &planned));
        if let Ok(planned) = &planned {
            catalog.run(planned);
        }
    }
    out
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts");
    let mut scripts: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    scripts
}

#[test]
fn plans_are_as_the_scripts_say() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    let mut blocks = 0;
    for path in scripts() {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut rewritten = Vec::new();
        for block in text.split("====\n") {
            let (input, expected) = block.split_once("---\n").unwrap_or((block, ""));
            let found = answer(input);
            if found.trim_end() != expected.trim_end() && !update {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                wrong.push(format!("{name}:\n{input}expected:\n{expected}found:\n{found}"));
            }
            rewritten.push(format!("{}\n---\n{}\n", input.trim_end(), found.trim_end()));
            blocks += 1;
        }
        if update {
            std::fs::write(&path, rewritten.join("====\n")).unwrap();
        }
    }
    assert!(blocks > 0, "testscripts/ holds no script");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_a_script_that_shows_it_at_work() {
    let all: String = scripts().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let rules = logical::rules::names().chain(physical::rules::names());
    for rule in rules {
        let step = format!(" | {rule} | ");
        assert!(all.contains(&step), "no script shows {rule}");
    }
}

const SUPPORTED: &[&str] = &[
    "USE 'atlas'",
    "USE CURRENT",
    "USE './x'",
    "USE MODEL 'models/x'",
    "MOUNT 'x' AS y",
    "UNMOUNT atlas",
    "EXTRACT MODEL 'a' INTO 'b' COMPONENTS FFN_GATE LAYERS 1-2 WITH ALL DTYPE F32 OVERWRITE RESUME",
    "VERIFY VINDEX 'x'",
    "SET walk_k = 5",
    "RESET walk_k",
    "SHOW walk_k",
    "SHOW ALL",
    "SHOW MODELS",
    "SHOW MOUNTS",
    "SHOW SESSIONS",
    "SHOW INDEXES",
    "CREATE INDEX t ON TARGETS",
    "DROP INDEX t",
    "CREATE INDEX g ON GATES USING sketch",
    "SELECT target FROM EDGES WHERE entity = 'France' APPROX",
    "ANALYZE",
    "SELECT hits FROM larql.caches",
    "SELECT name, bytes FROM larql.tables",
    "KILL 7",
    "SELECT name FROM larql.mounts WHERE in_use",
    "SELECT s.id, t.statement FROM larql.sessions AS s JOIN larql.statements AS t ON t.session = s.id",
    "SELECT * FROM larql.settings ORDER BY name LIMIT 2",
    "SELECT relation FROM LARQL.Relations WHERE count > 1",
    "SHOW LAYERS 1-3",
    "SHOW FEATURES 3 WHERE logit > 1 LIMIT 5",
    "SHOW ENTITIES AT LAYER 2 LIMIT 7",
    "SHOW RELATIONS WITH EXAMPLES BRIEF",
    "STATS",
    "STATS 'atlas'",
    "DESCRIBE 'France' ALL LAYERS BRIEF RELATIONS ONLY STREAM LIMIT 3",
    "WALK 'The capital of France is' TOP 3 LAYERS 2-5",
    "WALK 'x' MODE PURE",
    "WALK 'x' MODE DENSE TOP 2",
    "WALK 'x' COMPARE",
    "INFER 'x' TOP 3",
    "INFER 'x' COMPARE",
    "EXPLAIN WALK 'x' KNOWLEDGE RELATIONS ONLY",
    "EXPLAIN INFER 'x' TOP 2 LAYERS 1-4 VERBOSE",
    "EXPLAIN INFER 'x' WITH ATTENTION RELATIONS ONLY",
    "TRACE 'x' FOR 'y' DECOMPOSE LAYERS 1-4 POSITIONS ALL SAVE 'x.ctxt'",
    "TRACE 'x' DIFF 'y'",
    "GENERATE 'x' MAX 5 TEMPERATURE 0.5 TOP_K 3 TOP_P 0.9 SEED 7 STOP 'y'",
    "TRACE OPEN 'x.trace'",
    "SELECT * FROM EDGES WHERE entity = 'France' AND layer > 3 ORDER BY gate_score DESC LIMIT 5",
    "SELECT DISTINCT target FROM FEATURES WHERE target LIKE 'P%' ORDER BY target LIMIT 3 OFFSET 1",
    "SELECT entity, count AS n FROM ENTITIES WHERE max_logit > 2",
    "SELECT 1 + 1 AS two",
    "SELECT layer, count(*) FROM EDGES GROUP BY layer HAVING count(*) > 1",
    "SELECT f.object FROM (SELECT * FROM facts) AS f JOIN EDGES AS e ON f.object = e.target",
    "DESCRIBE 'France' |> SELECT target WHERE layer > 3 |> DESCRIBE $target",
    "PREPARE p AS DESCRIBE $1",
    "SELECT target, gate_score FROM EDGES NEAREST TO 'France' AT LAYER 4 WHERE logit > 1 LIMIT 5",
];

#[test]
fn explain_answers_a_plan_for_every_statement_that_is_served() {
    let catalog = FakeCatalog::default();
    for text in SUPPORTED {
        for explain in ["EXPLAIN (FORMAT TEXT)", "EXPLAIN (FORMAT JSON)", "EXPLAIN (RULES)"] {
            let planned = catalog
                .plan(&format!("{explain} {text}"))
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            let Operator::Explain(request) = &planned.physical.operator else {
                panic!("{text} is not explained")
            };
            let rows = explain::rows(request, &planned.physical.children[0], None);
            assert!(!rows.is_empty(), "{text}");
            assert!(rows.iter().all(|row| row.len() == planned.columns.len()), "{text}");
        }
    }
}

#[test]
fn node_ids_are_unique_and_children_name_their_parents() {
    let catalog = FakeCatalog::default();
    for text in SUPPORTED {
        let planned = catalog.plan(&format!("EXPLAIN (FORMAT TEXT) {text}")).unwrap();
        let mut next = 0;
        planned.physical.visit(&mut |node: &Node, parent| {
            assert_eq!(node.id, next, "{text}");
            assert!(parent.is_none_or(|parent| parent < node.id), "{text}");
            next += 1;
        });
    }
}

#[test]
fn estimates_are_finite_and_a_scan_of_fewer_layers_reads_less() {
    let catalog = FakeCatalog::default();
    let bytes = |text: &str| {
        let mut bytes = 0.0;
        catalog.plan(text).unwrap().physical.visit(&mut |node, _| {
            assert!(node.estimate.rows.is_finite() && node.estimate.ms.is_finite(), "{text}");
            bytes += node.estimate.bytes;
        });
        bytes
    };
    SUPPORTED.iter().for_each(|text| assert!(bytes(text) >= 0.0));
    let all = bytes("SELECT target FROM FEATURES");
    assert_eq!(bytes("SELECT target FROM FEATURES WHERE layer < 4"), all / 2.0);
    assert!(bytes("SELECT target FROM FEATURES WHERE layer = 4 AND feature = 9") < all / 1000.0);
    assert!(bytes("SELECT target FROM FEATURES LIMIT 1") < all / 1000.0);
    let layer = bytes("DESCRIBE 'x' AT LAYER 3");
    assert!(layer * 2.0 < bytes("DESCRIBE 'x' ALL LAYERS"));
}

#[test]
fn a_disabled_access_path_changes_the_plan_and_not_the_columns() {
    let mut catalog = FakeCatalog::default();
    let text = "SELECT target, logit FROM FEATURES WHERE layer = 3 AND feature IN (5, 7)";
    let with = catalog.plan(text).unwrap();
    let off = catalog.plan("SET enable_slot_lookup = off").unwrap();
    catalog.run(&off);
    let without = catalog.plan(text).unwrap();
    assert_ne!(explain::tree(&with.physical), explain::tree(&without.physical));
    assert_eq!(with.columns, without.columns);
}

#[test]
fn measured_numbers_stand_beside_the_estimates() {
    let catalog = FakeCatalog::default();
    let planned = catalog.plan("EXPLAIN ANALYZE SHOW MOUNTS").unwrap();
    let Operator::Explain(request) = &planned.physical.operator else { panic!("not explained") };
    assert!(request.analyze);
    let child = &planned.physical.children[0];
    let inner = MeasuredPart { operator: "Attention", bytes: 30, ms: 0.1, ..Default::default() };
    let part = MeasuredPart {
        operator: "Layer",
        detail: "4".to_owned(),
        bytes: 60,
        ms: 0.3,
        parts: vec![inner],
    };
    let mut measured = Measurements::new(1.4e6);
    measured.insert(child.id, Measured { rows: 3, bytes: 70, ms: 0.1, parts: vec![part] });
    let rows = explain::rows(request, child, Some(&measured));
    assert_eq!(rows[0][7..], [Value::Integer(3), Value::Integer(70), Value::Real(0.1)]);
    // How fast, and how near to what the machine can do: 70 bytes in 0.1 ms of 1.4 MB a second.
    assert_eq!(rows[0][3], Value::text("0.00 GB/s, 50 % of bandwidth"));
    // What it went to: rows of their own below it.
    assert_eq!(rows.len(), 3);
    let id = |row: usize| rows[row][0].clone();
    assert_eq!((&rows[1][1], &rows[2][1]), (&id(0), &id(1)));
    assert_eq!((&rows[1][2], &rows[2][2]), (&Value::text("Layer"), &Value::text("Attention")));
    assert_eq!(rows[1][8..], [Value::Integer(60), Value::Real(0.3)]);
    let rows = explain::rows(request, child, None);
    assert!(rows[0][7..].iter().all(Value::is_null));
}

#[test]
fn inference_and_paths_ask_for_more_than_a_reader() {
    let catalog = FakeCatalog::default();
    for (text, role) in [
        ("DESCRIBE 'x'", Role::Reader),
        ("USE 'atlas'", Role::Reader),
        ("EXPLAIN WALK 'x'", Role::Reader),
        ("WALK 'x'", Role::Reader),
        ("WALK 'x' MODE DENSE", Role::Infer),
        ("WALK 'x' COMPARE", Role::Infer),
        ("INFER 'x'", Role::Infer),
        ("EXPLAIN INFER 'x'", Role::Infer),
        ("TRACE 'x' FOR 'y'", Role::Infer),
        ("GENERATE 'x'", Role::Infer),
        ("TRACE 'x' POSITIONS ALL SAVE 'y'", Role::Admin),
        ("TRACE OPEN 'y'", Role::Admin),
        ("EXPLAIN ANALYZE INFER 'x'", Role::Infer),
        ("SHOW SESSIONS", Role::Reader),
        ("KILL 7", Role::Admin),
        ("SHOW INDEXES", Role::Reader),
        ("ANALYZE", Role::Admin),
        ("CREATE INDEX t ON LABELS", Role::Admin),
        ("DROP INDEX t", Role::Admin),
        ("USE './path'", Role::Admin),
        ("USE MODEL 'path'", Role::Admin),
        ("EXPLAIN ANALYZE EXTRACT MODEL 'a' INTO 'b'", Role::Admin),
        ("VERIFY VINDEX 'path'", Role::Admin),
    ] {
        assert_eq!(catalog.plan(text).unwrap().required_role, role, "{text}");
    }
}

#[test]
fn without_a_mount_every_reading_statement_says_to_use_one() {
    let catalog = FakeCatalog { current: None, ..FakeCatalog::default() };
    for text in ["DESCRIBE 'x'", "SELECT * FROM EDGES", "INFER 'x'", "STATS", "USE CURRENT"] {
        let error = catalog.plan(text).unwrap_err();
        assert_eq!(error.code(), "3F000", "{text}: {error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("USE")), "{text}");
    }
}

#[test]
fn the_deepest_expression_binds_on_a_small_stack() {
    let run = || {
        let catalog = FakeCatalog::default();
        let depth = 120;
        let nots = "NOT ".repeat(depth);
        catalog.plan(&format!("SELECT * FROM EDGES WHERE {nots}layer = 1")).expect("it binds");
        let (open, close) = ("1 - (".repeat(depth), ")".repeat(depth));
        let planned = catalog.plan(&format!("SELECT {open}layer{close} AS x FROM EDGES")).unwrap();
        assert!(!explain::tree(&planned.physical).is_empty());
        let between = "(layer BETWEEN 1 AND 2) AND NOT (".repeat(40);
        let text = format!("SELECT * FROM EDGES WHERE {between}feature = 1{}", ")".repeat(40));
        catalog.plan(&text).expect("it binds");
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).expect("a thread");
    thread.join().expect("no overflow and no panic");
}
