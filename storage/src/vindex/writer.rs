//! Writing a vindex: beside its destination, resumable, moved in whole.
//!
//! Everything is written into `<destination>.partial`, under a lock on `<destination>.lock` that ends
//! with the process. A journal in the staging directory names what is complete, and never before the
//! data was synced; a killed run is continued from it, or thrown away. [`VindexWriter::finish`] syncs
//! the data, writes and syncs `index.json`, and only then moves the directory to its destination. So
//! at every moment the destination is absent, the old vindex, or the new one.
//!
//! After a failed write or sync the writer refuses everything: nobody retries an fsync. What was
//! journaled before stays good for a resume.

use super::journal::{self, Entry};
use super::layout::{self, INDEX, TENSOR_ALIGNMENT_BYTES};
use super::staging::{
    Paths, begin_staging, check_destination, check_staging, checksum_prefix, create_fresh, discard,
    exists, io_error, is_replaceable, read_journal, reopen_journal, restore_aside, write_fresh,
};
use super::{Checksum, Checksummer, FileEntry, Manifest, ManifestHeader, TensorKey, TensorRecord};
use crate::file::{Claim, ExactWriter, FileWrite, Files, create_durable_dir, is_plain_name};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Data that may be lost to a crash before it is synced and journaled by itself.
const COMMIT_BYTES: u64 = 64 << 20;
/// Bytes of a file that are copied at a time.
const COPY_BYTES: usize = 8 << 20;
/// How to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WritePlan {
    /// Replace the vindex at the destination, when finished.
    pub overwrite: bool,
    /// Continue what an interrupted run left, when there is something.
    pub resume: bool,
    /// Identifies source and options: a run with another fingerprint is not continued.
    pub fingerprint: String,
}

/// Why a vindex could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VindexWriteError {
    /// Something is at the destination.
    #[error("{} exists already", .destination.display())]
    DestinationExists {
        /// The destination.
        destination: PathBuf,
    },
    /// What is to be overwritten is no vindex.
    #[error("{} is not a vindex, so it is not overwritten", .destination.display())]
    DestinationIsNotAVindex {
        /// The destination.
        destination: PathBuf,
    },
    /// Another writer works on the same destination.
    #[error("{} is being written by somebody else", .destination.display())]
    Busy {
        /// The destination.
        destination: PathBuf,
    },
    /// The interrupted run had another source or other options.
    #[error("{} was begun from another source or with other options", .staging.display())]
    FingerprintMismatch {
        /// The staging directory.
        staging: PathBuf,
    },
    /// The staging path holds something that no writer left there, or its data is not what its
    /// journal says.
    #[error("{} cannot be continued or replaced: {problem}", .staging.display())]
    Staging {
        /// The staging directory.
        staging: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file name that a vindex does not hold.
    #[error("{name:?} cannot be a file of a vindex: {problem}")]
    FileName {
        /// The name.
        name: String,
        /// Why not.
        problem: &'static str,
    },
    /// A tensor or part was given twice.
    #[error("{what} was written already")]
    Duplicate {
        /// The tensor or part.
        what: String,
    },
    /// Another number of bytes arrived than was announced.
    #[error("tensor {name} was announced with {expected} bytes, {written} were written")]
    WrongLength {
        /// The tensor.
        name: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes written, up to the first too many.
        written: u64,
    },
    /// The manifest would contradict itself.
    #[error("the manifest would be refused by its reader: {problem}")]
    Manifest {
        /// Why.
        problem: String,
    },
    /// An earlier failure left the content unknown.
    #[error("the writer gave up after an earlier failure")]
    Poisoned,
    /// The system refused.
    #[error("could not {action} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl VindexWriteError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::DestinationExists { .. } => "add OVERWRITE to replace it, or name another path",
            Self::DestinationIsNotAVindex { .. } => "name another path, or remove it yourself",
            Self::Busy { .. } => "wait for the other EXTRACT to end, or cancel it",
            Self::FingerprintMismatch { .. } => {
                "run the same EXTRACT again, or one without RESUME to start over"
            }
            Self::Staging { .. } => "remove it, and run the EXTRACT again",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room on the disk, then run the EXTRACT again with RESUME"
            }
            Self::Io { .. } => "check the path, its permissions and the disk",
            Self::Poisoned => "run the EXTRACT again with RESUME",
            Self::FileName { .. }
            | Self::Duplicate { .. }
            | Self::WrongLength { .. }
            | Self::Manifest { .. } => {
                "this is a fault of the program or of the checkpoint: report it"
            }
        }
    }
}

