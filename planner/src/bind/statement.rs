//! From a statement to what it asks: every kind of statement that is served, in one match.

use std::sync::Arc;

use super::binder::Binder;
use super::select::{filtered, limited, select};
use super::source::{
    ENTITY_K, RELATIONS, Sources, entities, features, features_scope, unknown_table,
};
use super::{
    BindError, compile, diff, generate, history, index, inference, pipe, prepared, trace,
    transaction, write,
};
use crate::catalog::{
    Catalog, Component, Extraction, INFERENCE_COMPONENTS, Mount, MountKind, Settings,
};
use crate::layers::LayerSet;
use crate::logical::Plan;
use crate::logical::plan::{
    BRANCH_COLUMNS, EXTRACT_COLUMNS, INDEX_COLUMNS, LABEL_COLUMNS, LAYER_COLUMNS, MODEL_COLUMNS,
    MOUNT_COLUMNS, PATCH_COLUMNS, SESSION_COLUMNS, SETTING_COLUMNS, STATISTICS_COLUMNS,
    TABLE_COLUMNS, VERIFY_COLUMNS,
};
use crate::physical::edit::Compact;
use crate::physical::plan::{
    DESCRIBE_INPUT, DescribeEdges, Display, Extract, FfnPath, Label, Level, Operator, Quantisation,
    QueryVector, RELATION_COUNT_INPUT, RelationCount, Use,
};
use crate::planned::Role;
use crate::syntax::ast::{
    self, Band, ExtractComponent, ExtractQuant, LayerChoice, Show, Statement, Text, TextOperand,
};
use crate::syntax::{Span, Spanned};

/// What binding may look at.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// What is mounted.
    pub catalog: &'a dyn Catalog,
}

/// A bound statement.
#[derive(Debug)]
pub struct Bound {
    /// What it asks.
    pub plan: Plan,
    /// The statement's first keywords.
    pub tag: &'static str,
    /// The least role that may run it.
    pub required_role: Role,
    /// The mount it reads, if it reads one.
    pub mount: Option<Arc<dyn Mount>>,
}

/// Rows of SHOW RELATIONS BRIEF.
const BRIEF_RELATIONS: u64 = 30;

