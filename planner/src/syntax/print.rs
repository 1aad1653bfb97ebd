//! AST to canonical LQL. Parsing what is printed gives the same AST.

use std::fmt::{self, Display, Formatter};

use super::ast::*;
use super::lexer::invisible_name;
use super::parser::SpannedStatement;
use super::span::Spanned;

/// Writes a string literal with the escapes it needs; what cannot be seen is written as `\u{…}`.
pub fn quoted(formatter: &mut impl fmt::Write, text: &str) -> fmt::Result {
    formatter.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' => formatter.write_str("\\\"")?,
            '\\' => formatter.write_str("\\\\")?,
            '\n' => formatter.write_str("\\n")?,
            '\t' => formatter.write_str("\\t")?,
            '\r' => formatter.write_str("\\r")?,
            '\0' => formatter.write_str("\\0")?,
            hidden if hidden.is_control() || invisible_name(hidden).is_some() => {
                write!(formatter, "\\u{{{:x}}}", u32::from(hidden))?;
            }
            shown => formatter.write_char(shown)?,
        }
    }
    formatter.write_char('"')
}

/// A string literal in canonical form.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        quoted(formatter, self.0)
    }
}

/// Items with a separator between them.
struct Joined<'a, T>(&'a [T], &'static str);

impl<T: Display> Display for Joined<'_, T> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str(self.1)?;
            }
            item.fmt(formatter)?;
        }
        Ok(())
    }
}

/// A clause that may be missing: its words, then its operand.
struct Clause<'a, T>(&'static str, &'a Option<T>);

impl<T: Display> Display for Clause<'_, T> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(operand) => write!(formatter, " {} {operand}", self.0),
            None => Ok(()),
        }
    }
}

/// As [`Clause`] for string literals.
struct TextClause<'a>(&'static str, &'a Option<Literal>);

impl Display for TextClause<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        Clause(self.0, &self.1.as_ref().map(|text| Quoted(&text.value))).fmt(formatter)
    }
}

/// As [`Clause`] for names.
struct NameClause<'a>(&'static str, &'a Option<Name>);

impl Display for NameClause<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        Clause(self.0, &self.1.as_ref().map(|name| &name.value)).fmt(formatter)
    }
}

/// As [`Clause`] for reals, in a form that parses as the same real.
struct RealClause<'a>(&'static str, &'a Option<f64>);

impl Display for RealClause<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(real) => write!(formatter, " {} {real:?}", self.0),
            None => Ok(()),
        }
    }
}

/// Words that are there or not, with a space before them.
struct Words(&'static str, bool);

impl Display for Words {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        if self.1 { write!(formatter, " {}", self.0) } else { Ok(()) }
    }
}

impl Display for Range {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

impl<T: Display> Display for Spanned<T> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.value.fmt(formatter)
    }
}

impl Display for TextOperand {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => quoted(formatter, text),
            Self::Parameter(parameter) => parameter.fmt(formatter),
        }
    }
}

impl Display for Parameter {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position(position) => write!(formatter, "${position}"),
            Self::Column(name) => write!(formatter, "${name}"),
        }
    }
}

impl Display for Reference {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => formatter.write_str("CURRENT"),
            Self::Named(name) => quoted(formatter, &name.value),
        }
    }
}

impl Display for Moment {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lsn(lsn) => write!(formatter, "AS OF LSN {lsn}"),
            Self::Patch(patch) => write!(formatter, "AS OF PATCH {}", Quoted(&patch.value)),
        }
    }
}

impl Display for Harm {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max { budget, points } => {
                write!(formatter, "WITH MAX HARM {budget:?}{}", Words("POINTS", *points))
            }
            Self::WithoutReceipt => formatter.write_str("WITHOUT RECEIPT"),
        }
    }
}

/// A budget of harm after a statement.
struct HarmClause<'a>(&'a Option<Harm>);

impl Display for HarmClause<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |harm| write!(formatter, " {harm}"))
    }
}

macro_rules! words_of {
    ($($kind:ident { $($variant:ident $word:literal),* $(,)? })*) => {
        $(impl Display for $kind {
            fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
                formatter.write_str(match self { $(Self::$variant => $word,)* })
            }
        })*
    };
}

