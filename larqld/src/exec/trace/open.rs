//! TRACE OPEN: rows from a saved trace, as the run that it keeps gave them.

use larql_compute::model::DenseFfn;
use larql_planner::layers::LayerSet;
use larql_storage::trace::{ContextVectors, Node, TraceFile};

use super::super::rows::Ready;
use super::super::{Operator, Row, Work};
use super::readout::{Reading, Readout, Stream, by_layer, norm, row};
use super::save::failure;
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// Reads a saved trace, the tokens of a block or the windows of one at a time.
pub(in super::super) struct TraceOpen {
    path: String,
    file: Option<TraceFile>,
    /// The next token or window.
    next: u32,
    ready: Ready,
}

/// Tokens or windows that are read at a time.
const AT_ONCE: u32 = 16;

impl TraceOpen {
    pub(in super::super) fn new(path: String) -> Self {
        Self { path, file: None, next: 0, ready: Ready::default() }
    }

    fn open(&self, work: &mut Work<'_>) -> Result<TraceFile, Failure> {
        let path = work.resolve(&self.path)?;
        let file = TraceFile::open(&work.files(), &path).map_err(|error| failure(&path, error))?;
        let model = work.model()?;
        let (hidden, layers) = (model.architecture().hidden_size as u64, model.layers());
        let fits =
            u64::from(file.hidden()) == hidden && file.layers().is_none_or(|found| found == layers);
        let refuse = |message: String| {
            Err(Failure::new(code::INVALID_PARAMETER, format!("{}: {message}", path.display()))
                .hint("USE the model that was traced"))
        };
        if !fits {
            let of_layers = |layers: u32| format!("{layers} layers and ");
            let found = file.layers().map(of_layers).unwrap_or_default();
            return refuse(format!(
                "it is of a model with {found}vectors of {}; the one in use has {}vectors of {hidden}",
                file.hidden(),
                of_layers(layers),
            ));
        }
        match file.base() {
            Some(base) if base.to_string() != model.base_hash() => {
                refuse(format!("it is of the model {base}, not of the one in use"))
            }
            Some(_) => Ok(file),
            None => {
                work.notice(
                    "the file does not name its model; its rows are right if that is in use",
                    "",
                )?;
                Ok(file)
            }
        }
    }

    fn block(&mut self, work: &mut Work<'_>) -> Result<Vec<Row>, Failure> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let model = work.model()?;
        let mut readout = Readout::new(&model, work.engine().pool(), &DenseFfn)?;
        let mut rows = Vec::new();
        let count = match file {
            TraceFile::Chain(chain) => chain.header().tokens,
            TraceFile::Boundaries(store) => store.count(),
            TraceFile::Context(context) => context.count(),
        };
        let end = count.min(self.next.saturating_add(AT_ONCE));
        for index in self.next..end {
            let (position, readings, bytes) = match file {
                TraceFile::Chain(_) => chain_token(work, &model, &mut readout, file, index)?,
                _ => window(work, &model, &mut readout, file, index)?,
            };
            work.touch(bytes);
            let tokenizer = model.tokenizer()?;
            rows.extend(readings.iter().map(|reading| row(position, reading, tokenizer)));
        }
        self.next = end;
        work.touch_passes(readout.meters());
        // Whatever was read of a file that shrank in the meantime was zeros.
        file.check().map_err(|error| Failure::io(&self.path, &error))?;
        Ok(rows)
    }
}

/// A position with its readings, and the bytes of the file that were read for them.
type Read = (usize, Vec<Reading>, u64);

