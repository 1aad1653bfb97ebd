//! Answers of entities that were asked, kept in bounded memory, each for the caller who asked.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::{Edges, Source};
use crate::session::Principal;

/// Bytes of a name at most: a longer text is no entity.
pub const ENTITY_BYTES_MAX: usize = 1024;
/// Bytes that all answers may take; when they would take more, all are forgotten.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// What was asked: the entity as it is written, because the model reads it so.
type Key = (Principal, Box<str>, Source);

/// Kept answers.
#[derive(Debug, Default)]
pub struct Asked {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    answers: HashMap<Key, Edges>,
    bytes: usize,
}

impl Asked {
    /// What a source answered to a caller about an entity.
    pub fn get(&self, principal: &Principal, entity: &str, source: Source) -> Option<Edges> {
        if entity.len() > ENTITY_BYTES_MAX {
            return None;
        }
        self.kept.lock().answers.get(&(principal.clone(), entity.into(), source)).cloned()
    }

    /// Keeps an answer.
    pub fn keep(&self, principal: &Principal, entity: &str, source: Source, edges: &Edges) {
        let targets: usize = edges.iter().map(|edge| edge.target.len()).sum();
        let bytes = size_of::<(Key, Edges)>() + entity.len() + targets + size_of_val(&edges[..]);
        let mut kept = self.kept.lock();
        if kept.bytes + bytes > KEPT_BYTES_MAX {
            *kept = Kept::default();
        }
        let key = (principal.clone(), entity.into(), source);
        if kept.answers.insert(key, edges.clone()).is_none() {
            kept.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use larql_storage::vindex::knowledge::EdgeRecord;

    use super::*;

    fn edges(target: &str) -> Edges {
        let edge = EdgeRecord {
            relation: 0,
            target: target.to_owned(),
            confidence: 0.5,
            layer: 0,
            feature: 0,
            effect: 0.0,
            gate_score: 0.0,
        };
        Edges::from([edge])
    }

    #[test]
    fn an_answer_is_given_to_who_asked_about_the_entity_as_it_was_written() {
        let asked = Asked::default();
        let (one, other) = (Principal::Uid(1), Principal::Uid(2));
        asked.keep(&one, "Paris", Source::Probe, &edges("France"));
        assert_eq!(asked.get(&one, "Paris", Source::Probe), Some(edges("France")));
        assert_eq!(asked.get(&one, "PARIS", Source::Probe), None);
        assert_eq!(asked.get(&one, "Paris", Source::Gate), None);
        assert_eq!(asked.get(&other, "Paris", Source::Probe), None);
    }

    #[test]
    fn what_is_kept_stays_within_its_bytes() {
        let asked = Asked::default();
        let one = Principal::Uid(1);
        let long = "x".repeat(1 << 20);
        for number in 0..100 {
            asked.keep(&one, &number.to_string(), Source::Probe, &edges(&long));
            let kept = asked.kept.lock();
            assert!(kept.bytes <= KEPT_BYTES_MAX, "{}", kept.bytes);
            assert!(kept.answers.len() <= 32, "{}", kept.answers.len());
        }
        assert_eq!(asked.get(&one, "99", Source::Probe), Some(edges(&long)));
    }
}
