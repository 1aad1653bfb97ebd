//! The programs as a user runs them: arguments in, exit code, standard output and standard error
//! out, as the contract says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use larql_client::quote;
use larql_tests::home::{Finished, Home, daemons_of, eventually, finish, finish_child};
use larql_tests::random_checkpoint::{self, Size};
use larql_tests::{atlas_checkpoint, program};
use serde_json::Value as Json;

/// The values of the lines of ndjson, each of which must be one object.
fn objects(text: &str) -> Vec<serde_json::Map<String, Json>> {
    let object = |line| match serde_json::from_str(line) {
        Ok(Json::Object(object)) => object,
        other => panic!("{line:?} is no JSON object: {other:?}"),
    };
    text.lines().map(object).collect()
}

/// The names of an object's members, in the order in which they are written.
fn names(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut in_string, mut escaped, mut start) = (0, false, false, 0);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => {
                in_string = !in_string;
                if in_string {
                    start = at + 1;
                } else if depth == 1 && line[at + 1..].starts_with(':') {
                    names.push(line[start..at].to_owned());
                }
            }
            '{' | '[' if !in_string => depth += 1,
            '}' | ']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    names
}

fn one_object(text: &str) -> Json {
    let json: Json = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(json.is_object(), "{text}");
    json
}

