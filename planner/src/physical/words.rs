//! Operators in words: the name and the detail that EXPLAIN shows.

use std::fmt::{self, Display, Formatter, Write as _};

use super::edit::{Compact, Edit};
use super::generate::Generate;
use super::plan::{
    Compile, CompileConflict, Diff, EdgeSources, EditedEdges, Explain, Extract, FfnPath, GateScan,
    KnownEdges, Level, Operator, Quantisation, QueryVector, RelationCount, SortKey, Use,
    WeightType,
};
use super::trace::Trace;
use super::transaction::Transaction;
use crate::bind::expression::Expression;
use crate::layers::Slot;
use crate::syntax::ast::InsertMode;
use crate::syntax::print::quoted;
use crate::value::Column;

/// The most slots that a detail lists.
const SLOTS_SHOWN_MAX: usize = 8;
/// The most texts that a detail lists.
const TEXTS_SHOWN_MAX: usize = 4;

impl Operator {
    /// The operator's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::FeatureScan(_) => "FeatureScan",
            Self::SlotLookup(_) => "SlotLookup",
            Self::PostingLookup(_) => "PostingLookup",
            Self::EntityLookup { .. } => "EntityLookup",
            Self::GateScan(_) => "GateScan",
            Self::GateIndexScan(_) => "GateIndexScan",
            Self::GateSlots(_) => "GateSlots",
            Self::Nearest(_) => "Nearest",
            Self::OneRow => "OneRow",
            Self::TableScan(_) => "TableScan",
            Self::NestedLoopJoin { .. } => "NestedLoopJoin",
            Self::HashJoin(_) => "HashJoin",
            Self::Aggregate { .. } => "Aggregate",
            Self::ForEach(_) => "ForEach",
            Self::Filter { .. } => "Filter",
            Self::Project { .. } => "Project",
            Self::Sort { .. } => "Sort",
            Self::TopN { .. } => "TopN",
            Self::Limit { .. } => "Limit",
            Self::Distinct => "Distinct",
            Self::Concatenate => "Concatenate",
            Self::DescribeEdges(_) => "DescribeEdges",
            Self::EntityCount => "EntityCount",
            Self::RelationCount(_) => "RelationCount",
            Self::LayerStatistics { .. } => "LayerStatistics",
            Self::ShowModels => "ShowModels",
            Self::ShowMounts => "ShowMounts",
            Self::ShowSessions => "ShowSessions",
            Self::ShowStatements => "ShowStatements",
            Self::ShowCaches => "ShowCaches",
            Self::ShowTables => "ShowTables",
            Self::CachedAnswer { .. } => "CachedAnswer",
            Self::ShowPatches => "ShowPatches",
            Self::ShowBranches => "ShowBranches",
            Self::Edit(_) => "Edit",
            Self::Rebalance(_) => "Rebalance",
            Self::ShowWal => "ShowWal",
            Self::ShowAssertions => "ShowAssertions",
            Self::CheckAssertions => "CheckAssertions",
            Self::Blame(_) => "Blame",
            Self::Compact(_) => "Compact",
            Self::CompactStatus => "CompactStatus",
            Self::Transaction(_) => "Transaction",
            Self::Kill { .. } => "Kill",
            Self::Statistics { .. } => "Statistics",
            Self::Infer(_) => "Infer",
            Self::ExplainInfer(_) => "ExplainInfer",
            Self::Generate(_) => "Generate",
            Self::Trace(_) => "Trace",
            Self::TraceOpen { .. } => "TraceOpen",
            Self::Use(_) => "Use",
            Self::Mount { .. } => "Mount",
            Self::Unmount { .. } => "Unmount",
            Self::Extract(_) => "Extract",
            Self::Compile(_) => "Compile",
            Self::Diff(_) => "Diff",
            Self::Label(_) => "Label",
            Self::KnownEdges(_) => "KnownEdges",
            Self::EditedEdges(_) => "EditedEdges",
            Self::VerifyEdge(_) => "VerifyEdge",
            Self::VerifyVindex { .. } => "VerifyVindex",
            Self::CreateIndex(_) => "CreateIndex",
            Self::DropIndex { .. } => "DropIndex",
            Self::Analyze => "Analyze",
            Self::ShowIndexes => "ShowIndexes",
            Self::Set(_) => "Set",
            Self::Reset { .. } => "Reset",
            Self::ShowSetting { .. } => "ShowSetting",
            Self::Write(_) => "Write",
            Self::CreateTable { .. } => "CreateTable",
            Self::DropTable { .. } => "DropTable",
            Self::Prepare { .. } => "Prepare",
            Self::Deallocate { .. } => "Deallocate",
            Self::Explain(_) => "Explain",
        }
    }

    /// The operands in words. `columns` are those of the operator's rows.
    pub fn detail(&self, columns: &[Column]) -> String {
        let mut detail = Detail::default();
        match self {
            Self::FeatureScan(scan) => {
                detail.add(format_args!("layers {}", scan.layers));
                detail.add_optional("at most", scan.rows_max.as_ref());
                detail.columns(columns);
            }
            Self::SlotLookup(lookup) => {
                detail.add(Slots(&lookup.slots));
                detail.columns(columns);
            }
            Self::PostingLookup(lookup) => {
                detail.add(format_args!("index {}", lookup.index));
                for text in lookup.texts.iter().take(TEXTS_SHOWN_MAX) {
                    detail.add(Quoted(text));
                }
                let more = lookup.texts.len().saturating_sub(TEXTS_SHOWN_MAX);
                detail.add_optional("and more:", Some(more).filter(|more| *more > 0).as_ref());
                detail.add(format_args!("layers {}", lookup.layers));
                detail.columns(columns);
            }
            Self::EntityLookup { index } => detail.add(format_args!("index {index}")),
            Self::CreateIndex(index) => {
                detail.add(format_args!("{} on {}", index.name, index.target));
                detail.add(index.method.name());
            }
            Self::DropIndex { name } => detail.add(name),
            Self::GateScan(scan) => gate_scan_detail(&mut detail, scan, columns),
            Self::GateIndexScan(by) => {
                detail.add(format_args!("index {}", by.index));
                gate_scan_detail(&mut detail, &by.scan, columns);
            }
            Self::GateSlots(scan) => {
                detail.add(&scan.query);
                detail.add(Slots(&scan.slots));
                detail.add_optional("z >=", scan.z_min.as_ref());
                detail.columns(columns);
            }
            Self::Nearest(nearest) => {
                detail.add(format_args!("entity {}", Quoted(&nearest.entity)));
                detail.add(format_args!("layer {}", nearest.layer));
                detail.add_optional("K", nearest.k.as_ref());
                detail.columns(columns);
            }
            Self::TableScan(scan) => {
                match &scan.schema {
                    Some(schema) => detail.add(format_args!("{schema}.{}", scan.name)),
                    None => detail.add(&scan.name),
                }
                detail.columns(columns);
            }
            Self::NestedLoopJoin { on: Some(on) } => detail.add(on),
            Self::NestedLoopJoin { on: None } => detail.add("all pairs"),
            Self::HashJoin(join) => {
                for (left, right) in &join.keys {
                    detail.add(format_args!("{} = {}", Inner(left), Inner(right)));
                }
                detail.add_optional("and", join.rest.as_ref());
            }
            Self::Aggregate { keys, aggregates } => {
                aggregates.iter().for_each(|aggregate| detail.add(aggregate));
                let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
                detail.add_if(!keys.is_empty(), &format!("by {}", keys.join(", ")));
            }
            Self::ForEach(each) => detail.add(&each.statement.statement),
            Self::Prepare { name, prepared } => {
                detail.add(format_args!("{name}: {}", prepared.statement.statement));
            }
            Self::Write(write) => {
                detail.add(format_args!("{} to {}", write.format.name(), Quoted(&write.path)));
            }
            Self::CreateTable { name, file } => {
                detail.add(format_args!("{name} from {}", Quoted(file)));
            }
            Self::Deallocate { name } | Self::DropTable { name } => detail.add(name),
            Self::Filter { predicate } => detail.add(predicate),
            Self::Project { expressions } => {
                for (expression, column) in expressions.iter().zip(columns) {
                    let expression = expression.to_string();
                    if expression == column.name {
                        detail.add(expression);
                    } else {
                        detail.add(format_args!("{expression} AS {}", column.name));
                    }
                }
            }
            Self::Sort { keys } => keys.iter().for_each(|key| detail.add(key)),
            Self::TopN { keys, count, offset } => {
                detail.add(count);
                detail.add_optional("after", Some(offset).filter(|offset| **offset > 0));
                let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
                detail.add(format_args!("by {}", keys.join(", ")));
            }
            Self::Limit { count, offset } => {
                match count {
                    Some(count) => detail.add(count),
                    None => detail.add("all"),
                }
                detail.add_optional("after", Some(offset).filter(|offset| **offset > 0));
            }
            Self::DescribeEdges(edges) => {
                detail.add(format_args!("entity {}", Quoted(&edges.entity)));
                detail.add(edges.display.name());
                if edges.sources != EdgeSources::default() {
                    detail.add(format_args!("from {}", edges.sources));
                }
                detail.add_if(edges.relations_only, "relations only");
                detail.add_optional("limit", edges.limit.as_ref());
                detail.add_if(edges.stream, "stream");
            }
            Self::RelationCount(RelationCount { examples, raw, .. }) => {
                detail.add_if(*raw, "of clusters");
                detail.add_if(*examples, "with examples");
            }
            Self::LayerStatistics { layers } => detail.add(format_args!("layers {layers}")),
            Self::Statistics { mount } => detail.add(Quoted(mount)),
            Self::Infer(infer) => {
                detail.add(format_args!("prompt {}", Quoted(&infer.prompt)));
                detail.add(format_args!("top {}", infer.top));
                detail.add(format_args!("ffn {}", infer.ffn));
            }
            Self::ExplainInfer(explain) => {
                detail.add(format_args!("prompt {}", Quoted(&explain.prompt)));
                detail.add(format_args!("layers {}", explain.layers));
                detail.add(format_args!("top {}", explain.top));
                detail.add(format_args!("ffn {}", explain.ffn));
                detail.add_if(explain.attention, "with attention");
                detail.columns(columns);
            }
            Self::Generate(generate) => generate_detail(&mut detail, generate),
            Self::Trace(trace) => trace_detail(&mut detail, trace),
            Self::TraceOpen { path } => detail.add(Quoted(path)),
            Self::Use(target) => match target {
                Use::Vindex { reference, branch } => {
                    detail.add(Quoted(reference));
                    detail.add_optional("branch", branch.as_ref());
                }
                Use::Model { path, auto_extract } => {
                    detail.add(format_args!("model {}", Quoted(path)));
                    if *auto_extract {
                        detail.add("extracted when it is edited");
                    }
                }
                Use::Remote(url) => detail.add(format_args!("remote {}", Quoted(url))),
                Use::Current { branch } => {
                    detail.add("current");
                    detail.add_optional("branch", branch.as_ref());
                }
            },
            Self::Mount { path, name } => {
                detail.add(Quoted(path));
                detail.add_optional("as", name.as_ref());
            }
            Self::Transaction(transaction) => transaction_detail(&mut detail, transaction),
            Self::Edit(edit) => {
                detail.add(edit.tag());
                match edit {
                    Edit::Insert(insert) => {
                        let count = insert.facts.len();
                        let noun = if count == 1 { "fact" } else { "facts" };
                        detail.add(format_args!("{count} {noun}"));
                        let mode = insert.mode.map(|mode| match mode {
                            InsertMode::Knn => "knn",
                            InsertMode::Compose => "compose",
                            InsertMode::Memit => "memit",
                        });
                        detail.add_optional("mode", mode.as_ref());
                    }
                    Edit::Merge(merge) => detail.add(format_args!("{}", Quoted(&merge.source))),
                    Edit::Delete { .. } | Edit::Update { .. } => {}
                }
            }
            Self::Blame(blame) => {
                detail.add(format_args!("prompt {}", Quoted(&blame.prompt)));
                detail.add_optional("for", blame.target.as_ref().map(|text| Quoted(text)).as_ref());
                detail.add(format_args!("at most {}", blame.top));
            }
            Self::Compact(Compact::Minor) => detail.add("minor"),
            Self::Compact(Compact::Major { full, lambda }) => {
                detail.add("major");
                detail.add_if(*full, "full");
                detail.add_optional("lambda", lambda.as_ref());
            }
            Self::Kill { session } => detail.add(format_args!("session {session}")),
            Self::Unmount { name } => detail.add(name),
            Self::Extract(extract) => extract_detail(&mut detail, extract),
            Self::Compile(compile) => compile_detail(&mut detail, compile),
            Self::Rebalance(band) => detail.add(format_args!(
                "{} to {}, at most {} rounds",
                band.floor, band.ceiling, band.rounds
            )),
            Self::Diff(diff) => diff_detail(&mut detail, diff),
            Self::KnownEdges(KnownEdges { entity, .. })
            | Self::EditedEdges(EditedEdges { entity, .. }) => {
                detail.add_optional("entity", entity.as_ref().map(|text| Quoted(text)).as_ref());
                detail.columns(columns);
            }
            Self::VerifyEdge(edge) => {
                for (name, text) in [
                    ("entity", &edge.entity),
                    ("relation", &edge.relation),
                    ("target", &edge.target),
                ] {
                    detail.add_optional(name, text.as_ref().map(|text| Quoted(text)).as_ref());
                }
                detail.add_optional(
                    "slot",
                    edge.slot.map(|(layer, feature)| format!("L{layer}_F{feature}")).as_ref(),
                );
            }
            Self::Label(label) => {
                match &label.facts {
                    Some(path) => detail.add(format_args!("from facts {}", Quoted(path))),
                    None => detail.add("from default"),
                }
                detail.add_if(label.resume, "resume");
            }
            Self::VerifyVindex { path } => detail.add(Quoted(path)),
            Self::Set(change) => detail.add(format_args!("{} = {}", change.name(), change.value())),
            Self::Reset { name } => detail.add(name),
            Self::ShowSetting { name } => detail.add(name.unwrap_or("all")),
            Self::Explain(Explain { analyze, rules, .. }) => {
                detail.add_if(*analyze, "analyze");
                detail.add_if(rules.is_some(), "rules");
            }
            Self::OneRow
            | Self::Distinct
            | Self::Concatenate
            | Self::EntityCount
            | Self::ShowModels
            | Self::ShowMounts
            | Self::ShowSessions
            | Self::ShowStatements
            | Self::ShowCaches
            | Self::ShowTables
            | Self::ShowPatches
            | Self::ShowBranches
            | Self::ShowWal
            | Self::ShowAssertions
            | Self::CheckAssertions
            | Self::CompactStatus
            | Self::CachedAnswer { .. }
            | Self::Analyze
            | Self::ShowIndexes => {}
        }
        detail.text
    }
}

