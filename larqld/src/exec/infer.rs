//! INFER: the next token of a prompt.

use larql_compute::model::Precision;
use larql_compute::sample::softmax_top_k;
use larql_planner::physical::plan::{self, FfnPath};
use larql_planner::value::Value;

use super::{Operator, Row, Work};
use crate::failure::Failure;
use crate::inference::{self, Run};

/// Runs the prompt once and gives the most probable tokens.
pub(super) struct Infer {
    infer: Option<plan::Infer>,
}

impl Infer {
    pub(super) fn new(infer: plan::Infer) -> Self {
        Self { infer: Some(infer) }
    }
}

impl Operator for Infer {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(infer) = self.infer.take() else { return Ok(None) };
        let model = work.model()?;
        let tokens = inference::prompt_tokens(&model, &infer.prompt)?;
        let edits = work.edits(&model)?;
        let (logits, retrieved) = match infer.ffn {
            FfnPath::Dense => {
                let (batching, principal) = (work.engine().batching(), work.context.principal());
                let inferred = batching.infer(&model, principal, tokens, &edits, work.cancel)?;
                work.touch_passes(&inferred.meters);
                (inferred.logits, inferred.retrieved)
            }
            // A walk reads the weights in an order of its own: it shares no pass.
            FfnPath::Walk { .. } => {
                let (ffn, pool) = (inference::ffn(infer.ffn), work.engine().pool());
                let run = Run::new(&model, pool, &*ffn, Precision::Serving, tokens.len())?;
                let mut run = run.under(&edits);
                run.prefill(&tokens, None, work.cancel)?;
                work.touch_passes(run.meters());
                let mut logits = run.logits().to_vec();
                let retrieved = edits.force(&model, &tokens, run.matches(), &mut logits)?;
                (logits, retrieved)
            }
        };
        let tokenizer = model.tokenizer()?;
        let most = usize::try_from(infer.top).unwrap_or(usize::MAX);
        let rows = softmax_top_k(&logits, most).into_iter().zip(1..).map(
            |((id, logit, probability), rank)| {
                let mut row = vec![
                    Value::Integer(rank),
                    Value::Text(tokenizer.word(id)),
                    Value::Integer(id.into()),
                    Value::Score(probability),
                    Value::Score(logit),
                    Value::text(if retrieved == Some(id) { "knn" } else { "model" }),
                ];
                if infer.compare {
                    row.push(Value::text(match infer.ffn {
                        FfnPath::Dense => "dense",
                        FfnPath::Walk { .. } => "walk",
                    }));
                }
                row
            },
        );
        let rows: Vec<Row> = rows.collect();
        Ok((!rows.is_empty()).then_some(rows))
    }
}
