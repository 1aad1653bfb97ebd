//! The shell as a person at a terminal sees it: `larql` in a pseudo-terminal, its screen drawn as a
//! terminal would draw it.

use std::process::Command;

use larql_client::shell::commands::COMMANDS;
use larql_tests::home::{Home, daemons_of, eventually};
use larql_tests::random_checkpoint::{self, Size};
use larql_tests::terminal::{ARROW_UP, CTRL_C, CTRL_D, TAB, Terminal};

const ROWS: u16 = 30;
const COLUMNS: u16 = 100;

/// A shell on that data directory, at its first prompt.
fn shell(home: &Home, arguments: &[&str]) -> Terminal {
    shell_from(&mut home.command(arguments))
}

fn shell_from(command: &mut Command) -> Terminal {
    let terminal = Terminal::start(command, ROWS, COLUMNS);
    terminal.wait_for_prompt("larql=>");
    terminal
}

/// A shell that has the bundled model in use.
fn shell_on_atlas(home: &Home) -> Terminal {
    let mut terminal = shell(home, &[]);
    terminal.ask("USE \"atlas\";", "atlas=>");
    terminal
}

/// A file of statements in the test's own directory; its name.
fn script(home: &Home, name: &str, text: &str) -> String {
    std::fs::write(home.scratch().join(name), text).expect("a script");
    name.to_owned()
}

#[test]
fn the_first_screen_names_version_server_and_help_and_ends_in_a_prompt() {
    let home = Home::new();
    let terminal = shell(&home, &[]);
    let version = env!("CARGO_PKG_VERSION");
    let screen = terminal.screen();
    let lines: Vec<&str> = screen.trim_end().lines().collect();
    assert!(lines[0].starts_with("larql: starting larqld for "), "{screen}");
    let greeting = lines.iter().position(|line| line.starts_with("larql 0")).expect("a greeting");
    let expected = format!("larql {version}, connected to larqld {version} at unix://");
    assert!(lines[greeting].starts_with(&expected), "{screen}");
    assert!(screen.contains("Type \\? for help, \\q to leave"), "{screen}");
    // Nothing was asked of the terminal: such a question would show as an answer typed in.
    assert!(!terminal.bytes().contains("\x1b[6n"));
}

#[test]
fn a_quiet_shell_shows_its_prompt_alone() {
    let home = Home::new();
    home.larql(&["list"]).succeeded();
    let terminal = shell(&home, &["-q"]);
    assert_eq!(terminal.screen().trim_end(), "larql=>");
}

#[test]
fn a_statement_spans_lines_until_its_semicolon() {
    let home = Home::with_atlas();
    let mut terminal = shell_on_atlas(&home);
    terminal.ask("SELECT layer, feature", "atlas->");
    terminal.ask("FROM FEATURES -- not yet; not yet", "atlas->");
    terminal.ask("WHERE layer = 3 LIMIT 2", "atlas->");
    terminal.ask(";", "atlas=>");
    let lines = terminal.lines_from("layer | feature");
    assert_eq!(lines[0].trim_end(), " layer | feature");
    assert_eq!(lines[1], "-------+---------");
    assert_eq!(lines[2], "     3 |       0");
    assert_eq!(lines[3], "     3 |       1");
    assert!(lines[4].starts_with("(2 rows, "), "{lines:?}");
    assert!(lines[4].contains("main@0)"), "{lines:?}");
}

#[test]
fn a_semicolon_inside_a_string_does_not_end_the_statement() {
    let home = Home::with_atlas();
    let mut terminal = shell_on_atlas(&home);
    terminal.ask("DESCRIBE \"a; b", "atlas->");
    terminal.ask("\\q is text here", "atlas->");
    terminal.ask("\";", "atlas=>");
    assert!(terminal.screen().contains("(0 rows, "), "{}", terminal.screen());
}

