//! What a checkpoint's `config.json` says about weights that are stored with scales beside them.
//!
//! Three publishers' ways are read: FP8 with one factor a tile (`X.weight_scale_inv`), MXFP4 with one
//! exponent for 32 numbers (`X_blocks`, `X_scales`), and MLX's packed groups (`X.scales`, `X.biases`).
//! Any other method is refused by its name, since its tensors would be numbers that mean nothing.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::failure::{Failure, code};

/// Elements of a group, or bits of an element, beyond which a configuration is damage.
const GROUP_MAX: u64 = 1 << 16;

/// How quantised tensors of a checkpoint are to be read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Quantisation {
    /// Rows and columns of a tile that has one FP8 factor.
    pub(super) tile: Option<(usize, usize)>,
    /// MLX's groups.
    pub(super) groups: Option<Groups>,
}

/// MLX's packing: one for the whole model, and modules that differ.
#[derive(Debug, PartialEq)]
pub(super) struct Groups {
    default: Packing,
    /// By the module's name; `None` for one that is not packed.
    modules: HashMap<String, Option<Packing>>,
}

/// One way of packing a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packing {
    /// Elements that share a scale.
    pub(super) group: usize,
    /// Bits of an element.
    pub(super) bits: usize,
    /// What the bits mean.
    pub(super) kind: PackingKind,
}

/// What the bits of a packed element mean, which MLX calls its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PackingKind {
    /// A number to be scaled and shifted as its group is.
    Affine,
    /// A small float, whose group of 32 has an exponent.
    Mx,
}

impl Groups {
    /// How the weight of a module is packed.
    pub(super) fn of(&self, module: &str) -> Option<Packing> {
        self.modules.get(module).copied().unwrap_or(Some(self.default))
    }
}

impl Quantisation {
    /// Reads the `quantization_config` (or MLX's `quantization`) of a configuration, on its top level
    /// or in its text part.
    ///
    /// # Errors
    /// `UNSUPPORTED_FORMAT` for a method that is not read here, and for sizes that make no sense.
    pub(super) fn from_config(path: &Path, config: &str) -> Result<Self, Failure> {
        // Whether it is JSON at all is the architecture's to say.
        let Ok(Value::Object(top)) = serde_json::from_str(config) else {
            return Ok(Self::default());
        };
        let levels = [Some(&top), top.get("text_config").and_then(Value::as_object)];
        for level in levels.into_iter().flatten() {
            for key in ["quantization_config", "quantization"] {
                if let Some(found) = level.get(key).and_then(Value::as_object) {
                    return Reader { path, key, object: found }.read();
                }
            }
        }
        Ok(Self::default())
    }
}

