//! What the end of the model makes of any row of the residual stream: the logits of a row as if it
//! were the last layer's (the logit lens), and what a part of a row adds to one token's logit.
//!
//! The final norm divides by the size of the whole row. Taken at a given row, that factor is a number,
//! and a logit before its cap is linear in the row: parts of the row have parts of the logit.
//!
//! Sources: logit lens, nostalgebraist 2020; direct logit attribution, Elhage et al. 2021 ("A
//! Mathematical Framework for Transformer Circuits").

use super::super::norm::{Norm, NormFactor};
use super::super::{DecodeError, Orientation};
use super::{Decoder, LOGITS_ROWS};
use crate::cpu::Cancel;

/// How the end of the model reads one token out of a row.
///
/// For a row `x` of the stream, `part(x, factor(x)) + constant` is the token's logit before its cap.
#[derive(Debug, Clone)]
pub struct TokenReadout {
    token: u32,
    direction: Vec<f64>,
    constant: f64,
    norm: Option<NormFactor>,
}

impl TokenReadout {
    /// The token.
    pub fn token(&self) -> u32 {
        self.token
    }

    /// What the final norm multiplies a row with, beside its weight: 1 in a model without one.
    ///
    /// # Shapes
    /// `residual`: `[hidden]`, the stream as it leaves the last layer.
    pub fn factor(&self, residual: &[f32]) -> f64 {
        self.norm.map_or(1.0, |norm| norm.of(residual))
    }

    /// What a part of the stream adds to the token's logit before its cap, the final norm's factor
    /// taken as given. Sums in `f64`.
    ///
    /// # Shapes
    /// `part`: `[hidden]`; panics if it is not.
    pub fn part(&self, part: &[f32], factor: f64) -> f64 {
        assert_eq!(part.len(), self.direction.len(), "rows of different length");
        let products = part.iter().zip(&self.direction).map(|(&x, weight)| f64::from(x) * weight);
        products.sum::<f64>() * factor
    }

    /// What the token's logit has whatever the stream is: the biases of final norm and unembedding.
    pub fn constant(&self) -> f64 {
        self.constant
    }
}

impl Decoder<'_> {
    /// Logits of any rows of the stream, as the model computes them after its last layer: final norm,
    /// unembedding, scale, cap. `each` gets the row's index and its logits, in order.
    ///
    /// [`logits`](Decoder::logits) and what else a run left are gone afterwards.
    ///
    /// # Shapes
    /// `rows`: `[n, hidden]`.
    /// # Errors
    /// `Cancelled`.
    pub fn read_out(
        &mut self,
        rows: &[f32],
        cancel: &Cancel,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), DecodeError> {
        let (hidden, vocabulary) =
            (self.architecture.hidden_size, self.architecture.vocabulary_size);
        let mut index = 0;
        for rows in rows.chunks(LOGITS_ROWS * hidden) {
            self.outputs.clear();
            cancel.check()?;
            self.finish_rows(rows, cancel)?;
            let logits = self.outputs.logits.chunks_exact(vocabulary);
            for logits in logits.take(self.outputs.rows) {
                each(index, logits);
                index += 1;
            }
        }
        self.outputs.clear();
        Ok(())
    }

    /// How a token is read out of a row.
    ///
    /// # Errors
    /// `TokenOutOfRange`.
    pub fn token_readout(&self, token: u32) -> Result<TokenReadout, DecodeError> {
        let vocabulary = self.architecture.vocabulary_size;
        if token as usize >= vocabulary {
            return Err(DecodeError::TokenOutOfRange { token, vocabulary });
        }
        let mut row = vec![0.0; self.architecture.hidden_size];
        let matrix = &self.unembedding.matrix;
        match matrix.orientation {
            Orientation::OutIn => matrix.view.row_f32(token as usize, &mut row),
            Orientation::InOut => {
                for (input, weight) in row.iter_mut().enumerate() {
                    *weight = matrix.view.element(input, token as usize);
                }
            }
        }
        let scale = f64::from(self.architecture.logits_scale);
        let mut direction: Vec<f64> =
            row.into_iter().map(|weight| f64::from(weight) * scale).collect();
        let norm = self.final_norm.as_ref();
        let mut constant = norm.map_or(0.0, |norm| norm.unfold(&mut direction));
        if let Some(bias) = &self.unembedding.bias {
            constant += f64::from(bias[token as usize]) * scale;
        }
        Ok(TokenReadout { token, direction, constant, norm: norm.map(Norm::factor) })
    }

    /// The factor on all that the stream holds when it leaves each layer; 1 in nearly all models.
    pub fn layer_scalars(&self) -> impl Iterator<Item = f32> {
        self.layers.iter().map(|layer| layer.scalar())
    }
}
