//! Snapshot isolation: random histories of readers and writers against a simple model.

use super::support::*;
use larql_storage::file::MemoryFiles;
use larql_storage::store::{CheckpointKind, History, MAIN, Store};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one of three sessions does next.
#[derive(Debug, Clone)]
enum Step {
    Begin(usize),
    Write(usize, u8, u8),
    Commit(usize),
    Rollback(usize),
    Read(usize),
    Checkpoint,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let session = 0..3usize;
    let step = prop_oneof![
        3 => session.clone().prop_map(Step::Begin),
        6 => (session.clone(), 0..5u8, any::<u8>()).prop_map(|(s, key, value)| Step::Write(s, key, value)),
        3 => session.clone().prop_map(Step::Commit),
        1 => session.clone().prop_map(Step::Rollback),
        5 => session.prop_map(Step::Read),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What is known: an entity's answer, with the moment it was written.
type Known = BTreeMap<u8, (u8, u64)>;

/// A transaction: what it sees and what it wrote.
struct Open {
    snapshot: Arc<History>,
    model: Known,
    writes: Vec<(u8, u8)>,
}

fn seen(history: &History) -> BTreeMap<u8, u8> {
    let overlay = history.state().branch(MAIN).unwrap().overlay().clone();
    let known = overlay.knn().map(|knn| {
        let number = |text: &str| text[1..].parse::<u8>().unwrap();
        (number(&knn.set.fact.entity), number(&knn.set.fact.target))
    });
    known.collect()
}

fn values(known: &Known) -> BTreeMap<u8, u8> {
    known.iter().map(|(key, (value, _))| (*key, *value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_snapshot_never_changes_and_the_first_writer_wins(steps in steps()) {
        let place = Place::file_in(MemoryFiles::shared());
        let mut store: Option<Store> = Some(place.open());
        let mut model = Known::new();
        let mut sessions: [Option<Open>; 3] = [None, None, None];
        for step in steps {
            let there = store.as_ref().unwrap();
            match step {
                Step::Begin(s) => {
                    sessions[s] = Some(Open {
                        snapshot: there.history(),
                        model: model.clone(),
                        writes: Vec::new(),
                    });
                }
                Step::Write(s, key, value) => {
                    if let Some(open) = &mut sessions[s] {
                        open.writes.push((key, value));
                    }
                }
                Step::Rollback(s) => sessions[s] = None,
                Step::Read(s) => match &sessions[s] {
                    Some(open) => prop_assert_eq!(seen(&open.snapshot), values(&open.model)),
                    None => prop_assert_eq!(seen(&there.history()), values(&model)),
                },
                Step::Commit(s) => {
                    let Some(open) = sessions[s].take() else { continue };
                    let began = open.snapshot.state().lsn;
                    let operations = open.writes.iter().map(|(key, value)| {
                        knn(&format!("E{key}"), &format!("T{value}"), 4)
                    });
                    let outcome = there.commit(edit(operations.collect()), began);
                    let lost = open.writes.iter().any(|(key, _)| {
                        model.get(key).is_some_and(|(_, lsn)| *lsn > began)
                    });
                    prop_assert_eq!(outcome.is_err(), lost, "{:?}", outcome);
                    if let Ok(lsn) = outcome {
                        model.extend(open.writes.iter().map(|(key, value)| (*key, (*value, lsn))));
                    }
                }
                Step::Checkpoint => _ = there.checkpoint(CheckpointKind::Whole).unwrap(),
                Step::Reopen => {
                    drop(store.take());
                    store = Some(place.open());
                }
            }
        }
        prop_assert_eq!(seen(&store.unwrap().history()), values(&model));
    }
}
