//! A model that is asked: completions of many prompts, and what its networks do at their ends.
//!
//! Prompts with a common beginning read it once ([`super::prefixes`]); a prompt that was completed is
//! not completed again.
//!
//! Promises: answers do not depend on which prompts share a batch, nor on threads (the serving pass
//! is batch-invariant); a cancel reaches every pass; memory is bounded by [`KV_BYTES_MAX`],
//! [`CAPTURED_BYTES_MAX`] and one batch of logits.
//!
//! Elsewhere: the features behind a prediction ([`super::behind`]).

use std::collections::HashMap;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::kernels::top_k::top_k_by_magnitude;
use larql_compute::learn::log_probability;
use larql_compute::model::{
    CaptureFeatures, Compose, Decoder, DecoderOptions, DenseFfn, Hook, IsolateLayers, KvCache,
    KvPages, KvType, LayerFeatures, LogitsWanted, Matrix, Orientation, PassMeters, Precision, Role,
    Segment, WeightKey, Weights as _, elementwise_scale, product,
};

use super::answer::{fill, phrase_end};
use super::prefixes::tree;
use super::readings::Reading;
use crate::failure::{Failure, code};
use crate::inference::{check_logits, check_tokens};
use crate::mounts::Model;
use crate::text::Tokenizer;

/// Prompts that advance together at most.
const BATCH: usize = 128;
/// Memory that keys and values may take.
const KV_BYTES_MAX: usize = 512 << 20;
/// Memory that one batch of logits may take.
const LOGITS_BYTES_MAX: usize = 128 << 20;
/// Memory that what is captured of one batch may take.
const CAPTURED_BYTES_MAX: usize = 64 << 20;
/// Tokens of a prompt at most: an entity's name is short, and a template a sentence.
pub const PROMPT_TOKENS_MAX: usize = 256;
/// Tokens of a completion at most.
const COMPLETION_TOKENS_MAX: usize = 64;
/// Completions that are remembered; when there are more, all are forgotten.
const REMEMBERED_MAX: usize = 1 << 16;

/// How a prompt goes on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// The tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Natural logarithm of each one's probability.
    pub log_probabilities: Vec<f64>,
}

/// A completion, as far as it went.
#[derive(Debug, Clone, Default)]
struct Completed {
    completion: Completion,
    /// Whether its phrase ended, so that more tokens would not be taken.
    ended: bool,
}

impl Completed {
    /// Whether it is all that `tokens_max` tokens would be.
    fn suffices(&self, tokens_max: usize) -> bool {
        self.ended || self.completion.tokens.len() >= tokens_max
    }

    fn cut(&self, tokens_max: usize) -> Completion {
        let Completion { tokens, log_probabilities } = &self.completion;
        let count = tokens.len().min(tokens_max);
        Completion {
            tokens: tokens[..count].to_vec(),
            log_probabilities: log_probabilities[..count].to_vec(),
        }
    }
}

/// The likeliest next token.
#[derive(Debug, Clone, Copy)]
struct Next {
    token: u32,
    log_probability: f64,
}

/// What every network did at the last token of a prompt.
#[derive(Debug)]
pub struct Captured {
    /// Layer by layer.
    pub layers: Vec<LayerFeatures>,
    /// What the final norm multiplied each number with: `[hidden]`.
    pub scale: Vec<f32>,
    /// The prompt's keys and values.
    pub(super) cache: KvCache,
}