/// Binds a statement that [`crate::support`] let pass.
///
/// # Errors
/// Names, types, layers and components that are not there.
pub fn bind(statement: &Statement, span: Span, context: &Context<'_>) -> Result<Bound, BindError> {
    let catalog = context.catalog;
    let command = |plan, tag, required_role| Ok(Bound { plan, tag, required_role, mount: None });
    if let Some(operands) = transaction::operands(statement) {
        return transaction::bind(operands, catalog);
    }
    match statement {
        Statement::Select(request) => {
            let plan = select(&Sources::new(catalog), request, None)?;
            let mount = catalog.current();
            Ok(Bound { plan, tag: "SELECT", required_role: Role::Reader, mount })
        }
        Statement::Describe(request) => {
            let reader = Reader::current(catalog)?;
            let plan = describe(&reader, request)?;
            Ok(reader.bound(plan, "DESCRIBE", Role::Reader))
        }
        Statement::Walk(request) => {
            let reader = Reader::current(catalog)?;
            let plan = inference::walk(&reader, request)?;
            let role = inference::walk_role(request);
            Ok(reader.bound(plan, "WALK", role))
        }
        Statement::Infer(request) => {
            let reader = Reader::current(catalog)?;
            let plan = inference::infer(&reader, request)?;
            Ok(reader.bound(plan, "INFER", Role::Infer))
        }
        Statement::Trace(request) => trace::trace(request, catalog),
        Statement::Kill(session) => {
            let operator = Operator::Kill { session: *session };
            command(Plan::leaf(operator, &[]), "KILL", Role::Admin)
        }
        Statement::Generate(request) => generate::bind(request, span, catalog),
        Statement::TraceOpen(path) => trace::open(path, catalog),
        Statement::ExplainFeatures(request) if request.infer => {
            let reader = Reader::current(catalog)?;
            let plan = inference::explain_infer(&reader, request)?;
            Ok(reader.bound(plan, "EXPLAIN INFER", Role::Infer))
        }
        Statement::ExplainFeatures(request) => {
            let reader = Reader::current(catalog)?;
            let plan = inference::explain_walk(&reader, request)?;
            Ok(reader.bound(plan, "EXPLAIN WALK", Role::Reader))
        }
        Statement::Show(show) => bind_show(show, catalog),
        Statement::Stats(name) => {
            let reader = match name {
                Some(name) => Reader::named(catalog, name)?,
                None => Reader::current(catalog)?,
            };
            let mount = reader.mount.name().to_owned();
            let plan = Plan::leaf(Operator::Statistics { mount }, &STATISTICS_COLUMNS);
            Ok(reader.bound(plan, "STATS", Role::Reader))
        }
        Statement::Use(target) => bind_use(target, catalog),
        Statement::Mount { path, name } => {
            let name = name.as_ref().map(|name| name.value.clone());
            let operator = Operator::Mount { path: path.value.clone(), name };
            command(Plan::leaf(operator, &MOUNT_COLUMNS), "MOUNT", Role::Admin)
        }
        Statement::Unmount(name) => {
            // A mount may be remembered and not to be had: whoever unmounts knows the names.
            let name = name.value.clone();
            command(Plan::leaf(Operator::Unmount { name }, &[]), "UNMOUNT", Role::Admin)
        }
        Statement::Extract(request) => {
            let operator = Operator::Extract(extract(request)?);
            command(Plan::leaf(operator, &EXTRACT_COLUMNS), "EXTRACT", Role::Admin)
        }
        Statement::Compile(request) => compile::bind(request, catalog),
        Statement::Diff(request) => diff::bind(request, catalog),
        Statement::Insert(request) => super::edit::insert(request, span, catalog),
        Statement::Merge { source, target, conflict, harm } => {
            super::edit::merge(source, target.as_ref(), *conflict, *harm, catalog)
        }
        Statement::Delete { filter, harm } => super::edit::delete(filter, *harm, catalog),
        Statement::Update { assignments, filter, harm } => {
            super::edit::update(assignments, filter, *harm, catalog)
        }
        Statement::Rebalance { until_converged, rounds_max, floor, ceiling } => {
            super::rebalance::bind(*until_converged, *rounds_max, *floor, *ceiling, catalog)
        }
        Statement::VerifyEdge(filter) => super::verify_edge::bind(filter, catalog),
        Statement::CheckAssertions => history::check_assertions(catalog),
        Statement::Blame { prompt, target, top } => {
            history::blame(prompt, target.as_ref(), *top, catalog)
        }
        Statement::CompactMinor => history::compact(Compact::Minor, span, catalog),
        Statement::CompactMajor { full, lambda } => {
            history::compact(Compact::Major { full: *full, lambda: *lambda }, span, catalog)
        }
        Statement::Label { facts, resume } => {
            let reader = Reader::current(catalog)?;
            reader.needs(&INFERENCE_COMPONENTS)?;
            let facts = facts.as_ref().map(|path| path.value.clone());
            let plan =
                Plan::leaf(Operator::Label(Label { facts, resume: *resume }), &LABEL_COLUMNS);
            Ok(reader.bound(plan, "LABEL", Role::Admin))
        }
        Statement::CreateIndex { name, target, method } => {
            index::create(name, *target, method.as_ref(), catalog)
        }
        Statement::DropIndex(name) => index::drop_index(name, catalog),
        Statement::Analyze => index::analyze(catalog),
        Statement::VerifyVindex(path) => {
            let operator = Operator::VerifyVindex { path: path.value.clone() };
            command(Plan::leaf(operator, &VERIFY_COLUMNS), "VERIFY VINDEX", Role::Admin)
        }
        Statement::Set { name, value } => {
            let change = Settings::check(&name.value, &value.value).map_err(|source| {
                let unknown = matches!(source, crate::settings::SettingError::Unknown { .. });
                let span = if unknown { name.span } else { value.span };
                BindError::Setting { source, span }
            })?;
            command(Plan::leaf(Operator::Set(change), &[]), "SET", Role::Reader)
        }
        Statement::CreateTable { name, file } => {
            not_of_model(name, "give the table another name")?;
            let (name, file) = (name.value.clone(), file.value.clone());
            let plan = Plan::leaf(Operator::CreateTable { name, file }, &TABLE_COLUMNS);
            command(plan, "CREATE TABLE", Role::Admin)
        }
        Statement::DropTable(name) => {
            not_of_model(name, "only a table of facts can be dropped")?;
            // A table that cannot be read can be dropped.
            let names = catalog.table_names();
            if names.iter().all(|known| !known.eq_ignore_ascii_case(&name.value)) {
                return Err(unknown_table(catalog, name.value.clone(), name.span));
            }
            let operator = Operator::DropTable { name: name.value.clone() };
            command(Plan::leaf(operator, &[]), "DROP TABLE", Role::Admin)
        }
        Statement::Copy { statement, file, format } => {
            write::copy(statement, file, format.as_ref(), context)
        }
        Statement::Export { file, format } => write::export(file, format, span, context),
        Statement::Pipe(stages) => pipe::pipe(stages, span, context),
        Statement::Prepare { name, statement } => prepared::prepare(name, statement, context),
        Statement::Execute { name, arguments } => prepared::execute(name, arguments, span, context),
        Statement::Deallocate(name) => {
            if catalog.prepared(&name.value).is_none() {
                let (name, span) = (name.value.clone(), name.span);
                return Err(BindError::UnknownPrepared { name, span });
            }
            let operator = Operator::Deallocate { name: name.value.clone() };
            command(Plan::leaf(operator, &[]), "DEALLOCATE", Role::Reader)
        }
        Statement::Reset(name) => {
            let name = setting_name(name)?;
            command(Plan::leaf(Operator::Reset { name }, &[]), "RESET", Role::Reader)
        }
        // `support` has one list of what is served; whatever it lets pass has an arm above.
        other => Err(BindError::Meaningless {
            what: format!("this statement cannot be planned: {other}"),
            span: Some(span),
            hint: "report this: it should have been refused as not supported".to_owned(),
        }),
    }
}