#[test]
fn several_statements_on_one_line_answer_in_order() {
    let home = Home::with_atlas();
    let mut terminal = shell(&home, &[]);
    terminal.ask("USE \"atlas\"; SHOW FEATURES 1 LIMIT 1; SHOW FEATURES 2 LIMIT 1;", "atlas=>");
    let screen = terminal.screen();
    assert_eq!(screen.matches("(1 row, ").count(), 2, "{screen}");
}

#[test]
fn arrow_up_brings_the_last_statement_back() {
    let home = Home::with_atlas();
    let mut terminal = shell_on_atlas(&home);
    terminal.ask("SELECT feature", "atlas->");
    terminal.ask("FROM FEATURES LIMIT 1;", "atlas=>");
    terminal.press(ARROW_UP);
    terminal.wait_until("the statement is back, both lines of it", |terminal| {
        let screen = terminal.screen();
        screen.trim_end().ends_with("SELECT feature\nFROM FEATURES LIMIT 1;")
    });
    terminal.press("\r");
    terminal.wait_for_prompt("atlas=>");
    assert_eq!(terminal.screen().matches("(1 row, ").count(), 2, "{}", terminal.screen());
    // Twice to the first line of the entry, a third time to the entry before it: what was repeated
    // stands once.
    terminal.press(&ARROW_UP.repeat(3));
    terminal.wait_until("the entry before it is back", |terminal| {
        terminal.screen().trim_end().ends_with("atlas=> USE \"atlas\";")
    });
}

#[test]
fn the_history_survives_into_the_next_shell_even_when_the_first_was_killed() {
    let home = Home::new();
    let mut first = shell(&home, &[]);
    first.ask("SHOW MOUNTS;", "larql=>");
    drop(first);
    assert!(home.data_dir().join("history").is_file());
    let mut second = shell(&home, &[]);
    second.press(ARROW_UP);
    second.wait_for("larql=> SHOW MOUNTS;");
}

#[test]
fn the_history_is_kept_where_the_environment_says() {
    let home = Home::new();
    let path = home.scratch().join("my history");
    let mut terminal = shell_from(home.command(&[]).env("LARQL_HISTORY", &path));
    terminal.ask("\\l", "larql=>");
    assert!(std::fs::read_to_string(path).expect("a history").contains("\\\\l"));
    assert!(!home.data_dir().join("history").exists());
}

#[test]
fn tab_completes_keywords_commands_and_mounted_names() {
    let home = Home::with_atlas();
    let mut terminal = shell(&home, &[]);
    for (typed, completed) in [
        ("DESCRI", "DESCRIBE"),
        ("show lay", "show layer"),
        ("USE \"at", "USE \"atlas\""),
        ("USE ", "USE \"atlas\""),
        ("UNMOUNT at", "UNMOUNT atlas"),
        ("\\ti", "\\timing"),
        ("\\c at", "\\c atlas"),
        ("\\f ndj", "\\f ndjson"),
    ] {
        terminal.press(typed);
        terminal.press(TAB);
        let line = format!("larql=> {completed}");
        terminal.wait_until(&format!("{typed:?} becomes {completed:?}"), |terminal| {
            terminal.screen().trim_end().ends_with(&line)
        });
        terminal.press(CTRL_C);
        terminal.wait_for_prompt("larql=>");
    }
}

#[test]
fn a_second_tab_lists_what_is_possible() {
    let home = Home::new();
    let mut terminal = shell(&home, &[]);
    terminal.press("SHOW LAY");
    terminal.press(TAB);
    terminal.wait_for("SHOW LAYER");
    terminal.press(TAB);
    terminal.press(TAB);
    terminal.wait_until("both keywords are listed", |terminal| {
        terminal.screen().lines().any(|line| line.split_whitespace().eq(["LAYER", "LAYERS"]))
    });
    terminal.press(CTRL_C);
    terminal.wait_for_prompt("larql=>");
    terminal.press("\\");
    terminal.press(TAB);
    terminal.press(TAB);
    terminal.wait_until("every command is listed", |terminal| {
        let screen = terminal.screen();
        COMMANDS.iter().all(|command| {
            let name = format!("\\{}", command.name);
            screen.lines().any(|line| line.split_whitespace().any(|word| word == name))
        })
    });
}

