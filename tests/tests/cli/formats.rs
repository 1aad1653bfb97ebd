//! The formats of an answer, and what no text can do to the terminal or the statement.

use super::*;

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
    let script = format!("\\o use.txt\nUSE \"words\";\nSET result_cache = off;\n\\o\n{statement};");
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
