//! Every way to hand over statements, and exit codes.

use super::*;

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
HINT: tables are EDGES, FEATURES, ENTITIES, larql.caches, larql.indexes, larql.mounts, larql.relations, larql.sessions, larql.settings, larql.statements, larql.tables, larql.wal
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