#[test]
fn ctrl_c_stops_a_running_script_and_the_session_goes_on() {
    let home = Home::with_atlas();
    let mut terminal = shell_on_atlas(&home);
    terminal.ask("SET infer_top = 1;", "atlas=>");
    // More work than the test has patience for.
    let long = "INFER \"The capital of France is\";\n".repeat(50_000);
    let name = script(&home, "long.lql", &long);
    terminal.ask("\\pager off", "atlas=>");
    terminal.enter(&format!("\\i {name}"));
    terminal.wait_for("Paris");
    terminal.press(CTRL_C);
    terminal.wait_for_prompt("atlas=>");
    terminal.wait_for("ERROR 57014: the statement was cancelled");
    // USE and SET of the session are still there.
    terminal.ask("SHOW SETTING infer_top;", "atlas=>");
    terminal.ask("SHOW FEATURES 1 LIMIT 1;", "atlas=>");
    terminal.wait_for("(1 row, ");
    terminal.press(CTRL_D);
    assert_eq!(terminal.wait().code(), Some(0));
}

#[test]
fn ctrl_c_stops_one_long_statement_while_its_progress_shows() {
    let home = Home::new();
    let checkpoint = home.scratch().join("slow");
    random_checkpoint::write(&checkpoint, Size::SLOW, 7);
    let mut terminal = shell(&home, &[]);
    terminal.enter("EXTRACT MODEL \"slow\" INTO \"slow.vindex\" WITH INFERENCE;");
    terminal.wait_until("a bar shows", |terminal| terminal.before_cursor().contains('█'));
    terminal.press(CTRL_C);
    terminal.wait_for_prompt("larql=>");
    let lines = terminal.lines_from("EXTRACT");
    assert_eq!(lines[1], "ERROR 57014: the statement was cancelled", "{lines:?}");
    assert!(!home.scratch().join("slow.vindex").exists(), "half a vindex is there");
    terminal.ask("SHOW MOUNTS;", "larql=>");
    terminal.wait_for("(0 rows, ");
}

#[test]
fn ctrl_c_at_the_prompt_drops_what_was_typed() {
    let home = Home::new();
    let mut terminal = shell(&home, &[]);
    terminal.press("SHOW NONSENSE");
    terminal.wait_for("SHOW NONSENSE");
    terminal.press(CTRL_C);
    terminal.wait_for_prompt("larql=>");
    terminal.ask("SHOW NONSENSE", "larql->");
    terminal.press(CTRL_C);
    terminal.wait_for_prompt("larql=>");
    terminal.ask("SHOW MOUNTS;", "larql=>");
    terminal.wait_for("(0 rows, ");
    assert!(!terminal.screen().contains("ERROR"), "{}", terminal.screen());
}

#[test]
fn every_way_to_leave_ends_with_exit_code_zero() {
    let home = Home::new();
    home.larql(&["list"]).succeeded();
    for keys in ["\\q\r", "exit\r", "quit;\r", CTRL_D] {
        let mut terminal = shell(&home, &[]);
        terminal.press(keys);
        assert_eq!(terminal.wait().code(), Some(0), "{keys:?}");
    }
    // A statement that failed is no reason for another code: somebody saw it.
    let mut terminal = shell(&home, &[]);
    terminal.ask("NONSENSE;", "larql=>");
    terminal.press(CTRL_D);
    assert_eq!(terminal.wait().code(), Some(0));
    assert_eq!(home.daemons().len(), 1, "the daemon serves the next client");
}

