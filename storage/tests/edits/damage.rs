//! A log that is damaged or shortened is refused with what is missing, never opened short.

use super::support::*;
use larql_storage::file::{Files, MemoryFiles};
use larql_storage::store::{Engine, StoreError, salvage};
use larql_storage::wal::{INLINE_BYTES_MAX, WalError};
use std::path::Path;
use std::sync::Arc;

fn filled(place: &Place, edits: u64) {
    let store = place.open();
    for n in 1..=edits {
        let width = if n == 4 { INLINE_BYTES_MAX } else { 40 };
        commit(&store, edit(vec![knn(&format!("E{n}"), "T", width)])).unwrap();
    }
}

#[test]
fn a_plain_log_with_any_damage_is_refused_or_whole() {
    let memory = MemoryFiles::new();
    let place = Place::file_in(Arc::new(memory.clone()));
    filled(&place, 8);
    for name in ["records", "mark", "format.json"] {
        let path = place.path(name);
        let bytes = place.files.read(&path, u64::MAX).unwrap();
        let step = (bytes.len() / 150).max(1);
        for at in (0..bytes.len()).step_by(step) {
            memory.put(&path, &bytes[..at]);
            // The last byte of the JSON is a blank line's.
            let whole = name == "format.json" && at + 1 == bytes.len();
            assert!(whole || place.try_open().is_err(), "{name} cut at {at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            memory.put(&path, &damaged);
            match place.try_open() {
                // A byte that nothing reads: the mark's older slot, its padding, a blank.
                Ok(store) => assert_eq!(store.history().state().lsn, 8, "{name} at {at}"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        memory.put(&path, &bytes);
        place.open();
    }
}

#[test]
fn the_refusal_names_what_is_missing() {
    let memory = MemoryFiles::new();
    let place = Place::file_in(Arc::new(memory.clone()));
    filled(&place, 8);
    let path = place.path("records");
    let bytes = place.files.read(&path, u64::MAX).unwrap();
    // The fourth is a reference, the last ones are as long as each other.
    memory.put(&path, &bytes[..bytes.len() - 1]);
    let error = place.try_open().unwrap_err();
    let StoreError::Wal(WalError::Lost(lost)) = &error else { panic!("{error}") };
    assert_eq!((lost.missing.as_slice(), lost.acknowledged), (&[(8, 8)][..], 8));
    assert!(error.to_string().contains("missing LSN 8 of 1..8"), "{error}");
    let kept =
        salvage(&place.files, &place.directory, BASE, Engine::File, Path::new("/x")).unwrap();
    assert_eq!((kept.unbroken, kept.whole, kept.stranded), (7, 7, 0));
    assert_eq!((kept.acknowledged, kept.missing.as_slice()), (Some(8), &[(8, 8)][..]));
    let mut damaged = bytes.clone();
    damaged[30] ^= 1;
    memory.put(&path, &damaged);
    let error = place.try_open().unwrap_err();
    let StoreError::Wal(WalError::Lost(lost)) = &error else { panic!("{error}") };
    assert_eq!(lost.missing, [(1, 1)]);
    assert!(lost.detail.contains("checksum"), "{error}");
    let kept =
        salvage(&place.files, &place.directory, BASE, Engine::File, Path::new("/x")).unwrap();
    assert_eq!((kept.unbroken, kept.stranded), (0, 7));
    memory.put(&path, &bytes);
    let mut exported = Vec::new();
    let kept =
        salvage(&place.files, &place.directory, BASE, Engine::File, Path::new("/x")).unwrap();
    kept.export(&mut exported).unwrap();
    let other = Place::file_in(MemoryFiles::shared());
    let imported = larql_storage::store::Store::import(
        &other.files,
        &other.directory,
        BASE,
        other.engine,
        &exported,
    );
    assert_eq!(imported.unwrap(), 8);
}

#[test]
fn a_segment_that_is_damaged_gone_or_shorter_is_named() {
    for place in Place::all() {
        filled(&place, 5);
        let folder = place.path("segments");
        let name = place.files.list(&folder).unwrap().remove(0);
        let path = folder.join(&name);
        let bytes = place.files.read(&path, u64::MAX).unwrap();
        let mut damaged = bytes.clone();
        damaged[100] ^= 1;
        for change in [Some(&damaged[..]), Some(&bytes[..bytes.len() - 1]), None] {
            match change {
                Some(bytes) => put(&*place.files, &path, bytes),
                None => place.files.remove_file(&path).unwrap(),
            }
            let error = place.try_open().unwrap_err().to_string();
            assert!(error.contains("missing LSN 4 of 1..5"), "{}: {error}", place.name);
            assert!(error.contains(name.to_str().unwrap()), "{}: {error}", place.name);
        }
        put(&*place.files, &path, &bytes);
        place.open();
    }
}

fn put(files: &dyn Files, path: &Path, bytes: &[u8]) {
    let mut file = files.create(path).unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    file.sync().unwrap();
}

#[test]
fn a_log_of_sled_with_a_damaged_or_shortened_file_is_never_opened_short() {
    let place = Place::sled();
    filled(&place, 200);
    let scratch = tempfile::tempdir().unwrap();
    let length = place.files.metadata(&place.path("log/db")).unwrap().length as usize;
    let bytes = std::fs::read(place.path("log/db")).unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    for (at, damage) in [
        (used.saturating_sub(1 << 10), 1 << 10),
        (used.saturating_sub(60 << 10), 60 << 10),
        (used / 2, 512),
        (0, 4096),
    ] {
        for cut in [false, true] {
            let copied = scratch.path().join(format!("{at}-{cut}"));
            copy(&place.directory, &copied);
            let mut damaged = bytes.clone();
            if cut {
                damaged.truncate(at);
            } else {
                damaged[at..(at + damage).min(length)].fill(0);
            }
            std::fs::write(copied.join("log/db"), damaged).unwrap();
            let opened =
                larql_storage::store::Store::open(&place.files, &copied, BASE, place.engine);
            match opened {
                Ok(store) => assert_eq!(store.history().state().lsn, 200, "{at} {cut}"),
                Err(error) => {
                    let salvaged = salvage(
                        &place.files,
                        &copied,
                        BASE,
                        place.engine,
                        &scratch.path().join("s"),
                    );
                    let salvaged = salvaged.unwrap();
                    assert!(
                        salvaged.unbroken < 200 && salvaged.acknowledged == Some(200),
                        "{error}"
                    );
                    std::fs::remove_dir_all(scratch.path().join("s")).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_log_of_another_base_is_refused_and_an_older_copy_never_opened_short() {
    for place in [Place::sled(), Place::file_on_disk()] {
        filled(&place, 3);
        let scratch = tempfile::tempdir().unwrap();
        let old = scratch.path().join("old");
        copy(&place.directory, &old);
        let store = place.open();
        commit(&store, edit(vec![knn("E4", "T", 8)])).unwrap();
        drop(store);
        let (log, theirs) = match place.engine {
            Engine::Sled => ("log", old.join("log")),
            Engine::File => ("records", old.join("records")),
        };
        let ours = place.path(log);
        if ours.is_dir() {
            std::fs::remove_dir_all(&ours).unwrap();
            copy(&theirs, &ours);
        } else {
            std::fs::copy(theirs, ours).unwrap();
        }
        match place.try_open() {
            // Sled's log is kept twice, and what is missing of it is put back.
            Ok(store) => assert_eq!((store.history().state().lsn, place.engine), (4, Engine::Sled)),
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("missing LSN 4 of 1..4"), "{}: {error}", place.name);
            }
        }
        let error = larql_storage::store::Store::open(&place.files, &old, "other", place.engine);
        assert!(matches!(error.unwrap_err(), StoreError::Format { .. }));
    }
}