fn gate_scan_detail(detail: &mut Detail, scan: &GateScan, columns: &[Column]) {
    detail.add(&scan.query);
    detail.add(format_args!("layers {}", scan.layers));
    detail.add_optional("K", scan.k.as_ref());
    detail.add_optional("z >=", scan.z_min.as_ref());
    detail.add_if(scan.approximate, "approx");
    detail.columns(columns);
}

fn generate_detail(detail: &mut Detail, generate: &Generate) {
    detail.add(format_args!("prompt {}", Quoted(&generate.prompt)));
    detail.add(format_args!("at most {} tokens", generate.tokens_max));
    detail.add(format_args!("temperature {}", generate.temperature));
    detail.add_optional("top_k", generate.top_k.as_ref());
    detail.add_optional("top_p", generate.top_p.as_ref());
    detail.add_optional("seed", generate.seed.as_ref());
    for stop in &generate.stop {
        detail.add(format_args!("until {}", Quoted(stop)));
    }
    detail.add(format_args!("ffn {}", generate.ffn));
}

fn transaction_detail(detail: &mut Detail, transaction: &Transaction) {
    detail.add(transaction.tag().to_lowercase());
    match transaction {
        Transaction::Begin | Transaction::Commit => {}
        Transaction::Rollback(name) => detail.add_optional("to", name.as_ref()),
        Transaction::Savepoint(name)
        | Transaction::DropBranch(name)
        | Transaction::DropAssertion(name) => detail.add(name),
        Transaction::CreateAssertion { name, prompt, expected, at_least } => {
            detail.add(name);
            detail.add(format_args!("{} = {}", Quoted(prompt), Quoted(expected)));
            detail.add_optional("at least", at_least.as_ref());
        }
        Transaction::SavePatch(name) => {
            detail.add_optional("as", name.as_ref().map(|name| Quoted(name)).as_ref());
        }
        Transaction::BeginPatch(name) | Transaction::RemovePatch(name) => detail.add(Quoted(name)),
        Transaction::ApplyPatch { patch, force, .. } => {
            detail.add(Quoted(patch));
            detail.add_if(*force, "force");
        }
        Transaction::CreateBranch { name, from, at } => {
            detail.add(name);
            detail.add_optional("from", from.as_ref());
            if let Some(at) = at {
                detail.add(at);
            }
        }
    }
}

