//! Statements that mean harm: too long, too deep, too many, out of range, misleading characters.
//! Each is refused quickly, with a code, a place and words; none panics or exhausts the stack.

mod fake;

use std::time::{Duration, Instant};

use fake::FakeCatalog;
use larql_planner::syntax::lexer::{LEXEMES_MAX, SCRIPT_BYTES_MAX};
use larql_planner::syntax::parser::{NESTING_MAX, STATEMENT_LEVELS, STATEMENTS_MAX};
use larql_planner::syntax::{SyntaxError, parse_script, parse_statement};

/// Far more than a refusal takes, far less than work in proportion to the harm would.
const SOON: Duration = Duration::from_secs(5);

fn refused(text: &str) -> SyntaxError {
    let started = Instant::now();
    let error = parse_script(text).expect_err(&text[..text.len().min(80)]);
    assert!(started.elapsed() < SOON, "refused after {:?}", started.elapsed());
    error
}

/// Runs on a stack as small as any thread has.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).expect("a thread");
    thread.join().expect("no overflow and no panic");
}

#[test]
fn a_ten_megabyte_statement_is_refused_as_too_long() {
    let text = format!("DESCRIBE \"{}\"", "a".repeat(10 << 20));
    assert_eq!(refused(&text).code, "54000");
}

#[test]
fn a_script_of_exactly_the_limit_is_read() {
    let head = "STATS -- ";
    let text = format!("{head}{}", "a".repeat(SCRIPT_BYTES_MAX - head.len()));
    assert_eq!(parse_script(&text).map(|statements| statements.len()), Ok(1));
}

#[test]
fn nesting_bombs_are_refused_on_a_small_stack() {
    on_a_small_stack(|| {
        for (open, close) in [
            ("(", ")"),
            ("NOT ", ""),
            ("- ", ""),
            ("+ ", ""),
            ("abs(", ")"),
            ("1 IN (", ")"),
            ("1 + (2 * ", ")"),
        ] {
            let many = 20_000;
            let bomb = format!("{}1{}", open.repeat(many), close.repeat(many));
            let error = refused(&format!("SELECT * FROM EDGES WHERE {bomb}"));
            assert_eq!(error.code, "54000", "{open}: {error}");
        }
        for bomb in ["EXPLAIN ", "PREPARE p AS ", "COPY (", "EXPLAIN (RULES) "] {
            let error = refused(&bomb.repeat(20_000));
            assert_eq!(error.code, "54000", "{bomb}: {error}");
        }
        let error = refused(&"SELECT * FROM (".repeat(20_000));
        assert_eq!(error.code, "54000", "{error}");
    });
}

#[test]
fn the_deepest_allowed_nesting_parses_prints_and_drops_on_a_small_stack() {
    on_a_small_stack(|| {
        let depth = usize::from(NESTING_MAX) - 1;
        let text = format!("SELECT {}1{} FROM EDGES", "1 - (".repeat(depth), ")".repeat(depth));
        let statement = parse_statement(&text).expect("within the limit");
        // The innermost parentheses hold a number alone, so they are not printed.
        assert_eq!(statement.to_string().matches('(').count(), depth - 1);
        let text = format!("SELECT * FROM EDGES WHERE {}layer = 1", "NOT ".repeat(depth - 1));
        assert!(parse_statement(&text).is_ok());
        let depth = usize::from(NESTING_MAX / STATEMENT_LEVELS);
        let text = format!("{}EDGES{}", "SELECT * FROM (".repeat(depth), ")".repeat(depth));
        let text = text.replacen("EDGES", "SELECT * FROM EDGES", 1);
        assert!(parse_statement(&text).is_ok());
    });
}

#[test]
fn a_list_of_a_million_terms_is_refused_as_too_many() {
    let list = vec!["1"; 1_000_000].join(",");
    let error = refused(&format!("SELECT * FROM EDGES WHERE layer IN ({list})"));
    assert_eq!(error.code, "54000");
}

#[test]
fn a_list_within_the_limit_is_read_quickly() {
    let list = vec!["1"; LEXEMES_MAX / 2 - 20].join(",");
    let started = Instant::now();
    parse_statement(&format!("SELECT * FROM EDGES WHERE layer IN ({list})")).expect("allowed");
    assert!(started.elapsed() < SOON);
}

