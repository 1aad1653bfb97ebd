//! A model that is looked at, at the last tokens of prompts or all of them, and pushed at the last.

use std::sync::Arc;

use crate::cpu::{Cancel, Pool};
use crate::model::{
    Architecture, DecodeError, Decoder, DecoderOptions, DenseFfn, Hook, KvCache, KvPages, KvType,
    LogitsWanted, Overlay, Precision, Segment, Weights,
};
use crate::sample::greedy;

/// Prompts that go through the model together.
const BATCH: usize = 64;
/// Prompts whose keys and values are held at a time, and their tokens: what a model of any width must have
/// memory for. It is taken as it is used.
const CACHES_MAX: usize = 512;
const POSITIONS_MAX: usize = 128;

/// What the networks of some layers were given and made at one position.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Captured {
    /// The inputs, layer by layer: `[layers][hidden]`.
    pub inputs: Vec<Vec<f32>>,
    /// The activations, layer by layer: `[layers][features]`; empty where they were not wanted.
    pub activations: Vec<Vec<f32>>,
}

/// A model with the edits that it has so far.
pub struct Editor<'a> {
    pub(super) architecture: &'a Architecture,
    pub(super) decoder: Decoder<'a>,
    pages: KvPages,
    overlay: Option<Arc<Overlay>>,
    pub(super) cancel: &'a Cancel,
}

/// Prompts read but for their last tokens.
pub(super) struct Prefixes {
    caches: Vec<KvCache>,
    last: Vec<u32>,
}

/// What a push at the last tokens did.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    /// What networks returned, the push included: `[layers][rows][hidden]`.
    pub(super) outputs: Vec<Vec<f32>>,
    /// What they were given.
    pub(super) inputs: Vec<Vec<f32>>,
    /// The activations: `[layers][rows][features]`.
    pub(super) activations: Vec<Vec<f32>>,
    /// The stream after the last layer: `[rows][hidden]`.
    pub(super) streams: Vec<f32>,
    /// `[rows][vocabulary]`
    pub(super) logits: Vec<f32>,
}

impl<'a> Editor<'a> {
    /// Prepares a model; prompts are read under `overlay`.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn new(
        architecture: &'a Architecture,
        weights: &'a dyn Weights,
        pool: &'a Pool,
        overlay: Option<Arc<Overlay>>,
        cancel: &'a Cancel,
    ) -> Result<Editor<'a>, DecodeError> {
        let options = DecoderOptions { precision: Precision::Serving, ffn: &DenseFfn };
        Ok(Editor {
            architecture,
            decoder: Decoder::new(architecture, weights, pool, options)?,
            pages: KvPages::for_caches(architecture, KvType::default(), CACHES_MAX, POSITIONS_MAX),
            overlay,
            cancel,
        })
    }

    /// Reads prompts under other edits from now on.
    pub fn set_overlay(&mut self, overlay: Option<Arc<Overlay>>) {
        self.overlay = overlay;
    }

    /// Bytes of weights read so far.
    pub fn bytes_touched(&self) -> u64 {
        self.decoder.bytes_touched()
    }

    /// What networks of some layers are given at positions of prompts: at the last of each, or at all
    /// of them one after another.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub fn capture(
        &mut self,
        prompts: &[&[u32]],
        layers: &[usize],
        every_position: bool,
        activations: bool,
    ) -> Result<Vec<Vec<Captured>>, DecodeError> {
        let mut found = Vec::with_capacity(prompts.len());
        for batch in prompts.chunks(BATCH) {
            // Rows of the pass, in the order of the segments' tokens.
            let mut wanted = Vec::new();
            for prompt in batch {
                let first = wanted.len() + prompt.len() - 1;
                wanted.resize(first, every_position);
                wanted.push(true);
            }
            let mut hook = Look { layers, wanted: &wanted, activations, ..Look::default() };
            self.read(batch, LogitsWanted::None, Some(&mut hook))?;
            let mut rows = hook.found.into_iter();
            for prompt in batch {
                let count = if every_position { prompt.len() } else { 1 };
                found.push(rows.by_ref().take(count).collect());
            }
        }
        Ok(found)
    }

    /// The likeliest token after each prompt.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub fn next_tokens(&mut self, prompts: &[&[u32]]) -> Result<Vec<u32>, DecodeError> {
        let mut found = Vec::with_capacity(prompts.len());
        for batch in prompts.chunks(BATCH) {
            self.read(batch, LogitsWanted::Last, None)?;
            for segment in 0..batch.len() {
                found.push(greedy(self.decoder.segment_logits(segment)).unwrap_or_default());
            }
        }
        Ok(found)
    }

    /// Reads prompts from their beginning, together.
    fn read(
        &mut self,
        prompts: &[&[u32]],
        logits: LogitsWanted,
        hook: Option<&mut dyn Hook>,
    ) -> Result<(), DecodeError> {
        let mut caches: Vec<KvCache> = prompts.iter().map(|prompt| self.cache(prompt)).collect();
        let segments = prompts.iter().zip(&mut caches);
        let mut segments: Vec<Segment<'_>> =
            segments.map(|(tokens, cache)| Segment { tokens, cache, logits }).collect();
        self.decoder.forward(&mut segments, hook, self.cancel)
    }

    fn cache(&self, prompt: &[u32]) -> KvCache {
        self.pages.cache(prompt.len() + 1).with_overlay(self.overlay.clone())
    }

    /// Reads all but the last token of each prompt.
    pub(super) fn prefixes(&mut self, prompts: &[&[u32]]) -> Result<Prefixes, DecodeError> {
        let mut caches: Vec<KvCache> = prompts.iter().map(|prompt| self.cache(prompt)).collect();
        let mut segments = Vec::new();
        let mut last = Vec::with_capacity(prompts.len());
        for (prompt, cache) in prompts.iter().zip(&mut caches) {
            let (end, before) = prompt.split_last().ok_or(DecodeError::EmptyPrompt)?;
            last.push(*end);
            if !before.is_empty() {
                segments.push(Segment { tokens: before, cache, logits: LogitsWanted::None });
            }
        }
        self.decoder.forward(&mut segments, None, self.cancel)?;
        Ok(Prefixes { caches, last })
    }

    /// Reads the last tokens while networks of some layers return `pushes` more.
    ///
    /// # Shapes
    /// `pushes`: `[layers][rows][hidden]`.
    pub(super) fn push(
        &mut self,
        prefixes: &mut Prefixes,
        layers: &[usize],
        pushes: &[Vec<f32>],
    ) -> Result<Pushed, DecodeError> {
        let lengths: Vec<usize> = prefixes.caches.iter().map(KvCache::len).collect();
        let mut segments: Vec<Segment<'_>> = prefixes
            .last
            .chunks(1)
            .zip(&mut prefixes.caches)
            .map(|(tokens, cache)| Segment { tokens, cache, logits: LogitsWanted::Last })
            .collect();
        let last_layer = self.architecture.layers() - 1;
        let mut hook = Push { layers, pushes, last_layer, ..Push::default() };
        hook.found.outputs.resize(layers.len(), Vec::new());
        hook.found.inputs.resize(layers.len(), Vec::new());
        hook.found.activations.resize(layers.len(), Vec::new());
        self.decoder.forward(&mut segments, Some(&mut hook), self.cancel)?;
        let mut found = hook.found;
        for row in 0..segments.len() {
            found.logits.extend_from_slice(self.decoder.segment_logits(row));
        }
        for (cache, length) in prefixes.caches.iter_mut().zip(lengths) {
            cache.truncate(length);
        }
        Ok(found)
    }
}

