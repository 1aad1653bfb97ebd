//! A model that is asked under edits: many prompts a pass, greedily, as GENERATE does.

use std::collections::{HashMap, VecDeque};

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::learn::log_probability;
use larql_compute::model::{
    Decoder, DecoderOptions, DenseFfn, KvCache, KvPages, KvType, LogitsWanted, Precision, Segment,
    retrieval,
};
use larql_compute::sample::greedy;
use larqld::editing::applied::Applied;
use larqld::mounts::Model;

use super::Problem;

/// Prompts that go through the model together.
const BATCH: usize = 64;
/// Memory for keys and values.
const KV_BYTES_MAX: usize = 256 << 20;

/// Asks one model.
pub struct Asker<'a> {
    model: &'a Model,
    decoder: Decoder<'a>,
    pages: KvPages,
    cancel: &'a Cancel,
    /// Answers of the base: the likeliest token of a prompt and its probability.
    base: HashMap<String, (u32, f64)>,
    nothing: Applied,
}

impl<'a> Asker<'a> {
    pub fn new(model: &'a Model, pool: &'a Pool, cancel: &'a Cancel) -> Result<Self, Problem> {
        let options = DecoderOptions { precision: Precision::Serving, ffn: &DenseFfn };
        let architecture = model.architecture();
        let decoder = Decoder::new(architecture, model, pool, options)?;
        let pages = KvPages::new(architecture, KvType::default(), KV_BYTES_MAX);
        Ok(Self {
            model,
            decoder,
            pages,
            cancel,
            base: HashMap::new(),
            nothing: Applied::default(),
        })
    }

    /// What follows each prompt: at most so many tokens.
    pub fn generate(
        &mut self,
        prompts: &[String],
        edits: &Applied,
        tokens: usize,
    ) -> Result<Vec<String>, Problem> {
        let tokenizer = self.model.tokenizer()?;
        let mut answers = Vec::with_capacity(prompts.len());
        for batch in prompts.chunks(BATCH) {
            let mut read = self.encode(batch)?;
            let first: Vec<usize> = read.iter().map(Vec::len).collect();
            let mut caches = self.caches(&read, tokens, edits);
            let mut fed = vec![0; batch.len()];
            let mut pending: Vec<VecDeque<u32>> = vec![VecDeque::new(); batch.len()];
            for _ in 0..tokens {
                let mut segments: Vec<Segment<'_>> = Vec::with_capacity(batch.len());
                for ((tokens, cache), fed) in read.iter().zip(&mut caches).zip(&fed) {
                    segments.push(Segment {
                        tokens: &tokens[*fed..],
                        cache,
                        logits: LogitsWanted::Last,
                    });
                }
                self.decoder.forward(&mut segments, None, self.cancel)?;
                drop(segments);
                for row in 0..batch.len() {
                    let mut logits = self.decoder.segment_logits(row).to_vec();
                    let matches =
                        self.decoder.segment_matches(row).first().map_or(&[][..], Vec::as_slice);
                    if pending[row].is_empty()
                        && let Some(knn) = edits.retrieved(self.model, &read[row], matches)?
                    {
                        pending[row] = knn.set.target_ids.iter().copied().collect();
                    }
                    if let Some(token) = pending[row].pop_front() {
                        retrieval::force(&mut logits, token);
                    }
                    fed[row] = read[row].len();
                    read[row].push(greedy(&logits)?);
                }
            }
            for (tokens, first) in read.iter().zip(first) {
                answers.push(tokenizer.decode(&tokens[first..], false)?);
            }
        }
        Ok(answers)
    }