fn trace_detail(detail: &mut Detail, trace: &Trace) {
    detail.add(format_args!("prompt {}", Quoted(&trace.prompt)));
    if let Some(other) = &trace.other {
        detail.add(format_args!("less prompt {}", Quoted(other)));
    }
    match &trace.target {
        Some(target) => detail.add(format_args!("token {}", Quoted(target))),
        None => detail.add("predicted token"),
    }
    detail.add(format_args!("layers {}", trace.layers));
    detail.add_if(trace.decompose, "with embedding");
    detail.add(if trace.all_positions { "all positions" } else { "last position" });
    detail.add(format_args!("ffn {}", trace.ffn));
    if let Some(save) = &trace.save {
        detail.add(format_args!("save {} to {}", save.format, Quoted(&save.path)));
    }
}

fn extract_detail(detail: &mut Detail, extract: &Extract) {
    detail.add(format_args!("{} into {}", Quoted(&extract.source), Quoted(&extract.destination)));
    detail.add(format_args!("level {}", extract.level.name()));
    detail.add(format_args!("dtype {}", extract.dtype.to_string().to_lowercase()));
    detail.add_optional("quant", extract.quantisation.map(Quantisation::name).as_ref());
    detail.add_if(extract.drop_gate_vectors, "drop gate vectors");
    if let Some((first, last)) = extract.layers {
        detail.add(format_args!("layers {first}-{last}"));
    }
    if let Some(components) = &extract.components {
        let names: Vec<String> = components.iter().map(ToString::to_string).collect();
        detail.add(format_args!("components {}", names.join(" ")));
    }
    detail.add_if(!extract.labels, "without labels");
    detail.add_if(extract.overwrite, "overwrite");
    detail.add_if(extract.resume, "resume");
}

