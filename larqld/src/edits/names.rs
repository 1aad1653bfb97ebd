//! Names of patches: a plain one is a file below the data directory, any other a path.

use std::path::{Path, PathBuf};

use larql_storage::file::is_plain_name;

use crate::failure::{Failure, code};

const EXTENSION: &str = ".vlp";

/// A patch by its name, and the file that it is or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchPlace {
    /// Its name in the store.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Whether a path was named, which is the caller's to open; else the file is the daemon's own.
    pub is_callers: bool,
}

impl PatchPlace {
    /// The place that a statement's text means. `resolve` makes paths absolute and says which are allowed.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a text that is neither a name nor a path; as `resolve`.
    pub fn of(
        text: &str,
        data_dir: &Path,
        resolve: impl FnOnce(&str) -> Result<PathBuf, Failure>,
    ) -> Result<Self, Failure> {
        let name = Self::name_of(text);
        let file = format!("{name}{EXTENSION}");
        if !is_plain_name(&file) || name.is_empty() {
            let message = format!("{text:?} is no name of a patch");
            return Err(Failure::new(code::INVALID_PARAMETER, message)
                .hint("a name is one word of a file name; a path ends in .vlp or holds a /"));
        }
        if is_path(text) {
            return Ok(Self { name, path: resolve(text)?, is_callers: true });
        }
        let path = data_dir.join("patches").join(file);
        Ok(Self { name, path, is_callers: false })
    }

    /// The name of the patch that a statement's text means.
    pub fn name_of(text: &str) -> String {
        if !is_path(text) {
            return text.to_owned();
        }
        let name = text.rsplit('/').next().unwrap_or_default();
        name.strip_suffix(EXTENSION).unwrap_or(name).to_owned()
    }
}

fn is_path(text: &str) -> bool {
    text.contains('/') || text.ends_with(EXTENSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<PatchPlace, Failure> {
        PatchPlace::of(text, Path::new("/data"), |path| Ok(Path::new("/here").join(path)))
    }

    #[test]
    fn a_plain_name_lies_below_the_data_directory_and_a_path_where_it_says() {
        for (text, name, path) in [
            ("facts", "facts", "/data/patches/facts.vlp"),
            ("facts v2", "facts v2", "/data/patches/facts v2.vlp"),
            ("facts.vlp", "facts", "/here/facts.vlp"),
            ("a/facts", "facts", "/here/a/facts"),
            ("/x/facts.vlp", "facts", "/x/facts.vlp"),
        ] {
            let is_callers = is_path(text);
            let expected = PatchPlace { name: name.into(), path: path.into(), is_callers };
            assert_eq!(place(text), Ok(expected), "{text}");
            assert_eq!(PatchPlace::name_of(text), name);
        }
    }

    #[test]
    fn what_is_no_name_of_a_file_is_none_of_a_patch() {
        for text in
            ["", ".", "..", ".vlp", "a/", "a/..", ".hidden", "a\nb", "a\\b", &"x".repeat(300)]
        {
            assert_eq!(place(text).unwrap_err().code, code::INVALID_PARAMETER, "{text:?}");
        }
    }
}
