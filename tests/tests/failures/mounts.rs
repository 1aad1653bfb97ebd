//! Files that change or vanish under a mount.

use super::*;

#[tokio::test]
async fn a_file_truncated_while_mounted_fails_its_statements_and_no_others() {
    let daemon = Daemon::start();
    let path = daemon.extract_atlas("WITH INFERENCE").await;
    daemon.extract(&llama2(), &daemon.data_dir().join("other.vindex"), "WITH INFERENCE").await;
    let mut client = daemon.client().await;
    let here = ExecuteOptions::here;
    client.query("USE \"atlas\"; DESCRIBE \"France\"", here()).await.expect("an answer");
    for (name, statement) in [
        ("gate_vectors.bin", "WALK \"France\""),
        ("embeddings.bin", "DESCRIBE \"France\""),
        ("down_features.bin", "INFER \"The capital of France is\""),
        ("attn_weights.bin", "INFER \"The capital of France is\""),
    ] {
        let file = path.join(name);
        let bytes = fs::read(&file).expect("the file");
        let handle = File::options().write(true).open(&file).expect("the file");
        handle.set_len(bytes.len() as u64 / 2).expect("truncated");
        let error = client.query(statement, here()).await.expect_err(name);
        assert_eq!(error.code, "XX001", "{name}: {error}");
        assert!(error.message.contains(name), "{error}");
        assert!(!error.hint.is_empty(), "{error}");
        refused(&daemon, "USE \"atlas\"", "XX001", &[name]).await;
        let other = "USE \"other\"; DESCRIBE \"a\"; INFER \"a\"";
        daemon.query(other).await.expect("the other mount answers");
        // Restored and mounted again, it answers as before, in the session that uses it as well.
        fs::write(&file, &bytes).expect("restored");
        let again =
            format!("UNMOUNT atlas; MOUNT \"{}\"; USE \"atlas\"; {statement}", path.display());
        daemon.query(&again).await.unwrap_or_else(|error| panic!("{again}: {error}"));
        client
            .query(statement, here())
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_file_truncated_under_running_statements_never_kills_the_daemon() {
    let daemon = Daemon::start();
    let path = daemon.extract_atlas("WITH INFERENCE").await;
    let file = path.join("down_features.bin");
    let bytes = fs::read(&file).expect("the file");
    for round in 0..10 {
        let mut client = daemon.client().await;
        let script =
            "USE \"atlas\"; ".to_owned() + &"INFER \"The capital of France is\"; ".repeat(50);
        let answer =
            tokio::spawn(async move { client.query(script, ExecuteOptions::here()).await });
        tokio::time::sleep(Duration::from_millis(20 * round)).await;
        File::options().write(true).open(&file).expect("the file").set_len(4096).expect("cut");
        if let Err(error) = timeout(PATIENCE, answer).await.expect("an end").expect("a task") {
            assert_eq!(error.code, "XX001", "{error}");
        }
        assert_well(&daemon).await;
        fs::write(&file, &bytes).expect("restored");
        let again = format!("UNMOUNT atlas; MOUNT \"{}\"", path.display());
        daemon.query(&again).await.expect("mounted again");
    }
}

#[tokio::test]
async fn a_file_truncated_under_a_running_generation_ends_it_and_no_other() {
    let daemon = Daemon::start();
    let size =
        Size { layers: 3, hidden: 256, features: 2048, experts: 0, vocabulary: 600, context: 4096 };
    let checkpoint = daemon.data_dir().join("long");
    random_checkpoint::write(&checkpoint, size, 3);
    let vindex = daemon.data_dir().join("long.vindex");
    daemon.extract(&checkpoint, &vindex, "WITH INFERENCE").await;
    let (client, other) = (daemon.client().await, daemon.extract_atlas("WITH INFERENCE").await);
    let request = |path: &Path, tokens_max| GenerateRequest {
        model: path.display().to_string(),
        prompt: random_checkpoint::prompt(20),
        tokens_max,
        // Its text does not end by itself.
        logit_bias: vec![(2, -100.0)],
        ..GenerateRequest::default()
    };
    for (path, name) in [(&checkpoint, "model.safetensors"), (&vindex, "down_features.bin")] {
        let file = path.join(name);
        let bytes = fs::read(&file).expect("the file");
        let mut generation = client.generate(request(path, 4000)).await.expect("a generation");
        for _ in 0..3 {
            generation.next().await.expect("a token");
        }
        File::options().write(true).open(&file).expect("the file").set_len(4096).expect("cut");
        let error = loop {
            match timeout(PATIENCE, generation.next()).await.expect("an end") {
                Ok(event) => assert!(!matches!(event, None | Some(GenerateEvent::Done(_)))),
                Err(error) => break error,
            }
        };
        assert_call(&error, "XX001", &[name]);
        assert!(!error.hint.is_empty(), "{error:?}");
        assert_well(&daemon).await;
        generate(&client, request(&other, 5)).await.expect("another model goes on");
        // Restored, it answers again.
        fs::write(&file, &bytes).expect("restored");
        assert_eq!(generate(&client, request(path, 5)).await.expect("a generation"), 5);
    }
}

#[tokio::test]
async fn a_mount_whose_directory_vanished_is_shown_and_explained_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let gone = directory.path().join("gone.vindex");
    let stays = directory.path().join("stays.vindex");
    let data_dir = directory.path().join("data");
    let mut daemon = Daemon::start_in(&data_dir, &[]);
    daemon.extract(&llama2(), &gone, "").await;
    daemon.extract(&llama2(), &stays, "").await;
    daemon.kill();
    fs::rename(&gone, directory.path().join("away")).expect("moved");
    let daemon = Daemon::start_in(&data_dir, &[]);
    let mounts = daemon.query("SHOW MOUNTS").await.expect("mounts").remove(0);
    let shown = format!("{:?}", mounts.rows);
    assert!(shown.contains("gone") && shown.contains("unavailable"), "{shown}");
    assert!(shown.contains("stays"), "{shown}");
    refused(&daemon, "USE \"gone\"", "58P01", &["gone.vindex"]).await;
    daemon.query("USE \"stays\"; DESCRIBE \"a\"").await.expect("the other answers");
    fs::rename(directory.path().join("away"), &gone).expect("moved back");
    let script = format!("MOUNT \"{}\"; USE \"gone\"; DESCRIBE \"a\"", gone.display());
    daemon.query(&script).await.expect("it is back");
    assert_well(&daemon).await;
}
