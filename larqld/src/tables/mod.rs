//! Tables of facts: what CREATE TABLE makes of a file, for SELECT and JOIN.
//!
//! A table belongs to the daemon, not to a session: every session sees it until somebody drops it, and
//! a restart keeps it. CREATE TABLE copies the file into `tables/` of the data directory under the
//! table's name, so that the original may change or go; the directory is all there is to remember. A
//! table's rows are in memory from its first use on.
//!
//! Promises: a table appears whole or not at all, also when the power fails; statements that read a
//! dropped table keep it until they end; whatever a file holds, the answer is a table or a failure that
//! says where it is wrong, in memory bounded by [`FILE_BYTES_MAX`], [`TABLE_BYTES_MAX`] and [`TABLES_BYTES_MAX`].
//!
//! Elsewhere: which paths a session may name (`paths`), scanning (`exec/table_scan`).

mod delimited;
mod parquet;
mod parquet_pages;
pub(crate) mod tab_separated;
mod table;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use larql_compute::cpu::Cancel;
use larql_storage::file::{FileKind, Files};
use parking_lot::Mutex;

use table::Budget;
pub use table::FactsTable;

use crate::failure::{Failure, code};

/// The largest file that becomes a table, in bytes.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
/// The most memory that one table takes, in bytes.
pub const TABLE_BYTES_MAX: usize = 512 << 20;
/// The most memory that all tables take together, in bytes.
pub const TABLES_BYTES_MAX: usize = 2 << 30;
/// The most columns of a table.
const COLUMNS_MAX: usize = 256;
/// The most tables.
const TABLES_MAX: usize = 256;
/// The longest name of a table, in bytes.
const NAME_BYTES_MAX: usize = 63;
/// Rows read between two looks at the cancel token.
const ROWS_BETWEEN_CHECKS: usize = 1 << 12;
/// Bytes copied between two looks at the cancel token.
const COPY_BYTES: usize = 1 << 20;

/// How a file holds rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Tsv,
    Parquet,
}

impl Format {
    /// What a file's extension says.
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// As [`Format::of`], for a path that a user gave.
    fn named(path: &Path) -> Result<Self, Failure> {
        Self::of(path).ok_or_else(|| {
            let message = format!("{}: the extension says no format", path.display());
            Failure::new(code::INVALID_PARAMETER, message)
                .hint("name a file that ends in .csv, .tsv or .parquet")
        })
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Parquet => "parquet",
        }
    }
}

/// A table that is there, read or not.
#[derive(Debug)]
struct Entry {
    /// In the case that it was created with.
    name: String,
    path: PathBuf,
    format: Format,
    /// Its rows, or what is wrong with its file for good, once somebody has asked.
    table: Mutex<Option<Result<Arc<FactsTable>, Failure>>>,
}

impl Entry {
    /// The rows, if they were read; one that is being read counts as not read.
    fn known(&self) -> Option<Arc<FactsTable>> {
        self.table.try_lock()?.as_ref()?.as_ref().ok().cloned()
    }

    fn get(&self, files: &dyn Files, budget: &Budget) -> Result<Arc<FactsTable>, Failure> {
        let mut table = self.table.lock();
        if let Some(known) = &*table {
            return known.clone();
        }
        let read = read(files, &self.path, self.format, &self.name, budget, &Cancel::new());
        let read = read.map(Arc::new);
        // What else can fail may go better the next time.
        if read.as_ref().map_or_else(|failure| failure.code == code::BAD_FILE, |_| true) {
            *table = Some(read.clone());
        }
        read
    }
}

/// What is known of a table without reading it.
#[derive(Debug)]
pub struct Listed<'s> {
    /// In the case that it was created with.
    pub name: &'s str,
    /// The daemon's copy of its file.
    pub path: &'s Path,
    /// `csv`, `tsv` or `parquet`.
    pub format: &'static str,
    /// Its rows, if somebody has read them.
    pub table: Option<Arc<FactsTable>>,
}

/// All tables as of one moment, by name in lower case.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    entries: Arc<BTreeMap<String, Arc<Entry>>>,
    budget: Budget,
}

/// The tables of a daemon.
#[derive(Debug)]
pub struct Tables {
    files: Arc<dyn Files>,
    directory: PathBuf,
    entries: ArcSwap<BTreeMap<String, Arc<Entry>>>,
    /// Held while the directory changes.
    changing: Mutex<()>,
    /// Tells unfinished copies apart.
    copies: AtomicU64,
    budget: Budget,
}

