//! A model under a name: what the planner sees of it.

use std::sync::Arc;

use larql_planner::catalog::{
    Bands, Component, GateIndex, IndexTarget, Mount, MountKind, PostingLists,
};
use larql_planner::physical::plan::Quantisation;
use larql_storage::overlay::Overlay;

use super::{Kind, Model};

/// A model under a name.
#[derive(Debug)]
pub struct Mounted {
    /// The name.
    pub name: String,
    /// The model.
    pub model: Arc<Model>,
    /// The edits that a session's plans are made for; none where the mount is nobody's yet.
    pub overlay: Overlay,
}

impl Mounted {
    /// A model under a name.
    pub fn new(name: String, model: Arc<Model>) -> Self {
        Self { name, model, overlay: Overlay::default() }
    }

    /// The same mount as a session sees it under edits.
    pub fn under(&self, overlay: &Overlay) -> Self {
        Self { name: self.name.clone(), model: self.model.clone(), overlay: overlay.clone() }
    }
}

/// Features of a layer under edits: the base's, and as many as the highest number is beyond them.
pub fn edited_features(model: &Model, overlay: &Overlay, layer: u32) -> u64 {
    let last = overlay.features_of(layer).last();
    let end = last.map_or(0, |(slot, _)| u64::from(slot.feature) + 1);
    model.features(layer).max(end)
}

impl Mount for Mounted {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> MountKind {
        match self.model.kind() {
            Kind::Vindex => MountKind::Vindex,
            Kind::Checkpoint => MountKind::Checkpoint,
        }
    }

    fn layers(&self) -> u32 {
        self.model.layers()
    }

    fn features(&self, layer: u32) -> u64 {
        self.model.features(layer)
    }

    fn features_edited(&self, layer: u32) -> u64 {
        edited_features(&self.model, &self.overlay, layer)
    }

    fn is_edited(&self) -> bool {
        !self.overlay.is_empty()
    }

    fn hidden_size(&self) -> u64 {
        self.model.architecture().hidden_size as u64
    }

    fn vocabulary_size(&self) -> u64 {
        self.model.architecture().vocabulary_size as u64
    }

    fn bands(&self) -> Option<Bands> {
        self.model.bands()
    }

    fn has(&self, component: Component) -> bool {
        self.model.has(component)
    }

    fn level(&self) -> &str {
        self.model.level()
    }

    fn gate_bytes(&self, layer: u32) -> u64 {
        self.model.gate_bytes(layer)
    }

    fn down_meta_record_bytes(&self) -> u64 {
        self.model.down_meta().map_or(0, |meta| meta.record_bytes() as u64)
    }

    fn ffn_bytes(&self, layer: u32) -> u64 {
        self.model.ffn_bytes(layer)
    }

    fn attention_bytes(&self, layer: u32) -> u64 {
        self.model.attention_bytes(layer)
    }

    fn unembedding_bytes(&self) -> u64 {
        self.model.unembedding_bytes()
    }

    fn computes_output_tokens(&self) -> bool {
        self.model.computes_output_tokens()
    }

    fn source_hint(&self) -> String {
        self.model.source_hint()
    }

    fn stored_type(&self) -> &str {
        self.model.weights_type()
    }

    fn quantisation(&self) -> Option<Quantisation> {
        self.model.quantisation()
    }

    fn gate_indexes(&self) -> Vec<GateIndex> {
        self.model.indexes().gate_indexes()
    }

    fn postings(&self, of: IndexTarget) -> Option<Arc<dyn PostingLists>> {
        let lists = self.model.indexes().postings(of)?;
        Some(Arc::new(lists))
    }

    fn destination_hint(&self) -> String {
        match self.model.kind() {
            Kind::Vindex => self.model.path().display().to_string(),
            Kind::Checkpoint => format!("{}.vindex", self.name),
        }
    }
}