#[test]
fn the_help_lists_every_command_and_explains_each() {
    let home = Home::new();
    let mut terminal = shell(&home, &[]);
    terminal.ask("\\?", "larql=>");
    let screen = terminal.screen();
    for command in COMMANDS {
        let usage = format!("\\{} {}", command.name, command.arguments);
        let line = screen.lines().find(|line| line.trim_start().starts_with(usage.trim_end()));
        let line = line.unwrap_or_else(|| panic!("{usage} is not in:\n{screen}"));
        assert!(line.ends_with(command.short), "{line}");
    }
    for command in COMMANDS {
        terminal.ask(&format!("\\? {}", command.name), "larql=>");
        terminal.wait_for(command.short);
    }
}

#[test]
fn list_detail_and_use_show_what_is_mounted() {
    let home = Home::with_atlas();
    let mut terminal = shell(&home, &[]);
    terminal.ask("\\x on", "larql=>");
    terminal.ask("\\l", "larql=>");
    let lines = terminal.lines_from("name ");
    assert!(lines[0].ends_with("| atlas"), "{lines:?}");
    terminal.ask("\\x off", "larql=>");
    terminal.ask("\\d", "larql=>");
    terminal.wait_for("ERROR 3F000");
    terminal.ask("\\d atlas", "larql=>");
    terminal.wait_for("vocabulary_size    | 4096");
    terminal.ask("\\c atlas", "atlas=>");
    terminal.ask("\\d", "atlas=>");
    terminal.wait_for("features_with_tokens");
    terminal.ask("\\c nonsense", "atlas=>");
    terminal.wait_for("ERROR 42704: nothing is mounted as \"nonsense\"");
    terminal.ask("UNMOUNT atlas;", "larql=>");
}

#[test]
fn a_table_wider_than_the_terminal_is_drawn_as_fields_unless_told_otherwise() {
    let home = Home::with_atlas();
    let mut terminal = shell(&home, &[]);
    terminal.ask("\\pager off", "larql=>");
    terminal.ask("SHOW MOUNTS;", "larql=>");
    let lines = terminal.lines_from("SHOW MOUNTS;");
    assert!(lines[1].contains("[ RECORD 1 ]"), "{lines:?}");
    assert!(lines.iter().all(|line| line.chars().count() < COLUMNS.into()), "{lines:?}");
    terminal.ask("\\x", "larql=>");
    terminal.wait_for("expanded display is on");
    terminal.ask("STATS \"atlas\" ;", "larql=>");
    terminal.wait_for("RECORD 20");
    terminal.ask("\\x", "larql=>");
    terminal.wait_for("expanded display is auto");
    terminal.ask("STATS \"atlas\";", "larql=>");
    terminal.wait_for(" name               | value");
    terminal.ask("\\x off", "larql=>");
    terminal.ask("\\l", "larql=>");
    terminal.wait_for(" name  | path ");
}

#[test]
fn timing_adds_the_time_as_seen_from_here() {
    let home = Home::new();
    let mut terminal = shell(&home, &[]);
    terminal.ask("\\timing", "larql=>");
    terminal.wait_for("timing is on");
    terminal.ask("SHOW MOUNTS;", "larql=>");
    let lines = terminal.lines_from("(0 rows");
    let time = lines[1].strip_prefix("Time: ").and_then(|line| line.strip_suffix(" ms"));
    assert!(time.is_some_and(|time| time.parse::<f64>().is_ok_and(|time| time > 0.0)), "{lines:?}");
    terminal.ask("\\timing off", "larql=>");
    terminal.ask("SHOW MOUNTS;", "larql=>");
    assert_eq!(terminal.screen().matches("Time: ").count(), 1, "{}", terminal.screen());
}