/// A model with room for the sequences that ask it.
pub struct Prober<'a> {
    pub(super) model: &'a Model,
    tokenizer: &'a Tokenizer,
    pub(super) pool: &'a Pool,
    pub(super) cancel: &'a Cancel,
    pub(super) decoder: Decoder<'a>,
    pages: KvPages,
    ends: Vec<u32>,
    remembered: HashMap<Vec<u32>, Completed>,
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
            remembered: HashMap::new(),
        })
    }

    /// The model.
    pub fn model(&self) -> &'a Model {
        self.model
    }

    /// What the passes so far took.
    pub fn meters(&self) -> &PassMeters {
        self.decoder.meters()
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
        let tokens_max = tokens_max.min(COMPLETION_TOKENS_MAX);
        let suffices = |prober: &Self, prompt: &[u32]| {
            prober.remembered.get(prompt).is_some_and(|known| known.suffices(tokens_max))
        };
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.clear();
        }
        // Neighbours in this order have most in common.
        let mut asked: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        asked.sort_unstable();
        asked.dedup();
        asked.retain(|prompt| !suffices(self, prompt));
        for batch in asked.chunks(self.batch(&asked, tokens_max)) {
            let completed = self.complete_batch(batch, tokens_max)?;
            let prompts = batch.iter().map(|prompt| prompt.to_vec());
            self.remembered.extend(prompts.zip(completed));
        }
        let completion = |prompt: &Vec<u32>| match self.remembered.get(prompt) {
            Some(known) => known.cut(tokens_max),
            None => Completion::default(),
        };
        Ok(prompts.iter().map(completion).collect())
    }

    /// Prompts that may advance together, given the longest of them.
    fn batch(&self, prompts: &[&[u32]], tokens_max: usize) -> usize {
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let pages = self.pages.pages_for(longest + tokens_max).max(1);
        let logits = self.model.architecture().vocabulary_size.max(1) * size_of::<f32>();
        // A beginning, a prompt of its own, and copies while both are written.
        let by_memory = (self.pages.pages_max() / (4 * pages)).min(LOGITS_BYTES_MAX / logits);
        by_memory.clamp(1, BATCH)
    }

    fn complete_batch(
        &mut self,
        prompts: &[&[u32]],
        tokens_max: usize,
    ) -> Result<Vec<Completed>, Failure> {
        let model = self.model;
        let read = self.read(prompts, LogitsWanted::Last, &mut |logits| next(model, logits))?;
        let (mut caches, mut nexts): (Vec<KvCache>, Vec<Option<Next>>) = read.into_iter().unzip();
        let mut done = vec![Completed::default(); prompts.len()];
        loop {
            let mut live = Vec::with_capacity(prompts.len());
            for index in 0..prompts.len() {
                let Some(Next { token, log_probability }) = nexts[index].take() else { continue };
                let Completed { completion, ended } = &mut done[index];
                if completion.tokens.len() >= tokens_max {
                    continue;
                }
                *ended = self.ends.contains(&token) || self.tokenizer.is_special(token);
                if *ended {
                    continue;
                }
                completion.tokens.push(token);
                completion.log_probabilities.push(log_probability);
                let text = self.continuation(prompts[index], &done[index].completion.tokens)?;
                let end = phrase_end(&text, true);
                done[index].ended = end.is_some_and(|end| !text[..end].trim().is_empty());
                // A full context ends what is written, too.
                done[index].ended |= caches[index].len() >= caches[index].capacity();
                if !done[index].ended {
                    live.push(index);
                }
            }
            live.retain(|&index| done[index].completion.tokens.len() < tokens_max);
            if live.is_empty() {
                return Ok(done);
            }
            let mut segments: Vec<Segment<'_>> = Vec::with_capacity(live.len());
            for (index, cache) in caches.iter_mut().enumerate() {
                if live.binary_search(&index).is_ok()
                    && let Some(last) = done[index].completion.tokens.last_chunk::<1>()
                {
                    segments.push(Segment { tokens: last, cache, logits: LogitsWanted::Last });
                }
            }
            self.decoder.forward(&mut segments, None, self.cancel)?;
            for (place, &index) in live.iter().enumerate() {
                nexts[index] = Some(next(model, self.decoder.segment_logits(place))?);
            }
        }
    }

    /// Reads prompts, common beginnings once: a cache for each, and what `of` makes of the logits
    /// after its last token; `None` for an empty prompt, and where no logits are wanted.
    fn read<T: Clone>(
        &mut self,
        prompts: &[&[u32]],
        logits: LogitsWanted,
        of: &mut dyn FnMut(&[f32]) -> Result<T, Failure>,
    ) -> Result<Vec<(KvCache, Option<T>)>, Failure> {
        // One size for all, as frequencies of rotation may go by it.
        let empty = || self.pages.cache(PROMPT_TOKENS_MAX + COMPLETION_TOKENS_MAX);
        let mut found: Vec<(KvCache, Option<T>)> =
            prompts.iter().map(|_| (empty(), None)).collect();
        let nodes = tree(prompts);
        let mut caches: Vec<KvCache> = nodes.iter().map(|_| empty()).collect();
        for depth in 0.. {
            let level: Vec<usize> =
                (0..nodes.len()).filter(|&at| nodes[at].depth == depth).collect();
            if level.is_empty() {
                break;
            }
            for part in level.chunks(BATCH) {
                for &at in part {
                    if let Some(parent) = nodes[at].parent {
                        caches[at] = caches[parent].fork();
                    }
                }
                let mut segments: Vec<Segment<'_>> = Vec::with_capacity(part.len());
                for (at, cache) in caches.iter_mut().enumerate() {
                    if part.binary_search(&at).is_err() {
                        continue;
                    }
                    let node = &nodes[at];
                    let tokens = &prompts[node.prompt][node.tokens.clone()];
                    let wanted = if node.ends.is_empty() { LogitsWanted::None } else { logits };
                    segments.push(Segment { tokens, cache, logits: wanted });
                }
                self.decoder.forward(&mut segments, None, self.cancel)?;
                for (place, &at) in part.iter().enumerate() {
                    if nodes[at].ends.is_empty() {
                        continue;
                    }
                    let value = match logits {
                        LogitsWanted::None => None,
                        _ => Some(of(self.decoder.segment_logits(place))?),
                    };
                    for &prompt in &nodes[at].ends {
                        found[prompt] = (caches[at].fork(), value.clone());
                    }
                }
            }
        }
        Ok(found)
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
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_key(|&prompt| &prompts[prompt]);
        let sorted: Vec<&[u32]> = order.iter().map(|&prompt| &prompts[prompt][..]).collect();
        let mut found = vec![Vec::new(); prompts.len()];
        let (model, batch) = (self.model, self.batch(&sorted, 0));
        for (batch, places) in sorted.chunks(batch).zip(order.chunks(batch)) {
            let read = self.read(batch, LogitsWanted::Last, &mut |logits| {
                check_logits(model, logits)?;
                let least = logits.iter().copied().fold(f32::INFINITY, f32::min);
                let above: Vec<f32> = logits.iter().map(|logit| logit - least).collect();
                let best = top_k_by_magnitude(&above, count.min(above.len()));
                Ok(best.into_iter().map(|(token, _)| token as u32).collect::<Vec<u32>>())
            })?;
            for (&place, (_, next)) in places.iter().zip(read) {
                found[place] = next.unwrap_or_default();
            }
        }
        Ok(found)
    }

    /// Prompts of which can be captured what networks do, together.
    pub fn captured_batch(&self) -> usize {
        let architecture = self.model.architecture();
        let numbers = |layer| architecture.features(layer) + 3 * architecture.hidden_size;
        let row: usize = (0..architecture.layers()).map(numbers).sum();
        (CAPTURED_BYTES_MAX / (row * size_of::<f32>()).max(1)).clamp(1, BATCH)
    }

    /// What every layer's feed-forward network did at each prompt's last token, of up to
    /// [`Prober::captured_batch`] prompts. The decoder has their logits afterwards.
    ///
    /// # Errors
    /// As [`Prober::complete`].
    pub fn capture(&mut self, prompts: &[&[u32]]) -> Result<Vec<Captured>, Failure> {
        let befores: Vec<&[u32]> =
            prompts.iter().map(|prompt| &prompt[..prompt.len().saturating_sub(1)]).collect();
        let read = self.read(&befores, LogitsWanted::None, &mut |_| Ok(()))?;
        let caches = read.into_iter().map(|(cache, _)| cache).collect();
        let lasts = prompts.iter().zip(&befores).map(|(prompt, before)| &prompt[before.len()..]);
        let lasts: Vec<&[u32]> = lasts.collect();
        let mut hook = CaptureFeatures::new();
        let caches = self.hooked(&lasts, caches, &mut hook)?;
        Ok(self.captured(hook, caches))
    }

    /// The experts that the router chose at an entity's last token, by layer; none of layers, and of
    /// models, without.
    ///
    /// # Errors
    /// As [`Prober::complete`].
    pub fn experts(&mut self, entity: &str) -> Result<Vec<(u32, Vec<u32>)>, Failure> {
        let architecture = self.model.architecture();
        let has_experts = |layer: usize| {
            architecture.networks(layer).into_iter().any(|network| network.expert.is_some())
        };
        if !(0..architecture.layers()).any(has_experts) {
            return Ok(Vec::new());
        }
        let Some(tokens) = self.tokens(entity)? else { return Ok(Vec::new()) };
        let captured = self.capture(&[&tokens])?;
        let layers = captured.iter().flat_map(|one| &one.layers).enumerate();
        let chosen = layers.filter(|(layer, _)| has_experts(*layer)).map(|(layer, of)| {
            // Networks that did not run show 0 everywhere.
            let ran = architecture.networks(layer).into_iter().filter(|network| {
                let own = network.first..network.first + network.features;
                of.activations[own].iter().any(|&activation| activation != 0.0)
            });
            (layer as u32, ran.filter_map(|network| network.expert).collect())
        });
        Ok(chosen.collect())
    }

    /// Runs one more token of each sequence under a hook.
    pub(super) fn hooked(
        &mut self,
        tokens: &[&[u32]],
        mut caches: Vec<KvCache>,
        hook: &mut dyn Hook,
    ) -> Result<Vec<KvCache>, Failure> {
        let mut segments: Vec<Segment<'_>> = tokens
            .iter()
            .zip(&mut caches)
            .map(|(tokens, cache)| Segment { tokens, cache, logits: LogitsWanted::Last })
            .collect();
        self.decoder.forward(&mut segments, Some(hook), self.cancel)?;
        for place in 0..tokens.len() {
            check_logits(self.model, self.decoder.segment_logits(place))?;
        }
        Ok(caches)
    }

    fn captured(&self, hook: CaptureFeatures, caches: Vec<KvCache>) -> Vec<Captured> {
        let rows = hook.into_rows().into_iter().zip(caches);
        let captured = rows.map(|(layers, cache)| {
            let residual = layers.last().map_or(&[][..], |last| &last.residual);
            let scale = elementwise_scale(residual, &self.decoder.final_norm_of(residual));
            Captured { layers, scale, cache }
        });
        captured.collect()
    }

    /// Caches of nothing.
    pub(super) fn empty_caches(&self, count: usize) -> Vec<KvCache> {
        let positions = PROMPT_TOKENS_MAX + COMPLETION_TOKENS_MAX;
        (0..count).map(|_| self.pages.cache(positions)).collect()
    }

    /// What the stream is, on average, at the ends of some templates of bare names (`{entity}` stands
    /// for the name): one reading a name, empty for one without tokens. Templates that a name does not
    /// fit into are left out of its average; what the layers did is told of the first.
    ///
    /// # Errors
    /// As [`Prober::complete`].
    pub fn read_residual(
        &mut self,
        names: &[&str],
        templates: &[String],
    ) -> Result<Vec<Reading>, Failure> {
        let mut prompts: Vec<(usize, Vec<u32>)> = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let before = prompts.len();
            for template in templates {
                let tokens = self.tokens(&fill(template, name))?;
                prompts.extend(tokens.map(|tokens| (index, tokens)));
            }
            if prompts.len() == before {
                prompts.extend(self.tokens(name)?.map(|tokens| (index, tokens)));
            }
        }
        let mut readings = vec![(0_usize, Reading::default()); names.len()];
        for batch in prompts.chunks(self.captured_batch()) {
            let tokens: Vec<&[u32]> = batch.iter().map(|(_, tokens)| &tokens[..]).collect();
            for (&(index, _), one) in batch.iter().zip(self.capture(&tokens)?) {
                let own = Reading::of_stream(one.layers, one.scale);
                let (count, reading) = &mut readings[index];
                match count {
                    0 => *reading = own,
                    _ => reading.read.iter_mut().zip(&own.read).for_each(|(sum, x)| *sum += x),
                }
                *count += 1;
            }
        }
        Ok(readings.into_iter().map(|(count, reading)| reading.divided_by(count)).collect())
    }

    /// What every network writes if it reads the mean embedding of a name's tokens by itself, for up
    /// to [`Prober::captured_batch`] names.
    ///
    /// # Errors
    /// As [`Prober::complete`]; `EMPTY_TEXT` for a name without tokens.
    pub fn read_gate(&mut self, names: &[&str]) -> Result<Vec<Reading>, Failure> {
        let (mut vectors, mut tokens) = (Vec::new(), Vec::new());
        for name in names {
            vectors.push(crate::exec::entity_vector(self.model, name)?);
            // Which token it is matters only to what a layer takes from the token itself.
            let own = self.tokenizer.encode(name, false)?;
            let vocabulary = self.model.architecture().vocabulary_size;
            tokens.push([own.into_iter().find(|&id| (id as usize) < vocabulary).unwrap_or(0)]);
        }
        let mut capture = CaptureFeatures::new();
        let mut alone = IsolateLayers::new(vectors);
        let mut hook = Compose::new(vec![&mut alone, &mut capture]);
        let lasts: Vec<&[u32]> = tokens.iter().map(|token| &token[..]).collect();
        let caches = self.hooked(&lasts, self.empty_caches(names.len()), &mut hook)?;
        let captured = self.captured(capture, caches).into_iter();
        Ok(captured.map(|one| Reading::of_networks(one.layers, one.scale)).collect())
    }

    /// The product of every token's unembedding row with a vector: `[vocabulary]`.
    ///
    /// # Errors
    /// When cancelled; `MISSING_COMPONENT` without the matrix.
    pub fn word_scores(&self, vector: &[f32]) -> Result<Vec<f32>, Failure> {
        Ok(product(self.pool, &self.unembedding()?, vector, self.cancel)?)
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

/// The likeliest next token, given logits.
fn next(model: &Model, logits: &[f32]) -> Result<Next, Failure> {
    check_logits(model, logits)?;
    let token = largest(logits);
    Ok(Next { token, log_probability: log_probability(logits, token as usize) })
}

/// The index of the largest logit, the first of equals.
fn largest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (index, &logit)| {
        if logit > best.1 { (index, logit) } else { best }
    });
    best.0 as u32
}
