//! What interrupts EXTRACT: destinations, rivals, kills and full disks.

use super::*;

#[tokio::test]
async fn a_destination_that_exists_is_kept() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("v.vindex");
    daemon.extract(&llama2(), &path, "").await;
    let before = contents(&path);
    let extract = |destination: &Path| {
        format!("EXTRACT MODEL \"{}\" INTO \"{}\"", llama2().display(), destination.display())
    };
    let error = refused(&daemon, &extract(&path), "42P07", &["v.vindex"]).await;
    assert!(error.hint.contains("OVERWRITE"), "{}", error.hint);
    assert_eq!(contents(&path), before);
    // Somebody's documents are no vindex to be replaced.
    let documents = daemon.data_dir().join("documents");
    fs::create_dir(&documents).expect("a directory");
    fs::write(documents.join("thesis.txt"), "years").expect("a file");
    let script = format!("{} OVERWRITE", extract(&documents));
    refused(&daemon, &script, "42P07", &["documents", "not a vindex"]).await;
    assert_eq!(fs::read(documents.join("thesis.txt")).expect("the file"), b"years");
}

#[tokio::test]
async fn of_two_extracts_to_one_destination_one_wins_and_the_other_is_told() {
    let daemon = Daemon::start();
    let source = daemon.data_dir().join("slow");
    let size =
        Size { layers: 4, hidden: 256, features: 2048, experts: 0, vocabulary: 4000, context: 64 };
    random_checkpoint::write(&source, size, 3);
    let destination = daemon.data_dir().join("v.vindex");
    let script = format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" WITH ALL WITHOUT LABELS",
        source.display(),
        destination.display()
    );
    let mut client = daemon.client().await;
    let mut first = client.execute(&script, ExecuteOptions::here());
    until_stage(&mut first, "weights").await;
    let error = refused(&daemon, &script, "55006", &["v.vindex"]).await;
    assert!(error.hint.contains("wait"), "{}", error.hint);
    refused(&daemon, &format!("{script} OVERWRITE RESUME"), "55006", &["v.vindex"]).await;
    while let Some(event) = timeout(PATIENCE, first.next()).await.expect("an event") {
        assert!(!matches!(event, Event::Error(_)), "{event:?}");
    }
    let verify = format!("VERIFY VINDEX \"{}\"; USE \"v\"", destination.display());
    daemon.query(&verify).await.expect("the winner's vindex is whole");
}

/// Reads events until the job reports that stage.
async fn until_stage(statements: &mut larql_client::Statements<'_>, stage: &str) {
    loop {
        match timeout(PATIENCE, statements.next()).await.expect("an event") {
            Some(Event::Progress(progress)) if progress.stage == stage => return,
            Some(Event::Error(error)) => panic!("{error}"),
            Some(_) => {}
            None => panic!("the job ended before {stage}"),
        }
    }
}

/// The bytes that an undisturbed EXTRACT of the bundled model makes.
async fn undisturbed(directory: &Path) -> PathBuf {
    undisturbed_with(directory, &atlas_checkpoint(), "WITH ALL").await
}

async fn undisturbed_with(directory: &Path, source: &Path, options: &str) -> PathBuf {
    let daemon = Daemon::start();
    let path = directory.join("undisturbed.vindex");
    daemon.extract(source, &path, options).await;
    path
}

#[tokio::test]
async fn a_killed_extract_leaves_nothing_that_mounts_and_resumes_to_the_same_bytes() {
    assert_killed_extract_resumes(&atlas_checkpoint(), "WITH ALL", 4).await;
}

#[tokio::test]
async fn a_killed_quantising_extract_resumes_to_the_same_bytes() {
    assert_killed_extract_resumes(&atlas_checkpoint(), "WITH ALL QUANT Q4K", 4).await;
}

#[tokio::test]
async fn a_killed_extract_of_experts_resumes_to_the_same_bytes() {
    let source = repository().join("tests/goldens/gpt_oss_mxfp4");
    assert_killed_extract_resumes(&source, "WITH ALL DTYPE SOURCE", 1).await;
}

#[tokio::test]
async fn a_killed_extract_of_a_gguf_file_resumes_to_the_same_bytes() {
    let source = repository().join("tests/goldens/llama_k_quants/llama_k_quants-q4_k_m.gguf");
    assert_killed_extract_resumes(&source, "WITH ALL QUANT FP4", 1).await;
}