/// The mount that a statement reads, with what binding asks of it.
pub(super) struct Reader<'a> {
    pub(super) mount: Arc<dyn Mount>,
    settings: &'a Settings,
}

impl<'a> Reader<'a> {
    pub(super) fn current(catalog: &'a dyn Catalog) -> Result<Self, BindError> {
        let mount = catalog.current().ok_or(BindError::NothingInUse)?;
        Ok(Self { mount, settings: catalog.settings() })
    }

    fn named(catalog: &'a dyn Catalog, name: &Spanned<String>) -> Result<Self, BindError> {
        let mount = catalog
            .mount(&name.value)
            .ok_or_else(|| BindError::UnknownMount { name: name.value.clone(), span: name.span })?;
        Ok(Self { mount, settings: catalog.settings() })
    }

    pub(super) fn bound(self, plan: Plan, tag: &'static str, required_role: Role) -> Bound {
        Bound { plan, tag, required_role, mount: Some(self.mount) }
    }

    pub(super) fn layers(&self) -> u32 {
        self.mount.layers()
    }

    pub(super) fn settings(&self) -> &Settings {
        self.settings
    }

    /// Refuses with the first component that is missing, and the EXTRACT that adds it.
    pub(super) fn needs(&self, components: &[Component]) -> Result<(), BindError> {
        let missing = components.iter().find(|component| !self.mount.has(**component));
        let Some(component) = missing else { return Ok(()) };
        Err(BindError::MissingComponent {
            mount: self.mount.name().to_owned(),
            state: match self.mount.kind() {
                MountKind::Vindex => format!("at level {}", self.mount.level()),
                MountKind::Checkpoint => "a checkpoint, used without extraction".to_owned(),
            },
            component: *component,
            extract: match (component, self.mount.kind()) {
                (Component::Tokenizer, MountKind::Checkpoint) => {
                    format!("copy the model's tokenizer.json to {}", self.mount.source_hint())
                }
                _ => Extraction::of(&*self.mount).statement_that_adds(*component),
            },
        })
    }

    /// A layer that the mount has.
    pub(super) fn layer(&self, layer: &Spanned<u32>) -> Result<u32, BindError> {
        let layers = self.layers();
        if layer.value < layers {
            return Ok(layer.value);
        }
        if layers == 0 {
            return Err(BindError::NoLayers { mount: self.mount.name().to_owned() });
        }
        Err(BindError::LayerOutOfRange {
            layer: layer.value,
            mount: self.mount.name().to_owned(),
            layers,
            span: layer.span,
        })
    }

