//! Compactions of the store, and assertions: what they keep, and what they refuse.

use super::support::*;
use larql_storage::file::{Fault, FaultyFiles, MemoryFiles};
use larql_storage::overlay::{DeleteKnn, Operation};
use larql_storage::store::{
    Assertion, CheckpointKind, Compaction, CompactionKind, MAIN, Record, Rewrite, Store, StoreError,
};
use std::sync::Arc;

fn compact(branch: &str, rewrites: Vec<(u64, Vec<Operation>)>) -> Record {
    let rewrites = rewrites
        .into_iter()
        .map(|(lsn, operations)| Rewrite { lsn, operations: operations.into() })
        .collect();
    Record::Compact(Compaction {
        branch: branch.into(),
        kind: CompactionKind::Minor,
        rewrites,
        provenance: provenance("COMPACT MINOR"),
    })
}

/// Everything that a branch amounts to, and is made of.
fn told(store: &Store, branch: &str) -> String {
    let history = store.history();
    let branch = history.state().branch(branch).unwrap().clone();
    let names = branch.transactions().map(|one| (one.lsn, one.commit.patch.clone(), one.digest()));
    format!("{:?} {:?} {:?}", branch.lsn, names.collect::<Vec<_>>(), branch.overlay())
}

fn forget(name: &str) -> Operation {
    Operation::DeleteKnn(DeleteKnn { entity: name.into(), relation: "capital".into() })
}

#[test]
fn a_compacted_patch_keeps_its_name_and_is_taken_back_whole() {
    for kind in [None, Some(CheckpointKind::Whole), Some(CheckpointKind::Forgetting)] {
        let place = Place::file_in(MemoryFiles::shared());
        let store = place.open();
        commit(&store, edit(vec![feature(1, 1, 1.0)])).unwrap();
        let patch = on(MAIN, Some("p"), vec![knn("France", "Lyon", 8), feature(1, 3, 2.0)]);
        let lsn = commit(&store, patch).unwrap();
        let digest = store.history().state().branch(MAIN).unwrap().patch("p").unwrap().digest();
        let rewritten = vec![feature(2, 9, 5.0), feature(1, 3, 2.0)];
        let seen = commit(&store, compact(MAIN, vec![(lsn, rewritten)])).unwrap();
        assert_eq!(answer(&store, MAIN, "France"), None, "it is said by a feature now");
        if kind != Some(CheckpointKind::Forgetting) {
            let then = store.history().as_of(lsn).unwrap();
            assert!(then.branch(MAIN).unwrap().overlay().fact("France", "capital").is_some());
        }
        let before = told(&store, MAIN);
        if let Some(kind) = kind {
            store.checkpoint(kind).unwrap();
            assert_eq!(told(&store, MAIN), before);
        }
        drop(store);
        let store = place.open();
        assert_eq!(told(&store, MAIN), before, "{kind:?}");
        let branch = store.history().state().branch(MAIN).unwrap().clone();
        assert_eq!((branch.lsn, branch.patch("p").unwrap().digest()), (seen, digest));
        commit(&store, remove("p")).unwrap();
        let left = store.history().state().branch(MAIN).unwrap().overlay().clone();
        assert_eq!(left.features().count(), 1, "what the patch had become is gone with it");
    }
}

#[test]
fn what_others_changed_meanwhile_is_not_compacted() {
    let store = Place::file_in(MemoryFiles::shared()).open();
    let lsn = commit(&store, on(MAIN, Some("p"), vec![knn("France", "Lyon", 8)])).unwrap();
    let seen = store.history().state().lsn;
    let rewrite = || compact(MAIN, vec![(lsn, vec![feature(2, 9, 5.0)])]);
    commit(&store, edit(vec![knn("France", "Nice", 8)])).unwrap();
    assert!(store.commit(rewrite(), seen).unwrap_err().is_retryable(), "the fact changed");
    let seen = store.history().state().lsn;
    commit(&store, edit(vec![feature(2, 9, 1.0)])).unwrap();
    assert!(store.commit(rewrite(), seen).unwrap_err().is_retryable(), "the feature is taken");
    commit(&store, remove("p")).unwrap();
    let gone = commit(&store, rewrite()).unwrap_err();
    assert!(matches!(gone, StoreError::NoTransaction { .. }) && gone.is_retryable(), "{gone}");
}

