//! Transactions, patches, branches, history: what they mean.

use super::support::*;
use larql_storage::file::MemoryFiles;
use larql_storage::overlay::{Operation, Slot};
use larql_storage::store::{CheckpointKind, MAIN, Record, Store, StoreError};

fn store() -> (Place, Store) {
    let place = Place::file_in(MemoryFiles::shared());
    let store = place.open();
    (place, store)
}

#[test]
fn the_first_to_commit_wins_and_the_other_is_told_what_both_changed() {
    let (_place, store) = store();
    let seen = store.history().state().lsn;
    store.commit(edit(vec![knn("France", "Lyon", 8), feature(2, 7, 1.0)]), seen).unwrap();
    let same_fact = store.commit(edit(vec![knn("France", "Nice", 8)]), seen).unwrap_err();
    assert!(same_fact.is_retryable());
    assert!(same_fact.to_string().contains("\"capital\" of \"France\""), "{same_fact}");
    let another_case = store.commit(edit(vec![knn(" FRANCE", "Nice", 8)]), seen).unwrap_err();
    assert!(another_case.is_retryable(), "{another_case}");
    let same_slot = store.commit(edit(vec![feature(2, 7, 2.0)]), seen).unwrap_err();
    assert!(same_slot.to_string().contains("feature 7 of layer 2"), "{same_slot}");
    // Other things, and the same thing after another look, may change.
    store.commit(edit(vec![knn("Italy", "Milan", 8), feature(2, 8, 1.0)]), seen).unwrap();
    commit(&store, edit(vec![knn("France", "Nice", 8)])).unwrap();
    assert_eq!(answer(&store, MAIN, "France").as_deref(), Some("Nice"));
}

#[test]
fn two_writers_of_one_patch_name_are_one_patch() {
    let (_place, store) = store();
    let seen = store.history().state().lsn;
    store.commit(on(MAIN, Some("p"), vec![knn("France", "Lyon", 8)]), seen).unwrap();
    let other = store.commit(on(MAIN, Some("p"), vec![knn("Italy", "Rome", 8)]), seen);
    assert!(other.unwrap_err().is_retryable());
    let again = commit(&store, on(MAIN, Some("p"), vec![knn("Italy", "Rome", 8)]));
    assert!(matches!(again.unwrap_err(), StoreError::PatchExists { .. }));
}

#[test]
fn a_removed_patch_leaves_what_a_replay_of_the_others_makes() {
    let (_place, store) = store();
    commit(&store, on(MAIN, Some("a"), vec![feature(1, 0, 1.0), knn("France", "Lyon", 8)]))
        .unwrap();
    commit(&store, on(MAIN, Some("b"), vec![feature(1, 0, 2.0), feature(1, 5, 2.0)])).unwrap();
    commit(
        &store,
        on(MAIN, Some("c"), vec![Operation::HideFeature(Slot { layer: 1, feature: 0 })]),
    )
    .unwrap();
    let of = |store: &Store| {
        let history = store.history();
        history.state().branch(MAIN).unwrap().clone()
    };
    let expected = of(&store).overlay_of(|one, _| one.lsn != 2);
    commit(&store, remove("b")).unwrap();
    assert_eq!(format!("{:?}", of(&store).overlay()), format!("{expected:?}"));
    commit(&store, remove("c")).unwrap();
    let gate = of(&store).overlay().feature(Slot { layer: 1, feature: 0 }).unwrap().gate.clone();
    assert_eq!(gate.unwrap()[0], 1.0, "what was hidden is as the patch before made it");
    commit(&store, remove("a")).unwrap();
    assert!(of(&store).overlay().is_empty());
    assert!(matches!(commit(&store, remove("a")).unwrap_err(), StoreError::NoPatch { .. }));
}