fn diff_detail(detail: &mut Detail, diff: &Diff) {
    let side = |name: &Option<String>| match name {
        Some(name) => Quoted(name).to_string(),
        None => "current".to_owned(),
    };
    detail.add(format_args!("{} to {}", side(&diff.left), side(&diff.right)));
    detail.add_optional("layer", diff.layer.as_ref());
    detail.add_optional("relation", diff.relation.as_deref().map(Quoted).as_ref());
    detail.add_optional("into patch", diff.into_patch.as_deref().map(Quoted).as_ref());
}

fn compile_detail(detail: &mut Detail, compile: &Compile) {
    let destination = Quoted(&compile.destination);
    match &compile.source {
        Some(source) => detail.add(format_args!("{} into {destination}", Quoted(source))),
        None => detail.add(format_args!("current into {destination}")),
    }
    if compile.into_vindex {
        detail.add("vindex");
        detail.add_optional("level", compile.level.map(Level::name).as_ref());
        let rule = compile.conflict.to_string().to_lowercase().replace('_', " ");
        detail.add_if(compile.conflict != CompileConflict::LastWins, &rule);
    } else {
        detail.add(format_args!("format {}", compile.format.to_string().to_lowercase()));
    }
    detail.add_optional("dtype", compile.dtype.map(WeightType::name).as_ref());
    detail.add_if(compile.overwrite, "overwrite");
    detail.add_if(compile.verify, "verify");
}

