//! `larql build`: what a Vindexfile says is what the vindex knows, byte for byte the same each time, and nothing is
//! left of the build.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use larql_client::ExecuteOptions;
use larql_tests::daemon::Daemon;
use larql_tests::script::{Masks, answer};

const FILE: &str = r#"
FROM atlas            # the base
INSERT ("Verdania", "capital", "Lisbon")
INSERT ('Ostrovia', 'capital', "Madrid")   # "quotes"
DELETE ("Ostrovia", "capital", "Madrid")
PATCH ./motto.vlp
STAGE small
EXPOSE browse
"#;

fn build(daemon: &Daemon, directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(larql_tests::program("larql"));
    let host = format!("unix://{}", daemon.socket().display());
    command.args(["--host", &host, "--no-start", "-F", "ndjson", "build"]);
    command.arg(directory).args(arguments).current_dir(daemon.data_dir());
    command.output().expect("larql runs")
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries =
        fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("readable"))
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_vindexfile_is_built_twice_to_the_same_bytes_and_leaves_no_trace() {
    let daemon = Daemon::start();
    let base = daemon.extract_atlas("WITH INFERENCE").await;
    let before = files(&base);
    let directory = daemon.data_dir().join("recipe");
    fs::create_dir(&directory).expect("created");
    fs::write(directory.join("Vindexfile"), FILE).expect("written");
    let patch = larql_tests::repository().join("tests/scripts/files/rows.vlp");
    fs::copy(patch, directory.join("motto.vlp")).expect("copied");
    // What else is edited is no part of it.
    let mut client = daemon.client().await;
    let ask = async |client: &mut larql_client::Client, text: &str| {
        answer(client, text, ExecuteOptions::here(), &Masks::default()).await
    };
    let other = "USE \"atlas\"; INSERT INTO EDGES (entity, relation, target) \
                 VALUES (\"Kaldor\", \"capital\", \"Rome\") WITHOUT RECEIPT";
    assert!(!ask(&mut client, other).await.contains("ERROR"));
    for name in ["one", "two"] {
        let output = build(&daemon, &directory, &["-o", name, "--verify"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        assert!(told.contains("1 of 1 edited facts"), "{told}");
    }
    let [one, two] = ["one", "two"].map(|name| daemon.data_dir().join(name));
    assert!(files(&one) == files(&two), "two builds differ");
    assert!(files(&base) == before, "the base was written to");
    let branches = ask(&mut client, "SHOW BRANCHES |> SELECT name").await;
    assert!(branches.contains("main") && !branches.contains("build_"), "{branches}");
    let again = build(&daemon, &directory, &["-o", "one"]);
    assert_eq!(again.status.code(), Some(3), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(files(&one) == files(&two));
    // A stage adds what it says.
    let output = build(&daemon, &directory, &["-o", "small", "--stage", "small"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!daemon.data_dir().join("small/attn_weights.bin").exists());
    let mount = format!("MOUNT \"{}\" AS built; USE \"built\"", one.display());
    assert!(!ask(&mut client, &mount).await.contains("ERROR"));
    for (country, city) in [("Verdania", "Lisbon"), ("France", "Paris")] {
        let rows = ask(&mut client, &format!("INFER \"The capital of {country} is\" TOP 1")).await;
        assert!(rows.contains(city), "{rows}");
    }
    let branches = ask(&mut client, "USE \"atlas\"; SHOW BRANCHES |> SELECT name").await;
    assert!(!branches.contains("build_"), "{branches}");
}

#[tokio::test]
async fn a_vindexfile_that_cannot_be_built_says_where_and_leaves_nothing() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let directory = daemon.data_dir().join("recipe");
    fs::create_dir(&directory).expect("created");
    for (text, code, part) in [
        ("FROM atlas\nCOPY x\n", 1, "is no directive"),
        ("FROM nothing\n", 3, "nothing is mounted as"),
        ("FROM atlas\nPATCH ./missing.vlp\n", 3, "missing.vlp"),
        ("FROM atlas\nPATCH /etc/passwd\n", 3, "is no patch"),
        ("FROM atlas\nSTAGE a\n", 1, "stages are a"),
    ] {
        fs::write(directory.join("Vindexfile"), text).expect("written");
        let stage: &[&str] = if text.contains("STAGE") { &["--stage", "b"] } else { &[] };
        let output = build(&daemon, &directory, &[&["-o", "out"], stage].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}: {told}");
        assert!(told.contains(part), "{text}: {told}");
        assert!(!daemon.data_dir().join("out").exists());
    }
    let mut client = daemon.client().await;
    let branches = answer(
        &mut client,
        "USE \"atlas\"; SHOW BRANCHES |> SELECT name",
        ExecuteOptions::here(),
        &Masks::default(),
    )
    .await;
    assert!(!branches.contains("build_"), "{branches}");
    fs::remove_file(directory.join("Vindexfile")).expect("removed");
    let output = build(&daemon, &directory, &[]);
    assert_eq!(output.status.code(), Some(1));
}
