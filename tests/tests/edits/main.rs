//! Edits through a real daemon: what kills leave of them, who sees them when, and hostile patches.

mod attacks;
mod compiles;
mod isolation;
mod kills;

use std::path::Path;

use larql_client::{Client, ExecuteOptions, Value};
use larql_tests::daemon::Daemon;
use larql_tests::repository;
use larql_tests::script::{Masks, answer};
use serde_json::{Value as Json, json};

/// Paths of statements are below that directory.
fn at(directory: &Path) -> ExecuteOptions {
    ExecuteOptions {
        working_directory: directory.display().to_string(),
        ..ExecuteOptions::default()
    }
}

/// The answer as a golden script shows it.
async fn ask(client: &mut Client, statement: &str, directory: &Path) -> String {
    answer(client, statement, at(directory), &Masks::default()).await
}

/// A session on the bundled model.
async fn session(daemon: &Daemon) -> Client {
    let mut client = daemon.client().await;
    client.query("USE \"atlas\"", ExecuteOptions::default()).await.expect("atlas is mounted");
    client
}

/// A cell that is text.
fn text(value: &Value) -> String {
    let Value::Text(text) = value else { panic!("{value:?} is no text") };
    text.to_string()
}

/// A patch file of the repository, to change.
fn patch(name: &str) -> Json {
    let path = repository().join("tests/scripts/files").join(name);
    let text = std::fs::read_to_string(path).expect("a patch");
    serde_json::from_str(&text).expect("JSON")
}

/// A patch that retrieves a fact and hides a feature: whole, or not at all.
fn fact_and_feature(entity: &str, feature: usize) -> Json {
    let mut patch = patch("capitals.vlp");
    patch["operations"][0]["entity"] = json!(entity);
    patch["operations"][1]["feature"] = json!(feature);
    patch
}

fn write(path: &Path, json: &Json) {
    std::fs::write(path, json.to_string()).expect("the patch is written");
}
