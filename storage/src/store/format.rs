//! What a store's directory says it is, so that a later or another larqld does not misread it.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{StoreError, io};
use crate::file::{Files, parent_of};

/// The file's name.
pub(super) const NAME: &str = "format.json";
const FORMAT: &str = "larqld edits";
const VERSION: u32 = 1;
const BYTES_MAX: u64 = 64 << 10;

/// What keeps the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// sled.
    Sled,
    /// A plain file.
    File,
}

impl Engine {
    /// Bytes of records that are kept twice, to begin with. A plain file only grows at its end, and needs none.
    pub(super) const fn tail_bytes(self) -> usize {
        match self {
            Self::Sled => 4 << 20,
            Self::File => 0,
        }
    }

    /// As the file says it: sled's own format is that of its version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled 0.34.7",
            Self::File => "file 1",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Format {
    format: String,
    version: u32,
    log: String,
    base_hash: String,
}

/// Whether the directory is new; what it says otherwise must be what is wanted.
pub(super) fn check(
    files: &Arc<dyn Files>,
    directory: &Path,
    base_hash: &str,
    engine: Engine,
) -> Result<bool, StoreError> {
    let path = directory.join(NAME);
    let bytes = match files.read(&path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(io("read", &path)(error)),
    };
    let refuse = |problem: String| Err(StoreError::Format { path: path.clone(), problem });
    let format: Format = match serde_json::from_slice(&bytes) {
        Ok(format) => format,
        Err(error) => return refuse(format!("is damaged: {error}")),
    };
    if format.format != FORMAT {
        return refuse(format!("says {:?}, not {FORMAT:?}", format.format));
    }
    if format.version != VERSION {
        return refuse(format!("says version {}, this larqld reads {VERSION}", format.version));
    }
    if format.log != engine.name() {
        return refuse(format!("says its log is {:?}, not {:?}", format.log, engine.name()));
    }
    if format.base_hash != base_hash {
        return refuse(format!("says base {}, not {base_hash}", format.base_hash));
    }
    Ok(false)
}

/// Says what the directory is; the last thing that makes a store one.
pub(super) fn write(
    files: &Arc<dyn Files>,
    directory: &Path,
    base_hash: &str,
    engine: Engine,
) -> Result<(), StoreError> {
    let path = directory.join(NAME);
    let format = Format {
        format: FORMAT.to_owned(),
        version: VERSION,
        log: engine.name().to_owned(),
        base_hash: base_hash.to_owned(),
    };
    let mut text = serde_json::to_vec_pretty(&format).expect("texts and a number are JSON");
    text.push(b'\n');
    let staging = directory.join("format.json.partial");
    let written = (|| {
        let mut file = files.create(&staging)?;
        file.write_all(&text)?;
        file.sync()?;
        drop(file);
        files.rename(&staging, &path)?;
        files.sync_dir(parent_of(&path))
    })();
    written.map_err(io("write", &path))
}