/// Phrases with commas between them.
#[derive(Default)]
struct Detail {
    text: String,
}

impl Detail {
    fn add(&mut self, phrase: impl Display) {
        let separator = if self.text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{separator}{phrase}");
    }

    fn add_if(&mut self, condition: bool, phrase: &str) {
        if condition {
            self.add(phrase);
        }
    }

    fn add_optional(&mut self, words: &str, operand: Option<&impl Display>) {
        if let Some(operand) = operand {
            self.add(format_args!("{words} {operand}"));
        }
    }

    fn columns(&mut self, columns: &[Column]) {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(" ") };
        self.add(format_args!("giving {names}"));
    }
}

/// The longest text that a detail quotes, in characters.
const QUOTED_CHARACTERS_MAX: usize = 60;

struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(QUOTED_CHARACTERS_MAX) {
            Some((at, _)) => {
                quoted(formatter, &self.0[..at])?;
                formatter.write_char('…')
            }
            None => quoted(formatter, self.0),
        }
    }
}

struct Slots<'a>(&'a [Slot]);

impl Display for Slots<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(formatter, "{} slot{plural}", self.0.len())?;
        for slot in self.0.iter().take(SLOTS_SHOWN_MAX) {
            write!(formatter, " {slot}")?;
        }
        if self.0.len() > SLOTS_SHOWN_MAX { formatter.write_str(" …") } else { Ok(()) }
    }
}

