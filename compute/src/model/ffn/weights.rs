//! The tensors of a layer's networks, looked up once for all tokens.

use crate::model::lookup::Lookup;
use crate::model::projection::Projection;
use crate::model::{DecodeError, Ffn, Network, Role, RouterInput, WeightKey};

/// What a layer's feed-forward networks read, as far as the way to run them does.
pub(in crate::model) struct LayerWeights<'a> {
    /// The dense network, where there is one, and then the experts.
    pub(super) networks: Vec<NetworkWeights<'a>>,
    pub(super) router: Option<Projection<'a>>,
    /// What the normed stream is multiplied by before the router reads it.
    pub(super) router_scale: Option<Vec<f32>>,
    pub(super) correction_bias: Option<Vec<f32>>,
    pub(super) expert_scale: Option<Vec<f32>>,
    pub(super) shared_gate: Option<Projection<'a>>,
    pub(super) pre_experts_norm: Option<Vec<f32>>,
    pub(super) post_dense_norm: Option<Vec<f32>>,
    pub(super) post_experts_norm: Option<Vec<f32>>,
}

/// One network's projections.
pub(super) struct NetworkWeights<'a> {
    pub(super) network: Network,
    pub(super) gate: Option<Projection<'a>>,
    /// None in a plain network too.
    pub(super) up: Option<Projection<'a>>,
    pub(super) down: Option<Projection<'a>>,
}

impl<'a> LayerWeights<'a> {
    /// Looks up and checks a layer's tensors.
    ///
    /// # Errors
    /// `MissingTensor` and `Shape`.
    pub(in crate::model) fn new(
        lookup: &Lookup<'a>,
        ffn: &dyn Ffn,
        layer: usize,
    ) -> Result<LayerWeights<'a>, DecodeError> {
        let architecture = lookup.architecture;
        let key = |role, expert| WeightKey { role, layer: Some(layer as u32), expert };
        let projection = |role, bias, expert| {
            let (key, bias) = (key(role, expert), key(bias, expert));
            if !ffn.reads(role) || architecture.shape(key).is_none() {
                return Ok(None);
            }
            let bias = if ffn.reads(bias.role) { lookup.optional_vector(bias)? } else { None };
            Ok::<_, DecodeError>(Some(Projection { matrix: lookup.matrix(key)?, bias }))
        };
        let vector = |role| match ffn.reads(role) {
            true => lookup.optional_vector(key(role, None)),
            false => Ok(None),
        };
        let norm = |role| match ffn.reads(role) {
            true => lookup.optional_norm(key(role, None)),
            false => Ok(None),
        };
        let networks = architecture.networks(layer).into_iter().map(|network| {
            let expert = network.expert;
            Ok(NetworkWeights {
                network,
                gate: projection(Role::Gate, Role::GateBias, expert)?,
                up: projection(Role::Up, Role::UpBias, expert)?,
                down: projection(Role::Down, Role::DownBias, expert)?,
            })
        });
        let networks = networks.collect::<Result<_, DecodeError>>()?;
        let gemma = architecture
            .layer(layer)
            .ffn
            .experts
            .is_some_and(|experts| experts.router.input == RouterInput::GemmaScaled);
        let router_scale = vector(Role::RouterScale)?.filter(|_| gemma).map(|scale| {
            let factor = (scale.len() as f64).powf(-0.5) as f32;
            scale.iter().map(|scale| scale * factor).collect()
        });
        let shared_gate = key(Role::SharedExpertGate, None);
        let shared_gate = match ffn.reads(shared_gate.role) {
            true if architecture.shape(shared_gate).is_some() => {
                Some(Projection { matrix: lookup.matrix(shared_gate)?, bias: None })
            }
            _ => None,
        };
        Ok(LayerWeights {
            networks,
            router: projection(Role::Router, Role::RouterBias, None)?,
            router_scale,
            correction_bias: vector(Role::RouterCorrectionBias)?.map(|bias| bias.into_owned()),
            expert_scale: vector(Role::ExpertScale)?.map(|scale| scale.into_owned()),
            shared_gate,
            pre_experts_norm: norm(Role::PreExpertsNorm)?,
            post_dense_norm: norm(Role::PostDenseNorm)?,
            post_experts_norm: norm(Role::PostExpertsNorm)?,
        })
    }
}
