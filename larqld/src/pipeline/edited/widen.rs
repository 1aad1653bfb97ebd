//! More features in a model's configuration: which number says how many there are, and by how much it is raised.
//!
//! Families name their widths differently, and some have several for one layer. The numbers that may be meant
//! are tried on the configuration itself: one is right where raising it makes the networks wider that are to
//! be, and changes nothing else.

use std::path::Path;

use larql_compute::model::{Architecture, Naming, Role};
use serde_json::Value;

use crate::failure::{Failure, code};
use crate::source::architecture;

/// Configurations' numbers of features, and what each counts.
const WIDTHS: [(&str, Unit); 5] = [
    ("intermediate_size", Unit::Features),
    ("n_inner", Unit::Features),
    ("shared_expert_intermediate_size", Unit::Features),
    ("moe_intermediate_size", Unit::Features),
    ("n_shared_experts", Unit::Networks),
];

/// What block formats need: as many features as the widest block has elements stay whole blocks.
const BLOCK: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Unit {
    /// Features.
    Features,
    /// Whole networks of a size that another number says.
    Networks,
}

/// Features that are wanted at least, by layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Wanted {
    /// Of the network that every position goes through.
    pub(super) dense: Vec<usize>,
    /// Of each expert.
    pub(super) experts: Vec<usize>,
}

impl Wanted {
    /// As many as a model has.
    pub(super) fn of(base: &Architecture) -> Self {
        let ffn = (0..base.layers()).map(|layer| base.layer(layer).ffn);
        let dense = ffn.clone().map(|ffn| ffn.dense.map_or(0, |dense| dense.features));
        let experts = ffn.map(|ffn| ffn.experts.map_or(0, |experts| experts.features));
        Self { dense: dense.collect(), experts: experts.collect() }
    }

    /// How many are lacking in each network.
    fn lacking<'a>(&'a self, there: &'a Wanted) -> impl Iterator<Item = usize> + 'a {
        let pairs = self.dense.iter().zip(&there.dense);
        let pairs = pairs.chain(self.experts.iter().zip(&there.experts));
        pairs.map(|(wanted, there)| wanted.saturating_sub(*there))
    }
}

/// A configuration that makes networks as wide as wanted or a little wider, and what it describes.
///
/// # Errors
/// `UNSUPPORTED_FORMAT` where no number of the configuration does that alone.
pub(super) fn widen(
    path: &Path,
    config: &[u8],
    base: &Architecture,
    wanted: &Wanted,
) -> Result<(Vec<u8>, Architecture), Failure> {
    let mut config: Value = serde_json::from_slice(config)
        .map_err(|error| Failure::new(code::UNSUPPORTED_FORMAT, format!("config.json: {error}")))?;
    let mut current = base.clone();
    for (key, unit) in WIDTHS {
        let there = Wanted::of(&current);
        if wanted.lacking(&there).all(|lacking| lacking == 0) {
            break;
        }
        let Some(value) = number(&config, key, base) else { continue };
        let step = match unit {
            Unit::Features => 1 << value.trailing_zeros().min(BLOCK.trailing_zeros()),
            Unit::Networks => 1,
        };
        let Some(tried) = described(path, &with(&config, key, value + step), base) else {
            continue;
        };
        // By how much one step widens each network, against what it lacks.
        let raised = Wanted::of(&tried);
        let steps = wanted.lacking(&there).zip(raised.lacking(&there));
        let steps = steps.filter(|&(lacking, by)| lacking > 0 && by > 0);
        let Some(steps) = steps.map(|(lacking, by)| lacking.div_ceil(by)).max() else { continue };
        let wider = with(&config, key, value + steps * step);
        if let Some(found) = described(path, &wider, base) {
            (config, current) = (wider, found);
        }
    }
    if wanted.lacking(&Wanted::of(&current)).any(|lacking| lacking > 0) {
        let message =
            format!("no number of {}'s configuration makes its layers wider", base.family());
        return Err(Failure::new(code::UNSUPPORTED_FORMAT, message)
            .hint("edits that replace features, and MODE MEMIT, need no wider layer"));
    }
    Ok((serde_json::to_vec_pretty(&config).expect("plain data"), current))
}

/// The place of a number: the part of a multimodal configuration that is the text model's goes first.
fn number(config: &Value, key: &str, base: &Architecture) -> Option<usize> {
    let found = [&config["text_config"][key], &config[key]].into_iter().find_map(Value::as_u64);
    match found {
        Some(value) => usize::try_from(value).ok(),
        // GPT-2 may leave out its own: four times the width.
        None if key == "n_inner" && base.family() == "gpt2" => {
            Wanted::of(base).dense.first().copied()
        }
        None => None,
    }
}

fn with(config: &Value, key: &str, value: usize) -> Value {
    let mut config = config.clone();
    let nested = config["text_config"][key].is_u64();
    let place = if nested { &mut config["text_config"] } else { &mut config };
    if let Some(map) = place.as_object_mut() {
        map.insert(key.to_owned(), Value::from(value));
    }
    config
}

/// What a configuration describes; `None` where it is no model, or one that differs from the base in more
/// than the width of its networks.
fn described(path: &Path, config: &Value, base: &Architecture) -> Option<Architecture> {
    let mut found = architecture(path, config.to_string().as_bytes()).ok()?;
    found.tied_embeddings = base.tied_embeddings;
    let [old, new] = [base, &found].map(|model| model.tensors(Naming::Hub));
    let is_wider = |role: Role| {
        matches!(role, Role::Gate | Role::Up | Role::Down | Role::GateBias | Role::UpBias)
    };
    let same = old.len() == new.len()
        && old.iter().zip(&new).all(|(old, new)| {
            let shapes = old.shape.iter().zip(&new.shape);
            old.key == new.key
                && (old.shape == new.shape
                    || is_wider(old.key.role) && shapes.into_iter().all(|(old, new)| old <= new))
        });
    same.then_some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base(config: &Value) -> Architecture {
        architecture(Path::new("test"), config.to_string().as_bytes()).unwrap()
    }

    fn llama() -> Value {
        json!({
            "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        })
    }

    #[test]
    fn a_layer_grows_by_whole_blocks_and_takes_the_others_along() {
        let (config, base) = (llama(), base(&llama()));
        let mut wanted = Wanted::of(&base);
        wanted.dense[1] += 3;
        let (config, wider) =
            widen(Path::new("test"), config.to_string().as_bytes(), &base, &wanted).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["intermediate_size"], 128);
        assert_eq!(Wanted::of(&wider).dense, [128, 128]);
        assert_eq!(wider.hidden_size, base.hidden_size);
    }

    #[test]
    fn gpt2_says_what_it_left_out() {
        let config = json!({
            "model_type": "gpt2", "vocab_size": 64, "n_embd": 32, "n_layer": 1, "n_head": 2,
            "n_positions": 16,
        });
        let base = base(&config);
        let mut wanted = Wanted::of(&base);
        wanted.dense[0] += 1;
        let (config, wider) =
            widen(Path::new("test"), config.to_string().as_bytes(), &base, &wanted).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["n_inner"], 256);
        assert_eq!(Wanted::of(&wider).dense, [256]);
    }

    #[test]
    fn what_no_number_widens_is_refused() {
        let (config, base) = (llama(), base(&llama()));
        let mut wanted = Wanted::of(&base);
        wanted.experts[0] = 8;
        let failure =
            widen(Path::new("test"), config.to_string().as_bytes(), &base, &wanted).unwrap_err();
        assert_eq!(failure.code, code::UNSUPPORTED_FORMAT);
    }
}
