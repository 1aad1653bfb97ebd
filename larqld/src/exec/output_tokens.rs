//! Output tokens that an operator computes because nobody stored them: those of a checkpoint that is used
//! without extraction, and those of down vectors that edits replaced or added.

use std::collections::HashMap;

use larql_compute::browse::TokenList;
use larql_storage::overlay::{Slot, Vector};

use super::Work;
use crate::failure::Failure;
use crate::mounts::{FEATURES_AT_ONCE, Model};

/// Features whose tokens an operator keeps; more take the place of all before.
const KEPT_MAX: usize = 4 * FEATURES_AT_ONCE;

/// What one operator has computed so far.
#[derive(Debug, Default)]
pub(super) struct OutputTokens {
    lists: HashMap<(u32, u32), TokenList>,
}

impl OutputTokens {
    /// Sees to it that the tokens of some features of a layer are known, if they are to be computed.
    ///
    /// # Errors
    /// As [`Model::compute_output_tokens`].
    pub(super) fn prepare(
        &mut self,
        work: &mut Work<'_>,
        model: &Model,
        layer: u32,
        features: impl Iterator<Item = u32>,
    ) -> Result<(), Failure> {
        let overlay = work.view().overlay().clone();
        let edited = overlay.features_of(layer).next().is_some();
        if !edited && !model.computes_output_tokens() {
            return Ok(());
        }
        let mut wanted: Vec<u32> = features.collect();
        wanted.sort_unstable();
        wanted.dedup();
        if self.lists.len() + wanted.len() > KEPT_MAX {
            self.lists.clear();
        }
        wanted.retain(|&feature| !self.lists.contains_key(&(layer, feature)));
        let mut replaced: Vec<(u32, Vector)> = Vec::new();
        if edited {
            wanted.retain(|&feature| {
                let delta = overlay.feature(Slot { layer, feature });
                let down = delta.and_then(|delta| delta.down.clone());
                replaced.extend(down.iter().map(|down| (feature, down.clone())));
                down.is_none() && u64::from(feature) < model.features(layer)
            });
        }
        let (pool, cancel) = (work.engine().pool(), work.cancel);
        for replaced in replaced.chunks(FEATURES_AT_ONCE) {
            let vectors: Vec<Vector> = replaced.iter().map(|(_, down)| down.clone()).collect();
            let (lists, bytes) = model.kept_edits().output_tokens(model, &vectors, pool, cancel)?;
            work.touch(bytes);
            let slots = replaced.iter().map(|(feature, _)| (layer, *feature));
            self.lists.extend(slots.zip(lists));
        }
        if wanted.is_empty() || !model.computes_output_tokens() {
            return Ok(());
        }
        let (lists, bytes) = model.compute_output_tokens(layer, &wanted, pool, cancel)?;
        work.touch(bytes);
        let slots = wanted.into_iter().map(|feature| (layer, feature));
        self.lists.extend(slots.zip(lists));
        Ok(())
    }

    /// The tokens of a feature, best first; none where they were not prepared.
    pub(super) fn get(&self, layer: u32, feature: u32) -> &[(u32, f32)] {
        self.lists.get(&(layer, feature)).map_or(&[], Vec::as_slice)
    }
}
