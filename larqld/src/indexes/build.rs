//! Making indexes.
//!
//! An index is written beside its place and moved in whole, so that a statement which is stopped leaves
//! what was there. It is opened from its file before it is used, as after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_planner::catalog::IndexTarget;
use larql_planner::physical::plan::IndexMethod;
use larql_storage::file::Files;
use larql_storage::vindex::index::postings::{Posting, Postings};
use larql_storage::vindex::{IndexHeader, IndexWriter};

use super::{Index, hnsw, made_from, sketch, target_name};
use crate::failure::{Failure, code};
use crate::mounts::Model;
use crate::pipeline::Progress;

/// The indexes that EXTRACT and ANALYZE make by themselves, by name.
pub const DEFAULTS: [(&str, IndexTarget, IndexMethod); 2] = [
    ("labels", IndexTarget::Labels, IndexMethod::Postings),
    ("targets", IndexTarget::Targets, IndexMethod::Postings),
];

/// Features between two looks at the cancel token.
const FEATURES_AT_ONCE: u64 = 4096;

/// Posting lists in the making.
type ByText = BTreeMap<Arc<str>, Vec<Posting>>;

/// Makes an index of a vindex, in place of one of its name; the model's plans can use it from then on.
///
/// # Errors
/// When cancelled; `MISSING_COMPONENT` where the model lacks what is indexed; when the file cannot be
/// written, or somebody else makes one of that name.
pub fn make(
    (files, pool): (&Arc<dyn Files>, &Pool),
    model: &Model,
    name: &str,
    (target, method): (IndexTarget, IndexMethod),
    cancel: &Cancel,
    progress: &mut Progress<'_>,
) -> Result<Arc<Index>, Failure> {
    let header = IndexHeader {
        target: target_name(target).to_owned(),
        method: method.name().to_owned(),
        base_hash: model.base_hash().to_owned(),
        made_from: made_from(model, target),
        generator: concat!("larqld ", env!("CARGO_PKG_VERSION")).to_owned(),
        keys: 0,
        entries: 0,
        recall: None,
        sections: Vec::new(),
    };
    match method {
        IndexMethod::Postings => {
            let mut lists = match target {
                IndexTarget::Labels => by_label(model),
                _ => by_target(model, cancel, progress)?,
            };
            // What was read from a file that changed meanwhile is not kept.
            model.check()?;
            Postings::write(files, (model.path(), name), header, &mut lists)?;
        }
        IndexMethod::Sketch | IndexMethod::CoarseSketch | IndexMethod::Hnsw => {
            let features = (0..model.layers()).map(|layer| model.features(layer)).sum();
            let header = IndexHeader { keys: features, entries: features, ..header };
            let writer = IndexWriter::create(files, model.path(), name, header)?;
            match method {
                IndexMethod::Hnsw => hnsw::write((model, pool), writer, cancel, progress)?,
                _ => sketch::write((model, pool), method, writer, cancel, progress)?,
            }
        }
    }
    let index = Arc::new(Index::open(files, model, name));
    model.change_indexes(|indexes| indexes.with(Index::clone(&index)));
    Ok(index)
}

/// Features by their target, which is the first of their output tokens that shows a word.
fn by_target(
    model: &Model,
    cancel: &Cancel,
    progress: &mut Progress<'_>,
) -> Result<ByText, Failure> {
    let meta = model.down_meta().ok_or_else(|| {
        let message = format!("{} keeps no output tokens of features", model.path().display());
        Failure::new(code::MISSING_COMPONENT, message)
    })?;
    let tokenizer = model.tokenizer()?;
    let total = (0..model.layers()).map(|layer| model.features(layer)).sum();
    let mut done = 0;
    let mut lists = ByText::new();
    for layer in 0..model.layers() {
        for feature in 0..model.features(layer) {
            if done % FEATURES_AT_ONCE == 0 {
                cancel.check()?;
                progress("indexing", done, total, "features")?;
            }
            done += 1;
            let feature = feature as u32;
            let Some(found) = meta.feature(layer, feature) else { continue };
            let mut words = found.tokens().map(|(id, logit)| (tokenizer.word(id), logit));
            if let Some((word, score)) = words.find(|(word, _)| !word.is_empty()) {
                lists.entry(word).or_default().push(Posting { layer, feature, score });
            }
        }
    }
    Ok(lists)
}

fn by_label(model: &Model) -> ByText {
    let mut lists = ByText::new();
    for ((layer, feature), label) in model.labels() {
        if u64::from(feature) < model.features(layer) && !label.is_empty() {
            lists.entry(label).or_default().push(Posting { layer, feature, score: 0.0 });
        }
    }
    lists
}

/// Makes the indexes of labels anew after labels were learned.
///
/// # Errors
/// As [`make`].
pub fn refresh_labels(
    context: (&Arc<dyn Files>, &Pool),
    model: &Model,
    cancel: &Cancel,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    for index in model.indexes().iter() {
        if let Some(kind @ (IndexTarget::Labels, _)) = index.kind {
            make(context, model, &index.name, kind, cancel, progress)?;
        }
    }
    Ok(())
}

/// Makes the indexes that every vindex has, as far as it holds what they are made from.
///
/// # Errors
/// As [`make`].
pub fn make_defaults(
    context: (&Arc<dyn Files>, &Pool),
    model: &Model,
    cancel: &Cancel,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    for (name, target, method) in DEFAULTS {
        let has_tokens = model.down_meta().is_some() && model.tokenizer().is_ok();
        if target == IndexTarget::Labels || has_tokens {
            make(context, model, name, (target, method), cancel, progress)?;
        }
    }
    Ok(())
}
