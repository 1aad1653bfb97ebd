//! GENERATE: a prompt continued, a row for each token as it is made.
//!
//! The generation runs in the batch beside others, exactly as one that a client asks for without a
//! statement; with a walk, which shares no pass, it runs here by itself. Whoever stops reading ends it.

use larql_compute::model::{PassMeters, Precision};
use larql_compute::sample::SamplerOptions;
use larql_planner::physical::generate as plan;
use larql_planner::physical::plan::FfnPath;
use larql_planner::value::Value;
use tokio::sync::mpsc;

use super::{Operator, Row, Work};
use crate::batch;
use crate::failure::{Failure, code};
use crate::generation::{Prompt, Reason, Request, Sequence, TOKENS_MAX, TokenEvent};
use crate::inference::{self, Run};

/// Tokens that may be ahead of whoever reads rows.
const EVENTS_AHEAD: usize = 32;

/// Continues a prompt.
pub(super) struct Generate {
    generate: plan::Generate,
    /// What is made; none before the first row is asked for.
    events: Option<Events>,
    /// Position of the next token.
    position: usize,
}

enum Events {
    /// From the batch.
    Stream(mpsc::Receiver<Result<batch::Event, Failure>>),
    /// Made already.
    Ready(std::vec::IntoIter<TokenEvent>),
}

impl Generate {
    pub(super) fn new(generate: plan::Generate) -> Self {
        Self { generate, events: None, position: 0 }
    }

    fn request(&self) -> Result<Request, Failure> {
        let plan::Generate { prompt, tokens_max, temperature, top_k, top_p, seed, stop, .. } =
            &self.generate;
        let tokens_max = u32::try_from(*tokens_max)
            .ok()
            .filter(|most| *most <= TOKENS_MAX)
            .ok_or_else(|| {
                let message = format!("MAX {tokens_max}: at most {TOKENS_MAX} tokens");
                Failure::new(code::INVALID_PARAMETER, message).hint("ask for fewer")
            })?;
        let sampler = SamplerOptions {
            temperature: *temperature as f32,
            top_k: top_k.map(|k| usize::try_from(k).unwrap_or(usize::MAX)),
            top_p: top_p.map(|p| p as f32),
            seed: *seed,
            ..SamplerOptions::default()
        };
        Ok(Request {
            tokens_max,
            sampler,
            stop: stop.clone(),
            logprobs: Some(0),
            ..Request::new(Prompt::Text(prompt.to_string()))
        })
    }

    fn begin(&mut self, work: &mut Work<'_>) -> Result<Events, Failure> {
        let model = work.model()?;
        let request = Request { edits: work.edits(&model)?, ..self.request()? };
        self.position = inference::prompt_tokens(&model, &self.generate.prompt)?.len();
        match self.generate.ffn {
            FfnPath::Dense => {
                let (events, receiver) = mpsc::channel(EVENTS_AHEAD);
                let principal = work.context.principal();
                let batching = work.engine().batching();
                batching.generate(
                    &model,
                    principal,
                    &request,
                    work.cancel,
                    events,
                    Box::new(()),
                )?;
                Ok(Events::Stream(receiver))
            }
            FfnPath::Walk { .. } => self.walk(work, &request).map(Events::Ready),
        }
    }

    /// Makes all tokens by a walk.
    fn walk(
        &self,
        work: &mut Work<'_>,
        request: &Request,
    ) -> Result<std::vec::IntoIter<TokenEvent>, Failure> {
        let model = work.model()?;
        let mut sequence = Sequence::new(&model, request)?;
        let (ffn, pool) = (inference::ffn(self.generate.ffn), work.engine().pool());
        let positions = sequence.positions_max();
        let run = Run::new(&model, pool, &*ffn, Precision::Serving, positions)?;
        let mut run = run.under(sequence.edits());
        let mut made = Vec::new();
        loop {
            run.prefill(sequence.feed(), None, work.cancel)?;
            let matches = [run.matches().to_vec()];
            let advance = sequence.advance(run.logits(), &matches)?;
            made.extend(advance.events);
            if let Some(reason) = advance.finished {
                work.touch_passes(run.meters());
                self.end(work, reason, sequence.generated())?;
                return Ok(made.into_iter());
            }
        }
    }

    /// Says why it ended.
    fn end(&self, work: &Work<'_>, reason: Reason, tokens: usize) -> Result<(), Failure> {
        let why = match reason {
            Reason::Stop => "the text is complete",
            Reason::Length => "there are as many tokens as MAX allows",
            Reason::Context => "the context is full",
        };
        let tokens = if tokens == 1 { "one token".to_owned() } else { format!("{tokens} tokens") };
        work.notice(format!("ended after {tokens}: {why}"), "")
    }

    /// The next token, or text that was left at the end.
    fn next_event(&mut self, work: &mut Work<'_>) -> Result<Option<TokenEvent>, Failure> {
        let stream = match &mut self.events {
            None => return Ok(None),
            Some(Events::Ready(made)) => return Ok(made.next()),
            Some(Events::Stream(stream)) => stream,
        };
        match stream.blocking_recv() {
            None => Ok(None),
            Some(Err(failure)) => Err(failure),
            Some(Ok(batch::Event::Token(event))) => Ok(Some(event)),
            Some(Ok(batch::Event::Done { finished, meters, .. })) => {
                let meters: PassMeters = meters;
                work.touch_passes(&meters);
                self.end(work, finished.reason, finished.generated_tokens)?;
                Ok(None)
            }
        }
    }
}

impl Operator for Generate {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.events.is_none() {
            self.events = Some(self.begin(work)?);
        }
        let model = work.model()?;
        let Some(event) = self.next_event(work)? else { return Ok(None) };
        let tokenizer = model.tokenizer()?;
        let mut row = match event.id {
            Some(id) => {
                let position = self.position;
                self.position += 1;
                let probability = event.logprobs.map(|logprobs| logprobs.chosen.exp());
                vec![
                    Value::Integer(position as i64),
                    Value::Text(tokenizer.word(id)),
                    Value::Integer(id.into()),
                    probability.map_or(Value::Null, Value::Score),
                ]
            }
            None => vec![Value::Null; 4],
        };
        row.push(Value::text(event.text));
        Ok(Some(vec![row]))
    }
}
