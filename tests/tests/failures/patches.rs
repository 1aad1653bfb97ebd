//! Edits on a disk that is full: attack 52 of the list that the project was given.

use super::extract::small_file_system;
use super::*;

const INSERT: &str = "INSERT INTO EDGES (entity, relation, target) VALUES (\"Peru\", \"capital\", \"Oslo\") \
                      MODE KNN WITHOUT RECEIPT";

#[tokio::test]
async fn attack_52_a_full_disk_loses_no_patch_and_leaves_no_half_of_a_product() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = directory.path().join("small");
    fs::create_dir(&small).expect("a directory");
    let Some(disk) = small_file_system(&small, 1 << 20) else {
        eprintln!("skipped: only root may mount a small file system to fill");
        return;
    };
    let daemon = Daemon::start_in(&directory.path().join("data"), &[]);
    daemon.extract_atlas("WITH INFERENCE").await;
    let filled = small.join("fill");
    let block = vec![1; 4096];
    let mut fill = File::create(&filled).expect("a file");
    while fill.write_all(&block).is_ok() {}
    drop(fill);
    // SAVE PATCH: refused, the transaction is open still, and is saved elsewhere.
    let mut client = daemon.client().await;
    let here = ExecuteOptions {
        working_directory: small.display().to_string(),
        ..ExecuteOptions::default()
    };
    let begun = format!("USE \"atlas\"; BEGIN; {INSERT}");
    client.query(&*begun, here.clone()).await.expect("an edit");
    let refused = client.query("SAVE PATCH AS \"./p.vlp\"", here.clone()).await.expect_err("full");
    assert_eq!(refused.code, "53100", "{refused}");
    assert!(refused.message.contains("p.vlp") && !refused.hint.is_empty(), "{refused}");
    assert!(!small.join("p.vlp").exists() && !small.join("p.vlp.partial").exists());
    let patches = client.query("SHOW PATCHES", here.clone()).await.expect("patches");
    assert!(patches[0].rows.is_empty());
    client.query("SAVE PATCH AS \"kept\"", here.clone()).await.expect("there is room elsewhere");
    // COMPILE: refused, and nothing that could be taken for a product is there.
    for (name, into) in [("model", "MODEL"), ("vindex", "VINDEX")] {
        let product = small.join(name);
        let compile = format!("COMPILE CURRENT INTO {into} \"{}\"", product.display());
        let refused = client.query(&*compile, here.clone()).await.expect_err("full");
        assert_eq!(refused.code, "53100", "{refused}");
        assert!(!refused.hint.is_empty() && !product.exists(), "{refused}");
    }
    let answer = client.query("INFER \"The capital of Peru is\" TOP 1", here.clone()).await;
    answer.expect("the daemon goes on");
    // With room, what was refused is done.
    fs::remove_file(&filled).expect("removed");
    disk.resize(64 << 20);
    let compile = format!("COMPILE CURRENT INTO MODEL \"{}\"", small.join("model").display());
    client.query(&*compile, here).await.expect("there is room now");
    assert_well(&daemon).await;
    drop(daemon);
}
