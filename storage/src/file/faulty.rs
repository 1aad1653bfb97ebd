//! Files that fail on demand: the n-th write, the n-th sync, a full disk, a stop, a loss of power.
//!
//! [`FaultyFiles`] wraps another backend, counts and records what passes through, and lets one
//! [`Fault`] happen. [`FaultyFiles::crash`] then takes from the backend what a loss of power may take:
//! bytes written after a file's last sync, and directory entries changed after the directory's last
//! sync. That is the harsh end of what file systems do: removals stay done, since nothing that
//! storage removes is needed again. [`FaultyFiles::crash_torn`] takes some of it, sector by sector, as
//! a disk that reorders may.

use super::{FileLock, FileOverwrite, FileWrite, Files, Mapping, Metadata};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What goes wrong. Counting starts at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This write fails with an I/O error; those after it succeed.
    Write(usize),
    /// This sync, of a file or directory, fails with an I/O error; those after it succeed.
    Sync(usize),
    /// After this many bytes the disk is full, and stays so.
    DiskFull(u64),
    /// From this changing operation on, nothing changes any more: the process was killed there.
    Stop(usize),
}

/// One changing operation, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A file was created or truncated.
    Create(PathBuf),
    /// A file was reopened for appending.
    Resume(PathBuf, u64),
    /// Bytes were written to a file.
    Write(PathBuf, usize),
    /// A file was opened to be overwritten in place.
    Overwrite(PathBuf),
    /// A file was synced.
    Sync(PathBuf),
    /// A directory was created, with those above it.
    CreateDirectory(PathBuf),
    /// A directory's entries were synced.
    SyncDirectory(PathBuf),
    /// A rename.
    Rename(PathBuf, PathBuf),
    /// A file was given a second name.
    Link(PathBuf, PathBuf),
    /// An exchange of two names.
    Exchange(PathBuf, PathBuf),
    /// A file or directory was removed.
    Remove(PathBuf),
    /// A lock was asked for.
    Lock(PathBuf),
}

/// A backend that fails on demand; clones share one state.
#[derive(Debug, Clone)]
pub struct FaultyFiles {
    inner: Arc<dyn Files>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    exchange_unsupported: bool,
    operations: Vec<Operation>,
    writes: usize,
    syncs: usize,
    bytes: u64,
    /// Length and synced length of every file written here.
    written: BTreeMap<PathBuf, (u64, u64)>,
    /// What files overwritten in place held at their last sync.
    overwritten: BTreeMap<PathBuf, Vec<u8>>,
    /// Changes of directory entries that no sync has covered, oldest first.
    unsynced: Vec<EntryChange>,
}

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// How much of something a crash leaves.
enum Kept {
    Nothing,
    Some(u64),
}

impl Kept {
    fn count(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Some(count) => count,
        }
    }
}

#[derive(Debug)]
enum EntryChange {
    Created(PathBuf),
    /// With what a file replaced held.
    Renamed(PathBuf, PathBuf, Option<Vec<u8>>),
    Exchanged(PathBuf, PathBuf),
}

impl FaultyFiles {
    /// Wraps a backend; without a fault everything succeeds.
    pub fn new(inner: Arc<dyn Files>, fault: Option<Fault>) -> Self {
        Self { inner, state: Arc::new(Mutex::new(State { fault, ..State::default() })) }
    }

    /// The same, as on a file system that cannot exchange two names.
    pub fn without_exchange(self) -> Self {
        self.state.lock().exchange_unsupported = true;
        self
    }

    /// Every changing operation so far, refused ones included.
    pub fn operations(&self) -> Vec<Operation> {
        self.state.lock().operations.clone()
    }

    /// Takes away what was never synced, as a loss of power may.
    ///
    /// Call it when the writers are gone; the backend below is then as found after a restart.
    pub fn crash(&self) -> io::Result<()> {
        self.lose(&mut |_| Kept::Nothing)
    }

    /// Takes away some of what was never synced: of names the latest, of bytes any sectors.
    ///
    /// The same seed takes the same.
    pub fn crash_torn(&self, seed: u64) -> io::Result<()> {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        self.lose(&mut |choices| {
            // Marsaglia 2003, Xorshift RNGs: good enough to choose what is lost.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            Kept::Some(state % choices.max(1))
        })
    }

