//! One suite for every log.

use super::support::*;
use larql_storage::store::{CheckpointKind, MAIN, Store, StoreError};
use larql_storage::wal::{INLINE_BYTES_MAX, WalError};
use std::sync::Arc;

#[test]
fn what_was_acknowledged_is_there_when_the_store_is_opened_again() {
    for place in Place::all() {
        let store = place.open();
        for n in 1..=30u64 {
            let large = if n % 7 == 0 { INLINE_BYTES_MAX } else { 8 };
            let lsn = commit(&store, edit(vec![knn(&format!("E{n}"), &format!("T{n}"), large)]));
            assert_eq!(lsn.unwrap(), n, "{}", place.name);
        }
        let before = format!("{:?}", store.history().state().branch(MAIN).unwrap().overlay());
        drop(store);
        let store = place.open();
        assert_eq!(store.history().state().lsn, 30, "{}", place.name);
        let after = format!("{:?}", store.history().state().branch(MAIN).unwrap().overlay());
        assert_eq!(before, after, "{}", place.name);
        assert_eq!(commit(&store, edit(vec![knn("E31", "T31", 8)])).unwrap(), 31);
    }
}

#[test]
fn one_process_at_a_time_has_a_store_open() {
    for place in Place::all() {
        let store = place.open();
        let error = place.try_open().unwrap_err();
        assert!(
            matches!(error, StoreError::Wal(WalError::Locked { .. })),
            "{}: {error}",
            place.name
        );
        drop(store);
        place.open();
    }
}

#[test]
fn sixteen_writers_get_dense_numbers_and_each_its_own_edit() {
    for place in Place::all() {
        let store = Arc::new(place.open());
        let writers = (0..16).map(|writer| {
            let store: Arc<Store> = store.clone();
            std::thread::spawn(move || {
                let edits = (0..10).map(|n| {
                    let entity = format!("E{writer}.{n}");
                    let lsn = commit(&store, edit(vec![knn(&entity, "T", 8)])).unwrap();
                    // Whoever was told sees it.
                    assert!(answer(&store, MAIN, &entity).is_some());
                    lsn
                });
                edits.collect::<Vec<_>>()
            })
        });
        let writers: Vec<_> = writers.collect();
        let mut lsns: Vec<_> = writers.into_iter().flat_map(|one| one.join().unwrap()).collect();
        lsns.sort_unstable();
        assert_eq!(lsns, (1..=160).collect::<Vec<_>>(), "{}", place.name);
    }
}

#[test]
fn a_checkpoint_shortens_the_log_and_keeps_every_moment() {
    for place in Place::all() {
        let store = place.open();
        for n in 1..=20u64 {
            let width = if n % 5 == 0 { INLINE_BYTES_MAX } else { 8 };
            commit(&store, edit(vec![knn("France", &format!("T{n}"), width)])).unwrap();
        }
        assert_eq!(store.checkpoint(CheckpointKind::Whole).unwrap(), 20);
        let segments = place.files.list(&place.path("segments")).unwrap();
        assert!(segments.is_empty(), "{}: {segments:?}", place.name);
        commit(&store, edit(vec![knn("France", "T21", 8)])).unwrap();
        let check = |store: &Store| {
            let history = store.history();
            for lsn in [1, 7, 20, 21] {
                let state = history.as_of(lsn).unwrap();
                let main = state.branch(MAIN).unwrap();
                let fact = main.overlay().fact("France", "capital").unwrap();
                assert_eq!(fact.set.fact.target, format!("T{lsn}"), "{}", place.name);
            }
            assert!(matches!(history.as_of(22), Err(StoreError::Future { last: 21, .. })));
        };
        check(&store);
        drop(store);
        check(&place.open());
    }
}

