//! Every example of the language's pages runs: the blocks marked `lql` in `docs/lql/*.md`, in order, one
//! session a page, on the bundled model in use as `atlas`. Paths are relative to `tests/scripts/files/`.

use larql_client::ExecuteOptions;
use larql_tests::daemon::Daemon;
use larql_tests::repository;

const OPEN: &str = "```lql\n";
const CLOSE: &str = "```\n";

/// The blocks of a page that are marked as statements.
fn examples(page: &str) -> Vec<&str> {
    let blocks = page.split(OPEN).skip(1);
    blocks.map(|block| block.split(CLOSE).next().unwrap_or_default()).collect()
}

#[tokio::test]
async fn every_example_of_the_languages_pages_runs() {
    let files = repository().join("tests/scripts/files").display().to_string();
    let options =
        || ExecuteOptions { working_directory: files.clone(), ..ExecuteOptions::default() };
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let mut run = 0;
    for entry in std::fs::read_dir(repository().join("docs/lql")).expect("docs/lql") {
        let path = entry.expect("an entry").path();
        let page = std::fs::read_to_string(&path).expect("a page");
        let mut client = daemon.client().await;
        client.query("USE \"atlas\"", options()).await.expect("atlas is mounted");
        for example in examples(&page) {
            let answers = client.query(example, options()).await;
            if let Err(error) = answers {
                panic!("{}: {error} ({})\n{example}", path.display(), error.hint);
            }
            run += 1;
        }
    }
    assert!(run > 0, "docs/lql holds no example");
}
