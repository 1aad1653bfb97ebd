//! Files that are not what they should be: missing, cut, flipped, links, other versions.

use super::*;

#[tokio::test]
async fn a_path_that_does_not_exist_is_named() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("nowhere");
    let path = path.display();
    for script in [
        format!("USE \"{path}\""),
        format!("USE MODEL \"{path}\""),
        format!("MOUNT \"{path}\" AS gone"),
        format!("VERIFY VINDEX \"{path}\""),
        format!("EXTRACT MODEL \"{path}\" INTO \"{path}.vindex\""),
    ] {
        refused(&daemon, &script, "58P01", &[&path.to_string()]).await;
    }
    refused(&daemon, "USE \"nobody\"", "42704", &["nobody"]).await;
    assert!(!daemon.data_dir().join("nowhere.vindex").exists());
}

#[tokio::test]
async fn weights_truncated_anywhere_are_refused_by_name() {
    let daemon = Daemon::start();
    let directory = daemon.data_dir().join("cut");
    copy(&llama2(), &directory);
    let weights = directory.join("model.safetensors");
    let whole = fs::read(&weights).expect("weights");
    let destination = daemon.data_dir().join("cut.vindex");
    for part in 0..50 {
        fs::write(&weights, &whole[..whole.len() * part / 50]).expect("a cut file");
        for script in [
            format!("USE MODEL \"{}\"", directory.display()),
            format!("EXTRACT MODEL \"{}\" INTO \"{}\"", directory.display(), destination.display()),
        ] {
            refused(&daemon, &script, "XX001", &["model.safetensors"]).await;
            assert!(!destination.exists(), "cut at {part}/50");
        }
    }
    fs::write(&weights, &whole).expect("the whole file");
    daemon.extract(&directory, &destination, "").await;
}

#[tokio::test]
async fn a_flipped_byte_of_any_file_is_found_by_verify() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("v.vindex");
    daemon.extract(&llama2(), &path, "WITH ALL").await;
    let script = format!("VERIFY VINDEX \"{}\"", path.display());
    daemon.query(&script).await.expect("an undamaged vindex");
    for (name, bytes) in contents(&path) {
        let mut damaged = bytes.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(path.join(&name), &damaged).expect("a damaged file");
        refused(&daemon, &script, "XX001", &[&name]).await;
        fs::write(path.join(&name), &bytes).expect("the file as it was");
    }
    daemon.query(&script).await.expect("a restored vindex");
}

#[tokio::test]
async fn a_vindex_of_another_version_is_refused_with_both_versions() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("v.vindex");
    daemon.extract(&llama2(), &path, "").await;
    daemon.query("UNMOUNT v").await.expect("unmounted");
    let index = fs::read_to_string(path.join("index.json")).expect("index.json");
    let newer = index.replacen("\"version\": 3", "\"version\": 99", 1);
    assert_ne!(index, newer);
    fs::write(path.join("index.json"), newer).expect("index.json");
    for statement in ["USE", "MOUNT", "VERIFY VINDEX"] {
        let script = format!("{statement} \"{}\"", path.display());
        refused(&daemon, &script, "0A001", &["v.vindex", "99", "3"]).await;
    }
}

#[tokio::test]
async fn an_edited_or_cut_manifest_is_refused() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("v.vindex");
    daemon.extract(&llama2(), &path, "").await;
    daemon.query("UNMOUNT v").await.expect("unmounted");
    let index = fs::read(path.join("index.json")).expect("index.json");
    let edited = String::from_utf8_lossy(&index).replacen("llama", "gemma", 1).into_bytes();
    let bombs = [b"[".repeat(100_000), b"{\"version\":".repeat(50_000)];
    let cuts = (0..20).map(|part| index[..index.len() * part / 20].to_vec());
    for text in cuts.chain(bombs).chain([edited]) {
        fs::write(path.join("index.json"), text).expect("index.json");
        refused(&daemon, &format!("USE \"{}\"", path.display()), "XX001", &["index.json"]).await;
    }
}

#[tokio::test]
async fn a_directory_without_weights_is_refused() {
    let daemon = Daemon::start();
    let empty = daemon.data_dir().join("empty");
    let without = daemon.data_dir().join("without");
    fs::create_dir(&empty).expect("a directory");
    copy(&llama2(), &without);
    fs::remove_file(without.join("model.safetensors")).expect("removed");
    for path in [empty, without] {
        let path = path.display();
        for script in [
            format!("USE \"{path}\""),
            format!("USE MODEL \"{path}\""),
            format!("MOUNT \"{path}\" AS m"),
            format!("EXTRACT MODEL \"{path}\" INTO \"{path}.vindex\""),
        ] {
            refused(&daemon, &script, "0A001", &[&path.to_string(), "no weights"]).await;
        }
    }
}

