//! The features behind a prediction: those with a share in it, silenced one by one.
//!
//! Candidates are the features with the largest share in the target's logit, as the later layers and
//! norms pass it on unchanged; each is then silenced and the loss measured, many in one pass.

use larql_compute::kernels::top_k::top_k_by_magnitude;
use larql_compute::learn::log_probability;
use larql_compute::model::{
    AblateFeatures, LayerFeatures, Role, WeightKey, Weights as _, elementwise_scale, product,
    product_transposed,
};

use super::prober::{Captured, Prober};
use crate::failure::{Failure, code};

/// Features that are silenced one by one to find the one that matters most.
const CANDIDATES: usize = 6;
/// Sequences that run under one hook.
const SILENCED_TOGETHER: usize = 96;
/// Tokens of a pass in which whole prompts are read under a hook.
const TOKENS_TOGETHER: usize = 192;

/// A feature that a prediction leans on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureEffect {
    /// Its layer.
    pub layer: u32,
    /// Its index.
    pub feature: u32,
    /// By how much the target's log-probability falls without it.
    pub effect: f32,
    /// Its gate score.
    pub gate_score: f32,
}

impl Prober<'_> {
    /// The features that the prediction of each target after its prompt leans on, the one whose
    /// silence at the last position costs most first.
    ///
    /// # Errors
    /// As [`Prober::complete`]; `MISSING_COMPONENT` without down vectors.
    pub fn features_behind(
        &mut self,
        predictions: &[(&[u32], u32)],
    ) -> Result<Vec<Vec<FeatureEffect>>, Failure> {
        let mut found = Vec::with_capacity(predictions.len());
        for batch in predictions.chunks(self.captured_batch()) {
            let prompts: Vec<&[u32]> = batch.iter().map(|(prompt, _)| *prompt).collect();
            let captured = self.capture(&prompts)?;
            let before: Vec<f64> = batch
                .iter()
                .enumerate()
                .map(|(place, &(_, target))| {
                    log_probability(self.decoder.segment_logits(place), target as usize)
                })
                .collect();
            let mut silenced: Vec<(usize, (u32, u32))> = Vec::new();
            for (index, (one, &(_, target))) in captured.iter().zip(batch).enumerate() {
                let candidates = self.largest_shares(one, target)?;
                silenced.extend(candidates.into_iter().map(|slot| (index, slot)));
            }
            let mut of_batch: Vec<Vec<FeatureEffect>> = batch.iter().map(|_| Vec::new()).collect();
            for part in silenced.chunks(SILENCED_TOGETHER) {
                for (&(index, (layer, feature)), after) in
                    part.iter().zip(self.without(part, batch, &captured)?)
                {
                    let input = &captured[index].layers[layer as usize].input;
                    of_batch[index].push(FeatureEffect {
                        layer,
                        feature,
                        effect: (before[index] - after) as f32,
                        gate_score: self.gate_score(layer, feature, input)?,
                    });
                }
            }
            for effects in &mut of_batch {
                effects.sort_by(|a, b| b.effect.total_cmp(&a.effect));
            }
            found.append(&mut of_batch);
        }
        Ok(found)
    }

    /// Each target's log-probability with one feature silenced at the last position; `silenced` has
    /// the prediction's place and the feature's layer and index.
    fn without(
        &mut self,
        silenced: &[(usize, (u32, u32))],
        predictions: &[(&[u32], u32)],
        captured: &[Captured],
    ) -> Result<Vec<f64>, Failure> {
        let mut caches = Vec::with_capacity(silenced.len());
        let mut lasts = Vec::with_capacity(silenced.len());
        let mut sets = Vec::with_capacity(silenced.len());
        for &(index, (layer, feature)) in silenced {
            let (before, last) = predictions[index].0.split_at(captured[index].cache.len() - 1);
            let mut cache = captured[index].cache.fork();
            cache.truncate(before.len());
            caches.push(cache);
            lasts.push(last);
            sets.push(vec![(layer as usize, feature as usize)]);
        }
        self.hooked(&lasts, caches, &mut AblateFeatures::new(sets, 1))?;
        let after = silenced.iter().enumerate().map(|(place, &(index, _))| {
            log_probability(self.decoder.segment_logits(place), predictions[index].1 as usize)
        });
        Ok(after.collect())
    }

    /// By how much the log-probability of `target` after `prompt` falls without each of these sets of
    /// features, silenced at every position.
    ///
    /// # Errors
    /// As [`Prober::complete`].
    pub fn losses(
        &mut self,
        prompt: &[u32],
        target: u32,
        sets: &[Vec<(u32, u32)>],
    ) -> Result<(f64, Vec<f64>), Failure> {
        let mut all = vec![Vec::new()];
        all.extend(sets.iter().map(|set| {
            set.iter().map(|&(layer, feature)| (layer as usize, feature as usize)).collect()
        }));
        let mut found = Vec::with_capacity(all.len());
        for sets in all.chunks((TOKENS_TOGETHER / prompt.len().max(1)).max(1)) {
            let prompts = vec![prompt; sets.len()];
            let caches = self.empty_caches(sets.len());
            let mut hook = AblateFeatures::new(sets.to_vec(), prompt.len());
            self.hooked(&prompts, caches, &mut hook)?;
            found.extend(
                (0..sets.len()).map(|place| {
                    log_probability(self.decoder.segment_logits(place), target as usize)
                }),
            );
        }
        let before = found.remove(0);
        Ok((before, found.into_iter().map(|after| before - after).collect()))
    }

    /// The features with the largest direct shares in a logit: layer and feature.
    fn largest_shares(&self, captured: &Captured, target: u32) -> Result<Vec<(u32, u32)>, Failure> {
        let mut direction = self.unembedding_row(target)?;
        direction.iter_mut().zip(&captured.scale).for_each(|(x, scale)| *x *= scale);
        let mut shares: Vec<(f32, u32, u32)> = Vec::new();
        for (layer, features) in (0..).zip(&captured.layers) {
            self.cancel.check()?;
            if features.activations.is_empty() {
                continue;
            }
            let effects = self.effects(layer, features, &direction)?;
            let best = top_k_by_magnitude(
                &effects.iter().map(|effect| effect.max(0.0)).collect::<Vec<_>>(),
                CANDIDATES.min(effects.len()),
            );
            shares.extend(best.into_iter().map(|(feature, share)| (share, layer, feature as u32)));
        }
        shares.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let shares = shares.into_iter().filter(|share| share.0 > 0.0).take(CANDIDATES);
        Ok(shares.map(|(_, layer, feature)| (layer, feature)).collect())
    }

    /// What each feature of a layer adds along a direction of the final stream: its activation times
    /// its down vector, through the layer's output norm.
    ///
    /// # Errors
    /// When cancelled, or the layer's down vectors are not here.
    pub fn effects(
        &self,
        layer: u32,
        features: &LayerFeatures,
        direction: &[f32],
    ) -> Result<Vec<f32>, Failure> {
        let networks = || self.model.architecture().networks(layer as usize);
        let down = |expert| {
            let key = WeightKey { role: Role::Down, layer: Some(layer), expert };
            let missing = || Failure::new(code::MISSING_COMPONENT, format!("{key} is not here"));
            self.model.matrix(key).ok_or_else(missing)
        };
        let activations = &features.activations;
        let mut output = vec![0.0; direction.len()];
        for network in networks() {
            let part = &activations[network.first..network.first + network.features];
            if part.iter().all(|&activation| activation == 0.0) {
                continue;
            }
            let part = product(self.pool, &down(network.expert)?, part, self.cancel)?;
            output.iter_mut().zip(&part).for_each(|(sum, x)| *sum += x);
        }
        let mut direction = direction.to_vec();
        let scale = elementwise_scale(&output, &features.output);
        direction.iter_mut().zip(&scale).for_each(|(x, scale)| *x *= scale);
        let mut effects = vec![0.0; activations.len()];
        for network in networks() {
            let range = network.first..network.first + network.features;
            if activations[range.clone()].iter().all(|&activation| activation == 0.0) {
                continue;
            }
            let along =
                product_transposed(self.pool, &down(network.expert)?, &direction, self.cancel)?;
            for ((effect, along), activation) in
                effects[range.clone()].iter_mut().zip(along).zip(&activations[range])
            {
                *effect = along * activation;
            }
        }
        Ok(effects)
    }
}
