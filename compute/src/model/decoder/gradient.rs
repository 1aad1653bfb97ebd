//! Which way a layer's network would have to answer for a token to become likelier, along the
//! residual stream: what later layers would make of it is left out, and seen at the next pass.

use super::{DecodeError, Decoder};
use crate::cpu::Cancel;
use crate::kernels::matmul_transposed;
use crate::model::Orientation;
use crate::model::Precision;
use crate::model::projection::project_together;

/// The logarithm of a token's probability, and its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenGradient {
    /// Natural logarithm.
    pub log_probability: f64,
    /// By the stream after the last layer: `[hidden]`.
    pub by_stream: Vec<f32>,
}

impl Decoder<'_> {
    /// How the logarithm of a token's probability grows with the stream after the last layer, row by
    /// row.
    ///
    /// # Shapes
    /// `streams`: `[rows, hidden]`; `logits`: `[rows, vocabulary]`, as the model gives them; `tokens`:
    /// `[rows]`.
    /// # Errors
    /// `Cancelled`.
    pub fn token_gradients(
        &self,
        streams: &[f32],
        logits: &[f32],
        tokens: &[u32],
        cancel: &Cancel,
    ) -> Result<Vec<TokenGradient>, DecodeError> {
        let (hidden, vocabulary) =
            (self.architecture.hidden_size, self.architecture.vocabulary_size);
        assert_eq!(streams.len(), tokens.len() * hidden, "a stream for each token");
        assert_eq!(logits.len(), tokens.len() * vocabulary, "logits for each token");
        let mut by_logits = vec![0.0; logits.len()];
        let mut log_probabilities = Vec::with_capacity(tokens.len());
        let rows = logits.chunks_exact(vocabulary).zip(by_logits.chunks_exact_mut(vocabulary));
        for ((logits, by), &token) in rows.zip(tokens) {
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
            let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
            log_probabilities.push(f64::from(own - most) - sum.ln());
            for (by, &logit) in by.iter_mut().zip(logits) {
                *by = -((f64::from(logit - most).exp() / sum) as f32);
            }
            if let Some(by) = by.get_mut(token as usize) {
                *by += 1.0;
            }
            if let Some(cap) = self.architecture.final_softcap {
                let pairs = by.iter_mut().zip(logits);
                pairs.for_each(|(by, logit)| *by *= 1.0 - (logit / cap).powi(2));
            }
            by.iter_mut().for_each(|by| *by *= self.architecture.logits_scale);
        }
        let mut by_normed = vec![0.0; streams.len()];
        let table = self.unembedding.matrix;
        match table.orientation {
            Orientation::OutIn => {
                matmul_transposed(self.pool, &table.view, &by_logits, &mut by_normed, cancel)?;
            }
            Orientation::InOut => {
                let turned = crate::model::Matrix { orientation: Orientation::OutIn, ..table };
                let how = (Precision::Exact, &mut *self.scratch.borrow_mut(), cancel);
                project_together(self.pool, how, [(turned, None, &mut by_normed[..])], &by_logits)?;
            }
        }
        let rows = streams.chunks_exact(hidden).zip(by_normed.chunks_exact(hidden));
        let gradients = rows.zip(log_probabilities).map(|((stream, by), log_probability)| {
            let by_stream = match &self.final_norm {
                Some(norm) => norm.gradient(stream, by),
                None => by.to_vec(),
            };
            TokenGradient { log_probability, by_stream }
        });
        Ok(gradients.collect())
    }

    /// What a gradient by the stream after the last layer is by the output of a layer's network,
    /// before its norm, along the stream.
    ///
    /// # Shapes
    /// `output`: what the network returned, `[hidden]`, as all.
    pub fn network_gradient(&self, layer: usize, output: &[f32], by_stream: &[f32]) -> Vec<f32> {
        let scalars = self.layers[layer..].iter().map(|layer| layer.scalar());
        let factor = scalars.product::<f32>() * self.architecture.residual_scale;
        let by: Vec<f32> = by_stream.iter().map(|by| by * factor).collect();
        match &self.layers[layer].post_ffn_norm {
            Some(norm) => norm.gradient(output, &by),
            None => by,
        }
    }
}
