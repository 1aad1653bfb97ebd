//! What one layer computes, as data: attention, rotary embedding, feed-forward network, norms.
//!
//! A family fills these records, the decoder reads them. Everything here is checked when it is
//! made (`Architecture::validated`): sizes are positive and bounded, heads divide, numbers are
//! finite.

use std::f64::consts::TAU;

/// Which norm a model uses throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Root-mean-square norm: `x / sqrt(mean(x²) + epsilon)`.
    Rms,
    /// Layer norm: the mean is taken away first, `(x - mean) / sqrt(variance + epsilon)`.
    Layer,
}

/// The norms of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormDescription {
    /// Which norm.
    pub kind: NormKind,
    /// What keeps the root above 0.
    pub epsilon: f32,
    /// What is added to every stored norm weight.
    pub offset: f32,
    /// Whether the norms of the residual stream have biases.
    pub bias: bool,
}

/// How rotary frequencies are changed for contexts longer than the trained ones.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided.
    Linear {
        /// By this.
        factor: f64,
    },
    /// Low frequencies divided, high ones kept, those between blended.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `context_original` over this are low frequencies.
        low_frequency_factor: f64,
        /// Wavelengths below `context_original` over this are high frequencies.
        high_frequency_factor: f64,
        /// Positions of the first training.
        context_original: f64,
    },
    /// YaRN: as `Llama3`, blended along the dimensions instead of the wavelengths, and with a
    /// factor on queries and keys.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Turns within `context_original` above which a frequency is kept.
        beta_fast: f64,
        /// Turns within `context_original` below which a frequency is divided.
        beta_slow: f64,
        /// Positions of the first training.
        context_original: f64,
        /// Whether the ends of the blend are rounded to whole dimensions.
        truncate: bool,
        /// Factor on cosines and sines.
        attention_factor: f64,
    },
    /// Divisors per pair, one list for short runs and one for long ones.
    LongRope {
        /// Divisors while the run's context is within `context_original`: `[dims / 2]`.
        short: Vec<f64>,
        /// Divisors beyond: `[dims / 2]`.
        long: Vec<f64>,
        /// Positions of the first training.
        context_original: usize,
        /// Factor on cosines and sines.
        attention_factor: f64,
    },
    /// Divisors per pair, as GGUF files keep them in `rope_freqs`: `[dims / 2]`.
    Factors(Vec<f64>),
}

impl RopeScaling {
    /// What a frequency (radians a position) becomes; `None` under the rules that look at more than
    /// the frequency.
    ///
    /// # Source
    /// `Llama3` as in the Llama 3.1 release.
    pub fn scaled(&self, frequency: f64) -> Option<f64> {
        match *self {
            Self::None => Some(frequency),
            Self::Linear { factor } => Some(frequency / factor),
            Self::Llama3 {
                factor,
                low_frequency_factor: low,
                high_frequency_factor: high,
                context_original,
            } => {
                let turns = context_original * frequency / TAU;
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                Some(frequency * (kept + (1.0 - kept) / factor))
            }
            Self::Yarn { .. } | Self::LongRope { .. } | Self::Factors(_) => None,
        }
    }
}

/// Which numbers of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairing {
    /// Number `i` with `i + dims / 2`, among the first `dims`.
    SplitHalf,
    /// Number `2 i` with `2 i + 1`, among the first `dims`.
    Interleaved,
    /// Number `i` with `i + head_dim / 2`; the exponents count against `head_dim`, and pairs from
    /// `dims / 2` on do not turn (Gemma 4).
    Proportional,
}

/// Rotary position embedding of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeDescription {
    /// Base of the geometric series of wavelengths.
    pub base: f64,
    /// Numbers of a head that turn; even, at most `head_dim`.
    pub dims: usize,
    /// Which of them turn together.
    pub pairing: RopePairing,
    /// Scaling of the frequencies.
    pub scaling: RopeScaling,
}

/// Whether queries and keys are normed before the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// They are not.
    None,
    /// Each head alone, with a weight of `[head_dim]`.
    Head,
    /// The whole projection at once, with a weight as long as it.
    Projection,
}