fn interrupt(child: &Child, signal: i32) {
    // SAFETY: kill takes numbers only; the child is not waited for yet.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

fn spawn(command: &mut Command) -> Child {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    child.expect("the program starts")
}

/// A checkpoint with words of several scripts.
fn write_words_of_every_script(directory: &Path) {
    random_checkpoint::write(directory, Size::FEW_FEATURES, 5);
    let path = directory.join("tokenizer.json");
    let mut tokenizer = std::fs::read_to_string(&path).expect("tokenizer.json");
    for id in 3..Size::FEW_FEATURES.vocabulary {
        let word = ["Zürich", "東京", "Київ", "مدينة"][id % 4];
        tokenizer = tokenizer.replace(&format!("\"Word{id}\""), &format!("\"{word}{id}\""));
    }
    std::fs::write(path, tokenizer).expect("tokenizer.json");
}

// Ways to hand over statements, and exit codes.

#[test]
fn every_way_to_hand_over_statements_gives_the_same_answer() {
    let home = Home::with_atlas();
    let text = "USE \"atlas\";\nSELECT layer, feature FROM FEATURES WHERE layer = 2 LIMIT 2;\n";
    let file = home.scratch().join("statements.lql");
    std::fs::write(&file, text).expect("a file");
    let file = file.display().to_string();
    let format = ["-q", "-F", "csv"];
    let expected = home.larql(&[&format[..], &["-c", text]].concat()).succeeded().stdout;
    assert!(expected.ends_with("layer,feature\r\n2,0\r\n2,1\r\n"), "{expected}");
    for (arguments, input) in [
        (vec!["-f", &file], ""),
        (vec!["-f", "-"], text),
        (vec!["-"], text),
        (vec!["lql", text], ""),
        (vec!["repl"], text),
        (vec![], text),
        (vec!["-c", "USE \"atlas\"", "-c", &text[13..]], ""),
    ] {
        let all = [&format[..], &arguments].concat();
        let found = home.larql_with_input(&all, input).succeeded();
        assert_eq!(
            (found.stdout, found.stderr),
            (expected.clone(), String::new()),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_usage_error_has_exit_code_one() {
    let home = Home::new();
    for arguments in [
        vec!["nonsense"],
        vec!["--nonsense"],
        vec!["-F", "xml", "list"],
        vec!["--host", "http://localhost", "list"],
        vec!["-c", "SHOW MOUNTS", "list"],
        vec!["-f", "no-such-file"],
        vec!["extract", "somewhere"],
        vec!["run", "atlas", "x", "--temperature", "-1"],
    ] {
        let found = home.larql(&arguments).ended_with(1);
        assert!(!found.stderr.is_empty() && found.stdout.is_empty(), "{arguments:?}: {found:?}");
    }
    // Help and the version are answers.
    for argument in ["--help", "--version"] {
        assert!(!home.larql(&[argument]).succeeded().stdout.is_empty());
    }
    assert!(home.daemons().is_empty(), "a daemon was started for a usage error");
}

#[test]
fn without_a_connection_the_exit_code_is_two_and_the_hint_says_how_to_get_one() {
    let home = Home::new();
    let found = home.larql(&["--no-start", "-c", "SHOW MOUNTS"]).ended_with(2);
    assert!(found.stderr.starts_with("ERROR 08001: could not reach a daemon"), "{found:?}");
    assert!(found.stderr.contains("HINT: leave out --no-start, or run: larqld --data-dir"));
    assert!(!home.data_dir().exists(), "the data directory was touched");
    // A port on which nobody listens: it was ours a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("grpc://{}", listener.local_addr().expect("its number"));
    drop(listener);
    let found = home.larql(&["--host", &url, "list"]).ended_with(2);
    assert!(found.stderr.contains(&url), "{found:?}");
    let found = finish(home.command(&["list"]).env("LARQL_URL", &url), "").ended_with(2);
    assert!(found.stderr.contains(&url), "{found:?}");
    let found = home.larql(&["--no-start", "-F", "json", "list"]).ended_with(2);
    assert_eq!(one_object(&found.stderr)["code"], "08001");
}

#[test]
fn a_failed_statement_has_exit_code_three_and_earlier_rows_stay_printed() {
    let home = Home::with_atlas();
    let script =
        "USE \"atlas\";\nSELECT layer FROM FEATURES LIMIT 1;\nSELECT * FROM NOWHERE;\nSTATS;";
    let found = home.larql(&["-F", "csv", "-c", script]).ended_with(3);
    assert!(found.stdout.ends_with("layer\r\n0\r\n"), "{found:?}");
    let error = found.stderr.find("ERROR").map(|at| &found.stderr[at..]).expect("an error");
    let expected = "\
ERROR 42P01: there is no table \"NOWHERE\"
LINE 3: SELECT * FROM NOWHERE;
                      ^^^^^^^
HINT: tables are EDGES, FEATURES, ENTITIES, larql.mounts, larql.relations, larql.sessions, larql.settings, larql.statements
";
    assert_eq!(error, expected);
    // A script that does not parse runs not at all.
    let found = home.larql(&["-c", "USE \"atlas\"; SELEKT;"]).ended_with(3);
    assert_eq!(found.stdout, "");
}

#[test]
fn the_next_script_of_a_call_is_not_run_after_a_failure() {
    let home = Home::with_atlas();
    let found = home.larql(&["-c", "SELECT 1 FROM", "-c", "UNMOUNT atlas"]).ended_with(3);
    assert_eq!(found.stdout, "");
    assert!(home.larql(&["-q", "list"]).succeeded().stdout.contains("atlas"));
}

#[test]
fn an_error_in_json_modes_is_one_object_on_standard_error() {
    let home = Home::new();
    home.larql(&["list"]).succeeded();
    for format in ["json", "ndjson"] {
        let script = "SHOW MOUNTS;\n  SELECT * FORM EDGES;";
        let found = home.larql(&["-F", format, "-c", script]).ended_with(3);
        assert_eq!(names(found.stderr.trim_end()), ["code", "message", "position", "hint"]);
        let error = one_object(&found.stderr);
        assert_eq!(error["code"], "42601");
        assert_eq!(error["position"]["line"], 2);
        assert_eq!(error["position"]["column"], 12);
        let offset = error["position"]["offset"].as_u64().expect("an offset") as usize;
        let length = error["position"]["length"].as_u64().expect("a length") as usize;
        assert_eq!(&script[offset..offset + length], "FORM");
        assert_eq!(found.stdout, "");
    }
    let found = home.larql(&["-F", "ndjson", "-f", "no-such-file"]).ended_with(1);
    assert!(one_object(&found.stderr)["message"].as_str().is_some());
}

#[test]
fn an_interrupt_cancels_a_running_script_with_exit_code_three() {
    let home = Home::with_atlas();
    let script =
        format!("USE \"atlas\"; {}", "INFER \"The capital of France is\";\n".repeat(50_000));
    let file = home.scratch().join("long.lql");
    std::fs::write(&file, script).expect("a file");
    let mut child = spawn(&mut home.command(&["-q", "-F", "ndjson", "-f", "long.lql"]));
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let answer = lines.next().expect("an answer").expect("text");
    assert!(answer.contains("Paris"), "{answer}");
    interrupt(&child, libc::SIGINT);
    // What was on its way still comes.
    let rest = std::thread::spawn(move || lines.count());
    let mut error = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut error).expect("text");
    assert_eq!(child.wait().expect("its end").code(), Some(3), "{error}");
    assert_eq!(one_object(&error)["code"], "57014");
    assert!(rest.join().expect("a count") < 5 * 50_000 - 1);
    assert_eq!(home.daemons().len(), 1);
}

#[test]
fn a_reader_who_leaves_early_is_no_error() {
    let home = Home::with_atlas();
    let script = "USE \"atlas\"; SELECT * FROM FEATURES; SELECT * FROM FEATURES;";
    for format in ["table", "vertical", "json", "ndjson", "csv", "markdown"] {
        let mut child = spawn(&mut home.command(&["-q", "-F", format, "-c", script]));
        let mut first = [0; 10];
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_exact(&mut first).expect("the first bytes");
        drop(stdout);
        let mut error = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut error).expect("text");
        let status = child.wait().expect("its end");
        assert_eq!(
            (status.code(), error.as_str()),
            (Some(0), ""),
            "{format}: {:?}",
            status.signal()
        );
    }
}

// Formats.

#[test]
fn ndjson_has_the_columns_of_the_contract_in_order_and_nothing_else() {
    let home = Home::with_atlas();
    let walk = &["layer", "feature", "gate_score", "target", "relation", "top_tokens"][..];
    let describe = &[
        "entity",
        "relation",
        "target",
        "gate_score",
        "layer",
        "feature",
        "layer_min",
        "layer_max",
        "count",
        "also",
        "source",
        "confidence",
    ][..];
    let edges = &[
        "entity",
        "relation",
        "target",
        "layer",
        "feature",
        "gate_score",
        "logit",
        "confidence",
        "source",
    ][..];
    for (statement, columns) in [
        ("DESCRIBE \"France\"", describe),
        ("WALK \"France\" TOP 2", walk),
        ("EXPLAIN WALK \"France\" TOP 2", walk),
        ("SELECT * FROM EDGES WHERE entity = \"France\"", edges),
        ("SELECT target, layer FROM EDGES WHERE entity = \"France\"", &["target", "layer"][..]),
        (
            "INFER \"The capital of France is\" TOP 3",
            &["rank", "token", "token_id", "probability", "logit", "source"],
        ),
        (
            "EXPLAIN INFER \"The capital of France is\" TOP 3",
            &["layer", "feature", "gate_score", "activation", "target", "relation"],
        ),
        ("STATS", &["name", "value"]),
        (
            "EXPLAIN DESCRIBE \"France\"",
            &[
                "id",
                "parent",
                "operator",
                "detail",
                "est_rows",
                "est_bytes",
                "est_ms",
                "rows",
                "bytes",
                "ms",
            ],
        ),
    ] {
        let script = format!("SET describe_z = 1; {statement}");
        let found = home.larql(&["-q", "-F", "ndjson", "-c", "USE \"atlas\"", "-c", &script]);
        let found = found.succeeded();
        let rows: Vec<&str> = found.stdout.lines().collect();
        assert!(!rows.is_empty(), "{statement} answers nothing");
        for row in rows {
            assert_eq!(names(row), columns, "{statement}");
        }
        assert_eq!(objects(&found.stdout).len(), found.stdout.lines().count());
    }
}

#[test]
fn every_format_carries_the_same_answer() {
    let home = Home::new();
    let checkpoint = home.scratch().join("words");
    write_words_of_every_script(&checkpoint);
    home.extract(&checkpoint, "words");
    let statement = "SELECT layer, feature, entity, relation, target, logit, top_tokens FROM FEATURES \
                     WHERE layer = 1 LIMIT 5";
    let script = format!("\\o use.txt\nUSE \"words\";\n\\o\n{statement};");
    std::fs::write(home.scratch().join("script"), script).expect("a script");
    let draw = |format: &str| home.larql(&["-q", "-F", format, "-f", "script"]).succeeded().stdout;
    let rows = objects(&draw("ndjson"));
    assert_eq!(rows.len(), 5);
    let scripts = ["Zürich", "東京", "Київ", "مدينة"];
    let target =
        |row: &serde_json::Map<String, Json>| row["target"].as_str().expect("text").to_owned();
    for row in &rows {
        assert!(scripts.iter().any(|script| target(row).starts_with(script)), "{row:?}");
        assert!(row["relation"].is_null() && row["layer"] == 1 && row["logit"].is_f64());
        assert!(row["top_tokens"].as_array().is_some_and(|tokens| tokens.len() > 5));
    }

    let json = one_object(&draw("json"));
    assert_eq!(
        json["rows"],
        Json::from(rows.iter().cloned().map(Json::Object).collect::<Vec<_>>())
    );
    let summary = &json["summary"];
    assert_eq!(
        (&summary["rows"], &summary["branch"], &summary["lsn"]),
        (&5.into(), &"main".into(), &0.into())
    );
    assert!(summary["base_hash"].as_str().is_some_and(|hash| hash.len() == 64));
    assert!(summary["milliseconds"].as_f64().is_some_and(|ms| ms > 0.0));
    assert!(summary["bytes_touched"].as_u64().is_some_and(|bytes| bytes > 0));

    let csv = draw("csv");
    let lines: Vec<Vec<String>> = csv.split_terminator("\r\n").map(csv_fields).collect();
    assert_eq!(
        lines[0],
        ["layer", "feature", "entity", "relation", "target", "logit", "top_tokens"]
    );
    for (line, row) in lines[1..].iter().zip(&rows) {
        assert_eq!(line[3], "", "NULL is empty");
        assert_eq!(line[4], target(row));
        let logit: f64 = line[5].parse().expect("a number");
        assert_eq!(Some(logit as f32), row["logit"].as_f64().map(|logit| logit as f32));
        let tokens = row["top_tokens"].as_array().expect("a list");
        assert!(tokens.iter().all(|token| line[6].contains(token.as_str().expect("text"))));
    }

    for format in ["table", "markdown", "vertical"] {
        let drawn = draw(format);
        assert!(rows.iter().all(|row| drawn.contains(&target(row))), "{format}: {drawn}");
        assert!(!drawn.contains("null"), "{format}: {drawn}");
    }
    let table = draw("table");
    assert_eq!(table.lines().count(), 7, "{table}");
    // Bars stand under one another as a terminal draws the text.
    let bars = |line: &str| {
        let cells = line.split(['|', '+']).take(5);
        cells.map(larql_client::shell::render::text::width).collect::<Vec<_>>()
    };
    let header = bars(table.lines().next().expect("a header"));
    assert!(table.lines().all(|line| bars(line) == header), "{table}");
    let vertical = draw("vertical");
    assert_eq!(vertical.matches("[ RECORD ").count(), 5, "{vertical}");
    assert!(draw("markdown").starts_with("| layer | feature | entity |"));
}

/// The fields of one line of RFC 4180.
fn csv_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        let last = fields.last_mut().expect("one at least");
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                last.push('"');
                characters.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => last.push(c),
        }
    }
    fields
}

