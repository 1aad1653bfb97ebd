//! What whole-system tests share: real daemons on private data directories, real checkpoints, and
//! oracles that read a vindex without the code under test.
//!
//! The tests themselves are in `tests/tests`, one file a subject. They start the programs that
//! `cargo xtask test` has built; a test that cannot find them says how to build them.

pub mod atlas;
pub mod checkpoint;
pub mod daemon;
pub mod dequantised;
pub mod families_page;
pub mod files;
pub mod generation;
pub mod goldens;
pub mod home;
pub mod json_schema;
pub mod mlx;
pub mod random_checkpoint;
pub mod script;
pub mod terminal;
pub mod token;

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the repository").to_owned()
}

/// The bundled checkpoint.
pub fn atlas_checkpoint() -> PathBuf {
    repository().join("larqld/assets/atlas")
}

/// A program of this build.
///
/// # Panics
/// If it was not built.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let directory = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let path = directory.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace --bins` first",
        path.display()
    );
    path
}
