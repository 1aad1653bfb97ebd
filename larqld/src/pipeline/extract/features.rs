//! What EXTRACT learns about features: output tokens, input tokens, score statistics.
//!
//! The features of a layer are numbered across its networks: the dense one, then the experts. Their
//! vectors are taken a block at a time, which may span networks, from the source's own precision.

use std::ops::Range;
use std::time::{Duration, Instant};

use larql_compute::browse::{TokenList, Vocabulary};
use larql_compute::model::{Network, Orientation, Role, WeightKey, Weights as _};
use larql_compute::quant::MatrixView;
use larql_storage::vindex::down_meta::{self, FeatureRecord};
use larql_storage::vindex::gate_meta::{self, InputToken};
use larql_storage::vindex::layout::{DOWN_META, GATE_META, STATISTICS};
use larql_storage::vindex::{LayerScores, Statistics, VindexWriter};

use super::{Job, Progress};
use crate::failure::{Failure, code};
use crate::mounts::{NO_SCORES, Samples};
use crate::pipeline::Rows;

/// Output tokens kept for each feature.
pub const TOKENS_PER_FEATURE: usize = 10;
/// Bytes that the features take that are worked on at once (their vectors in f32 and packed, and
/// their candidates), unless they are less than [`FEATURE_BLOCK_MIN`] features.
pub const FEATURE_BLOCK_BYTES: usize = 40 << 20;
/// Bytes of a feature beside its vector: the candidates of `compute::browse`, and what they become.
const CANDIDATE_BYTES: usize = 12 * (8 * TOKENS_PER_FEATURE + 64) + 256;
/// Every block packs the vocabulary anew, which so many features make cheap.
pub const FEATURE_BLOCK_MIN: usize = 4096;

/// Where the time of the stage went.
#[derive(Default)]
struct Spent {
    output_tokens: Duration,
    input_tokens: Duration,
    statistics: Duration,
}

impl Spent {
    fn log(&self) {
        for (stage, spent) in [
            ("features, output tokens", self.output_tokens),
            ("features, input tokens", self.input_tokens),
            ("features, statistics", self.statistics),
        ] {
            let seconds = spent.as_secs_f64();
            tracing::info!(stage, seconds, "a part of a stage of EXTRACT is done");
        }
    }
}

/// Adds the time that `work` takes.
fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    *spent += began.elapsed();
    result
}

impl<'a> Job<'a> {
    /// Output tokens, input tokens and score statistics, layer by layer.
    pub(super) fn write_features(
        &self,
        writer: &mut VindexWriter,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let architecture = self.model.architecture();
        let mut spent = Spent::default();
        let embedding = self.table(Role::Embedding)?;
        let read = Vocabulary::new(self.pool, embedding, self.cancel)?;
        let of_outputs = match architecture.tied_embeddings {
            true => None,
            false => {
                let unembedding = self.table(Role::Unembedding)?;
                Some(Vocabulary::new(self.pool, unembedding, self.cancel)?)
            }
        };
        let written = of_outputs.as_ref().unwrap_or(&read);
        let layers = architecture.layers() as u32;
        let count = u64::from(*self.layers.end() - *self.layers.start() + 1);
        let wants = |role| self.wants(WeightKey::model(role));
        let (outputs, inputs) = (wants(Role::Down), wants(Role::Gate));
        if outputs && !writer.has_part(DOWN_META, "header") {
            let header = down_meta::encode_header(layers, TOKENS_PER_FEATURE as u32);
            writer.append_part(DOWN_META, "header", &header)?;
        }
        if inputs && !writer.has_part(GATE_META, "header") {
            writer.append_part(GATE_META, "header", &gate_meta::encode_header(layers))?;
        }
        let samples = Samples::of(&embedding, architecture.embed_scale);
        let mut gate_scores = Vec::new();
        for layer in 0..layers {
            let part = format!("layer {layer}");
            let within = self.layers.contains(&layer);
            if within {
                progress("features", u64::from(layer - self.layers.start()), count, "layers")?;
            }
            if outputs && !writer.has_part(DOWN_META, &part) {
                let records = match within {
                    true => timed(&mut spent.output_tokens, || self.output_tokens(layer, written))?,
                    false => Vec::new(),
                };
                let mut bytes = Vec::new();
                down_meta::encode_layer(&mut bytes, TOKENS_PER_FEATURE as u32, &records);
                writer.append_part(DOWN_META, &part, &bytes)?;
            }
            if inputs && !writer.has_part(GATE_META, &part) {
                let tokens = match within {
                    true => timed(&mut spent.input_tokens, || self.input_tokens(layer, &read))?,
                    false => Vec::new(),
                };
                let mut bytes = Vec::new();
                gate_meta::encode_layer(&mut bytes, &tokens);
                writer.append_part(GATE_META, &part, &bytes)?;
            }
            gate_scores.push(if within && inputs {
                Some(timed(&mut spent.statistics, || self.layer_scores(layer, &samples))?)
            } else {
                None
            });
            if within {
                writer.commit()?;
            }
        }
        progress("features", count, count, "layers")?;
        spent.log();
        if inputs {
            writer.side_file(STATISTICS, &Statistics { gate_scores }.encode())?;
        }
        Ok(())
    }

