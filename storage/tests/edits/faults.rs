//! Every write, sync and stop of a store's life fails once, and power is lost after it.

use super::support::*;
use larql_storage::file::{Fault, FaultyFiles, Files, MemoryFiles, NewFile};
use larql_storage::patch::{PatchFile, Step};
use larql_storage::store::{CheckpointKind, MAIN, Store, StoreError};
use larql_storage::wal::{FileLog, INLINE_BYTES_MAX, Wal, WalError};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

/// What a store's life acknowledged, and what it was asked for beyond that.
#[derive(Default)]
struct Life {
    acknowledged: Vec<String>,
    asked: Vec<String>,
}

/// Opens a store, edits, checkpoints and edits again, until something fails.
fn live(place: &Place, life: &mut Life) -> Result<(), StoreError> {
    let store = place.try_open()?;
    for step in 0..9 {
        if step == 4 || step == 7 {
            let kind = if step == 4 { CheckpointKind::Whole } else { CheckpointKind::Forgetting };
            store.checkpoint(kind)?;
        }
        let entity = format!("E{step}");
        let width = if step % 3 == 1 { INLINE_BYTES_MAX } else { 4 };
        life.asked.push(entity.clone());
        commit(&store, edit(vec![knn(&entity, "T", width), feature(0, step, 1.0)]))?;
        life.acknowledged.push(entity);
    }
    Ok(())
}

/// After a restart: everything acknowledged is there, nothing is half there, and work goes on.
fn check(place: &Place, life: &Life, what: &str) {
    let store = place.try_open().unwrap_or_else(|error| panic!("{what}: {error}"));
    for entity in &life.acknowledged {
        assert!(answer(&store, MAIN, entity).is_some(), "{what}: {entity} is lost");
    }
    let history = store.history();
    let overlay = history.state().branch(MAIN).unwrap().overlay().clone();
    assert_eq!(overlay.knn().count(), overlay.features().count(), "{what}: half a transaction");
    for knn in overlay.knn() {
        assert!(life.asked.contains(&knn.set.fact.entity), "{what}: {knn:?} was never asked for");
    }
    commit(&store, edit(vec![knn("after", "T", 4)])).unwrap_or_else(|e| panic!("{what}: {e}"));
    drop(store);
    let store = place.open();
    assert!(answer(&store, MAIN, "after").is_some(), "{what}");
}

/// Lives once without a fault, to count; then once for each fault.
fn each(faults: impl Fn(usize) -> Option<Fault>, crash: impl Fn(&FaultyFiles, usize)) -> usize {
    let mut survived = 0;
    for n in 0.. {
        let Some(fault) = faults(n) else { return n };
        let memory = MemoryFiles::shared();
        let faulty = FaultyFiles::new(memory.clone(), Some(fault));
        let mut life = Life::default();
        let outcome = live(&Place::file_in(Arc::new(faulty.clone())), &mut life);
        crash(&faulty, n);
        check(&Place::file_in(memory), &life, &format!("{fault:?} ({outcome:?})"));
        if outcome.is_ok() {
            survived += 1;
            // Beyond the last operation there is nothing left to fail.
            if survived > 3 {
                return n;
            }
        } else {
            survived = 0;
        }
    }
    unreachable!("some fault comes too late")
}

fn keep(_: &FaultyFiles, _: usize) {}

fn lose(files: &FaultyFiles, _: usize) {
    files.crash().unwrap();
}

fn tear(files: &FaultyFiles, n: usize) {
    files.crash_torn(n as u64).unwrap();
}

#[test]
fn a_process_that_is_killed_anywhere_loses_nothing_acknowledged() {
    assert!(each(|n| Some(Fault::Stop(n)), keep) > 80);
}

#[test]
fn a_loss_of_power_anywhere_loses_nothing_acknowledged() {
    assert!(each(|n| Some(Fault::Stop(n)), lose) > 80);
}

#[test]
fn a_disk_that_tears_and_reorders_loses_nothing_acknowledged() {
    for round in 0..20 {
        let tear = |files: &FaultyFiles, n: usize| tear(files, n * 20 + round);
        assert!(each(|n| Some(Fault::Stop(n)), tear) > 80);
    }
}

#[test]
fn the_failure_of_any_write_loses_nothing_acknowledged() {
    for crash in [keep, lose, tear] {
        assert!(each(|n| Some(Fault::Write(n)), crash) > 20);
    }
}

#[test]
fn the_failure_of_any_sync_loses_nothing_acknowledged() {
    for crash in [keep, lose, tear] {
        assert!(each(|n| Some(Fault::Sync(n)), crash) > 30);
    }
}

