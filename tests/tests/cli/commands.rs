//! Commands beside statements.

use super::*;

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
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
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
        "BEGIN;",
        "INSERT INTO EDGES ",
        "ROLLBACK;",
    ] {
        let typed = |line: &str| {
            line.split_once("=> ").is_some_and(|(_, typed)| typed.starts_with(statement))
        };
        assert!(found.stdout.lines().any(typed), "{statement} is not in:\n{}", found.stdout);
    }
    assert!(found.stdout.contains("Paris"), "{}", found.stdout);
    // What is inserted is answered, and after the rollback no more.
    let answers: Vec<&str> = found.stdout.split("INFER \"The capital of Atlantis is\"").collect();
    assert!(answers[1].contains("1 | Athens") && !answers[2].contains("Athens"), "{answers:?}");
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
