//! A real daemon for one test: its own data directory, killed with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use larql_client::{Answer, Client, ConnectOptions, ExecuteOptions, StatementError, Target};

use crate::{atlas_checkpoint, program};

/// How long a daemon may take to answer or to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running daemon.
pub struct Daemon {
    child: Child,
    data_dir: PathBuf,
    /// Removed with the daemon, unless the directory was given.
    _own: Option<tempfile::TempDir>,
}

impl Daemon {
    /// Starts a daemon on a data directory of its own.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a daemon on a data directory of its own, with further arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        let own =
            tempfile::Builder::new().prefix("larqld-").tempdir().expect("a temporary directory");
        let mut daemon = Self::start_in(own.path(), arguments);
        daemon._own = Some(own);
        daemon
    }

    /// Starts a daemon on that data directory.
    pub fn start_in(data_dir: &Path, arguments: &[&str]) -> Self {
        let child = command(data_dir, arguments).spawn().expect("larqld starts");
        let mut daemon = Self { child, data_dir: data_dir.to_owned(), _own: None };
        let socket = daemon.socket();
        let began = Instant::now();
        while !socket.exists() || std::os::unix::net::UnixStream::connect(&socket).is_err() {
            if let Ok(Some(status)) = daemon.child.try_wait() {
                panic!("larqld ended with {status}:\n{}", daemon.log());
            }
            assert!(began.elapsed() < PATIENCE, "larqld does not answer:\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.data_dir.join("run/larqld.sock")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the daemon logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_path(&self.data_dir)).unwrap_or_default()
    }

    /// Anonymous resident memory in bytes.
    pub fn anonymous_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Processor time that the daemon has used.
    pub fn processor_time(&self) -> Duration {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 =
            fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Opens a session.
    pub async fn client(&self) -> Client {
        let target = Target::Unix(self.socket());
        Client::connect(&target, ConnectOptions::default())
            .await
            .expect("the daemon takes a session")
    }

    /// Runs a script in a session of its own.
    pub async fn query(&self, script: &str) -> Result<Vec<Answer>, StatementError> {
        self.client().await.query(script, ExecuteOptions::here()).await
    }

    /// Extracts the bundled model and returns the vindex directory; it is mounted as `atlas`.
    pub async fn extract_atlas(&self, options: &str) -> PathBuf {
        let path = self.data_dir.join("vindexes/atlas.vindex");
        self.extract(&atlas_checkpoint(), &path, options).await;
        path
    }

    /// Extracts a checkpoint, without labels: learning them asks the model thousands of questions.
    pub async fn extract(&self, source: &Path, destination: &Path, options: &str) {
        let script = format!(
            "EXTRACT MODEL \"{}\" INTO \"{}\" {options} WITHOUT LABELS",
            source.display(),
            destination.display()
        );
        self.query(&script)
            .await
            .unwrap_or_else(|error| panic!("{script}: {error} ({})", error.hint));
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes numbers only; the child is not reaped before this value is dropped.
        unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
    }

    /// Waits for the daemon's end.
    pub fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the daemon is our child") {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "larqld does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the daemon still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the daemon without warning.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.join("larqld.test.log")
}

/// The daemon's command, its log going to a file in the data directory.
pub fn command(data_dir: &Path, arguments: &[&str]) -> Command {
    std::fs::create_dir_all(data_dir).expect("a data directory");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log_path(data_dir));
    let log = log.expect("a log file");
    let mut command = Command::new(program("larqld"));
    command
        .arg("--data-dir")
        .arg(data_dir)
        .args(arguments)
        .env_remove("LARQL_HOME")
        .env_remove("LARQLD_CONFIG")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log);
    command
}