    pub(super) fn range(&self, range: Option<&Spanned<ast::Range>>) -> Result<LayerSet, BindError> {
        match range {
            None => Ok(LayerSet::all(self.layers())),
            Some(range) => {
                let last = self.layer(&Spanned::new(range.value.last, range.span))?;
                Ok(LayerSet::range(range.value.first, last))
            }
        }
    }

    /// The layers of a band, as far as the mount has them.
    pub(super) fn band(&self, band: Band) -> Result<LayerSet, BindError> {
        let layers = self.layers();
        let bands = self
            .mount
            .bands()
            .ok_or_else(|| BindError::NoBands { mount: self.mount.name().to_owned(), layers })?;
        let (first, last) = match band {
            Band::Syntax => bands.syntax,
            Band::Knowledge => bands.knowledge,
            Band::Output => bands.output,
        };
        Ok(LayerSet::all(layers).filter(|layer| (first..=last).contains(&layer)))
    }

    pub(super) fn ffn(&self) -> FfnPath {
        if self.settings.ffn_is_walk() {
            FfnPath::Walk { k: self.settings.walk_k() }
        } else {
            FfnPath::Dense
        }
    }
}

/// Refuses the names of the relations that every model has.
fn not_of_model(name: &Spanned<String>, hint: &str) -> Result<(), BindError> {
    if RELATIONS.iter().all(|known| !known.eq_ignore_ascii_case(&name.value)) {
        return Ok(());
    }
    Err(BindError::Meaningless {
        what: format!("{} is a table of every model", name.value.to_uppercase()),
        span: Some(name.span),
        hint: hint.to_owned(),
    })
}

/// The text of an operand.
///
/// # Errors
/// `UnboundParameter` for a parameter that nothing gave a value.
pub(super) fn literal(text: &Text) -> Result<Arc<str>, BindError> {
    match &text.value {
        TextOperand::Literal(text) => Ok(Arc::from(text.as_str())),
        TextOperand::Parameter(parameter) => {
            Err(BindError::UnboundParameter { name: parameter.to_string(), span: text.span })
        }
    }
}

fn describe(reader: &Reader<'_>, request: &ast::Describe) -> Result<Plan, BindError> {
    reader.needs(&[
        Component::Gates,
        Component::Embeddings,
        Component::Tokenizer,
        Component::DownMeta,
        Component::Statistics,
    ])?;
    let layers = match &request.layers {
        Some(LayerChoice::At(layer)) => LayerSet::one(reader.layer(layer)?),
        Some(LayerChoice::Band(band)) => reader.band(*band)?,
        Some(LayerChoice::All) => LayerSet::all(reader.layers()),
        None if reader.mount.bands().is_some() => reader.band(Band::Knowledge)?,
        None => LayerSet::all(reader.layers()),
    };
    let display = match request.display {
        Some(ast::Display::Brief) => Display::Brief,
        Some(ast::Display::Raw) => Display::Raw,
        Some(ast::Display::Verbose) | None => Display::Verbose,
    };
    if display == Display::Raw && request.relations_only {
        return Err(BindError::Meaningless {
            what: "RAW shows no relations, and RELATIONS ONLY shows nothing else".to_owned(),
            span: Some(request.entity.span),
            hint: "leave one of them out".to_owned(),
        });
    }
    let entity = literal(&request.entity)?;
    let edges = DescribeEdges {
        entity: entity.clone(),
        display,
        bands: reader.mount.bands(),
        caps: display.caps(),
        layers: request.layers.is_some().then(|| layers.clone()),
        sources: reader.settings.describe_sources(),
        confidence_min: reader.settings.describe_confidence(),
        relations_only: request.relations_only,
        experts: request.display == Some(ast::Display::Verbose),
        limit: request.limit,
        stream: request.stream,
    };
    let hits = Plan::GateHits {
        query: QueryVector::Entity(entity),
        layers,
        k: Some(ENTITY_K),
        z_min: Some(reader.settings.describe_z()),
        tokens_required: true,
        approximate: false,
        columns: DESCRIBE_INPUT.to_vec(),
    };
    Ok(Plan::DescribeEdges { edges, input: Box::new(hits) })
}

