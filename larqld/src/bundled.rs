//! Models that come inside the program, so that an installed daemon can show itself without network.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, code};

/// The bundled model: a small one, really trained on general facts (`assets/atlas`).
const ATLAS: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../assets/atlas/config.json")),
    ("generation_config.json", include_bytes!("../assets/atlas/generation_config.json")),
    ("model.safetensors", include_bytes!("../assets/atlas/model.safetensors")),
    ("special_tokens_map.json", include_bytes!("../assets/atlas/special_tokens_map.json")),
    ("tokenizer.json", include_bytes!("../assets/atlas/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../assets/atlas/tokenizer_config.json")),
];

/// Writes the bundled model of that name beneath `directory` and returns where. Files that are there
/// already with the right content are left alone.
///
/// # Errors
/// `UNDEFINED_OBJECT` for another name; when a file cannot be written.
pub fn unpack(name: &str, directory: &Path) -> Result<PathBuf, Failure> {
    if name != "atlas" {
        return Err(Failure::new(
            code::UNDEFINED_OBJECT,
            format!("no model named {name:?} is bundled"),
        )
        .hint("the bundled model is named atlas"));
    }
    let target = directory.join(name);
    std::fs::create_dir_all(&target).map_err(|error| Failure::io(target.display(), &error))?;
    for (file, bytes) in ATLAS {
        let path = target.join(file);
        write_once(&path, bytes).map_err(|error| Failure::io(path.display(), &error))?;
    }
    Ok(target)
}

/// Puts a file in place in one step, so that nobody maps half of it.
fn write_once(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let mut file = std::fs::File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_twice_leaves_the_files_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = unpack("atlas", directory.path()).unwrap();
        let written = |path: &Path| {
            std::fs::metadata(path.join("model.safetensors")).unwrap().modified().unwrap()
        };
        let first = written(&path);
        assert_eq!(unpack("atlas", directory.path()).unwrap(), path);
        assert_eq!(written(&path), first);
    }

    #[test]
    fn a_model_that_is_not_bundled_is_named() {
        let directory = tempfile::tempdir().unwrap();
        assert!(unpack("../atlas", directory.path()).unwrap_err().message.contains("../atlas"));
    }
}
