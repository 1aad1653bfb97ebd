//! A data directory whose daemon `larql` starts by itself, as for a user; daemon and directory go
//! with the test.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{atlas_checkpoint, program};

/// How long one program may run.
const PATIENCE: Duration = Duration::from_secs(120);

/// A data directory of one test.
pub struct Home {
    data_dir: PathBuf,
    own: tempfile::TempDir,
}

/// How a program ended and what it said.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit code; None if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// A directory in which nothing runs yet.
    pub fn new() -> Self {
        Self::below("data")
    }

    /// The same, so many levels down that names decide the length of its path.
    pub fn below(names: &str) -> Self {
        let own = tempfile::Builder::new().prefix("larql-").tempdir();
        let own = own.expect("a temporary directory");
        Self { data_dir: own.path().join(names), own }
    }

    /// A directory with a daemon that has the bundled model mounted as `atlas`.
    pub fn with_atlas() -> Self {
        let home = Self::new();
        home.extract(&atlas_checkpoint(), "atlas");
        home
    }

    /// Extracts a checkpoint, without labels, into a vindex beside the data directory, mounted under
    /// that name.
    pub fn extract(&self, checkpoint: &Path, name: &str) -> PathBuf {
        let vindex = self.scratch().join(format!("{name}.vindex"));
        let [source, destination] = [checkpoint, &vindex].map(|path| path.display().to_string());
        self.larql(&["-q", "extract", &source, "-o", &destination, "--no-labels"]).succeeded();
        vindex
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A directory for the test's own files; programs run in it.
    pub fn scratch(&self) -> &Path {
        self.own.path()
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.data_dir.join("run/larqld.sock")
    }

    /// `larql` for this data directory, with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("larql"));
        command.arg("--data-dir").arg(&self.data_dir).args(arguments);
        self.isolate(&mut command);
        command
    }

    /// Keeps the environment of whoever runs the tests away from a program.
    pub fn isolate(&self, command: &mut Command) {
        let foreign = |name: &str| name.starts_with("LARQL");
        for (name, _) in std::env::vars().filter(|(name, _)| foreign(name)) {
            command.env_remove(name);
        }
        for name in ["NO_COLOR", "PAGER", "LESS", "XDG_DATA_HOME"] {
            command.env_remove(name);
        }
        command.env("HOME", self.scratch()).current_dir(self.scratch());
    }

    /// Runs `larql` to its end.
    pub fn larql(&self, arguments: &[&str]) -> Finished {
        self.larql_with_input(arguments, "")
    }

    /// Runs `larql` to its end, with that standard input.
    pub fn larql_with_input(&self, arguments: &[&str], input: &str) -> Finished {
        finish(&mut self.command(arguments), input)
    }

    /// The processes that have this data directory in their arguments, apart from `larql` itself.
    pub fn daemons(&self) -> Vec<libc::pid_t> {
        daemons_of(&self.data_dir)
    }

    /// Sends a signal to the daemon.
    ///
    /// # Panics
    /// If not exactly one runs.
    pub fn signal(&self, signal: i32) {
        let daemons = self.daemons();
        assert_eq!(daemons.len(), 1, "daemons of {}", self.data_dir.display());
        // SAFETY: kill takes numbers only; the process was started for this directory alone.
        unsafe { libc::kill(daemons[0], signal) };
    }

    /// Waits until no daemon runs.
    pub fn wait_until_no_daemon_runs(&self) {
        eventually("the daemon ends", || self.daemons().is_empty());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for pid in self.daemons() {
            // SAFETY: as in `signal`.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let began = Instant::now();
        while !self.daemons().is_empty() && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Finished {
    /// The same, if it succeeded.
    ///
    /// # Panics
    /// If it did not.
    pub fn succeeded(self) -> Self {
        self.ended_with(0)
    }

    /// The same, if it has that exit code.
    ///
    /// # Panics
    /// If it has another.
    pub fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}stderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// Runs a program to its end, with that standard input.
///
/// # Panics
/// If it does not end in time.
pub fn finish(command: &mut Command, input: &str) -> Finished {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    // A program that does not read its input is no failure of the test.
    std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    finish_child(child)
}

/// Waits for a program whose outputs are pipes.
///
/// # Panics
/// If it does not end in time.
pub fn finish_child(mut child: Child) -> Finished {
    let mut out = child.stdout.take().expect("a pipe");
    let mut err = child.stderr.take().expect("a pipe");
    // A daemon that the program starts has its own output, so the pipes close with the program.
    let read = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = out.read_to_end(&mut text);
        String::from_utf8(text).expect("standard output is text")
    });
    let read_err = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = err.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break status;
        }
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("a program does not end; it said:\n{}", read_err.join().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let (stdout, stderr) = (read.join().expect("text"), read_err.join().expect("text"));
    Finished { code: status.code(), stdout, stderr }
}

/// Waits until something holds.
///
/// # Panics
/// If it does not in time.
pub fn eventually(claim: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "in vain waited until {claim}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes named `larqld` that have this directory in their arguments.
pub fn daemons_of(data_dir: &Path) -> Vec<libc::pid_t> {
    let data_dir = data_dir.as_os_str().as_encoded_bytes();
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &libc::pid_t| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|&byte| byte == 0);
        arguments.next().is_some_and(|program| program.ends_with(b"larqld"))
            && arguments.any(|argument| argument == data_dir)
    })
    .collect()
}