    /// The base's likeliest token after each prompt and its probability, and the token that is the
    /// likeliest under edits with the first one's probability then.
    pub fn compare(
        &mut self,
        prompts: &[String],
        edits: &Applied,
    ) -> Result<Vec<Compared>, Problem> {
        let new: Vec<String> =
            prompts.iter().filter(|prompt| !self.base.contains_key(*prompt)).cloned().collect();
        let nothing = std::mem::take(&mut self.nothing);
        let logits = self.last(&new, &nothing)?;
        self.nothing = nothing;
        for (prompt, logits) in new.into_iter().zip(logits) {
            let token = greedy(&logits)?;
            self.base.insert(prompt, (token, log_probability(&logits, token as usize).exp()));
        }
        let after = self.last(prompts, edits)?;
        let compared = prompts.iter().zip(after).map(|(prompt, logits)| {
            let (token, before) = self.base[prompt];
            let after = log_probability(&logits, token as usize).exp();
            Ok(Compared { kept: greedy(&logits)? == token, loss: (before - after).max(0.0) })
        });
        compared.collect()
    }

    /// Bits that a token of some texts takes on average.
    pub fn bits(&mut self, texts: &[String], edits: &Applied) -> Result<f64, Problem> {
        let vocabulary = self.model.architecture().vocabulary_size;
        let (mut nats, mut count) = (0.0, 0);
        for batch in texts.chunks(BATCH / 2) {
            let read = self.encode(batch)?;
            let mut caches = self.caches(&read, 0, edits);
            let segments = read.iter().zip(&mut caches);
            let mut segments: Vec<Segment<'_>> = segments
                .map(|(tokens, cache)| Segment { tokens, cache, logits: LogitsWanted::All })
                .collect();
            self.decoder.forward(&mut segments, None, self.cancel)?;
            drop(segments);
            for (segment, tokens) in read.iter().enumerate() {
                let rows = self.decoder.segment_logits(segment).chunks_exact(vocabulary);
                for (row, (logits, &next)) in rows.zip(&tokens[1..]).enumerate() {
                    let matches = self.decoder.segment_matches(segment);
                    let matches = matches.get(row).map_or(&[][..], Vec::as_slice);
                    let mut logits = logits.to_vec();
                    edits.force(self.model, &tokens[..=row], matches, &mut logits)?;
                    nats -= log_probability(&logits, next as usize);
                    count += 1;
                }
            }
        }
        Ok(nats / std::f64::consts::LN_2 / f64::from(count.max(1)))
    }

    /// Logits after each prompt, with what keys retrieve.
    fn last(&mut self, prompts: &[String], edits: &Applied) -> Result<Vec<Vec<f32>>, Problem> {
        let mut found = Vec::with_capacity(prompts.len());
        for batch in prompts.chunks(BATCH) {
            let read = self.encode(batch)?;
            let mut caches = self.caches(&read, 0, edits);
            let segments = read.iter().zip(&mut caches);
            let mut segments: Vec<Segment<'_>> = segments
                .map(|(tokens, cache)| Segment { tokens, cache, logits: LogitsWanted::Last })
                .collect();
            self.decoder.forward(&mut segments, None, self.cancel)?;
            drop(segments);
            for (row, tokens) in read.iter().enumerate() {
                let mut logits = self.decoder.segment_logits(row).to_vec();
                let matches =
                    self.decoder.segment_matches(row).first().map_or(&[][..], Vec::as_slice);
                edits.force(self.model, tokens, matches, &mut logits)?;
                found.push(logits);
            }
        }
        Ok(found)
    }

    fn encode(&self, prompts: &[String]) -> Result<Vec<Vec<u32>>, Problem> {
        let tokenizer = self.model.tokenizer()?;
        let ends = self.model.end_tokens()?;
        let mut read = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let mut tokens = tokenizer.encode(prompt, true)?;
            while tokens.len() > 1 && tokens.last().is_some_and(|last| ends.contains(last)) {
                tokens.pop();
            }
            read.push(tokens);
        }
        Ok(read)
    }

    fn caches(&self, read: &[Vec<u32>], more: usize, edits: &Applied) -> Vec<KvCache> {
        let caches = read.iter().map(|tokens| {
            self.pages.cache(tokens.len() + more + 1).with_overlay(edits.overlay.clone())
        });
        caches.collect()
    }
}

/// What an edit did to one prompt.
#[derive(Debug, Clone, Copy)]
pub struct Compared {
    /// Whether the likeliest token is the same.
    pub kept: bool,
    /// What it lost, in probability.
    pub loss: f64,
}