    fn lose(&self, keep: &mut dyn FnMut(u64) -> Kept) -> io::Result<()> {
        let mut state = self.state.lock();
        let State { written, overwritten, unsynced, .. } = &mut *state;
        let changes = std::mem::take(unsynced);
        let kept = keep(changes.len() as u64 + 1).count();
        for change in changes.into_iter().skip(kept as usize).rev() {
            match change {
                EntryChange::Created(path) => {
                    remove(&*self.inner, &path)?;
                    written.retain(|file, _| !file.starts_with(&path));
                    overwritten.retain(|file, _| !file.starts_with(&path));
                }
                EntryChange::Renamed(from, to, replaced) => {
                    if self.inner.metadata(&to).is_ok() {
                        self.inner.rename(&to, &from)?;
                        move_paths(written, &to, &from);
                    }
                    if let Some(bytes) = replaced {
                        let mut file = self.inner.create(&to)?;
                        file.write_all(&bytes)?;
                        file.sync()?;
                    }
                }
                EntryChange::Exchanged(a, b) => {
                    if self.inner.metadata(&a).is_ok() && self.inner.metadata(&b).is_ok() {
                        self.inner.exchange(&a, &b)?;
                        exchange_paths(written, &a, &b);
                    } else if self.inner.metadata(&b).is_ok() {
                        self.inner.rename(&b, &a)?;
                        move_paths(written, &b, &a);
                    }
                }
            }
        }
        for (path, (length, synced)) in std::mem::take(written) {
            if synced < length && self.inner.metadata(&path).is_ok() {
                let length = self.inner.metadata(&path)?.length.min(length);
                let left = (synced + keep(length.saturating_sub(synced) + 1).count()).min(length);
                let mut tail = self.inner.read(&path, u64::MAX)?;
                tail.truncate(left as usize);
                let mut tail = tail.split_off(synced as usize);
                for sector in tail.chunks_mut(SECTOR_BYTES) {
                    if keep(4).count() == 0 {
                        sector.fill(0);
                    }
                }
                let mut file = self.inner.resume(&path, synced)?;
                file.write_all(&tail)?;
                file.sync()?;
            }
        }
        for (path, synced) in std::mem::take(overwritten) {
            if self.inner.metadata(&path).is_err() {
                continue;
            }
            let now = self.inner.read(&path, u64::MAX)?;
            let mut file = self.inner.overwrite(&path)?;
            for (at, old) in synced.chunks(SECTOR_BYTES).enumerate() {
                let offset = at * SECTOR_BYTES;
                if now.get(offset..offset + old.len()) != Some(old) && keep(2).count() == 0 {
                    file.write_at(offset as u64, old)?;
                }
            }
            file.sync()?;
        }
        Ok(())
    }

    /// Records a change and says whether it may happen.
    fn admit(&self, operation: Operation) -> io::Result<()> {
        self.state.lock().admit(operation)
    }

    fn tracked(&self, path: &Path, write: Box<dyn FileWrite>) -> Box<dyn FileWrite> {
        Box::new(FaultyWrite { path: path.to_path_buf(), inner: write, state: self.state.clone() })
    }
}