fn bind_show(show: &Show, catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let command = |plan, tag| Ok(Bound { plan, tag, required_role: Role::Reader, mount: None });
    match show {
        Show::Models => command(Plan::leaf(Operator::ShowModels, &MODEL_COLUMNS), "SHOW MODELS"),
        Show::Sessions => {
            command(Plan::leaf(Operator::ShowSessions, &SESSION_COLUMNS), "SHOW SESSIONS")
        }
        Show::Mounts => command(Plan::leaf(Operator::ShowMounts, &MOUNT_COLUMNS), "SHOW MOUNTS"),
        Show::Setting(name) => {
            let all = name.value.eq_ignore_ascii_case("all");
            let name = if all { None } else { Some(setting_name(name)?) };
            command(Plan::leaf(Operator::ShowSetting { name }, &SETTING_COLUMNS), "SHOW")
        }
        Show::Patches => {
            let reader = Reader::current(catalog)?;
            let plan = Plan::leaf(Operator::ShowPatches, &PATCH_COLUMNS);
            Ok(reader.bound(plan, "SHOW PATCHES", Role::Reader))
        }
        Show::Branches => {
            let reader = Reader::current(catalog)?;
            let plan = Plan::leaf(Operator::ShowBranches, &BRANCH_COLUMNS);
            Ok(reader.bound(plan, "SHOW BRANCHES", Role::Reader))
        }
        Show::Assertions => history::show_assertions(catalog),
        Show::CompactStatus => history::compact_status(catalog),
        Show::Indexes => {
            let reader = Reader::current(catalog)?;
            let plan = Plan::leaf(Operator::ShowIndexes, &INDEX_COLUMNS);
            Ok(reader.bound(plan, "SHOW INDEXES", Role::Reader))
        }
        Show::Layers(range) => {
            let reader = Reader::current(catalog)?;
            let layers = reader.range(range.as_ref())?;
            let plan = Plan::leaf(Operator::LayerStatistics { layers }, &LAYER_COLUMNS);
            Ok(reader.bound(plan, "SHOW LAYERS", Role::Reader))
        }
        Show::Features { layer, filter, limit } => {
            let reader = Reader::current(catalog)?;
            let (scope, columns) = features_scope();
            let layers = LayerSet::one(reader.layer(layer)?);
            let predicate =
                filter.as_ref().map(|filter| Binder::over(&scope).predicate(filter)).transpose()?;
            let plan = filtered(features(&reader, columns, layers)?, predicate);
            Ok(reader.bound(limited(plan, *limit, 0), "SHOW FEATURES", Role::Reader))
        }
        Show::Entities { layer, limit } => {
            let reader = Reader::current(catalog)?;
            let layers = one_or_all(&reader, layer.as_ref())?;
            let plan = limited(entities(&reader, layers)?, *limit, 0);
            Ok(reader.bound(plan, "SHOW ENTITIES", Role::Reader))
        }
        Show::Relations { layer, examples, display } => {
            let reader = Reader::current(catalog)?;
            let layers = one_or_all(&reader, layer.as_ref())?;
            let is = |wanted| display.as_ref().is_some_and(|shown| shown.value == wanted);
            let (brief, raw) = (is(ast::Display::Brief), is(ast::Display::Raw));
            // Which feature it is counts only for its cluster.
            let columns = &RELATION_COUNT_INPUT[..RELATION_COUNT_INPUT.len() - usize::from(!raw)];
            let count = RelationCount { examples: *examples, raw, layers: layers.clone() };
            let input = Box::new(features(&reader, columns, layers)?);
            let plan = Plan::RelationCount { count, input };
            let plan = limited(plan, brief.then_some(BRIEF_RELATIONS), 0);
            Ok(reader.bound(plan, "SHOW RELATIONS", Role::Reader))
        }
    }
}

fn one_or_all(reader: &Reader<'_>, layer: Option<&Spanned<u32>>) -> Result<LayerSet, BindError> {
    match layer {
        Some(layer) => Ok(LayerSet::one(reader.layer(layer)?)),
        None => Ok(LayerSet::all(reader.layers())),
    }
}

