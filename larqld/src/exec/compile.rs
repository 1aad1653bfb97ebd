//! The COMPILE statement: finds the model and its edits, runs the pipeline, and asks what was written what the
//! model with its edits is asked.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use larql_compute::model::{Role, WeightKey};
use larql_compute::quant::Dtype;
use larql_planner::physical::plan::{self, CompileConflict, CompileFormat};
use larql_planner::value::Value;
use larql_storage::checkpoint::{CheckpointKind, GgufMetadata, TensorDescription};
use larql_storage::overlay::{Describe, Fact, Operation, Overlay, Slot, Stating};
use larql_storage::store::MAIN;
use larql_storage::vindex::{VerifyStep, verify};

use super::mount_row::integer;
use super::transaction::require_assertions;
use super::{Operator, Row, Work};
use crate::editing::applied::{Applied, Identity};
use crate::editing::keys_as_features::lower;
use crate::editing::survival::{Answers, Exam, ask, facts_of};
use crate::failure::{Failure, code};
use crate::mounts::{Model, Source};
use crate::paths;
use crate::pipeline::compile::{
    self, Options, Origin, Other, Packed, SideFile, StatedFact, VindexOptions,
};
use crate::pipeline::edited::EditedModel;
use crate::pipeline::{OTHER_ROLE, SOURCE_METADATA};

/// Facts and changes that a notice names.
const NAMED_MAX: usize = 20;

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
            let mounted = work.engine().find_model(source, &work.place())?;
            let view = work.engine().edits().view(mounted.model.base_hash(), MAIN)?;
            work.mounted = Some(mounted);
            work.set_view(Arc::new(view));
        }
        if work.view().identity().pending != 0 {
            let message = "the transaction has edits that are not committed";
            return Err(
                Failure::new(code::TRANSACTION_OPEN, message).hint("COMMIT or ROLLBACK first")
            );
        }
        let model = work.model()?;
        let edits = work.view().overlay().clone();
        let row = match plan.into_vindex {
            true => into_vindex(work, &plan, &model)?,
            false => {
                require_asserted(work, &model, &edits)?;
                into_model(work, &plan, &model, edits)?
            }
        };
        // Every weight is read once.
        work.touch(model.bytes());
        Ok(Some(vec![row]))
    }
}

/// What VERIFY found.
#[derive(Default)]
struct Verified {
    answered: Option<u64>,
    drift: Option<f64>,
}

/// Questions about edits, and what the model answers with them: what a product is compared with.
struct Reference {
    exam: Exam,
    answers: Answers,
}

impl Reference {
    fn new(
        work: &Work<'_>,
        model: &Model,
        facts: Vec<Fact>,
        edits: Overlay,
    ) -> Result<Self, Failure> {
        let applied = Applied::new(model, edits, Identity::default())?;
        let exam = Exam::new(model, facts)?;
        let answers = ask(model, &applied, &exam, work.engine().pool(), work.cancel)?;
        Ok(Self { exam, answers })
    }

    /// Asks a product the same.
    fn compare(
        &self,
        work: &mut Work<'_>,
        product: &Model,
        retrieved: Overlay,
    ) -> Result<Verified, Failure> {
        let applied = Applied::new(product, retrieved, Identity::default())?;
        let found = ask(product, &applied, &self.exam, work.engine().pool(), work.cancel)?;
        let count = |right: &[bool]| right.iter().filter(|&&right| right).count();
        let (before, after) = (count(&self.answers.right), count(&found.right));
        let drift = found.bits_per_token - self.answers.bits_per_token;
        let message = format!(
            "edited facts answered by what was written: {after} of {}; by the model with its edits: {before}",
            found.right.len()
        );
        let asked = self.exam.questions.iter().zip(self.answers.right.iter().zip(&found.right));
        let lost = asked.filter(|(_, (before, after))| **before && !**after);
        let lost: Vec<Fact> = lost.map(|(question, _)| question.fact.clone()).collect();
        let hint =
            if lost.is_empty() { String::new() } else { format!("lost: {}", list_facts(&lost)) };
        work.notice(message, hint)?;
        if let Some((message, hint)) = self.exam.told_unasked() {
            work.notice(message, hint)?;
        }
        Ok(Verified { answered: Some(after as u64), drift: Some(drift) })
    }
}

