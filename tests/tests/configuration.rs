//! Callers over TCP, tokens and SIGHUP.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use larql_client::{Client, ConnectError, ConnectOptions, ExecuteOptions, Target, Token};
use larql_tests::daemon::Daemon;

/// A loopback port that nobody uses at the moment.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

fn token(directory: &Path, name: &str, text: &str) -> Token {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("a token file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("permissions");
    Token::read(&path).expect("a token")
}

async fn connect(port: u16, token: Option<&Token>) -> Result<Client, ConnectError> {
    let target = Target::Grpc { host: "127.0.0.1".to_owned(), port };
    Client::connect(&target, ConnectOptions { token: token.cloned(), ..ConnectOptions::default() })
        .await
}

/// `sha256sum` of `editor-token`.
const EDITOR_SHA256: &str = "43dd47c3c09b91fa6c62f8227abd0a3958c608f5b8b477adc042d963af6dc84b";

#[tokio::test]
async fn tokens_decide_what_a_tcp_caller_may_do_and_sighup_brings_new_ones() {
    let port = free_port();
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("larqld.toml");
    let listen = format!("listen = [\"127.0.0.1:{port}\"]\n");
    std::fs::write(&config, &listen).expect("a configuration");
    let daemon = Daemon::start_with(&["--config", config.to_str().expect("text")]);
    let known = token(directory.path(), "known", "editor-token");
    let wrong = token(directory.path(), "wrong", "another-token");

    assert_eq!(connect(port, None).await.expect("a session").welcome().role, "infer");
    assert!(connect(port, Some(&known)).await.is_err(), "a token that nobody knows was taken");

    let tokens = format!(
        "{listen}[[tokens]]\nname = \"notebook\"\nrole = \"admin\"\nsha256 = \"{EDITOR_SHA256}\"\n"
    );
    std::fs::write(&config, tokens).expect("a configuration");
    daemon.signal(libc::SIGHUP);
    let began = Instant::now();
    let mut client = loop {
        match connect(port, Some(&known)).await {
            Ok(client) => break client,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(10), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(client.welcome().role, "admin");
    assert!(connect(port, Some(&wrong)).await.is_err(), "a wrong token was taken");
    assert_eq!(connect(port, None).await.expect("a session").welcome().role, "infer");

    // An administrator over TCP is confined to the configured roots all the same.
    let error = client
        .query("MOUNT \"/etc\"", ExecuteOptions::here())
        .await
        .expect_err("outside the roots");
    assert_eq!(error.code, "42501");
}

#[tokio::test]
async fn a_configuration_that_does_not_hold_changes_nothing_on_sighup() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("larqld.toml");
    std::fs::write(&config, "").expect("a configuration");
    let daemon = Daemon::start_with(&["--config", config.to_str().expect("text")]);
    std::fs::write(&config, "thread = 3").expect("a configuration");
    daemon.signal(libc::SIGHUP);
    let began = Instant::now();
    while !daemon.log().contains("the configuration stays as it was") {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemon.query("SHOW MOUNTS").await.expect("the daemon goes on");
}