/// `least`: of the kills, how many must come before the job is done.
async fn assert_killed_extract_resumes(source: &Path, options: &str, least: usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let expected = undisturbed_with(directory.path(), source, options).await;
    let destination = directory.path().join("v.vindex");
    let script = format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" {options} WITHOUT LABELS",
        source.display(),
        destination.display()
    );
    let data_dir = directory.path().join("data");
    let mut interrupted = 0;
    let moments = [
        ("reading", 1),
        ("weights", 1),
        ("weights", 50),
        ("features", 1),
        ("features", 3),
        ("features", 6),
        ("syncing", 1),
    ];
    for (round, (stage, count)) in moments.into_iter().enumerate() {
        let mut daemon = Daemon::start_in(&data_dir, &[]);
        kill_at(&mut daemon, &script, stage, count).await;
        let finished = destination.exists();
        drop(daemon);
        let daemon = Daemon::start_in(&data_dir, &[]);
        if !finished {
            interrupted += 1;
            for suffix in ["", ".partial", ".lock"] {
                let path = format!("{}{suffix}", destination.display());
                for statement in ["USE", "MOUNT", "VERIFY VINDEX"] {
                    let answer = daemon.query(&format!("{statement} \"{path}\"")).await;
                    let error =
                        answer.err().unwrap_or_else(|| panic!("{statement} {path} succeeded"));
                    assert!(["58P01", "0A001"].contains(&&*error.code), "{error}");
                }
            }
            let options = if round % 2 == 0 { " RESUME" } else { "" };
            let again = daemon.query(&format!("{script}{options}")).await;
            again.unwrap_or_else(|error| panic!("{stage} {count}{options}: {error}"));
        }
        if finished {
            // A vindex is whole before its indexes are made; ANALYZE makes those that are missing. What
            // was killed meanwhile may leave the file of its lock, which locks nothing.
            let analyze = format!("USE \"{}\"; ANALYZE", destination.display());
            daemon.query(&analyze).await.unwrap_or_else(|error| panic!("{analyze}: {error}"));
            for name in ["labels", "targets"] {
                let _ = fs::remove_file(destination.join(format!("{name}.index.lock")));
            }
        }
        assert_same_files(&destination, &expected);
        assert!(!directory.path().join("v.vindex.partial").exists());
        // One that was killed at its very end may leave the file of its lock, which locks nothing.
        assert!(finished || !directory.path().join("v.vindex.lock").exists());
        daemon.query("USE \"v\"; INFER \"The capital of France is\"").await.unwrap_or_else(
            |error| {
                assert!(finished, "{error}");
                Vec::new()
            },
        );
        assert_well(&daemon).await;
        let _ = daemon.query("UNMOUNT v").await;
        fs::remove_dir_all(&destination).expect("removed");
    }
    assert!(interrupted >= least, "only {interrupted} of the kills came in time");
}

/// Kills the daemon when the script has reported that stage so often, or has ended.
async fn kill_at(daemon: &mut Daemon, script: &str, stage: &str, count: usize) {
    let mut client = daemon.client().await;
    let mut statements = client.execute(script, ExecuteOptions::here());
    let mut left = count;
    while left > 0 {
        match timeout(PATIENCE, statements.next()).await.expect("an event") {
            Some(Event::Progress(progress)) if progress.stage == stage => left -= 1,
            Some(Event::Error(error)) => panic!("{error}"),
            Some(_) => {}
            None => break,
        }
    }
    daemon.kill();
}

#[tokio::test]
async fn a_staging_directory_of_other_options_is_not_resumed() {
    let directory = tempfile::tempdir().expect("a directory");
    let destination = directory.path().join("v.vindex");
    let extract = |options: &str| {
        format!(
            "EXTRACT MODEL \"{}\" INTO \"{}\" {options}",
            atlas_checkpoint().display(),
            destination.display()
        )
    };
    let data_dir = directory.path().join("data");
    let mut daemon = Daemon::start_in(&data_dir, &[]);
    kill_at(&mut daemon, &extract("WITH ALL WITHOUT LABELS"), "features", 3).await;
    drop(daemon);
    let daemon = Daemon::start_in(&data_dir, &[]);
    let error = refused(&daemon, &extract("DTYPE F32 RESUME"), "22023", &["v.vindex"]).await;
    assert!(error.hint.contains("RESUME"), "{}", error.hint);
    daemon.query(&extract("DTYPE F32")).await.expect("without RESUME it starts over");
}

