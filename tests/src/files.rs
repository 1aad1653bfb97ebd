//! Directories of files, compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Every file of a directory, by name.
///
/// # Panics
/// If it holds anything but readable files.
pub fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        files.insert(name, fs::read(&path).expect("a file"));
    }
    files
}

/// Two directories hold the same files with the same bytes.
///
/// # Panics
/// If they do not; says which file differs.
pub fn assert_same_files(found: &Path, expected: &Path) {
    let (found, expected) = (contents(found), contents(expected));
    assert!(found.keys().eq(expected.keys()), "{:?} and {:?}", found.keys(), expected.keys());
    for (name, bytes) in &found {
        assert!(bytes == &expected[name], "{name} differs");
    }
}