impl Display for QueryVector {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entity(text) => write!(formatter, "entity {}", Quoted(text)),
            Self::LastToken(text) => write!(formatter, "last token of {}", Quoted(text)),
        }
    }
}

impl Display for FfnPath {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense => formatter.write_str("dense"),
            Self::Walk { k: None } => formatter.write_str("walk of all features"),
            Self::Walk { k: Some(k) } => write!(formatter, "walk of {k} features"),
        }
    }
}

impl Display for SortKey {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let direction = if self.descending { " DESC" } else { "" };
        write!(formatter, "{}{direction}", self.expression)
    }
}

impl Display for Expression {
    /// As it would be written, fully parenthesised below the top.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column { name, .. } => formatter.write_str(name),
            Self::Literal(value) => value.fmt(formatter),
            Self::Not(operand) => write!(formatter, "NOT {}", Inner(operand)),
            Self::And(operands) => chain(formatter, operands, " AND "),
            Self::Or(operands) => chain(formatter, operands, " OR "),
            Self::Comparison { operator, left, right } => {
                write!(formatter, "{} {} {}", Inner(left), operator.symbol(), Inner(right))
            }
            Self::Like { value, pattern } => {
                write!(formatter, "{} LIKE {}", Inner(value), Inner(pattern))
            }
            Self::InList { value, list } => {
                write!(formatter, "{} IN (", Inner(value))?;
                chain(formatter, list, ", ")?;
                formatter.write_str(")")
            }
            Self::InSet { value, set, has_null } => {
                write!(formatter, "{} IN (", Inner(value))?;
                for (index, one) in set.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(formatter, "{separator}{one}")?;
                }
                formatter.write_str(if *has_null { ", NULL)" } else { ")" })
            }
            Self::IsNull(operand) => write!(formatter, "{} IS NULL", Inner(operand)),
            Self::Arithmetic { first, rest } => {
                Inner(first).fmt(formatter)?;
                rest.iter().try_for_each(|(operator, operand)| {
                    write!(formatter, " {} {}", operator.symbol(), Inner(operand))
                })
            }
            Self::Negate(operand) => write!(formatter, "-{}", Inner(operand)),
            Self::Function { function, arguments } => {
                write!(formatter, "{}(", function.name())?;
                chain(formatter, arguments, ", ")?;
                formatter.write_str(")")
            }
        }
    }
}

fn chain(formatter: &mut Formatter<'_>, operands: &[Expression], word: &str) -> fmt::Result {
    for (index, operand) in operands.iter().enumerate() {
        if index > 0 {
            formatter.write_str(word)?;
        }
        Inner(operand).fmt(formatter)?;
    }
    Ok(())
}

/// An operand within an expression, in parentheses unless it is a column, constant or function.
struct Inner<'a>(&'a Expression);

impl Display for Inner<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expression::Column { .. } | Expression::Literal(_) | Expression::Function { .. } => {
                self.0.fmt(formatter)
            }
            inner => write!(formatter, "({inner})"),
        }
    }
}