words_of! {
    ExtractComponent {
        FfnGate "FFN_GATE", FfnDown "FFN_DOWN", FfnUp "FFN_UP", Embeddings "EMBEDDINGS",
        AttentionOv "ATTN_OV", AttentionQk "ATTN_QK",
    }
    ExtractLevel {
        Attention "ATTENTION", Inference "INFERENCE", All "ALL", Weights "WEIGHTS",
    }
    ExtractDtype { F16 "F16", F32 "F32", Source "SOURCE" }
    ExtractQuant { Q4K "Q4K", Q8_0 "Q8_0", Fp4 "FP4", Fp8 "FP8" }
    CompileFormat { Safetensors "SAFETENSORS", Gguf "GGUF" }
    CompileConflict {
        LastWins "LAST_WINS", HighestConfidence "HIGHEST_CONFIDENCE", Fail "FAIL",
    }
    MergeConflict {
        KeepSource "KEEP_SOURCE", KeepTarget "KEEP_TARGET",
        HighestConfidence "HIGHEST_CONFIDENCE",
    }
    WalkMode { Hybrid "HYBRID", Pure "PURE", Dense "DENSE" }
    Band { Syntax "SYNTAX", Knowledge "KNOWLEDGE", Output "OUTPUT" }
    Display_ { Brief "BRIEF", Verbose "VERBOSE", Raw "RAW" }
    InsertMode { Knn "KNN", Compose "COMPOSE", Memit "MEMIT" }
    IndexTarget { Gates "GATES", Targets "TARGETS", Labels "LABELS" }
}

use super::ast::Display as Display_;

impl Display for SpannedStatement {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.statement.fmt(formatter)
    }
}