#[test]
fn several_statements_are_one_json_array() {
    let home = Home::with_atlas();
    let found =
        home.larql(&["-F", "json", "-c", "USE \"atlas\"; SHOW LAYERS", "-c", "SHOW MOUNTS"]);
    let found = found.succeeded();
    assert_eq!(found.stderr, "", "the summary is in the object");
    let json: Json = serde_json::from_str(&found.stdout).expect("JSON");
    let tags: Vec<&str> =
        json.as_array().expect("an array").iter().map(|s| s["tag"].as_str().unwrap()).collect();
    assert_eq!(tags, ["USE", "SHOW LAYERS", "SHOW MOUNTS"]);
    assert_eq!(json[1]["rows"].as_array().map(Vec::len), Some(6));
}

#[test]
fn the_summary_goes_to_standard_error_unless_quiet() {
    let home = Home::with_atlas();
    let arguments = ["-F", "ndjson", "-c", "USE \"atlas\"; SHOW FEATURES 2 LIMIT 3"];
    let found = home.larql(&arguments).succeeded();
    let line = found.stderr.lines().last().expect("a summary");
    let parts: Vec<&str> = line.trim_matches(['(', ')']).split(", ").collect();
    assert_eq!(parts.len(), 5, "{line}");
    assert_eq!(parts[0], "3 rows");
    assert!(parts[1].ends_with("B touched") && parts[2].ends_with(" ms"), "{line}");
    let hash = parts[3].strip_prefix("base ").expect("a base hash");
    assert!(hash.len() == 12 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{line}");
    assert_eq!(parts[4], "main@0");
    assert_eq!(objects(&found.stdout).len(), 3);
    let quiet = home.larql(&[&["-q"], &arguments[..]].concat()).succeeded();
    assert_eq!((quiet.stderr.as_str(), &quiet.stdout), ("", &found.stdout));
}

#[test]
fn a_name_cannot_drive_the_terminal() {
    let home = Home::new();
    let found = home.larql(&["show", "\u{1b}[2J\u{202e}evil"]).ended_with(3);
    assert!(!found.stderr.contains(['\u{1b}', '\u{202e}']), "{:?}", found.stderr);
    assert!(found.stderr.contains("\\u{1b}[2J"), "{}", found.stderr);
}

#[test]
fn no_text_from_the_command_line_becomes_a_second_statement() {
    let home = Home::with_atlas();
    let hostile = [
        "x\"; UNMOUNT atlas; --",
        "x\\\"; UNMOUNT atlas; --",
        "x\\",
        "'; UNMOUNT atlas; '",
        "x\n\"; UNMOUNT atlas; --",
        "\"\"\"; UNMOUNT atlas;",
        "x\u{2028}\"; UNMOUNT atlas; --",
        "${x}`UNMOUNT atlas`",
    ];
    for name in hostile {
        // The daemon tells the name back as it understood it.
        let found = home.larql(&["-F", "json", "show", name]).ended_with(3);
        let error = one_object(&found.stderr);
        assert_eq!(error["message"], format!("nothing is mounted as \"{name}\""));
        home.larql(&["mount", name]).ended_with(3);
        home.larql(&["verify", name]).ended_with(3);
        home.larql(&["mount", "nowhere", "--as", name]).ended_with(3);
        home.larql(&["unmount", name]).ended_with(3);
        home.larql(&["extract", name, "-o", name]).ended_with(3);
        home.larql(&["-q", "walk", "--index", "atlas", "--prompt", name]).succeeded();
        let script = format!("USE \"atlas\"; DESCRIBE {}", quote(name));
        let found = home.larql(&["-F", "json", "-c", &script]).succeeded();
        let json: Json = serde_json::from_str(&found.stdout).expect("JSON");
        assert_eq!(json.as_array().map(Vec::len), Some(2), "{name:?} became a statement");
    }
    let mounts = objects(&home.larql(&["-q", "-F", "ndjson", "list"]).succeeded().stdout);
    assert_eq!(mounts.len(), 1);
    assert_eq!(mounts[0]["name"], "atlas");
}

// Where the daemon is and how it starts.

#[test]
fn the_first_command_starts_a_daemon_and_says_so_and_the_next_one_uses_it() {
    let home = Home::new();
    let first = home.larql(&["list"]).succeeded();
    assert_eq!(
        first.stderr.lines().next(),
        Some(&*format!("larql: starting larqld for {}", home.data_dir().display()))
    );
    let pid = home.daemons();
    assert_eq!(pid.len(), 1);
    let second = home.larql(&["list"]).succeeded();
    assert!(!second.stderr.contains("starting"), "{second:?}");
    assert_eq!(home.daemons(), pid);
    // Nobody but the user may come near the socket.
    use std::os::unix::fs::PermissionsExt as _;
    let run = home.socket();
    let mode =
        |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(run.parent().expect("run")), 0o700);
    assert_eq!(mode(&run), 0o600);
    home.signal(libc::SIGTERM);
    home.wait_until_no_daemon_runs();
    assert!(!home.socket().exists());
}

