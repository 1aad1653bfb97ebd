//! The kernels of 64-bit ARM beside their scalar twins, under an emulator where one is present.
//!
//! It wants `qemu-aarch64`, a linker for the target with its C library (Debian: `qemu-user`,
//! `gcc-aarch64-linux-gnu`) and the target of the Rust toolchain; what is not there is named, and the
//! tests are skipped. A processor of that kind runs them as ordinary tests.

use std::path::Path;
use std::process::Command;

/// The target's name.
const TARGET: &str = "aarch64-unknown-linux-gnu";
/// The emulator, with everything that a processor may have.
const EMULATOR: &str = "qemu-aarch64";
/// What links for the target.
const LINKER: &str = "aarch64-linux-gnu-gcc";
/// Where its C library is.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

/// Runs the tests, or says why not.
pub fn run() -> anyhow::Result<()> {
    if cfg!(target_arch = "aarch64") {
        return Ok(());
    }
    if let Some(missing) = missing() {
        println!("        SKIP kernels of 64-bit ARM under an emulator: there is no {missing}");
        return Ok(());
    }
    println!("kernels of 64-bit ARM under {EMULATOR}");
    let variable = |what: &str| format!("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_{what}");
    crate::run(
        crate::cargo()
            .args(["test", "--locked", "--target", TARGET, "-p", "larql-compute", "--lib"])
            .arg("kernels")
            .env(variable("LINKER"), LINKER)
            .env(variable("RUNNER"), format!("{EMULATOR} -cpu max -L {LIBRARIES}"))
            .env(variable("RUSTFLAGS"), "-D warnings"),
    )
}

/// The first thing that is not there.
fn missing() -> Option<&'static str> {
    let runs = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    let target = || {
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let output = rustc.args(["--print", "target-libdir", "--target", TARGET]).output().ok()?;
        let folder = String::from_utf8(output.stdout).ok()?;
        Path::new(folder.trim()).is_dir().then_some(())
    };
    if !runs(EMULATOR) {
        return Some(EMULATOR);
    }
    if !runs(LINKER) || !Path::new(LIBRARIES).is_dir() {
        return Some(LINKER);
    }
    target().is_none().then_some("target aarch64-unknown-linux-gnu of the toolchain")
}