/// Keeps what networks are given and make in some rows.
#[derive(Default)]
struct Look<'h> {
    layers: &'h [usize],
    wanted: &'h [bool],
    activations: bool,
    found: Vec<Captured>,
    /// Where the block's rows begin among all, and the position that its first row is told as.
    first: usize,
    count: usize,
    position_first: usize,
    /// Rows found before the block.
    before: usize,
}

impl Look<'_> {
    fn place(&self, layer: usize) -> Option<usize> {
        self.layers.iter().position(|&of| of == layer)
    }
}

impl Hook for Look<'_> {
    fn takes_rows(&self) -> bool {
        true
    }

    fn begin(&mut self, position_first: usize, count: usize) {
        (self.first, self.count) = (self.first + self.count, count);
        self.position_first = position_first;
        self.before = self.found.len();
        let wanted = self.wanted[self.first..self.first + count].iter().filter(|&&wanted| wanted);
        let layers = self.layers.len();
        let empty = Captured {
            inputs: vec![Vec::new(); layers],
            activations: vec![Vec::new(); if self.activations { layers } else { 0 }],
        };
        self.found.resize(self.before + wanted.count(), empty);
    }

    fn ffn_in(&mut self, layer: usize, input: &mut [f32]) {
        let Some(place) = self.place(layer) else { return };
        let width = input.len() / self.count.max(1);
        let rows = input.chunks_exact(width).zip(&self.wanted[self.first..]);
        let rows = rows.filter(|(_, wanted)| **wanted);
        for ((row, _), found) in rows.zip(&mut self.found[self.before..]) {
            found.inputs[place] = row.to_vec();
        }
    }

    fn activations(&mut self, layer: usize, position: usize, activations: &mut [f32]) {
        let Some(place) = self.place(layer).filter(|_| self.activations) else { return };
        let row = self.first + position - self.position_first;
        if self.wanted[row] {
            let before = self.wanted[self.first..row].iter().filter(|&&wanted| wanted).count();
            self.found[self.before + before].activations[place] = activations.to_vec();
        }
    }
}

/// Adds to what networks return, and keeps what came of it; a row for each sequence.
#[derive(Default)]
struct Push<'h> {
    layers: &'h [usize],
    pushes: &'h [Vec<f32>],
    last_layer: usize,
    found: Pushed,
}

impl Hook for Push<'_> {
    fn takes_rows(&self) -> bool {
        true
    }

    fn ffn_in(&mut self, layer: usize, input: &mut [f32]) {
        if let Some(place) = self.layers.iter().position(|&of| of == layer) {
            self.found.inputs[place].extend_from_slice(input);
        }
    }

    fn activations(&mut self, layer: usize, _position: usize, activations: &mut [f32]) {
        if let Some(place) = self.layers.iter().position(|&of| of == layer) {
            self.found.activations[place].extend_from_slice(activations);
        }
    }

    fn network_out(&mut self, layer: usize, output: &mut [f32]) {
        if let Some(place) = self.layers.iter().position(|&of| of == layer) {
            let first = self.found.outputs[place].len();
            let pushes = &self.pushes[place][first..];
            output.iter_mut().zip(pushes).for_each(|(output, push)| *output += push);
            self.found.outputs[place].extend_from_slice(output);
        }
    }

    fn post_layer(&mut self, layer: usize, residual: &mut [f32]) {
        if layer == self.last_layer {
            self.found.streams.extend_from_slice(residual);
        }
    }
}
