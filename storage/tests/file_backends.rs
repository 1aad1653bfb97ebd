//! The contract of `Files`, run against every backend, and what only the disk can show.

use larql_storage::file::{DiskFiles, Fault, FaultyFiles, FileKind, Files, MemoryFiles, Operation};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A backend's name, itself, an empty directory in it, and what removes that again.
type Backend = (&'static str, Arc<dyn Files>, PathBuf, Option<tempfile::TempDir>);

fn backends() -> Vec<Backend> {
    let disk = tempfile::tempdir().unwrap();
    let faulty = tempfile::tempdir().unwrap();
    let memory = MemoryFiles::shared();
    memory.create_dir_all(Path::new("/work")).unwrap();
    let (disk_path, faulty_path) = (disk.path().to_path_buf(), faulty.path().to_path_buf());
    vec![
        ("disk", DiskFiles::shared(), disk_path, Some(disk)),
        ("memory", memory, PathBuf::from("/work"), None),
        (
            "faulty",
            Arc::new(FaultyFiles::new(DiskFiles::shared(), None)),
            faulty_path,
            Some(faulty),
        ),
    ]
}

fn write(files: &dyn Files, path: &Path, bytes: &[u8]) {
    let mut file = files.create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync().unwrap();
}

#[test]
fn what_was_written_and_resumed_is_what_is_read_and_mapped() {
    for (backend, files, directory, _guard) in backends() {
        let path = directory.join("file");
        write(&*files, &path, b"0123456789");
        let mut file = files.resume(&path, 4).unwrap();
        assert_eq!(file.position(), 4, "{backend}");
        file.write_all(b"abc").unwrap();
        assert_eq!(file.position(), 7, "{backend}");
        file.sync().unwrap();
        assert_eq!(files.read(&path, 7).unwrap(), b"0123abc", "{backend}");
        let mapping = files.map(&path).unwrap();
        assert_eq!(mapping.bytes(), b"0123abc", "{backend}");
        assert_eq!(mapping.bytes().as_ptr().align_offset(64), 0, "{backend}");
        assert_eq!(mapping.path(), path, "{backend}");
        mapping.will_need(3..1_000_000);
        mapping.check().unwrap();
        let found = files.metadata(&path).unwrap();
        assert_eq!((found.length, found.kind), (7, FileKind::File), "{backend}");
        write(&*files, &path, b"");
        assert_eq!(files.map(&path).unwrap().bytes(), b"", "{backend}");
    }
}

#[test]
fn reading_more_than_allowed_and_resuming_beyond_the_end_are_refused() {
    for (backend, files, directory, _guard) in backends() {
        let path = directory.join("file");
        write(&*files, &path, b"0123456789");
        assert_eq!(files.read(&path, 9).unwrap_err().kind(), ErrorKind::FileTooLarge, "{backend}");
        let error = files.resume(&path, 11).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{backend}");
        let missing = directory.join("missing");
        assert_eq!(files.read(&missing, 9).unwrap_err().kind(), ErrorKind::NotFound, "{backend}");
        assert_eq!(files.map(&missing).unwrap_err().kind(), ErrorKind::NotFound, "{backend}");
        for error in [files.read(&directory, 9).unwrap_err(), files.map(&directory).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{backend}");
            assert!(error.to_string().contains("a directory"), "{backend}: {error}");
        }
    }
}

#[test]
fn directories_are_listed_renamed_exchanged_and_removed_alike() {
    for (backend, files, directory, _guard) in backends() {
        let (a, b) = (directory.join("a"), directory.join("b"));
        files.create_dir_all(&a.join("deep/er")).unwrap();
        files.create_dir_all(&b).unwrap();
        write(&*files, &a.join("x"), b"from a");
        write(&*files, &b.join("y"), b"from b");
        assert_eq!(files.list(&a).unwrap(), ["deep", "x"], "{backend}");
        files.exchange(&a, &b).unwrap();
        assert_eq!(files.list(&b).unwrap(), ["deep", "x"], "{backend}");
        assert!(files.rename(&a, &b).is_err(), "{backend}: renamed over a full directory");
        let c = directory.join("c");
        files.rename(&b, &c).unwrap();
        assert_eq!(files.read(&c.join("x"), 99).unwrap(), b"from a", "{backend}");
        assert_eq!(files.metadata(&b).unwrap_err().kind(), ErrorKind::NotFound, "{backend}");
        files.sync_dir(&directory).unwrap();
        files.remove_file(&c.join("x")).unwrap();
        files.remove_dir_all(&c).unwrap();
        assert_eq!(files.list(&directory).unwrap(), ["a"], "{backend}");
        assert_eq!(files.remove_file(&c).unwrap_err().kind(), ErrorKind::NotFound, "{backend}");
        let error = files.create(&c.join("z")).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{backend}");
    }
}

#[test]
fn lock_is_held_by_one_and_free_after_drop_even_when_its_file_is_removed() {
    for (backend, files, directory, _guard) in backends() {
        let path = directory.join("lock");
        let held = files.lock(&path).unwrap();
        assert_eq!(files.lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock, "{backend}");
        files.remove_file(&path).unwrap();
        drop(held);
        let again = files.lock(&path).unwrap();
        assert_eq!(files.lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock, "{backend}");
        drop(again);
        files.lock(&path).unwrap();
    }
}

#[test]
fn lock_whose_file_is_removed_at_every_release_is_never_held_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lock");
    let holders = std::sync::atomic::AtomicUsize::new(0);
    let ordering = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let Ok(held) = DiskFiles.lock(&path) else { continue };
                    assert_eq!(holders.fetch_add(1, ordering), 0);
                    std::thread::yield_now();
                    holders.fetch_sub(1, ordering);
                    DiskFiles.remove_file(&path).unwrap();
                    drop(held);
                }
            });
        }
    });
}

