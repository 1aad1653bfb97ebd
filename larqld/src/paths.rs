//! Paths in statements: what they are relative to, and where they may lead.

use std::path::{Component, Path, PathBuf};

use crate::failure::{Failure, code};

/// Whether a reference is meant as a path and not as a name.
pub fn looks_like_path(reference: &str) -> bool {
    reference.contains('/') || reference.starts_with('.')
}

/// Whether a text can be a mount's name: not empty, no path, no control characters.
pub fn is_mount_name(text: &str) -> bool {
    !text.is_empty() && !looks_like_path(text) && !text.chars().any(char::is_control)
}

/// The name that a model is mounted under unless the user chooses one: the last component of its path
/// without an extension that only says what it is.
pub fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = [".vindex", ".gguf", ".safetensors"].iter().find_map(|&end| name.strip_suffix(end));
    match stem {
        Some(stem) if !stem.is_empty() => stem.to_owned(),
        _ => name,
    }
}

/// Makes a statement's path absolute. With `roots`, the path must lie beneath one of them, symbolic
/// links followed for as far as the path exists.
///
/// # Errors
/// `INVALID_PARAMETER` for an empty path, a NUL, a `~`, a UNC path or a URL; `FORBIDDEN` outside the roots.
pub fn resolve(
    text: &str,
    base: Option<&Path>,
    roots: Option<&[PathBuf]>,
) -> Result<PathBuf, Failure> {
    let invalid =
        |reason: &str| Failure::new(code::INVALID_PARAMETER, format!("{text:?} {reason}"));
    if text.is_empty() {
        return Err(invalid("is no path"));
    }
    if text.contains('\0') {
        return Err(invalid("holds a NUL character"));
    }
    if text.starts_with('~') {
        return Err(
            invalid("starts with ~, which only shells know").hint("write the directory in full")
        );
    }
    if text.starts_with(r"\\") {
        return Err(invalid("is a UNC path").hint("name a directory of this machine"));
    }
    if text.starts_with("hf://") {
        return Err(Failure::new(code::NOT_SUPPORTED, "references to a hub are not supported yet")
            .hint("download the model and name its directory"));
    }
    if text.contains("://") {
        return Err(invalid("is a URL").hint("name a directory"));
    }
    let path = match base {
        Some(base) => base.join(text),
        None if Path::new(text).is_absolute() => PathBuf::from(text),
        None => {
            return Err(invalid("is relative, and the client named no directory")
                .hint("write an absolute path"));
        }
    };
    let path = lexically_normal(&path);
    let Some(roots) = roots else { return Ok(path) };
    let real = real_prefix(&path).map_err(|error| Failure::io(path.display(), &error))?;
    let allowed =
        roots.iter().filter_map(|root| root.canonicalize().ok()).any(|root| real.starts_with(root));
    if allowed {
        return Ok(real);
    }
    Err(Failure::new(code::FORBIDDEN, format!("{text:?} lies outside the directories that this session may name"))
        .hint("`roots` in larqld.toml lists them; the daemon's own user may name any path over the unix socket"))
}

/// Removes `.` and `..` by the text alone.
fn lexically_normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// The path with links resolved in the part of it that exists.
fn real_prefix(path: &Path) -> std::io::Result<PathBuf> {
    let mut existing = path;
    let mut rest = Vec::new();
    loop {
        match existing.canonicalize() {
            Ok(real) => return Ok(rest.iter().rev().fold(real, |path, name| path.join(name))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
                    return Err(error);
                };
                // A dangling link would be followed by whoever creates the file later.
                if existing.is_symlink() {
                    return Err(error);
                }
                rest.push(name);
                existing = parent;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_relative_to_the_clients_directory() {
        let base = Path::new("/home/u");
        assert_eq!(resolve("a/../b", Some(base), None).unwrap(), Path::new("/home/u/b"));
        assert_eq!(resolve("/x/./y", Some(base), None).unwrap(), Path::new("/x/y"));
        assert_eq!(resolve("a", None, None).unwrap_err().code, code::INVALID_PARAMETER);
    }

    #[test]
    fn a_path_that_is_none_is_refused() {
        for text in ["", "a\0b", "~/x", "http://x/y", "file:///x", r"\\server\share"] {
            assert_eq!(
                resolve(text, Some(Path::new("/")), None).unwrap_err().code,
                code::INVALID_PARAMETER,
                "{text:?}"
            );
        }
        assert_eq!(
            resolve("hf://a/b", Some(Path::new("/")), None).unwrap_err().code,
            code::NOT_SUPPORTED
        );
    }

    #[test]
    fn a_confined_session_stays_beneath_its_roots() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("in")).unwrap();
        std::fs::create_dir(directory.path().join("out")).unwrap();
        std::os::unix::fs::symlink("../out", root.join("link")).unwrap();
        std::os::unix::fs::symlink("../nowhere", root.join("dangling")).unwrap();
        let roots = [root.clone()];
        let try_path = |text: &str| resolve(text, Some(&root), Some(&roots));
        assert!(try_path("in/new/file").is_ok());
        for text in [
            "..",
            "../out",
            "/etc/passwd",
            "link",
            "link/x",
            "in/../../out",
            "dangling",
            "dangling/x",
        ] {
            assert!(try_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_model_is_named_without_its_extension() {
        assert_eq!(stem(Path::new("/a/atlas-q4_k_m.gguf")), "atlas-q4_k_m");
        assert_eq!(stem(Path::new("/a/atlas.vindex")), "atlas");
        assert_eq!(stem(Path::new("/a/Llama-3.2")), "Llama-3.2");
        assert_eq!(stem(Path::new("/a/.vindex")), ".vindex");
    }
}