pub(super) type Result<T, E = VindexWriteError> = std::result::Result<T, E>;

/// A file of tensors or parts, open for appending.
struct DataFile {
    write: Box<dyn FileWrite>,
    checksummer: Checksummer,
    tensors: Vec<TensorRecord>,
    /// Parts of a file without tensors.
    parts: BTreeSet<String>,
    /// Written to since the last sync.
    dirty: bool,
}

struct SideFile {
    bytes: u64,
    sha256: Checksum,
}

/// A vindex in the making.
pub struct VindexWriter {
    files: Arc<dyn Files>,
    paths: Paths,
    overwrite: bool,
    journal: Box<dyn FileWrite>,
    data: BTreeMap<String, DataFile>,
    side: BTreeMap<String, SideFile>,
    /// Files of another vindex that are in this one as they are.
    adopted: BTreeMap<String, FileEntry>,
    /// Complete tensors and their files.
    keys: HashMap<TensorKey, String>,
    /// Complete, but not yet synced and journaled.
    pending: Vec<Entry>,
    pending_bytes: u64,
    /// Files were created since the directory was last synced.
    directory_dirty: bool,
    poisoned: bool,
    /// A sync failed, so that not even finished tensors may be journaled.
    sync_failed: bool,
    _lock: Claim,
}