/// Which of attention's projections have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttentionBias {
    /// The query projection.
    pub query: bool,
    /// The key projection.
    pub key: bool,
    /// The value projection.
    pub value: bool,
    /// The output projection.
    pub output: bool,
}

impl AttentionBias {
    /// None of them.
    pub const NONE: AttentionBias =
        AttentionBias { query: false, key: false, value: false, output: false };

    /// All four, or none.
    pub const fn all(present: bool) -> AttentionBias {
        AttentionBias { query: present, key: present, value: present, output: present }
    }

    /// Those of queries, keys and values, or none.
    pub const fn inputs(present: bool) -> AttentionBias {
        AttentionBias { query: present, key: present, value: present, output: false }
    }
}

/// Attention through low-rank projections (multi-head latent attention of DeepSeek).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentDescription {
    /// Rank of the query projection; `None` where it is whole.
    pub query_rank: Option<usize>,
    /// Rank that keys and values share.
    pub kv_rank: usize,
    /// Numbers of a head that do not turn; they come first.
    pub nope_dim: usize,
    /// Numbers of a head that turn; keys share them between all heads.
    pub rope_dim: usize,
}

/// Attention of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionDescription {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Numbers in a query or key head.
    pub head_dim: usize,
    /// Numbers in a value head.
    pub value_dim: usize,
    /// Factor on the product of query and key.
    pub scale: f32,
    /// Cap of attention scores: `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Positions seen, the own one included; `None` sees all earlier ones.
    pub window: Option<usize>,
    /// Rotary embedding, where there is one.
    pub rope: Option<RopeDescription>,
    /// Norm of queries and keys.
    pub query_key_norm: QueryKeyNorm,
    /// Whether each value head is normed, without a weight.
    pub value_norm: bool,
    /// Whether values are the key projection's output, before its norm and rotation.
    pub value_is_key: bool,
    /// The earlier layer whose keys and values this one reads, having none of its own.
    pub kv_from: Option<usize>,
    /// Whether each head has a further score that takes its share of the weight and adds nothing.
    pub sinks: bool,
    /// Which projections have biases.
    pub bias: AttentionBias,
    /// Low-rank projections instead of whole ones.
    pub latent: Option<LatentDescription>,
}

impl AttentionDescription {
    /// Attention as the plain Transformer has it: for a family to change what differs.
    pub fn plain(heads: usize, kv_heads: usize, head_dim: usize) -> AttentionDescription {
        AttentionDescription {
            heads,
            kv_heads,
            head_dim,
            value_dim: head_dim,
            scale: (head_dim as f64).powf(-0.5) as f32,
            softcap: None,
            window: None,
            rope: None,
            query_key_norm: QueryKeyNorm::None,
            value_norm: false,
            value_is_key: false,
            kv_from: None,
            sinks: false,
            bias: AttentionBias::NONE,
            latent: None,
        }
    }

    /// Numbers of a position's queries.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Numbers of a position's keys in the cache; 0 where another layer's are read.
    pub fn key_width(&self) -> usize {
        if self.kv_from.is_some() { 0 } else { self.kv_heads * self.head_dim }
    }

    /// Numbers of a position's values in the cache; 0 where another layer's are read.
    pub fn value_width(&self) -> usize {
        if self.kv_from.is_some() { 0 } else { self.kv_heads * self.value_dim }
    }

    /// Numbers of a position's attended heads, which the output projection reads.
    pub fn output_width(&self) -> usize {
        self.heads * self.value_dim
    }
}

/// A feed-forward network that every position goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenseDescription {
    /// Features: rows of the gate projection (the intermediate size).
    pub features: usize,
    /// Whether there is an up projection beside the gate. A plain network (GPT-2) stores its one
    /// first projection as the gate.
    pub gated: bool,
    /// Whether its projections have biases.
    pub bias: bool,
}

/// What is done to gate and up before they meet (gpt-oss).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SwigluClamp {
    /// The gate is at most this, the up projection between minus this and this.
    pub limit: f32,
    /// Steepness: `gate * sigmoid(alpha * gate) * (up + 1)`.
    pub alpha: f32,
}

/// How a router's scores become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterScoring {
    /// They add up to 1.
    Softmax,
    /// Each alone between 0 and 1.
    Sigmoid,
}

