//! What operations make of a model: the store's typed deltas as the decoder's overlay.

use std::sync::Arc;

use larql_compute::model::{FeatureRows, Match, Overlay, OverlayBuilder, OverlayError, retrieval};
use larql_storage::overlay::{self as stored, Knn};

use crate::edits;
use crate::failure::{Failure, code};
use crate::mounts::Model;
use crate::text::case_folded;

/// Edits of a model in one moment, ready for passes.
#[derive(Debug, Default)]
pub struct Applied {
    /// What was stored.
    pub stored: stored::Overlay,
    /// What the decoder reads; none where nothing changes a pass.
    pub overlay: Option<Arc<Overlay>>,
    /// Facts that keys retrieve, by the number of their entry.
    pub facts: Vec<Arc<Knn>>,
    /// Which edits these are.
    pub identity: Identity,
}

/// What tells edits of one base from others: nothing that is computed under some is given to others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The branch, and the number of the transaction that is not committed, if there is one.
    pub branch: String,
    /// The branch's last change.
    pub lsn: u64,
}

impl Identity {
    /// That of a view.
    pub fn of(view: &edits::Identity) -> Self {
        let branch = match view.pending {
            0 => view.branch.to_string(),
            // No branch's name has such a character.
            pending => format!("{} + {pending}", view.branch),
        };
        Self { branch, lsn: view.lsn }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self { branch: larql_storage::store::MAIN.to_owned(), lsn: 0 }
    }
}

impl Applied {
    /// Prepares stored edits for a model.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` where they do not fit it; `MISSING_COMPONENT` where the base lacks rows
    /// that an edit keeps.
    pub fn new(
        model: &Model,
        stored: stored::Overlay,
        identity: Identity,
    ) -> Result<Self, Failure> {
        let architecture = model.architecture();
        let mut builder = OverlayBuilder::new(architecture, model);
        let mut facts = Vec::new();
        if model.require_inference().is_ok() {
            for (slot, delta) in stored.features() {
                let (layer, feature) = (slot.layer as usize, slot.feature as usize);
                if delta.hidden {
                    builder.hide_feature(layer, feature).map_err(misfit)?;
                } else if delta.gate.is_some() || delta.up.is_some() || delta.down.is_some() {
                    let rows = FeatureRows {
                        gate: delta.gate.as_deref(),
                        up: delta.up.as_deref(),
                        down: delta.down.as_deref(),
                    };
                    match builder.set_feature(layer, feature, rows) {
                        // What was changed of a feature that is not there any more adds nothing.
                        Err(OverlayError::Incomplete { .. }) => {}
                        set => set.map_err(misfit)?,
                    }
                }
            }
            for update in stored.low_rank() {
                let update = &update.update;
                let (layer, rank) = (update.layer as usize, update.rank as usize);
                let features = architecture.features(layer.min(architecture.layers() - 1));
                // Columns of features that edits added are not updated.
                let width = update.right.len() / rank.max(1);
                let rows = update.right.chunks_exact(width.max(1));
                let right: Vec<f32> =
                    rows.flat_map(|row| &row[..features.min(width)]).copied().collect();
                builder.low_rank(layer, rank, &update.left, &right).map_err(misfit)?;
            }
            for knn in stored.knn() {
                let (layer, entry) = (knn.set.layer as usize, facts.len() as u32);
                builder.key(layer, entry, &knn.set.key, knn.set.threshold).map_err(misfit)?;
                facts.push(knn.clone());
            }
        }
        let overlay = builder.build().map_err(misfit)?;
        let overlay = (!overlay.is_empty()).then(|| Arc::new(overlay));
        Ok(Self { stored, overlay, facts, identity })
    }

    /// Memory that it takes beyond what the store has of the same edits, in bytes.
    pub fn bytes(&self) -> usize {
        self.overlay.as_ref().map_or(0, |overlay| overlay.bytes())
    }

    /// The fact that answers after some tokens, of those whose keys were found there: the closest
    /// whose entity the text names.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn retrieved(
        &self,
        model: &Model,
        tokens: &[u32],
        matches: &[Match],
    ) -> Result<Option<&Arc<Knn>>, Failure> {
        if matches.is_empty() {
            return Ok(None);
        }
        let text = model.tokenizer()?.decode(tokens, true)?;
        let facts = matches.iter().filter_map(|found| self.facts.get(found.entry as usize));
        Ok(facts.into_iter().find(|knn| names(&text, &knn.set.fact.entity)))
    }
}

impl Applied {
    /// Makes the first token of the fact that is retrieved after some tokens the likeliest, and
    /// returns it.
    ///
    /// # Shapes
    /// `logits`: `[vocabulary]`.
    /// # Errors
    /// As [`Applied::retrieved`].
    pub fn force(
        &self,
        model: &Model,
        tokens: &[u32],
        matches: &[Match],
        logits: &mut [f32],
    ) -> Result<Option<u32>, Failure> {
        let found = self.retrieved(model, tokens, matches)?;
        let token = found.and_then(|knn| knn.set.target_ids.first().copied());
        if let Some(token) = token {
            retrieval::force(logits, token);
        }
        Ok(token)
    }
}

/// Whether a text names something, as a word or words of its own, in whatever case.
pub fn names(text: &str, name: &str) -> bool {
    let (text, name) = (case_folded(text), case_folded(name.trim()));
    let within = |at: Option<char>, edge: Option<char>| {
        at.is_some_and(char::is_alphanumeric) && edge.is_some_and(char::is_alphanumeric)
    };
    !name.is_empty()
        && text.match_indices(&*name).any(|(first, _)| {
            let before = text[..first].chars().next_back();
            let after = text[first + name.len()..].chars().next();
            !within(before, name.chars().next()) && !within(after, name.chars().next_back())
        })
}

fn misfit(error: OverlayError) -> Failure {
    match error {
        OverlayError::MissingTensor { .. } => {
            Failure::new(code::MISSING_COMPONENT, error.to_string())
                .hint("EXTRACT … WITH INFERENCE")
        }
        _ => Failure::new(code::INVALID_PARAMETER, error.to_string())
            .hint("the edits were made for another base"),
    }
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_name_is_found_as_a_word_of_its_own_only() {
        assert!(names("The capital of Niger is", "Niger"));
        assert!(!names("The capital of Nigeria is", "Niger"));
        assert!(names("in niger, and", "Niger"));
        assert!(!names("The Republic of Guinea-Bissau", "Bissa"));
        assert!(names("the U.S. economy", "U.S."));
        assert!(!names("anything", " "));
    }
}