impl Display for Statement {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Extract(extract) => extract.fmt(formatter),
            Self::Compile(compile) => compile.fmt(formatter),
            Self::Diff(diff) => diff.fmt(formatter),
            Self::Use(target) => target.fmt(formatter),
            Self::Mount { path, name } => {
                write!(formatter, "MOUNT {}", Quoted(&path.value))?;
                match name {
                    Some(name) => write!(formatter, " AS {}", MountName(&name.value)),
                    None => Ok(()),
                }
            }
            Self::Unmount(name) => write!(formatter, "UNMOUNT {}", MountName(&name.value)),
            Self::Walk(walk) => walk.fmt(formatter),
            Self::Infer(infer) => {
                let compare = Words("COMPARE", infer.compare.is_some());
                write!(formatter, "INFER {}{}{compare}", infer.prompt, Clause("TOP", &infer.top))
            }
            Self::Select(select) => select.fmt(formatter),
            Self::Describe(describe) => describe.fmt(formatter),
            Self::ExplainFeatures(explain) => explain.fmt(formatter),
            Self::Explain(explain) => explain.fmt(formatter),
            Self::Trace(trace) => trace.fmt(formatter),
            Self::TraceOpen(file) => write!(formatter, "TRACE OPEN {}", Quoted(&file.value)),
            Self::Generate(generate) => generate.fmt(formatter),
            Self::Insert(insert) => insert.fmt(formatter),
            Self::Delete { filter, harm } => {
                write!(formatter, "DELETE FROM EDGES WHERE {filter}{}", HarmClause(harm))
            }
            Self::Update { assignments, filter, harm } => {
                let assignments: Vec<String> =
                    assignments.iter().map(|(name, value)| format!("{name} = {value}")).collect();
                let assignments = Joined(&assignments, ", ");
                let harm = HarmClause(harm);
                write!(formatter, "UPDATE EDGES SET {assignments} WHERE {filter}{harm}")
            }
            Self::Merge { source, target, conflict, harm } => {
                write!(formatter, "MERGE {}", Quoted(&source.value))?;
                let conflict = Clause("ON CONFLICT", conflict);
                write!(formatter, "{}{conflict}{}", TextClause("INTO", target), HarmClause(harm))
            }
            Self::Rebalance { until_converged, rounds_max, floor, ceiling } => {
                write!(formatter, "REBALANCE{}", Words("UNTIL CONVERGED", *until_converged))?;
                let (floor, ceiling) = (RealClause("FLOOR", floor), RealClause("CEILING", ceiling));
                write!(formatter, "{}{floor}{ceiling}", Clause("MAX", rounds_max))
            }
            Self::CompactMinor => formatter.write_str("COMPACT MINOR"),
            Self::CompactMajor { full, lambda } => {
                let lambda = RealClause("WITH LAMBDA =", lambda);
                write!(formatter, "COMPACT MAJOR{}{lambda}", Words("FULL", *full))
            }
            Self::Begin => formatter.write_str("BEGIN"),
            Self::BeginPatch(name) => write!(formatter, "BEGIN PATCH {}", Quoted(&name.value)),
            Self::Commit => formatter.write_str("COMMIT"),
            Self::Rollback(to) => write!(formatter, "ROLLBACK{}", NameClause("TO", to)),
            Self::Savepoint(name) => write!(formatter, "SAVEPOINT {name}"),
            Self::SavePatch(name) => write!(formatter, "SAVE PATCH{}", TextClause("AS", name)),
            Self::ApplyPatch { patch, force, harm } => {
                let force = Words("FORCE", *force);
                let harm = HarmClause(harm);
                write!(formatter, "APPLY PATCH {}{force}{harm}", Quoted(&patch.value))
            }
            Self::RemovePatch(name) => write!(formatter, "REMOVE PATCH {}", Quoted(&name.value)),
            Self::CreateBranch { name, from, at } => {
                write!(formatter, "CREATE BRANCH {name}{}", NameClause("FROM", from))?;
                at.as_ref().map_or(Ok(()), |at| write!(formatter, " {at}"))
            }
            Self::DropBranch(name) => write!(formatter, "DROP BRANCH {name}"),
            Self::Blame { prompt, target, top } => {
                let top = Clause("TOP", top);
                write!(formatter, "BLAME {prompt}{}{top}", Clause("FOR", target))
            }
            Self::CreateAssertion { name, prompt, expected, at_least } => {
                let (prompt, expected) = (Quoted(&prompt.value), Quoted(&expected.value));
                write!(formatter, "CREATE ASSERTION {name} AS INFER {prompt} = {expected}")?;
                RealClause("AT LEAST", at_least).fmt(formatter)
            }
            Self::DropAssertion(name) => write!(formatter, "DROP ASSERTION {name}"),
            Self::CheckAssertions => formatter.write_str("CHECK ASSERTIONS"),
            Self::Label { facts, resume } => {
                formatter.write_str("LABEL FROM")?;
                match facts {
                    Some(file) => write!(formatter, " FACTS {}", Quoted(&file.value))?,
                    None => formatter.write_str(" DEFAULT")?,
                }
                Words("RESUME", *resume).fmt(formatter)
            }
            Self::VerifyEdge(filter) => write!(formatter, "VERIFY EDGE WHERE {filter}"),
            Self::VerifyVindex(path) => write!(formatter, "VERIFY VINDEX {}", Quoted(&path.value)),
            Self::Show(show) => show.fmt(formatter),
            Self::Stats(name) => match name {
                Some(name) => write!(formatter, "STATS {}", Quoted(&name.value)),
                None => formatter.write_str("STATS"),
            },
            Self::Set { name, value } => write!(formatter, "SET {name} = {value}"),
            Self::Reset(name) => write!(formatter, "RESET {name}"),
            Self::Prepare { name, statement } => write!(formatter, "PREPARE {name} AS {statement}"),
            Self::Execute { name, arguments } if arguments.is_empty() => {
                write!(formatter, "EXECUTE {name}")
            }
            Self::Execute { name, arguments } => {
                write!(formatter, "EXECUTE {name} ({})", Joined(arguments, ", "))
            }
            Self::Deallocate(name) => write!(formatter, "DEALLOCATE {name}"),
            Self::CreateTable { name, file } => {
                write!(formatter, "CREATE TABLE {name} FROM {}", Quoted(&file.value))
            }
            Self::DropTable(name) => write!(formatter, "DROP TABLE {name}"),
            Self::Analyze => formatter.write_str("ANALYZE"),
            Self::CreateIndex { name, target, method } => {
                let method = NameClause("USING", method);
                write!(formatter, "CREATE INDEX {name} ON {target}{method}")
            }
            Self::DropIndex(name) => write!(formatter, "DROP INDEX {name}"),
            Self::Copy { statement, file, format } => {
                let format = NameClause("FORMAT", format);
                write!(formatter, "COPY ({statement}) TO {}{format}", Quoted(&file.value))
            }
            Self::Export { file, format } => {
                write!(formatter, "EXPORT CURRENT INTO {} FORMAT {format}", Quoted(&file.value))
            }
            Self::Kill(session) => write!(formatter, "KILL {session}"),
            Self::AsOf { statement, at } => write!(formatter, "{statement} {at}"),
            Self::Pipe(stages) => Joined(stages, " |> ").fmt(formatter),
        }
    }
}