/// By what a group of experts is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupRule {
    /// Its best expert.
    Max,
    /// The sum of its two best experts.
    SumOfTwo,
}

/// Experts in groups, of which only some are looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertGroups {
    /// Groups of equal size.
    pub count: usize,
    /// Groups that are looked into.
    pub used: usize,
    /// By what they are judged.
    pub rule: GroupRule,
}

/// What a router reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterInput {
    /// The normed input of the network.
    Normed,
    /// The residual stream, normed without a weight, times a stored scale and `hidden^-0.5`
    /// (Gemma 4).
    GemmaScaled,
}

/// How experts are chosen and weighted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouterDescription {
    /// Whether scores have biases.
    pub bias: bool,
    /// Whether a stored bias is added for the choice alone.
    pub correction_bias: bool,
    /// How scores become weights.
    pub scoring: RouterScoring,
    /// Whether that is done over the chosen experts alone.
    pub softmax_after: bool,
    /// Groups, where experts are chosen in two steps.
    pub groups: Option<ExpertGroups>,
    /// Whether the chosen weights are made to add up to 1.
    pub normalise: bool,
    /// Factor on the chosen weights.
    pub scale: f32,
    /// What the router reads.
    pub input: RouterInput,
    /// Whether each expert's weight has a stored factor.
    pub expert_scale: bool,
}

/// Experts of a layer, of which each position goes through some.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertsDescription {
    /// Experts.
    pub count: usize,
    /// Experts that a position goes through.
    pub used: usize,
    /// Features of one expert.
    pub features: usize,
    /// Whether an expert's projections have biases.
    pub bias: bool,
    /// What is done to gate and up before they meet, if not the plain product.
    pub clamp: Option<SwigluClamp>,
    /// How experts are chosen.
    pub router: RouterDescription,
    /// Whether the dense network beside them is weighted by a gate of its own (Qwen 2 MoE).
    pub shared_gate: bool,
    /// Whether experts have norms of their own beside the dense network's (Gemma 4).
    pub own_norms: bool,
}

/// The feed-forward networks of one layer; their outputs are added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FfnDescription {
    /// The network that every position goes through; shared experts are part of it.
    pub dense: Option<DenseDescription>,
    /// The experts that a router chooses from.
    pub experts: Option<ExpertsDescription>,
}

impl FfnDescription {
    /// One gated network.
    pub fn gated(features: usize, bias: bool) -> FfnDescription {
        FfnDescription {
            dense: Some(DenseDescription { features, gated: true, bias }),
            experts: None,
        }
    }

    /// One network without an up projection.
    pub fn plain(features: usize, bias: bool) -> FfnDescription {
        FfnDescription {
            dense: Some(DenseDescription { features, gated: false, bias }),
            experts: None,
        }
    }
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerDescription {
    /// Its attention.
    pub attention: AttentionDescription,
    /// Its feed-forward networks.
    pub ffn: FfnDescription,
    /// Whether attention and feed-forward network read the same normed stream and are added
    /// together (Phi-2); there is no norm before the network then.
    pub parallel: bool,
    /// Whether the inputs of both are normed.
    pub pre_norms: bool,
    /// Whether the outputs of both are normed before they are added to the stream.
    pub post_norms: bool,
    /// Whether the stream is multiplied by a stored number at the layer's end.
    pub layer_scalar: bool,
}

impl LayerDescription {
    /// A layer whose inputs are normed and whose outputs are not.
    pub fn pre_norm(attention: AttentionDescription, ffn: FfnDescription) -> LayerDescription {
        LayerDescription {
            attention,
            ffn,
            parallel: false,
            pre_norms: true,
            post_norms: false,
            layer_scalar: false,
        }
    }
}

/// An embedding of the tokens that enters at every layer (Gemma 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerLayerEmbedding {
    /// Numbers a layer.
    pub width: usize,
    /// Rows of the table.
    pub vocabulary: usize,
}

/// A piece of a layer's features: one network with its own gate, up and down projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The expert, `None` for the dense network.
    pub expert: Option<u32>,
    /// Number of its first feature in the layer.
    pub first: usize,
    /// Its features.
    pub features: usize,
}
