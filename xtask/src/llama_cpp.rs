//! llama.cpp: the build named by `LARQL_LLAMA_CPP`, or one made once in `target/reference`.
//!
//! The sources are those in the source distribution of the Python package `llama-cpp-python`, at a
//! pinned version, so that nothing but a package index and a C++ compiler has to be there: CMake and
//! ninja come as Python packages too. It is built for this very processor and optimised.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::daemon::output;

/// The release of `llama-cpp-python` whose llama.cpp is built.
const LLAMA_CPP_PYTHON: &str = "0.3.36";

/// A build.
pub struct LlamaCpp {
    build: PathBuf,
}

impl LlamaCpp {
    /// Finds a build with these programs, or makes it; the first time that takes a network and, with the
    /// server, a quarter of an hour of one processor.
    pub fn prepare(root: &Path, programs: &[&str]) -> anyhow::Result<Self> {
        let given = std::env::var_os("LARQL_LLAMA_CPP").map(PathBuf::from);
        let found = match &given {
            Some(build) => Self { build: build.clone() },
            None => Self { build: home()?.join("llama.cpp") },
        };
        let missing: Vec<_> =
            programs.iter().filter(|name| !found.program(name).is_file()).copied().collect();
        if !missing.is_empty() {
            ensure!(given.is_none(), "LARQL_LLAMA_CPP has no {}: build it", missing.join(", "));
            found.make(root, programs)?;
        }
        Ok(found)
    }

    /// One of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.build.join("bin").join(name)
    }

    fn make(&self, root: &Path, programs: &[&str]) -> anyhow::Result<()> {
        let home = home()?;
        let requirements = root.join("tests/reference/build_tools.txt");
        let tools = virtual_environment(&home.join("build_tools"), &requirements)?;
        let name = format!("llama_cpp_python-{LLAMA_CPP_PYTHON}");
        let source = home.join(&name).join("vendor/llama.cpp");
        println!("building llama.cpp in {}", self.build.display());
        if !source.is_dir() {
            let mut pip = Command::new(&tools);
            pip.args(["-m", "pip", "download", "--quiet", "--no-deps"]);
            pip.args(["--no-binary", "llama-cpp-python"]);
            pip.arg(format!("llama-cpp-python=={LLAMA_CPP_PYTHON}")).arg("--dest").arg(&home);
            crate::run(&mut pip)?;
            let archive = home.join(format!("{name}.tar.gz"));
            crate::run(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(&home))?;
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", tools.parent().context("Python's folder")?.display());
        let cmake = || {
            let mut command = Command::new("cmake");
            command.env("PATH", &path);
            command
        };
        let mut configure = cmake();
        configure.arg("-S").arg(&source).arg("-B").arg(&self.build).args(["-G", "Ninja"]);
        configure.args([
            "-DCMAKE_BUILD_TYPE=Release",
            "-DGGML_NATIVE=ON",
            "-DLLAMA_BUILD_SERVER=ON",
        ]);
        let off = ["CURL", "BUILD_EXAMPLES", "BUILD_TESTS", "BUILD_UI", "USE_PREBUILT_UI"];
        configure.args(off.map(|name| format!("-DLLAMA_{name}=OFF")));
        crate::run(&mut configure)?;
        let mut make = cmake();
        make.arg("--build").arg(&self.build).args(["--target", "llama"]).args(programs);
        crate::run(&mut make)
    }

    /// A variable of the build's CMake cache.
    fn variable(&self, name: &str) -> anyhow::Result<String> {
        let cache = self.build.join("CMakeCache.txt");
        let text = std::fs::read_to_string(&cache).with_context(|| cache.display().to_string())?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_once('='));
        Ok(line.with_context(|| format!("{} has no {name}", cache.display()))?.1.to_owned())
    }

    /// What it calls itself, with the package that it came in if its folder tells.
    pub fn version(&self) -> anyhow::Result<String> {
        let source = self.variable("CMAKE_HOME_DIRECTORY")?;
        let package = source.split('/').find_map(|part| part.strip_prefix("llama_cpp_python-"));
        Ok(package.map_or_else(
            || "llama.cpp of LARQL_LLAMA_CPP".to_owned(),
            |version| format!("llama.cpp of llama-cpp-python {version}"),
        ))
    }

    /// Fails unless it was optimised, and for this processor: another build is no opponent.
    pub fn require_fast(&self) -> anyhow::Result<()> {
        for (name, wanted) in [("CMAKE_BUILD_TYPE", "Release"), ("GGML_NATIVE", "ON")] {
            let found = self.variable(name)?;
            ensure!(found == wanted, "llama.cpp was built with {name}={found}, not {wanted}");
        }
        Ok(())
    }

    /// Compiles a C program against it.
    pub fn compile(&self, source: &Path, program: &Path) -> anyhow::Result<()> {
        let llama = self.variable("CMAKE_HOME_DIRECTORY")?;
        let libraries = self.build.join("bin");
        ensure!(libraries.is_dir(), "{} holds no build of llama.cpp", self.build.display());
        let mut command = Command::new("cc");
        command.args(["-O2", "-o"]).arg(program).arg(source);
        command.args([format!("-I{llama}/include"), format!("-I{llama}/ggml/include")]);
        command.arg(format!("-L{}", libraries.display()));
        command.args(["-lllama", "-lggml", "-lggml-base"]);
        crate::run(command.arg(format!("-Wl,-rpath,{}", libraries.display())))
    }

    /// What it says of itself and the processor.
    pub fn system_info(&self, root: &Path) -> anyhow::Result<String> {
        let program = home()?.join("system_info");
        self.compile(&root.join("tests/reference/system_info.c"), &program)?;
        output(&mut Command::new(program))
    }
}

/// Where what is made for comparisons lies.
pub fn home() -> anyhow::Result<PathBuf> {
    let home = crate::target_directory().join("reference");
    std::fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
    Ok(home)
}

/// Makes a virtual environment with the packages, unless one with these very packages is there, and
/// returns its Python.
pub fn virtual_environment(folder: &Path, requirements: &Path) -> anyhow::Result<PathBuf> {
    let (python, installed) = (folder.join("bin/python"), folder.join("requirements.txt"));
    let wanted = std::fs::read(requirements)?;
    if std::fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    println!("preparing {}", folder.display());
    crate::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    let mut pip = Command::new(&python);
    crate::run(pip.args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements))?;
    std::fs::write(installed, wanted)?;
    Ok(python)
}
