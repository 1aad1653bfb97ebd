//! TRACE: what each layer makes of a prompt, position by position.
//!
//! A hook keeps what every layer adds to the residual stream of a block of positions; [`readout`] turns
//! that into numbers. Blocks are cut so that their vectors take bounded memory, whatever the prompt and
//! the model, and the rows of a block leave before the next is computed.
//!
//! Definitions are in `docs/lql/semantics.md`. Elsewhere: files of traces (`storage::trace`, written in
//! [`save`], read in [`open`]), logits and parts of them (`compute::model`).

mod open;
mod readout;
mod save;

use std::ops::Range;

use larql_compute::model::{CaptureTrace, Ffn, KvCache, Precision};
use larql_planner::physical::trace as plan;

pub(super) use open::TraceOpen;
use readout::{Reading, Readout, Stream, row};

use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::editing::applied::Applied;
use crate::failure::{Failure, code};
use crate::inference::{self, Run};
use crate::mounts::Model;

/// Memory for the vectors of one block.
const BLOCK_BYTES: usize = 32 << 20;
/// Positions of a block: as many as the decoder takes through the layers together.
const BLOCK_POSITIONS_MAX: usize = 256;

/// Runs a prompt and gives the rows of one block of positions after another.
pub(super) struct Trace {
    trace: plan::Trace,
    state: Option<State>,
    ready: Ready,
}

struct State {
    ffn: Box<dyn Ffn>,
    /// The prompt, and the one that is taken off.
    prompts: Vec<Prompt>,
    /// The token that is followed, where the statement names one.
    target: Option<u32>,
}

/// A prompt that is being read.
struct Prompt {
    tokens: Vec<u32>,
    cache: KvCache,
}

impl Prompt {
    fn new(model: &Model, edits: &Applied, text: &str) -> Result<Self, Failure> {
        Ok(Self::of(model, edits, inference::prompt_tokens(model, text)?))
    }

    /// Tokens that are to be read under edits.
    fn of(model: &Model, edits: &Applied, tokens: Vec<u32>) -> Self {
        let cache = inference::cache(model, Precision::Serving, tokens.len());
        Self { tokens, cache: cache.with_overlay(edits.overlay.clone()) }
    }

    /// Positions yet to be read.
    fn left(&self) -> Range<usize> {
        self.cache.len()..self.tokens.len()
    }
}

/// Positions of a block of that model.
fn block_positions(model: &Model) -> usize {
    let architecture = model.architecture();
    let bytes = (1 + 3 * architecture.layers()) * architecture.hidden_size * size_of::<f32>();
    (BLOCK_BYTES / bytes.max(1)).clamp(1, BLOCK_POSITIONS_MAX)
}

impl Trace {
    pub(super) fn new(trace: plan::Trace) -> Self {
        Self { trace, state: None, ready: Ready::default() }
    }

    fn begin(&self, work: &mut Work<'_>) -> Result<State, Failure> {
        let model = work.model()?;
        let edits = work.edits(&model)?;
        let trace = &self.trace;
        let texts = [Some(&trace.prompt), trace.other.as_ref()];
        let prompts = texts.into_iter().flatten().map(|text| Prompt::new(&model, &edits, text));
        let mut prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        if let [first, second] = &*prompts
            && trace.all_positions
            && first.tokens.len() != second.tokens.len()
        {
            let (first, second) = (first.tokens.len(), second.tokens.len());
            let message = format!("the prompts have {first} and {second} tokens");
            return Err(Failure::new(code::INVALID_PARAMETER, message).hint(
                "POSITIONS ALL compares prompts of equal length; POSITIONS LAST the ends of any",
            ));
        }
        let target = match &trace.target {
            None => None,
            Some(text) => {
                let named = inference::named_token(&model, text)?;
                if let Some(notice) = named.notice {
                    work.notice(notice, "FOR takes one token; write the one that is meant")?;
                }
                Some(named.id)
            }
        };
        let ffn = inference::ffn(trace.ffn);
        if let Some(wanted) = &trace.save {
            save::save(work, &model, &prompts[0].tokens, &*ffn, wanted)?;
        }
        if !trace.all_positions {
            for prompt in &mut prompts {
                let before = 0..prompt.tokens.len() - 1;
                if !before.is_empty() {
                    read(work, &model, &*ffn, prompt, before, None)?;
                }
            }
        }
        Ok(State { ffn, prompts, target })
    }

    /// The rows of the next block.
    fn block(&mut self, work: &mut Work<'_>) -> Result<Vec<Row>, Failure> {
        let model = work.model()?;
        let Some(State { ffn, prompts, target }) = &mut self.state else { return Ok(Vec::new()) };
        let count = block_positions(&model).min(prompts[0].left().len());
        if count == 0 {
            return Ok(Vec::new());
        }
        let position_first = prompts[0].left().start;
        let mut captures = Vec::new();
        for prompt in &mut *prompts {
            let mut capture = CaptureTrace::new();
            let block = prompt.left().start..prompt.left().start + count;
            read(work, &model, &**ffn, prompt, block, Some(&mut capture))?;
            captures.push(capture);
        }
        let mut readout = Readout::new(&model, work.engine().pool(), &**ffn)?;
        let hidden = model.architecture().hidden_size;
        let predicted = match target {
            Some(target) => vec![*target; count],
            None => {
                let last = captures[0].layers().last().map_or(&[][..], |layer| &layer.residual);
                readout.predicted(last, work.cancel)?
            }
        };
        let tokenizer = model.tokenizer()?;
        let mut rows = Vec::new();
        for (index, token) in predicted.into_iter().enumerate() {
            let streams: Vec<Stream<'_>> =
                captures.iter().map(|capture| Stream::of(capture, index, hidden)).collect();
            let mut readings = Vec::new();
            for stream in &streams {
                let layers = &self.trace.layers;
                let decompose = self.trace.decompose;
                readings.push(readout.read(stream, token, layers, decompose, work.cancel)?);
            }
            let mut readings = readings.into_iter();
            let first = readings.next().unwrap_or_default();
            let other = readings.next();
            for (place, reading) in first.into_iter().enumerate() {
                let reading = match (&other, &*streams) {
                    (Some(other), [first, second]) => {
                        Reading::difference(&reading, &other[place], first, second)
                    }
                    _ => reading,
                };
                rows.push(row(position_first + index, &reading, tokenizer));
            }
        }
        work.touch_passes(readout.meters());
        Ok(rows)
    }
}

/// Reads a range of a prompt's tokens, the next ones.
fn read(
    work: &mut Work<'_>,
    model: &Model,
    ffn: &dyn Ffn,
    prompt: &mut Prompt,
    range: Range<usize>,
    capture: Option<&mut CaptureTrace>,
) -> Result<(), Failure> {
    let mut run =
        Run::resume(model, work.engine().pool(), ffn, Precision::Serving, &mut prompt.cache)?;
    let hook = capture.map(|capture| capture as _);
    run.prefill(&prompt.tokens[range], hook, work.cancel)?;
    work.touch_passes(run.meters());
    Ok(())
}

impl Operator for Trace {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.state.is_none() {
            self.state = Some(self.begin(work)?);
        }
        if let Some(batch) = self.ready.batch() {
            return Ok(Some(batch));
        }
        self.ready = Ready::new(self.block(work)?);
        Ok(self.ready.batch())
    }
}