impl Tables {
    /// Finds the tables in a directory, which need not exist, and removes unfinished copies.
    pub fn open(files: Arc<dyn Files>, directory: PathBuf) -> Self {
        let mut entries = BTreeMap::new();
        for file in files.list(&directory).unwrap_or_default() {
            let path = directory.join(&file);
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if name.starts_with('.') {
                if let Err(error) = files.remove_file(&path) {
                    tracing::warn!("{}: {error}", path.display());
                }
            } else if let Some(format) = Format::of(&path)
                && check_name(name).is_ok()
            {
                let name = name.to_owned();
                let entry = Entry { name, path: path.clone(), format, table: Mutex::default() };
                entries.insert(entry.name.to_lowercase(), Arc::new(entry));
            } else {
                tracing::warn!("{} is no table", path.display());
            }
        }
        Self {
            files,
            directory,
            entries: ArcSwap::from_pointee(entries),
            changing: Mutex::default(),
            copies: AtomicU64::new(0),
            budget: Budget::default(),
        }
    }

    /// All tables as of now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { entries: self.entries.load_full(), budget: self.budget.clone() }
    }

    /// Makes a table of the regular file at `source` among those files, durably; the extension of `format` says how the
    /// file holds rows. A symbolic link is not followed: whoever may follow one has resolved it.
    ///
    /// # Errors
    /// `EXISTS` for a name that is taken; `INVALID_PARAMETER` for a name that is none, or a file whose
    /// extension says no format; `LIMIT` for too many tables or too large a file; `BAD_FILE` for
    /// contents that are no rows; what reading and writing answer; a cancel.
    pub fn create(
        &self,
        name: &str,
        format: &Path,
        (files, source): (&dyn Files, &Path),
        cancel: &Cancel,
    ) -> Result<Arc<FactsTable>, Failure> {
        check_name(name)?;
        self.check_free(name)?;
        let format = Format::named(format)?;
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        let partial = self.directory.join(format!(".{number}.{}", format.extension()));
        let made = self.copy(files, source, &partial, cancel).and_then(|()| {
            let table = read(&*self.files, &partial, format, name, &self.budget, cancel)?;
            self.keep(name, format, &partial, Arc::new(table))
        });
        if made.is_err() {
            // What is left over is removed at the next start.
            let _ = self.files.remove_file(&partial);
        }
        made
    }

    fn check_free(&self, name: &str) -> Result<(), Failure> {
        let entries = self.entries.load();
        if entries.contains_key(&name.to_lowercase()) {
            let message = format!("there is a table \"{name}\" already");
            return Err(Failure::new(code::EXISTS, message).hint(format!("DROP TABLE {name}")));
        }
        if entries.len() >= TABLES_MAX {
            let message = format!("there are {TABLES_MAX} tables already");
            return Err(Failure::new(code::LIMIT, message).hint("DROP TABLE some"));
        }
        Ok(())
    }

    /// Copies a file, which must be a regular one, to a path in the directory.
    fn copy(
        &self,
        files: &dyn Files,
        source: &Path,
        to: &Path,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        let failed = |path: &Path, error: &std::io::Error| Failure::io(path.display(), error);
        let found = files.metadata(source).map_err(|error| failed(source, &error))?;
        if found.kind != FileKind::File {
            let message = format!("{} is no regular file", source.display());
            return Err(Failure::new(code::INVALID_PARAMETER, message).hint("name a file of rows"));
        }
        if found.length > FILE_BYTES_MAX {
            let message = format!(
                "{} has {} bytes, a table is made of at most {FILE_BYTES_MAX}",
                source.display(),
                found.length
            );
            return Err(Failure::new(code::LIMIT, message).hint("split the file"));
        }
        let mapping = files.map(source).map_err(|error| failed(source, &error))?;
        self.files
            .create_dir_all(&self.directory)
            .map_err(|error| failed(&self.directory, &error))?;
        let mut written = self.files.create(to).map_err(|error| failed(to, &error))?;
        let whole = mapping.bytes();
        let whole = &whole[..whole.len().min(FILE_BYTES_MAX as usize)];
        for bytes in whole.chunks(COPY_BYTES) {
            cancel.check()?;
            written.write_all(bytes).map_err(|error| failed(to, &error))?;
        }
        written.sync().map_err(|error| failed(to, &error))?;
        mapping.check().map_err(|error| failed(source, &error))
    }

    /// Gives a copy its name, and shows the table to everybody.
    fn keep(
        &self,
        name: &str,
        format: Format,
        partial: &Path,
        table: Arc<FactsTable>,
    ) -> Result<Arc<FactsTable>, Failure> {
        let _changing = self.changing.lock();
        self.check_free(name)?;
        let path = self.directory.join(format!("{name}.{}", format.extension()));
        let failed = |error: std::io::Error| Failure::io(path.display(), &error);
        self.files.rename(partial, &path).map_err(failed)?;
        self.files.sync_dir(&self.directory).map_err(failed)?;
        let read = Mutex::new(Some(Ok(table.clone())));
        let entry = Entry { name: name.to_owned(), path: path.clone(), format, table: read };
        self.publish(name, Some(Arc::new(entry)));
        Ok(table)
    }

    /// Forgets a table, durably.
    ///
    /// # Errors
    /// `UNDEFINED_TABLE` where there is none; when the directory cannot be written.
    pub fn drop_table(&self, name: &str) -> Result<(), Failure> {
        let _changing = self.changing.lock();
        let Some(entry) = self.entries.load().get(&name.to_lowercase()).cloned() else {
            let message = format!("there is no table \"{name}\"");
            return Err(Failure::new(code::UNDEFINED_TABLE, message));
        };
        let failed = |error: std::io::Error| Failure::io(entry.path.display(), &error);
        self.files.remove_file(&entry.path).map_err(failed)?;
        self.publish(name, None);
        self.files.sync_dir(&self.directory).map_err(failed)
    }

    fn publish(&self, name: &str, entry: Option<Arc<Entry>>) {
        self.entries.rcu(|entries| {
            let mut entries = BTreeMap::clone(entries);
            match &entry {
                Some(entry) => entries.insert(name.to_lowercase(), entry.clone()),
                None => entries.remove(&name.to_lowercase()),
            };
            entries
        });
    }
}

