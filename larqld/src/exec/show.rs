//! SHOW MODELS, SHOW MOUNTS and SHOW of settings.

use std::path::{Path, PathBuf};

use larql_planner::settings::SETTINGS;
use larql_planner::value::Value;

use super::mount_row::{entry_row, integer};
use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::engine::MountEntry;
use crate::failure::Failure;
use crate::mounts::{Kind, Model};
use crate::paths;

/// Directory entries that SHOW MODELS looks at, of each directory.
const ENTRIES_MAX: usize = 1000;

/// What is mounted, by name.
#[derive(Default)]
pub(super) struct ShowMounts {
    ready: Option<Ready>,
}

impl Operator for ShowMounts {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            let mounts = work.engine().mounts();
            for (name, entry) in mounts.iter() {
                if let MountEntry::Unavailable { failure, .. } = entry {
                    work.notice(
                        format!("{name} is unavailable: {}", failure.message),
                        failure.hint.clone(),
                    )?;
                }
            }
            let rows = mounts.iter().map(|(name, entry)| entry_row(work, name, entry)).collect();
            self.ready = Some(Ready::new(rows));
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}

/// Vindexes and checkpoints in the data directory and, for the daemon's own user, in the client's
/// directory.
#[derive(Default)]
pub(super) struct ShowModels {
    ready: Option<Ready>,
}

impl Operator for ShowModels {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            let mut places = vec![
                work.engine().data_dir().join("vindexes"),
                work.engine().data_dir().join("models"),
            ];
            if work.context.owner() {
                places.extend(work.working_directory().map(Path::to_owned));
            }
            let mut rows = Vec::new();
            for place in places {
                for path in directories(&place) {
                    work.cancel.check()?;
                    rows.extend(model_row(work, &path));
                }
            }
            self.ready = Some(Ready::new(rows));
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}

fn directories(place: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten().take(ENTRIES_MAX);
    let mut directories: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    directories.sort();
    directories
}

/// The row of a directory that holds a model; `None` for any other.
fn model_row(work: &Work<'_>, path: &Path) -> Option<Row> {
    let vindex = path.join("index.json").is_file();
    if !vindex && !path.join("config.json").is_file() {
        return None;
    }
    let name = Value::text(paths::stem(path));
    let shown = Value::text(path.display().to_string());
    // A checkpoint is not opened: that would read every byte of it for its identity.
    if !vindex {
        let kind = Value::text(Kind::Checkpoint.as_str());
        return Some(vec![name, shown, kind, Value::Null, Value::Null, integer(size_of(path))]);
    }
    let kind = Value::text(Kind::Vindex.as_str());
    Some(match Model::open_vindex(work.engine().files(), path) {
        Ok(model) => {
            vec![
                name,
                shown,
                kind,
                Value::text(model.level()),
                integer(model.layers().into()),
                integer(model.bytes()),
            ]
        }
        Err(_) => {
            vec![name, shown, kind, Value::text("damaged"), Value::Null, integer(size_of(path))]
        }
    })
}

fn size_of(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().take(ENTRIES_MAX);
    entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|file| file.len())
        .sum()
}

/// One setting, or all of them.
pub(super) struct ShowSetting {
    name: Option<&'static str>,
    done: bool,
}

impl ShowSetting {
    pub(super) fn new(name: Option<&'static str>) -> Self {
        Self { name, done: false }
    }
}

impl Operator for ShowSetting {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let state = work.context.state();
        let wanted =
            SETTINGS.iter().filter(|setting| self.name.is_none_or(|name| setting.name == name));
        let row = |setting: &larql_planner::settings::Setting| {
            let value = state
                .settings
                .get(setting.name)
                .map_or(Value::Null, |value| Value::text(value.to_string()));
            vec![
                Value::text(setting.name),
                value,
                Value::text(setting.default.to_string()),
                Value::text(setting.help),
            ]
        };
        let rows: Vec<Row> = wanted.map(row).collect();
        Ok((!rows.is_empty()).then_some(rows))
    }
}
