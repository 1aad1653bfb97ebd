//! Which tensors a model has: their shapes, and where a checkpoint keeps them.
//!
//! Shapes follow from the description alone. Names come from the family's lists
//! ([`families`](super::families)), one for each [`Naming`]; a list entry says which part of a
//! stored tensor is meant, and the numbers of the [`Part`] are computed here from the shapes.
//!
//! Elsewhere: finding and reading the stored tensors (`larqld`).

use super::families::{Name, Outputs, Scope};
use super::{
    Architecture, ExpertsDescription, LayerDescription, Network, QueryKeyNorm, Role, WeightKey,
};

/// Whose names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// Checkpoints of the hub (safetensors), as transformers writes them.
    Hub,
    /// GGUF files, as llama.cpp's converter writes them.
    Gguf,
}

/// Which part of a stored tensor is the one meant.
///
/// The stored shape is `[count]` of a stack of experts, if there is one, before
/// `[total, inputs]` or, transposed, `[inputs, total]`; for vectors before `[total]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// Index in, and length of, a leading axis that stacks experts.
    pub stack: Option<(usize, usize)>,
    /// The first output that is meant.
    pub first: usize,
    /// From one output to the next.
    pub step: usize,
    /// Outputs stored.
    pub total: usize,
    /// Stored `[inputs, outputs]`.
    pub transposed: bool,
    /// Outputs lie in the GGUF converter's interleaved order within heads of this many.
    pub heads: Option<usize>,
    /// To be subtracted from every number: GGUF files hold norm weights with the offset added.
    pub minus: f32,
}

impl Part {
    /// A tensor of its own, of so many outputs, stored as it is used.
    pub const fn whole(outputs: usize) -> Part {
        Part {
            stack: None,
            first: 0,
            step: 1,
            total: outputs,
            transposed: false,
            heads: None,
            minus: 0.0,
        }
    }

    /// The shape in which the tensor is stored that holds a part of the given shape
    /// (`[outputs, inputs]` or `[outputs]`).
    pub fn stored_shape(&self, shape: &[usize]) -> Vec<usize> {
        let mut stored: Vec<usize> = self.stack.map(|(_, count)| count).into_iter().collect();
        match (shape, self.transposed) {
            (&[_, inputs], true) => stored.extend([inputs, self.total]),
            (&[_, inputs], false) => stored.extend([self.total, inputs]),
            _ => stored.push(self.total),
        }
        stored
    }
}

/// A tensor of a checkpoint that may hold a weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Which part of it.
    pub part: Part,
    /// Where it holds keys alone: the values that belong to them.
    pub heads: Option<SplitHeads>,
}

/// How the projection to the keys and values of all heads lies in two tensors.
///
/// The keys' is `[heads, inputs, keys]`, the values' `[heads, values, inputs]`; together they are
/// `[heads * (keys + values), inputs]`, each head's keys before its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitHeads {
    /// The tensor of the values.
    pub values_name: String,
    /// Heads.
    pub heads: usize,
    /// Outputs of a head that are keys.
    pub keys: usize,
    /// Outputs of a head that are values.
    pub values: usize,
}

/// A weight of the model, and where checkpoints keep it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// Which weight.
    pub key: WeightKey,
    /// Its shape: `[outputs, inputs]`, or `[n]` for a vector.
    pub shape: Vec<usize>,
    /// Where it may be, the usual place first. Empty where this naming has none for it.
    pub candidates: Vec<Candidate>,
    /// Whether the model cannot run without it.
    pub required: bool,
}

impl TensorSpec {
    /// Its usual name, for messages.
    pub fn name(&self) -> &str {
        self.candidates.first().map_or(self.key.role.as_str(), |candidate| &candidate.name)
    }

    /// The candidates that hold this weight alone, as it is used.
    pub fn whole(&self) -> impl Iterator<Item = &str> {
        let whole = Part::whole(self.shape[0]);
        let whole =
            move |candidate: &&Candidate| candidate.part == whole && candidate.heads.is_none();
        self.candidates.iter().filter(whole).map(|candidate| candidate.name.as_str())
    }
}

