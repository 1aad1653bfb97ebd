//! What a branch's transactions amount to where several change the same thing: as they say, or as COMPILE is asked.
//!
//! Two transactions conflict where the later writes a slot, or what is retrieved of an (entity, relation), that
//! the earlier wrote and nothing has taken back since.

use std::collections::HashMap;

use larql_planner::syntax::ast::CompileConflict;
use larql_storage::overlay::{DeleteKnn, Operation, Overlay, Touched};

use super::View;
use crate::failure::{Failure, code};

/// Edits after their conflicts were settled.
#[derive(Debug)]
pub struct Joined {
    /// The edits.
    pub overlay: Overlay,
    /// What several transactions had changed.
    pub conflicts: usize,
}

/// Who wrote something last.
struct Writer {
    lsn: u64,
    confidence: f32,
    title: String,
}

impl View {
    /// What the branch's transactions amount to, by a rule for what several of them changed.
    ///
    /// # Errors
    /// `CONFLICT`, naming both sides, where the rule is to fail.
    pub fn joined(&self, rule: CompileConflict) -> Result<Joined, Failure> {
        let mut overlay = Overlay::default();
        let mut writers: HashMap<Touched, Writer> = HashMap::new();
        let mut conflicts = 0;
        let transactions = self.branch().into_iter().flat_map(|branch| branch.transactions());
        for transaction in transactions {
            let (commit, lsn) = (&transaction.commit, transaction.lsn);
            let title = match &commit.patch {
                Some(name) => format!("patch \"{name}\""),
                None => format!("the transaction of LSN {lsn}"),
            };
            for operation in commit.operations.iter() {
                let Some((place, confidence)) = written(operation) else {
                    taken_back(operation)
                        .into_iter()
                        .for_each(|place| drop(writers.remove(&place)));
                    overlay.apply(operation, lsn);
                    continue;
                };
                let confidence = confidence.unwrap_or(0.0);
                if let Some(other) = writers.get(&place).filter(|other| other.lsn != lsn) {
                    conflicts += 1;
                    match rule {
                        CompileConflict::LastWins => {}
                        CompileConflict::Fail => {
                            let message =
                                format!("{} and {title} both change {place}", other.title);
                            return Err(Failure::new(code::CONFLICT, message).hint(
                                "REMOVE PATCH takes one back; ON CONFLICT LAST_WINS or HIGHEST_CONFIDENCE chooses",
                            ));
                        }
                        CompileConflict::HighestConfidence if other.confidence > confidence => {
                            continue;
                        }
                        // Nothing of who lost stays, not even a row that the winner does not set.
                        CompileConflict::HighestConfidence if other.confidence < confidence => {
                            overlay.apply(&undone(operation), lsn);
                        }
                        CompileConflict::HighestConfidence => {}
                    }
                }
                overlay.apply(operation, lsn);
                writers.insert(place, Writer { lsn, confidence, title: title.clone() });
            }
        }
        Ok(Joined { overlay, conflicts })
    }
}

/// What an operation writes, and how sure it is.
fn written(operation: &Operation) -> Option<(Touched, Option<f32>)> {
    match operation {
        Operation::SetFeature(set) => Some((Touched::Slot(set.slot), set.confidence)),
        // What is hidden is not there: nothing is surer.
        Operation::HideFeature(slot) => Some((Touched::Slot(*slot), Some(1.0))),
        Operation::SetKnn(knn) => {
            let (entity, relation) = (knn.fact.entity.clone(), knn.fact.relation.clone());
            Some((Touched::Fact { entity, relation }, knn.confidence))
        }
        _ => None,
    }
}

/// What an operation takes back.
fn taken_back(operation: &Operation) -> Vec<Touched> {
    match operation {
        Operation::RestoreFeature(_) | Operation::DeleteKnn(_) => operation.touched(),
        _ => Vec::new(),
    }
}

/// The operation after which nothing is left of what another wrote there.
fn undone(operation: &Operation) -> Operation {
    match operation {
        Operation::SetKnn(knn) => Operation::DeleteKnn(DeleteKnn {
            entity: knn.fact.entity.clone(),
            relation: knn.fact.relation.clone(),
        }),
        Operation::SetFeature(set) => Operation::RestoreFeature(set.slot),
        other => other.clone(),
    }
}
