//! How to choose a token, and which of these options make a choice.

/// How far presence and frequency penalties and biases reach, as OpenAI's interface defines them.
pub const PENALTY_MAX: f32 = 2.0;
/// The largest bias.
pub const BIAS_MAX: f32 = 100.0;

/// Why no token can be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// A temperature that makes no distribution.
    #[error("temperature is {found}; it must be a finite number from 0")]
    Temperature {
        /// The value given.
        found: f32,
    },
    /// A nucleus that holds nothing, or more than everything.
    #[error("top_p is {found}; it must be above 0 and at most 1")]
    TopP {
        /// The value given.
        found: f32,
    },
    /// A share of the best that is none.
    #[error("min_p is {found}; it must be from 0 to 1")]
    MinP {
        /// The value given.
        found: f32,
    },
    /// A choice among no tokens.
    #[error("top_k is 0; it must be at least 1, or absent for the whole vocabulary")]
    TopK,
    /// A repetition penalty that is no factor.
    #[error("repetition_penalty is {found}; it must be a finite number above 0")]
    RepetitionPenalty {
        /// The value given.
        found: f32,
    },
    /// A presence or frequency penalty out of range.
    #[error("{name} is {found}; it must be from -2 to 2")]
    Penalty {
        /// Which of the two.
        name: &'static str,
        /// The value given.
        found: f32,
    },
    /// A bias out of range.
    #[error("the logit_bias of token {token} is {found}; it must be from -100 to 100")]
    Bias {
        /// The token.
        token: u32,
        /// The value given.
        found: f32,
    },
    /// A bias for no token.
    #[error("logit_bias names token {token}, which is not in the vocabulary of {vocabulary}")]
    BiasToken {
        /// The token.
        token: u32,
        /// Tokens that there are.
        vocabulary: usize,
    },
    /// A logit that is NaN or plus infinity.
    #[error("the logit of token {token} is {found}; the weights may be damaged")]
    NotFinite {
        /// The first such token.
        token: usize,
        /// Its logit.
        found: f32,
    },
    /// Nothing to choose: no logits, or none above minus infinity among those that are allowed.
    #[error("none of {count} tokens can be chosen")]
    NoToken {
        /// Logits given.
        count: usize,
    },
}

impl SampleError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Temperature { .. } => "0 is greedy, 1 is the model's own distribution",
            Self::TopP { .. } => "1, or leaving it out, keeps every token",
            Self::MinP { .. } => "0, or leaving it out, keeps every token",
            Self::TopK => "1 is greedy; leave it out to keep every token",
            Self::RepetitionPenalty { .. } => "1 changes nothing, 1.1 is usual",
            Self::Penalty { .. } => "0 changes nothing, above 0 makes repetition rarer",
            Self::Bias { .. } => "-100 forbids a token in practice, 100 forces it",
            Self::BiasToken { .. } => "token ids are those of the model's tokenizer.json",
            Self::NotFinite { .. } | Self::NoToken { .. } => {
                "compare the weights with where they came from"
            }
        }
    }
}

/// How to choose. The default is greedy and changes no logit.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerOptions {
    /// Divisor of the logits; 0 takes the best token.
    pub temperature: f32,
    /// Keep so many of the best; `None` keeps all.
    pub top_k: Option<usize>,
    /// Keep the smallest set of the best whose probabilities reach this; `None` keeps all.
    pub top_p: Option<f32>,
    /// Keep tokens with at least this share of the best one's probability; `None` keeps all.
    pub min_p: Option<f32>,
    /// Divisor of the positive and factor of the negative logits of tokens that came before, in the
    /// prompt or after it; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Taken off the logits of tokens that were made before; 0 changes nothing.
    pub presence_penalty: f32,
    /// Taken off the logit of a token for each time that it was made before; 0 changes nothing.
    pub frequency_penalty: f32,
    /// How many of the last tokens penalties look at; `None` looks at all.
    pub penalty_window: Option<usize>,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the draws; `None` takes one from the system.
    pub seed: Option<u64>,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_window: None,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

impl SamplerOptions {
    /// Whether these options make a choice.
    pub(super) fn check(&self) -> Result<(), SampleError> {
        let found = self.temperature;
        if !(found.is_finite() && found >= 0.0) {
            return Err(SampleError::Temperature { found });
        }
        match self.top_p {
            Some(found) if !(found > 0.0 && found <= 1.0) => {
                return Err(SampleError::TopP { found });
            }
            _ => {}
        }
        match self.min_p {
            Some(found) if !(0.0..=1.0).contains(&found) => {
                return Err(SampleError::MinP { found });
            }
            _ => {}
        }
        if self.top_k == Some(0) {
            return Err(SampleError::TopK);
        }
        let found = self.repetition_penalty;
        if !(found.is_finite() && found > 0.0) {
            return Err(SampleError::RepetitionPenalty { found });
        }
        for (name, found) in [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ] {
            if !(-PENALTY_MAX..=PENALTY_MAX).contains(&found) {
                return Err(SampleError::Penalty { name, found });
            }
        }
        for &(token, found) in &self.logit_bias {
            if !(-BIAS_MAX..=BIAS_MAX).contains(&found) {
                return Err(SampleError::Bias { token, found });
            }
        }
        Ok(())
    }
}
