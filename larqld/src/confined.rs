//! Files beneath a session's roots, reached by directory handles.
//!
//! A path is checked when its statement begins (`paths`), and somebody who may write beneath a root can
//! put a link in place of a directory before the file is opened. So nothing here is opened by path: each
//! operation walks from its root to the parent of the last component, one directory handle after another
//! and no link followed, and then names that component beneath the last handle. Whoever swaps a
//! directory makes the statement fail, and never leads it out.
//!
//! Links that lie beneath the roots when a path is resolved may be followed, as by whoever names them:
//! [`Files::canonicalize`] and [`Files::metadata`] follow them as long as they end beneath a root.
//!
//! Elsewhere: the operations themselves (`larql_storage::file`), which open no link and nothing but
//! regular files in the last component.

use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use larql_storage::file::{FileKind, FileLock, FileOverwrite, FileWrite, Files, Mapping, Metadata};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

/// A handle that names a directory, and can neither read nor write it.
const HANDLE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The files of the operating system that lie beneath some directories.
#[derive(Debug)]
pub struct ConfinedFiles {
    roots: Arc<Vec<PathBuf>>,
    /// What operates on a component beneath a handle: it must be the operating system's.
    disk: Arc<dyn Files>,
}

/// A directory, held open, in which the last component of a path is named.
struct Place {
    directory: OwnedFd,
    name: OsString,
}

impl Place {
    /// The component as a path that leads through the handle.
    fn path(&self) -> PathBuf {
        through(&self.directory).join(&self.name)
    }
}

/// A path to what a handle holds, whatever lies under its old name now.
fn through(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

impl ConfinedFiles {
    /// The files beneath `roots`, operated on by `disk`.
    pub fn new(roots: Arc<Vec<PathBuf>>, disk: Arc<dyn Files>) -> Self {
        Self { roots, disk }
    }

    /// The root that a path without links lies beneath, and the way from there.
    fn beneath<'p>(&self, path: &'p Path) -> io::Result<(PathBuf, &'p Path)> {
        let roots = self.roots.iter().filter_map(|root| root.canonicalize().ok());
        let found = roots.filter_map(|root| {
            let rest = path.strip_prefix(&root).ok()?;
            rest.components()
                .all(|part| matches!(part, Component::Normal(_)))
                .then_some((root, rest))
        });
        found.max_by_key(|(root, _)| root.as_os_str().len()).ok_or_else(|| {
            let text = "it leads out of the directories that this session may name";
            io::Error::new(io::ErrorKind::PermissionDenied, text)
        })
    }

    /// Opens the directory at a path; with `create`, makes what is missing.
    fn directory(&self, path: &Path, create: bool) -> io::Result<OwnedFd> {
        let (root, rest) = self.beneath(path)?;
        let mut directory = rustix::fs::open(&root, HANDLE, Mode::empty())?;
        for name in rest {
            directory = step(&directory, name, create)?;
        }
        Ok(directory)
    }

    /// Where the last component of a path is.
    fn place(&self, path: &Path) -> io::Result<Place> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok(Place { directory: self.directory(parent, false)?, name: name.to_owned() })
    }

    /// Operates on the last component of a path.
    fn at<T>(&self, path: &Path, operate: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let place = self.place(path)?;
        let through = place.path();
        operate(&through).map_err(|error| named(error, &through, path))
    }
}

