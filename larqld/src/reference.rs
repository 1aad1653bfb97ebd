//! What reference checks compare: logits, the residual stream after each layer, greedy tokens.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{CaptureResiduals, DenseFfn, Precision};
use larql_compute::sample::greedy;

use crate::failure::Failure;
use crate::inference::{self, Run};
use crate::mounts::Model;

/// What to run.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt.
    pub token_ids: Vec<u32>,
    /// How many tokens to continue it by.
    pub greedy_tokens: u32,
    /// The serving kernels instead of exact arithmetic.
    pub fast: bool,
}

/// The residual stream after one layer, at the last position.
#[derive(Debug, Clone)]
pub struct Residual {
    /// L2 norm.
    pub norm: f64,
    /// The first eight numbers.
    pub first8: Vec<f32>,
}

/// The outcome.
#[derive(Debug, Clone)]
pub struct Answer {
    /// `[vocabulary]`, last position, after any final soft cap.
    pub logits: Vec<f32>,
    /// Each layer in order.
    pub layers: Vec<Residual>,
    /// The continuation, end tokens not heeded.
    pub greedy: Vec<u32>,
}

/// Runs the prompt.
///
/// # Errors
/// When it does not fit the model, or is cancelled.
pub fn reference(
    model: &Model,
    pool: &Pool,
    request: &Request,
    cancel: &Cancel,
) -> Result<Answer, Failure> {
    inference::check_tokens(model, &request.token_ids, request.greedy_tokens as usize)?;
    let precision = if request.fast { Precision::Serving } else { Precision::Exact };
    let positions = request.token_ids.len() + request.greedy_tokens as usize;
    let ffn = DenseFfn;
    let mut run = Run::new(model, pool, &ffn, precision, positions)?;
    let mut capture = CaptureResiduals::new();
    run.prefill(&request.token_ids, Some(&mut capture), cancel)?;
    let logits = run.logits().to_vec();
    let mut tokens = Vec::new();
    for index in 0..request.greedy_tokens {
        let token = greedy(run.logits())?;
        tokens.push(token);
        if index + 1 < request.greedy_tokens {
            run.decode(token, cancel)?;
        }
    }
    model.check()?;
    let residual = |row: &Vec<f32>| Residual {
        norm: row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt(),
        first8: row.iter().take(8).copied().collect(),
    };
    Ok(Answer { logits, layers: capture.layers().iter().map(residual).collect(), greedy: tokens })
}