fn remove(files: &dyn Files, path: &Path) -> io::Result<()> {
    match files.remove_file(path).or_else(|_| files.remove_dir_all(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn moved(path: &Path, from: &Path, to: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(from).ok()?;
    Some(if below.as_os_str().is_empty() { to.to_path_buf() } else { to.join(below) })
}

fn move_paths<V>(map: &mut BTreeMap<PathBuf, V>, from: &Path, to: &Path) {
    let old = std::mem::take(map).into_iter();
    *map = old.map(|(path, value)| (moved(&path, from, to).unwrap_or(path), value)).collect();
}

fn exchange_paths<V>(map: &mut BTreeMap<PathBuf, V>, a: &Path, b: &Path) {
    let old = std::mem::take(map).into_iter();
    let swapped = |path: &Path| moved(path, a, b).or_else(|| moved(path, b, a));
    *map = old.map(|(path, value)| (swapped(&path).unwrap_or(path), value)).collect();
}

impl State {
    fn admit(&mut self, operation: Operation) -> io::Result<()> {
        let number = self.operations.len();
        self.operations.push(operation);
        match self.fault {
            Some(Fault::Stop(at)) if number >= at => {
                Err(io::Error::other("stopped here on demand"))
            }
            _ => Ok(()),
        }
    }

    /// How many of `wanted` bytes this write may write.
    fn admit_write(&mut self, path: &Path, wanted: usize) -> io::Result<usize> {
        self.admit(Operation::Write(path.to_path_buf(), wanted))?;
        let number = self.writes;
        self.writes += 1;
        match self.fault {
            Some(Fault::Write(at)) if number == at => {
                Err(io::Error::other("write failed on demand"))
            }
            Some(Fault::DiskFull(budget)) => {
                let left = budget.saturating_sub(self.bytes);
                if left == 0 && wanted > 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Ok(wanted.min(usize::try_from(left).unwrap_or(usize::MAX)))
            }
            _ => Ok(wanted),
        }
    }

    fn admit_sync(&mut self, operation: Operation) -> io::Result<()> {
        self.admit(operation)?;
        let number = self.syncs;
        self.syncs += 1;
        match self.fault {
            Some(Fault::Sync(at)) if number == at => Err(io::Error::other("sync failed on demand")),
            _ => Ok(()),
        }
    }

    fn covers(change: &EntryChange, directory: &Path) -> bool {
        let above = |path: &Path| {
            path.parent()
                .map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
                == Some(directory)
        };
        match change {
            EntryChange::Created(path) => above(path),
            EntryChange::Renamed(a, b, _) | EntryChange::Exchanged(a, b) => above(a) || above(b),
        }
    }
}

impl Files for FaultyFiles {
    fn map(&self, path: &Path) -> io::Result<Arc<dyn Mapping>> {
        self.inner.map(path)
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.inner.read(path, bytes_max)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        self.admit(Operation::Create(path.to_path_buf()))?;
        let new = self.inner.metadata(path).is_err();
        let write = self.inner.create(path)?;
        let mut state = self.state.lock();
        state.written.insert(path.to_path_buf(), (0, 0));
        if new {
            state.unsynced.push(EntryChange::Created(path.to_path_buf()));
        }
        drop(state);
        Ok(self.tracked(path, write))
    }

    fn resume(&self, path: &Path, length: u64) -> io::Result<Box<dyn FileWrite>> {
        self.admit(Operation::Resume(path.to_path_buf(), length))?;
        let write = self.inner.resume(path, length)?;
        // What an earlier process wrote counts as synced: its own crash took the rest.
        let mut state = self.state.lock();
        let synced = state.written.get(path).map_or(length, |&(_, synced)| synced.min(length));
        state.written.insert(path.to_path_buf(), (length, synced));
        drop(state);
        Ok(self.tracked(path, write))
    }

    fn overwrite(&self, path: &Path) -> io::Result<Box<dyn FileOverwrite>> {
        self.admit(Operation::Overwrite(path.to_path_buf()))?;
        let inner = self.inner.overwrite(path)?;
        let mut state = self.state.lock();
        if !state.overwritten.contains_key(path) {
            let there = self.inner.read(path, u64::MAX)?;
            state.overwritten.insert(path.to_path_buf(), there);
        }
        let path = path.to_path_buf();
        drop(state);
        Ok(Box::new(FaultyOverwrite { path, files: self.clone(), inner }))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.inner.metadata(path)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.canonicalize(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(directory)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.admit(Operation::CreateDirectory(path.to_path_buf()))?;
        let missing: Vec<_> = path
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && self.inner.metadata(path).is_err())
            .map(Path::to_path_buf)
            .collect();
        self.inner.create_dir_all(path)?;
        let created = missing.into_iter().rev().map(EntryChange::Created);
        self.state.lock().unsynced.extend(created);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.admit(Operation::Rename(from.to_path_buf(), to.to_path_buf()))?;
        let replaced = self.inner.read(to, u64::MAX).ok();
        self.inner.rename(from, to)?;
        let mut state = self.state.lock();
        move_paths(&mut state.written, from, to);
        let change = EntryChange::Renamed(from.to_path_buf(), to.to_path_buf(), replaced);
        state.unsynced.push(change);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.admit(Operation::Link(from.to_path_buf(), to.to_path_buf()))?;
        self.inner.link(from, to)?;
        self.state.lock().unsynced.push(EntryChange::Created(to.to_path_buf()));
        Ok(())
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        self.admit(Operation::Exchange(a.to_path_buf(), b.to_path_buf()))?;
        if self.state.lock().exchange_unsupported {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.inner.exchange(a, b)?;
        let mut state = self.state.lock();
        exchange_paths(&mut state.written, a, b);
        state.unsynced.push(EntryChange::Exchanged(a.to_path_buf(), b.to_path_buf()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.admit(Operation::Remove(path.to_path_buf()))?;
        self.inner.remove_file(path)?;
        self.state.lock().written.remove(path);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.admit(Operation::Remove(path.to_path_buf()))?;
        self.inner.remove_dir_all(path)?;
        self.state.lock().written.retain(|file, _| !file.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.admit_sync(Operation::SyncDirectory(directory.to_path_buf()))?;
        self.inner.sync_dir(directory)?;
        state.unsynced.retain(|change| !State::covers(change, directory));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.admit(Operation::Lock(path.to_path_buf()))?;
        self.inner.lock(path)
    }
}

struct FaultyWrite {
    path: PathBuf,
    inner: Box<dyn FileWrite>,
    state: Arc<Mutex<State>>,
}

impl Write for FaultyWrite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        let admitted = state.admit_write(&self.path, bytes.len())?;
        let written = self.inner.write(&bytes[..admitted])?;
        state.bytes += written as u64;
        let length = self.inner.position();
        state.written.entry(self.path.clone()).or_default().0 = length;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl FileWrite for FaultyWrite {
    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.admit_sync(Operation::Sync(self.path.clone()))?;
        self.inner.sync()?;
        let length = self.inner.position();
        state.written.insert(self.path.clone(), (length, length));
        Ok(())
    }

    fn position(&self) -> u64 {
        self.inner.position()
    }
}

struct FaultyOverwrite {
    path: PathBuf,
    files: FaultyFiles,
    inner: Box<dyn FileOverwrite>,
}

impl FileOverwrite for FaultyOverwrite {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // In place: a full disk does not matter to it.
        let mut state = self.files.state.lock();
        let budget = state.bytes;
        let admitted = state.admit_write(&self.path, bytes.len());
        state.bytes = budget;
        match admitted {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => return Err(error),
            _ => {}
        }
        self.inner.write_at(offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.files.state.lock();
        state.admit_sync(Operation::Sync(self.path.clone()))?;
        self.inner.sync()?;
        let now = self.files.inner.read(&self.path, u64::MAX)?;
        state.overwritten.insert(self.path.clone(), now);
        Ok(())
    }
}
