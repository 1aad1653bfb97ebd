//! Output tokens that an operator computes because the model in use stores none: a checkpoint that is used
//! without extraction.

use std::collections::HashMap;

use larql_compute::browse::TokenList;

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
        if !model.computes_output_tokens() {
            return Ok(());
        }
        let mut wanted: Vec<u32> = features.collect();
        wanted.sort_unstable();
        wanted.dedup();
        if self.lists.len() + wanted.len() > KEPT_MAX {
            self.lists.clear();
        }
        wanted.retain(|&feature| !self.lists.contains_key(&(layer, feature)));
        if wanted.is_empty() {
            return Ok(());
        }
        let (pool, cancel) = (work.engine().pool(), work.cancel);
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