impl Architecture {
    /// The networks of a layer in the order in which its features are numbered: the dense one,
    /// then the experts. Panics if there is no such layer.
    pub fn networks(&self, layer: usize) -> Vec<Network> {
        let ffn = &self.layer(layer).ffn;
        let dense = ffn.dense.map_or(0, |dense| dense.features);
        let mut networks = Vec::new();
        if dense > 0 {
            networks.push(Network { expert: None, first: 0, features: dense });
        }
        if let Some(ExpertsDescription { count, features, .. }) = ffn.experts {
            networks.extend((0..count).map(|expert| Network {
                expert: Some(expert as u32),
                first: dense + expert * features,
                features,
            }));
        }
        networks
    }

    /// Features of all networks of a layer; panics if there is no such layer.
    pub fn features(&self, layer: usize) -> usize {
        let ffn = &self.layer(layer).ffn;
        let experts = ffn.experts.map_or(0, |experts| experts.count * experts.features);
        ffn.dense.map_or(0, |dense| dense.features) + experts
    }

    /// The shape of a weight (projections `[outputs, inputs]`), or `None` where the model has no
    /// such one.
    ///
    /// A tied model has no unembedding of its own.
    pub fn shape(&self, key: WeightKey) -> Option<Vec<usize>> {
        let Some(layer) = key.layer else {
            return if key.expert.is_none() { self.model_shape(key.role) } else { None };
        };
        let description = self.layers.get(layer as usize)?;
        match key.expert {
            None => self
                .attention_shape(description, key.role)
                .or_else(|| self.ffn_shape(description, key.role))
                .or_else(|| self.norm_shape(description, key.role)),
            Some(expert) => {
                let experts = description.ffn.experts.as_ref()?;
                let there = (expert as usize) < experts.count;
                there.then(|| self.network_shape(key.role, experts.features, true, experts.bias))?
            }
        }
    }

    fn model_shape(&self, role: Role) -> Option<Vec<usize>> {
        let (hidden, vocabulary) = (self.hidden_size, self.vocabulary_size);
        let inputs = self.per_layer_embedding;
        Some(match role {
            Role::Embedding => vec![vocabulary, hidden],
            Role::PositionEmbedding => vec![self.position_embeddings?, hidden],
            Role::PerLayerEmbedding => {
                let inputs = inputs?;
                vec![inputs.vocabulary, self.layers() * inputs.width]
            }
            Role::PerLayerModelProjection => vec![self.layers() * inputs?.width, hidden],
            Role::PerLayerProjectionNorm => vec![inputs?.width],
            Role::FinalNorm => vec![hidden],
            Role::FinalNormBias if self.norm.bias => vec![hidden],
            Role::Unembedding if !self.tied_embeddings => vec![vocabulary, hidden],
            Role::UnembeddingBias if self.unembedding_bias => vec![vocabulary],
            _ => return None,
        })
    }

    fn attention_shape(&self, layer: &LayerDescription, role: Role) -> Option<Vec<usize>> {
        let attention = &layer.attention;
        let hidden = self.hidden_size;
        let (queries, heads) = (attention.query_width(), attention.output_width());
        let own = attention.kv_from.is_none();
        let keys = attention.kv_heads * attention.head_dim;
        let values = attention.kv_heads * attention.value_dim;
        let normed = |width| match attention.query_key_norm {
            QueryKeyNorm::None => None,
            QueryKeyNorm::Head => Some(vec![attention.head_dim]),
            QueryKeyNorm::Projection => Some(vec![width]),
        };
        match role {
            Role::Output => return Some(vec![hidden, heads]),
            Role::OutputBias if attention.bias.output => return Some(vec![hidden]),
            Role::Sinks if attention.sinks => return Some(vec![attention.heads]),
            _ => {}
        }
        if let Some(latent) = attention.latent {
            let rank = latent.query_rank;
            let expanded = attention.heads * (latent.nope_dim + attention.value_dim);
            return Some(match role {
                Role::Query if rank.is_none() => vec![queries, hidden],
                Role::QueryDown => vec![rank?, hidden],
                Role::QueryDownBias if attention.bias.query => vec![rank?],
                Role::QueryDownNorm => vec![rank?],
                Role::QueryUp => vec![queries, rank?],
                Role::KvDown => vec![latent.kv_rank + latent.rope_dim, hidden],
                Role::KvDownBias if attention.bias.key => vec![latent.kv_rank + latent.rope_dim],
                Role::KvDownNorm => vec![latent.kv_rank],
                Role::KvUp => vec![expanded, latent.kv_rank],
                _ => return None,
            });
        }
        Some(match role {
            Role::Query => vec![queries, hidden],
            Role::QueryBias if attention.bias.query => vec![queries],
            Role::QueryNorm => normed(queries)?,
            Role::Key if own => vec![keys, hidden],
            Role::KeyBias if own && attention.bias.key => vec![keys],
            Role::KeyNorm if own => normed(keys)?,
            Role::Value if own && !attention.value_is_key => vec![values, hidden],
            Role::ValueBias if own && !attention.value_is_key && attention.bias.value => {
                vec![values]
            }
            _ => return None,
        })
    }

