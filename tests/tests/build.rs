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
        assert!(told.contains("edited facts answered by what was written: 1 of 1"), "{told}");
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
    // What was built is a base like any other, with what it was built of, and not with what was edited since.
    let since =
        "INSERT INTO EDGES (entity, relation, target) VALUES (\"Kaldor\", \"capital\", \"Rome\")";
    assert!(!ask(&mut client, since).await.contains("ERROR"));
    let second = "FROM built\nINSERT (\"Ostrovia\", \"capital\", \"Madrid\")\n";
    fs::write(directory.join("Vindexfile"), second).expect("written");
    let output = build(&daemon, &directory, &["-o", "three", "--verify"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("edited facts answered by what was written: 2 of 2"), "{told}");
    let three = daemon.data_dir().join("three");
    let mount = format!("MOUNT \"{}\" AS again; USE \"again\"", three.display());
    assert!(!ask(&mut client, &mount).await.contains("ERROR"));
    let edges = "SELECT entity, target FROM EDGES WHERE source = \"knn\" ORDER BY entity";
    let edges = ask(&mut client, edges).await;
    assert!(edges.contains("Lisbon") && edges.contains("Madrid"), "{edges}");
    assert!(!edges.contains("Kaldor"), "{edges}");
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

#[tokio::test]
async fn what_a_vindexfile_and_its_base_assert_is_checked_and_told_as_junit() {
    let daemon = Daemon::start();
    daemon.extract_atlas("WITH INFERENCE").await;
    let mut client = daemon.client().await;
    // One that the weights keep, and one that only an edit keeps, which is no part of the build.
    for statement in [
        "USE \"atlas\"",
        "CREATE ASSERTION france AS INFER \"The capital of France is\" = \"Paris\" AT LEAST 0.25",
        "INSERT INTO EDGES (entity, relation, target) VALUES (\"Kaldor\", \"capital\", \"Rome\") \
         MODE KNN WITHOUT RECEIPT",
        "CREATE ASSERTION kaldor AS INFER \"The capital of Kaldor is\" = \"Rome\"",
    ] {
        let told = answer(&mut client, statement, ExecuteOptions::here(), &Masks::default()).await;
        assert!(!told.contains("ERROR"), "{told}");
    }
    let directory = daemon.data_dir().join("recipe");
    fs::create_dir(&directory).expect("created");
    let report = daemon.data_dir().join("report.xml");
    let build = |text: &str, name: &str| {
        fs::write(directory.join("Vindexfile"), text).expect("written");
        let output = build(&daemon, &directory, &["-o", name, "--junit", "report.xml"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let found = fs::read_to_string(&report).expect("a report");
        (output.status.code(), told, found)
    };
    let file = "FROM atlas\nINSERT (\"Verdania\", \"capital\", \"Lisbon\")\n\
                ASSERT verdania \"The capital of Verdania is\" = \"Lisbon\" AT LEAST 0.5\n";
    let (code, told, found) = build(file, "one");
    assert_eq!(code, Some(0), "{told}");
    assert!(found.contains("tests=\"2\" failures=\"0\""), "{found}");
    for name in ["france", "verdania"] {
        assert!(found.contains(&format!("name=\"{name}\"/>")), "{found}");
    }
    assert!(told.contains("kaldor does not hold without the base's edits"), "{told}");
    // What would break an assertion is told, and nothing is built.
    let broken = format!("{file}INSERT (\"France\", \"capital\", \"Berlin\")\n");
    let (code, told, found) = build(&broken, "two");
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("P0004") && told.contains("france"), "{told}");
    assert!(found.contains("tests=\"2\" failures=\"1\""), "{found}");
    assert!(found.contains("name=\"france\"><failure message=\"holds: false"), "{found}");
    assert!(!daemon.data_dir().join("two").exists());
    let (code, told, found) = build("FROM atlas\nPATCH ./missing.vlp\n", "two");
    assert_eq!(code, Some(3), "{told}");
    assert!(found.contains("name=\"BUILD\" tests=\"1\" failures=\"1\""), "{found}");
    let (code, told, found) = build("FROM nothing\n", "two");
    assert_eq!(code, Some(3), "{told}");
    assert!(found.contains("name=\"BUILD\" tests=\"1\" failures=\"1\""), "{found}");
    // A base whose history was forgotten is built from as it was before.
    let compact = "COMPACT MAJOR; INFER \"x\" TOP 1 AS OF LSN 0";
    let told = answer(&mut client, compact, ExecuteOptions::here(), &Masks::default()).await;
    assert!(told.contains("ERROR 72000"), "{told}");
    let (code, told, _) = build(file, "three");
    assert_eq!(code, Some(0), "{told}");
    let [one, three] = ["one", "three"].map(|name| files(&daemon.data_dir().join(name)));
    assert!(one == three, "another vindex");
    let asked = "SHOW BRANCHES |> SELECT name; SHOW ASSERTIONS |> SELECT name";
    let left = answer(&mut client, asked, ExecuteOptions::here(), &Masks::default()).await;
    assert!(left.contains("kaldor") && !left.contains("build_"), "{left}");
    // A report that cannot be written is told before anything is built.
    let output = self::build(&daemon, &directory, &["-o", "four", "--junit", "no/such/report.xml"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!daemon.data_dir().join("four").exists());
}
