//! Sessions over TCP with a token, which are confined to the roots that the daemon was given.

use std::path::Path;
use std::time::{Duration, Instant};

use larql_client::{Client, ConnectOptions};

use crate::daemon::Daemon;

/// How long a daemon may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon, and a way to open sessions over TCP with a token of one role, confined to directories.
pub struct Confined {
    /// The daemon.
    pub daemon: Daemon,
    address: String,
    token: std::path::PathBuf,
    role: String,
    _directory: tempfile::TempDir,
}

impl Confined {
    /// Starts the daemon.
    pub fn start(role: &str, roots: &[&Path]) -> Self {
        // The SHA-256 of `opensesame`, from sha256sum.
        const DIGEST: &str = "d9fb92e3bbe65be1f1aad4a82eef4567f7a1ebe2cd110c8049b9698be7a70c88";
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("larqld.toml");
        let token = directory.path().join("token");
        let text = format!(
            "roots = {roots:?}\n[[tokens]]\nname = \"ada\"\nrole = \"{role}\"\nsha256 = \"{DIGEST}\"\n"
        );
        std::fs::write(&config, text).expect("a file");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let config = config.display().to_string();
        let daemon = Daemon::start_with(&["--listen", &address, "--config", &config]);
        std::fs::write(&token, "opensesame").expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&token, mode).expect("the owner's alone");
        Self { daemon, address, token, role: role.to_owned(), _directory: directory }
    }

    /// Where the daemon listens: an IP address and a port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The file with the token.
    pub fn token(&self) -> &Path {
        &self.token
    }

    /// Opens a session with the token.
    pub async fn client(&self) -> Client {
        let token = larql_client::Token::read(&self.token).expect("a token");
        let options = ConnectOptions { token: Some(token), ..ConnectOptions::default() };
        let target = format!("grpc://{}", self.address).parse().expect("a target");
        // The socket answers a moment before the port does.
        let began = Instant::now();
        let client = loop {
            match Client::connect(&target, options.clone()).await {
                Ok(client) => break client,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(client.welcome().role, self.role);
        client
    }
}
