//! What `larql admin wal` asks: how a log is, what it holds as one file, and what can be saved of one that does not
//! open.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larql_storage::file::{Files, NewFile};
use larql_storage::store::{Engine as LogEngine, Salvage, Store, salvage};

use super::{Edits, OpenStore};
use crate::engine::Engine;
use crate::failure::{Failure, code};

type Lines = Vec<(&'static str, String)>;

/// Does one of `status`, `verify`, `export`, `import` and `salvage` with the log of a mount's base.
///
/// # Errors
/// `INVALID_PARAMETER` for another action; when there is no such mount, file or log, or it refuses.
pub fn wal(
    engine: &Arc<Engine>,
    action: &str,
    model: &str,
    path: &str,
    files: &Arc<dyn Files>,
    resolve: impl Fn(&str) -> Result<PathBuf, Failure>,
) -> Result<Lines, Failure> {
    let edits = engine.edits();
    let base_hash = engine.base_hash_of(model)?;
    let path = if path.is_empty() { None } else { Some(resolve(path)?) };
    match (action, path) {
        ("status", None) => edits.status(&base_hash),
        ("verify", None) => edits.verify(&base_hash),
        ("export", Some(path)) => edits.export(&base_hash, path, files),
        ("import", Some(path)) => edits.import(&base_hash, path, files),
        ("salvage", path) => edits.salvage(&base_hash, path, files),
        ("export" | "import", None) => {
            Err(Failure::new(code::INVALID_PARAMETER, format!("{action} needs a file")))
        }
        _ => {
            Err(Failure::new(code::INVALID_PARAMETER, format!("{action:?} is no action of a log"))
                .hint("status, verify, export, import or salvage"))
        }
    }
}

fn ranges(ranges: &[(u64, u64)]) -> String {
    let texts = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}..{last}"),
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn write_new(
    files: &Arc<dyn Files>,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<u64, Failure> {
    let mut file = NewFile::create(files, path)?;
    write(&mut file).and_then(|()| file.flush()).map_err(|error| file.failed(error))?;
    Ok(file.finish()?)
}

impl Edits {
    fn edited(&self, base_hash: &str) -> Result<Arc<OpenStore>, Failure> {
        self.existing(base_hash)?.ok_or_else(|| {
            Failure::new(code::UNDEFINED_OBJECT, format!("nothing was edited of base {base_hash}"))
        })
    }

    fn status(&self, base_hash: &str) -> Result<Lines, Failure> {
        let store = self.edited(base_hash)?;
        let (status, history) = (store.status(self.files()), store.history());
        Ok(vec![
            ("base_hash", base_hash.to_owned()),
            ("directory", store.directory().display().to_string()),
            ("log", LogEngine::Sled.name().to_owned()),
            ("lsn", status.lsn.to_string()),
            ("history_from_lsn", status.first.to_string()),
            ("checkpoint_lsn", status.checkpoint.to_string()),
            ("records", status.records.to_string()),
            ("branches", history.state().branches().count().to_string()),
        ])
    }

    /// A log that is open is read again by its writer; one that does not open is looked at from outside.
    fn verify(&self, base_hash: &str) -> Result<Lines, Failure> {
        match self.edited(base_hash) {
            Ok(store) => {
                let whole = store.verify()?;
                let last = store.history().state().lsn;
                Ok(vec![("records_whole", whole.to_string()), ("last_lsn", last.to_string())])
            }
            Err(failure) if failure.code == code::UNDEFINED_OBJECT => Err(failure),
            Err(failure) => {
                let found = self.look(base_hash)?;
                let problems = found.problems.first().cloned().unwrap_or(failure.message);
                let message = format!("the log of base {base_hash} is damaged: {problems}");
                Err(Failure::new(code::DAMAGED, message)
                    .hint("larql admin wal salvage says what can be saved"))
            }
        }
    }

    fn export(
        &self,
        base_hash: &str,
        path: PathBuf,
        files: &Arc<dyn Files>,
    ) -> Result<Lines, Failure> {
        let store = self.edited(base_hash)?;
        let bytes = write_new(files, &path, |to| store.export(to))?;
        let lsn = store.history().state().lsn;
        Ok(vec![
            ("file", path.display().to_string()),
            ("bytes", bytes.to_string()),
            ("lsn", lsn.to_string()),
        ])
    }

    fn import(
        &self,
        base_hash: &str,
        path: PathBuf,
        files: &Arc<dyn Files>,
    ) -> Result<Lines, Failure> {
        let mapping = files.map(&path).map_err(|error| Failure::io(path.display(), &error))?;
        let directory = self.directory_of(base_hash)?;
        let mut opening = self.stores.hold();
        if let Some(open) = self.stores.held(&mut opening, base_hash) {
            let lsn = open.history().state().lsn;
            return Err(larql_storage::store::StoreError::NotEmpty { directory, lsn }.into());
        }
        let lsn =
            Store::import(self.files(), &directory, base_hash, LogEngine::Sled, mapping.bytes())?;
        drop(opening);
        self.existing(base_hash)?;
        Ok(vec![("lsn", lsn.to_string())])
    }

    fn look(&self, base_hash: &str) -> Result<Salvage, Failure> {
        let directory = self.directory_of(base_hash)?;
        if !Store::exists(self.files(), &directory) {
            let message = format!("nothing was edited of base {base_hash}");
            return Err(Failure::new(code::UNDEFINED_OBJECT, message));
        }
        let scratch = self.directory.join(format!(".salvage-{}", self.next_pending()));
        let found = salvage(self.files(), &directory, base_hash, LogEngine::Sled, &scratch);
        // A copy that stays is only space.
        let _ = self.files().remove_dir_all(&scratch);
        Ok(found?)
    }

    fn salvage(
        &self,
        base_hash: &str,
        path: Option<PathBuf>,
        files: &Arc<dyn Files>,
    ) -> Result<Lines, Failure> {
        if self.stores.held(&mut self.stores.hold(), base_hash).is_some() {
            return Err(Failure::new(code::BUSY, "the log is open, and nothing of it is missing")
                .hint("larql admin wal export writes all of it"));
        }
        let found = self.look(base_hash)?;
        let acknowledged = found.acknowledged.map_or("unknown".to_owned(), |lsn| lsn.to_string());
        let mut lines = vec![
            ("unbroken_through_lsn", found.unbroken.to_string()),
            ("acknowledged_lsn", acknowledged),
            ("missing", ranges(&found.missing)),
            ("records_whole", found.whole.to_string()),
            ("records_stranded", found.stranded.to_string()),
        ];
        lines.extend(found.problems.iter().take(20).map(|problem| ("problem", problem.clone())));
        if let Some(path) = path {
            let bytes = write_new(files, &path, |to| found.export(to))?;
            lines.push(("file", path.display().to_string()));
            lines.push(("bytes", bytes.to_string()));
        }
        Ok(lines)
    }
}