/// Facts as a notice names them.
fn list_facts(facts: &[Fact]) -> String {
    let named = |fact: &Fact| format!("{} of {} = {}", fact.relation, fact.entity, fact.target);
    list(&facts.iter().map(named).collect::<Vec<_>>())
}

/// The first of many things.
fn list(things: &[String]) -> String {
    let mut text = things[..things.len().min(NAMED_MAX)].join("; ");
    if things.len() > NAMED_MAX {
        text.push_str(&format!("; and {} more", things.len() - NAMED_MAX));
    }
    text
}

/// Refuses to compile edits under which an assertion of their branch does not hold.
fn require_asserted(work: &Work<'_>, model: &Model, edits: &Overlay) -> Result<(), Failure> {
    let asserted = work.view().branch().into_iter().flat_map(|branch| branch.assertions());
    require_assertions(work, model, edits, &asserted.cloned().collect::<Vec<_>>())
}

fn into_vindex(work: &mut Work<'_>, plan: &plan::Compile, model: &Model) -> Result<Row, Failure> {
    let joined = work.view().joined(plan.conflict)?;
    if !joined.gone.is_empty() {
        let message = format!(
            "changes of what another patch changes: {}; {}",
            joined.gone.len(),
            match plan.conflict {
                CompileConflict::HighestConfidence => "the surest is kept",
                _ => "the later is kept",
            }
        );
        let hint = format!("gone: {}", list(&joined.gone));
        work.notice(message, hint)?;
    }
    let stored = joined.overlay;
    require_asserted(work, model, &stored)?;
    let edited = EditedModel::new(model, &stored, work.cancel)?;
    let carried = carried(&stored, &edited);
    let retrieved = stored.knn().count();
    if retrieved > 0 {
        work.notice(
            format!("facts answered by retrieval, which go along beside the weights: {retrieved}"),
            "COMPILE … INTO MODEL makes features of them",
        )?;
    }
    let facts = facts_of(&stored);
    let count = facts.len() as u64;
    let options = VindexOptions {
        destination: work.resolve(&plan.destination)?,
        overwrite: plan.overwrite,
        level: plan.level,
        carried: &carried,
        stated: &stated(&stored),
        said: &crate::editing::stated::Stated::of(&stored),
    };
    let engine = work.engine().clone();
    let (files, cancel) = (work.files(), work.cancel);
    let compiled = compile::compile_vindex(
        &files,
        engine.pool(),
        &edited,
        &options,
        cancel,
        &mut |stage, done, total, unit| work.progress(stage, done, total, unit),
    )?;
    for note in &compiled.notes {
        work.notice(note.clone(), "")?;
    }
    let mut verified = Verified::default();
    if plan.verify {
        let staging = compiled.sealed.staging().to_path_buf();
        let inspected = verify_vindex(work, &staging, model, facts, &stored, &carried);
        match inspected {
            Ok(found) => verified = found,
            Err(failure) => {
                // The first failure is the one to tell.
                let _ = compiled.sealed.abandon();
                return Err(failure);
            }
        }
    }
    let manifest = compiled.sealed.finish()?;
    let bytes = manifest.files.iter().map(|file| file.bytes).sum();
    work.notice(
        format!(
            "{} of {} files are the source's own, linked",
            compiled.linked,
            manifest.files.len()
        ),
        "",
    )?;
    let files = manifest.files.len() as u64 + 1;
    Ok(row(&options.destination, "vindex", [files, compiled.tensors, bytes, count], &verified))
}

