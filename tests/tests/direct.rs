//! Browse statements on a checkpoint or GGUF file that is used as it is: the rows that an extraction of it
//! at source precision gives.

use larql_client::{Answer, Value};
use larql_tests::atlas_checkpoint;
use larql_tests::daemon::Daemon;
use larql_tests::goldens::CASES;

const MODELS: [&str; 6] =
    ["llama2", "gemma3", "gemma3/gemma3-q8_0.gguf", "qwen3_moe", "phi2", "gpt_oss_mxfp4"];

const STATEMENTS: [&str; 6] = [
    "WALK \"The capital of France is\" TOP 3",
    "SELECT layer, feature, target, logit, top_tokens FROM FEATURES",
    "SELECT layer, feature, target, logit FROM FEATURES WHERE layer = 1 AND feature IN (3, 4, 7)",
    "SELECT target, gate_score FROM EDGES NEAREST TO \"France\" AT LAYER 1 LIMIT 5",
    "SELECT layer, feature, target, gate_score FROM EDGES WHERE entity = \"France\"",
    "SHOW ENTITIES LIMIT 5",
];

/// The rows, numbers rounded: an extraction decides from the same weights, and may sum elsewhere.
fn rows(answer: &Answer) -> Vec<Vec<String>> {
    let cell = |value: &Value| match value.as_number() {
        Some(number) => format!("{number:.4e}"),
        None => format!("{value:?}"),
    };
    answer.rows.iter().map(|row| row.iter().map(cell).collect()).collect()
}

async fn last_rows(daemon: &Daemon, script: &str) -> Vec<Vec<String>> {
    let answers = daemon.query(script).await;
    let answers = answers.unwrap_or_else(|error| panic!("{script}: {error} ({})", error.hint));
    rows(answers.last().expect("an answer"))
}

#[tokio::test]
async fn a_model_used_directly_is_browsed_as_its_extraction_is() {
    let daemon = Daemon::start();
    let mut seen = 0;
    for name in MODELS {
        let case = CASES.iter().find(|case| case.name() == name);
        let model = case.unwrap_or_else(|| panic!("{name}")).path();
        let vindex = daemon.data_dir().join("vindexes").join(name.replace('/', "-"));
        daemon.extract(&model, &vindex, "DTYPE SOURCE WITHOUT LABELS").await;
        let (model, vindex) = (model.display(), vindex.display());
        for statement in STATEMENTS {
            let ask = |used: String| format!("{used}; SET describe_z = 2; {statement}");
            let direct = last_rows(&daemon, &ask(format!("USE MODEL \"{model}\""))).await;
            let extracted = last_rows(&daemon, &ask(format!("USE \"{vindex}\""))).await;
            assert_eq!(direct, extracted, "{name}: {statement}");
            seen += direct.len();
        }
    }
    assert!(seen > 1000, "{seen} rows");
}

#[tokio::test]
async fn describe_works_without_extraction_and_explain_says_what_it_takes() {
    let daemon = Daemon::start();
    let script = format!("USE MODEL \"{}\"; SET describe_z = 3; ", atlas_checkpoint().display());
    let described = last_rows(&daemon, &format!("{script} DESCRIBE \"France\" ALL LAYERS")).await;
    assert!(!described.is_empty());
    let plan = last_rows(&daemon, &format!("{script} EXPLAIN DESCRIBE \"France\"")).await;
    assert!(format!("{plan:?}").contains("output tokens computed from the weights"), "{plan:?}");
    let plan =
        last_rows(&daemon, &format!("{script} EXPLAIN (FORMAT TEXT) WALK \"x\" MODE PURE")).await;
    assert!(!format!("{plan:?}").contains("computed"), "{plan:?}");
}

#[tokio::test]
async fn a_checkpoint_used_with_auto_extract_becomes_a_vindex_when_it_is_edited() {
    let daemon = Daemon::start();
    let model = daemon.data_dir().join("atlas");
    std::os::unix::fs::symlink(atlas_checkpoint(), &model).expect("a link");
    let insert = "INSERT INTO EDGES (entity, relation, target) VALUES (\"Zorbland\", \"capital\", \"Mirefalls\") \
        MODE KNN WITHOUT RECEIPT";
    let ask = "INFER \"The capital of Zorbland is\" TOP 1";
    let refused = format!("USE MODEL \"{}\"; {insert}", model.display());
    let error = daemon.query(&refused).await.expect_err("nothing is extracted by itself");
    assert_eq!(error.code, "55000", "{error}");
    let used = format!("USE MODEL \"{}\" AUTO_EXTRACT; SHOW MOUNTS", model.display());
    let mut client = daemon.client().await;
    let options = larql_client::ExecuteOptions::here();
    let answers = client.query(used, options.clone()).await.expect("a checkpoint in use");
    assert!(answers[1].rows.is_empty(), "nothing is made before it is needed");
    let answers = client.query(insert, options.clone()).await.expect("an edit");
    let told: Vec<&str> = answers[0].notices.iter().map(|notice| &*notice.message).collect();
    assert!(told.iter().any(|message| message.contains("vindexes/atlas-")), "{told:?}");
    let answers = client.query(ask, options.clone()).await.expect("an answer");
    assert!(format!("{:?}", answers[0].rows).contains("knn"), "{:?}", answers[0].rows);
    drop(client);
    // Another session finds the same vindex, and the edit in it.
    let again = format!("USE MODEL \"{}\" AUTO_EXTRACT; BEGIN; {ask}; ROLLBACK", model.display());
    let answers = daemon.query(&again).await.expect("the vindex is there");
    assert!(format!("{:?}", answers[2].rows).contains("knn"), "{:?}", answers[2].rows);
    let vindexes = std::fs::read_dir(daemon.data_dir().join("vindexes")).expect("a directory");
    assert_eq!(vindexes.count(), 1);
}
