//! A model that is asked: batched completions, captures of single positions, and the features behind
//! a prediction.
//!
//! Promises: answers do not depend on which prompts share a batch, nor on threads (the serving pass
//! is batch-invariant); a cancel reaches every pass; memory is bounded by [`KV_BYTES_MAX`] and one
//! batch of logits.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::kernels::top_k::top_k_by_magnitude;
use larql_compute::learn::log_probability;
use larql_compute::model::{
    AblateFeatures, CaptureFeatures, Compose, Decoder, DecoderOptions, DenseFfn, Hook,
    IsolateLayers, KvCache, KvPages, KvType, LayerFeatures, LogitsWanted, Matrix, Orientation,
    Precision, Role, Segment, WeightKey, Weights as _, elementwise_scale, product,
    product_transposed,
};

use super::answer::phrase_end;
use super::readings::Reading;
use crate::failure::{Failure, code};
use crate::inference::{check_logits, check_tokens};
use crate::mounts::Model;
use crate::text::Tokenizer;

/// Prompts that advance together at most.
const BATCH: usize = 64;
/// Memory that keys and values may take.
const KV_BYTES_MAX: usize = 512 << 20;
/// Tokens of a prompt at most: an entity's name is short, and a template a sentence.
pub const PROMPT_TOKENS_MAX: usize = 256;
/// Features that are ablated one by one to find the one that matters most.
const CANDIDATES: usize = 6;

/// How a prompt goes on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// The tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Natural logarithm of each one's probability.
    pub log_probabilities: Vec<f64>,
}

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

/// A model with room for the sequences that ask it.
pub struct Prober<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    pool: &'a Pool,
    cancel: &'a Cancel,
    decoder: Decoder<'a>,
    pages: KvPages,
    ends: Vec<u32>,
}

impl<'a> Prober<'a> {
    /// Prepares `model` to be asked.
    ///
    /// # Errors
    /// `MISSING_COMPONENT` where the model cannot run.
    pub fn new(model: &'a Model, pool: &'a Pool, cancel: &'a Cancel) -> Result<Self, Failure> {
        model.require_inference()?;
        let options = DecoderOptions { precision: Precision::Serving, ffn: &DenseFfn };
        let architecture = model.architecture();
        Ok(Self {
            model,
            tokenizer: model.tokenizer()?,
            pool,
            cancel,
            decoder: Decoder::new(architecture, model, pool, options)?,
            pages: KvPages::new(architecture, KvType::default(), KV_BYTES_MAX),
            ends: model.end_tokens()?,
        })
    }

