//! Real files: mapped read-only, written append-only, synced when asked.

use super::truncation::{self, Registration};
use super::{FileKind, FileLock, FileOverwrite, FileWrite, Files, Mapping, Metadata};
use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskFiles;

impl DiskFiles {
    /// The backend as the rest of storage takes it.
    pub fn shared() -> Arc<dyn Files> {
        Arc::new(Self)
    }
}

/// Opens without ever waiting for a FIFO's writer, following a final link or leaking over `exec`.
const OPEN_FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY;

const WRITE_BUFFER_BYTES: usize = 256 * 1024;

impl Files for DiskFiles {
    fn map(&self, path: &Path) -> io::Result<Arc<dyn Mapping>> {
        let (file, length) = open_regular(path)?;
        Ok(Arc::new(DiskMapping::new(path, file, length)?))
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let (file, length) = open_regular(path)?;
        let too_large = || {
            let text =
                format!("{} is larger than the {bytes_max} bytes allowed here", path.display());
            io::Error::new(io::ErrorKind::FileTooLarge, text)
        };
        if length > bytes_max {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(too_large());
        }
        Ok(bytes)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(OPEN_FLAGS)
            .open(path)
            .map_err(|error| explain_open(path, error))?;
        require_regular(path, &file.metadata()?)?;
        Ok(Box::new(DiskWrite {
            file: BufWriter::with_capacity(WRITE_BUFFER_BYTES, file),
            position: 0,
        }))
    }

    fn resume(&self, path: &Path, length: u64) -> io::Result<Box<dyn FileWrite>> {
        let file = OpenOptions::new()
            .append(true)
            .custom_flags(OPEN_FLAGS)
            .open(path)
            .map_err(|error| explain_open(path, error))?;
        let metadata = require_single_name(path, &file)?;
        if metadata.len() < length {
            return Err(shorter_than_resumed(path, metadata.len(), length));
        }
        file.set_len(length)?;
        let file = BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
        Ok(Box::new(DiskWrite { file, position: length }))
    }

    fn overwrite(&self, path: &Path) -> io::Result<Box<dyn FileOverwrite>> {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(OPEN_FLAGS)
            .open(path)
            .map_err(|error| explain_open(path, error))?;
        let length = require_single_name(path, &file)?.len();
        Ok(Box::new(DiskOverwrite { file, length }))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let found = fs::metadata(path)?;
        let kind = match found.file_type() {
            kind if kind.is_file() => FileKind::File,
            kind if kind.is_dir() => FileKind::Directory,
            _ => FileKind::Other,
        };
        Ok(Metadata { length: found.len(), kind })
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)?;
        // What was linked is what is looked at: a symbolic link is linked itself, and not followed.
        if fs::symlink_metadata(to)?.file_type().is_file() {
            return Ok(());
        }
        fs::remove_file(to)?;
        Err(not_regular(from, "a link or a special file"))
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        exchange(&c_path(a)?, &c_path(b)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        // A holder may remove the file while we open it; then our lock is on a nameless file, which
        // excludes nobody, so look again. Each round needs another holder, so the loop ends.
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(OPEN_FLAGS)
                .open(path)
                .map_err(|error| explain_open(path, error))?;
            let ours = file.metadata()?;
            require_regular(path, &ours)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let text = format!("{} is locked by somebody else", path.display());
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            match fs::symlink_metadata(path) {
                Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {
                    return Ok(Box::new(DiskLock { _file: file }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(target_os = "linux")]
fn exchange(a: &CString, b: &CString) -> io::Result<()> {
    // SAFETY: both pointers are NUL-terminated strings that outlive the call.
    let status = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            a.as_ptr(),
            libc::AT_FDCWD,
            b.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if status == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        _ => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &CString, _: &CString) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OPEN_FLAGS)
        .open(path)
        .map_err(|error| explain_open(path, error))?;
    let metadata = file.metadata()?;
    require_regular(path, &metadata)?;
    Ok((file, metadata.len()))
}

fn explain_open(path: &Path, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ELOOP) => not_regular(path, "a symbolic link"),
        Some(libc::EISDIR) => not_regular(path, "a directory"),
        Some(libc::ENXIO) => not_regular(path, "a FIFO, device or socket"),
        _ => error,
    }
}

fn require_regular(path: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    match metadata.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(not_regular(path, "a directory")),
        _ => Err(not_regular(path, "a FIFO, device or socket")),
    }
}

