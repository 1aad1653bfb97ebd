//! Taking edits back: operations that leave what other edits state.
//!
//! An update of a matrix that states several facts, as some patches have it, cannot be taken apart. Where one of them
//! goes, the update goes, and the others are solved for anew.

use larql_storage::overlay::{DeleteKnn, Fact, Operation, Overlay};

use crate::editing::maker::{Maker, PRESERVED_WEIGHT, Wanted};
use crate::editing::stated::is_same_pair;
use crate::failure::Failure;

/// Edits that are taken back, and what is to be stated again.
#[derive(Debug, Default)]
pub(super) struct Taken {
    operations: Vec<Operation>,
    /// Facts of updates that stay.
    again: Vec<Again>,
}

/// What an update stated beside a fact that goes.
#[derive(Debug, Clone, PartialEq)]
struct Again {
    facts: Vec<Fact>,
    /// The layers of the update.
    layers: Vec<usize>,
    confidence: Option<f32>,
}

/// Everything that edits say of the facts' entities and relations.
pub(super) fn of_pairs(stored: &Overlay, facts: &[Fact]) -> Taken {
    let asked = |entity: &str, relation: &str| {
        let of = |fact: &Fact| is_same_pair((&fact.entity, &fact.relation), (entity, relation));
        facts.iter().any(of)
    };
    let mut taken = of_updates(stored, &|fact| asked(&fact.entity, &fact.relation));
    for (slot, delta) in stored.features() {
        if let (Some(entity), Some(relation)) = (&delta.entity, &delta.relation)
            && asked(entity, relation)
        {
            taken.operations.push(Operation::RestoreFeature(slot));
        }
    }
    for knn in stored.knn().filter(|knn| asked(&knn.set.fact.entity, &knn.set.fact.relation)) {
        taken.operations.push(Operation::DeleteKnn(DeleteKnn::of(&knn.set.fact)));
    }
    taken
}

/// The updates that state some facts.
pub(super) fn of_updates(stored: &Overlay, asked: &dyn Fn(&Fact) -> bool) -> Taken {
    let mut taken = Taken::default();
    for delta in stored.low_rank().filter(|delta| delta.update.facts.iter().any(asked)) {
        taken.operations.push(Operation::DropLowRank { id: delta.update.id });
        let left = delta.update.facts.iter().filter(|fact| !asked(fact));
        let left: Vec<Fact> = left.cloned().collect();
        let layer = delta.update.layer as usize;
        let confidence = delta.update.confidence;
        match taken.again.iter_mut().find(|again| again.facts == left) {
            _ if left.is_empty() => {}
            Some(again) => again.layers.push(layer),
            None => taken.again.push(Again { facts: left, layers: vec![layer], confidence }),
        }
    }
    for again in &mut taken.again {
        again.layers.sort_unstable();
        again.layers.dedup();
    }
    taken
}

impl Taken {
    /// The layers in which facts are stated again.
    pub(super) fn layers(&self) -> impl Iterator<Item = usize> {
        self.again.iter().flat_map(|again| again.layers.iter().copied())
    }

    /// Whether any are.
    pub(super) fn restates(&self) -> bool {
        !self.again.is_empty()
    }

    /// The operations where nothing is stated again, or `maker` states it.
    ///
    /// # Errors
    /// As [`Maker::memit`].
    pub(super) fn operations(
        self,
        maker: &mut Maker<'_>,
        stored: &Overlay,
    ) -> Result<Vec<Operation>, Failure> {
        let mut operations = self.operations;
        let mut id = stored.free_update();
        for Again { facts, layers, confidence } in self.again {
            let mut wanted = Vec::with_capacity(facts.len());
            for fact in facts {
                let prompts = maker.prompts(&fact.entity, &fact.relation)?;
                let layers = Some(layers.clone());
                wanted.push((Wanted { fact, layers, alpha: 1.0, confidence }, prompts));
            }
            let mut stays = stored.clone();
            operations.iter().for_each(|operation| stays.apply(operation, u64::MAX));
            let again = maker.memit(&wanted, &stays, true, PRESERVED_WEIGHT, id)?;
            id += again.iter().map(Vec::len).sum::<usize>() as u64;
            operations.extend(again.into_iter().flatten());
        }
        Ok(operations)
    }

    /// The operations where nothing is to be stated again.
    pub(super) fn into_operations(self) -> Vec<Operation> {
        debug_assert!(self.again.is_empty(), "facts that stay are to be stated again");
        self.operations
    }
}

#[cfg(test)]
mod tests {
    use larql_storage::overlay::{LowRank, Matrix};

    use super::*;

    #[test]
    fn the_facts_that_an_update_states_beside_are_stated_again_in_its_layers() {
        let fact = |entity: &str| Fact {
            entity: entity.into(),
            relation: "capital".into(),
            target: "Oslo".into(),
        };
        let mut stored = Overlay::default();
        for (id, layer) in [(1, 3), (2, 4)] {
            let update = LowRank {
                id,
                layer,
                matrix: Matrix::Down,
                rank: 1,
                left: [1.0].into(),
                right: [1.0].into(),
                facts: vec![fact("Chad"), fact("Mali")],
                confidence: Some(0.75),
            };
            stored.apply(&Operation::LowRank(update), 1);
        }
        let taken = of_pairs(&stored, &[fact("Chad")]);
        let left = Again { facts: vec![fact("Mali")], layers: vec![3, 4], confidence: Some(0.75) };
        assert_eq!(taken.again, [left]);
        assert_eq!(taken.operations.len(), 2);
        assert_eq!(stored.free_update(), 3);
        let spelled = Fact { entity: " CHAD".into(), relation: "Capital".into(), ..fact("Chad") };
        assert_eq!(of_pairs(&stored, &[spelled]).again, taken.again);
        assert!(!of_pairs(&stored, &[fact("Chad"), fact("Mali")]).restates());
    }
}