#[test]
fn long_chains_without_parentheses_need_no_stack() {
    on_a_small_stack(|| {
        for word in [" AND ", " OR ", " + "] {
            let chain = vec!["1"; 30_000].join(word);
            let text = format!("SELECT {chain} FROM EDGES");
            let statement = parse_statement(&text).expect("flat, so allowed");
            assert_eq!(statement.to_string(), text);
        }
        let stages = vec!["STATS"; 30_000].join(" |> ");
        assert!(parse_statement(&stages).is_ok());
    });
}

#[test]
fn a_script_of_too_many_statements_is_refused() {
    let error = refused(&"STATS;".repeat(STATEMENTS_MAX + 1));
    assert_eq!(error.code, "54000");
    assert_eq!(error.span.start as usize, 6 * STATEMENTS_MAX);
    let empty = ";".repeat(1 << 20);
    assert_eq!(parse_script(&empty).map(|statements| statements.len()), Ok(0));
}

#[test]
fn numbers_out_of_range_are_refused_with_their_place() {
    for (text, number, code) in [
        ("SELECT * FROM EDGES LIMIT -1", "-1", "22003"),
        ("SELECT * FROM EDGES LIMIT 9223372036854775808", "9223372036854775808", "22003"),
        ("WALK 'x' TOP 0", "0", "22023"),
        ("WALK 'x' TOP 9223372036854775808", "9223372036854775808", "22003"),
        ("INFER 'x' TOP 99999999999999999999999", "99999999999999999999999", "22003"),
        ("DESCRIBE 'x' AT LAYER -1", "-1", "22003"),
        ("DESCRIBE 'x' AT LAYER 4294967296", "4294967296", "22003"),
        ("SHOW FEATURES -0", "-0", "22003"),
        ("WALK 'x' LAYERS 9-3", "9-3", "22023"),
        ("SELECT * FROM EDGES WHERE layer = 9223372036854775808", "9223372036854775808", "22003"),
        ("SELECT * FROM EDGES WHERE logit > 1e999", "1e999", "22003"),
        ("GENERATE 'x' MAX -5", "-5", "22003"),
        ("GENERATE 'x' TEMPERATURE 1e400", "1e400", "22003"),
        ("DESCRIBE $0", "$0", "22023"),
    ] {
        let error = refused(text);
        let place = &text[error.span.start as usize..error.span.end as usize];
        assert_eq!((place, error.code), (number, code), "{text}: {error}");
    }
}

