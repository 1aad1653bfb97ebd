//! What EXTRACT learns about features: output tokens, input tokens, score statistics.

use larql_compute::browse::{score_statistics, top_tokens};
use larql_compute::cpu::{Cancel, Cancelled};
use larql_compute::model::{Naming, Role, WeightKey};
use larql_compute::quant::MatrixView;
use larql_storage::vindex::down_meta::{self, FeatureRecord};
use larql_storage::vindex::gate_meta::{self, InputToken};
use larql_storage::vindex::layout::{DOWN_META, GATE_META, STATISTICS};
use larql_storage::vindex::{LayerScores, Statistics, VindexWriter};

use super::weights::{TRANSPOSE_FEATURES, transpose_columns};
use super::{Job, Progress};
use crate::failure::{Failure, code};

/// Output tokens kept for each feature.
pub const TOKENS_PER_FEATURE: usize = 10;
/// Vocabulary rows whose gate scores make a layer's statistics.
pub const STATISTICS_SAMPLES: usize = 1000;

impl<'a> Job<'a> {
    /// Output tokens, input tokens and score statistics, layer by layer.
    pub(super) fn write_features(
        &self,
        writer: &mut VindexWriter,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let embedding = self.matrix(Role::Embedding, None)?;
        let unembedding = match self.architecture.tied_embeddings {
            true => embedding,
            false => self.matrix(Role::Unembedding, None)?,
        };
        let layers = self.architecture.layers() as u32;
        let count = u64::from(*self.layers.end() - *self.layers.start() + 1);
        let (outputs, inputs) = (self.wants(Role::Down), self.wants(Role::Gate));
        if outputs && !writer.has_part(DOWN_META, "header") {
            let header = down_meta::encode_header(layers, TOKENS_PER_FEATURE as u32);
            writer.append_part(DOWN_META, "header", &header)?;
        }
        if inputs && !writer.has_part(GATE_META, "header") {
            writer.append_part(GATE_META, "header", &gate_meta::encode_header(layers))?;
        }
        let queries = self.statistics_queries(&embedding);
        let mut gate_scores = Vec::new();
        for layer in 0..layers {
            let part = format!("layer {layer}");
            let within = self.layers.contains(&layer);
            if within {
                progress("features", u64::from(layer - self.layers.start()), count, "layers")?;
            }
            if outputs && !writer.has_part(DOWN_META, &part) {
                let records =
                    if within { self.output_tokens(layer, &unembedding)? } else { Vec::new() };
                let mut bytes = Vec::new();
                down_meta::encode_layer(&mut bytes, TOKENS_PER_FEATURE as u32, &records);
                writer.append_part(DOWN_META, &part, &bytes)?;
            }
            if inputs && !writer.has_part(GATE_META, &part) {
                let tokens =
                    if within { self.input_tokens(layer, &embedding)? } else { Vec::new() };
                let mut bytes = Vec::new();
                gate_meta::encode_layer(&mut bytes, &tokens);
                writer.append_part(GATE_META, &part, &bytes)?;
            }
            gate_scores.push(if within && inputs {
                Some(self.layer_scores(layer, &queries)?)
            } else {
                None
            });
            if within {
                writer.commit()?;
            }
        }
        progress("features", count, count, "layers")?;
        if inputs {
            writer.side_file(STATISTICS, &Statistics { gate_scores }.encode())?;
        }
        Ok(())
    }

    /// The source's matrix of a role, whether or not the level stores it.
    fn matrix(&self, role: Role, layer: Option<u32>) -> Result<MatrixView<'a>, Failure> {
        let key = WeightKey { role, layer, expert: None };
        let specs = self.architecture.tensors(Naming::Hub);
        let spec = specs.iter().find(|spec| spec.key == key);
        let missing = || {
            let message = format!("{} has no {role} tensor", self.options.source.display());
            Failure::new(code::UNSUPPORTED_FORMAT, message)
        };
        let (tensor, dtype) = self.find(spec.ok_or_else(missing)?)?.ok_or_else(missing)?;
        let [rows, columns] = tensor.shape[..] else { return Err(missing()) };
        MatrixView::new(dtype, rows, columns, tensor.bytes).map_err(|error| {
            Failure::new(code::DAMAGED, format!("the tensor {}: {error}", tensor.name))
        })
    }

    fn output_tokens(
        &self,
        layer: u32,
        unembedding: &MatrixView<'_>,
    ) -> Result<Vec<FeatureRecord>, Failure> {
        let down = self.matrix(Role::Down, Some(layer))?;
        let transposed = transpose(&down, self.cancel)?;
        let features = MatrixView::from_f32(down.columns(), down.rows(), &transposed)
            .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))?;
        let tokens =
            top_tokens(self.pool, unembedding, &features, TOKENS_PER_FEATURE, self.cancel)?;
        Ok(tokens.into_iter().map(|tokens| FeatureRecord { tokens }).collect())
    }

    fn input_tokens(
        &self,
        layer: u32,
        embedding: &MatrixView<'_>,
    ) -> Result<Vec<Option<InputToken>>, Failure> {
        let gates = self.matrix(Role::Gate, Some(layer))?;
        let scale = self.architecture.embed_scale;
        let tokens = top_tokens(self.pool, embedding, &gates, 1, self.cancel)?;
        let strongest = |tokens: Vec<(u32, f32)>| {
            tokens.first().map(|&(token_id, score)| InputToken { token_id, score: score * scale })
        };
        Ok(tokens.into_iter().map(strongest).collect())
    }

    /// Scaled embeddings of evenly spaced tokens, `[samples, hidden]`.
    fn statistics_queries(&self, embedding: &MatrixView<'_>) -> Vec<f32> {
        let (vocabulary, hidden) = (embedding.rows(), embedding.columns());
        let samples = STATISTICS_SAMPLES.min(vocabulary);
        let mut queries = vec![0.0; samples * hidden];
        for (index, query) in queries.chunks_exact_mut(hidden).enumerate() {
            embedding
                .row_f32((index as u128 * vocabulary as u128 / samples as u128) as usize, query);
            query.iter_mut().for_each(|value| *value *= self.architecture.embed_scale);
        }
        queries
    }

    fn layer_scores(&self, layer: u32, queries: &[f32]) -> Result<LayerScores, Failure> {
        let gates = self.matrix(Role::Gate, Some(layer))?;
        let (mean, deviation) = score_statistics(self.pool, &gates, queries, self.cancel)?;
        let samples = (queries.len() / gates.columns().max(1) * gates.rows()) as u64;
        if !mean.is_finite() || !deviation.is_finite() {
            let source = self.options.source.display();
            let message = format!("{source}: gate scores of layer {layer} are not finite");
            return Err(Failure::new(code::DAMAGED, message)
                .hint("its gates or embeddings are damaged: download the weights again"));
        }
        Ok(LayerScores { mean, deviation, samples })
    }
}

/// All columns of a matrix as rows.
fn transpose(view: &MatrixView<'_>, cancel: &Cancel) -> Result<Vec<f32>, Cancelled> {
    let mut transposed = vec![0.0; view.rows() * view.columns()];
    let width = TRANSPOSE_FEATURES * view.rows();
    for (index, block) in transposed.chunks_mut(width.max(1)).enumerate() {
        cancel.check()?;
        let first = index * TRANSPOSE_FEATURES;
        transpose_columns(view, first..first + block.len() / view.rows(), block);
    }
    Ok(transposed)
}