impl Display for Extract {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let (source, destination) = (Quoted(&self.source.value), Quoted(&self.destination.value));
        write!(formatter, "EXTRACT MODEL {source} INTO {destination}")?;
        let components = self.components.as_deref().map(|parts| Joined(parts, ", "));
        Clause("COMPONENTS", &components).fmt(formatter)?;
        Clause("LAYERS", &self.layers).fmt(formatter)?;
        Clause("WITH", &self.level).fmt(formatter)?;
        Clause("DTYPE", &self.dtype).fmt(formatter)?;
        Clause("QUANT", &self.quant).fmt(formatter)?;
        Words("DOWN Q4K", self.down_q4k.is_some()).fmt(formatter)?;
        Words("DROP GATE VECTORS", self.drop_gate_vectors.is_some()).fmt(formatter)?;
        Words("WITHOUT LABELS", self.without_labels).fmt(formatter)?;
        Words("OVERWRITE", self.overwrite).fmt(formatter)?;
        Words("RESUME", self.resume).fmt(formatter)
    }
}

impl Display for Compile {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let kind = if self.into_model { "MODEL" } else { "VINDEX" };
        let destination = Quoted(&self.destination.value);
        write!(formatter, "COMPILE {} INTO {kind} {destination}", self.source)?;
        Clause("FORMAT", &self.format).fmt(formatter)?;
        NameClause("DTYPE", &self.dtype).fmt(formatter)?;
        NameClause("WITH", &self.level).fmt(formatter)?;
        Clause("ON CONFLICT", &self.conflict).fmt(formatter)?;
        Words("OVERWRITE", self.overwrite).fmt(formatter)?;
        Words("VERIFY", self.verify).fmt(formatter)
    }
}

impl Display for Diff {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "DIFF {} {}", self.left, self.right)?;
        Clause("LAYER", &self.layer).fmt(formatter)?;
        TextClause("RELATION", &self.relation).fmt(formatter)?;
        Clause("LIMIT", &self.limit).fmt(formatter)?;
        TextClause("INTO PATCH", &self.into_patch).fmt(formatter)
    }
}

impl Display for Use {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vindex { reference, branch } => {
                write!(formatter, "USE {reference}{}", NameClause("BRANCH", branch))
            }
            Self::Model { path, auto_extract } => {
                let auto_extract = Words("AUTO_EXTRACT", auto_extract.is_some());
                write!(formatter, "USE MODEL {}{auto_extract}", Quoted(&path.value))
            }
            Self::Remote(url) => write!(formatter, "USE REMOTE {}", Quoted(&url.value)),
        }
    }
}

impl Display for Walk {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "WALK {}{}", self.prompt, Clause("TOP", &self.top))?;
        Clause("LAYERS", &self.layers).fmt(formatter)?;
        Clause("MODE", &self.mode).fmt(formatter)?;
        Words("COMPARE", self.compare.is_some()).fmt(formatter)
    }
}

impl Display for LayerChoice {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(layer) => write!(formatter, "AT LAYER {layer}"),
            Self::All => formatter.write_str("ALL LAYERS"),
            Self::Band(band) => band.fmt(formatter),
        }
    }
}

impl Display for Describe {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "DESCRIBE {}", self.entity)?;
        for words in
            [self.layers.as_ref().map(ToString::to_string), self.display.map(|d| d.to_string())]
        {
            words.map_or(Ok(()), |words| write!(formatter, " {words}"))?;
        }
        Words("RELATIONS ONLY", self.relations_only).fmt(formatter)?;
        Words("STREAM", self.stream).fmt(formatter)?;
        Clause("LIMIT", &self.limit).fmt(formatter)
    }
}

