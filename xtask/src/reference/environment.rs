//! The programs that we are compared with: found by environment variables, or made once.
//!
//! `LARQL_REFERENCE_PYTHON` names a Python that has the packages of `tests/reference/requirements.txt`,
//! `LARQL_LLAMA_CPP` a folder in which CMake built llama.cpp. What is not named is made in
//! `target/reference`: a virtual environment, and a build of the llama.cpp that lies in the source
//! distribution of the Python package `llama-cpp-python`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::daemon::output;

/// The release of `llama-cpp-python` whose llama.cpp is built.
const LLAMA_CPP_PYTHON: &str = "0.3.36";

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
        let home = crate::target_directory().join("reference");
        std::fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
        let scripts = root.join("tests/reference");
        let python = match std::env::var_os("LARQL_REFERENCE_PYTHON") {
            Some(python) => python.into(),
            None => virtual_environment(&home, &scripts.join("requirements.txt"))?,
        };
        let build = match std::env::var_os("LARQL_LLAMA_CPP") {
            Some(build) => build.into(),
            None => llama_cpp(&home, &python)?,
        };
        let last_logits = home.join("last_logits");
        compile(&scripts.join("last_logits.c"), &build, &last_logits)?;
        let packages = output(Command::new(&python).arg(scripts.join("versions.py")))?;
        let versions = format!("{packages}; {}", llama_cpp_version(&build)?);
        let quantize = build.join("bin/llama-quantize");
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

    /// llama.cpp's logits of each prompt's last position; the message of its failure.
    pub(super) fn llama_cpp(
        &self,
        model: &Path,
        prompts: &[Vec<u32>],
    ) -> anyhow::Result<Vec<Vec<f32>>> {
        let lines: Vec<String> = prompts.iter().map(|prompt| ids(prompt)).collect();
        let text = filter(Command::new(&self.last_logits).arg(model), &lines.join("\n"))?;
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

/// Makes a virtual environment with the packages, unless one with these very packages is there.
fn virtual_environment(home: &Path, requirements: &Path) -> anyhow::Result<PathBuf> {
    let (folder, installed) = (home.join("python"), home.join("python/requirements.txt"));
    let python = folder.join("bin/python");
    let wanted = std::fs::read(requirements)?;
    if std::fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    println!("preparing {}", folder.display());
    crate::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = Command::new(&python);
    crate::run(pip.args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements))?;
    std::fs::write(installed, wanted)?;
    Ok(python)
}

/// Builds llama.cpp from the Python package's sources, unless it is there, and returns the folder.
fn llama_cpp(home: &Path, python: &Path) -> anyhow::Result<PathBuf> {
    let name = format!("llama_cpp_python-{LLAMA_CPP_PYTHON}");
    let (source, build) = (home.join(&name).join("vendor/llama.cpp"), home.join("llama.cpp"));
    let finished = build.join(format!("{name}.finished"));
    if finished.exists() {
        return Ok(build);
    }
    println!("building llama.cpp in {}", build.display());
    let package = format!("llama-cpp-python=={LLAMA_CPP_PYTHON}");
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]);
    crate::run(pip.arg(package).arg("--dest").arg(home))?;
    let archive = home.join(format!("{name}.tar.gz"));
    crate::run(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(home))?;
    // CMake and ninja are among the packages, so that nothing but a C++ compiler has to be there.
    let tools = python.parent().context("the folder of Python")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let cmake = || {
        let mut command = Command::new("cmake");
        command.env("PATH", format!("{}:{path}", tools.display()));
        command
    };
    let mut configure = cmake();
    configure.arg("-S").arg(&source).arg("-B").arg(&build).args(["-G", "Ninja"]);
    let off = ["CURL", "BUILD_EXAMPLES", "BUILD_SERVER", "BUILD_TESTS", "BUILD_UI"];
    configure.args(off.map(|name| format!("-DLLAMA_{name}=OFF")));
    crate::run(configure.arg("-DCMAKE_BUILD_TYPE=Release"))?;
    crate::run(cmake().arg("--build").arg(&build).args(["--target", "llama", "llama-quantize"]))?;
    std::fs::write(finished, "")?;
    Ok(build)
}

/// A variable of a build's CMake cache.
fn cmake_variable(build: &Path, name: &str) -> anyhow::Result<String> {
    let cache = build.join("CMakeCache.txt");
    let text = std::fs::read_to_string(&cache).with_context(|| cache.display().to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_once('='));
    Ok(line.with_context(|| format!("{} has no {name}", cache.display()))?.1.to_owned())
}

/// What llama.cpp calls itself, with the package that it came in if its folder tells.
fn llama_cpp_version(build: &Path) -> anyhow::Result<String> {
    let source = cmake_variable(build, "CMAKE_HOME_DIRECTORY")?;
    let package = source.split('/').find_map(|part| part.strip_prefix("llama_cpp_python-"));
    Ok(package.map_or_else(
        || "llama.cpp of LARQL_LLAMA_CPP".to_owned(),
        |version| format!("llama.cpp of llama-cpp-python {version}"),
    ))
}

/// Compiles a C program against a build of llama.cpp.
fn compile(source: &Path, build: &Path, program: &Path) -> anyhow::Result<()> {
    let (llama, libraries) = (cmake_variable(build, "CMAKE_HOME_DIRECTORY")?, build.join("bin"));
    ensure!(libraries.is_dir(), "{} holds no build of llama.cpp", build.display());
    let mut command = Command::new("cc");
    command.args(["-O2", "-o"]).arg(program).arg(source);
    command.args([format!("-I{llama}/include"), format!("-I{llama}/ggml/include")]);
    command.arg(format!("-L{}", libraries.display())).args(["-lllama", "-lggml", "-lggml-base"]);
    crate::run(command.arg(format!("-Wl,-rpath,{}", libraries.display())))
}
