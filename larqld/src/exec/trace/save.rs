//! TRACE … SAVE: a run of the model, kept in a file.

use larql_compute::model::{CaptureTrace, Ffn};
use larql_planner::physical::trace::{TraceFormat, TraceSave};
use larql_storage::trace::{
    BoundaryHeader, BoundaryWriter, ChainHeader, ChainWriter, ContextHeader, ContextWriter, Tier,
    TraceFileError,
};

use super::readout::Stream;
use super::{Prompt, Work, block_positions, read};
use crate::failure::{Failure, code};
use crate::mounts::Model;

/// A file being written, of any format.
enum Writer {
    Chain(ChainWriter),
    Boundaries(BoundaryWriter, u32),
    Context(ContextWriter, u32, Vec<u8>),
}

/// Runs the tokens and writes the file; says what it wrote. Nothing is left of a run that fails.
///
/// # Errors
/// `EXISTS` where something is there, `LIMIT` for what the format cannot hold, `FORBIDDEN` for a path
/// that the session may not name; when cancelled; as the run.
pub(super) fn save(
    work: &mut Work<'_>,
    model: &Model,
    tokens: &[u32],
    ffn: &dyn Ffn,
    wanted: &TraceSave,
) -> Result<(), Failure> {
    let path = work.resolve(&wanted.path)?;
    let mut writer = create(work, model, tokens.len(), &path, &wanted.format)
        .map_err(|error| failure(&path, error))?;
    let edits = work.edits(model)?;
    let mut prompt = Prompt::of(model, &edits, tokens.to_vec());
    let (block, hidden) = (block_positions(model), model.architecture().hidden_size);
    let mut capture = CaptureTrace::new();
    while !prompt.left().is_empty() {
        let first = prompt.left().start;
        let end = prompt.left().end.min(first + block);
        read(work, model, ffn, &mut prompt, first..end, Some(&mut capture))?;
        for index in 0..end - first {
            let stream = Stream::of(&capture, index, hidden);
            write(&mut writer, first + index, tokens.len(), &stream)
                .map_err(|error| failure(&path, error))?;
        }
        work.progress("trace", end as u64, tokens.len() as u64, "positions")?;
    }
    let bytes = match writer {
        Writer::Chain(writer) => writer.finish(),
        Writer::Boundaries(writer, _) => writer.finish(),
        Writer::Context(writer, ..) => writer.finish(),
    };
    let bytes = bytes.map_err(|error| failure(&path, error))?;
    let format = &wanted.format;
    work.notice(
        format!("saved {} positions to {}: {format}, {bytes} bytes", tokens.len(), path.display()),
        "",
    )
}

/// What a file's refusal is to the user.
pub(super) fn failure(path: &std::path::Path, error: TraceFileError) -> Failure {
    let code = match &error {
        TraceFileError::Exists { .. } => code::EXISTS,
        TraceFileError::Busy { .. } => code::BUSY,
        TraceFileError::TooLarge { .. } => code::LIMIT,
        TraceFileError::Magic { .. } | TraceFileError::Version { .. } => code::UNSUPPORTED_FORMAT,
        TraceFileError::Incomplete { .. } => code::INTERNAL,
        TraceFileError::Io { path, source, .. } => return Failure::io(path.display(), source),
        _ => code::DAMAGED,
    };
    let message = match &error {
        TraceFileError::Exists { .. } | TraceFileError::Busy { .. } => error.to_string(),
        _ => format!("{}: {error}", path.display()),
    };
    Failure::new(code, message).hint(error.hint())
}

fn create(
    work: &Work<'_>,
    model: &Model,
    positions: usize,
    path: &std::path::Path,
    format: &TraceFormat,
) -> Result<Writer, TraceFileError> {
    let files = &work.files();
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (hidden, layers) = (narrow(model.architecture().hidden_size), model.layers());
    let tokens = narrow(positions);
    let base = model.base_hash().parse().ok();
    let size = |window: &Option<u64>| {
        window.and_then(|window| u32::try_from(window).ok()).unwrap_or(tokens).min(tokens)
    };
    Ok(match format {
        TraceFormat::Chain => {
            let header = ChainHeader { hidden, layers, tokens, base };
            Writer::Chain(ChainWriter::create(files, path, &header)?)
        }
        TraceFormat::Boundaries { window } => {
            let window = size(window);
            let header = BoundaryHeader { hidden, window, tokens, base };
            Writer::Boundaries(BoundaryWriter::create(files, path, &header)?, window)
        }
        TraceFormat::Context { window, critical, attention } => {
            let tier = match (critical.is_empty(), attention) {
                (true, _) => Tier::Residual,
                (false, false) => Tier::Network,
                (false, true) => Tier::Attention,
            };
            let (window, critical) = (size(window), critical.clone());
            let header = ContextHeader { hidden, layers, window, tier, critical, tokens, base };
            let writer = ContextWriter::create(files, path, &header)?;
            Writer::Context(writer, window, header.critical)
        }
    })
}

/// Writes what the file keeps of one position.
fn write(
    writer: &mut Writer,
    position: usize,
    positions: usize,
    stream: &Stream<'_>,
) -> Result<(), TraceFileError> {
    let is_boundary = |window: u32| {
        position == positions - 1 || (position as u64 + 1).is_multiple_of(window.into())
    };
    match writer {
        Writer::Chain(writer) => {
            let zeros = vec![0.0; stream.input.len()];
            writer.node(stream.input, &zeros, &zeros)?;
            (0..stream.layers.len()).try_for_each(|layer| {
                let [attention, _, residual] = stream.layers[layer];
                writer.node(residual, attention, &rest(stream, layer))
            })
        }
        Writer::Boundaries(writer, window) if is_boundary(*window) => {
            writer.boundary(stream.layers.last().map_or(stream.input, |layer| layer[2]))
        }
        Writer::Context(writer, window, critical) if is_boundary(*window) => {
            let networks: Vec<Vec<f32>> =
                critical.iter().map(|&layer| rest(stream, layer.into())).collect();
            let networks: Vec<&[f32]> = networks.iter().map(Vec::as_slice).collect();
            let attention: Vec<&[f32]> =
                critical.iter().map(|&layer| stream.layers[usize::from(layer)][0]).collect();
            let residual = stream.layers.last().map_or(stream.input, |layer| layer[2]);
            writer.boundary(residual, &networks, &attention)
        }
        _ => Ok(()),
    }
}

/// What a layer changed beside its attention, as files have it: the stream after less the stream before
/// and attention. Where a layer only adds, that is what its network added, but for rounding.
fn rest(stream: &Stream<'_>, layer: usize) -> Vec<f32> {
    let before = if layer == 0 { stream.input } else { stream.layers[layer - 1][2] };
    let [attention, _, after] = stream.layers[layer];
    let rest = before.iter().zip(attention).zip(after);
    rest.map(|((&before, &attention), &after)| {
        (f64::from(after) - f64::from(before) - f64::from(attention)) as f32
    })
    .collect()
}