impl Display for ExplainFeatures {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let what = if self.infer { "INFER" } else { "WALK" };
        write!(formatter, "EXPLAIN {what} {}", self.prompt)?;
        Clause("LAYERS", &self.layers).fmt(formatter)?;
        match self.band {
            Some(Some(band)) => write!(formatter, " {band}")?,
            Some(None) => formatter.write_str(" ALL LAYERS")?,
            None => {}
        }
        Words("VERBOSE", self.verbose).fmt(formatter)?;
        Clause("TOP", &self.top).fmt(formatter)?;
        Words("RELATIONS ONLY", self.relations_only).fmt(formatter)?;
        Words("WITH ATTENTION", self.with_attention.is_some()).fmt(formatter)
    }
}

/// Whether a statement's text starts with WALK or INFER.
fn starts_with_features(statement: &Statement) -> bool {
    match statement {
        Statement::Walk(_) | Statement::Infer(_) => true,
        Statement::AsOf { statement, .. } => starts_with_features(&statement.statement),
        Statement::Pipe(stages) => {
            stages.first().is_some_and(|first| starts_with_features(&first.statement))
        }
        _ => false,
    }
}

impl Display for Explain {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "EXPLAIN{}", Words("ANALYZE", self.analyze))?;
        // Without a list, EXPLAIN WALK and EXPLAIN INFER would ask for features.
        let bare = !self.analyze && starts_with_features(&self.statement.statement);
        match (self.format, self.rules) {
            (ExplainFormat::Json, true) => formatter.write_str(" (FORMAT JSON, RULES)")?,
            (ExplainFormat::Json, false) => formatter.write_str(" (FORMAT JSON)")?,
            (ExplainFormat::Text, true) => formatter.write_str(" (RULES)")?,
            (ExplainFormat::Text, false) if bare => formatter.write_str(" (FORMAT TEXT)")?,
            (ExplainFormat::Text, false) => {}
        }
        write!(formatter, " {}", self.statement)
    }
}

impl Display for Trace {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "TRACE {}{}", self.prompt, Clause("FOR", &self.target))?;
        Words("DECOMPOSE", self.decompose).fmt(formatter)?;
        Clause("LAYERS", &self.layers).fmt(formatter)?;
        match self.all_positions {
            Some(true) => formatter.write_str(" POSITIONS ALL")?,
            Some(false) => formatter.write_str(" POSITIONS LAST")?,
            None => {}
        }
        TextClause("SAVE", &self.save).fmt(formatter)?;
        Clause("DIFF", &self.diff).fmt(formatter)
    }
}

impl Display for Generate {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "GENERATE {}{}", self.prompt, Clause("MAX", &self.tokens_max))?;
        RealClause("TEMPERATURE", &self.temperature).fmt(formatter)?;
        Clause("TOP_K", &self.top_k).fmt(formatter)?;
        RealClause("TOP_P", &self.top_p).fmt(formatter)?;
        Clause("SEED", &self.seed).fmt(formatter)?;
        self.stop.iter().try_for_each(|stop| write!(formatter, " STOP {}", Quoted(&stop.value)))
    }
}

impl Display for Insert {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let rows: Vec<String> =
            self.rows.iter().map(|row| format!("({})", Joined(row, ", "))).collect();
        let (columns, rows) = (Joined(&self.columns, ", "), Joined(&rows, ", "));
        write!(formatter, "INSERT INTO EDGES ({columns}) VALUES {rows}")?;
        Clause("AT LAYERS", &self.layers).fmt(formatter)?;
        let written = |number: &Option<Spanned<f64>>| number.map(|number| number.value);
        RealClause("CONFIDENCE", &written(&self.confidence)).fmt(formatter)?;
        RealClause("ALPHA", &written(&self.alpha)).fmt(formatter)?;
        Clause("MODE", &self.mode).fmt(formatter)?;
        HarmClause(&self.harm).fmt(formatter)
    }
}

