//! Reading a `config.json`: typed keys, and a list of what nobody read.
//!
//! A key that is present must be understood: the wrong type, a value out of bounds, or a key that
//! looks as if it changed the arithmetic and that the family did not ask for, is an error with the
//! key's name. `null` counts as absent.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::ArchitectureError;

/// One object of a configuration, which remembers the keys that were asked for.
pub(super) struct Config<'a> {
    map: &'a Map<String, Value>,
    path: &'a str,
    asked: RefCell<BTreeSet<&'static str>>,
}

/// Fragments of names that speak of arithmetic.
const SUSPICIOUS: [&str; 27] = [
    "activation",
    "alibi",
    "attention",
    "attn",
    "bias",
    "clip",
    "expert",
    "factor",
    "gating",
    "kv_shared",
    "layer_types",
    "logit",
    "moe",
    "multiplier",
    "norm",
    "per_layer",
    "original_max_position",
    "qk_",
    "quantization",
    "residual",
    "rope",
    "rotary",
    "router",
    "scal",
    "sliding",
    "softcap",
    "window",
];

/// Names that contain such a fragment and still change nothing when a trained model is run.
const HARMLESS: [&str; 14] = [
    "_attn_implementation",
    "attn_implementation",
    "_attn_implementation_autoset",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "attn_dropout",
    "residual_dropout",
    "output_attentions",
    "_flash_attn_2_enabled",
    // Scores are computed in f32 here anyway.
    "attention_softmax_in_fp32",
    "scale_attention_softmax_in_fp32",
    // How weights are stored is for those who read them; the arithmetic is on their values.
    "quantization",
    "quantization_config",
];

impl<'a> Config<'a> {
    pub(super) fn new(map: &'a Map<String, Value>, path: &'a str) -> Config<'a> {
        Config { map, path, asked: RefCell::default() }
    }

    /// The key as it is named in messages.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// Whether the key is there, be it `null`.
    pub(super) fn mentions(&self, key: &'static str) -> bool {
        self.asked.borrow_mut().insert(key);
        self.map.contains_key(key)
    }

    pub(super) fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn invalid(&self, key: &str, expected: impl Into<String>) -> ArchitectureError {
        let found = self.map.get(key).map_or("nothing".into(), shortened);
        ArchitectureError::Invalid { key: self.name(key), expected: expected.into(), found }
    }

    /// A key whose value would change the arithmetic in a way that is not handled.
    pub(super) fn unsupported(&self, key: &str) -> ArchitectureError {
        let found = self.map.get(key).map_or("nothing".into(), shortened);
        ArchitectureError::Unsupported { key: self.name(key), found }
    }

    pub(super) fn missing(&self, key: &str) -> ArchitectureError {
        ArchitectureError::Missing { key: self.name(key) }
    }

    /// A count from 1 to `max`.
    pub(super) fn count(
        &self,
        key: &'static str,
        max: usize,
    ) -> Result<Option<usize>, ArchitectureError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        match count {
            Some(count) if (1..=max).contains(&count) => Ok(Some(count)),
            _ => Err(self.invalid(key, format!("a whole number from 1 to {max}"))),
        }
    }

    /// A whole number from 0 to `max`.
    pub(super) fn natural(
        &self,
        key: &'static str,
        max: usize,
    ) -> Result<Option<usize>, ArchitectureError> {
        match self.value(key).and_then(Value::as_u64) {
            Some(0) => Ok(Some(0)),
            _ => self.count(key, max),
        }
    }

    /// A list of whole numbers from 0 to `max`.
    pub(super) fn naturals(
        &self,
        key: &'static str,
        max: usize,
    ) -> Result<Option<Vec<usize>>, ArchitectureError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = |value: &Value| {
            let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
            number.filter(|number| *number <= max)
        };
        let numbers = value.as_array().and_then(|list| list.iter().map(number).collect());
        let expected = || format!("a list of whole numbers from 0 to {max}");
        numbers.map(Some).ok_or_else(|| self.invalid(key, expected()))
    }

    /// A count that the family does not know by itself.
    pub(super) fn required_count(
        &self,
        key: &'static str,
        max: usize,
    ) -> Result<usize, ArchitectureError> {
        self.count(key, max)?.ok_or_else(|| self.missing(key))
    }

    /// A finite number above 0.
    pub(super) fn positive(&self, key: &'static str) -> Result<Option<f64>, ArchitectureError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_f64() {
            // Values pass through f32 in the arithmetic: what vanishes there is 0.
            Some(number)
                if number.is_finite() && number as f32 > 0.0 && (number as f32).is_finite() =>
            {
                Ok(Some(number))
            }
            _ => Err(self.invalid(key, "a finite number above 0")),
        }
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<Option<bool>, ArchitectureError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.invalid(key, "true or false"))
    }

    pub(super) fn text(&self, key: &'static str) -> Result<Option<&'a str>, ArchitectureError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.invalid(key, "a string"))
    }

    pub(super) fn object(
        &self,
        key: &'static str,
    ) -> Result<Option<&'a Map<String, Value>>, ArchitectureError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_object().map(Some).ok_or_else(|| self.invalid(key, "an object"))
    }

    /// One token or a list of tokens, each below `vocabulary`.
    pub(super) fn tokens(
        &self,
        key: &'static str,
        vocabulary: usize,
    ) -> Result<Option<Vec<u32>>, ArchitectureError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let token = |value: &Value| {
            let token = value.as_u64().and_then(|token| u32::try_from(token).ok());
            token.filter(|&token| (token as usize) < vocabulary)
        };
        let tokens = list.iter().map(token).collect::<Option<Vec<u32>>>();
        tokens.map(Some).ok_or_else(|| {
            self.invalid(key, format!("a token below {vocabulary} or a list of such"))
        })
    }

    /// Fails on the first key that nobody asked for and that may change the arithmetic.
    ///
    /// `false`, 0, and what is empty switch nothing on; 1 is neutral for a factor.
    pub(super) fn refuse_unread(&self) -> Result<(), ArchitectureError> {
        let asked = self.asked.borrow();
        for (key, value) in self.map {
            let suspicious = SUSPICIOUS.iter().any(|fragment| key.contains(fragment));
            let known = asked.contains(key.as_str()) || HARMLESS.contains(&key.as_str());
            if suspicious && !known && !is_neutral(key, value) {
                return Err(ArchitectureError::Unsupported {
                    key: self.name(key),
                    found: shortened(value),
                });
            }
        }
        Ok(())
    }
}

impl Config<'_> {
    /// Fails on the first key that nobody asked for, whatever it says.
    pub(super) fn refuse_others(&self) -> Result<(), ArchitectureError> {
        let asked = self.asked.borrow();
        match self.map.keys().find(|key| !asked.contains(key.as_str())) {
            Some(key) => Err(self.unsupported(key)),
            None => Ok(()),
        }
    }
}

fn is_neutral(key: &str, value: &Value) -> bool {
    let factor = ["factor", "multiplier", "scal"].iter().any(|fragment| key.contains(fragment));
    match value {
        Value::Null => true,
        Value::Bool(switch) => !switch,
        Value::Number(number) => number.as_f64() == Some(if factor { 1.0 } else { 0.0 }),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// A value for a message: whole where it is short.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
