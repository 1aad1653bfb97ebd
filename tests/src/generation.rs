//! Generations as a client asks for them, gathered whole.

use larql_client::{CallError, Client, GenerateEvent, GenerateRequest, GenerationSummary};

/// A token with what was told about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that became whole with it.
    pub text: String,
    /// Its log probability.
    pub logprob: Option<f32>,
    /// Likely tokens with their log probabilities.
    pub alternatives: Vec<(u32, f32)>,
}

/// What a generation gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Its whole text.
    pub text: String,
    /// How it ended.
    pub done: GenerationSummary,
}

impl Generated {
    /// The tokens' ids.
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}

/// A greedy request.
pub fn request(model: &str, prompt: &str, tokens_max: u32) -> GenerateRequest {
    GenerateRequest {
        model: model.to_owned(),
        prompt: prompt.to_owned(),
        tokens_max,
        ..GenerateRequest::default()
    }
}

/// Generates to the end.
///
/// # Errors
/// As the daemon answers.
pub async fn generate(client: &Client, request: GenerateRequest) -> Result<Generated, CallError> {
    let mut generation = client.generate(request).await?;
    let (mut tokens, mut all) = (Vec::new(), String::new());
    while let Some(event) = generation.next().await? {
        match event {
            GenerateEvent::Token { id, text, logprob, alternatives } => {
                all += &text;
                let alternatives =
                    alternatives.into_iter().map(|each| (each.id, each.logprob)).collect();
                // The text after the last token belongs to none.
                if id != u32::MAX {
                    tokens.push(Token { id, text, logprob, alternatives });
                }
            }
            GenerateEvent::Done(done) => return Ok(Generated { tokens, text: all, done }),
        }
    }
    panic!("a generation ended without Done");
}