fn chain_token(
    work: &Work<'_>,
    model: &Model,
    readout: &mut Readout<'_>,
    file: &TraceFile,
    token: u32,
) -> Result<Read, Failure> {
    let TraceFile::Chain(chain) = file else { return Ok((0, Vec::new(), 0)) };
    let mut nodes: Vec<Node> = Vec::new();
    let mut bytes = 0;
    for place in 0..=chain.header().layers {
        let mut node = Node::default();
        chain.read(token, place, &mut node);
        bytes += 3 * size_of_val(&*node.residual) as u64;
        nodes.push(node);
    }
    // What a layer's scalar took away is no part of what its network added.
    for layer in 0..nodes.len() - 1 {
        let scalar = readout.scalar(layer);
        if scalar != 1.0 && scalar != 0.0 {
            let (before, after) = nodes.split_at_mut(layer + 1);
            let (before, node) = (&before[layer].residual, &mut after[0]);
            let stream = before.iter().zip(&node.attention).zip(&node.residual);
            for (network, ((&before, &attention), &after)) in node.network.iter_mut().zip(stream) {
                let added = f64::from(after) / scalar - f64::from(before) - f64::from(attention);
                *network = added as f32;
            }
        }
    }
    let layers = nodes[1..].iter();
    let stream = Stream {
        input: &nodes[0].residual,
        layers: layers
            .map(|node| [&node.attention[..], &node.network[..], &node.residual[..]])
            .collect(),
    };
    let predicted = readout.predicted(&nodes[nodes.len() - 1].residual, work.cancel)?;
    let all = LayerSet::all(model.layers());
    let readings = readout.read(&stream, predicted[0], &all, false, work.cancel)?;
    Ok((token as usize, readings, bytes))
}

/// A window's end: the last layer's stream, and what the critical layers added where the file keeps it.
fn window(
    work: &Work<'_>,
    model: &Model,
    readout: &mut Readout<'_>,
    file: &TraceFile,
    index: u32,
) -> Result<Read, Failure> {
    let mut vectors = ContextVectors::default();
    let (window, critical) = match file {
        TraceFile::Boundaries(store) => (store.read(index, &mut vectors.residual), &[][..]),
        TraceFile::Context(context) => {
            (context.read(index, &mut vectors), &context.header().critical[..])
        }
        TraceFile::Chain(_) => (None, &[][..]),
    };
    let Some(window) = window else { return Ok((0, Vec::new(), 0)) };
    let ContextVectors { residual, network, attention } = &vectors;
    let predicted = readout.predicted(residual, work.cancel)?[0];
    let token = readout.token(predicted)?;
    let factor = token.factor(residual);
    let look = readout.look(residual, predicted, work.cancel)?;
    let mut readings = vec![Reading {
        layer: model.layers().checked_sub(1),
        rank: look.first().map(|(rank, ..)| *rank as i64),
        probability: look.first().map(|(_, probability, _)| *probability),
        residual_norm: Some(norm(residual)),
        top: look.first().map(|(.., top)| *top),
        ..Reading::default()
    }];
    for (place, &layer) in critical.iter().enumerate() {
        let found = readings.iter().position(|reading| reading.layer == Some(layer.into()));
        let at = found.unwrap_or_else(|| {
            readings.push(Reading { layer: Some(layer.into()), ..Reading::default() });
            readings.len() - 1
        });
        let reading = &mut readings[at];
        if let Some(network) = network.get(place) {
            let kept = readout.kept_after(layer.into());
            reading.network_logit = Some(token.part(network, factor) * kept);
            reading.network_norm = Some(norm(network));
        }
        if let Some(attention) = attention.get(place) {
            let kept = readout.kept_in(layer.into());
            reading.attention_logit = Some(token.part(attention, factor) * kept);
            reading.attention_norm = Some(norm(attention));
        }
    }
    readings.sort_by(by_layer);
    let vectors = 1 + network.len() + attention.len();
    let position = usize::try_from(window.boundary()).unwrap_or(usize::MAX);
    Ok((position, readings, (vectors * size_of_val(&**residual)) as u64))
}

impl Operator for TraceOpen {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.file.is_none() {
            self.file = Some(self.open(work)?);
        }
        if let Some(batch) = self.ready.batch() {
            return Ok(Some(batch));
        }
        self.ready = Ready::new(self.block(work)?);
        Ok(self.ready.batch())
    }
}