#[tokio::test]
async fn a_file_that_is_no_file_is_refused_without_waiting_or_reading() {
    let daemon = Daemon::start();
    let fifo = daemon.data_dir().join("fifo");
    make_fifo(&fifo);
    let piped = daemon.data_dir().join("piped");
    copy(&llama2(), &piped);
    fs::remove_file(piped.join("model.safetensors")).expect("removed");
    make_fifo(&piped.join("model.safetensors"));
    let endless = daemon.data_dir().join("endless");
    copy(&llama2(), &endless);
    fs::remove_file(endless.join("config.json")).expect("removed");
    std::os::unix::fs::symlink("/dev/zero", endless.join("config.json")).expect("a link");
    let before = daemon.anonymous_bytes();
    let paths =
        ["/dev/zero", "/proc/self/mem", "/dev/null", "/proc/self", "/dev"].map(PathBuf::from);
    for path in paths.into_iter().chain([fifo, piped, endless]) {
        let shown = path.display().to_string();
        let out = daemon.data_dir().join("out.vindex");
        for script in [
            format!("USE \"{shown}\""),
            format!("USE MODEL \"{shown}\""),
            format!("MOUNT \"{shown}\" AS m"),
            format!("VERIFY VINDEX \"{shown}\""),
            format!("EXTRACT MODEL \"{shown}\" INTO \"{}\"", out.display()),
        ] {
            let answer = timeout(AT_ONCE, daemon.query(&script)).await;
            let answer = answer.unwrap_or_else(|_| panic!("{script} waits"));
            let Err(error) = answer else { panic!("{script} succeeded") };
            assert!(["0A001", "58030", "XX001"].contains(&&*error.code), "{script}: {error}");
            assert!(!error.hint.is_empty(), "{script}: {error}");
        }
        assert!(!out.exists());
        let script = format!("EXTRACT MODEL \"{}\" INTO \"{shown}\"", llama2().display());
        let answer = timeout(AT_ONCE, daemon.query(&script)).await;
        let error = answer.expect("an answer in time").expect_err("no place for a vindex");
        assert!(["42P07", "58P01", "58030"].contains(&&*error.code), "{script}: {error}");
        assert!(error.message.contains(&shown) && !error.hint.is_empty(), "{script}: {error}");
        let lock = format!("{shown}.lock");
        assert!(!Path::new(&lock).exists(), "{lock} stays behind");
    }
    let grown = daemon.anonymous_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    assert_well(&daemon).await;
}

fn make_fifo(path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0, "mkfifo");
}

#[tokio::test]
async fn text_that_is_no_path_is_refused() {
    let daemon = Daemon::start();
    for (text, name) in
        [("~/models", "~"), ("http://host/model", "URL"), ("a\0b", "NUL"), ("", "path")]
    {
        for statement in ["USE MODEL", "MOUNT", "VERIFY VINDEX"] {
            failure(&daemon, &format!("{statement} \"{text}\""), "22023", &[name]).await;
        }
    }
    // The way up from the root is the root.
    refused(&daemon, &format!("USE \"{}\"", "../".repeat(200)), "0A001", &["/"]).await;
    let long = format!("USE \"/{}\"", "x".repeat(100_000));
    failure(&daemon, &long, "58030", &["too long"]).await;
}

#[tokio::test]
async fn a_weight_file_that_is_a_link_out_of_its_directory_is_refused() {
    let daemon = Daemon::start();
    let path = daemon.data_dir().join("linked");
    copy(&llama2(), &path);
    let weights = path.join("model.safetensors");
    fs::rename(&weights, daemon.data_dir().join("elsewhere.safetensors")).expect("moved");
    std::os::unix::fs::symlink("../elsewhere.safetensors", &weights).expect("a link");
    for script in [
        format!("USE MODEL \"{}\"", path.display()),
        format!("EXTRACT MODEL \"{}\" INTO \"{}.vindex\"", path.display(), path.display()),
    ] {
        refused(&daemon, &script, "XX001", &["model.safetensors", "symbolic link"]).await;
    }
}