    fn ffn_shape(&self, layer: &LayerDescription, role: Role) -> Option<Vec<usize>> {
        let hidden = self.hidden_size;
        if let Some(dense) = layer.ffn.dense
            && let Some(shape) = self.network_shape(role, dense.features, dense.gated, dense.bias)
        {
            return Some(shape);
        }
        let experts = layer.ffn.experts?;
        let router = experts.router;
        Some(match role {
            Role::Router => vec![experts.count, hidden],
            Role::RouterBias if router.bias => vec![experts.count],
            Role::RouterCorrectionBias if router.correction_bias => vec![experts.count],
            Role::RouterScale if router.input == super::RouterInput::GemmaScaled => vec![hidden],
            Role::ExpertScale if router.expert_scale => vec![experts.count],
            Role::SharedExpertGate if experts.shared_gate => vec![1, hidden],
            Role::PreExpertsNorm | Role::PostDenseNorm | Role::PostExpertsNorm
                if experts.own_norms =>
            {
                vec![hidden]
            }
            _ => return None,
        })
    }

    /// One network, dense or an expert.
    fn network_shape(
        &self,
        role: Role,
        features: usize,
        gated: bool,
        bias: bool,
    ) -> Option<Vec<usize>> {
        Some(match role {
            Role::Gate => vec![features, self.hidden_size],
            Role::Up if gated => vec![features, self.hidden_size],
            Role::Down => vec![self.hidden_size, features],
            Role::GateBias if bias => vec![features],
            Role::UpBias if bias && gated => vec![features],
            Role::DownBias if bias => vec![self.hidden_size],
            _ => return None,
        })
    }

    fn norm_shape(&self, layer: &LayerDescription, role: Role) -> Option<Vec<usize>> {
        let hidden = self.hidden_size;
        let (before, after) = (layer.pre_norms, layer.post_norms);
        let inputs = self.per_layer_embedding;
        Some(match role {
            Role::AttentionNorm if before => vec![hidden],
            Role::AttentionNormBias if before && self.norm.bias => vec![hidden],
            Role::FfnNorm if before && !layer.parallel => vec![hidden],
            Role::FfnNormBias if before && !layer.parallel && self.norm.bias => vec![hidden],
            Role::PostAttentionNorm | Role::PostFfnNorm if after => vec![hidden],
            Role::PerLayerGate => vec![inputs?.width, hidden],
            Role::PerLayerProjection => vec![hidden, inputs?.width],
            Role::PostPerLayerNorm => {
                inputs?;
                vec![hidden]
            }
            Role::LayerScalar if layer.layer_scalar => vec![1],
            _ => return None,
        })
    }

    /// Every weight of the model with its place in a checkpoint, in the order in which they are
    /// used: layer by layer, a layer's experts after the rest of it.
    ///
    /// A tied model's checkpoint may repeat the embedding as an unembedding, which is listed as not
    /// required; or it may hold the matrix under that name alone.
    pub fn tensors(&self, naming: Naming) -> Vec<TensorSpec> {
        let of_model = |role: &Role| self.tensor(naming, WeightKey::model(*role));
        let (before, after) = Role::ALL.split_at(Role::AttentionNorm as usize);
        let mut tensors: Vec<TensorSpec> = before.iter().filter_map(of_model).collect();
        for (layer, description) in self.layers.iter().enumerate() {
            let of_layer = |role: &Role| self.tensor(naming, WeightKey::layer(*role, layer));
            tensors.extend(Role::ALL.iter().filter_map(of_layer));
            let experts = description.ffn.experts.map_or(0, |experts| experts.count);
            for expert in 0..experts {
                let of_expert =
                    |role: &&Role| self.tensor(naming, WeightKey::expert(**role, layer, expert));
                tensors.extend(Role::NETWORK.iter().filter_map(|role| of_expert(&role)));
            }
        }
        tensors.extend(after.iter().filter_map(of_model));
        tensors
    }