#[test]
fn a_log_that_fills_makes_its_own_checkpoints_ever_more_seldom() {
    let place = Place::sled();
    let store = place.open();
    let bytes = |name| place.files.metadata(&place.path(name)).map_or(0, |found| found.length);
    let (mut n, mut checkpoints, mut last) = (0u64, Vec::new(), 0);
    while checkpoints.len() < 3 {
        n += 1;
        commit(&store, edit(vec![knn(&format!("E{n}"), "T", 3_500)])).unwrap();
        if bytes("checkpoint") > last {
            last = bytes("checkpoint");
            checkpoints.push((n - 1, bytes("mark")));
        }
    }
    let (lsns, rooms): (Vec<_>, Vec<_>) = checkpoints.into_iter().unzip();
    assert!(lsns[2] - lsns[1] > (lsns[1] - lsns[0]) * 3 / 2, "{lsns:?}");
    assert!(rooms[2] > rooms[1] * 3 / 2, "{rooms:?}");
    drop(store);
    let store = place.open();
    assert_eq!(store.verify().unwrap(), n);
    assert_eq!(store.status(&place.files).checkpoint, lsns[2]);
    for n in [1, lsns[0], lsns[0] + 1, n] {
        assert_eq!(answer(&store, MAIN, &format!("E{n}")).as_deref(), Some("T"));
    }
}

#[test]
fn a_forgetting_checkpoint_ends_history_and_changes_no_answer() {
    for place in Place::all() {
        let store = place.open();
        commit(&store, on(MAIN, Some("p"), vec![knn("France", "Lyon", 8)])).unwrap();
        commit(&store, on(MAIN, Some("q"), vec![knn("Italy", "Milan", 8)])).unwrap();
        commit(&store, remove("p")).unwrap();
        commit(&store, on(MAIN, Some("p"), vec![knn("Spain", "Sevilla", 8)])).unwrap();
        store.checkpoint(CheckpointKind::Forgetting).unwrap();
        let check = |store: &Store| {
            let history = store.history();
            assert_eq!(history.records().len(), 2, "{}", place.name);
            assert!(matches!(history.as_of(3), Err(StoreError::Forgotten { first: 4, .. })));
            assert_eq!(answer(store, MAIN, "France"), None);
            assert_eq!(answer(store, MAIN, "Italy").as_deref(), Some("Milan"));
            assert_eq!(answer(store, MAIN, "Spain").as_deref(), Some("Sevilla"));
        };
        check(&store);
        drop(store);
        let store = place.open();
        check(&store);
        assert_eq!(commit(&store, remove("p")).unwrap(), 5, "numbers are never used again");
        assert_eq!(answer(&store, MAIN, "Spain"), None);
    }
}

#[test]
fn an_export_begins_another_store_of_the_same_base_and_no_other() {
    for place in Place::all() {
        let store = place.open();
        for n in 1..=5u64 {
            commit(&store, edit(vec![knn(&format!("E{n}"), "T", 8)])).unwrap();
        }
        let mut exported = Vec::new();
        store.export(&mut exported).unwrap();
        let before = store.history();
        drop(store);
        for target in Place::all() {
            let import = |base: &str| {
                Store::import(&target.files, &target.directory, base, target.engine, &exported)
            };
            let error = import("another").unwrap_err();
            assert!(matches!(error, StoreError::Format { .. }), "{error}");
            assert_eq!(import(BASE).unwrap(), 5);
            assert!(matches!(import(BASE).unwrap_err(), StoreError::NotEmpty { lsn: 5, .. }));
            let store = target.open();
            let (old, new) = (before.records(), store.history());
            assert!(old.eq(new.records()), "{} to {}", place.name, target.name);
            assert_eq!(commit(&store, edit(vec![knn("E6", "T", 8)])).unwrap(), 6);
            drop(store);
            assert_eq!(target.open().history().state().lsn, 6);
        }
        for at in [0, 3, 10, exported.len() / 2, exported.len() - 1] {
            let target = Place::file_in(larql_storage::file::MemoryFiles::shared());
            let import = |bytes: &[u8]| {
                Store::import(&target.files, &target.directory, BASE, target.engine, bytes)
            };
            assert!(import(&exported[..at]).is_err());
            let mut damaged = exported.clone();
            damaged[at] ^= 1;
            assert!(import(&damaged).is_err());
        }
    }
}