    /// The source's table of a vector for each token, whether or not the level stores it.
    fn table(&self, role: Role) -> Result<MatrixView<'a>, Failure> {
        let table = self.model.matrix(WeightKey::model(role)).filter(|table| {
            table.orientation == Orientation::OutIn
                && table.view.columns() == self.model.architecture().hidden_size
        });
        table.map(|table| table.view).ok_or_else(|| {
            let message = format!("{} has no {role} table", self.options.source.display());
            Failure::new(code::UNSUPPORTED_FORMAT, message)
        })
    }

    /// The vectors of a layer's features: the rows of a role's matrices in all its networks.
    fn vectors(&self, layer: u32, role: Role) -> Result<LayerVectors<'a>, Failure> {
        let architecture = self.model.architecture();
        let orientation = if role == Role::Down { Orientation::InOut } else { Orientation::OutIn };
        let mut networks = Vec::new();
        for network in architecture.networks(layer as usize) {
            let key = WeightKey { role, layer: Some(layer), expert: network.expert };
            let weight = self.model.weight(key).ok_or_else(|| {
                let message = format!("{} has no {key}", self.options.source.display());
                Failure::new(code::UNSUPPORTED_FORMAT, message)
            })?;
            networks.push((network, Rows::of(self.model, weight, orientation)?));
        }
        let features = architecture.features(layer as usize);
        Ok(LayerVectors { networks, features, hidden: architecture.hidden_size })
    }

    /// Runs `work` on the vectors of all features of a layer, a block at a time and in order.
    fn for_blocks(
        &self,
        vectors: &LayerVectors<'_>,
        mut work: impl FnMut(&MatrixView<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let hidden = vectors.hidden;
        let feature_bytes = hidden * (size_of::<f32>() + size_of::<u8>()) + CANDIDATE_BYTES;
        let block = (FEATURE_BLOCK_BYTES / feature_bytes).max(FEATURE_BLOCK_MIN);
        let mut numbers = Vec::new();
        for first in (0..vectors.features).step_by(block) {
            self.cancel.check()?;
            let range = first..vectors.features.min(first + block);
            numbers.resize(range.len() * hidden, 0.0);
            let tile = vectors.tile().min(block);
            self.pool.run_chunks(&mut numbers, tile * hidden, &|at, out| {
                if self.cancel.check().is_ok() {
                    let first = first + at / hidden;
                    vectors.read(first..first + out.len() / hidden, out);
                }
            });
            self.cancel.check()?;
            let view = MatrixView::from_f32(range.len(), hidden, &numbers)
                .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
            work(&view)?;
        }
        Ok(())
    }

    fn output_tokens(
        &self,
        layer: u32,
        vocabulary: &Vocabulary<'_>,
    ) -> Result<Vec<FeatureRecord>, Failure> {
        let mut records = Vec::new();
        self.for_blocks(&self.vectors(layer, Role::Down)?, |vectors| {
            let k = TOKENS_PER_FEATURE;
            let tokens = vocabulary.top_tokens(self.pool, vectors, k, self.cancel)?;
            records.extend(tokens.into_iter().map(|tokens| FeatureRecord { tokens }));
            Ok(())
        })?;
        Ok(records)
    }

    fn input_tokens(
        &self,
        layer: u32,
        vocabulary: &Vocabulary<'_>,
    ) -> Result<Vec<Option<InputToken>>, Failure> {
        let scale = self.model.architecture().embed_scale;
        let strongest = |tokens: TokenList| {
            tokens.first().map(|&(token_id, score)| InputToken { token_id, score: score * scale })
        };
        let mut found = Vec::new();
        self.for_blocks(&self.vectors(layer, Role::Gate)?, |vectors| {
            let tokens = vocabulary.top_tokens(self.pool, vectors, 1, self.cancel)?;
            found.extend(tokens.into_iter().map(strongest));
            Ok(())
        })?;
        Ok(found)
    }

    fn layer_scores(&self, layer: u32, samples: &Samples) -> Result<LayerScores, Failure> {
        let mut all = NO_SCORES;
        self.for_blocks(&self.vectors(layer, Role::Gate)?, |gates| {
            Ok(samples.add(&mut all, gates, self.pool, self.cancel)?)
        })?;
        if !all.mean.is_finite() || !all.deviation.is_finite() {
            let source = self.options.source.display();
            let message = format!("{source}: gate scores of layer {layer} are not finite");
            return Err(Failure::new(code::DAMAGED, message)
                .hint("its gates or embeddings are damaged: download the weights again"));
        }
        Ok(all)
    }
}

/// One vector for each feature of a layer, network after network.
struct LayerVectors<'a> {
    networks: Vec<(Network, Rows<'a>)>,
    features: usize,
    hidden: usize,
}

impl LayerVectors<'_> {
    /// How many are best read at once.
    fn tile(&self) -> usize {
        self.networks.iter().map(|(_, rows)| rows.tile()).max().unwrap_or(1)
    }

    /// Reads the vectors of some features, which may be of several networks, into `[range, hidden]`.
    fn read(&self, range: Range<usize>, out: &mut [f32]) {
        for (network, rows) in &self.networks {
            let first = range.start.max(network.first);
            let end = range.end.min(network.first + network.features);
            if first < end {
                let part = (first - range.start) * self.hidden..(end - range.start) * self.hidden;
                rows.read(first - network.first..end - network.first, &mut out[part]);
            }
        }
    }
}
