//! A catalog without a disk: six mounts of eight layers, and settings that statements change.

use std::collections::HashMap;
use std::sync::Arc;

use larql_planner::catalog::{
    Bands, Catalog, Component, CostConstants, GateIndex, GateReads, IndexTarget, Mount, MountKind,
    PostingLists, Prepared, Settings, Table,
};
use larql_planner::layers::LayerSet;
use larql_planner::physical::plan::{Operator, Use};
use larql_planner::syntax::parse_statement;
use larql_planner::value::{Column, ColumnType};
use larql_planner::{PlanError, Planned, plan};

/// A model of eight layers.
#[derive(Debug, Clone)]
pub struct FakeMount {
    name: &'static str,
    kind: MountKind,
    level: &'static str,
    features: u64,
    bands: Option<Bands>,
    missing: &'static [Component],
    indexes: bool,
    /// Whether LABEL found edges.
    labelled: bool,
}

const INFERENCE_ONLY: &[Component] = &[
    Component::Attention,
    Component::Norms,
    Component::Up,
    Component::Down,
    Component::Unembedding,
];

const BROWSE_ONLY: &[Component] =
    &[Component::DownMeta, Component::GateMeta, Component::Statistics, Component::Labels];

const BANDS: Bands = Bands { syntax: (0, 2), knowledge: (3, 5), output: (6, 7) };

pub const ATLAS: FakeMount = FakeMount {
    name: "atlas",
    kind: MountKind::Vindex,
    level: "inference",
    features: 1024,
    bands: Some(BANDS),
    missing: &[],
    indexes: false,
    labelled: false,
};

pub const MOUNTS: [FakeMount; 6] = [
    ATLAS,
    FakeMount { name: "browse", level: "browse", missing: INFERENCE_ONLY, ..ATLAS },
    // So few features that K = 20 never binds, and no bands.
    FakeMount { name: "tiny", features: 16, bands: None, ..ATLAS },
    FakeMount {
        name: "checkpoint",
        kind: MountKind::Checkpoint,
        level: "inference",
        bands: None,
        missing: BROWSE_ONLY,
        ..ATLAS
    },
    FakeMount { name: "indexed", indexes: true, ..ATLAS },
    FakeMount { name: "labelled", indexes: true, labelled: true, ..ATLAS },
];

impl Mount for FakeMount {
    fn name(&self) -> &str {
        self.name
    }
    fn kind(&self) -> MountKind {
        self.kind
    }
    fn layers(&self) -> u32 {
        8
    }
    fn features(&self, _: u32) -> u64 {
        self.features
    }
    fn hidden_size(&self) -> u64 {
        256
    }
    fn vocabulary_size(&self) -> u64 {
        4096
    }
    fn bands(&self) -> Option<Bands> {
        self.bands
    }
    fn has(&self, component: Component) -> bool {
        match component {
            Component::KnownEdges => self.labelled,
            other => !self.missing.contains(&other),
        }
    }
    fn level(&self) -> &str {
        self.level
    }
    fn gate_bytes(&self, _: u32) -> u64 {
        self.features * 512
    }
    fn down_meta_record_bytes(&self) -> u64 {
        88
    }
    fn ffn_bytes(&self, _: u32) -> u64 {
        self.features * 512 * 3
    }
    fn attention_bytes(&self, _: u32) -> u64 {
        256 * 256 * 2 * 4
    }
    fn unembedding_bytes(&self) -> u64 {
        4096 * 512
    }
    fn postings(&self, of: IndexTarget) -> Option<Arc<dyn PostingLists>> {
        let name = match of {
            IndexTarget::Targets => "targets",
            IndexTarget::Labels => "labels",
            IndexTarget::Gates => return None,
        };
        self.indexes.then(|| Arc::new(FakeLists { name }) as Arc<dyn PostingLists>)
    }
    fn gate_indexes(&self) -> Vec<GateIndex> {
        let index = |name: &str, reads, recall| GateIndex { name: name.to_owned(), reads, recall };
        let row_bytes = |row_bytes| GateReads::EachGate { row_bytes };
        match self.indexes {
            true => vec![
                index("sketch", row_bytes(276), None),
                index("rough", row_bytes(148), Some(0.9)),
            ],
            false => Vec::new(),
        }
    }
    fn source_hint(&self) -> String {
        format!("models/{}", self.name)
    }
}

