//! The real programs at work: a daemon for as long as a task needs one, and commands whose output counts.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// A daemon with a data directory of its own; killed when dropped.
pub struct Daemon {
    child: Child,
    /// Its data directory.
    pub data: PathBuf,
    larql: PathBuf,
}

impl Daemon {
    /// Starts one and waits until it answers.
    pub fn start(binaries: &Path, data: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data)?;
        let child = Command::new(binaries.join("larqld"))
            .arg("--data-dir")
            .arg(data)
            .args(["--log-format", "json"])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(data.join("larqld.log"))?)
            .spawn()
            .context("larqld")?;
        let daemon = Self { child, data: data.to_owned(), larql: binaries.join("larql") };
        let began = Instant::now();
        while daemon
            .larql(&["admin", "status"])
            .output()
            .is_ok_and(|output| !output.status.success())
        {
            if began.elapsed() > Duration::from_secs(30) {
                bail!("larqld does not answer");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }

    /// The client with these arguments, talking to this daemon.
    pub fn larql(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.larql);
        command.args(["--no-start", "--data-dir"]).arg(&self.data).args(arguments);
        command
    }

    /// Runs the client and parses what it prints.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = output(&mut self.larql(arguments))?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text:?}"))
    }

    /// Runs one statement and returns the milliseconds that the daemon took.
    pub fn milliseconds(&self, statement: &str) -> anyhow::Result<f64> {
        let answer = self.json(&["-F", "json", "-c", statement])?;
        let summary = if answer.is_array() { &answer[0]["summary"] } else { &answer["summary"] };
        summary["milliseconds"]
            .as_f64()
            .with_context(|| format!("{statement}: no summary in {answer}"))
    }

    /// What the daemon logged so far, entry by entry.
    pub fn log(&self) -> anyhow::Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.data.join("larqld.log"))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its resident anonymous memory now.
    pub fn anonymous_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command and returns what it prints, without the last line's end.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| shown.clone())?;
    if !output.status.success() {
        bail!("{shown} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The machine and the commit, for the head of a page.
pub fn machine(root: &Path) -> anyhow::Result<String> {
    let commit =
        output(Command::new("git").current_dir(root).args(["rev-parse", "--short", "HEAD"]))?;
    let machine = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = machine.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    Ok(format!("Machine: {}, {cores} cores; commit {commit}", name.unwrap_or("unknown")))
}