#[test]
fn answers_go_to_a_file_and_summaries_stay_on_the_screen() {
    let home = Home::with_atlas();
    let mut terminal = shell_on_atlas(&home);
    terminal.ask("\\f csv", "atlas=>");
    terminal.ask("\\o answers.csv", "atlas=>");
    terminal.ask("SELECT layer, feature FROM FEATURES WHERE layer = 2 LIMIT 2;", "atlas=>");
    terminal.wait_for("(2 rows, ");
    terminal.ask("\\o", "atlas=>");
    terminal.ask("SELECT feature FROM FEATURES WHERE layer = 2 LIMIT 1;", "atlas=>");
    let file = std::fs::read_to_string(home.scratch().join("answers.csv")).expect("a file");
    assert_eq!(file, "layer,feature\r\n2,0\r\n2,1\r\n");
    assert!(!terminal.screen().contains("layer,feature"), "{}", terminal.screen());
    terminal.ask("\\o no/such/directory/x", "atlas=>");
    terminal.wait_for("could not create no/such/directory/x");
}

#[test]
fn an_included_file_runs_commands_and_statements_until_one_fails() {
    let home = Home::with_atlas();
    let text = "\\c atlas\nSHOW FEATURES 1\n  LIMIT 1;\nSELECT * FROM NOWHERE;\nSHOW LAYERS;\n";
    let name = script(&home, "tour.lql", text);
    let mut terminal = shell(&home, &[]);
    terminal.ask(&format!("\\i {name}"), "atlas=>");
    let lines = terminal.lines_from("ERROR");
    assert_eq!(lines[0], "ERROR 42P01: there is no table \"NOWHERE\"");
    assert_eq!(lines[1], "LINE 4: SELECT * FROM NOWHERE;");
    assert_eq!(lines[2].find("^^^^^^^"), lines[1].find("NOWHERE"), "{lines:?}");
    let screen = terminal.screen();
    assert!(screen.contains("(1 row, "), "{screen}");
    assert!(!screen.contains("features_with_tokens"), "went on after the error:\n{screen}");
    terminal.ask("\\i no-such-file", "atlas=>");
    terminal.wait_for("could not read no-such-file");
    let circle = script(&home, "circle.lql", "\\i circle.lql\n");
    terminal.ask(&format!("\\i {circle}"), "atlas=>");
    terminal.wait_for("files include one another");
}

#[test]
fn an_error_shows_code_line_and_caret_and_the_shell_goes_on() {
    let home = Home::new();
    let mut terminal = shell(&home, &[]);
    terminal.ask("SHOW MOUNTS;", "larql=>");
    terminal.ask("DESCRIBE", "larql->");
    terminal.ask("  \"Zürich 東京\" NOW;", "larql=>");
    let lines = terminal.lines_from("ERROR");
    assert!(lines[0].starts_with("ERROR 42601: "), "{lines:?}");
    assert_eq!(lines[1], "LINE 2:   \"Zürich 東京\" NOW;");
    // Columns of the screen: each of the two characters takes two.
    let column = "LINE 2:   \"Zürich ".chars().count() + 4 + "\" ".len();
    assert_eq!(lines[2], format!("{}^^^", " ".repeat(column)), "{lines:?}");
    terminal.ask("SHOW MOUNTS;", "larql=>");
    assert_eq!(terminal.screen().matches("(0 rows, ").count(), 2);
}

#[test]
fn an_unknown_command_points_to_help_and_the_shell_goes_on() {
    let home = Home::new();
    let mut terminal = shell(&home, &[]);
    terminal.ask("\\nonsense", "larql=>");
    terminal.wait_for("there is no command \\nonsense; \\? lists them");
    terminal.ask("\\f nonsense", "larql=>");
    terminal.wait_for("there is no format \"nonsense\"");
    terminal.ask("SHOW MOUNTS;", "larql=>");
    terminal.wait_for("(0 rows, ");
}

