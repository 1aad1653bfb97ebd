//! Running a model on tokens: what INFER, generation, reference output and benchmarks share.

use larql_compute::cpu::{Cancel, Cancelled, Pool};
use larql_compute::kernels::gate_scan::gate_scan;
use larql_compute::kernels::matvec_transposed;
use larql_compute::model::{
    Decoder, DecoderOptions, DenseFfn, Ffn, Hook, KvCache, KvPages, KvType, Match, Matrix,
    Orientation, PassMeters, Precision, WalkFfn,
};
use larql_planner::physical::plan::FfnPath;

use crate::editing::applied::Applied;
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// The feed-forward network of a path.
pub fn ffn(path: FfnPath) -> Box<dyn Ffn> {
    match path {
        FfnPath::Dense => Box::new(DenseFfn),
        FfnPath::Walk { k } => {
            Box::new(WalkFfn { k: k.map(|k| usize::try_from(k).unwrap_or(usize::MAX)) })
        }
    }
}

/// The token ids of a prompt, checked to fit the model's context.
///
/// # Errors
/// `EMPTY_TEXT` for an empty prompt or one without tokens, `LIMIT` for one that is too long.
pub fn prompt_tokens(model: &Model, prompt: &str) -> Result<Vec<u32>, Failure> {
    if prompt.is_empty() {
        return Err(Failure::new(code::EMPTY_TEXT, "the prompt is empty").hint("write some text"));
    }
    let tokens = model.tokenizer()?.encode(prompt, true)?;
    check_tokens(model, &tokens, 0)?;
    Ok(tokens)
}

/// Checks that `tokens` and `more` after them fit the model.
///
/// # Errors
/// As [`prompt_tokens`]; `INVALID_PARAMETER` for an id that is not in the vocabulary.
pub fn check_tokens(model: &Model, tokens: &[u32], more: usize) -> Result<(), Failure> {
    let architecture = model.architecture();
    if tokens.is_empty() {
        return Err(
            Failure::new(code::EMPTY_TEXT, "the prompt has no token").hint("write some text")
        );
    }
    let needed = tokens.len().saturating_add(more);
    if needed > architecture.context_max {
        let message = format!(
            "{needed} tokens do not fit the model's context of {}",
            architecture.context_max
        );
        return Err(Failure::new(code::LIMIT, message).hint("shorten the prompt"));
    }
    if let Some(id) = tokens.iter().find(|&&id| id as usize >= architecture.vocabulary_size) {
        let message =
            format!("token {id} is not in the vocabulary of {}", architecture.vocabulary_size);
        return Err(Failure::new(code::INVALID_PARAMETER, message));
    }
    Ok(())
}

/// Checks that a prompt's logits are numbers.
///
/// # Errors
/// `DAMAGED` when they are not: then the weights are not what they were.
pub fn check_logits(model: &Model, logits: &[f32]) -> Result<(), Failure> {
    match logits.iter().filter(|logit| logit.is_nan()).count() {
        0 => Ok(()),
        count => {
            let path = model.path().display();
            let message = format!("{path}: {count} logits are no numbers, its weights are damaged");
            Err(Failure::new(code::DAMAGED, message)
                .hint("compare the weights with where they came from"))
        }
    }
}

/// The gate scores of one network: each feature's gate vector times `vector`.
///
/// # Errors
/// When cancelled.
pub fn gate_scores(
    pool: &Pool,
    gates: &Matrix<'_>,
    vector: &[f32],
    cancel: &Cancel,
) -> Result<Vec<f32>, Cancelled> {
    match gates.orientation {
        Orientation::OutIn => gate_scan(pool, &gates.view, vector, cancel),
        Orientation::InOut => {
            cancel.check()?;
            let mut scores = vec![0.0; gates.outputs()];
            matvec_transposed(pool, &gates.view, vector, &mut scores);
            Ok(scores)
        }
    }
}

/// The gate score of one feature, in the same bits as [`gate_scores`] of its network, and the bytes
/// of gates that were read; `None` where there is no such feature.
///
/// # Errors
/// When cancelled.
pub fn gate_score(
    pool: &Pool,
    model: &Model,
    layer: u32,
    feature: u32,
    vector: &[f32],
    cancel: &Cancel,
) -> Result<Option<(f32, u64)>, Cancelled> {
    let feature = feature as usize;
    let found = model.gates(layer).find(|(network, _)| {
        feature.checked_sub(network.first).is_some_and(|within| within < network.features)
    });
    let Some((network, gates)) = found else { return Ok(None) };
    let within = feature - network.first;
    let (gates, within) = match gates.orientation {
        // The same kernel as the scan, over one row.
        Orientation::OutIn => {
            (Matrix { view: gates.view.rows_range(within..within + 1), ..gates }, 0)
        }
        Orientation::InOut => (gates, within),
    };
    let scores = gate_scores(pool, &gates, vector, cancel)?;
    Ok(scores.get(within).map(|&score| (score, gates.view.bytes_touched())))
}

/// A token that a text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedToken {
    /// The token.
    pub id: u32,
    /// What to tell whoever named it, where the text is more than one token.
    pub notice: Option<String>,
}

