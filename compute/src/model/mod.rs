//! What a transformer is, and how it is run.
//!
//! A family is data ([`families`] fills an [`Architecture`] from `config.json`); there is one
//! [`Decoder`] for all of them. The decoder asks a [`Weights`] for views by [`Role`], keeps what it
//! has read in a [`KvCache`], leaves the feed-forward network to an [`Ffn`], and shows the residual
//! stream to a [`Hook`]. The last two never learn of each other or of attention.
//!
//! Elsewhere: the inner loops (`kernels`), choosing a token (`sample`), text and tokens (`larqld`).

mod architecture;
mod attention;
mod attention_weights;
mod attribution;
mod bands;
mod block;
mod config;
mod decoder;
mod description;
mod embedding;
pub mod families;
mod ffn;
mod hooks;
mod kv_cache;
mod latent_attention;
mod layer;
mod lookup;
mod meter;
mod norm;
pub mod overlay;
mod paged_attention;
mod projection;
pub mod retrieval;
mod role;
mod rotation;
mod tensors;
mod trace;
mod weights;

pub use architecture::{Architecture, ArchitectureError};
pub use attribution::{
    AblateFeatures, CaptureFeatures, IsolateLayers, LayerFeatures, elementwise_scale, product,
    product_transposed,
};
pub use bands::Bands;
pub use decoder::{
    DecodeError, Decoder, DecoderOptions, LogitsWanted, Precision, Segment, TokenGradient,
    TokenReadout,
};
pub use description::{
    AttentionBias, AttentionDescription, DenseDescription, ExpertGroups, ExpertsDescription,
    FfnDescription, GroupRule, LatentDescription, LayerDescription, Network, NormDescription,
    NormKind, PerLayerEmbedding, QueryKeyNorm, RopeDescription, RopePairing, RopeScaling,
    RouterDescription, RouterInput, RouterScoring, SwigluClamp,
};
pub use ffn::{DenseFfn, Ffn, FfnContext, WalkFfn};
pub use hooks::{CaptureResiduals, Compose, Hook, ZeroFfn};
pub use kv_cache::{KvCache, KvPages, KvType, SharedPage};
pub use meter::{LayerMeters, Meter, PassMeters};
pub use overlay::{FeatureRows, Match, Overlay, OverlayBuilder, OverlayError, feature_row};
pub use role::{Role, UnknownRole};
pub use tensors::{Candidate, Naming, Part, SplitHeads, TensorSpec};
pub use trace::{CaptureTrace, LayerTrace};
pub use weights::{Matrix, Orientation, WeightKey, Weights};

pub use crate::kernels::attention::PAGE_POSITIONS;
