//! What a model remembers of the tokens it has read: keys and values of every layer.
//!
//! The decoder alone writes here, a block of positions at a time; others see how long the cache
//! is, how large, and can cut it back to a common prefix. The rows are `f32` in growing buffers;
//! other layouts belong behind the same type, one file each.

use super::Architecture;

/// The keys and values of one sequence.
///
/// Memory grows with the positions read and never above [`bytes_max`](KvCache::bytes_max).
#[derive(Debug, Clone)]
pub struct KvCache {
    positions_max: usize,
    length: usize,
    layers: Vec<LayerCache>,
}

/// One layer: a row of numbers for each position, in both; none where the layer reads another's.
#[derive(Debug, Clone)]
struct LayerCache {
    key_width: usize,
    value_width: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KvCache {
    /// An empty cache for a model. It holds `positions_max` positions, or as many as the model was
    /// made for (`context_max`) where that is less.
    pub fn new(architecture: &Architecture, positions_max: usize) -> KvCache {
        let layers = (0..architecture.layers()).map(|layer| {
            let attention = &architecture.layer(layer).attention;
            LayerCache {
                key_width: attention.key_width(),
                value_width: attention.value_width(),
                keys: Vec::new(),
                values: Vec::new(),
            }
        });
        KvCache {
            positions_max: positions_max.min(architecture.context_max),
            length: 0,
            layers: layers.collect(),
        }
    }

    /// Positions read so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing has been read.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Positions there is room for in all.
    pub fn capacity(&self) -> usize {
        self.positions_max
    }

    /// Forgets all but the first `positions`; a longer length than there is changes nothing.
    pub fn truncate(&mut self, positions: usize) {
        self.length = self.length.min(positions);
        for layer in &mut self.layers {
            layer.keys.truncate(self.length * layer.key_width);
            layer.values.truncate(self.length * layer.value_width);
        }
    }

    /// Memory taken now, in bytes.
    pub fn bytes(&self) -> usize {
        let numbers = |layer: &LayerCache| layer.keys.capacity() + layer.values.capacity();
        self.layers.iter().map(numbers).sum::<usize>() * size_of::<f32>()
    }

    /// Memory taken when the cache is full, in bytes.
    pub fn bytes_max(&self) -> usize {
        let widths = self.layers.iter().map(|layer| layer.key_width + layer.value_width);
        self.positions_max.saturating_mul(widths.sum()).saturating_mul(size_of::<f32>())
    }

    /// Whether this cache was made for a model of this shape.
    pub(super) fn fits(&self, architecture: &Architecture) -> bool {
        self.layers.len() == architecture.layers()
            && self.layers.iter().enumerate().all(|(index, layer)| {
                let attention = &architecture.layer(index).attention;
                (layer.key_width, layer.value_width)
                    == (attention.key_width(), attention.value_width())
            })
    }

    /// Makes room for `count` more positions, or says that memory does not suffice.
    ///
    /// Buffers grow by half, so that a long generation copies each row a few times only, and
    /// never beyond `positions_max`.
    pub(super) fn reserve(
        &mut self,
        count: usize,
    ) -> Result<(), std::collections::TryReserveError> {
        let needed = self.length + count;
        let rows = needed.max(self.length + self.length / 2).min(self.positions_max);
        for layer in &mut self.layers {
            let LayerCache { key_width, value_width, keys, values } = layer;
            for (buffer, width) in [(keys, *key_width), (values, *value_width)] {
                if buffer.capacity() < needed * width {
                    buffer.try_reserve_exact(rows * width - buffer.len())?;
                }
            }
        }
        Ok(())
    }

    /// Appends rows, `[n, key_width]` and `[n, value_width]`, to one layer; they count once `advance` says so.
    pub(super) fn append(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let layer = &mut self.layers[layer];
        layer.keys.extend_from_slice(keys);
        layer.values.extend_from_slice(values);
    }

    /// Counts `count` positions whose rows every layer has.
    pub(super) fn advance(&mut self, count: usize) {
        self.length += count;
    }

    /// The rows of one layer, keys and values: `[positions, key_width]` and
    /// `[positions, value_width]`.
    pub(super) fn rows(&self, layer: usize) -> (&[f32], &[f32]) {
        (&self.layers[layer].keys, &self.layers[layer].values)
    }
}
