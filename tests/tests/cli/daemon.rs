//! Where the daemon is and how it starts.

use super::*;

#[test]
fn the_first_command_starts_a_daemon_and_says_so_and_the_next_one_uses_it() {
    let home = Home::new();
    let first = home.larql(&["list"]).succeeded();
    assert_eq!(
        first.stderr.lines().next(),
        Some(&*format!("larql: starting larqld for {}", home.data_dir().display()))
    );
    let pid = home.daemons();
    assert_eq!(pid.len(), 1);
    let second = home.larql(&["list"]).succeeded();
    assert!(!second.stderr.contains("starting"), "{second:?}");
    assert_eq!(home.daemons(), pid);
    // Nobody but the user may come near the socket.
    use std::os::unix::fs::PermissionsExt as _;
    let run = home.socket();
    let mode =
        |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(run.parent().expect("run")), 0o700);
    assert_eq!(mode(&run), 0o600);
    home.signal(libc::SIGTERM);
    home.wait_until_no_daemon_runs();
    assert!(!home.socket().exists());
}

#[test]
fn clients_that_start_a_daemon_at_once_all_succeed_and_share_one() {
    let home = Home::new();
    let children: Vec<Child> =
        (0..8).map(|_| spawn(&mut home.command(&["-F", "ndjson", "admin", "status"]))).collect();
    let ended: Vec<Finished> =
        children.into_iter().map(|child| finish_child(child).succeeded()).collect();
    let daemons = home.daemons();
    assert_eq!(daemons.len(), 1);
    for found in &ended {
        assert_eq!(one_object(&found.stdout)["pid"], daemons[0]);
    }
    let said = ended.iter().filter(|found| found.stderr.contains("starting larqld")).count();
    assert_eq!(said, 1, "{ended:?}");
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_replaced() {
    let home = Home::with_atlas();
    home.signal(libc::SIGKILL);
    home.wait_until_no_daemon_runs();
    assert!(home.socket().exists(), "a killed daemon removes nothing");
    let found = home.larql(&["--no-start", "list"]).ended_with(2);
    assert!(found.stderr.contains("could not reach a daemon"), "{found:?}");
    let found = home.larql(&["list"]).succeeded();
    assert!(
        found.stderr.contains("starting larqld") && found.stdout.contains("atlas"),
        "{found:?}"
    );
}

#[test]
fn a_data_directory_too_long_for_a_socket_path_serves_like_any_other() {
    let home = Home::below(&format!("{}/{}", "d".repeat(150), "e".repeat(150)));
    assert!(home.socket().as_os_str().len() > 300);
    home.extract(&atlas_checkpoint(), "atlas");
    let found = home.larql(&[
        "--no-start",
        "-q",
        "-c",
        "USE \"atlas\"; INFER \"The capital of France is\"",
    ]);
    assert!(found.succeeded().stdout.contains("Paris"));
    let url = format!("unix://{}", home.socket().display());
    let elsewhere = Home::new();
    assert!(elsewhere.larql(&["--host", &url, "list"]).succeeded().stdout.contains("atlas"));
    home.signal(libc::SIGTERM);
    home.wait_until_no_daemon_runs();
}

#[test]
fn a_daemon_that_cannot_start_is_told_with_the_end_of_its_log() {
    let home = Home::new();
    std::fs::create_dir_all(home.data_dir()).expect("a directory");
    std::fs::write(home.data_dir().join("larqld.toml"), "nonsense = 1\n").expect("a file");
    let began = Instant::now();
    let found = home.larql(&["list"]).ended_with(2);
    assert!(found.stderr.contains("larqld stopped at once"), "{found:?}");
    assert!(found.stderr.contains("nonsense"), "{found:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "it waited for a process that was gone");
}