/// The directory of that name in another one, unless it is a link.
fn step(directory: &OwnedFd, name: &OsStr, create: bool) -> io::Result<OwnedFd> {
    if create {
        match rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let opened = rustix::fs::openat(directory, name, HANDLE | OFlags::NOFOLLOW, Mode::empty());
    Ok(opened?)
}

/// An error that calls the file by the name that the user gave it.
fn named(error: io::Error, through: &Path, path: &Path) -> io::Error {
    let text = error.to_string();
    let through = through.display().to_string();
    if error.raw_os_error().is_some() || !text.contains(&through) {
        return error;
    }
    io::Error::new(error.kind(), text.replace(&through, &path.display().to_string()))
}

/// A mapping that is called by the name that the user gave its file.
#[derive(Debug)]
struct Named {
    mapping: Arc<dyn Mapping>,
    path: PathBuf,
}

impl Mapping for Named {
    fn bytes(&self) -> &[u8] {
        self.mapping.bytes()
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn check(&self) -> io::Result<()> {
        self.mapping.check().map_err(|error| named(error, self.mapping.path(), &self.path))
    }

    fn will_need(&self, range: Range<usize>) {
        self.mapping.will_need(range);
    }
}

impl Files for ConfinedFiles {
    fn map(&self, path: &Path) -> io::Result<Arc<dyn Mapping>> {
        let mapping = self.at(path, |through| self.disk.map(through))?;
        Ok(Arc::new(Named { mapping, path: path.to_owned() }))
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.at(path, |through| self.disk.read(through, bytes_max))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        self.at(path, |through| self.disk.create(through))
    }

    fn resume(&self, path: &Path, length: u64) -> io::Result<Box<dyn FileWrite>> {
        self.at(path, |through| self.disk.resume(through, length))
    }

    fn overwrite(&self, path: &Path) -> io::Result<Box<dyn FileOverwrite>> {
        self.at(path, |through| self.disk.overwrite(through))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let real = self.canonicalize(path)?;
        if self.beneath(&real)?.1.as_os_str().is_empty() {
            return Ok(Metadata { length: 0, kind: FileKind::Directory });
        }
        let Place { directory, name } = self.place(&real)?;
        let found = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            _ => FileKind::Other,
        };
        Ok(Metadata { length: u64::try_from(found.st_size).unwrap_or(0), kind })
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        let real = self.disk.canonicalize(path)?;
        self.beneath(&real)?;
        Ok(real)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let real = self.canonicalize(directory)?;
        self.disk.list(&through(&self.directory(&real, false)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.directory(path, true).map(drop)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        self.disk.rename(&from.path(), &to.path())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        self.disk.link(&from.path(), &to.path())
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        let (a, b) = (self.place(a)?, self.place(b)?);
        self.disk.exchange(&a.path(), &b.path())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.at(path, |through| self.disk.remove_file(through))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.at(path, |through| self.disk.remove_dir_all(through))
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.disk.sync_dir(&through(&self.directory(directory, false)?))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.at(path, |through| self.disk.lock(through))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use larql_storage::file::DiskFiles;

    use super::*;

    struct Fixture {
        directory: tempfile::TempDir,
        files: ConfinedFiles,
    }

    impl Fixture {
        /// `root` with the folder `in`, and `out` beside it, which holds `secret`.
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(directory.path().join("root/in")).unwrap();
            std::fs::create_dir(directory.path().join("out")).unwrap();
            std::fs::write(directory.path().join("out/secret"), "secret").unwrap();
            std::fs::write(directory.path().join("root/in/secret"), "harmless").unwrap();
            let roots = Arc::new(vec![directory.path().join("root")]);
            Self { directory, files: ConfinedFiles::new(roots, DiskFiles::shared()) }
        }

        fn path(&self, text: &str) -> PathBuf {
            self.directory.path().canonicalize().unwrap().join(text)
        }
    }

    #[test]
    fn what_lies_beneath_a_root_is_read_written_and_removed() {
        let fixture = Fixture::new();
        let (files, path) = (&fixture.files, |text: &str| fixture.path(text));
        assert_eq!(files.read(&path("root/in/secret"), 99).unwrap(), b"harmless");
        let mapping = files.map(&path("root/in/secret")).unwrap();
        assert_eq!((mapping.bytes(), mapping.path()), (&b"harmless"[..], &*path("root/in/secret")));
        files.create_dir_all(&path("root/a/b")).unwrap();
        let mut written = files.create(&path("root/a/b/x")).unwrap();
        written.write_all(b"one").unwrap();
        written.sync().unwrap();
        drop(files.lock(&path("root/a/b/x.lock")).unwrap());
        files.rename(&path("root/a/b/x"), &path("root/y")).unwrap();
        files.sync_dir(&path("root/a")).unwrap();
        files.sync_dir(&path("root")).unwrap();
        assert_eq!(files.list(&path("root")).unwrap(), ["a", "in", "y"]);
        assert_eq!(files.metadata(&path("root/y")).unwrap().length, 3);
        assert_eq!(files.metadata(&path("root")).unwrap().kind, FileKind::Directory);
        files.remove_dir_all(&path("root/a")).unwrap();
        files.remove_file(&path("root/y")).unwrap();
        assert_eq!(files.list(&path("root")).unwrap(), ["in"]);
        let missing = files.metadata(&path("root/y")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn nothing_outside_is_reached_by_path_or_by_link() {
        let fixture = Fixture::new();
        let (files, path) = (&fixture.files, |text: &str| fixture.path(text));
        symlink("../out", path("root/link")).unwrap();
        symlink("in", path("root/inner")).unwrap();
        for text in
            ["out/secret", "root/link/secret", "root/../out/secret", "root/inner/../../out/secret"]
        {
            assert!(files.read(&path(text), 99).is_err(), "{text}");
            assert!(files.map(&path(text)).is_err(), "{text}");
            assert!(files.metadata(&path(text)).is_err(), "{text}");
            assert!(files.canonicalize(&path(text)).is_err(), "{text}");
            assert!(files.create(&path(text)).is_err(), "{text}");
            assert!(files.remove_file(&path(text)).is_err(), "{text}");
            assert!(files.rename(&path(text), &path("root/taken")).is_err(), "{text}");
            assert!(files.rename(&path("root/in/secret"), &path(text)).is_err(), "{text}");
        }
        assert!(files.list(&path("root/link")).is_err());
        assert!(files.list(&path("out")).is_err());
        assert!(files.create_dir_all(&path("root/link/new")).is_err());
        assert!(files.remove_dir_all(&path("root/link/sub")).is_err());
        // A link that stays beneath is followed where links are.
        assert_eq!(files.metadata(&path("root/inner/secret")).unwrap().length, 8);
        assert_eq!(std::fs::read(path("out/secret")).unwrap(), b"secret");
        assert_eq!(std::fs::read_dir(path("out")).unwrap().count(), 1);
    }

    #[test]
    fn attack_36_a_directory_swapped_between_check_and_open_never_leads_out() {
        let fixture = Fixture::new();
        let path = |text: &str| fixture.path(text);
        let (inside, link) = (path("root/in"), path("root/link"));
        symlink("../out", &link).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    DiskFiles.exchange(&inside, &link).unwrap();
                }
            });
            let (mut read, mut refused) = (0, 0);
            for _ in 0..4000 {
                match fixture.files.read(&inside.join("secret"), 99) {
                    Ok(bytes) => {
                        assert_eq!(bytes, b"harmless");
                        read += 1;
                    }
                    Err(_) => refused += 1,
                }
                let _ = fixture.files.create(&inside.join("new"));
                let _ = fixture.files.create_dir_all(&inside.join("folder"));
                let _ = fixture.files.rename(&inside.join("new"), &inside.join("newer"));
                let found = fixture.files.metadata(&inside.join("secret"));
                assert!(found.is_err() || found.unwrap().length == 8);
            }
            stop.store(true, Ordering::Relaxed);
            assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
        });
        assert_eq!(std::fs::read_dir(path("out")).unwrap().count(), 1);
    }
}
