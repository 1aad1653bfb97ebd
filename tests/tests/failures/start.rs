//! What keeps the daemon from starting, and what does not.

use super::*;

#[tokio::test]
async fn a_second_daemon_on_one_data_directory_leaves_the_first_alone() {
    let mut daemon = Daemon::start();
    daemon.extract(&llama2(), &daemon.data_dir().join("v.vindex"), "").await;
    let log = does_not_start(daemon.data_dir(), &[]);
    assert!(log.contains("another larqld uses") && log.contains("--data-dir"), "{log}");
    assert!(daemon.is_running());
    daemon.query("USE \"v\"; DESCRIBE \"a\"").await.expect("the first answers");
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start_in(directory.path(), &[]);
    daemon.kill();
    assert!(daemon.socket().exists(), "a killed daemon leaves its socket");
    drop(daemon);
    let daemon = Daemon::start_in(directory.path(), &[]);
    assert_well(&daemon).await;
}

#[test]
fn something_else_at_the_sockets_path_is_not_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("run/larqld.sock");
    fs::create_dir(directory.path().join("run")).expect("a directory");
    fs::write(&socket, "precious").expect("a file");
    let log = does_not_start(directory.path(), &[]);
    assert!(log.contains("larqld.sock") && log.contains("not a socket"), "{log}");
    assert_eq!(fs::read(&socket).expect("the file"), b"precious");
    fs::remove_file(&socket).expect("removed");
    fs::create_dir(&socket).expect("a directory");
    let log = does_not_start(directory.path(), &[]);
    assert!(log.contains("not a socket"), "{log}");
}

#[test]
fn an_address_beyond_loopback_keeps_the_daemon_from_starting() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7878", "example.com:7878"] {
        let directory = tempfile::tempdir().expect("a directory");
        let log = does_not_start(directory.path(), &["--listen", address]);
        assert!(log.contains("listen"), "{log}");
    }
}

#[test]
fn a_damaged_configuration_keeps_the_daemon_from_starting() {
    for (text, name) in
        [("tread = 3", "tread"), ("threads = -1", "threads"), ("[[[", "larqld.toml")]
    {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("larqld.toml"), text).expect("larqld.toml");
        let log = does_not_start(directory.path(), &[]);
        assert!(log.contains("larqld.toml") && log.contains(name), "{log}");
    }
}

#[tokio::test]
async fn a_damaged_catalog_is_told_and_no_crash() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut daemon = Daemon::start_in(directory.path(), &[]);
    daemon.extract(&llama2(), &directory.path().join("v.vindex"), "").await;
    daemon.kill();
    drop(daemon);
    let store = directory.path().join("catalog/db");
    let mut file = File::options().read(true).write(true).open(&store).expect("the store");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("the store");
    file.seek(SeekFrom::Start(0)).expect("a place");
    file.write_all(&vec![0xa5; bytes.len().min(1 << 20)]).expect("damaged");
    drop(file);
    // Either the daemon starts without what was lost, or it says what is damaged.
    let mut child = daemon::command(directory.path(), &[]).spawn().expect("larqld starts");
    let socket = directory.path().join("run/larqld.sock");
    let _ = fs::remove_file(&socket);
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break Some(status);
        }
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            break None;
        }
        assert!(began.elapsed() < PATIENCE, "larqld neither starts nor ends");
        std::thread::sleep(Duration::from_millis(10));
    };
    let _ = child.kill();
    let _ = child.wait();
    let log = fs::read_to_string(directory.path().join("larqld.test.log")).expect("a log");
    if let Some(status) = status {
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("catalog") && log.contains("damaged"), "{log}");
    }
}