impl Display for Show {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("SHOW ")?;
        match self {
            Self::Relations { layer, examples, display } => {
                write!(formatter, "RELATIONS{}", Clause("AT LAYER", layer))?;
                Words("WITH EXAMPLES", *examples).fmt(formatter)?;
                display.as_ref().map_or(Ok(()), |display| write!(formatter, " {display}"))
            }
            Self::Layers(range) => {
                formatter.write_str("LAYERS")?;
                range.as_ref().map_or(Ok(()), |range| write!(formatter, " {range}"))
            }
            Self::Features { layer, filter, limit } => {
                let limit = Clause("LIMIT", limit);
                write!(formatter, "FEATURES {layer}{}{limit}", Clause("WHERE", filter))
            }
            Self::Entities { layer, limit } => {
                let limit = Clause("LIMIT", limit);
                write!(formatter, "ENTITIES{}{limit}", Clause("AT LAYER", layer))
            }
            Self::Models => formatter.write_str("MODELS"),
            Self::Mounts => formatter.write_str("MOUNTS"),
            Self::Patches => formatter.write_str("PATCHES"),
            Self::CompactStatus => formatter.write_str("COMPACT STATUS"),
            Self::Branches => formatter.write_str("BRANCHES"),
            Self::Assertions => formatter.write_str("ASSERTIONS"),
            Self::Indexes => formatter.write_str("INDEXES"),
            Self::Sessions => formatter.write_str("SESSIONS"),
            Self::Setting(name) => name.fmt(formatter),
        }
    }
}

impl Display for SettingLiteral {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => quoted(formatter, word),
            Self::Integer(integer) => write!(formatter, "{integer}"),
            Self::Real(real) => write!(formatter, "{real:?}"),
        }
    }
}

impl Display for Select {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let distinct = Words("DISTINCT", self.distinct);
        write!(formatter, "SELECT{distinct} {}", Joined(&self.items, ", "))?;
        Clause("FROM", &self.from).fmt(formatter)?;
        for join in &self.joins {
            write!(formatter, " JOIN {} ON {}", join.source, join.on)?;
        }
        if let Some(nearest) = &self.nearest {
            let NearestTo { entity, layer } = &nearest.value;
            write!(formatter, " NEAREST TO {entity} AT LAYER {layer}")?;
        }
        Clause("WHERE", &self.filter).fmt(formatter)?;
        if !self.group_by.is_empty() {
            write!(formatter, " GROUP BY {}", Joined(&self.group_by, ", "))?;
        }
        Clause("HAVING", &self.having).fmt(formatter)?;
        if !self.order_by.is_empty() {
            write!(formatter, " ORDER BY {}", Joined(&self.order_by, ", "))?;
        }
        Clause("LIMIT", &self.limit).fmt(formatter)?;
        Clause("OFFSET", &self.offset).fmt(formatter)?;
        Words("APPROX", self.approximate.is_some()).fmt(formatter)
    }
}

impl Display for SelectItem {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(all) => match &all.value {
                Some(qualifier) => write!(formatter, "{qualifier}.*"),
                None => formatter.write_str("*"),
            },
            Self::Expression { expression, alias } => {
                write!(formatter, "{expression}{}", NameClause("AS", alias))
            }
        }
    }
}

impl Display for Source {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match &self.table {
            Table::Named { schema: Some(schema), name } => write!(formatter, "{schema}.{name}")?,
            Table::Named { schema: None, name } => name.fmt(formatter)?,
            Table::Select(select) => write!(formatter, "({select})")?,
        }
        NameClause("AS", &self.alias).fmt(formatter)
    }
}

impl Display for OrderKey {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.expression, Words("DESC", self.descending))
    }
}

/// How tightly an expression binds; an operand that binds less tightly than its place asks for is
/// put in parentheses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Or,
    And,
    Not,
    Predicate,
    Sum,
    Product,
    Operand,
}