#[test]
fn exponents_and_signs_are_read_wherever_a_number_may_stand() {
    for text in [
        "SELECT * FROM EDGES WHERE logit > -1.5e-3",
        "INSERT INTO EDGES (entity, relation, target) VALUES ('a', 'b', 'c') ALPHA -1e-2 CONFIDENCE +0.5",
        "SET describe_z = -2.5E+1",
        "REBALANCE FLOOR = 3e-1 CEILING 9e-1",
    ] {
        parse_statement(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn characters_that_mislead_the_eye_are_refused_by_name() {
    for (text, words) in [
        ("SELECT * FROM EDGES\u{202E} WHERE layer = 1", "right-to-left override"),
        ("SELECT * FROM EDGES WHERE lay\u{200B}er = 1", "zero width space"),
        ("\u{0405}ELECT * FROM EDGES", "U+0405"),
        ("\u{FEFF}STATS", "byte order mark"),
    ] {
        let error = refused(text);
        assert!(error.message.contains(words), "{error}");
        assert!(error.hint.is_some(), "{error}");
    }
    parse_statement("DESCRIBE \"日本 \u{202E}\"").expect("strings hold any character");
}

#[test]
fn a_misspelt_word_is_answered_with_the_word_that_was_meant() {
    for (text, hint) in [
        ("SELCT * FROM EDGES", "SELECT"),
        ("DESCRIBE 'x' VERBSE", "VERBOSE"),
        ("WALK 'x' TPO 5", "TOP"),
        ("SELECT * FORM EDGES", "FROM"),
        ("SELECT * FROM EDGES WERE layer = 1", "WHERE"),
        ("SELECT * FROM EDGES ODER BY layer", "ORDER"),
        ("EXTRACT MODEL 'a' INTO 'b' WITH INFERNCE", "INFERENCE"),
        ("SELECT * FROM EDGES WHERE layer = 1 ADN feature = 2", "AND"),
        ("DELETE FROM EGDES WHERE layer = 1", "EDGES"),
    ] {
        let error = refused(text);
        assert_eq!(error.code, "42601");
        assert_eq!(error.hint, Some(format!("did you mean {hint}?")), "{text}: {error}");
    }
}

#[test]
fn an_error_says_what_was_expected_what_was_found_and_where() {
    let text = "USE 'atlas';\nSELECT target FROM EDGES\n  LIMIT many";
    let error = refused(text);
    assert_eq!(error.message, "expected a whole number, found `many`");
    assert_eq!(error.span.line_and_column(text), (3, 9));
    let error = refused("DESCRIBE");
    assert_eq!(error.message, "expected a string, found the end of the statement");
    let error = refused("SELECT * FROM EDGES WHERE layer = 1 = 2");
    assert!(error.message.ends_with("found `=`"), "{error}");
}

#[test]
fn keywords_are_usable_as_names() {
    for text in [
        "SELECT source, limit AS order FROM EDGES AS select WHERE select.from = 'x' ORDER BY by DESC",
        "MOUNT 'x' AS as",
        "UNMOUNT unmount",
        "SELECT layer AS of FROM edges AS of AS OF LSN 7",
        "SET model = on",
        "select TARGET from Edges wHeRe target LIKE 'P%'",
    ] {
        parse_statement(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn plans_of_many_stages_joins_or_sub_queries_are_bounded_and_need_little_stack() {
    on_a_small_stack(|| {
        let catalog = FakeCatalog::default();
        let started = Instant::now();
        for (first, next, count) in [
            ("SELECT layer AS x FROM FEATURES", " |> SELECT x WHERE x < 9", 63),
            (
                "SELECT entity AS x FROM facts",
                " |> SELECT object AS x FROM facts WHERE entity = $x",
                63,
            ),
            ("SELECT count(*) FROM facts AS a", " JOIN facts AS b# ON b#.entity = a.entity", 16),
        ] {
            let statement = |count: usize| {
                let others = (0..count).map(|at| next.replace('#', &at.to_string()));
                std::iter::once(first.to_owned()).chain(others).collect::<String>()
            };
            catalog.plan(&statement(count)).unwrap_or_else(|error| panic!("{next}: {error}"));
            for too_many in [count + 1, 1_000] {
                let error = catalog.plan(&statement(too_many)).expect_err(next);
                assert_eq!(error.code(), "54000", "{next}: {error}");
            }
        }
        let depth = usize::from(NESTING_MAX / STATEMENT_LEVELS);
        let (open, close) = ("SELECT x FROM (".repeat(depth), ")".repeat(depth));
        let text = format!("{open}SELECT layer AS x FROM FEATURES{close} WHERE x > 3");
        catalog.plan(&text).expect("it binds");
        assert!(started.elapsed() < SOON, "planned after {:?}", started.elapsed());
    });
}

#[test]
fn long_lists_bind_in_time_that_grows_with_their_length() {
    let catalog = FakeCatalog::default();
    let started = Instant::now();
    let numbers = vec!["7"; LEXEMES_MAX / 2 - 20].join(",");
    catalog.plan(&format!("SELECT * FROM EDGES WHERE layer IN ({numbers})")).expect("allowed");
    let list = |count: usize| (0..count).map(|n| format!("{n}")).collect::<Vec<_>>();
    let items = list(1_500).join(",");
    catalog.plan(&format!("SELECT {items} FROM EDGES ORDER BY {items}")).expect_err("no column 0");
    let keys = list(1_500).join("+layer,");
    catalog.plan(&format!("SELECT {keys} FROM EDGES GROUP BY {keys}")).expect("allowed");
    let sums = list(1_500).join("+layer)+sum(");
    catalog.plan(&format!("SELECT sum({sums}) FROM EDGES GROUP BY target")).expect("allowed");
    for (open, count) in
        [("", 20_000), ("1 FROM EDGES GROUP BY ", 20_000), ("1 FROM EDGES ORDER BY ", 20_000)]
    {
        let text = format!("SELECT {open}{}", vec!["layer+1"; count].join(","));
        let text = if open.is_empty() { format!("{text} FROM EDGES") } else { text };
        assert_eq!(catalog.plan(&text).expect_err("too many").code(), "54000");
    }
    assert!(started.elapsed() < SOON, "bound after {:?}", started.elapsed());
}

#[test]
fn a_parameter_is_a_value_and_never_text_of_the_statement() {
    let mut catalog = FakeCatalog::default();
    let prepare = catalog.plan("PREPARE p AS SELECT layer FROM EDGES WHERE target = $1").unwrap();
    catalog.run(&prepare);
    let harm = "x' OR TRUE; DROP TABLE facts --";
    let planned = catalog.plan(&format!("EXECUTE p(\"{harm}\")")).expect("a text like any other");
    let tree = larql_planner::explain::tree(&planned.physical);
    assert!(tree.contains(&format!("target = \"{harm}\"")), "{tree}");
}