#[test]
fn change_of_length_under_a_mapping_is_reported() {
    for (backend, files, directory, _guard) in backends() {
        let path = directory.join("file");
        write(&*files, &path, &[7; 100]);
        let mapping = files.map(&path).unwrap();
        files.resume(&path, 100).unwrap().write_all(&[7]).unwrap();
        let error = mapping.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{backend}");
        assert!(error.to_string().contains("grew while mounted"), "{backend}: {error}");
        drop(files.resume(&path, 10).unwrap());
        let error = mapping.check().unwrap_err();
        assert!(error.to_string().contains("was truncated while mounted"), "{backend}: {error}");
        assert!(error.to_string().contains("file"), "{backend}: {error}");
    }
}

#[test]
fn file_truncated_while_mapped_reads_as_zeros_is_reported_and_the_process_lives() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("lost"), directory.path().join("whole"));
    let bytes = vec![7; 1 << 20];
    for path in [&path, &other] {
        std::fs::write(path, &bytes).unwrap();
    }
    let (mapping, whole) = (DiskFiles.map(&path).unwrap(), DiskFiles.map(&other).unwrap());
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(5_000).unwrap();
    // Two threads meet the missing pages at once.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let sum: u64 = mapping.bytes().iter().map(|&byte| u64::from(byte)).sum();
                assert_eq!(sum, 7 * 5_000);
            });
        }
    });
    assert!(mapping.check().unwrap_err().to_string().contains("was truncated while mounted"));
    assert_eq!(mapping.bytes().len(), bytes.len());
    whole.check().unwrap();
    assert!(whole.bytes().iter().all(|&byte| byte == 7));
    // Restoring the length does not restore the trust: reads in between saw zeros.
    file.set_len(1 << 20).unwrap();
    assert!(mapping.check().unwrap_err().to_string().contains("was truncated while mounted"));
    drop(mapping);
    DiskFiles.map(&path).unwrap().check().unwrap();
}

