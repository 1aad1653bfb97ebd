//! From tokens to what enters the layers: the residual stream, and inputs of their own.

use super::block::Block;
use super::lookup::Lookup;
use super::norm::Norm;
use super::projection::Projection;
use super::{Architecture, DecodeError, Matrix, PerLayerEmbedding, Role, WeightKey};
use crate::cpu::with_scratch;

/// The embeddings of a model.
pub(super) struct Embedding<'a> {
    architecture: &'a Architecture,
    tokens: Matrix<'a>,
    positions: Option<Matrix<'a>>,
    layers: Option<LayerInputs<'a>>,
}

/// Inputs of each layer, from the token and from the stream (Gemma 4).
struct LayerInputs<'a> {
    description: PerLayerEmbedding,
    tokens: Matrix<'a>,
    projection: Projection<'a>,
    norm: Option<Norm<'a>>,
}

impl<'a> Embedding<'a> {
    /// Looks up the tables.
    ///
    /// # Errors
    /// `MissingTensor` and `Shape`.
    pub(super) fn new(lookup: &Lookup<'a>) -> Result<Embedding<'a>, DecodeError> {
        let architecture = lookup.architecture;
        let key = WeightKey::model;
        let positions = match architecture.position_embeddings {
            Some(_) => Some(lookup.table(Role::PositionEmbedding)?),
            None => None,
        };
        let layers = match architecture.per_layer_embedding {
            None => None,
            Some(description) => Some(LayerInputs {
                description,
                tokens: lookup.table(Role::PerLayerEmbedding)?,
                projection: Projection {
                    matrix: lookup.matrix(key(Role::PerLayerModelProjection))?,
                    bias: None,
                },
                norm: lookup.stream_norm(key(Role::PerLayerProjectionNorm), None)?,
            }),
        };
        let tokens = lookup.table(Role::Embedding)?;
        Ok(Embedding { architecture, tokens, positions, layers })
    }

    /// The table of tokens, which a tied model scores its vocabulary with.
    pub(super) fn tokens(&self) -> Matrix<'a> {
        self.tokens
    }

    /// Writes the stream of a block's tokens, and the inputs of all layers where the model has
    /// such; returns the bytes read.
    ///
    /// # Shapes
    /// `stream`: `[n, hidden]`; `inputs`: `[n, layers * width]`, or empty. Both are resized.
    pub(super) fn enter(
        &self,
        block: Block<'_>,
        tokens: &[u32],
        stream: &mut Vec<f32>,
        inputs: &mut Vec<f32>,
    ) -> Result<u64, DecodeError> {
        let hidden = self.architecture.hidden_size;
        stream.resize(tokens.len() * hidden, 0.0);
        let mut bytes = rows(&self.tokens, tokens, stream);
        scale(self.architecture.embed_scale, stream);
        if let Some(positions) = &self.positions {
            with_scratch(hidden, |learned| {
                for part in block.parts {
                    let rows = part.of_mut(stream, hidden).chunks_exact_mut(hidden);
                    for (index, row) in rows.enumerate() {
                        positions.view.row_f32(part.first + index, learned);
                        row.iter_mut().zip(&*learned).for_each(|(number, more)| *number += more);
                    }
                }
            });
            bytes += (tokens.len() * positions.view.row_bytes()) as u64;
        }
        if let Some(layers) = &self.layers {
            bytes += layers.enter(block, tokens, stream, inputs)?;
        }
        Ok(bytes)
    }
}

impl LayerInputs<'_> {
    /// # Source
    /// `project_per_layer_inputs` of Gemma 4 in transformers, for the factors.
    fn enter(
        &self,
        block: Block<'_>,
        tokens: &[u32],
        stream: &[f32],
        inputs: &mut Vec<f32>,
    ) -> Result<u64, DecodeError> {
        let width = self.description.width;
        let hidden = self.projection.matrix.inputs();
        let total = self.projection.matrix.outputs();
        inputs.resize(tokens.len() * total, 0.0);
        let mut bytes = block.project(&self.projection, stream, inputs)?;
        scale((hidden as f32).powf(-0.5), inputs);
        if let Some(norm) = &self.norm {
            norm.rows_in_place(block.pool, inputs);
        }
        let factor = (width as f32).sqrt();
        with_scratch(total, |of_token| {
            for (inputs, token) in inputs.chunks_exact_mut(total).zip(tokens.chunks(1)) {
                bytes += rows(&self.tokens, token, of_token);
                for (input, of_token) in inputs.iter_mut().zip(&*of_token) {
                    *input = (*input + of_token * factor) * std::f32::consts::FRAC_1_SQRT_2;
                }
            }
        });
        Ok(bytes)
    }
}

/// Reads the rows of tokens; returns their bytes.
fn rows(table: &Matrix<'_>, tokens: &[u32], out: &mut [f32]) -> u64 {
    for (row, &token) in out.chunks_exact_mut(table.view.columns()).zip(tokens) {
        table.view.row_f32(token as usize, row);
    }
    (tokens.len() * table.view.row_bytes()) as u64
}

fn scale(factor: f32, numbers: &mut [f32]) {
    if factor != 1.0 {
        numbers.iter_mut().for_each(|number| *number *= factor);
    }
}
