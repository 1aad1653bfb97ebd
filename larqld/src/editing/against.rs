//! Making a model no longer answer a fact of its base.

use larql_compute::edit::{Care, Enough, compose};
use larql_storage::overlay::{Mode, Operation, Overlay as Stored, SetFeature};

use super::applied::{Applied, Identity};
use super::maker::{Maker, failure, free_slot};
use super::prompts::FactPrompts;
use crate::failure::Failure;

/// How strongly the target is pushed down, one after the other until it is no longer answered.
const STRENGTHS: [f32; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
/// Prompts of the fact that may still be answered by the target.
const ANSWERED_MAX: f64 = 0.1;

impl Maker<'_> {
    /// Features that make the model no longer answer `target` to a fact's prompts, on top of what is stored.
    /// They speak of the entity's relation and state no target.
    ///
    /// # Errors
    /// As [`Maker::compose`].
    pub fn against(
        &mut self,
        [entity, relation, target]: [&str; 3],
        layers: &[usize],
        prompts: &FactPrompts,
        stored: &Stored,
    ) -> Result<Vec<Operation>, Failure> {
        let token = self.prompter.answer_tokens(target)?[0];
        let asked: Vec<&[u32]> = prompts.fact.iter().map(Vec::as_slice).collect();
        self.editor.set_overlay(None);
        let values =
            self.editor.values(&asked, token, layers, Enough::OF_FEATURES).map_err(failure)?;
        let study = self.study(layers, prompts, &[])?;
        let mut selectors = Vec::with_capacity(layers.len());
        for (place, &layer) in layers.iter().enumerate() {
            let elsewhere = self.elsewhere(layer, entity);
            selectors.push(self.selector(&study, place, &[], elsewhere)?);
        }
        let mut operations = Vec::new();
        for strength in STRENGTHS {
            let mut tried = stored.clone();
            operations.clear();
            for (place, &layer) in layers.iter().enumerate() {
                let push: Vec<f32> = values.pushes[place].iter().map(|x| -strength * x).collect();
                let selector = &selectors[place];
                for feature in
                    compose(layer, selector, &push, selector.threshold(Care::OF_FEATURES))
                {
                    let operation = Operation::SetFeature(SetFeature {
                        slot: free_slot(self.model(), &tried, layer),
                        gate: Some(feature.gate.into()),
                        up: self.is_gated(layer).then(|| feature.up.into()),
                        down: Some(feature.down.into()),
                        entity: Some(entity.to_owned()),
                        relation: Some(relation.to_owned()),
                        target: None,
                        target_ids: Vec::new(),
                        confidence: None,
                        mode: Mode::Compose,
                    });
                    tried.apply(&operation, 0);
                    operations.push(operation);
                }
            }
            let applied = Applied::new(self.model(), tried, Identity::default())?;
            self.editor.set_overlay(applied.overlay);
            let next = self.editor.next_tokens(&asked);
            self.editor.set_overlay(None);
            let answered = next?.iter().filter(|&&next| next == token).count();
            if answered as f64 <= ANSWERED_MAX * asked.len() as f64 {
                break;
            }
        }
        Ok(operations)
    }
}