#[test]
fn an_answer_longer_than_the_screen_goes_through_the_pager() {
    let home = Home::with_atlas();
    let mut command = home.command(&[]);
    let mut terminal = shell_from(command.env("PAGER", "tail -n 3 | sed 's/^/paged:/'"));
    terminal.ask("\\c atlas", "atlas=>");
    let statement = "SELECT layer, feature FROM FEATURES WHERE layer = 2";
    terminal.ask(&format!("{statement} LIMIT 5;"), "atlas=>");
    assert!(!terminal.screen().contains("paged:"), "{}", terminal.screen());
    terminal.ask(&format!("{statement};"), "atlas=>");
    let lines = terminal.lines_from("paged:");
    assert_eq!(lines[0], "paged:     2 |    1023");
    assert!(lines[1].starts_with("(1024 rows, "), "{lines:?}");
    terminal.ask("\\pager off", "atlas=>");
    terminal.ask(&format!("{statement} LIMIT 100;"), "atlas=>");
    let lines = terminal.lines_from("     2 |      99");
    assert!(!lines[0].contains("paged:"), "{lines:?}");
}

#[test]
fn a_reader_who_leaves_the_pager_early_is_back_at_the_prompt() {
    let home = Home::with_atlas();
    let mut terminal = shell_from(home.command(&[]).env("PAGER", "head -n 1"));
    terminal.ask("\\c atlas", "atlas=>");
    terminal.ask("SELECT * FROM FEATURES;", "atlas=>");
    assert!(!terminal.screen().contains("ERROR"), "{}", terminal.screen());
    terminal.ask("SHOW FEATURES 1 LIMIT 1;", "atlas=>");
    terminal.wait_for("(1 row, ");
}

#[test]
fn a_daemon_that_dies_is_told_clearly_and_the_next_statement_connects_again() {
    let home = Home::with_atlas();
    let mut terminal = shell_on_atlas(&home);
    home.signal(libc::SIGKILL);
    home.wait_until_no_daemon_runs();
    terminal.ask("SHOW LAYERS;", "larql=>");
    let lines = terminal.lines_from("ERROR");
    assert!(lines[0].starts_with("ERROR 08006: lost the connection to the daemon"), "{lines:?}");
    terminal.wait_for("the next statement connects again");
    terminal.ask("USE \"atlas\";", "atlas=>");
    terminal.wait_for("larql: starting larqld for ");
    terminal.ask("SHOW FEATURES 1 LIMIT 1;", "atlas=>");
    terminal.wait_for("(1 row, ");
}

#[test]
fn a_daemon_that_dies_under_a_running_statement_does_not_take_the_shell_along() {
    let home = Home::with_atlas();
    let mut terminal = shell_on_atlas(&home);
    let long = "INFER \"The capital of France is\";\n".repeat(50_000);
    let name = script(&home, "long.lql", &long);
    terminal.ask("\\pager off", "atlas=>");
    terminal.enter(&format!("\\i {name}"));
    terminal.wait_for("Paris");
    home.signal(libc::SIGKILL);
    terminal.wait_for_prompt("larql=>");
    terminal.wait_for("ERROR 08006: lost the connection to the daemon");
    terminal.ask("\\c atlas", "atlas=>");
}

#[test]
fn without_leave_to_start_a_daemon_the_shell_says_so_and_stays() {
    let home = Home::with_atlas();
    let mut terminal = shell(&home, &["--no-start"]);
    home.signal(libc::SIGTERM);
    home.wait_until_no_daemon_runs();
    terminal.ask("SHOW MOUNTS;", "larql=>");
    terminal.wait_for("ERROR 08006");
    terminal.ask("SHOW MOUNTS;", "larql=>");
    terminal.wait_for("ERROR 08001: could not reach a daemon");
    terminal.wait_for("leave out --no-start");
    assert!(home.daemons().is_empty());
    home.larql(&["list"]).succeeded();
    terminal.ask("\\c atlas", "atlas=>");
}

#[test]
fn a_shell_that_finds_no_daemon_ends_with_exit_code_two() {
    let home = Home::new();
    let mut terminal = Terminal::start(&mut home.command(&["--no-start"]), ROWS, COLUMNS);
    assert_eq!(terminal.wait().code(), Some(2));
    terminal.wait_for("ERROR 08001: could not reach a daemon");
    assert!(!home.data_dir().exists());
}