#[test]
fn a_full_disk_loses_nothing_acknowledged() {
    for crash in [keep, lose, tear] {
        let sizes = |n: usize| (n < 60).then(|| Fault::DiskFull(n as u64 * 7919));
        each(sizes, crash);
    }
}

/// A patch is saved as the daemon does it: the file is whole and synced, then the log says so, then the file gets
/// its name.
fn save(files: &Arc<dyn Files>) -> Result<(), Box<dyn std::error::Error>> {
    let store = Place::file_in(files.clone()).try_open()?;
    let operations = vec![knn("France", "Lyon", 8), knn("Peru", "Cusco", INLINE_BYTES_MAX)];
    let file = PatchFile {
        base_model: "atlas".into(),
        base_checksum: Some(BASE.into()),
        created_at: String::new(),
        description: None,
        author: None,
        tags: Vec::new(),
        steps: operations.iter().cloned().map(Step::Operation).collect(),
    };
    let mut written = NewFile::create(files, Path::new(SAVED))?;
    file.write(&mut written)?;
    written.flush()?;
    written.prepare()?;
    commit(&store, on(MAIN, Some("p"), operations))?;
    written.finish()?;
    Ok(())
}

const SAVED: &str = "/p.vlp";

#[test]
fn a_patch_that_fails_anywhere_while_it_is_saved_is_whole_where_it_is() {
    let faults: [fn(usize) -> Fault; 4] =
        [Fault::Stop, Fault::Write, Fault::Sync, |n| Fault::DiskFull(n as u64 * 1021)];
    for fault in faults {
        let mut saved = 0;
        for n in 0..1000 {
            let memory = MemoryFiles::shared();
            let faulty = FaultyFiles::new(memory.clone(), Some(fault(n)));
            let files: Arc<dyn Files> = Arc::new(faulty.clone());
            let outcome = save(&files);
            drop(files);
            faulty.crash_torn(n as u64).unwrap();
            let what = format!("{:?} ({outcome:?})", fault(n));
            let store = Place::file_in(memory.clone()).try_open();
            let store = store.unwrap_or_else(|error| panic!("{what}: {error}"));
            let branch = store.history().state().branch(MAIN).unwrap().clone();
            let committed = branch.patch("p").is_some();
            assert_eq!(branch.overlay().knn().count(), if committed { 2 } else { 0 }, "{what}");
            // What has the name is whole, and the log knows of it.
            if let Ok(bytes) = memory.read(Path::new(SAVED), 1 << 30) {
                let file = PatchFile::parse(&bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(committed && file.steps.len() == 2, "{what}");
            } else {
                assert!(outcome.is_err(), "{what}");
            }
            if outcome.is_ok() {
                assert!(committed, "{what}");
                saved += 1;
                if saved > 3 {
                    break;
                }
            }
        }
        assert!(saved > 3, "some fault comes too late");
    }
}

#[test]
fn after_a_failed_sync_of_the_log_nothing_is_acknowledged_any_more() {
    let mut poisoned = 0;
    for n in 0..40 {
        let faulty = FaultyFiles::new(MemoryFiles::shared(), Some(Fault::Sync(n)));
        let files: Arc<dyn Files> = Arc::new(faulty);
        let Ok(store) = Place::file_in(files).try_open() else { continue };
        let first = (0..6)
            .find_map(|step| commit(&store, edit(vec![knn(&format!("E{step}"), "T", 4)])).err());
        let Some(first) = first else { continue };
        assert!(matches!(first, StoreError::NotDurable(_)), "{first}");
        for _ in 0..3 {
            let later = commit(&store, edit(vec![knn("later", "T", 4)])).unwrap_err();
            assert!(later.to_string().contains("earlier I/O error"), "{later}");
        }
        assert_eq!(answer(&store, MAIN, "later"), None);
        poisoned += 1;
    }
    assert!(poisoned >= 10, "{poisoned}");
}

#[test]
fn a_segment_that_does_not_fit_fails_its_edit_and_the_next_small_one_succeeds() {
    let faulty = FaultyFiles::new(MemoryFiles::shared(), Some(Fault::DiskFull(20_000)));
    let place = Place::file_in(Arc::new(faulty));
    let store: Store = place.open();
    let large = commit(&store, edit(vec![knn("large", "T", 4 * INLINE_BYTES_MAX)])).unwrap_err();
    assert!(large.hint().contains("free some space"), "{large}");
    // The disk is full; nothing of the log was touched, so nothing is in doubt.
    assert_eq!(store.history().state().lsn, 0);
    assert!(!large.to_string().contains("earlier"));
}

/// What a log with a tail acknowledged, and how much of it lies in a checkpoint elsewhere.
#[derive(Default)]
struct Kept {
    acknowledged: u64,
    elsewhere: u64,
}

const LOG: &str = "/log";

fn open_log(files: &Arc<dyn Files>, after: u64) -> Result<Wal, WalError> {
    let io = |source| WalError::Io { action: "open", path: LOG.into(), source };
    let log = FileLog::open(files, Path::new(LOG)).map_err(io)?;
    Ok(Wal::open(files, Path::new(LOG), Box::new(log), after)?.0)
}

/// Fills a log that keeps its records twice, empties it, gives it more room, and fills that.
fn outgrow(files: &Arc<dyn Files>, kept: &mut Kept) -> Result<Wal, WalError> {
    Wal::create(files, Path::new(LOG), 200)?;
    let mut wal = open_log(files, 0)?;
    for step in 0..12 {
        if step == 3 || step == 8 || !wal.has_room(1, 20) {
            kept.elsewhere = kept.acknowledged;
            wal.forget_through(kept.elsewhere)?;
            wal.make_room(files, 200 << step)?;
        }
        wal.append(&[(1, vec![step; 20])])?;
        kept.acknowledged += 1;
    }
    Ok(wal)
}

/// Does so once for each fault, and opens what a loss of power leaves.
fn outgrow_each(faults: impl Fn(usize) -> Fault, lose: impl Fn(&FaultyFiles, usize)) -> usize {
    let mut survived = 0;
    for n in 0.. {
        let memory = MemoryFiles::shared();
        memory.create_dir_all(Path::new(LOG)).unwrap();
        memory.sync_dir(Path::new("/")).unwrap();
        let fault = faults(n);
        let faulty = FaultyFiles::new(memory.clone(), Some(fault));
        let files: Arc<dyn Files> = Arc::new(faulty.clone());
        let mut kept = Kept::default();
        let outcome = outgrow(&files, &mut kept).map(drop);
        survived = if outcome.is_ok() { survived + 1 } else { 0 };
        lose(&faulty, n);
        if kept.acknowledged == 0 {
            continue;
        }
        let what = format!("{fault:?} ({outcome:?})");
        let mut wal = open_log(&memory, kept.elsewhere).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(wal.last() >= kept.acknowledged, "{what}: {} is left", wal.last());
        wal.append(&[(1, vec![9; 20])]).unwrap_or_else(|e| panic!("{what}: {e}"));
        // Beyond the last operation there is nothing left to fail.
        if survived > 3 {
            return n;
        }
    }
    unreachable!("some fault comes too late")
}

#[test]
fn a_log_that_is_given_more_room_loses_nothing_acknowledged() {
    for crash in [keep, lose, tear] {
        assert!(outgrow_each(Fault::Write, crash) > 20);
        assert!(outgrow_each(Fault::Sync, crash) > 20);
        assert!(outgrow_each(Fault::Stop, crash) > 60);
    }
}

#[test]
fn a_log_is_given_more_room_only_while_nothing_lies_there() {
    let files: Arc<dyn Files> = MemoryFiles::shared();
    files.create_dir_all(Path::new(LOG)).unwrap();
    let mut kept = Kept::default();
    let mut wal = outgrow(&files, &mut kept).unwrap();
    assert!(wal.has_room(1, 50_000) && !wal.has_room(1, 51_200), "200 << 8 bytes");
    wal.make_room(&files, 1 << 20).unwrap();
    assert!(!wal.has_room(1, 51_200), "four records lie there");
    assert_eq!(wal.verify(kept.elsewhere).unwrap(), 4);
    // A disk without room for more leaves it as it is, and it goes on.
    let full = FaultyFiles::new(files.clone(), Some(Fault::DiskFull(100)));
    let full: Arc<dyn Files> = Arc::new(full);
    wal.forget_through(kept.acknowledged).unwrap();
    wal.make_room(&full, 1 << 20).unwrap();
    assert!(!wal.has_room(1, 51_200));
    wal.append(&[(1, vec![7; 20])]).unwrap();
    let mut wal = open_log(&files, kept.acknowledged).unwrap();
    assert_eq!(wal.last(), kept.acknowledged + 1);
    // Where it is not known which file has the name, nothing more is written.
    let doubtful = FaultyFiles::new(files.clone(), Some(Fault::Sync(1)));
    let doubtful: Arc<dyn Files> = Arc::new(doubtful);
    wal.forget_through(kept.acknowledged + 1).unwrap();
    wal.make_room(&doubtful, 1 << 20).unwrap_err();
    assert!(matches!(wal.append(&[(1, vec![7; 20])]), Err(WalError::Poisoned)));
}