impl Snapshot {
    /// A table by its name in whatever case, read if nobody has before.
    ///
    /// # Errors
    /// Why its copy cannot be read.
    pub fn get(&self, name: &str, files: &dyn Files) -> Result<Option<Arc<FactsTable>>, Failure> {
        let entry = self.entries.get(&name.to_lowercase());
        entry.map(|entry| entry.get(files, &self.budget)).transpose()
    }

    /// All tables, by name.
    pub fn list(&self) -> impl Iterator<Item = Listed<'_>> {
        self.entries.values().map(|entry| Listed {
            name: &entry.name,
            path: &entry.path,
            format: entry.format.extension(),
            table: entry.known(),
        })
    }

    /// The names of all tables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.values().map(|entry| entry.name.as_str())
    }
}

/// Reads the rows of a file outside of any catalogue, by its extension; `name` is what the table is
/// called.
///
/// # Errors
/// `INVALID_PARAMETER` for an extension that says no format; `BAD_FILE` and `LIMIT` for its contents;
/// what reading answers; a cancel.
pub fn read_file(
    files: &dyn Files,
    path: &Path,
    name: &str,
    cancel: &Cancel,
) -> Result<FactsTable, Failure> {
    read(files, path, Format::named(path)?, name, &Budget::default(), cancel)
}

/// Reads the rows of a file.
fn read(
    files: &dyn Files,
    path: &Path,
    format: Format,
    name: &str,
    budget: &Budget,
    cancel: &Cancel,
) -> Result<FactsTable, Failure> {
    let mapping = files.map(path).map_err(|error| Failure::io(path.display(), &error))?;
    let table = match format {
        Format::Csv => delimited::read(mapping.bytes(), b',', name, budget, cancel)?,
        Format::Tsv => delimited::read(mapping.bytes(), b'\t', name, budget, cancel)?,
        Format::Parquet => parquet::read(mapping.clone(), name, budget, cancel)?,
    };
    mapping.check().map_err(|error| Failure::io(path.display(), &error))?;
    Ok(table)
}

/// A name that can be written without quotes, and be a file's.
fn check_name(name: &str) -> Result<(), Failure> {
    let is_name = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_name {
        return Ok(());
    }
    let message = format!("{name:?} is no name of a table");
    Err(Failure::new(code::INVALID_PARAMETER, message)
        .hint(format!("letters, digits and _, at most {NAME_BYTES_MAX}, a letter first")))
}

/// The contents of a file are no rows.
fn bad_file(message: impl Into<String>, hint: &str) -> Failure {
    Failure::new(code::BAD_FILE, message).hint(hint)
}

/// The columns of a file, checked.
fn column_names(names: impl Iterator<Item = String>) -> Result<Vec<String>, Failure> {
    let mut columns: Vec<String> = Vec::new();
    for name in names {
        let at = columns.len() + 1;
        if at > COLUMNS_MAX {
            let message = format!("the file has more than {COLUMNS_MAX} columns");
            return Err(Failure::new(code::LIMIT, message).hint("leave some out"));
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let hint = "the first line of a text file names its columns, at most 63 bytes each";
            return Err(bad_file(format!("column {at} has no usable name"), hint));
        }
        if let Some(first) = columns.iter().position(|other| other.eq_ignore_ascii_case(&name)) {
            let message = format!("columns {} and {at} are both called {name:?}", first + 1);
            return Err(bad_file(message, "give one of them another name"));
        }
        columns.push(name);
    }
    if columns.is_empty() {
        return Err(bad_file("the file has no columns", "the first line names the columns"));
    }
    Ok(columns)
}

#[cfg(test)]
mod tests;