impl VindexWriter {
    /// Takes the lock, prepares the staging directory and, on resume, reads what is complete.
    ///
    /// # Errors
    /// `DestinationExists` without `overwrite`; `DestinationIsNotAVindex` with it, when the
    /// destination is neither a directory with an `index.json` nor empty; `Busy`;
    /// `FingerprintMismatch` on resume. Nothing has changed in these cases.
    pub fn create(files: &Arc<dyn Files>, destination: &Path, plan: &WritePlan) -> Result<Self> {
        let paths = Paths::of(destination).ok_or_else(|| {
            io_error("write to", destination)(io::Error::from(io::ErrorKind::InvalidInput))
        })?;
        create_durable_dir(files, &paths.parent)
            .map_err(|(action, path, source)| VindexWriteError::Io { action, path, source })?;
        let lock = match Claim::take(files, &paths.lock) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(VindexWriteError::Busy { destination: paths.destination });
            }
            Err(error) => return Err(io_error("lock", &paths.lock)(error)),
        };
        restore_aside(files, &paths)?;
        check_destination(files, &paths.destination, plan.overwrite)?;
        let found = if exists(files, &paths.staging)? {
            check_staging(files, &paths)?;
            if plan.resume { read_journal(files, &paths)? } else { None }
        } else {
            None
        };
        if let Some(found) = &found
            && found.fingerprint != plan.fingerprint
        {
            return Err(VindexWriteError::FingerprintMismatch { staging: paths.staging });
        }
        let journal = match &found {
            Some(found) => reopen_journal(files, &paths, found.bytes)?,
            None => begin_staging(files, &paths, &plan.fingerprint)?,
        };
        let mut writer = Self {
            files: files.clone(),
            paths,
            overwrite: plan.overwrite,
            journal,
            data: BTreeMap::new(),
            side: BTreeMap::new(),
            adopted: BTreeMap::new(),
            keys: HashMap::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            directory_dirty: false,
            poisoned: false,
            sync_failed: false,
            _lock: lock,
        };
        if let Some(found) = found {
            writer.reopen_data(found.entries)?;
        }
        Ok(writer)
    }

    /// Whether a destination may be written to as things are now; [`VindexWriter::create`] asks the
    /// same again.
    ///
    /// # Errors
    /// `DestinationExists` and `DestinationIsNotAVindex`, as [`VindexWriter::create`].
    pub fn check_destination(
        files: &Arc<dyn Files>,
        destination: &Path,
        overwrite: bool,
    ) -> Result<()> {
        check_destination(files, destination, overwrite)
    }

    /// Whether a tensor is complete already, from an interrupted run or from this one.
    pub fn has(&self, file: &str, key: &TensorKey) -> bool {
        self.keys.get(key).is_some_and(|found| found == file)
    }

    /// Whether a part is complete already, from an interrupted run or from this one.
    pub fn has_part(&self, file: &str, part: &str) -> bool {
        self.data.get(file).is_some_and(|data| data.parts.contains(part))
    }

    /// The directory that is being written to, until [`VindexWriter::finish`].
    pub fn staging(&self) -> &Path {
        &self.paths.staging
    }

    /// Appends a tensor to `file`, aligned; `write` delivers exactly `record.bytes` bytes.
    ///
    /// `record.offset` is ignored and computed. Files are synced and journaled now and then, and at
    /// [`VindexWriter::commit`]. Whoever wants the same bytes again writes in the same order.
    ///
    /// # Errors
    /// `WrongLength`, or what `write` returned as `Io`; the writer is of no more use then, but what
    /// was complete before can be resumed.
    pub fn tensor(
        &mut self,
        file: &str,
        mut record: TensorRecord,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        self.require_usable()?;
        let key = record.key();
        if self.keys.contains_key(&key) {
            return Err(VindexWriteError::Duplicate { what: key.to_string() });
        }
        let path = self.paths.staging.join(file);
        let data = self.data_file(file)?;
        if !data.parts.is_empty() {
            let problem = "it consists of parts without a place in the manifest";
            return Err(VindexWriteError::FileName { name: file.to_owned(), problem });
        }
        let (start, expected) = (data.write.position(), record.bytes);
        let offset = start.next_multiple_of(TENSOR_ALIGNMENT_BYTES);
        record.offset = offset;
        data.dirty = true;
        let padding = [0; TENSOR_ALIGNMENT_BYTES as usize];
        let padded = data.write_all(&padding[..(offset - start) as usize]);
        let mut exact = ExactWriter::new(&mut *data, expected);
        let outcome = match padded.and_then(|()| write(&mut exact)) {
            Err(error) if !exact.is_surplus() => Err(io_error("write", &path)(error)),
            _ => exact.finish().map_err(|written| {
                let name = record.name.clone();
                VindexWriteError::WrongLength { name, expected, written }
            }),
        };
        if outcome.is_err() {
            self.poisoned = true;
            return outcome;
        }
        data.tensors.push(record.clone());
        self.keys.insert(key, file.to_owned());
        self.complete(Entry::Tensor { file: file.to_owned(), record }, expected)
    }

    /// Appends `bytes` to a file that has no tensors, such as `down_meta.bin`, and remembers them as
    /// `part` for a resume. Parts follow one another without padding.
    pub fn append_part(&mut self, file: &str, part: &str, bytes: &[u8]) -> Result<()> {
        self.require_usable()?;
        if self.has_part(file, part) {
            return Err(VindexWriteError::Duplicate { what: format!("part {part} of {file}") });
        }
        let path = self.paths.staging.join(file);
        let data = self.data_file(file)?;
        if !data.tensors.is_empty() {
            let problem = "it holds tensors, which parts have no place among";
            return Err(VindexWriteError::FileName { name: file.to_owned(), problem });
        }
        data.dirty = true;
        let outcome = data.write_all(bytes).map_err(io_error("write", &path));
        if outcome.is_err() {
            self.poisoned = true;
            return outcome;
        }
        data.parts.insert(part.to_owned());
        let end = data.write.position();
        let entry = Entry::Part { file: file.to_owned(), part: part.to_owned(), end };
        self.complete(entry, bytes.len() as u64)
    }

    /// Writes and syncs a whole small file, for example `config.json`; again on every run.
    pub fn side_file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.require_usable()?;
        check_name(name)?;
        if self.data.contains_key(name) || self.adopted.contains_key(name) {
            return Err(VindexWriteError::Duplicate { what: name.to_owned() });
        }
        if bytes.len() as u64 > layout::SIDE_FILE_BYTES_MAX {
            let problem = "it is larger than side files are read back";
            return Err(VindexWriteError::FileName { name: name.to_owned(), problem });
        }
        let path = self.paths.staging.join(name);
        self.poisoned = true;
        self.directory_dirty = true;
        write_fresh(&self.files, &path, bytes)?;
        self.poisoned = false;
        let sha256 = Checksum::of(bytes);
        self.side.insert(name.to_owned(), SideFile { bytes: bytes.len() as u64, sha256 });
        Ok(())
    }

    /// Takes a file of another vindex in as it is: linked where the file system can, else copied.
    ///
    /// `content` is the file as it is mapped, and `entry` what that vindex's manifest says of it. What is
    /// linked is never written to: every writer of this crate begins a file of its own. It is taken in
    /// again on every run.
    ///
    /// # Errors
    /// `Duplicate`, `FileName`, `Io`.
    pub fn adopt(&mut self, entry: &FileEntry, from: &Path, content: &[u8]) -> Result<()> {
        self.require_usable()?;
        let name = entry.name.clone();
        check_name(&name)?;
        let keys: Vec<TensorKey> = entry.tensors.iter().map(TensorRecord::key).collect();
        let taken = keys.iter().find(|key| self.keys.contains_key(*key));
        let is_there = self.data.contains_key(&name)
            || self.side.contains_key(&name)
            || self.adopted.contains_key(&name);
        if is_there || taken.is_some() {
            let what = taken.map_or_else(|| name.clone(), TensorKey::to_string);
            return Err(VindexWriteError::Duplicate { what });
        }
        let path = self.paths.staging.join(&name);
        self.poisoned = true;
        self.directory_dirty = true;
        if self.files.link(from, &path).is_err() {
            let mut file = create_fresh(&self.files, &path)?;
            for chunk in content.chunks(COPY_BYTES) {
                file.write_all(chunk).map_err(io_error("write", &path))?;
            }
            file.sync().map_err(io_error("sync", &path))?;
        }
        self.poisoned = false;
        self.keys.extend(keys.into_iter().map(|key| (key, name.clone())));
        self.adopted.insert(name, entry.clone());
        Ok(())
    }

    /// Makes everything complete so far survive a crash: syncs the data, then journals it.
    pub fn commit(&mut self) -> Result<()> {
        self.require_usable()?;
        self.sync_and_journal()
    }

    /// Syncs everything, writes `index.json` and moves the vindex to its destination.
    ///
    /// # Errors
    /// `Manifest` when the header does not fit the tensors. After an `Io` error the destination is
    /// as it was, or, if only the last sync failed, the finished vindex.
    pub fn finish(mut self, header: ManifestHeader) -> Result<Manifest> {
        let manifest = self.write_index(header)?;
        self.move_in()?;
        // The vindex is in place; a journal that cannot be removed is one unlisted file in it.
        let _ = self.files.remove_file(&self.paths.destination.join(journal::NAME));
        Ok(manifest)
    }

    /// Makes the staging directory a vindex that can be opened where it is, to be looked at before
    /// [`Sealed::finish`] moves it to its destination. Nothing can be added or resumed any more.
    ///
    /// # Errors
    /// As [`VindexWriter::finish`]; the destination is as it was.
    pub fn seal(mut self, header: ManifestHeader) -> Result<Sealed> {
        let manifest = self.write_index(header)?;
        let journal = self.paths.staging.join(journal::NAME);
        self.files.remove_file(&journal).map_err(io_error("remove", &journal))?;
        Ok(Sealed { writer: self, manifest })
    }

    /// Gives up: what was written goes, the destination stays as it is.
    ///
    /// # Errors
    /// `Io`, when something could not be removed; the next writer of this destination removes it.
    pub fn abandon(mut self) -> Result<()> {
        (self.poisoned, self.sync_failed) = (true, true);
        self.pending.clear();
        discard(&self.files, &self.paths.staging)
    }

    /// Syncs the data and writes the manifest.
    fn write_index(&mut self, header: ManifestHeader) -> Result<Manifest> {
        self.commit()?;
        let manifest = self.manifest(header)?;
        self.poisoned = true;
        let staging = &self.paths.staging;
        write_fresh(&self.files, &staging.join(INDEX), &manifest.encode())?;
        self.files.sync_dir(staging).map_err(io_error("sync", staging))?;
        Ok(manifest)
    }

    fn manifest(&mut self, header: ManifestHeader) -> Result<Manifest> {
        let data = self.data.iter().map(|(name, data)| FileEntry {
            name: name.clone(),
            bytes: data.write.position(),
            sha256: Some(data.checksummer.clone().finish()),
            tensors: data.tensors.clone(),
        });
        let side = self.side.iter().map(|(name, side)| FileEntry {
            name: name.clone(),
            bytes: side.bytes,
            sha256: Some(side.sha256),
            tensors: Vec::new(),
        });
        let adopted = self.adopted.values().cloned();
        let mut files: Vec<_> = data.chain(side).chain(adopted).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let manifest = Manifest { version: layout::VERSION, header, files };
        manifest.check().map_err(|problem| VindexWriteError::Manifest { problem })?;
        Ok(manifest)
    }

    /// Puts the finished staging directory where the destination is, and makes that durable.
    fn move_in(&self) -> Result<()> {
        let Paths { destination, parent, staging, aside, .. } = &self.paths;
        check_destination(&self.files, destination, self.overwrite)?;
        let sync_parent = || self.files.sync_dir(parent).map_err(io_error("sync", parent));
        if !exists(&self.files, destination)? {
            self.files.rename(staging, destination).map_err(io_error("move to", destination))?;
            return sync_parent();
        }
        match self.files.exchange(staging, destination) {
            Ok(()) => {
                sync_parent()?;
                discard(&self.files, staging)
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                if exists(&self.files, aside)? && is_replaceable(&self.files, aside, &[INDEX]) {
                    // Left by an overwrite that was interrupted after the new vindex was in place.
                    discard(&self.files, aside)?;
                }
                self.files
                    .rename(destination, aside)
                    .map_err(io_error("move aside", destination))?;
                if let Err(error) = self.files.rename(staging, destination) {
                    restore_aside(&self.files, &self.paths)?;
                    return Err(io_error("move to", destination)(error));
                }
                sync_parent()?;
                discard(&self.files, aside)
            }
            Err(error) => Err(io_error("replace", destination)(error)),
        }
    }

    fn require_usable(&self) -> Result<()> {
        if self.poisoned { Err(VindexWriteError::Poisoned) } else { Ok(()) }
    }

    /// The open file of that name, created when new.
    fn data_file(&mut self, name: &str) -> Result<&mut DataFile> {
        if self.side.contains_key(name) || self.adopted.contains_key(name) {
            return Err(VindexWriteError::Duplicate { what: name.to_owned() });
        }
        if !self.data.contains_key(name) {
            check_name(name)?;
            let path = self.paths.staging.join(name);
            let write = create_fresh(&self.files, &path)?;
            self.directory_dirty = true;
            self.data.insert(name.to_owned(), DataFile::new(write, Checksummer::new()));
        }
        Ok(self.data.get_mut(name).expect("inserted above"))
    }

    fn complete(&mut self, entry: Entry, bytes: u64) -> Result<()> {
        self.pending.push(entry);
        self.pending_bytes = self.pending_bytes.saturating_add(bytes);
        if self.pending_bytes >= COMMIT_BYTES { self.sync_and_journal() } else { Ok(()) }
    }

    fn sync_and_journal(&mut self) -> Result<()> {
        // Until the last sync has succeeded, nothing here may be trusted or tried again.
        (self.poisoned, self.sync_failed) = (true, true);
        for (name, data) in self.data.iter_mut().filter(|(_, data)| data.dirty) {
            data.write.sync().map_err(io_error("sync", &self.paths.staging.join(name)))?;
            data.dirty = false;
        }
        if std::mem::take(&mut self.directory_dirty) {
            let staging = &self.paths.staging;
            self.files.sync_dir(staging).map_err(io_error("sync", staging))?;
        }
        if !self.pending.is_empty() {
            let lines: Vec<u8> = self.pending.iter().flat_map(Entry::encode).collect();
            let path = self.paths.staging.join(journal::NAME);
            self.journal.write_all(&lines).map_err(io_error("write", &path))?;
            self.journal.sync().map_err(io_error("sync", &path))?;
            self.pending.clear();
            self.pending_bytes = 0;
        }
        (self.poisoned, self.sync_failed) = (false, false);
        Ok(())
    }

    /// Reopens the files that a journal names, cut to what it says is complete.
    fn reopen_data(&mut self, entries: Vec<Entry>) -> Result<()> {
        let staging = self.paths.staging.clone();
        let refuse = |problem| VindexWriteError::Staging { staging: staging.clone(), problem };
        let mut ends = BTreeMap::<String, (u64, Vec<TensorRecord>, BTreeSet<String>)>::new();
        for entry in entries {
            let fresh = match entry {
                Entry::Start { .. } => return Err(refuse("its journal starts twice".to_owned())),
                Entry::Tensor { file, record } => {
                    let twice = self.keys.insert(record.key(), file.clone()).is_some();
                    let (end, tensors, _) = ends.entry(file).or_default();
                    let new_end = record.offset.checked_add(record.bytes);
                    let fresh = !twice && record.offset >= *end;
                    *end = new_end.ok_or_else(|| refuse("its journal overflows".to_owned()))?;
                    tensors.push(record);
                    fresh
                }
                Entry::Part { file, part, end: new_end } => {
                    let (end, _, parts) = ends.entry(file).or_default();
                    let fresh = parts.insert(part) && new_end >= *end;
                    *end = new_end;
                    fresh
                }
            };
            if !fresh {
                return Err(refuse("its journal contradicts itself".to_owned()));
            }
        }
        for (name, (end, tensors, parts)) in ends {
            check_name(&name)?;
            let path = staging.join(&name);
            let checksummer = checksum_prefix(&self.files, &path, end)
                .map_err(|error| refuse(format!("{name}: {error}")))?;
            let write = self.files.resume(&path, end).map_err(io_error("continue", &path))?;
            self.data
                .insert(name, DataFile { tensors, parts, ..DataFile::new(write, checksummer) });
        }
        Ok(())
    }
}