/// The token that a text names: what it is in the middle of a text, after a space, or else by itself.
/// Of a text that is several tokens either way it is the first, and there is something to tell.
///
/// # Errors
/// `EMPTY_TEXT` for a text without tokens.
pub fn named_token(model: &Model, text: &str) -> Result<NamedToken, Failure> {
    let tokenizer = model.tokenizer()?;
    let ways = [format!(" {text}"), text.to_owned()];
    let skipped = usize::from(text.starts_with(char::is_whitespace));
    let mut shortest: Vec<u32> = Vec::new();
    for way in &ways[skipped..] {
        let tokens = tokenizer.encode(way, false)?;
        if shortest.is_empty() || (1..shortest.len()).contains(&tokens.len()) {
            shortest = tokens;
        }
    }
    let Some(&id) = shortest.first().filter(|_| !text.is_empty()) else {
        let message = format!("{text:?} has no token in the vocabulary");
        return Err(Failure::new(code::EMPTY_TEXT, message).hint("write a word"));
    };
    check_tokens(model, &shortest[..1], 0)?;
    let count = shortest.len();
    let notice = (count > 1).then(|| {
        format!("{text:?} is {count} tokens; the first, {:?}, is followed", &*tokenizer.word(id))
    });
    Ok(NamedToken { id, notice })
}

/// An empty cache for so many tokens.
pub fn cache(model: &Model, precision: Precision, positions: usize) -> KvCache {
    let architecture = model.architecture();
    match precision {
        Precision::Exact => KvCache::new(architecture, positions),
        Precision::Serving => {
            KvPages::for_positions(architecture, KvType::default(), positions).cache(positions)
        }
    }
}

/// A cache of its own, or somebody else's.
enum Cache<'a> {
    Own(KvCache),
    Lent(&'a mut KvCache),
}

impl Cache<'_> {
    fn get(&mut self) -> &mut KvCache {
        match self {
            Self::Own(cache) => cache,
            Self::Lent(cache) => cache,
        }
    }
}

/// A model at work on one sequence of tokens.
pub struct Run<'a> {
    model: &'a Model,
    decoder: Decoder<'a>,
    cache: Cache<'a>,
}

impl<'a> Run<'a> {
    /// Prepares `model` for `positions` tokens.
    ///
    /// # Errors
    /// `MISSING_COMPONENT` where the vindex lacks what inference needs.
    pub fn new(
        model: &'a Model,
        pool: &'a Pool,
        ffn: &'a dyn Ffn,
        precision: Precision,
        positions: usize,
    ) -> Result<Self, Failure> {
        let cache = Cache::Own(cache(model, precision, positions));
        Self::with_cache(model, pool, ffn, precision, cache)
    }

    /// Goes on where `cache` is; what is read next is added to it.
    ///
    /// # Errors
    /// As [`Run::new`].
    pub fn resume(
        model: &'a Model,
        pool: &'a Pool,
        ffn: &'a dyn Ffn,
        precision: Precision,
        cache: &'a mut KvCache,
    ) -> Result<Self, Failure> {
        Self::with_cache(model, pool, ffn, precision, Cache::Lent(cache))
    }

    fn with_cache(
        model: &'a Model,
        pool: &'a Pool,
        ffn: &'a dyn Ffn,
        precision: Precision,
        cache: Cache<'a>,
    ) -> Result<Self, Failure> {
        model.require_inference()?;
        let options = DecoderOptions { precision, ffn };
        let decoder = Decoder::new(model.architecture(), model, pool, options)?;
        Ok(Self { model, decoder, cache })
    }

    /// The same run for a sequence that is read under edits from its beginning.
    #[must_use]
    pub fn under(mut self, edits: &Applied) -> Self {
        if let Cache::Own(cache) = self.cache {
            self.cache = Cache::Own(cache.with_overlay(edits.overlay.clone()));
        }
        self
    }

    /// What keys of the edits found at the last token.
    pub fn matches(&self) -> &[Match] {
        self.decoder.matches()
    }

    /// Reads tokens and leaves the logits of the last one.
    ///
    /// # Errors
    /// When cancelled, or when they do not fit; `DAMAGED` when the logits are no numbers.
    pub fn prefill(
        &mut self,
        tokens: &[u32],
        hook: Option<&mut dyn Hook>,
        cancel: &Cancel,
    ) -> Result<(), Failure> {
        self.decoder.prefill(tokens, self.cache.get(), hook, cancel)?;
        check_logits(self.model, self.logits())
    }

    /// Reads one token and leaves its logits.
    ///
    /// # Errors
    /// As [`Run::prefill`].
    pub fn decode(&mut self, token: u32, cancel: &Cancel) -> Result<(), Failure> {
        Ok(self.decoder.decode(token, self.cache.get(), None, cancel)?)
    }

    /// The logits of the last token.
    pub fn logits(&self) -> &[f32] {
        self.decoder.logits()
    }

    /// Tokens read so far.
    pub fn position(&self) -> usize {
        match &self.cache {
            Cache::Own(cache) => cache.len(),
            Cache::Lent(cache) => cache.len(),
        }
    }

    /// Bytes of weights read so far.
    pub fn bytes_touched(&self) -> u64 {
        self.decoder.bytes_touched()
    }

    /// What the passes so far took, part by part.
    pub fn meters(&self) -> &PassMeters {
        self.decoder.meters()
    }

    /// Forgets all tokens after the first `positions`.
    pub fn truncate(&mut self, positions: usize) {
        self.cache.get().truncate(positions);
    }
}