#[test]
fn fifos_devices_links_and_sockets_are_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let status = std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap();
    assert!(status.success());
    std::fs::write(at("target"), b"secret").unwrap();
    std::os::unix::fs::symlink(at("target"), at("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for path in [at("fifo"), at("link"), at("socket"), PathBuf::from("/dev/zero")] {
        for error in [
            DiskFiles.map(&path).unwrap_err(),
            DiskFiles.read(&path, 99).unwrap_err(),
            DiskFiles.create(&path).map(drop).unwrap_err(),
            DiskFiles.resume(&path, 0).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}: {error}", path.display());
            assert!(error.to_string().contains("not a regular file"), "{error}");
        }
    }
    assert_eq!(std::fs::read(at("target")).unwrap(), b"secret");
}

#[test]
fn resuming_does_not_write_through_a_hard_link() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a"), directory.path().join("b"));
    std::fs::write(&a, b"base").unwrap();
    std::fs::hard_link(&a, &b).unwrap();
    let error = DiskFiles.resume(&b, 0).map(drop).unwrap_err();
    assert!(error.to_string().contains("hard link"), "{error}");
    assert_eq!(std::fs::read(&a).unwrap(), b"base");
}

#[test]
fn chosen_fault_happens_once_and_a_full_disk_stays_full() {
    let files = || MemoryFiles::shared();
    let path = Path::new("/file");
    let third = FaultyFiles::new(files(), Some(Fault::Write(2)));
    let mut file = third.create(path).unwrap();
    let outcomes: Vec<bool> = (0..4).map(|_| file.write_all(b"ab").is_ok()).collect();
    assert_eq!(outcomes, [true, true, false, true]);
    assert_eq!(third.read(path, 99).unwrap(), b"ababab");

    let second = FaultyFiles::new(files(), Some(Fault::Sync(1)));
    let mut file = second.create(path).unwrap();
    assert!(file.sync().is_ok() && second.sync_dir(Path::new("/")).is_err() && file.sync().is_ok());

    let full = FaultyFiles::new(files(), Some(Fault::DiskFull(3)));
    let mut file = full.create(path).unwrap();
    assert_eq!(file.write_all(b"abcd").unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_all(b"e").unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(full.read(path, 99).unwrap(), b"abc");

    let stopped = FaultyFiles::new(files(), Some(Fault::Stop(1)));
    assert!(stopped.create(path).unwrap().write_all(b"a").is_err());
    assert!(stopped.create(path).is_err());
    let expected = [
        Operation::Create(path.into()),
        Operation::Write(path.into(), 1),
        Operation::Create(path.into()),
    ];
    assert_eq!(stopped.operations(), expected);
}

#[test]
fn crash_takes_what_was_not_synced_and_nothing_else() {
    let inner = MemoryFiles::shared();
    let files = FaultyFiles::new(inner.clone(), None);
    let at = |name: &str| Path::new("/").join(name);
    write(&files, &at("kept"), b"synced");
    write(&files, &at("renamed"), b"synced");
    files.create_dir_all(&at("directory")).unwrap();
    files.sync_dir(Path::new("/")).unwrap();
    files.resume(&at("kept"), 6).unwrap().write_all(b" and lost").unwrap();
    write(&files, &at("entry lost"), b"synced, but not its name");
    write(&files, &at("directory/entry lost"), b"synced, but not its name");
    files.rename(&at("renamed"), &at("other name")).unwrap();
    files.crash().unwrap();
    assert_eq!(inner.list(Path::new("/")).unwrap(), ["directory", "kept", "renamed"]);
    assert_eq!(inner.list(&at("directory")).unwrap().len(), 0);
    assert_eq!(inner.read(&at("kept"), 99).unwrap(), b"synced");
    assert_eq!(inner.read(&at("renamed"), 99).unwrap(), b"synced");
}
