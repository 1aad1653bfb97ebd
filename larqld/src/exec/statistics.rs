//! STATS: what is known about a mount, as names and values.

use std::sync::Arc;

use larql_planner::catalog::Component;
use larql_planner::value::Value;

use super::{Operator, Row, Work};
use crate::failure::Failure;
use crate::mounts::{Mounted, Source, unsteady};

/// Gives all rows at once.
pub(super) struct Statistics {
    mount: String,
    done: bool,
}

impl Statistics {
    pub(super) fn new(mount: String) -> Self {
        Self { mount, done: false }
    }

    /// The session's own mount goes first: it may be one that only the session has open.
    fn find(&self, work: &Work<'_>) -> Result<Arc<Mounted>, Failure> {
        match &work.mounted {
            Some(mounted) if mounted.name == self.mount => Ok(mounted.clone()),
            _ => work.engine().mounted(&self.mount),
        }
    }
}

impl Operator for Statistics {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let mounted = self.find(work)?;
        mounted.model.check()?;
        let kept = mounted.model.strongest_features_kept(work.cancel)?;
        if let Some((message, hint)) = unsteady(kept) {
            work.notice(message, hint)?;
        }
        let steady = kept.map(|kept| ("strongest_features_kept", format!("{kept:.3}")));
        let rows = facts(&mounted)
            .into_iter()
            .chain(steady)
            .map(|(name, value)| vec![Value::text(name), Value::text(value)]);
        let rows = rows.collect();
        work.mounted = Some(mounted);
        Ok(Some(rows))
    }
}

fn facts(mounted: &Mounted) -> Vec<(&'static str, String)> {
    let model = &mounted.model;
    let architecture = model.architecture();
    let features: Vec<u64> = (0..model.layers()).map(|layer| model.features(layer)).collect();
    let mut facts = vec![
        ("name", mounted.name.clone()),
        ("path", model.path().display().to_string()),
        ("kind", model.kind().as_str().to_owned()),
        ("level", model.level().to_owned()),
        ("family", architecture.family().to_owned()),
        ("layers", model.layers().to_string()),
        ("features", features.iter().sum::<u64>().to_string()),
        ("features_per_layer", spread(&features)),
        ("hidden_size", architecture.hidden_size.to_string()),
        ("vocabulary_size", architecture.vocabulary_size.to_string()),
        ("context_max", architecture.context_max.to_string()),
        ("weights", model.stored_type()),
        ("size_bytes", model.bytes().to_string()),
        ("base_hash", model.base_hash().to_owned()),
        ("branch", "main".to_owned()),
        ("lsn", "0".to_owned()),
        ("labels", if model.has(Component::Labels) { "yes" } else { "no" }.to_owned()),
        ("bands", bands(model)),
    ];
    if let Source::Vindex(vindex) = model.source() {
        let manifest = vindex.vindex().manifest();
        facts.push(("source", manifest.source.name.clone()));
        facts.push(("written_by", manifest.generator.clone()));
    }
    facts.extend(model.notes().iter().map(|note| ("note", note.clone())));
    facts
}

fn spread(features: &[u64]) -> String {
    match (features.iter().min(), features.iter().max()) {
        (Some(least), Some(most)) if least == most => least.to_string(),
        (Some(least), Some(most)) => format!("{least} to {most}"),
        _ => "0".to_owned(),
    }
}

fn bands(model: &crate::mounts::Model) -> String {
    let range = |(first, last): (u32, u32)| format!("{first}-{last}");
    match model.bands() {
        Some(bands) => format!(
            "syntax {}, knowledge {}, output {}",
            range(bands.syntax),
            range(bands.knowledge),
            range(bands.output)
        ),
        None => "none: every layer counts as knowledge".to_owned(),
    }
}
