//! Reference outputs of other people's programs, as kept in `tests/goldens`.

use std::path::PathBuf;

use serde_json::Value;

use crate::repository;

/// The families that are compared with the reference; the next family is one more name.
pub const FAMILIES: &[&str] = &["gemma3", "llama2", "llama3"];

/// One family's checkpoint with its reference.
pub struct Golden {
    /// The folder's name.
    pub name: String,
    /// The checkpoint directory.
    pub path: PathBuf,
    /// The whole of `golden.json`.
    pub json: Value,
}

/// One prompt with what the reference made of it.
pub struct Prompt<'a> {
    /// Its name.
    pub name: &'a str,
    /// The token ids.
    pub input_ids: Vec<u32>,
    /// The last position's logits.
    pub logits: Vec<f64>,
    /// L2 norm and first numbers of the residual stream after each layer.
    pub layers: Vec<(f64, Vec<f64>)>,
    /// The greedy continuation.
    pub greedy: Vec<u32>,
}

impl Golden {
    /// Reads a family's folder.
    pub fn load(name: &str) -> Self {
        let path = repository().join("tests/goldens").join(name);
        let text = std::fs::read_to_string(path.join("golden.json")).expect("golden.json");
        Self {
            name: name.to_owned(),
            path,
            json: serde_json::from_str(&text).expect("golden.json is JSON"),
        }
    }

    /// The largest difference of a logit that exact arithmetic may show: `max(3e-4, 0.1 × stability)`.
    pub fn tolerance(&self) -> f64 {
        let stability = self.json["stability_max_logit_change_rel_1e-5"].as_f64().unwrap_or(0.0);
        (0.1 * stability).max(3e-4)
    }

    /// The prompts.
    pub fn prompts(&self) -> Vec<Prompt<'_>> {
        let prompts = self.json["prompts"].as_array().expect("prompts");
        prompts.iter().map(prompt).collect()
    }
}

fn prompt(json: &Value) -> Prompt<'_> {
    let hidden = json["hidden"].as_array().expect("hidden");
    let layers = hidden
        .iter()
        .filter(|entry| entry["after"].as_str().is_some_and(|name| name.starts_with("layer_")));
    Prompt {
        name: json["name"].as_str().expect("name"),
        input_ids: ids(&json["input_ids"]),
        logits: reals(&json["last_logits"]),
        layers: layers
            .map(|entry| (entry["l2"].as_f64().expect("l2"), reals(&entry["first8"])))
            .collect(),
        greedy: ids(&json["greedy16"]),
    }
}

/// A JSON array of token ids.
pub fn ids(json: &Value) -> Vec<u32> {
    json.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// A JSON array of numbers.
pub fn reals(json: &Value) -> Vec<f64> {
    json.as_array()
        .expect("numbers")
        .iter()
        .map(|number| number.as_f64().expect("a number"))
        .collect()
}
