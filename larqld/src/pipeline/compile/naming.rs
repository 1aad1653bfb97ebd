//! Under which name each weight is written: the one it came with, or the family's usual one.

use larql_compute::model::{Candidate, Naming, TensorSpec};

use super::Job;
use crate::failure::{Failure, code};

/// How the names of tensors end that hold the packed elements of MXFP4.
pub(super) const PACKED_BLOCKS: &str = "_blocks";

impl Job<'_> {
    /// The candidate that a weight came as; none where it came in two tensors, and was put together.
    pub(super) fn own_candidate<'s>(&self, spec: &'s TensorSpec) -> Option<&'s Candidate> {
        let name = self.origin.names.get(&spec.key)?;
        spec.candidates.iter().find(|found| found.name == *name && found.heads.is_none())
    }

    /// The name that a weight is written under: the one it came with, or the family's usual one.
    pub(super) fn candidate<'s>(
        &self,
        naming: Naming,
        spec: &'s TensorSpec,
    ) -> Result<&'s Candidate, Failure> {
        // Numbers under the name of packed blocks would not be found there.
        let keeps = self.origin.packed.contains_key(&spec.key) && self.keeps_quantised;
        let own = self
            .own_candidate(spec)
            .filter(|own| naming == Naming::Hub && (keeps || !own.name.ends_with(PACKED_BLOCKS)));
        let fused = || {
            let joins = naming == Naming::Gguf
                && matches!(self.origin.architecture.model_type.as_str(), "gpt2" | "phi3");
            spec.candidates.iter().find(|found| joins && found.part.total != spec.shape[0])
        };
        // Beside experts the dense network is the shared expert, which has names of its own; in
        // Gemma 4 it is a network beside them, with norms of its own.
        let shared = || {
            let key = spec.key;
            let layer = key.layer.filter(|_| key.expert.is_none())?;
            let experts = self.origin.architecture.layer(layer as usize).ffn.experts?;
            if experts.own_norms {
                return None;
            }
            let is_shared = |name: &str| name.contains("shexp") || name.contains("shared_expert");
            spec.candidates.iter().find(|found| is_shared(&found.name))
        };
        let is_packed = |found: &&Candidate| found.name.ends_with(PACKED_BLOCKS);
        let usual = || spec.candidates.iter().find(|found| !is_packed(found));
        own.or_else(fused).or_else(shared).or_else(usual).ok_or_else(|| {
            Failure::new(
                code::UNSUPPORTED_FORMAT,
                format!("this format has no name for {}", spec.key),
            )
        })
    }
}