    /// The model.
    pub fn model(&self) -> &'a Model {
        self.model
    }

    /// Bytes of weights read so far.
    pub fn bytes_touched(&self) -> u64 {
        self.decoder.bytes_touched()
    }

    /// The tokens of a prompt; `None` for a text that is too long or has none.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn tokens(&self, text: &str) -> Result<Option<Vec<u32>>, Failure> {
        let tokens = self.tokenizer.encode(text, true)?;
        // A tokenizer may end every text with a marker, after which nothing goes on.
        let end = match tokens.last() {
            Some(last) if tokens.len() > 1 && self.ends.contains(last) => tokens.len() - 1,
            _ => tokens.len(),
        };
        let tokens = &tokens[..end];
        let fits =
            (1..=PROMPT_TOKENS_MAX).contains(&end) && check_tokens(self.model, tokens, 1).is_ok();
        Ok(fits.then(|| tokens.to_vec()))
    }

    /// The token that a word begins with in the middle of a text.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn first_token(&self, word: &str) -> Result<Option<u32>, Failure> {
        let before = self.tokens("a")?.unwrap_or_default();
        let whole = self.tokens(&format!("a {word}"))?.unwrap_or_default();
        Ok(whole.strip_prefix(&before[..]).and_then(|rest| rest.first().copied()))
    }

    /// The text of tokens.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn text(&self, tokens: &[u32]) -> Result<String, Failure> {
        Ok(self.tokenizer.decode(tokens, true)?)
    }

    /// The text of tokens that continue others, with the space between the two if there is one.
    ///
    /// # Errors
    /// What the tokenizer refuses.
    pub fn continuation(&self, before: &[u32], tokens: &[u32]) -> Result<String, Failure> {
        // Decoders drop a leading space: it is kept by what stands before.
        let before = &before[before.len().saturating_sub(1)..];
        let whole = self.text(&[before, tokens].concat())?;
        let known = self.text(before)?.len();
        Ok(whole.get(known..).unwrap_or_default().to_owned())
    }

    /// Continues every prompt greedily until its phrase ends, or for `tokens_max` tokens.
    ///
    /// # Errors
    /// When cancelled, or a pass fails; `DAMAGED` when logits are no numbers.
    pub fn complete(
        &mut self,
        prompts: &[Vec<u32>],
        tokens_max: usize,
    ) -> Result<Vec<Completion>, Failure> {
        let mut done = Vec::with_capacity(prompts.len());
        for batch in prompts.chunks(BATCH) {
            done.extend(self.complete_batch(batch, tokens_max)?);
        }
        Ok(done)
    }

    fn complete_batch(
        &mut self,
        prompts: &[Vec<u32>],
        tokens_max: usize,
    ) -> Result<Vec<Completion>, Failure> {
        let vocabulary = self.model.architecture().vocabulary_size;
        let mut caches: Vec<KvCache> =
            prompts.iter().map(|prompt| self.pages.cache(prompt.len() + tokens_max)).collect();
        let mut done = vec![Completion::default(); prompts.len()];
        let mut next: Vec<Vec<u32>> = prompts.to_vec();
        let mut live: Vec<usize> = (0..prompts.len()).collect();
        for _ in 0..tokens_max {
            let mut segments: Vec<Segment<'_>> = Vec::with_capacity(live.len());
            for (index, cache) in caches.iter_mut().enumerate() {
                if live.contains(&index) {
                    let tokens = &next[index][..];
                    segments.push(Segment { tokens, cache, logits: LogitsWanted::Last });
                }
            }
            self.decoder.forward(&mut segments, None, self.cancel)?;
            drop(segments);
            let mut still = Vec::with_capacity(live.len());
            for (place, &index) in live.iter().enumerate() {
                let logits = self.decoder.segment_logits(place);
                check_logits(self.model, logits)?;
                debug_assert_eq!(logits.len(), vocabulary);
                let best = largest(logits);
                if self.ends.contains(&best) || self.tokenizer.is_special(best) {
                    continue;
                }
                let log_probability = log_probability(logits, best as usize);
                let completion = &mut done[index];
                completion.tokens.push(best);
                completion.log_probabilities.push(log_probability);
                let text = self.continuation(&prompts[index], &done[index].tokens)?;
                if phrase_end(&text, true).is_none_or(|end| text[..end].trim().is_empty()) {
                    next[index] = vec![best];
                    still.push(index);
                }
            }
            live = still;
            if live.is_empty() {
                break;
            }
        }
        Ok(done)
    }

    /// The `count` most likely next tokens of every prompt, the likeliest first.
    ///
    /// # Errors
    /// As [`Prober::complete`].
    pub fn next_tokens(
        &mut self,
        prompts: &[Vec<u32>],
        count: usize,
    ) -> Result<Vec<Vec<u32>>, Failure> {
        let mut next = Vec::with_capacity(prompts.len());
        for batch in prompts.chunks(BATCH) {
            let mut caches: Vec<KvCache> =
                batch.iter().map(|prompt| self.pages.cache(prompt.len())).collect();
            let mut segments: Vec<Segment<'_>> = batch
                .iter()
                .zip(&mut caches)
                .map(|(tokens, cache)| Segment { tokens, cache, logits: LogitsWanted::Last })
                .collect();
            self.decoder.forward(&mut segments, None, self.cancel)?;
            for place in 0..batch.len() {
                let logits = self.decoder.segment_logits(place);
                check_logits(self.model, logits)?;
                let least = logits.iter().copied().fold(f32::INFINITY, f32::min);
                let above: Vec<f32> = logits.iter().map(|logit| logit - least).collect();
                let best = top_k_by_magnitude(&above, count.min(above.len()));
                next.push(best.into_iter().map(|(token, _)| token as u32).collect());
            }
        }
        Ok(next)
    }

    /// What every layer's feed-forward network did at a prompt's last token.
    ///
    /// # Errors
    /// As [`Prober::complete`].
    pub fn capture(&mut self, prompt: &[u32]) -> Result<Vec<LayerFeatures>, Failure> {
        let mut cache = self.pages.cache(prompt.len() + 1);
        self.capture_last(prompt, &mut cache)
    }

    /// What every network writes at the bare name of an entity.
    ///
    /// # Errors
    /// As [`Prober::complete`].
    pub fn read_residual(&mut self, name: &[u32]) -> Result<Reading, Failure> {
        let layers = self.capture(name)?;
        Ok(Reading::new(layers, self.final_scale()))
    }

    /// What every network writes if it reads the mean embedding of the name's tokens by itself.
    ///
    /// # Errors
    /// As [`Prober::complete`]; `EMPTY_TEXT` for a name without tokens.
    pub fn read_gate(&mut self, name: &str) -> Result<Reading, Failure> {
        let vector = crate::exec::entity_vector(self.model, name)?;
        let tokens = self.tokenizer.encode(name, false)?;
        let mut cache = self.pages.cache(1);
        let mut capture = CaptureFeatures::new();
        let mut alone = IsolateLayers { input: vector };
        let mut hook = Compose::new(vec![&mut alone, &mut capture]);
        // Which token it is does not matter: every layer's input is replaced.
        self.decoder.prefill(&tokens[..1], &mut cache, Some(&mut hook), self.cancel)?;
        Ok(Reading::new(capture.layers().to_vec(), self.final_scale()))
    }

    /// What the final norm multiplied each number of the last position with.
    fn final_scale(&self) -> Vec<f32> {
        elementwise_scale(self.decoder.residual(), self.decoder.final_norm())
    }

    /// The product of every token's unembedding row with a vector: `[vocabulary]`.
    ///
    /// # Errors
    /// When cancelled; `MISSING_COMPONENT` without the matrix.
    pub fn word_scores(&self, vector: &[f32]) -> Result<Vec<f32>, Failure> {
        Ok(product(self.pool, &self.unembedding()?, vector, self.cancel)?)
    }

    fn capture_last(
        &mut self,
        prompt: &[u32],
        cache: &mut KvCache,
    ) -> Result<Vec<LayerFeatures>, Failure> {
        let (before, last) = prompt.split_at(prompt.len() - 1);
        if !before.is_empty() {
            let mut segment = [Segment { tokens: before, cache, logits: LogitsWanted::None }];
            self.decoder.forward(&mut segment, None, self.cancel)?;
        }
        let mut hook = CaptureFeatures::new();
        self.decoder.prefill(last, cache, Some(&mut hook), self.cancel)?;
        check_logits(self.model, self.decoder.logits())?;
        Ok(hook.layers().to_vec())
    }

    /// The features that the prediction of `target` after `prompt` leans on, the one whose ablation
    /// at the last position costs most first.
    ///
    /// Candidates are those with the largest share in the target's logit, as the later layers and
    /// norms pass it on unchanged; each is then silenced by itself and the loss measured.
    ///
    /// # Errors
    /// As [`Prober::complete`].
    pub fn features_behind(
        &mut self,
        prompt: &[u32],
        target: u32,
    ) -> Result<Vec<FeatureEffect>, Failure> {
        let mut cache = self.pages.cache(prompt.len() + 1);
        let layers = self.capture_last(prompt, &mut cache)?;
        let before = log_probability(self.decoder.logits(), target as usize);
        let candidates = self.largest_shares(&layers, target)?;
        let mut found = Vec::with_capacity(candidates.len());
        for (layer, feature) in candidates {
            let after = self.without(&[(layer, feature)], prompt, &mut cache, target)?;
            let input = layers.get(layer as usize).map_or(&[][..], |layer| &layer.input);
            found.push(FeatureEffect {
                layer,
                feature,
                effect: (before - after) as f32,
                gate_score: self.gate_score(layer, feature, input)?,
            });
        }
        found.sort_by(|a, b| b.effect.total_cmp(&a.effect));
        Ok(found)
    }

    /// The target's log-probability with features silenced at the last position; `cache` holds the
    /// prompt.
    fn without(
        &mut self,
        features: &[(u32, u32)],
        prompt: &[u32],
        cache: &mut KvCache,
        target: u32,
    ) -> Result<f64, Failure> {
        cache.truncate(prompt.len() - 1);
        let features = features.iter().map(|&(l, f)| (l as usize, f as usize)).collect();
        let mut hook = AblateFeatures { features, position_first: 0 };
        let last = &prompt[prompt.len() - 1..];
        self.decoder.prefill(last, cache, Some(&mut hook as &mut dyn Hook), self.cancel)?;
        Ok(log_probability(self.decoder.logits(), target as usize))
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
        let mut run = |features: &[(u32, u32)]| -> Result<f64, Failure> {
            let mut cache = self.pages.cache(prompt.len() + 1);
            let features = features.iter().map(|&(l, f)| (l as usize, f as usize)).collect();
            let mut hook = AblateFeatures { features, position_first: 0 };
            self.decoder.prefill(prompt, &mut cache, Some(&mut hook), self.cancel)?;
            Ok(log_probability(self.decoder.logits(), target as usize))
        };
        let before = run(&[])?;
        let losses = sets.iter().map(|set| Ok(before - run(set)?));
        Ok((before, losses.collect::<Result<_, Failure>>()?))
    }

    /// The features with the largest direct shares in a logit: layer and feature.
    fn largest_shares(
        &self,
        layers: &[LayerFeatures],
        target: u32,
    ) -> Result<Vec<(u32, u32)>, Failure> {
        let scale = elementwise_scale(self.decoder.residual(), self.decoder.final_norm());
        let mut direction = self.unembedding_row(target)?;
        direction.iter_mut().zip(&scale).for_each(|(x, scale)| *x *= scale);
        let mut shares: Vec<(f32, u32, u32)> = Vec::new();
        for (layer, features) in (0..).zip(layers) {
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

    /// A token's row of the matrix that scores the vocabulary.
    ///
    /// # Errors
    /// `MISSING_COMPONENT` where it is not here.
    pub fn unembedding_row(&self, token: u32) -> Result<Vec<f32>, Failure> {
        let table = self.unembedding()?;
        let mut row = vec![0.0; table.view.columns()];
        table.view.row_f32(token as usize, &mut row);
        Ok(row)
    }

    fn unembedding(&self) -> Result<Matrix<'a>, Failure> {
        let role = match self.model.architecture().tied_embeddings {
            true => Role::Embedding,
            false => Role::Unembedding,
        };
        let vocabulary = self.model.architecture().vocabulary_size;
        let table = self.model.matrix(WeightKey::model(role));
        let is_table = |table: &Matrix<'_>| {
            table.orientation == Orientation::OutIn && table.view.rows() == vocabulary
        };
        table.filter(is_table).ok_or_else(|| {
            Failure::new(code::MISSING_COMPONENT, "the model has no unembedding rows by token")
        })
    }

    /// The gate score of one feature for an input of its network; 0 where there is none.
    ///
    /// # Errors
    /// When cancelled.
    pub fn gate_score(&self, layer: u32, feature: u32, input: &[f32]) -> Result<f32, Failure> {
        let score =
            crate::inference::gate_score(self.pool, self.model, layer, feature, input, self.cancel);
        Ok(score?.map_or(0.0, |(score, _)| score))
    }
}

/// The index of the largest logit, the first of equals.
fn largest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (index, &logit)| {
        if logit > best.1 { (index, logit) } else { best }
    });
    best.0 as u32
}