#[test]
fn a_branch_starts_as_its_parent_was_and_goes_its_own_way() {
    let (place, store) = store();
    commit(&store, edit(vec![knn("France", "Lyon", 8)])).unwrap();
    commit(&store, on(MAIN, Some("p"), vec![knn("Italy", "Milan", 8)])).unwrap();
    commit(&store, edit(vec![knn("France", "Nice", 8)])).unwrap();
    commit(&store, create_branch("old", MAIN, 2)).unwrap();
    commit(&store, create_branch("new", MAIN, 4)).unwrap();
    commit(&store, on("old", None, vec![knn("Spain", "Sevilla", 8)])).unwrap();
    commit(&store, remove_from("new", "p")).unwrap();
    commit(&store, create_branch("child", "old", 6)).unwrap();
    let check = |store: &Store| {
        let expected = [
            (MAIN, "France", Some("Nice")),
            (MAIN, "Italy", Some("Milan")),
            (MAIN, "Spain", None),
            ("old", "France", Some("Lyon")),
            ("old", "Spain", Some("Sevilla")),
            ("new", "France", Some("Nice")),
            ("new", "Italy", None),
            ("child", "Spain", Some("Sevilla")),
        ];
        for (branch, entity, target) in expected {
            assert_eq!(answer(store, branch, entity).as_deref(), target, "{branch} {entity}");
        }
    };
    check(&store);
    store.checkpoint(CheckpointKind::Forgetting).unwrap();
    check(&store);
    drop(store);
    let store = place.open();
    check(&store);
    let drop_branch = |name: &str| Record::DropBranch {
        name: name.into(),
        provenance: provenance("DROP BRANCH"),
    };
    commit(&store, drop_branch("old")).unwrap();
    assert_eq!(answer(&store, "child", "Spain").as_deref(), Some("Sevilla"));
    assert!(matches!(commit(&store, drop_branch("old")).unwrap_err(), StoreError::NoBranch(_)));
    assert!(matches!(commit(&store, drop_branch(MAIN)).unwrap_err(), StoreError::MainStays));
    let taken = commit(&store, create_branch("child", MAIN, 1)).unwrap_err();
    assert!(matches!(taken, StoreError::BranchExists(_)));
    // Whoever still writes to the branch of that name that is no more does not write to the next one.
    let seen = store.history().state().lsn;
    commit(&store, drop_branch("child")).unwrap();
    commit(&store, create_branch("child", MAIN, seen)).unwrap();
    let late = store.commit(on("child", None, vec![knn("Peru", "Cusco", 8)]), seen);
    assert!(matches!(late.unwrap_err(), StoreError::NoBranch(_)));
}

#[test]
fn every_moment_of_a_long_history_can_be_asked_for() {
    let (place, store) = store();
    for n in 1..=700u64 {
        commit(&store, edit(vec![knn("France", &format!("T{n}"), 4)])).unwrap();
    }
    let check = |store: &Store| {
        let history = store.history();
        for lsn in [1, 127, 128, 129, 255, 256, 300, 511, 512, 699, 700] {
            let state = history.as_of(lsn).unwrap();
            let fact = state.branch(MAIN).unwrap().overlay().fact("France", "capital").cloned();
            assert_eq!(fact.unwrap().set.fact.target, format!("T{lsn}"));
        }
        assert!(history.as_of(0).unwrap().branch(MAIN).unwrap().overlay().is_empty());
    };
    check(&store);
    drop(store);
    check(&place.open());
}

#[test]
fn names_that_could_not_be_written_again_are_refused() {
    let (_place, store) = store();
    let long = "x".repeat(256);
    for name in ["", "a\nb", "a\0", &long] {
        let branch = commit(&store, create_branch(name, MAIN, 0)).unwrap_err();
        let patch = commit(&store, on(MAIN, Some(name), vec![knn("A", "B", 4)])).unwrap_err();
        for error in [branch, patch] {
            assert!(matches!(error, StoreError::Name { .. }), "{error}");
            assert!(error.to_string().len() < 200);
        }
    }
}