impl Drop for VindexWriter {
    fn drop(&mut self) {
        // Interrupted, not finished: keep what is complete for a resume. If that fails, a resume
        // starts from the commit before.
        if !self.pending.is_empty() && !self.sync_failed {
            let _ = self.sync_and_journal();
        }
    }
}

/// A whole vindex beside its destination, under the writer's lock.
#[derive(Debug)]
pub struct Sealed {
    writer: VindexWriter,
    manifest: Manifest,
}

impl Sealed {
    /// Where it lies until it is moved.
    pub fn staging(&self) -> &Path {
        self.writer.staging()
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Moves it to its destination.
    ///
    /// # Errors
    /// As [`VindexWriter::finish`].
    pub fn finish(self) -> Result<Manifest> {
        self.writer.move_in()?;
        Ok(self.manifest)
    }

    /// Gives up, as [`VindexWriter::abandon`].
    ///
    /// # Errors
    /// As there.
    pub fn abandon(self) -> Result<()> {
        self.writer.abandon()
    }
}

impl std::fmt::Debug for VindexWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VindexWriter")
            .field("destination", &self.paths.destination)
            .finish_non_exhaustive()
    }
}

impl DataFile {
    fn new(write: Box<dyn FileWrite>, checksummer: Checksummer) -> Self {
        Self { write, checksummer, tensors: Vec::new(), parts: BTreeSet::new(), dirty: false }
    }
}

/// Appends, and digests what was appended.
impl Write for DataFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.write.write(bytes)?;
        self.checksummer.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write.flush()
    }
}

fn check_name(name: &str) -> Result<()> {
    let problem = match name {
        INDEX => "it is the manifest",
        _ if !is_plain_name(name) => "it is not a plain file name",
        _ => return Ok(()),
    };
    Err(VindexWriteError::FileName { name: name.to_owned(), problem })
}
