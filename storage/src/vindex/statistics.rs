//! `statistics.json`: what extraction learned about score distributions.
//!
//! DESCRIBE's threshold is relative to them, because raw dot products do not travel between models.

use serde::{Deserialize, Serialize};

/// Statistics of a whole vindex.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Gate scores, one entry a layer; `None` for a layer that was not extracted.
    pub gate_scores: Vec<Option<LayerScores>>,
}

/// Distribution of one layer's gate scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LayerScores {
    /// Mean score.
    pub mean: f64,
    /// Standard deviation of the scores.
    pub deviation: f64,
    /// Number of scores that both were computed from.
    pub samples: u64,
}

impl Statistics {
    /// Parses a `statistics.json` of a model with `layers` layers.
    ///
    /// # Errors
    /// A sentence fragment saying what is wrong with the file.
    pub fn parse(text: &[u8], layers: u32) -> Result<Self, String> {
        let statistics: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let entries = statistics.gate_scores.len();
        if entries != layers as usize {
            return Err(format!("it has {entries} layers, the manifest {layers}"));
        }
        for (layer, scores) in statistics.gate_scores.iter().enumerate() {
            let Some(LayerScores { mean, deviation, .. }) = scores else { continue };
            if !mean.is_finite() || !deviation.is_finite() || *deviation < 0.0 {
                return Err(format!("layer {layer} has mean {mean} and deviation {deviation}"));
            }
        }
        Ok(statistics)
    }

    /// The text of the file.
    ///
    /// # Panics
    /// When a number is not finite: JSON cannot hold it, and a caller that computed one is wrong.
    pub fn encode(&self) -> Vec<u8> {
        let numbers = self.gate_scores.iter().flatten().flat_map(|s| [s.mean, s.deviation]);
        assert!(numbers.into_iter().all(f64::is_finite), "a gate score statistic is not finite");
        let mut text = serde_json::to_vec_pretty(self).expect("statistics are plain data");
        text.push(b'\n');
        text
    }
}
