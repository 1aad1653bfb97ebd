//! Sets of layers, and slots: which part of a model a plan reads.

use std::fmt;

/// A set of layers, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LayerSet(Vec<u32>);

impl LayerSet {
    /// Layers `0..count`.
    pub fn all(count: u32) -> Self {
        Self((0..count).collect())
    }

    /// Layers `first..=last`; empty if `first > last`.
    pub fn range(first: u32, last: u32) -> Self {
        Self((first..=last).collect())
    }

    /// One layer.
    pub fn one(layer: u32) -> Self {
        Self(vec![layer])
    }

    /// The layers, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + ExactSizeIterator + '_ {
        self.0.iter().copied()
    }

    /// How many layers.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no layer in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `layer` is in it.
    pub fn contains(&self, layer: u32) -> bool {
        self.0.binary_search(&layer).is_ok()
    }

    /// Those layers for which `keep` holds.
    pub fn filter(&self, mut keep: impl FnMut(u32) -> bool) -> Self {
        Self(self.iter().filter(|layer| keep(*layer)).collect())
    }
}

impl FromIterator<u32> for LayerSet {
    fn from_iter<I: IntoIterator<Item = u32>>(layers: I) -> Self {
        let mut layers: Vec<u32> = layers.into_iter().collect();
        layers.sort_unstable();
        layers.dedup();
        Self(layers)
    }
}

impl fmt::Display for LayerSet {
    /// Runs as ranges: `0-3,7`; `none` when empty.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return formatter.write_str("none");
        }
        let mut separator = "";
        let mut rest = self.0.as_slice();
        while let [first, ..] = *rest {
            let run = rest.windows(2).take_while(|pair| pair[1] - pair[0] == 1).count();
            let last = rest[run];
            match run {
                0 => write!(formatter, "{separator}{first}")?,
                _ => write!(formatter, "{separator}{first}-{last}")?,
            }
            rest = &rest[run + 1..];
            separator = ",";
        }
        Ok(())
    }
}

/// One feature of one layer. Slots order by layer, then feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// The layer, from 0.
    pub layer: u32,
    /// The feature within the layer, from 0.
    pub feature: u64,
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "L{}F{}", self.layer, self.feature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_layers_print_as_ranges() {
        let layers: LayerSet = [7, 0, 1, 2, 5, 6].into_iter().collect();
        assert_eq!(layers.to_string(), "0-2,5-7");
        assert_eq!(LayerSet::one(3).to_string(), "3");
        assert_eq!(LayerSet::default().to_string(), "none");
    }
}
