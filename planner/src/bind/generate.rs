//! GENERATE: how tokens are chosen, and when to stop.

use super::BindError;
use super::statement::{Bound, Reader, literal};
use crate::catalog::{Catalog, INFERENCE_COMPONENTS};
use crate::logical::Plan;
use crate::logical::plan::GENERATE_COLUMNS;
use crate::physical::generate::Generate;
use crate::physical::plan::Operator;
use crate::planned::Role;
use crate::syntax::{Span, ast};

/// Tokens of a GENERATE without MAX, as many as of `larql run` without `-n`.
const GENERATE_MAX: u64 = 256;

/// Binds a GENERATE.
///
/// # Errors
/// Nothing in use, what the mount lacks, options that make no choice.
pub(super) fn bind(
    request: &ast::Generate,
    span: Span,
    catalog: &dyn Catalog,
) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    reader.needs(&INFERENCE_COMPONENTS)?;
    let refuse = |what: String, hint: &str| {
        Err(BindError::Meaningless { what, span: Some(span), hint: hint.to_owned() })
    };
    let temperature = request.temperature.unwrap_or(0.0);
    // Sampling computes in 32 bits.
    if !(0.0..=f64::from(f32::MAX)).contains(&temperature) {
        return refuse(
            format!("TEMPERATURE {temperature:e} makes no distribution"),
            "it is a number from 0; 0 takes the best token",
        );
    }
    if let Some(top_p) = request.top_p.filter(|top_p| !(*top_p > 0.0 && *top_p <= 1.0)) {
        return refuse(
            format!("TOP_P {top_p} makes no choice"),
            "it is above 0 and at most 1; leave it out for all tokens",
        );
    }
    let draws = [
        ("TOP_K", request.top_k.is_some()),
        ("TOP_P", request.top_p.is_some()),
        ("SEED", request.seed.is_some()),
    ];
    if temperature == 0.0
        && let Some((name, _)) = draws.into_iter().find(|(_, given)| *given)
    {
        return refuse(
            format!("{name} changes nothing where the best token is taken"),
            "add TEMPERATURE 1, or another above 0",
        );
    }
    let operator = Operator::Generate(Generate {
        prompt: literal(&request.prompt)?,
        tokens_max: request.tokens_max.unwrap_or(GENERATE_MAX),
        temperature,
        top_k: request.top_k,
        top_p: request.top_p,
        seed: request.seed,
        stop: request.stop.iter().map(|stop| stop.value.clone()).collect(),
        ffn: reader.ffn(),
    });
    Ok(reader.bound(Plan::leaf(operator, &GENERATE_COLUMNS), "GENERATE", Role::Infer))
}