/// Gives this thread mounts of its own and returns a small file system; `None` where the user may not.
pub(super) fn small_file_system(at: &Path, bytes: u64) -> Option<SmallFileSystem> {
    // SAFETY: unshare takes flags only; the calling thread gets file system state of its own.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    if !unshared {
        return None;
    }
    // SAFETY: the strings are NUL-terminated and outlive the call; source and data may be null here.
    let private = unsafe {
        libc::mount(
            std::ptr::null(),
            c"/".as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        )
    };
    let file_system = SmallFileSystem { at: at.to_owned() };
    (private == 0 && file_system.mount(bytes, 0)).then_some(file_system)
}

/// A tmpfs of this thread and the processes that it starts.
pub(super) struct SmallFileSystem {
    at: PathBuf,
}

impl SmallFileSystem {
    fn mount(&self, bytes: u64, flags: libc::c_ulong) -> bool {
        let at = CString::new(self.at.as_os_str().as_bytes()).expect("a path");
        let size = CString::new(format!("size={bytes}")).expect("text");
        let kind = c"tmpfs".as_ptr();
        // SAFETY: every string is NUL-terminated and outlives the call.
        unsafe { libc::mount(kind, at.as_ptr(), kind, flags, size.as_ptr().cast()) == 0 }
    }

    pub(super) fn resize(&self, bytes: u64) {
        assert!(self.mount(bytes, libc::MS_REMOUNT), "remount");
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let at = CString::new(self.at.as_os_str().as_bytes()).expect("a path");
        // SAFETY: the string is NUL-terminated and outlives the call.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
    }
}

#[tokio::test]
async fn a_full_disk_stops_extract_with_a_hint_and_resume_completes_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = directory.path().join("small");
    fs::create_dir(&small).expect("a directory");
    let Some(disk) = small_file_system(&small, 4 << 20) else {
        eprintln!("skipped: only root may mount a small file system to fill");
        return;
    };
    let expected = undisturbed(directory.path()).await;
    let daemon = Daemon::start_in(&directory.path().join("data"), &[]);
    let destination = small.join("v.vindex");
    let script = format!(
        "EXTRACT MODEL \"{}\" INTO \"{}\" WITH ALL WITHOUT LABELS",
        atlas_checkpoint().display(),
        destination.display()
    );
    for (megabytes, options) in [(4, ""), (6, " RESUME"), (10, " RESUME"), (14, " RESUME")] {
        disk.resize(megabytes << 20);
        let error = refused(&daemon, &format!("{script}{options}"), "53100", &["v.vindex"]).await;
        assert!(error.hint.contains("RESUME"), "{}", error.hint);
        assert!(!destination.exists());
    }
    disk.resize(64 << 20);
    daemon.query(&format!("{script} RESUME")).await.expect("there is room now");
    assert_same_files(&destination, &expected);
    daemon.query("USE \"v\"; INFER \"The capital of France is\"").await.expect("answers");
    drop(daemon);
}

#[tokio::test]
async fn a_full_data_directory_fails_mounts_and_leaves_statements_answering() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = directory.path().join("small");
    fs::create_dir(&small).expect("a directory");
    let Some(_disk) = small_file_system(&small, 8 << 20) else {
        eprintln!("skipped: only root may mount a small file system to fill");
        return;
    };
    let mut daemon = Daemon::start_in(&small, &[]);
    let vindex = directory.path().join("v.vindex");
    daemon.extract(&llama2(), &vindex, "").await;
    let fill = small.join("fill");
    let mut file = File::create(&fill).expect("a file");
    let block = vec![1; 4096];
    while file.write_all(&block).is_ok() {}
    let mut refusals = 0;
    for number in 0..200 {
        let answer = daemon.query(&format!("MOUNT \"{}\" AS m{number}", vindex.display())).await;
        if let Err(error) = answer {
            assert!(["53100", "58030"].contains(&&*error.code), "{error}");
            assert!(!error.hint.is_empty(), "{error}");
            refusals += 1;
        }
    }
    assert!(refusals > 0, "the disk was not full");
    daemon.query("USE \"v\"; DESCRIBE \"a\"").await.expect("statements that read go on");
    assert!(!daemon.log().contains("panicked"));
    daemon.kill();
    drop(file);
    fs::remove_file(&fill).expect("removed");
    let daemon = Daemon::start_in(&small, &[]);
    daemon.query("USE \"v\"; DESCRIBE \"a\"").await.expect("what was mounted still is");
    assert_well(&daemon).await;
}
