//! The shape of the tree: dependencies point one way, folders have names of the field, every
//! `unsafe` says why it is sound, every Rust file says what it is for.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

/// Which of our crates each of our crates may depend on.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("larql-proto", &[]),
    ("larql-storage", &[]),
    ("larql-compute", &[]),
    ("larql-planner", &[]),
    ("larql-client", &["larql-proto"]),
    // The client's driver, without its program: USE REMOTE makes a daemon another's client.
    ("larqld", &["larql-proto", "larql-storage", "larql-compute", "larql-planner", "larql-client"]),
    (
        "larql-tests",
        &[
            "larql-proto",
            "larql-storage",
            "larql-compute",
            "larql-planner",
            "larql-client",
            "larqld",
        ],
    ),
    ("xtask", &[]),
];

/// Names that say nothing about what is inside.
const FORBIDDEN_NAMES: &[&str] =
    &["utils", "util", "common", "helpers", "helper", "core", "misc", "shared"];

/// The folders and files that may stand at the top.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".config",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "compute",
    "deploy",
    "docs",
    "fuzz",
    "justfile",
    "larql-client",
    "larqld",
    "planner",
    "proto",
    "rustfmt.toml",
    "storage",
    "tests",
    "xtask",
];

/// Checks everything and lists every fault before failing.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let mut faults = Vec::new();
    check_dependencies(root, &mut faults)?;
    for file in tracked(root)? {
        check_name(&file, &mut faults);
        let path = root.join(&file);
        if file.ends_with(".rs") && path.is_file() {
            let text = std::fs::read_to_string(&path).with_context(|| file.clone())?;
            check_source(&file, &text, &mut faults);
        }
    }
    faults.sort();
    faults.dedup();
    if faults.is_empty() {
        println!("tidy: the tree is in order");
        return Ok(());
    }
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    bail!("{} faults", faults.len())
}

fn check_dependencies(root: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let output = super::cargo()
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata in {}: {}", root.display(), String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(ours, _)| *ours == name) else {
            faults.push(format!(
                "crate {name} has no place in the dependency table of xtask/src/tidy.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            if names.contains(&on) && !allowed.contains(&on) {
                faults.push(format!("crate {name} may not depend on {on}"));
            }
        }
    }
    Ok(())
}

/// The files that git knows, with `/` as separator.
fn tracked(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

fn check_name(file: &str, faults: &mut Vec<String>) {
    let mut parts = file.split('/');
    let top = parts.next().unwrap_or_default();
    if !TOP_LEVEL.contains(&top) {
        faults.push(format!("{top} has no place at the top of the tree"));
    }
    for part in file.split('/') {
        let stem = part.split('.').next().unwrap_or_default();
        if FORBIDDEN_NAMES.contains(&stem) {
            faults.push(format!("{file}: {stem:?} names nothing of the field"));
        }
    }
}

fn check_source(file: &str, text: &str, faults: &mut Vec<String>) {
    let generated = text.starts_with("// @generated");
    if !generated && !text.trim_start_matches('\u{feff}').starts_with("//!") {
        faults.push(format!("{file}: does not open by saying what it is for (//!)"));
    }
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        if opens_unsafe(line) && !has_safety_note(&lines, index) {
            faults.push(format!("{file}:{}: unsafe without a SAFETY note", index + 1));
        }
    }
}

/// Whether a line of code (not a comment or a string) opens an unsafe block, function or impl.
fn opens_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let Some(at) = code.find("unsafe") else { return false };
    let before = code[..at].chars().next_back();
    let after = code[at + "unsafe".len()..].trim_start();
    let word = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '"');
    word && (after.starts_with('{')
        || after.starts_with("impl")
        || after.starts_with("fn ")
        || after.starts_with("extern"))
}

/// Whether the `impl` or `trait` around a line answers for it: an implementation's functions ask what
/// their trait asks, a trait may say it once for all, and an implementation may give one reason for
/// all of its blocks.
fn enclosing_note(lines: &[&str], index: usize) -> bool {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let inner = indent(lines[index]);
    let is_head = |line: &&str| {
        ["impl", "trait", "pub trait", "pub(", "unsafe impl"]
            .iter()
            .any(|word| line.starts_with(word))
    };
    if inner == 0 {
        return false;
    }
    let outer = lines[..index].iter().rposition(|line| !line.is_empty() && indent(line) == 0);
    let Some(head) = outer.filter(|&head| is_head(&lines[head])) else { return false };
    let above: Vec<&str> = lines[..head]
        .iter()
        .rev()
        .map(|line| line.trim())
        .take_while(|line| line.starts_with("//") || line.starts_with("#["))
        .collect();
    let code = lines[index].split("//").next().unwrap_or_default();
    let declares = code.contains("unsafe fn");
    let implements = lines[head].starts_with("impl") && lines[head].contains(" for ");
    let says = |text: &str| above.iter().any(|line| line.contains(text));
    declares && (implements || says("# Safety"))
        || says("allow(clippy::undocumented_unsafe_blocks, reason")
}

/// Whether a SAFETY note stands on the line, or above it in the same run of comments, attributes
/// and the head of one statement.
fn has_safety_note(lines: &[&str], index: usize) -> bool {
    let noted = |line: &str| line.contains("SAFETY:") || line.contains("# Safety");
    if noted(lines[index]) || enclosing_note(lines, index) {
        return true;
    }
    for line in lines[..index].iter().rev().take(12) {
        let trimmed = line.trim();
        if noted(trimmed) {
            return true;
        }
        let continues = trimmed.starts_with("//")
            || trimmed.starts_with("#[")
            || trimmed.ends_with(['=', '(', ',', '|'])
            || trimmed.starts_with('.')
            || trimmed.ends_with("=>");
        if !continues {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check_source("a.rs", text, &mut faults);
        faults
    }

    #[test]
    fn unsafe_without_a_note_is_found() {
        assert_eq!(faults("//! A.\nfn f() {\n    unsafe { g() }\n}").len(), 1);
        assert_eq!(
            faults("//! A.\nfn f() {\n    let x = 1;\n    let y =\n        unsafe { g() };\n}")
                .len(),
            1
        );
    }

    #[test]
    fn unsafe_with_a_note_is_not() {
        assert!(faults("//! A.\n// SAFETY: g is harmless.\nunsafe { g() }").is_empty());
        let of_a_trait = "//! A.\nimpl T for U {\n    unsafe fn f() {}\n}";
        assert!(faults(of_a_trait).is_empty());
        let asked = "//! A.\n/// # Safety\n/// Be there.\ntrait T {\n    unsafe fn f();\n}";
        assert!(faults(asked).is_empty());
        assert!(!faults("//! A.\ntrait T {\n    unsafe fn f();\n}").is_empty());
        assert!(
            faults("//! A.\n// SAFETY: g is harmless.\nlet y =\n    unsafe { g() };").is_empty()
        );
        assert!(faults("//! A.\n// this unsafe { is prose }").is_empty());
    }

    #[test]
    fn a_file_that_does_not_say_what_it_is_for_is_found() {
        assert_eq!(faults("fn f() {}").len(), 1);
    }

    #[test]
    fn names_that_say_nothing_are_found_wherever_they_stand() {
        let mut found = Vec::new();
        for file in
            ["larqld/src/utils.rs", "compute/src/core/mod.rs", "storage/src/wal.rs", "strange/x.rs"]
        {
            check_name(file, &mut found);
        }
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
