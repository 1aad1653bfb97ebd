//! The golden scripts of `tests/scripts/` (their form: `larql_tests::script`), each against a session
//! of its own on the bundled model, extracted at inference level and in use as `atlas`. Paths are
//! relative to a scratch directory of each file (`larql_tests::script::scratch`).
//!
//! `UPDATE=1 cargo nextest run -p larql-tests --test scripts` rewrites the answers; `SCRIPT=name` runs
//! the files whose name contains it.

use std::path::PathBuf;

use larql_client::ExecuteOptions;
use larql_tests::daemon::Daemon;
use larql_tests::repository;
use larql_tests::script::{
    BEFORE_ANSWERS, BETWEEN_BLOCKS, Masks, answer, same, scratch, statements,
};

fn scripts() -> Vec<PathBuf> {
    let wanted = std::env::var("SCRIPT").unwrap_or_default();
    let entries = std::fs::read_dir(repository().join("tests/scripts")).expect("tests/scripts");
    let mut scripts: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    scripts.retain(|path| {
        path.extension().is_some_and(|end| end == "script")
            && path.file_stem().is_some_and(|name| name.to_string_lossy().contains(&wanted))
    });
    scripts.sort();
    assert!(!scripts.is_empty(), "no script is named {wanted:?}");
    scripts
}

#[tokio::test]
async fn every_script_is_answered_as_it_says() {
    let update = std::env::var_os("UPDATE").is_some();
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let mut wrong = Vec::new();
    for path in scripts() {
        let scratch = scratch();
        let files = scratch.path().canonicalize().expect("a path");
        // What differs from run to run, and what is written instead.
        let places = [
            (files.display().to_string(), "FILES"),
            (daemon.data_dir().display().to_string(), "DATA"),
            (repository().display().to_string(), "REPOSITORY"),
        ];
        let options = || ExecuteOptions {
            working_directory: files.display().to_string(),
            ..ExecuteOptions::default()
        };
        let mut client = daemon.client().await;
        client.query("USE \"atlas\"", options()).await.expect("atlas is mounted");
        let text = std::fs::read_to_string(&path).expect("a script");
        let masks = Masks::of(&text);
        let mut rewritten = Vec::new();
        for block in text.split(BETWEEN_BLOCKS) {
            let (input, expected) = block.split_once(BEFORE_ANSWERS).unwrap_or((block, ""));
            let spans = statements(input);
            let several = spans.len() > 1;
            let mut found = String::new();
            for span in spans {
                let statement = &input[span];
                if several {
                    found += &format!("> {}\n", statement.replace('\n', "\n  "));
                }
                let answer = answer(&mut client, statement, options(), &masks).await;
                found +=
                    &places.iter().fold(answer, |text, (place, name)| text.replace(place, name));
            }
            if !update && !same(&found, expected) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                wrong.push(format!("{name}:\n{input}expected:\n{expected}found:\n{found}"));
            }
            rewritten.push(format!("{}\n{BEFORE_ANSWERS}{}\n", input.trim_end(), found.trim_end()));
        }
        if update {
            std::fs::write(&path, rewritten.join(BETWEEN_BLOCKS)).expect("the script is written");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