    fn tensor(&self, naming: Naming, key: WeightKey) -> Option<TensorSpec> {
        let copy = self.tied_embeddings && key == WeightKey::model(Role::Unembedding);
        let shape = match copy {
            true => vec![self.vocabulary_size, self.hidden_size],
            false => self.shape(key)?,
        };
        let mut candidates = match naming {
            Naming::Hub => self.hub_candidates(key, shape[0]),
            Naming::Gguf => self.gguf_candidates(key, shape[0]),
        };
        if self.tied_embeddings && naming == Naming::Hub && key == WeightKey::model(Role::Embedding)
        {
            let other = WeightKey::model(Role::Unembedding);
            candidates.extend(self.hub_candidates(other, shape[0]));
        }
        Some(TensorSpec { key, shape, candidates, required: !copy })
    }

    fn hub_candidates(&self, key: WeightKey, outputs: usize) -> Vec<Candidate> {
        let names = &self.family.hub;
        // The head stands beside the stack of layers, not inside it.
        let prefixes = match key.role {
            Role::Unembedding | Role::UnembeddingBias => names.head_prefixes,
            _ => names.prefixes,
        };
        let mut candidates = Vec::new();
        for name in entries(names.lists, key) {
            let (part, filled) = (self.part(name, key, outputs), filled(name.template, key));
            let heads = self.split_heads(name, key);
            let below = |prefix: &&str| Candidate {
                name: format!("{prefix}{filled}"),
                part,
                heads: heads.clone().map(|heads| SplitHeads {
                    values_name: format!("{prefix}{}", heads.values_name),
                    ..heads
                }),
            };
            candidates.extend(prefixes.iter().map(below));
        }
        candidates
    }

    fn gguf_candidates(&self, key: WeightKey, outputs: usize) -> Vec<Candidate> {
        let names = &self.family.gguf;
        let heads = match key.role {
            Role::Query | Role::QueryBias | Role::Key | Role::KeyBias if names.interleaved => {
                key.layer.map(|layer| self.layers[layer as usize].attention.head_dim)
            }
            _ => None,
        };
        let minus = if key.role.is_norm_weight() { names.norm_offset } else { 0.0 };
        let candidate = |name: &Name| Candidate {
            name: filled(name.template, key),
            part: Part { heads, minus, ..self.part(name, key, outputs) },
            heads: self.split_heads(name, key),
        };
        entries(names.lists, key).map(candidate).collect()
    }

    fn split_heads(&self, name: &Name, key: WeightKey) -> Option<SplitHeads> {
        let attention = &self.layers[key.layer? as usize].attention;
        Some(SplitHeads {
            values_name: filled(name.values?, key),
            heads: attention.heads,
            keys: attention.latent?.nope_dim,
            values: attention.value_dim,
        })
    }

    fn part(&self, name: &Name, key: WeightKey, outputs: usize) -> Part {
        let experts = || self.layers[key.layer? as usize].ffn.experts;
        let stack = match (name.stacked, key.expert) {
            (true, Some(expert)) => experts().map(|experts| (expert as usize, experts.count)),
            _ => None,
        };
        let width = |role: &Role| self.shape(key.with(*role)).map_or(0, |shape| shape[0]);
        let (first, step, total) = match name.outputs {
            Outputs::Whole => (0, 1, outputs),
            Outputs::Fused(roles) => {
                let before = roles.iter().take_while(|role| **role != key.role);
                (before.map(width).sum(), 1, roles.iter().map(width).sum())
            }
            Outputs::Interleaved { first, step } => (first, step, outputs * step),
        };
        let transposed = name.transposed;
        Part { stack, first, step, total, transposed, ..Part::whole(outputs) }
    }
}

/// The entries of a family's lists that may name a weight.
fn entries(
    lists: &'static [&'static [Name]],
    key: WeightKey,
) -> impl Iterator<Item = &'static Name> {
    let scope = match key {
        WeightKey { layer: None, .. } => Scope::Model,
        WeightKey { expert: None, .. } => Scope::Layer,
        _ => Scope::Expert,
    };
    let names = lists.iter().flat_map(|list| list.iter());
    names.filter(move |name| name.role == key.role && name.scope() == scope)
}

/// A template with the numbers of layer and expert.
fn filled(template: &str, key: WeightKey) -> String {
    let number = |number: Option<u32>| number.unwrap_or_default().to_string();
    template.replace("{layer}", &number(key.layer)).replace("{expert}", &number(key.expert))
}
