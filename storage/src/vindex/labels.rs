//! `feature_labels.json`: the relation that a probe found in a feature.
//!
//! A JSON object with keys `L{layer}_F{feature}` and relations as values, the ancestor's layout.

use serde::Deserializer;
use serde::de::{Error, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Relation labels by feature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    relations: BTreeMap<(u32, u32), Box<str>>,
}

impl Labels {
    /// The relation of a feature.
    pub fn get(&self, layer: u32, feature: u32) -> Option<&str> {
        self.relations.get(&(layer, feature)).map(|relation| &**relation)
    }

    /// Layer, feature and relation of every label, in that order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, &str)> {
        self.relations.iter().map(|(&(layer, feature), relation)| (layer, feature, &**relation))
    }

    /// Number of labelled features.
    pub fn len(&self) -> usize {
        self.relations.len()
    }

    /// Whether no feature is labelled.
    pub fn is_empty(&self) -> bool {
        self.relations.is_empty()
    }

    /// Labels a feature, and returns the relation that it had.
    pub fn insert(&mut self, layer: u32, feature: u32, relation: &str) -> Option<Box<str>> {
        self.relations.insert((layer, feature), relation.into())
    }

    /// Parses a `feature_labels.json`.
    ///
    /// # Errors
    /// A sentence fragment saying what is wrong with the file: not an object of strings, a key that
    /// is no feature, or the same feature twice.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let mut parser = serde_json::Deserializer::from_slice(text);
        let labels = parser.deserialize_map(LabelVisitor).map_err(|error| error.to_string())?;
        parser.end().map_err(|error| error.to_string())?;
        Ok(labels)
    }

    /// The text of the file, in order of layer and feature.
    pub fn encode(&self) -> Vec<u8> {
        let object: serde_json::Map<_, _> =
            self.iter().map(|(l, f, relation)| (format!("L{l}_F{f}"), relation.into())).collect();
        let mut text = serde_json::to_vec_pretty(&object).expect("labels are plain data");
        text.push(b'\n');
        text
    }
}

struct LabelVisitor;

impl<'de> Visitor<'de> for LabelVisitor {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of relations by feature")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut labels = Labels::default();
        while let Some(key) = map.next_key::<String>()? {
            let Some((layer, feature)) = parse_key(&key) else {
                return Err(A::Error::custom(format!("key {key:?} is not of the form L3_F17")));
            };
            if labels.relations.insert((layer, feature), map.next_value()?).is_some() {
                return Err(A::Error::custom(format!("{key} is labelled twice")));
            }
        }
        Ok(labels)
    }
}

fn parse_key(key: &str) -> Option<(u32, u32)> {
    let (layer, feature) = key.strip_prefix('L')?.split_once("_F")?;
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    Some((number(layer)?, number(feature)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_survive_the_round_trip_in_order() {
        let mut labels = Labels::default();
        for (layer, feature, relation) in [(10, 2, "capital"), (2, 10, "Währung"), (2, 9, "")] {
            assert_eq!(labels.insert(layer, feature, relation), None);
        }
        assert_eq!(Labels::parse(&labels.encode()).as_ref(), Ok(&labels));
        let order: Vec<_> = labels.iter().map(|(layer, feature, _)| (layer, feature)).collect();
        assert_eq!(order, [(2, 9), (2, 10), (10, 2)]);
        assert_eq!(labels.get(10, 2), Some("capital"));
        assert_eq!(labels.get(10, 3), None);
    }

    #[test]
    fn label_of_no_feature_or_of_one_twice_is_refused() {
        for (bad, names) in [
            (r#"{"26:9515":"capital"}"#, "26:9515"),
            (r#"{"L1_F+2":"capital"}"#, "L1_F+2"),
            (r#"{"L1_F4294967296":"capital"}"#, "L1_F4294967296"),
            (r#"{"L1_F2":"capital","L01_F2":"currency"}"#, "L01_F2"),
            (r#"{"L1_F2":7}"#, "integer"),
            (r#"{"L1_F2":"capital"} trailing"#, "trailing"),
        ] {
            let problem = Labels::parse(bad.as_bytes()).unwrap_err();
            assert!(problem.contains(names), "{bad}: {problem}");
        }
    }
}
