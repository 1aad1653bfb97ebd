//! `larql dev`: output for reference checks.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::Failure;
use super::args::DevLogits;
use crate::client::working_directory;
use crate::event::{LayerResidual, Logits, LogitsRequest};
use crate::shell::render::write_json;
use crate::shell::{Outcome, Shell};
use crate::value::Value;

/// How many of the largest logits are shown to people.
const SHOWN: usize = 10;

/// Runs token ids and tells logits, residuals and the greedy continuation.
pub(super) async fn logits(arguments: &DevLogits, shell: &mut Shell) -> Result<(), Failure> {
    let request = LogitsRequest {
        model: arguments.model.clone(),
        working_directory: working_directory(),
        token_ids: arguments.ids.clone(),
        greedy_tokens: arguments.greedy,
        fast: arguments.fast,
    };
    let is_json = arguments.json || shell.display().format.is_json;
    shell.client().await?;
    let (client, interrupts) = shell.client_and_interrupts()?;
    let logits = tokio::select! {
        logits = client.logits(request) => logits?,
        () = interrupts.next() => return Err(Failure::Ended(Outcome::Abandoned)),
    };
    let text = if is_json { json(&logits) } else { table(&logits) };
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// One object: `logits`, `layers` (`layer`, `norm`, `first8`), `greedy`.
fn json(answer: &Logits) -> String {
    let scores = |scores: &[f32]| Value::List(scores.iter().map(|&score| score.into()).collect());
    let layer = |residual: &LayerResidual| {
        Value::Object(vec![
            ("layer".to_owned(), i64::from(residual.layer).into()),
            ("norm".to_owned(), residual.norm.into()),
            ("first8".to_owned(), scores(&residual.first8)),
        ])
    };
    let greedy = answer.greedy.iter().map(|&id| i64::from(id).into()).collect();
    let object = Value::Object(vec![
        ("logits".to_owned(), scores(&answer.logits)),
        ("layers".to_owned(), Value::List(answer.layers.iter().map(layer).collect())),
        ("greedy".to_owned(), Value::List(greedy)),
    ]);
    let mut json = String::new();
    write_json(&object, &mut json);
    json
}

/// The largest logits, the norm after each layer, the continuation: for people.
fn table(answer: &Logits) -> String {
    let mut ranked: Vec<(usize, f32)> = answer.logits.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut text = format!("{} logits, the largest:\n", answer.logits.len());
    for (id, logit) in ranked.iter().take(SHOWN) {
        let _ = writeln!(text, "  token {id:>7}  {logit:>12.6}");
    }
    text.push_str("residual stream after each layer, last position:\n");
    for residual in &answer.layers {
        let first = residual.first8.iter().take(4).map(|value| format!("{value:>10.5}"));
        let first = first.collect::<Vec<_>>().join(" ");
        let _ = writeln!(
            text,
            "  layer {:>3}  norm {:>12.5}  {first} …",
            residual.layer, residual.norm
        );
    }
    let greedy: Vec<String> = answer.greedy.iter().map(u32::to_string).collect();
    match greedy.is_empty() {
        true => text.truncate(text.trim_end().len()),
        false => text.push_str(&format!("greedy: {}", greedy.join(","))),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_fields_of_the_contract_and_keeps_every_bit() {
        let answer = Logits {
            logits: vec![0.1, -3.0e-9],
            layers: vec![LayerResidual { layer: 0, norm: 1.5, first8: vec![0.25; 8] }],
            greedy: vec![7, 9],
        };
        let parsed: serde_json::Value = serde_json::from_str(&json(&answer)).unwrap();
        assert_eq!(parsed["logits"][0].to_string().parse::<f32>(), Ok(0.1));
        assert_eq!(parsed["logits"][1].to_string().parse::<f32>(), Ok(-3.0e-9));
        assert_eq!(parsed["layers"][0]["first8"].as_array().unwrap().len(), 8);
        assert_eq!(parsed["layers"][0]["norm"], 1.5);
        assert_eq!(parsed["greedy"], serde_json::json!([7, 9]));
    }

    #[test]
    fn people_see_the_largest_logit_first() {
        let answer = Logits { logits: vec![0.5, 9.0, 2.0], layers: vec![], greedy: vec![] };
        let text = table(&answer);
        assert!(text.lines().nth(1).unwrap().contains("token       1"), "{text}");
    }
}