pub(super) fn named(name: &Option<ast::Name>) -> Option<String> {
    name.as_ref().map(|name| name.value.clone())
}

fn bind_use(target: &ast::Use, catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let (operator, required_role) = match target {
        ast::Use::Vindex { reference: ast::Reference::Current, branch } => {
            catalog.current().ok_or(BindError::NothingInUse)?;
            (Use::Current { branch: named(branch) }, Role::Reader)
        }
        ast::Use::Vindex { reference: ast::Reference::Named(name), branch } => {
            // A mounted name is anybody's to use; a path is opened, which is the admin's.
            let mounted = catalog.mount(&name.value).is_some();
            let required_role = if mounted { Role::Reader } else { Role::Admin };
            (Use::Vindex { reference: name.value.clone(), branch: named(branch) }, required_role)
        }
        ast::Use::Model { path, auto_extract } => {
            let auto_extract = auto_extract.is_some();
            (Use::Model { path: path.value.clone(), auto_extract }, Role::Admin)
        }
        ast::Use::Remote(url) => (Use::Remote(url.value.clone()), Role::Admin),
    };
    let plan = Plan::leaf(Operator::Use(operator), &[]);
    Ok(Bound { plan, tag: "USE", required_role, mount: None })
}

fn extract(request: &ast::Extract) -> Result<Extract, BindError> {
    let level = match request.level {
        None => Level::Browse,
        Some(ast::ExtractLevel::Attention) => Level::Attention,
        Some(ast::ExtractLevel::Inference) => Level::Inference,
        Some(ast::ExtractLevel::All | ast::ExtractLevel::Weights) => Level::All,
    };
    Ok(Extract {
        source: request.source.value.clone(),
        destination: request.destination.value.clone(),
        level,
        components: request.components.clone(),
        layers: request.layers.as_ref().map(|range| (range.value.first, range.value.last)),
        dtype: request.dtype.unwrap_or(ast::ExtractDtype::F16),
        quantisation: quantisation(request, level)?,
        drop_gate_vectors: request.drop_gate_vectors.is_some(),
        labels: !request.without_labels,
        overwrite: request.overwrite,
        resume: request.resume,
    })
}

/// What QUANT asks for. Options that would change nothing without it are refused.
fn quantisation(request: &ast::Extract, level: Level) -> Result<Option<Quantisation>, BindError> {
    let quant = request.quant.map(|quant| quant.value);
    let refuse = |what: &str, flag: ast::Flag, hint: &str| {
        let span = flag.map(|flag| flag.span);
        Err(BindError::Meaningless { what: what.to_owned(), span, hint: hint.to_owned() })
    };
    if quant != Some(ExtractQuant::Q4K) {
        let hint = "add QUANT Q4K, or leave it out";
        if request.down_q4k.is_some() {
            return refuse("DOWN Q4K goes with QUANT Q4K only", request.down_q4k, hint);
        }
        if request.drop_gate_vectors.is_some() {
            let flag = request.drop_gate_vectors;
            return refuse("DROP GATE VECTORS goes with QUANT Q4K only", flag, hint);
        }
    }
    let holds_down = request
        .components
        .as_ref()
        .is_none_or(|components| components.contains(&ExtractComponent::FfnDown));
    if request.down_q4k.is_some() && !(holds_down && level >= Level::Inference) {
        let hint = "extract FFN_DOWN and WITH INFERENCE, or leave it out";
        return refuse("no down vectors are stored that could be Q4K", request.down_q4k, hint);
    }
    Ok(quant.map(|quant| match quant {
        ExtractQuant::Q4K => Quantisation::Q4K { down_q4k: request.down_q4k.is_some() },
        ExtractQuant::Q8_0 => Quantisation::Q8_0,
        ExtractQuant::Fp4 => Quantisation::Fp4,
        ExtractQuant::Fp8 => Quantisation::Fp8,
    }))
}

fn setting_name(name: &Spanned<String>) -> Result<&'static str, BindError> {
    Settings::name_of(&name.value).map_err(|source| BindError::Setting { source, span: name.span })
}