struct Reader<'a> {
    path: &'a Path,
    key: &'static str,
    object: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn read(&self) -> Result<Quantisation, Failure> {
        match self.object.get("quant_method") {
            None if self.object.contains_key("group_size") => self.mlx(),
            None => Err(self.refuse("quant_method", "one of fp8 and mxfp4")),
            Some(Value::String(method)) if method == "fp8" => self.fp8(),
            Some(Value::String(method)) if method == "mxfp4" => Ok(Quantisation::default()),
            Some(_) => Err(self.refuse("quant_method", "one of fp8 and mxfp4")),
        }
    }

    fn fp8(&self) -> Result<Quantisation, Failure> {
        let expected = "two sizes of a tile";
        let tile = match self.object.get("weight_block_size") {
            None | Some(Value::Null) => return Err(self.refuse("weight_block_size", expected)),
            Some(Value::Array(sizes)) => match sizes[..] {
                [ref rows, ref columns] => size(rows).zip(size(columns)),
                _ => None,
            },
            Some(_) => None,
        };
        let tile = tile.ok_or_else(|| self.refuse("weight_block_size", expected))?;
        if self.object.get("activation_scheme").is_some_and(|scheme| scheme != "dynamic") {
            return Err(self.refuse("activation_scheme", "\"dynamic\""));
        }
        Ok(Quantisation { tile: Some(tile), groups: None })
    }

    fn mlx(&self) -> Result<Quantisation, Failure> {
        let mut modules = HashMap::new();
        for (name, value) in self.object {
            let packing = match value {
                Value::Object(module) => Some(self.packing(module)?),
                Value::Bool(false) => None,
                _ => continue,
            };
            modules.insert(name.clone(), packing);
        }
        let groups = Groups { default: self.packing(self.object)?, modules };
        Ok(Quantisation { tile: None, groups: Some(groups) })
    }

    fn packing(&self, module: &Map<String, Value>) -> Result<Packing, Failure> {
        let kind = match module.get("mode").map(Value::as_str) {
            None | Some(Some("affine")) => PackingKind::Affine,
            Some(Some("mxfp4")) => PackingKind::Mx,
            Some(_) => return Err(self.refuse("mode", "\"affine\" or \"mxfp4\"")),
        };
        let number = |key: &'static str, expected| {
            module.get(key).and_then(size).ok_or_else(|| self.refuse(key, expected))
        };
        let packing = Packing {
            group: number("group_size", "the elements of a group")?,
            bits: number("bits", "4 or 8")?,
            kind,
        };
        match (kind, packing.bits, packing.group) {
            (PackingKind::Affine, 4 | 8, _) | (PackingKind::Mx, 4, 32) => Ok(packing),
            (PackingKind::Affine, ..) => Err(self.refuse("bits", "4 or 8")),
            (PackingKind::Mx, ..) => Err(self.refuse("group_size", "32, and bits 4, as MXFP4 has")),
        }
    }

    fn refuse(&self, key: &str, expected: &str) -> Failure {
        let (path, object) = (self.path.display(), self.key);
        let found = self.object.get(key).map_or("absent".to_owned(), Value::to_string);
        let message = format!("{path}: {object}.{key} in config.json is {found}, not {expected}");
        Failure::new(code::UNSUPPORTED_FORMAT, message)
            .hint("use the model's unquantised weights, or weights in FP8, MXFP4, MLX or GGUF")
    }
}

fn size(value: &Value) -> Option<usize> {
    value.as_u64().filter(|size| (1..=GROUP_MAX).contains(size)).map(|size| size as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str) -> Result<Quantisation, Failure> {
        Quantisation::from_config(Path::new("m"), config)
    }

    #[test]
    fn a_module_of_its_own_packing_goes_before_the_default() {
        let config = r#"{"quantization": {"group_size": 64, "bits": 4,
            "model.embed_tokens": {"group_size": 32, "bits": 8}, "lm_head": false}}"#;
        let groups = read(config).unwrap().groups.unwrap();
        let affine = |group, bits| Some(Packing { group, bits, kind: PackingKind::Affine });
        assert_eq!(groups.of("model.layers.0.mlp.up_proj"), affine(64, 4));
        assert_eq!(groups.of("model.embed_tokens"), affine(32, 8));
        assert_eq!(groups.of("lm_head"), None);
    }

    #[test]
    fn the_tile_of_fp8_weights_is_read_from_the_text_part_too() {
        let object =
            r#""quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 64]}"#;
        for config in [format!("{{{object}}}"), format!("{{\"text_config\": {{{object}}}}}")] {
            assert_eq!(read(&config).unwrap().tile, Some((128, 64)), "{config}");
        }
        assert_eq!(read("{}").unwrap(), Quantisation::default());
    }

    #[test]
    fn a_method_that_is_not_read_is_refused_by_name() {
        for (config, named) in [
            (r#"{"quantization_config": {"quant_method": "gptq", "bits": 4}}"#, "gptq"),
            (r#"{"quantization_config": {"quant_method": "fp8"}}"#, "weight_block_size"),
            (
                r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [0, 1]}}"#,
                "[0,1]",
            ),
            (r#"{"quantization": {"group_size": 64, "bits": 3}}"#, "bits"),
            (r#"{"quantization": {"group_size": 64, "bits": 4, "mode": "nvfp4"}}"#, "nvfp4"),
            (r#"{"quantization": {"group_size": 64, "bits": 4, "mode": "mxfp4"}}"#, "group_size"),
            (r#"{"quantization_config": {}}"#, "quant_method"),
        ] {
            let failure = read(config).unwrap_err();
            assert_eq!(failure.code, code::UNSUPPORTED_FORMAT, "{config}");
            assert!(failure.message.contains(named), "{}", failure.message);
        }
    }
}