impl ExpressionKind {
    fn binding(&self) -> Binding {
        match self {
            Self::Or(_) => Binding::Or,
            Self::And(_) => Binding::And,
            Self::Not(_) => Binding::Not,
            Self::Comparison { .. }
            | Self::Like { .. }
            | Self::InList { .. }
            | Self::Between { .. }
            | Self::IsNull { .. } => Binding::Predicate,
            Self::Arithmetic { rest, .. } => match rest.first() {
                Some((operator, _)) if operator.is_additive() => Binding::Sum,
                _ => Binding::Product,
            },
            _ => Binding::Operand,
        }
    }
}

/// An expression where at least `Binding` is asked for.
struct Operand<'a>(&'a Expression, Binding);

impl Display for Operand<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        if self.0.value.binding() < self.1 {
            write!(formatter, "({})", self.0)
        } else {
            self.0.fmt(formatter)
        }
    }
}

fn write_chain(
    formatter: &mut Formatter<'_>,
    operands: &[Expression],
    word: &'static str,
    binding: Binding,
) -> fmt::Result {
    for (index, operand) in operands.iter().enumerate() {
        if index > 0 {
            formatter.write_str(word)?;
        }
        Operand(operand, binding).fmt(formatter)?;
    }
    Ok(())
}

impl Display for ExpressionKind {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let not = |negated: &bool| if *negated { " NOT" } else { "" };
        match self {
            Self::Null => formatter.write_str("NULL"),
            Self::Boolean(true) => formatter.write_str("TRUE"),
            Self::Boolean(false) => formatter.write_str("FALSE"),
            Self::Integer(integer) => write!(formatter, "{integer}"),
            Self::Real(real) => write!(formatter, "{real:?}"),
            Self::Text(text) => quoted(formatter, text),
            Self::Parameter(parameter) => parameter.fmt(formatter),
            Self::Column { qualifier: Some(qualifier), name } => {
                write!(formatter, "{qualifier}.{name}")
            }
            Self::Column { qualifier: None, name } => formatter.write_str(name),
            Self::Not(operand) => write!(formatter, "NOT {}", Operand(operand, Binding::Not)),
            Self::And(operands) => write_chain(formatter, operands, " AND ", Binding::Not),
            Self::Or(operands) => write_chain(formatter, operands, " OR ", Binding::And),
            Self::Comparison { operator, left, right } => {
                let (left, right) = (Operand(left, Binding::Sum), Operand(right, Binding::Sum));
                write!(formatter, "{left} {} {right}", operator.symbol())
            }
            Self::Like { value, pattern, negated } => {
                let (value, pattern) =
                    (Operand(value, Binding::Sum), Operand(pattern, Binding::Sum));
                write!(formatter, "{value}{} LIKE {pattern}", not(negated))
            }
            Self::InList { value, list, negated } => {
                let value = Operand(value, Binding::Sum);
                write!(formatter, "{value}{} IN ({})", not(negated), Joined(list, ", "))
            }
            Self::Between { value, low, high, negated } => {
                let value = Operand(value, Binding::Sum);
                let (low, high) = (Operand(low, Binding::Sum), Operand(high, Binding::Sum));
                write!(formatter, "{value}{} BETWEEN {low} AND {high}", not(negated))
            }
            Self::IsNull { value, negated } => {
                write!(formatter, "{} IS{} NULL", Operand(value, Binding::Sum), not(negated))
            }
            Self::Arithmetic { first, rest } => {
                let tighter = if self.binding() == Binding::Sum {
                    Binding::Product
                } else {
                    Binding::Operand
                };
                Operand(first, tighter).fmt(formatter)?;
                rest.iter().try_for_each(|(operator, operand)| {
                    write!(formatter, " {} {}", operator.symbol(), Operand(operand, tighter))
                })
            }
            Self::Negate(operand) => write!(formatter, "-({operand})"),
            Self::Function { name, distinct, arguments } => match arguments {
                None => write!(formatter, "{name}(*)"),
                Some(arguments) => {
                    let distinct = if *distinct { "DISTINCT " } else { "" };
                    write!(formatter, "{name}({distinct}{})", Joined(arguments, ", "))
                }
            },
        }
    }
}

/// A mount's name: bare where that reads back, else quoted.
struct MountName<'a>(&'a str);

impl Display for MountName<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let mut characters = self.0.chars();
        let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if first && characters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            formatter.write_str(self.0)
        } else {
            quoted(formatter, self.0)
        }
    }
}
