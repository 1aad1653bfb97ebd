//! The COMPILE statement: finds the model, runs the pipeline.

use std::collections::HashMap;

use larql_compute::model::{Role, WeightKey};
use larql_compute::quant::Dtype;
use larql_planner::physical::plan::{self, CompileFormat};
use larql_planner::value::Value;
use larql_storage::checkpoint::{CheckpointKind, GgufMetadata, TensorDescription};

use super::mount_row::integer;
use super::{Operator, Row, Work};
use crate::failure::{Failure, code};
use crate::mounts::{Model, Source};
use crate::paths;
use crate::pipeline::compile::{self, Options, Origin, Other, Packed, SideFile};
use crate::pipeline::{OTHER_ROLE, SOURCE_METADATA};

/// Runs the job once and gives one row about what came of it.
pub(super) struct Compile {
    compile: Option<plan::Compile>,
}

impl Compile {
    pub(super) fn new(compile: plan::Compile) -> Self {
        Self { compile: Some(compile) }
    }
}

impl Operator for Compile {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(plan) = self.compile.take() else { return Ok(None) };
        if let Some(source) = &plan.source {
            let place = work.place();
            work.mounted = Some(work.engine().find_model(source, &place)?);
        }
        let model = work.model()?;
        let options = Options {
            destination: work.resolve(&plan.destination)?,
            format: plan.format,
            dtype: plan.dtype,
            overwrite: plan.overwrite,
            verify: plan.verify,
        };
        let engine = work.engine().clone();
        let side_file = |name: &str| model.side_file(name);
        let kept = kept_metadata(&model)?;
        let origin = origin(&model, kept.as_ref(), &side_file);
        let done = compile::compile(
            &work.files(),
            engine.pool(),
            &origin,
            &options,
            work.cancel,
            &mut |stage, done, total, unit| work.progress(stage, done, total, unit),
        )?;
        // Every weight is read once.
        work.touch(model.bytes());
        for note in &done.notes {
            work.notice(note.clone(), "")?;
        }
        let format = match plan.format {
            CompileFormat::Safetensors => "safetensors",
            CompileFormat::Gguf => "gguf",
        };
        Ok(Some(vec![vec![
            Value::text(options.destination.display().to_string()),
            Value::text(format),
            integer(done.files),
            integer(done.tensors),
            integer(done.bytes),
        ]]))
    }
}

/// The metadata that a vindex keeps of the GGUF file it was extracted from.
fn kept_metadata(model: &Model) -> Result<Option<GgufMetadata>, Failure> {
    let Source::Vindex(_) = model.source() else { return Ok(None) };
    let Some(bytes) = model.side_file(SOURCE_METADATA)? else { return Ok(None) };
    let kept = GgufMetadata::from_file(bytes);
    kept.map(Some).map_err(|problem| {
        let path = model.path().display();
        Failure::new(code::DAMAGED, format!("{path}: {SOURCE_METADATA}: {problem}"))
            .hint("extract the model again")
    })
}

/// What a mounted model is made of.
fn origin<'a>(
    model: &'a Model,
    kept: Option<&'a GgufMetadata>,
    side_file: &'a SideFile<'a>,
) -> Origin<'a> {
    let name = paths::stem(model.path());
    let mut names = HashMap::new();
    let mut types = HashMap::new();
    let mut packed = HashMap::new();
    let mut others = Vec::new();
    let mut source_kind = CheckpointKind::Safetensors;
    let (checkpoint, at_source_precision) = match model.source() {
        Source::Checkpoint(source) => {
            for weight in source.weights() {
                if let Some(tensor) = source.stored_tensors(weight).next() {
                    names.insert(weight.key, tensor.name.to_owned());
                }
            }
            others.extend(source.other_tensors().map(Other::from));
            source_kind = source.checkpoint().kind();
            (Some(source.checkpoint()), true)
        }
        Source::Vindex(vindex) => {
            let vindex = vindex.vindex();
            let at_source_precision = vindex.manifest().dtype == "source";
            if kept.is_some() {
                source_kind = CheckpointKind::Gguf;
            }
            for tensor in vindex.tensors() {
                let record = tensor.record;
                if let Some(name) = record.role.strip_prefix(OTHER_ROLE) {
                    let description = TensorDescription {
                        name: name.to_owned(),
                        format: record.dtype.to_uppercase(),
                        shape: record.shape.iter().map(|&size| size as usize).collect(),
                    };
                    others.push(Other { description, bytes: tensor.bytes });
                } else if let Ok(role) = record.role.parse::<Role>() {
                    let key = WeightKey { role, layer: record.layer, expert: record.expert };
                    names.insert(key, record.name.clone());
                    types.extend(Dtype::from_tag(&record.dtype).map(|dtype| (key, dtype)));
                    if at_source_precision && kept.is_none() && vindex.ancestor().is_none() {
                        packed.extend(Packed::of(vindex, &tensor).map(|packed| (key, packed)));
                    }
                }
            }
            (None, at_source_precision)
        }
    };
    Origin {
        architecture: model.architecture(),
        weights: model,
        names,
        types,
        packed,
        others,
        source_kind,
        at_source_precision,
        checkpoint,
        metadata: checkpoint.and_then(|checkpoint| checkpoint.gguf()).or(kept),
        side_file,
        name,
    }
}