#[test]
fn what_is_typed_is_coloured_unless_told_otherwise() {
    let home = Home::new();
    let mut terminal = shell(&home, &[]);
    terminal.press("DESCRIBE \"x\" 12 word");
    terminal.wait_for("word");
    let plain = (false, vt100::Color::Default);
    assert!(terminal.style_of("DESCRIBE").0, "keywords are bold");
    assert_eq!(terminal.style_of("\"x\"").1, vt100::Color::Idx(2));
    assert_eq!(terminal.style_of("12").1, vt100::Color::Idx(6));
    assert_eq!(terminal.style_of("word"), plain);

    let no_color = shell(&home, &["--no-color"]);
    let by_environment = shell_from(home.command(&[]).env("NO_COLOR", "1"));
    for mut terminal in [no_color, by_environment] {
        terminal.ask("NONSENSE \"x\" 12;", "larql=>");
        terminal.ask("SHOW MOUNTS;", "larql=>");
        let bytes = terminal.bytes();
        let styles = bytes.split("\x1b[").skip(1).filter(|rest| {
            let end = rest.find(|c: char| c.is_ascii_alphabetic());
            end.is_some_and(|end| rest[end..].starts_with('m') && !matches!(&rest[..end], "" | "0"))
        });
        assert_eq!(styles.count(), 0, "{bytes:?}");
    }
}

#[test]
fn words_of_every_script_are_typed_and_shown() {
    let home = Home::new();
    let mut terminal = shell(&home, &[]);
    terminal.ask("\\f vertical", "larql=>");
    terminal.ask("MOUNT \"Zürich-東京-Київ\";", "larql=>");
    let lines = terminal.lines_from("ERROR");
    assert!(lines.concat().contains("Zürich-東京-Київ"), "{lines:?}");
}

#[test]
fn progress_shows_while_a_model_is_extracted_and_leaves_no_trace() {
    let home = Home::new();
    let mut terminal = shell(&home, &[]);
    let source = larql_tests::atlas_checkpoint();
    terminal.enter(&format!("EXTRACT MODEL \"{}\" INTO \"a.vindex\";", source.display()));
    terminal.wait_for_prompt("larql=>");
    assert!(terminal.bytes().contains('█'), "no bar was drawn");
    let screen = terminal.screen();
    assert!(!screen.contains('█'), "{screen}");
    assert!(screen.contains("(1 row, "), "{screen}");
}

#[test]
fn two_shells_share_one_daemon_and_have_sessions_of_their_own() {
    let home = Home::with_atlas();
    let mut one = shell_on_atlas(&home);
    let mut other = shell(&home, &[]);
    other.ask("SHOW LAYERS;", "larql=>");
    other.wait_for("ERROR 3F000");
    one.ask("SHOW FEATURES 1 LIMIT 1;", "atlas=>");
    one.wait_for("(1 row, ");
    assert_eq!(home.daemons().len(), 1);
}

#[test]
fn the_demo_with_a_shell_stays_until_the_user_leaves_and_then_leaves_nothing_behind() {
    let home = Home::new();
    let mut command = Command::new(larql_tests::program("larql"));
    command.args(["demo", "--shell"]).env("TMPDIR", home.scratch());
    home.isolate(&mut command);
    let mut terminal = Terminal::start(&mut command, ROWS, COLUMNS);
    terminal.wait_for_prompt("atlas=>");
    terminal.ask("SHOW FEATURES 1 LIMIT 1;", "atlas=>");
    terminal.wait_for("(1 row, ");
    let private = std::fs::read_dir(home.scratch()).expect("the directory").filter_map(Result::ok);
    let private = private.map(|entry| entry.path()).find(|path| path.join("run").is_dir());
    let private = private.expect("a private data directory");
    assert_eq!(daemons_of(&private).len(), 1);
    terminal.press(CTRL_D);
    assert_eq!(terminal.wait().code(), Some(0));
    eventually("the daemon is gone", || daemons_of(&private).is_empty());
    assert!(!private.exists());
}