#[test]
fn a_branch_that_was_not_compacted_keeps_what_it_has_and_no_moment_has_two_states() {
    let place = Place::file_in(MemoryFiles::shared());
    let store = place.open();
    let shared = commit(&store, edit(vec![knn("France", "Lyon", 8)])).unwrap();
    commit(&store, create_branch("old", MAIN, shared)).unwrap();
    commit(&store, on(MAIN, Some("gone"), vec![knn("Peru", "Cusco", 8)])).unwrap();
    commit(&store, edit(vec![knn("Italy", "Milan", 8)])).unwrap();
    commit(&store, compact(MAIN, vec![(shared, vec![feature(2, 9, 5.0)])])).unwrap();
    commit(&store, remove("gone")).unwrap();
    let before = [told(&store, MAIN), told(&store, "old")];
    store.checkpoint(CheckpointKind::Forgetting).unwrap();
    assert_eq!([told(&store, MAIN), told(&store, "old")], before);
    drop(store);
    let store = place.open();
    assert_eq!([told(&store, MAIN), told(&store, "old")], before);
    assert_eq!(answer(&store, "old", "France").as_deref(), Some("Lyon"));
    assert_eq!(answer(&store, MAIN, "France"), None);
}

#[test]
fn a_branch_with_assertions_takes_only_what_was_checked_against_what_it_is() {
    let store = Place::file_in(MemoryFiles::shared()).open();
    let assertion = Assertion {
        name: "a".into(),
        prompt: "The capital of France is".into(),
        expected: "Paris".into(),
        at_least: None,
    };
    commit(&store, on(MAIN, Some("p"), vec![knn("France", "Paris", 8)])).unwrap();
    let made = commit(&store, Record::CreateAssertion { branch: MAIN.into(), assertion }).unwrap();
    let insert = || edit(vec![knn("Italy", "Rome", 8)]);
    for record in [insert(), remove("p"), compact(MAIN, Vec::new())] {
        for asserted in [None, Some(made - 1)] {
            let refused = store.commit_asserted(record.clone(), made, asserted).unwrap_err();
            assert!(matches!(refused, StoreError::Unasserted { lsn, .. } if lsn == made));
        }
    }
    let lsn = store.commit_asserted(insert(), made, Some(made)).unwrap();
    let late = store.commit_asserted(edit(vec![knn("Peru", "Lima", 8)]), made, Some(made));
    assert!(matches!(late.unwrap_err(), StoreError::Unasserted { .. }), "another came between");
    store.commit(create_branch("b", MAIN, lsn), lsn).unwrap();
    let inherited = store.commit(on("b", None, vec![knn("Peru", "Lima", 8)]), lsn + 1);
    assert!(
        matches!(inherited.unwrap_err(), StoreError::Unasserted { .. }),
        "a branch has them too"
    );
    let (branch, name) = (MAIN.to_owned(), "a".to_owned());
    commit(&store, Record::DropAssertion { branch, name }).unwrap();
    commit(&store, insert()).unwrap();
}

#[test]
fn the_failure_of_any_write_or_sync_of_a_compaction_leaves_all_or_nothing_of_it() {
    let faults: [fn(usize) -> Fault; 4] =
        [Fault::Stop, Fault::Write, Fault::Sync, |n| Fault::DiskFull(n as u64 * 397)];
    for fault in faults {
        let mut done = 0;
        for n in 0..400 {
            let memory = MemoryFiles::shared();
            let faulty = FaultyFiles::new(memory.clone(), Some(fault(n)));
            let live = || -> Result<(), StoreError> {
                let store = Place::file_in(Arc::new(faulty.clone())).try_open()?;
                commit(&store, edit(vec![knn("France", "Lyon", 8)]))?;
                commit(&store, on(MAIN, Some("gone"), vec![knn("Peru", "Cusco", 6000)]))?;
                commit(&store, remove("gone"))?;
                let moved = vec![forget("France"), feature(2, 9, 5.0)];
                commit(&store, compact(MAIN, vec![(1, moved)]))?;
                store.checkpoint(CheckpointKind::Forgetting).map(drop)
            };
            let outcome = live();
            faulty.crash_torn(n as u64).unwrap();
            let store = Place::file_in(memory).try_open();
            let store = store.unwrap_or_else(|error| panic!("{:?}: {error}", fault(n)));
            let overlay = store.history().state().branch(MAIN).unwrap().overlay().clone();
            let retrieved = overlay.fact("France", "capital").is_some();
            let features = overlay.features().count();
            assert!(
                matches!((retrieved, features), (true, 0) | (false, 1))
                    || store.history().state().lsn == 0,
                "{:?}: {retrieved} {features}",
                fault(n)
            );
            if outcome.is_ok() {
                assert_eq!((retrieved, features), (false, 1), "{:?}", fault(n));
                done += 1;
                if done > 3 {
                    break;
                }
            }
        }
        assert!(done > 3, "some fault comes too late");
    }
}
