//! DIFF … INTO PATCH: the operations that make the old side what the new one is.
//!
//! Of one base, the operations are those of the edits; of two, every feature that differs gets the new side's
//! vectors. What is no feature (attention, norms) no patch can state, and a notice says so where it differs.

use std::io::Write as _;

use larql_storage::file::{Files, NewFile};
use larql_storage::overlay::{
    DeleteKnn, Describe, FeatureDelta, LowRank, Mode, Operation, Overlay, SetFeature, Slot,
};
use larql_storage::patch::{OPERATIONS_MAX, PatchFile, Step};
use std::sync::Arc;

use super::side::{Said, Side};
use crate::edits::{PatchPlace, now_ms, timestamp};
use crate::exec::Work;
use crate::exec::transaction::{files_of, place};
use crate::failure::{Failure, code};
use crate::text::counted;

/// A patch in the making.
pub(super) struct PatchMaker {
    place: PatchPlace,
    files: Arc<dyn Files>,
    operations: Vec<Operation>,
    /// The sides are of one base: what they differ in are their edits.
    is_one_base: bool,
}

impl PatchMaker {
    /// # Errors
    /// `EXISTS` where there is such a file; as paths of statements.
    pub(super) fn new(work: &Work<'_>, text: &str, sides: &[Side; 2]) -> Result<Self, Failure> {
        let place = place(work, text)?;
        let files = files_of(work, &place);
        if files.metadata(&place.path).is_ok() {
            let message = format!("{} exists already", place.path.display());
            return Err(Failure::new(code::EXISTS, message).hint("choose another name"));
        }
        let is_one_base = sides[0].model.base_hash() == sides[1].model.base_hash();
        Ok(Self { place, files, operations: Vec::new(), is_one_base })
    }

    /// Takes in one feature that differs.
    pub(super) fn feature(
        &mut self,
        work: &mut Work<'_>,
        (layer, feature): (u32, u32),
        [was, is]: [bool; 2],
        (old, new): (&Said, &Said),
        vectors: [Option<Vec<f32>>; 3],
    ) -> Result<(), Failure> {
        if self.is_one_base {
            return Ok(());
        }
        let slot = Slot { layer, feature };
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let operation = match (was, is) {
            (_, false) => Operation::HideFeature(slot),
            _ if vectors.iter().all(Option::is_none) => {
                let changed = |new: &Option<Arc<str>>, old: &Option<Arc<str>>| {
                    text(new).filter(|_| new != old)
                };
                Operation::Describe(Describe {
                    slot,
                    relation: changed(&new.relation, &old.relation),
                    target: changed(&new.target, &old.target),
                    confidence: None,
                })
            }
            _ => {
                let bytes = vectors.iter().flatten().map(|row| row.len() * size_of::<f32>());
                work.hold(bytes.sum())?;
                let [gate, up, down] = vectors.map(|row| row.map(Into::into));
                Operation::SetFeature(SetFeature {
                    slot,
                    gate,
                    up,
                    down,
                    entity: text(&new.entity),
                    relation: text(&new.relation),
                    target: text(&new.target),
                    target_ids: Vec::new(),
                    confidence: None,
                    mode: Mode::Rows,
                })
            }
        };
        self.operations.push(operation);
        self.check_count()
    }

    fn check_count(&self) -> Result<(), Failure> {
        if self.operations.len() <= OPERATIONS_MAX {
            return Ok(());
        }
        let message = format!("the models differ in more than {OPERATIONS_MAX} features");
        Err(Failure::new(code::LIMIT, message).hint("LAYER n compares one layer"))
    }

    /// Writes the patch.
    pub(super) fn finish(mut self, work: &mut Work<'_>, sides: &[Side; 2]) -> Result<(), Failure> {
        let [left, right] = sides;
        if self.is_one_base {
            self.operations = between(&left.stored, &right.stored);
            self.check_count()?;
        } else {
            // What is in weights was compared; what is retrieved is beside them.
            let knn = right.stored.knn().map(|knn| Operation::SetKnn(knn.set.clone()));
            self.operations.extend(knn);
            work.notice(
                "the patch states features and retrieved facts; where attention, norms or embeddings differ, it does not make one model of the other",
                "",
            )?;
        }
        let file = PatchFile {
            base_model: left.name.clone(),
            base_checksum: Some(left.model.base_hash().to_owned()),
            created_at: timestamp(now_ms()),
            description: Some(format!("what makes {} of {}", right.name, left.name)),
            author: Some(work.context.principal().to_string()),
            tags: Vec::new(),
            steps: self.operations.into_iter().map(Step::Operation).collect(),
        };
        let mut written = NewFile::create(&self.files, &self.place.path)?;
        file.write(&mut written)
            .and_then(|()| written.flush())
            .map_err(|error| written.failed(error))?;
        written.finish()?;
        let message =
            format!("{} in {}", counted(file.steps.len(), "operation"), self.place.path.display());
        work.notice(message, format!("APPLY PATCH \"{}\"", self.place.name))
    }
}

/// The operations that make one state of edits of another, of one base.
fn between(old: &Overlay, new: &Overlay) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (slot, _) in
        old.features().filter(|(slot, delta)| !is_same(Some(delta), new.feature(*slot)))
    {
        operations.push(Operation::RestoreFeature(slot));
    }
    for (slot, delta) in
        new.features().filter(|(slot, delta)| !is_same(Some(delta), old.feature(*slot)))
    {
        operations.push(match (delta.hidden, delta.mode) {
            (true, _) => Operation::HideFeature(slot),
            (false, Some(mode)) => Operation::SetFeature(SetFeature {
                slot,
                gate: delta.gate.clone(),
                up: delta.up.clone(),
                down: delta.down.clone(),
                entity: delta.entity.clone(),
                relation: delta.relation.clone(),
                target: delta.target.clone(),
                target_ids: delta.target_ids.clone(),
                confidence: delta.confidence,
                mode,
            }),
            (false, None) => Operation::Describe(Describe {
                slot,
                relation: delta.relation.clone(),
                target: delta.target.clone(),
                confidence: delta.confidence,
            }),
        });
    }
    for knn in old.knn() {
        let fact = &knn.set.fact;
        if new.fact(&fact.entity, &fact.relation).is_none() {
            operations.push(Operation::DeleteKnn(DeleteKnn::of(fact)));
        }
    }
    for knn in new.knn() {
        let fact = &knn.set.fact;
        let there = old.fact(&fact.entity, &fact.relation);
        if there.is_none_or(|there| there.set != knn.set) {
            operations.push(Operation::SetKnn(knn.set.clone()));
        }
    }
    let is_in = |overlay: &Overlay, update: &LowRank| {
        overlay.low_rank().any(|other| other.update == *update)
    };
    for delta in old.low_rank().filter(|delta| !is_in(new, &delta.update)) {
        operations.push(Operation::DropLowRank { id: delta.update.id });
    }
    for delta in new.low_rank().filter(|delta| !is_in(old, &delta.update)) {
        operations.push(Operation::LowRank(delta.update.clone()));
    }
    operations
}

/// Whether two sides say the same of a feature, whenever they began to.
fn is_same(one: Option<&Arc<FeatureDelta>>, other: Option<&Arc<FeatureDelta>>) -> bool {
    let plain = |delta: &Arc<FeatureDelta>| FeatureDelta { lsn: 0, ..(**delta).clone() };
    one.map(plain) == other.map(plain)
}
