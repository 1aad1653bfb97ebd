//! Which file of a vindex holds which weight, which level brings it, and which component it is.

use larql_compute::model::Role;
use larql_planner::physical::plan::{ExtractComponent, Level};

/// One file of weights: the roles in it, in order within a layer, and the level that brings it.
pub(super) struct WeightFile {
    pub(super) name: &'static str,
    pub(super) level: Level,
    pub(super) roles: &'static [Role],
}

/// Every file of weights, in the order in which they are written. Every role is in one of them.
pub(super) const WEIGHT_FILES: &[WeightFile] = &[
    WeightFile { name: "gate_vectors.bin", level: Level::Browse, roles: &[Role::Gate] },
    WeightFile { name: "embeddings.bin", level: Level::Browse, roles: &[Role::Embedding] },
    WeightFile {
        name: "attn_weights.bin",
        level: Level::Attention,
        roles: &[
            Role::Query,
            Role::QueryBias,
            Role::QueryDown,
            Role::QueryDownBias,
            Role::QueryUp,
            Role::Key,
            Role::KeyBias,
            Role::Value,
            Role::ValueBias,
            Role::KvDown,
            Role::KvDownBias,
            Role::KvUp,
            Role::Output,
            Role::OutputBias,
            Role::QueryNorm,
            Role::QueryDownNorm,
            Role::KeyNorm,
            Role::KvDownNorm,
            Role::Sinks,
            Role::PositionEmbedding,
        ],
    },
    WeightFile {
        name: "norms.bin",
        level: Level::Attention,
        roles: &[
            Role::AttentionNorm,
            Role::AttentionNormBias,
            Role::PostAttentionNorm,
            Role::FfnNorm,
            Role::FfnNormBias,
            Role::PreExpertsNorm,
            Role::PostDenseNorm,
            Role::PostExpertsNorm,
            Role::PostFfnNorm,
            Role::LayerScalar,
            Role::FinalNorm,
            Role::FinalNormBias,
        ],
    },
    WeightFile {
        name: "router_weights.bin",
        level: Level::Attention,
        roles: &[
            Role::Router,
            Role::RouterBias,
            Role::RouterCorrectionBias,
            Role::RouterScale,
            Role::ExpertScale,
            Role::SharedExpertGate,
        ],
    },
    WeightFile {
        name: "up_weights.bin",
        level: Level::Inference,
        roles: &[Role::Up, Role::UpBias, Role::GateBias],
    },
    WeightFile {
        name: "down_features.bin",
        level: Level::Inference,
        roles: &[Role::Down, Role::DownBias],
    },
    WeightFile {
        name: "per_layer_inputs.bin",
        level: Level::Inference,
        roles: &[
            Role::PerLayerGate,
            Role::PerLayerProjection,
            Role::PostPerLayerNorm,
            Role::PerLayerEmbedding,
            Role::PerLayerModelProjection,
            Role::PerLayerProjectionNorm,
        ],
    },
    WeightFile {
        name: "lm_head.bin",
        level: Level::Inference,
        roles: &[Role::Unembedding, Role::UnembeddingBias],
    },
];

/// The level that brings a file of weights; `None` for other files, which every level has.
pub(in crate::pipeline) fn level_of(file: &str) -> Option<Level> {
    if file == OTHER_WEIGHTS {
        return Some(Level::All);
    }
    WEIGHT_FILES.iter().find(|known| known.name == file).map(|known| known.level)
}

/// The file for source tensors that no role reads.
pub(super) const OTHER_WEIGHTS: &str = "other_weights.bin";

/// The components that a role is part of; one that is part of none comes with every choice of them.
pub(super) fn components(role: Role) -> &'static [ExtractComponent] {
    use ExtractComponent::{AttentionOv, AttentionQk, Embeddings, FfnDown, FfnGate, FfnUp};
    match role {
        Role::Gate | Role::GateBias => &[FfnGate],
        Role::Up | Role::UpBias => &[FfnUp],
        Role::Down | Role::DownBias => &[FfnDown],
        Role::Embedding => &[Embeddings],
        Role::Value | Role::ValueBias | Role::Output | Role::OutputBias => &[AttentionOv],
        Role::Query
        | Role::QueryBias
        | Role::QueryDown
        | Role::QueryDownBias
        | Role::QueryDownNorm
        | Role::QueryUp
        | Role::QueryNorm
        | Role::Key
        | Role::KeyBias
        | Role::KeyNorm
        | Role::Sinks => &[AttentionQk],
        // Low-rank keys and values are one matrix.
        Role::KvDown | Role::KvDownBias | Role::KvDownNorm | Role::KvUp => {
            &[AttentionQk, AttentionOv]
        }
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_one_file() {
        for role in Role::ALL {
            let files = WEIGHT_FILES.iter().filter(|file| file.roles.contains(role));
            let names: Vec<&str> = files.map(|file| file.name).collect();
            assert_eq!(names.len(), 1, "{role}: {names:?}");
        }
    }
}