#[test]
fn clients_that_start_a_daemon_at_once_all_succeed_and_share_one() {
    let home = Home::new();
    let children: Vec<Child> =
        (0..8).map(|_| spawn(&mut home.command(&["-F", "ndjson", "admin", "status"]))).collect();
    let ended: Vec<Finished> =
        children.into_iter().map(|child| finish_child(child).succeeded()).collect();
    let daemons = home.daemons();
    assert_eq!(daemons.len(), 1);
    for found in &ended {
        assert_eq!(one_object(&found.stdout)["pid"], daemons[0]);
    }
    let said = ended.iter().filter(|found| found.stderr.contains("starting larqld")).count();
    assert_eq!(said, 1, "{ended:?}");
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_replaced() {
    let home = Home::with_atlas();
    home.signal(libc::SIGKILL);
    home.wait_until_no_daemon_runs();
    assert!(home.socket().exists(), "a killed daemon removes nothing");
    let found = home.larql(&["--no-start", "list"]).ended_with(2);
    assert!(found.stderr.contains("could not reach a daemon"), "{found:?}");
    let found = home.larql(&["list"]).succeeded();
    assert!(
        found.stderr.contains("starting larqld") && found.stdout.contains("atlas"),
        "{found:?}"
    );
}

#[test]
fn a_data_directory_too_long_for_a_socket_path_serves_like_any_other() {
    let home = Home::below(&format!("{}/{}", "d".repeat(150), "e".repeat(150)));
    assert!(home.socket().as_os_str().len() > 300);
    home.extract(&atlas_checkpoint(), "atlas");
    let found = home.larql(&[
        "--no-start",
        "-q",
        "-c",
        "USE \"atlas\"; INFER \"The capital of France is\"",
    ]);
    assert!(found.succeeded().stdout.contains("Paris"));
    let url = format!("unix://{}", home.socket().display());
    let elsewhere = Home::new();
    assert!(elsewhere.larql(&["--host", &url, "list"]).succeeded().stdout.contains("atlas"));
    home.signal(libc::SIGTERM);
    home.wait_until_no_daemon_runs();
}

#[test]
fn a_daemon_that_cannot_start_is_told_with_the_end_of_its_log() {
    let home = Home::new();
    std::fs::create_dir_all(home.data_dir()).expect("a directory");
    std::fs::write(home.data_dir().join("larqld.toml"), "nonsense = 1\n").expect("a file");
    let began = Instant::now();
    let found = home.larql(&["list"]).ended_with(2);
    assert!(found.stderr.contains("larqld stopped at once"), "{found:?}");
    assert!(found.stderr.contains("nonsense"), "{found:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "it waited for a process that was gone");
}

// Commands.

#[test]
fn extract_takes_every_option_of_the_contract() {
    let home = Home::new();
    let source = atlas_checkpoint().display().to_string();
    let stats = |name: &str| {
        let found = home.larql(&["-q", "-F", "csv", "show", name]).succeeded();
        let value = |wanted: &str| {
            let line =
                found.stdout.lines().find_map(|line| line.strip_prefix(&format!("{wanted},")));
            line.unwrap_or_else(|| panic!("no {wanted} in {}", found.stdout)).trim().to_owned()
        };
        [value("level"), value("weights"), value("features")]
    };
    for (name, options, expected) in [
        ("plain", &["--no-labels"][..], ["inference", "f16", "6144"]),
        ("browse", &["--level", "browse"], ["browse", "f16", "6144"]),
        ("attention", &["--level", "attention"], ["attention", "f16", "6144"]),
        ("whole", &["--level", "all", "--f16", "--no-labels"], ["all", "f16", "6144"]),
        ("f32", &["--f32", "--no-labels"], ["inference", "f32", "6144"]),
        ("dtype", &["--dtype", "f32", "--no-labels"], ["inference", "f32", "6144"]),
        ("source", &["--dtype", "source", "--no-labels"], ["inference", "bf16", "6144"]),
        ("layers", &["--level", "browse", "--layers", "1-3"], ["browse", "f16", "3072"]),
        ("nolabels", &["--level", "inference", "--no-labels"], ["inference", "f16", "6144"]),
        ("resumed", &["--level", "browse", "--resume"], ["browse", "f16", "6144"]),
    ] {
        // Relative paths are those of whoever runs the program.
        let destination = format!("{name}.vindex");
        let command = if name == "plain" { "extract" } else { "extract-index" };
        let arguments = [&["-q", command, &source, "-o", &destination], options].concat();
        home.larql(&arguments).succeeded();
        assert!(home.scratch().join(&destination).join("index.json").is_file());
        assert_eq!(stats(name), expected, "{options:?}");
    }
    let found = home.larql(&["extract", &source, "-o", "plain.vindex"]).ended_with(3);
    assert!(found.stderr.contains("42P07") && found.stderr.contains("HINT"), "{found:?}");
    let overwrite =
        ["-q", "extract", &source, "-o", "plain.vindex", "--level", "browse", "--overwrite"];
    home.larql(&overwrite).succeeded();
    assert_eq!(stats("plain")[0], "browse");
}

#[test]
fn verify_finds_one_flipped_bit_in_any_file_and_names_it() {
    let home = Home::new();
    let vindex = home.extract(&atlas_checkpoint(), "atlas");
    let argument = vindex.display().to_string();
    let found = home.larql(&["-q", "-F", "ndjson", "verify", &argument]).succeeded();
    let files = objects(&found.stdout);
    assert!(files.iter().all(|file| file["status"] == "ok"), "{files:?}");
    assert_eq!(files.len(), std::fs::read_dir(&vindex).expect("files").count());
    for file in &files {
        let name = file["file"].as_str().expect("a name");
        let path = vindex.join(name);
        let whole = std::fs::read(&path).expect("bytes");
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        std::fs::write(&path, &damaged).expect("a file");
        let found = home.larql(&["verify", &argument]).ended_with(3);
        assert!(found.stderr.contains(name), "{name}: {found:?}");
        std::fs::write(&path, &whole).expect("a file");
    }
    home.larql(&["verify", &argument]).succeeded();
    let found = home.larql(&["verify", "nowhere"]).ended_with(3);
    assert!(found.stderr.starts_with("ERROR 58P01"), "{found:?}");
}

#[test]
fn mounts_come_and_go_by_command() {
    let home = Home::new();
    let vindex = home.extract(&atlas_checkpoint(), "atlas").display().to_string();
    let mounted = || -> Vec<String> {
        let found = home.larql(&["-q", "-F", "ndjson", "list"]).succeeded();
        objects(&found.stdout).iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(mounted(), ["atlas"]);
    home.larql(&["mount", &vindex, "--as", "second"]).succeeded();
    home.larql(&["link", &vindex, "--as", "third"]).succeeded();
    assert_eq!(mounted(), ["atlas", "second", "third"]);
    assert!(home.larql(&["show", "third"]).succeeded().stdout.contains("vocabulary_size"));
    home.larql(&["unmount", "second"]).succeeded();
    home.larql(&["unmount", "second"]).ended_with(3);
    home.larql(&["show", "second"]).ended_with(3);
    // A relative path, from the directory of the caller; the name is the directory's stem.
    home.larql(&["unmount", "atlas"]).succeeded();
    home.larql(&["mount", "atlas.vindex"]).succeeded();
    assert_eq!(mounted(), ["atlas", "third"]);
    home.signal(libc::SIGKILL);
    home.wait_until_no_daemon_runs();
    assert_eq!(mounted(), ["atlas", "third"], "after a restart");
}

#[test]
fn run_prints_each_token_as_it_comes() {
    let home = Home::new();
    random_checkpoint::write(&home.scratch().join("slow"), Size::SLOW, 11);
    home.larql(&["list"]).succeeded();
    // A path: the checkpoint is used as it is.
    let mut child = spawn(&mut home.command(&["run", "./slow", "Word1 Word2", "-n", "2000"]));
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut first = [0; 4];
    stdout.read_exact(&mut first).expect("the first token");
    assert!(matches!(child.try_wait(), Ok(None)), "everything came at once");
    interrupt(&child, libc::SIGINT);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    assert!(rest.split_whitespace().count() < 1999, "Ctrl-C stopped nothing");
    assert_eq!(child.wait().expect("its end").code(), Some(3));
}

#[test]
fn run_continues_a_prompt_and_tells_its_speed_when_asked() {
    let home = Home::with_atlas();
    let found = home.larql(&["run", "atlas", "The capital of France is", "-n", "4"]).succeeded();
    assert_eq!((found.stdout.as_str(), found.stderr.as_str()), (" Paris.\n", ""));
    let found =
        home.larql(&["run", "atlas", "The capital of France is", "-n", "1", "--stats"]).succeeded();
    assert_eq!(found.stdout, " Paris\n");
    assert!(
        found.stderr.starts_with("(6 prompt tokens in ") && found.stderr.contains("1 tokens in "),
        "{found:?}"
    );
    let path = atlas_checkpoint().display().to_string();
    let found = home.larql(&["run", &path, "The capital of France is", "-n", "1"]).succeeded();
    assert_eq!(found.stdout, " Paris\n", "from the checkpoint");
    home.larql(&["run", "nonsense", "x"]).ended_with(3);
}

#[test]
fn a_seed_makes_a_draw_repeatable() {
    let home = Home::with_atlas();
    let draw = |seed: &str| {
        let arguments = [
            "run",
            "atlas",
            "The",
            "-n",
            "24",
            "--temperature",
            "3",
            "--top-k",
            "500",
            "--top-p",
            "0.99",
            "--seed",
            seed,
        ];
        home.larql(&arguments).succeeded().stdout
    };
    let first = draw("1");
    assert_eq!(draw("1"), first);
    assert!((2..6).any(|seed| draw(&seed.to_string()) != first), "the seed changes nothing");
}

#[test]
fn a_chat_on_standard_input_answers_each_line() {
    let home = Home::with_atlas();
    let input = "What is the capital of France?\nAnd of Spain?\n";
    let found = home.larql_with_input(&["run", "atlas", "-n", "6"], input).succeeded();
    assert_eq!(found.stdout.lines().count(), 2, "{found:?}");
}

#[test]
fn logits_have_the_shape_of_the_contract_and_are_deterministic() {
    let home = Home::with_atlas();
    let exact = ["dev", "logits", "atlas", "--ids", "2,5,9", "--greedy", "3", "--json"];
    let found = home.larql(&exact).succeeded();
    assert_eq!(names(found.stdout.trim_end()), ["logits", "layers", "greedy"]);
    let json = one_object(&found.stdout);
    let numbers = |json: &Json| -> Vec<f64> {
        json.as_array()
            .expect("an array")
            .iter()
            .map(|number| number.as_f64().expect("a number"))
            .collect()
    };
    let logits = numbers(&json["logits"]);
    assert_eq!(logits.len(), 4096);
    let layers = json["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 6);
    for (index, layer) in layers.iter().enumerate() {
        assert_eq!(layer["layer"], index);
        assert!(layer["norm"].as_f64().is_some_and(|norm| norm > 0.0));
        assert_eq!(numbers(&layer["first8"]).len(), 8);
    }
    let greedy = numbers(&json["greedy"]);
    assert_eq!(greedy.len(), 3);
    let best = (0..4096).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("a best token");
    assert_eq!(greedy[0] as usize, best);
    assert_eq!(home.larql(&exact).succeeded().stdout, found.stdout);

    let fast = [&exact[..], &["--fast"]].concat();
    let served = home.larql(&fast).succeeded().stdout;
    assert_eq!(home.larql(&fast).succeeded().stdout, served);
    let served = numbers(&one_object(&served)["logits"]);
    let scale = logits.iter().fold(1.0_f64, |scale, logit| scale.max(logit.abs()));
    for (exact, served) in logits.iter().zip(&served) {
        assert!((exact - served).abs() < 0.02 * scale, "{exact} and {served}");
    }
    let found = home.larql(&["dev", "logits", "atlas", "--ids", "4096"]).ended_with(3);
    assert!(found.stderr.contains("4096"), "{found:?}");
    assert!(
        home.larql(&["dev", "logits", "atlas", "--ids", "1"])
            .succeeded()
            .stdout
            .contains("logits, the largest")
    );
}

#[test]
fn walk_shows_what_the_statement_shows() {
    let home = Home::with_atlas();
    let by_statement =
        home.larql(&["-q", "-F", "csv", "-c", "USE \"atlas\"; WALK \"France\""]).succeeded();
    for command in [&["dev", "walk"][..], &["walk"]] {
        let arguments =
            [&["-q", "-F", "csv"], command, &["--prompt", "France", "--index", "atlas"]].concat();
        assert_eq!(home.larql(&arguments).succeeded().stdout, by_statement.stdout);
    }
}

#[test]
fn a_bench_tells_its_figures_in_one_object() {
    let home = Home::with_atlas();
    for (kind, step, options) in [
        ("decode", "token", &["--tokens", "4", "--context", "8", "--threads", "1"][..]),
        ("prefill", "token", &["--tokens", "16", "--threads", "2"]),
        ("gate-scan", "scan", &["--threads", "1"]),
        ("describe", "statement", &[]),
    ] {
        let arguments = [&["bench", kind, "atlas", "--runs", "3", "--json"], options].concat();
        let found = home.larql(&arguments).succeeded();
        let json = one_object(&found.stdout);
        let positive =
            |json: &Json| json.as_f64().is_some_and(|number| number > 0.0 && number.is_finite());
        let spread = &json[&format!("ms_per_{step}")];
        let [p10, median, p90] =
            ["p10", "median", "p90"].map(|name| spread[name].as_f64().unwrap_or(f64::NAN));
        assert!(0.0 < p10 && p10 <= median && median <= p90, "{kind}: {json}");
        let rate = json[&format!("{step}s_per_s")].as_f64().expect("a rate");
        assert!((rate * median / 1e3 - 1.0).abs() < 1e-6, "{kind}: {json}");
        assert!(
            json["anonymous_bytes"]["peak"].as_u64() >= json["anonymous_bytes"]["before"].as_u64()
        );
        for name in [&format!("bytes_per_{step}")[..], "gb_per_s", "probed_gb_per_s"] {
            assert!(positive(&json[name]), "{kind}: {name} in {json}");
        }
        assert_eq!(json["runs"], 3, "{kind}");
        assert_eq!(json["quant"], "f16", "{kind}");
        assert_eq!(json["model"], "atlas.vindex", "{kind}");
        assert!(json["isa"].as_str().is_some_and(|isa| !isa.is_empty()), "{kind}");
        match options.iter().position(|option| *option == "--threads") {
            Some(at) => assert_eq!(json["threads"].to_string(), options[at + 1], "{kind}"),
            None => assert!(positive(&json["threads"]), "{kind}"),
        }
        // People see the same figures, a line each.
        let drawn =
            home.larql(&[&["bench", kind, "atlas", "--runs", "1"], options].concat()).succeeded();
        assert!(drawn.stdout.contains(&format!("ms_per_{step}.median")), "{drawn:?}");
    }
    for (kind, option) in [
        ("describe", "--threads"),
        ("gate-scan", "--tokens"),
        ("decode", "--clients"),
        ("serve", "--threads"),
    ] {
        let found = home.larql(&["bench", kind, "atlas", option, "2"]).ended_with(3);
        assert!(found.stderr.contains(&format!("leave out {option}")), "{found:?}");
    }
}

#[test]
fn a_bench_of_serving_tells_what_each_client_waits_for() {
    let home = Home::with_atlas();
    let arguments = ["--clients", "3", "--tokens", "4", "--context", "12", "--runs", "2", "--json"];
    let found = home.larql(&[&["bench", "serve", "atlas"], &arguments[..]].concat()).succeeded();
    let json = one_object(&found.stdout);
    assert_eq!(json["clients"], 3);
    assert!((1.0..=12.0).contains(&json["prompt_tokens"].as_f64().expect("a count")), "{json}");
    assert!((1.0..=4.0).contains(&json["generated_tokens"].as_f64().expect("a count")), "{json}");
    assert!(json["bytes_per_token"].as_u64() > Some(0), "{json}");
    let rate = json["tokens_per_s"].as_f64().expect("a rate");
    assert!(
        (rate * json["ms_per_token"]["median"].as_f64().expect("a time") / 1e3 - 1.0).abs() < 1e-6
    );
    let [p10, median, p90] = ["p10", "median", "p90"].map(|name| json["ttft_ms"][name].as_f64());
    assert!(Some(0.0) < p10 && p10 <= median && median <= p90, "{json}");
}

#[test]
fn a_describe_bench_asks_about_words_and_reads_what_describe_reads() {
    let home = Home::with_atlas();
    let statements = || {
        let found = home.larql(&["-F", "json", "admin", "status"]).succeeded();
        one_object(&found.stdout)["statements"].as_u64().expect("a count")
    };
    let before = statements();
    let found = home.larql(&["bench", "describe", "atlas", "--runs", "2", "--json"]).succeeded();
    // One pass is not timed.
    let asked = (statements() - before) / 3;
    assert!((24..=100).contains(&asked), "{asked} statements a run");
    let bytes = one_object(&found.stdout)["bytes_per_statement"].as_u64().expect("bytes");
    let found = home.larql(&["-F", "json", "-c", "USE \"atlas\"; DESCRIBE \"France\""]).succeeded();
    let json: Json = serde_json::from_str(&found.stdout).expect("JSON");
    let touched = json[1]["summary"]["bytes_touched"].as_u64().expect("bytes");
    assert!(bytes.abs_diff(touched) < touched / 10, "{bytes} and {touched}");
}

#[test]
fn the_status_names_the_process_that_answers() {
    let home = Home::new();
    let found = home.larql(&["-q", "-F", "json", "admin", "status"]).succeeded();
    let expected = ["version", "uptime_s", "sessions", "statements", "data_dir", "threads", "pid"];
    assert_eq!(names(found.stdout.trim_end()), expected);
    let json = one_object(&found.stdout);
    assert_eq!(json["pid"], home.daemons()[0]);
    assert_eq!(json["data_dir"], home.data_dir().display().to_string());
    assert_eq!(json["sessions"], 1);
    assert!(home.larql(&["admin", "status"]).succeeded().stdout.contains("uptime_s"));
}

#[test]
fn serve_is_the_daemon_in_the_foreground_with_a_port() {
    let home = Home::new();
    let vindex = home.extract(&atlas_checkpoint(), "atlas").display().to_string();
    home.larql(&["unmount", "atlas"]).succeeded();
    home.signal(libc::SIGTERM);
    home.wait_until_no_daemon_runs();

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port().to_string();
    drop(listener);
    let log = std::fs::File::create(home.scratch().join("serve.log")).expect("a log");
    let mut command = home.command(&["serve", &vindex, "--port", &port]);
    let mut serving =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
    let url = format!("grpc://127.0.0.1:{port}");
    eventually("the port answers", || {
        assert!(matches!(serving.try_wait(), Ok(None)), "serve ended");
        std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok()
    });
    assert_eq!(home.daemons(), [serving.id() as libc::pid_t], "the same process");
    let found = home.larql(&[
        "--host",
        &url,
        "-q",
        "-c",
        "USE \"atlas\"; INFER \"The capital of France is\"",
    ]);
    assert!(found.succeeded().stdout.contains("Paris"));
    assert_eq!(
        home.larql(&["--host", &url, "run", "atlas", "The capital of France is", "-n", "1"])
            .succeeded()
            .stdout,
        " Paris\n"
    );
    // A caller over TCP without a token reads and infers, and changes nothing.
    let found = home.larql(&["--host", &url, "unmount", "atlas"]).ended_with(3);
    assert!(found.stderr.starts_with("ERROR 42501"), "{found:?}");
    // The unix socket answers as well.
    assert!(home.larql(&["--no-start", "list"]).succeeded().stdout.contains("atlas"));
    interrupt(&serving, libc::SIGTERM);
    let ended = serving.wait().expect("its end");
    assert_eq!(ended.code(), Some(0));
    home.larql(&["--host", &url, "list"]).ended_with(2);
    home.larql(&["serve", "nowhere"]).ended_with(1);
}

#[test]
fn the_demo_tours_the_main_statements_in_time_and_leaves_nothing_behind() {
    let home = Home::new();
    let temporary = home.scratch().join("tmp");
    std::fs::create_dir(&temporary).expect("a directory");
    let mut command = Command::new(program("larql"));
    home.isolate(command.args(["demo", "--tour"]).env("TMPDIR", &temporary));
    let began = Instant::now();
    let found = finish(&mut command, "").succeeded();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let place =
        found.stderr.lines().find_map(|line| line.strip_prefix("larql: a private daemon, in "));
    let private = Path::new(place.expect("the private directory is named"));
    assert!(private.starts_with(&temporary));
    for statement in [
        "EXTRACT MODEL",
        "USE \"atlas\";",
        "STATS;",
        "DESCRIBE \"France\"",
        "WALK ",
        "SELECT ",
        "INFER \"The capital of France is\"",
        "SHOW LAYERS;",
        "SHOW RELATIONS;",
        "SHOW FEATURES ",
        "EXPLAIN ",
    ] {
        let typed = |line: &str| {
            line.split_once("=> ").is_some_and(|(_, typed)| typed.starts_with(statement))
        };
        assert!(found.stdout.lines().any(typed), "{statement} is not in:\n{}", found.stdout);
    }
    assert!(found.stdout.contains("Paris"), "{}", found.stdout);
    assert!(!found.stderr.contains("ERROR"), "{}", found.stderr);
    assert!(found.stderr.contains("features …"), "progress is visible: {}", found.stderr);
    assert!(daemons_of(private).is_empty(), "the daemon is still there");
    assert_eq!(std::fs::read_dir(&temporary).expect("a directory").count(), 0, "something stayed");
    assert!(!home.data_dir().exists(), "the user's own data directory was touched");
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let home = Home::new();
    let temporary = home.scratch().join("tmp");
    std::fs::create_dir(&temporary).expect("a directory");
    let mut command = Command::new(program("larql"));
    home.isolate(command.arg("demo").env("TMPDIR", &temporary));
    let mut child = spawn(&mut command);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    lines
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("EXTRACT")))
        .expect("it begins")
        .expect("text");
    interrupt(&child, libc::SIGINT);
    std::thread::spawn(move || lines.count());
    assert_ne!(child.wait().expect("its end").code(), Some(0));
    assert_eq!(std::fs::read_dir(&temporary).expect("a directory").count(), 0, "something stayed");
}

#[test]
fn an_answer_is_written_whole_even_when_it_is_large() {
    let home = Home::with_atlas();
    let mut child = spawn(&mut home.command(&[
        "-q",
        "-F",
        "ndjson",
        "-c",
        "USE \"atlas\"; SELECT * FROM FEATURES",
    ]));
    // A reader that takes its time.
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stdout.read(&mut piece).expect("bytes") {
            0 => break,
            count => text.write_all(&piece[..count]).expect("memory"),
        }
    }
    assert_eq!(child.wait().expect("its end").code(), Some(0));
    let rows = objects(std::str::from_utf8(&text).expect("text"));
    assert_eq!(rows.len(), 6 * 1024);
}
