//! What passes of a model took, part by part.

use std::ops::AddAssign;
use std::time::Duration;

/// What one part of a pass took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    /// Weights read, in bytes.
    pub bytes: u64,
    /// Time.
    pub elapsed: Duration,
}

impl Meter {
    fn since(self, before: Meter) -> Meter {
        Meter {
            bytes: self.bytes - before.bytes,
            elapsed: self.elapsed.saturating_sub(before.elapsed),
        }
    }
}

impl AddAssign for Meter {
    fn add_assign(&mut self, other: Meter) {
        self.bytes += other.bytes;
        self.elapsed += other.elapsed;
    }
}

/// What one layer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerMeters {
    /// From the norm before attention to the sum with the stream.
    pub attention: Meter,
    /// The rest: the feed-forward network with its norms, and the layer's own embedding.
    pub network: Meter,
}

/// What passes took in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassMeters {
    /// From tokens to the stream.
    pub embedding: Meter,
    /// The layers, in order; none where nothing ran.
    pub layers: Vec<LayerMeters>,
    /// From the stream to logits.
    pub unembedding: Meter,
}

impl PassMeters {
    /// Nothing yet, for so many layers.
    pub fn new(layers: usize) -> PassMeters {
        PassMeters { layers: vec![LayerMeters::default(); layers], ..PassMeters::default() }
    }

    /// All parts together.
    pub fn total(&self) -> Meter {
        let mut total = self.embedding;
        for layer in &self.layers {
            total += layer.attention;
            total += layer.network;
        }
        total += self.unembedding;
        total
    }

    /// What was added since `before`, which is an earlier state of these.
    #[must_use]
    pub fn since(&self, before: &PassMeters) -> PassMeters {
        let layers = self.layers.iter().zip(&before.layers);
        PassMeters {
            embedding: self.embedding.since(before.embedding),
            layers: layers
                .map(|(layer, before)| LayerMeters {
                    attention: layer.attention.since(before.attention),
                    network: layer.network.since(before.network),
                })
                .collect(),
            unembedding: self.unembedding.since(before.unembedding),
        }
    }
}

impl AddAssign<&PassMeters> for PassMeters {
    fn add_assign(&mut self, other: &PassMeters) {
        let layers = self.layers.len().max(other.layers.len());
        self.layers.resize(layers, LayerMeters::default());
        self.embedding += other.embedding;
        for (layer, other) in self.layers.iter_mut().zip(&other.layers) {
            layer.attention += other.attention;
            layer.network += other.network;
        }
        self.unembedding += other.unembedding;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(bytes: u64) -> Meter {
        Meter { bytes, elapsed: Duration::from_micros(bytes) }
    }

    #[test]
    fn what_was_added_is_what_it_is_more_than_before() {
        let before = PassMeters {
            embedding: meter(1),
            layers: vec![LayerMeters { attention: meter(2), network: meter(3) }; 2],
            unembedding: meter(4),
        };
        assert_eq!(before.total(), meter(15));
        let mut after = before.clone();
        after += &before;
        assert_eq!(after.total(), meter(30));
        assert_eq!(after.since(&before), before);
        let mut none = PassMeters::default();
        none += &before;
        assert_eq!(none, before);
    }
}
