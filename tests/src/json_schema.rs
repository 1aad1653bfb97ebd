//! Random JSON schemas, and a check of a text against one that shares no code with what makes texts.

use serde_json::{Map, Value, json};

/// A stream of random numbers from a seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`, by SplitMix64.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

const NAMES: [&str; 8] = ["name", "age", "a b", "naïve", "x", "items", "\"quoted\"", "日本"];

/// A schema whose texts are short: every string, array and number is bounded.
pub fn schema(random: &mut Random, depth: usize) -> Value {
    let kinds = if depth == 0 { 7 } else { 11 };
    match random.below(kinds) {
        0 => json!({"type": "null"}),
        1 => json!({"type": "boolean"}),
        2 => {
            let low = random.below(2000) as i64 - 1000;
            json!({"type": "integer", "minimum": low, "maximum": low + random.below(5000) as i64})
        }
        3 => {
            let low = random.below(100) as f64 / 4.0 - 10.0;
            json!({"type": "number", "minimum": low, "exclusiveMaximum": low + 12.5})
        }
        4 => {
            let least = random.below(3);
            json!({"type": "string", "minLength": least, "maxLength": least + random.below(6)})
        }
        5 => {
            let count = 1 + random.below(3);
            let values: Vec<Value> = (0..count)
                .map(|index| match random.below(4) {
                    0 => json!(index),
                    1 => json!(null),
                    2 => json!({"kind": index}),
                    _ => json!(NAMES[random.below(NAMES.len())]),
                })
                .collect();
            if count == 1 { json!({"const": values[0]}) } else { json!({"enum": values}) }
        }
        6 => json!({"type": "string", "pattern": "^[a-f]{1,4}-[0-9]{2}$"}),
        7 => {
            let least = random.below(3);
            json!({
                "type": "array", "items": schema(random, depth - 1),
                "minItems": least, "maxItems": least + random.below(3),
            })
        }
        8 | 9 => {
            let mut properties = Map::new();
            for _ in 0..1 + random.below(4) {
                properties
                    .insert(NAMES[random.below(NAMES.len())].into(), schema(random, depth - 1));
            }
            let required: Vec<&String> =
                properties.keys().filter(|_| random.below(3) > 0).collect();
            json!({
                "type": "object", "required": required, "properties": properties,
                "additionalProperties": false,
            })
        }
        _ => {
            let count = 2 + random.below(2);
            let any: Vec<Value> = (0..count).map(|_| schema(random, depth - 1)).collect();
            json!({"anyOf": any})
        }
    }
}

/// What in `value` is not as `schema` says; of the keywords that [`schema`] writes.
pub fn violation(value: &Value, schema: &Value) -> Option<String> {
    let wrong = |what: &str| Some(format!("{value} against {schema}: {what}"));
    if let Some(any) = schema["anyOf"].as_array()
        && !any.iter().any(|schema| violation(value, schema).is_none())
    {
        return wrong("none of anyOf");
    }
    if schema.get("const").is_some_and(|expected| expected != value) {
        return wrong("const");
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        return wrong("enum");
    }
    let right = match schema["type"].as_str() {
        None => true,
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => return wrong(&format!("no type {other}")),
    };
    if !right {
        return wrong("type");
    }
    if let Some(number) = value.as_f64() {
        let bound = |name: &str| schema[name].as_f64();
        if bound("minimum").is_some_and(|least| number < least)
            || bound("maximum").is_some_and(|most| number > most)
            || bound("exclusiveMaximum").is_some_and(|most| number >= most)
        {
            return wrong("range");
        }
    }
    let count = |name: &str| schema[name].as_u64().map(|count| count as usize);
    if let Some(text) = value.as_str() {
        let length = text.chars().count();
        if count("minLength").is_some_and(|least| length < least)
            || count("maxLength").is_some_and(|most| length > most)
        {
            return wrong("length");
        }
        if schema.get("pattern").is_some() && !is_code(text) {
            return wrong("pattern");
        }
    }
    if let Some(items) = value.as_array() {
        if count("minItems").is_some_and(|least| items.len() < least)
            || count("maxItems").is_some_and(|most| items.len() > most)
        {
            return wrong("items");
        }
        if let Some(each) = schema.get("items") {
            return items.iter().find_map(|item| violation(item, each));
        }
    }
    if let (Some(entries), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    {
        let missing = |name: &Value| name.as_str().is_some_and(|name| !entries.contains_key(name));
        if schema["required"].as_array().is_some_and(|names| names.iter().any(missing)) {
            return wrong("required");
        }
        return entries.iter().find_map(|(name, value)| match properties.get(name) {
            Some(schema) => violation(value, schema),
            None => wrong("additionalProperties"),
        });
    }
    None
}

/// Whether `[a-f]{1,4}-[0-9]{2}` matches the whole text.
fn is_code(text: &str) -> bool {
    let Some((letters, digits)) = text.split_once('-') else { return false };
    (1..=4).contains(&letters.len())
        && letters.bytes().all(|byte| (b'a'..=b'f').contains(&byte))
        && digits.len() == 2
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_finds_what_a_schema_forbids() {
        let object = json!({
            "type": "object", "required": ["a"], "additionalProperties": false,
            "properties": {"a": {"type": "integer", "minimum": 3}, "b": {"enum": [1, "x"]}},
        });
        assert_eq!(violation(&json!({"a": 3, "b": "x"}), &object), None);
        for wrong in [
            json!({}),
            json!({"a": 2}),
            json!({"a": 3.5}),
            json!({"a": 3, "b": 2}),
            json!({"a": 3, "c": 1}),
            json!([]),
            json!(null),
        ] {
            assert!(violation(&wrong, &object).is_some(), "{wrong}");
        }
        let code = json!({"type": "string", "pattern": "…"});
        assert_eq!(violation(&json!("abc-12"), &code), None);
        assert!(violation(&json!("abcg-12"), &code).is_some());
        let list = json!({"type": "array", "items": {"type": "null"}, "maxItems": 1});
        assert!(violation(&json!([null, null]), &list).is_some());
        assert!(violation(&json!([1]), &list).is_some());
    }
}
