//! What operations make of a model: the store's typed deltas as the decoder's overlay.

use std::collections::HashSet;
use std::sync::Arc;

use larql_compute::model::{FeatureRows, Match, Overlay, OverlayBuilder, OverlayError, retrieval};
use larql_storage::overlay::{self as stored, Knn, compared};
use larql_storage::vindex::knowledge::ENTITY_SLOT;

use super::named::{Names, subject};
use crate::edits;
use crate::failure::{Failure, code};
use crate::knowledge::Knowledge;
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
    /// Their entities.
    entities: Entities,
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
        let entities = Entities::of(&facts);
        let overlay = (!overlay.is_empty()).then(|| Arc::new(overlay));
        Ok(Self { stored, overlay, facts, entities, identity })
    }

    /// Memory that it takes beyond what the store has of the same edits, in bytes.
    pub fn bytes(&self) -> usize {
        self.overlay.as_ref().map_or(0, |overlay| overlay.bytes())
    }

    /// The fact that answers after some tokens, of those whose keys were found there: the closest
    /// whose entity the text names last, of all that are known to labels or edited.
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
        let tokenizer = model.tokenizer()?;
        let text = tokenizer.decode(tokens, true)?;
        let names = Known { knowledge: model.knowledge(), edited: &self.entities };
        let Some(subject) = subject(&text, &names) else { return Ok(None) };
        // A control token ends what was said before it: a turn, or a text.
        let breaks_off =
            subject.is_last && !tokens.last().is_some_and(|&last| tokenizer.is_special(last));
        let mut facts = matches.iter().filter_map(|found| self.facts.get(found.entry as usize));
        Ok(facts.find(|knn| {
            let fact = &knn.set.fact;
            compared(&fact.entity) == subject.name
                && (!breaks_off || names.ends_questions(&fact.relation))
        }))
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

/// Names of what retrieved facts are about.
#[derive(Debug, Default)]
struct Entities {
    written: HashSet<String>,
    compared: HashSet<String>,
}

impl Entities {
    fn of(facts: &[Arc<Knn>]) -> Self {
        let names = || facts.iter().map(|knn| knn.set.fact.entity.trim());
        Self {
            written: names().map(str::to_owned).collect(),
            compared: names().map(compared).filter(|name| !name.is_empty()).collect(),
        }
    }
}

/// What labels know, and what is edited.
struct Known<'k> {
    knowledge: Option<Arc<Knowledge>>,
    edited: &'k Entities,
}

impl Known<'_> {
    /// Whether sentences that ask for a relation end with whom they ask about.
    fn ends_questions(&self, relation: &str) -> bool {
        let relations = self.knowledge.iter().flat_map(|knowledge| &knowledge.file().relations);
        let relation = compared(relation);
        let mut of_it = relations.filter(|one| compared(&one.name) == relation);
        of_it.any(|one| {
            one.templates.iter().any(|template| template.text.trim_end().ends_with(ENTITY_SLOT))
        })
    }
}

impl Names for Known<'_> {
    fn is_known(&self, piece: &str) -> bool {
        self.knowledge.as_deref().is_some_and(|knowledge| knowledge.has_entity(piece))
            || self.edited.compared.contains(&case_folded(piece))
    }

    fn is_written_so(&self, piece: &str) -> bool {
        self.knowledge.as_deref().is_some_and(|knowledge| knowledge.has_entity(piece))
            || self.edited.written.contains(piece)
    }

    fn is_ordinary(&self, word: &str) -> bool {
        let relations = self.knowledge.iter().flat_map(|knowledge| &knowledge.file().relations);
        let mut templates = relations.flat_map(|relation| &relation.templates);
        let word = case_folded(word);
        let is_word = |part: &str| case_folded(part) == word;
        templates.any(|one| one.text.split(|c: char| !c.is_alphanumeric()).any(is_word))
    }
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