/// What is written to a file with a second name would change the other file.
fn require_single_name(path: &Path, file: &File) -> io::Result<fs::Metadata> {
    let metadata = file.metadata()?;
    require_regular(path, &metadata)?;
    if metadata.nlink() != 1 {
        let text = format!("{} is a hard link to another file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(metadata)
}

/// Refuses to write beyond the end of a file, the same in every backend.
pub(super) fn require_within(offset: u64, bytes: usize, length: u64) -> io::Result<()> {
    match offset.checked_add(bytes as u64) {
        Some(end) if end <= length => Ok(()),
        _ => {
            let text = format!("{bytes} bytes at {offset} do not lie within {length}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

/// The error for anything that is not a regular file, the same in every backend.
pub(super) fn not_regular(path: &Path, what: &str) -> io::Error {
    let text = format!("{} is {what}, not a regular file", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The error for resuming beyond the end of a file, the same in every backend.
pub(super) fn shorter_than_resumed(path: &Path, found: u64, wanted: u64) -> io::Error {
    let text = format!("{} has {found} bytes, cannot resume after {wanted}", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The error for a mapped file whose length is no longer what was mapped.
pub(super) fn changed_length(path: &Path, mapped: u64, found: Option<u64>) -> io::Error {
    let path = path.display();
    let text = match found {
        Some(found) if found > mapped => {
            format!("{path} grew while mounted: {mapped} bytes were mapped, it has {found}")
        }
        Some(found) if found < mapped => {
            format!(
                "{path} was truncated while mounted: {mapped} bytes were mapped, {found} are left"
            )
        }
        _ => format!("{path} was truncated while mounted, or its disk failed to deliver a page"),
    };
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// A mapped file with the handle that tells its present length.
struct DiskMapping {
    path: PathBuf,
    // Dropped in this order: the registration must end before the address range is given back.
    registration: Option<Registration>,
    map: Option<memmap2::Mmap>,
    file: File,
}

impl DiskMapping {
    fn new(path: &Path, file: File, length: u64) -> io::Result<Self> {
        let path = path.to_path_buf();
        if length == 0 {
            return Ok(Self { path, registration: None, map: None, file });
        }
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: the mapping is read-only and private to this value. Another process may still
        // change the file: writes then show through as other byte values, which readers of `&[u8]`
        // treat as data from outside, and truncation is caught by the registration below.
        let map = unsafe { memmap2::MmapOptions::new().len(length).map(&file) }?;
        let registration = truncation::register(map.as_ptr() as usize, map.len())?;
        Ok(Self { path, registration: Some(registration), map: Some(map), file })
    }
}

impl Mapping for DiskMapping {
    fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn check(&self) -> io::Result<()> {
        let (mapped, found) = (self.bytes().len() as u64, self.file.metadata()?.len());
        if found != mapped {
            return Err(changed_length(&self.path, mapped, Some(found)));
        }
        if self.registration.as_ref().is_some_and(Registration::lost) {
            return Err(changed_length(&self.path, mapped, None));
        }
        Ok(())
    }

    fn will_need(&self, range: Range<usize>) {
        let Some(map) = &self.map else { return };
        let end = range.end.min(map.len());
        if range.start < end {
            // A hint: where the kernel refuses it, reading works as well, only later.
            let _ = map.advise_range(memmap2::Advice::WillNeed, range.start, end - range.start);
        }
    }
}

impl std::fmt::Debug for DiskMapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskMapping")
            .field("path", &self.path)
            .field("bytes", &self.bytes().len())
            .finish()
    }
}

#[derive(Debug)]
struct DiskLock {
    _file: File,
}

impl FileLock for DiskLock {}

struct DiskWrite {
    file: BufWriter<File>,
    position: u64,
}

impl Write for DiskWrite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl FileWrite for DiskWrite {
    fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        // fdatasync: the length counts as data wherever it is needed to read the data back.
        self.file.get_ref().sync_data()
    }

    fn position(&self) -> u64 {
        self.position
    }
}

struct DiskOverwrite {
    file: File,
    length: u64,
}

impl FileOverwrite for DiskOverwrite {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        require_within(offset, bytes.len(), self.length)?;
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}