/// Lists of one feature for each text and layer.
#[derive(Debug)]
struct FakeLists {
    name: &'static str,
}

impl PostingLists for FakeLists {
    fn name(&self) -> &str {
        self.name
    }
    fn keys(&self) -> u64 {
        500
    }
    fn entries(&self) -> u64 {
        8000
    }
    fn count(&self, texts: &[Arc<str>], layers: &LayerSet) -> u64 {
        (texts.len() * layers.count()) as u64
    }
}

/// The one table beside those of a model: `facts`.
#[derive(Debug)]
struct FakeTable {
    columns: Vec<Column>,
}

impl Table for FakeTable {
    fn name(&self) -> &str {
        "facts"
    }
    fn columns(&self) -> &[Column] {
        &self.columns
    }
    fn rows(&self) -> u64 {
        FACTS
    }
}

/// Rows of `facts`.
pub const FACTS: u64 = 40;

#[derive(Debug)]
pub struct FakeCatalog {
    pub current: Option<FakeMount>,
    pub settings: Settings,
    pub costs: CostConstants,
    pub prepared: HashMap<String, Arc<Prepared>>,
}

impl Default for FakeCatalog {
    fn default() -> Self {
        let (settings, costs) = (Settings::default(), CostConstants::default());
        Self { current: Some(ATLAS), settings, costs, prepared: HashMap::new() }
    }
}

impl Catalog for FakeCatalog {
    fn current(&self) -> Option<Arc<dyn Mount>> {
        Some(Arc::new(self.current.clone()?))
    }
    fn mount(&self, name: &str) -> Option<Arc<dyn Mount>> {
        let found = MOUNTS.into_iter().find(|mount| mount.name == name)?;
        Some(Arc::new(found))
    }
    fn table(&self, schema: Option<&str>, name: &str) -> Result<Option<Arc<dyn Table>>, String> {
        let column = |name: &str, kind| Column::new(name, kind);
        let columns = vec![
            column("entity", ColumnType::Text),
            column("relation", ColumnType::Text),
            column("object", ColumnType::Text),
            column("year", ColumnType::Integer),
        ];
        let found = schema.is_none() && name.eq_ignore_ascii_case("facts");
        Ok(found.then(|| Arc::new(FakeTable { columns }) as Arc<dyn Table>))
    }
    fn table_names(&self) -> Vec<String> {
        vec!["facts".to_owned()]
    }
    fn prepared(&self, name: &str) -> Option<Arc<Prepared>> {
        self.prepared.get(name).cloned()
    }
    fn settings(&self) -> &Settings {
        &self.settings
    }
    fn costs(&self) -> &CostConstants {
        &self.costs
    }
}

impl FakeCatalog {
    /// What running the statement would change for those that follow.
    #[allow(dead_code, reason = "a test of expressions alone changes nothing")]
    pub fn run(&mut self, planned: &Planned) {
        match &planned.physical.operator {
            Operator::Set(change) => self.settings.apply(change),
            Operator::Reset { name } => self.settings.reset(name).expect("a checked name"),
            Operator::Prepare { name, prepared } => {
                self.prepared.insert(name.clone(), prepared.clone());
            }
            Operator::Deallocate { name } => {
                self.prepared.remove(name);
            }
            Operator::Use(Use::Vindex { reference, .. }) => {
                self.current = MOUNTS.into_iter().find(|mount| mount.name == reference.as_str());
            }
            _ => {}
        }
    }

    pub fn plan(&self, text: &str) -> Result<Planned, PlanError> {
        let statement = parse_statement(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        plan(&statement, self)
    }
}
