//! The programs that we are compared with: found by environment variables, or made once.
//!
//! `LARQL_REFERENCE_PYTHON` names a Python that has the packages of `tests/reference/requirements.txt`,
//! `LARQL_LLAMA_CPP` a folder in which CMake built llama.cpp (`llama_cpp`). What is not named is made in
//! `target/reference`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::daemon::output;
use crate::llama_cpp::{self, LlamaCpp, virtual_environment};

/// What checks run besides larqld.
pub(super) struct Environment {
    /// A Python with the packages.
    python: PathBuf,
    /// `llama-quantize` of llama.cpp.
    quantize: PathBuf,
    /// `tests/reference/last_logits.c`, built against llama.cpp.
    last_logits: PathBuf,
    /// `tests/reference`.
    scripts: PathBuf,
    /// The versions of all that, on one line.
    pub(super) versions: String,
}

impl Environment {
    /// Finds or makes everything; the first time that takes a quarter of an hour and needs a network.
    pub(super) fn prepare(root: &Path) -> anyhow::Result<Self> {
        let home = llama_cpp::home()?;
        let scripts = root.join("tests/reference");
        let python = match std::env::var_os("LARQL_REFERENCE_PYTHON") {
            Some(python) => python.into(),
            None => virtual_environment(&home.join("python"), &scripts.join("requirements.txt"))?,
        };
        let llama = LlamaCpp::prepare(root, &["llama-quantize"])?;
        let last_logits = home.join("last_logits");
        llama.compile(&scripts.join("last_logits.c"), &last_logits)?;
        let packages = output(Command::new(&python).arg(scripts.join("versions.py")))?;
        let versions = format!("{packages}; {}", llama.version()?);
        let quantize = llama.program("llama-quantize");
        Ok(Self { python, quantize, last_logits, scripts, versions })
    }

    /// A script of `tests/reference`, ready to run.
    pub(super) fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(self.scripts.join(name));
        command
    }

    /// A script that answers lines of JSON, started.
    pub(super) fn server(&self, name: &str) -> anyhow::Result<Server> {
        Server::start(&mut self.script(name))
    }

    /// llama.cpp's logits of each prompt's last position; the message of its failure. With a cache in f32
    /// and plain attention, or `served`, with what it takes by default.
    pub(super) fn llama_cpp(
        &self,
        model: &Path,
        prompts: &[Vec<u32>],
        served: bool,
    ) -> anyhow::Result<Vec<Vec<f32>>> {
        let lines: Vec<String> = prompts.iter().map(|prompt| ids(prompt)).collect();
        let text = filter(
            Command::new(&self.last_logits).args(served.then_some("--served")).arg(model),
            &lines.join("\n"),
        )?;
        let numbers = |line: &str| line.split(' ').map(str::parse).collect::<Result<_, _>>();
        text.lines().map(|line| numbers(line).with_context(|| line.to_owned())).collect()
    }

    /// Runs `llama-quantize`, from one GGUF to another.
    pub(super) fn quantize(
        &self,
        options: &[&str],
        from: &Path,
        to: &Path,
        kind: &str,
    ) -> anyhow::Result<()> {
        let mut command = Command::new(&self.quantize);
        output(command.args(options).arg(from).arg(to).args([kind, "2"])).map(drop)
    }
}

/// Token ids as programs take them: `1,2,3`.
pub(super) fn ids(tokens: &[u32]) -> String {
    tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// Runs a command on a text and returns what it prints.
pub(super) fn filter(command: &mut Command, text: &str) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| shown.clone())?;
    let mut stdin = child.stdin.take().context("standard input")?;
    // A program that fails early closes its end; what it says of that counts, not the broken pipe.
    let text = format!("{text}\n");
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("{}", message.lines().next().unwrap_or("it failed without a word"));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A program that answers each line of JSON by one; killed when dropped.
pub(super) struct Server {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context(shown)?;
        let requests = child.stdin.take().context("standard input")?;
        let answers = BufReader::new(child.stdout.take().context("standard output")?);
        Ok(Self { child, requests, answers })
    }

    /// Asks and waits for the answer.
    pub(super) fn ask(&mut self, request: &Value) -> anyhow::Result<Value> {
        writeln!(self.requests, "{request}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("{request} was answered {line:?}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
