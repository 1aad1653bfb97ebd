//! What a compiled model's `config.json` and `tokenizer_config.json` say, and what is read in them.

use larql_compute::quant::Dtype;
use serde_json::Value;

use super::{Job, Planned, most_common};
use crate::failure::{Failure, code};

impl Job<'_> {
    /// The plain type that `config.json` names, if it names one.
    pub(super) fn published_type(&self) -> Result<Option<Dtype>, Failure> {
        let config = (self.origin.side_file)("config.json")?.unwrap_or_default();
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let text = &config["text_config"];
        let named = [&config, text]
            .into_iter()
            .flat_map(|config| ["torch_dtype", "dtype"].map(|key| config[key].as_str()))
            .flatten()
            .next();
        Ok(match named {
            Some("bfloat16") => Some(Dtype::BF16),
            Some("float32") => Some(Dtype::F32),
            Some("float16") => Some(Dtype::F16),
            _ => None,
        })
    }

    /// The configuration of a model whose weights are written in plain types.
    pub(super) fn config(&self, bytes: &[u8], planned: &[Planned<'_>]) -> Result<Vec<u8>, Failure> {
        let mut config: Value = serde_json::from_slice(bytes).map_err(|error| {
            Failure::new(code::UNSUPPORTED_FORMAT, format!("config.json: {error}"))
        })?;
        let Some(map) = config.as_object_mut() else { return Ok(bytes.to_vec()) };
        let mut changed = false;
        for key in ["quantization_config", "quantization"] {
            changed |= map.shift_remove(key).is_some();
            let text = map.get_mut("text_config").and_then(Value::as_object_mut);
            changed |= text.is_some_and(|text| text.shift_remove(key).is_some());
        }
        let name = match most_common(planned) {
            Dtype::F32 => "float32",
            Dtype::BF16 => "bfloat16",
            _ => "float16",
        };
        if self.options.dtype.is_some() {
            for key in ["torch_dtype", "dtype"] {
                if map.get(key).is_some_and(|found| found != name) {
                    map.insert(key.to_owned(), Value::from(name));
                    changed = true;
                }
            }
        }
        if !changed {
            return Ok(bytes.to_vec());
        }
        Ok(serde_json::to_vec_pretty(&config).expect("plain data"))
    }
}