/// Reads every byte of a vindex again, and asks it what the model with its edits is asked.
fn verify_vindex(
    work: &mut Work<'_>,
    staging: &Path,
    model: &Model,
    facts: Vec<Fact>,
    stored: &Overlay,
    carried: &[Operation],
) -> Result<Verified, Failure> {
    let mut read = 0;
    let report = verify(&work.files(), staging, &mut |step| {
        if let VerifyStep::Read { bytes } = step {
            read += bytes;
        }
        match work.progress("verifying", read, 0, "bytes").is_ok() && work.cancel.check().is_ok() {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    work.cancel.check()?;
    if let Some(file) = report.damaged().next() {
        let message = format!("{} reads other than it was written", file.name);
        return Err(Failure::new(code::DAMAGED, message).hint("compile again"));
    }
    let product = Model::open_vindex(&work.files(), staging)?;
    if product.require_inference().is_err() {
        work.notice("the vindex has no weights to infer with: its bytes are compared only", "")?;
        return Ok(Verified::default());
    }
    let reference = Reference::new(work, model, facts, stored.clone())?;
    let mut retrieved = Overlay::default();
    carried.iter().for_each(|operation| retrieved.apply(operation, 0));
    reference.compare(work, &product, retrieved)
}

fn into_model(
    work: &mut Work<'_>,
    plan: &plan::Compile,
    model: &Model,
    stored: Overlay,
) -> Result<Row, Failure> {
    let engine = work.engine().clone();
    let options = Options {
        destination: work.resolve(&plan.destination)?,
        format: plan.format,
        dtype: plan.dtype,
        overwrite: plan.overwrite,
        verify: plan.verify,
    };
    let lowered = lower(model, &stored, engine.pool(), work.cancel)?;
    if lowered.lowered > 0 {
        let (all, lost) = (lowered.lowered, &lowered.lost);
        let message = format!(
            "facts answered by retrieval, which files of weights cannot state: {all}; made features: {}",
            all - lost.len()
        );
        let hint =
            if lost.is_empty() { String::new() } else { format!("lost: {}", list_facts(lost)) };
        work.notice(message, hint)?;
    }
    let facts = facts_of(&stored);
    let edited = EditedModel::new(model, &lowered.stored, work.cancel)?;
    for note in edited.notes() {
        work.notice(note, "")?;
    }
    let kept = kept_metadata(model)?;
    let side_file = |name: &str| match edited.config().filter(|_| name == "config.json") {
        Some(config) => Ok(Some(config.to_vec())),
        None => model.side_file(name),
    };
    let mut origin = origin(model, kept.as_ref(), &side_file);
    if edited.is_changed() {
        origin.architecture = edited.architecture();
        origin.edited = Some(&edited);
    }
    let reference = match plan.verify && edited.is_changed() {
        true => Some(Reference::new(work, model, facts.clone(), stored)?),
        false => None,
    };
    let (files, cancel) = (work.files(), work.cancel);
    let shared = std::cell::RefCell::new(&mut *work);
    let mut verified = Verified::default();
    let done = compile::compile(
        &files,
        engine.pool(),
        &origin,
        &options,
        cancel,
        &mut |stage, done, total, unit| shared.borrow_mut().progress(stage, done, total, unit),
        &mut |product| {
            let Some(reference) = &reference else { return Ok(()) };
            let product = Model::open(&files, product, cancel)?;
            verified = reference.compare(&mut shared.borrow_mut(), &product, Overlay::default())?;
            Ok(())
        },
    )?;
    for note in &done.notes {
        work.notice(note.clone(), "")?;
    }
    let format = match plan.format {
        CompileFormat::Safetensors => "safetensors",
        CompileFormat::Gguf => "gguf",
    };
    let counts = [done.files, done.tensors, done.bytes, facts.len() as u64];
    Ok(row(&options.destination, format, counts, &verified))
}

fn row(path: &Path, format: &'static str, counts: [u64; 4], verified: &Verified) -> Row {
    let mut row = vec![Value::text(path.display().to_string()), Value::text(format)];
    row.extend(counts.map(integer));
    row.push(verified.answered.map_or(Value::Null, integer));
    row.push(verified.drift.map_or(Value::Null, Value::Real));
    row
}

/// What of edits is no weight: what is retrieved, and labels, of features as a vindex with the edits numbers
/// them.
fn carried(stored: &Overlay, edited: &EditedModel<'_>) -> Vec<Operation> {
    let retrieved = stored.knn().map(|knn| Operation::SetKnn(knn.set.clone()));
    let described = stored.features().filter_map(|(slot, delta)| {
        let says = delta.mode.is_none() && !delta.hidden;
        let feature = edited.place(slot).filter(|_| says)?;
        Some(Operation::Describe(Describe {
            slot: Slot { feature, ..slot },
            relation: delta.relation.clone(),
            target: delta.target.clone(),
            confidence: delta.confidence,
        }))
    });
    retrieved.chain(described).collect()
}

/// What edits in weights state, with the feature that does.
fn stated(stored: &Overlay) -> Vec<StatedFact> {
    let in_weights = stored.statements().filter_map(|one| {
        let slot = match one.by {
            Stating::Feature(slot) => Some(slot),
            Stating::Update(_) => None,
            Stating::Knn => return None,
        };
        Some(StatedFact { fact: one.fact()?, slot, confidence: one.confidence })
    });
    in_weights.collect()
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
        edited: None,
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
